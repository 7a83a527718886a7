use super::*;
use facestudio::weights::Tensors;

fn tensors(all: &[(&str, &[usize], &[f32])]) -> Tensors {
    Tensors(
        all.iter()
            .map(|(name, shape, values)| ((*name).to_owned(), (shape.to_vec(), values.to_vec())))
            .collect(),
    )
}

const PATH: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";

/// What is merged into the tensor `name` of `inner`.
fn merged(inner: &Tensors, network: Network, lora: &Tensors, config: &str, name: &str) -> Result<Vec<f32>> {
    let config = Config::parse(config)?;
    let lora = Lora::new(Path::new("l.safetensors"), lora, &config, 2.0)?;
    lora.refuse_idle(&[network])?;
    let merged = Merged::new(inner, network, &[&lora])?;
    assert_eq!(merged.count(), 1);
    merged.read(name)
}

#[test]
fn every_key_style_gives_the_same_merged_weight() {
    let weight = format!("{PATH}.weight");
    let inner = tensors(&[(&weight, &[2, 3], &[0.0; 6])]);
    let kohya = format!("lora_unet_{}", PATH.replace('.', "_"));
    let attention = PATH.strip_suffix(".to_q").unwrap();
    let original = "input_blocks.1.1.transformer_blocks.0.attn1.to_q";
    let inner_with_blocks =
        tensors(&[(&weight, &[2, 3], &[0.0; 6]), ("down_blocks.0.resnets.0.conv1.weight", &[1, 1], &[0.0])]);
    let styles = [
        (kohya.clone(), ["lora_down", "lora_up"], "."),
        (kohya, ["lora_A", "lora_B"], "."),
        (format!("unet.{PATH}"), ["lora_A", "lora_B"], "."),
        (format!("unet.{PATH}"), ["lora.down", "lora.up"], "."),
        (PATH.to_owned(), ["lora_A", "lora_B"], "."),
        (format!("base_model.model.{PATH}"), ["lora_A", "lora_B"], "."),
        (format!("unet.{attention}.processor.to_q"), ["lora.down", "lora.up"], "_"),
        (format!("{attention}.processor.to_q"), ["lora.down", "lora.up"], "_"),
        (format!("lora_unet_{}", original.replace('.', "_")), ["lora_down", "lora_up"], "."),
        (format!("diffusion_model.{original}"), ["lora_A", "lora_B"], "."),
        (format!("model.diffusion_model.{original}"), ["lora_down", "lora_up"], "."),
    ];
    for (module, [down, up], dot) in styles {
        let alpha = if dot == "_" { format!("{module}_lora.alpha") } else { format!("{module}.alpha") };
        let lora = tensors(&[
            (&format!("{module}{dot}{down}.weight"), &[1, 3], &[1.0, 2.0, 3.0]),
            (&format!("{module}{dot}{up}.weight"), &[2, 1], &[1.0, -1.0]),
            (&alpha, &[], &[0.5]),
        ]);
        for config in ["{}", r#"{"unet.r": 1, "unet.lora_alpha": 0.5}"#] {
            let inner = if module.contains("input") { &inner_with_blocks } else { &inner };
            let weight = merged(inner, Network::Unet, &lora, config, &weight).unwrap();
            assert_eq!(weight, [1.0, 2.0, 3.0, -1.0, -2.0, -3.0], "{module} {down}");
        }
    }
}

#[test]
fn an_update_that_does_not_fit_is_refused_by_name() {
    let weight = format!("{PATH}.weight");
    let inner = tensors(&[(&weight, &[2, 4], &[0.0; 8]), ("conv_in.weight", &[2, 1, 3, 1], &[0.0; 6])]);
    let (down, up) = (format!("unet.{PATH}.lora_A.weight"), format!("unet.{PATH}.lora_B.weight"));
    let refused = |lora: &Tensors, config: &str, code: &str, named: &str| {
        let error = merged(&inner, Network::Unet, lora, config, &weight).unwrap_err();
        assert!(error.code == code && error.message.contains(named), "{error}");
    };
    let sided = |down_shape: &[usize], up_shape: &[usize]| {
        let zeros = |shape: &[usize]| vec![0.0; shape.iter().product()];
        tensors(&[(&down, down_shape, &zeros(down_shape)), (&up, up_shape, &zeros(up_shape))])
    };
    for (down_shape, up_shape) in [
        (&[1, 3][..], &[2, 1][..]),
        (&[1, 4], &[3, 1]),
        (&[2, 4], &[2, 1]),
        (&[0, 4], &[2, 0]),
        (&[1, 2, 2], &[2, 1]),
        (&[4], &[2]),
        (&[1, 4], &[2, 1, 2]),
    ] {
        refused(&sided(down_shape, up_shape), "{}", "lora-mismatch", &down);
    }
    let with = |name: &str, shape: &[usize], values: &[f32]| {
        let mut lora = sided(&[1, 4], &[2, 1]);
        lora.0.insert(name.to_owned(), (shape.to_vec(), values.to_vec()));
        lora
    };
    let alpha = format!("unet.{PATH}.alpha");
    refused(&with(&alpha, &[], &[f32::NAN]), "{}", "lora-config", &alpha);
    refused(&with(&alpha, &[2], &[1.0, 1.0]), "{}", "lora-config", &alpha);
    refused(&with(&alpha, &[], &[1.0]), r#"{"r": 1, "lora_alpha": 2}"#, "lora-config", &alpha);
    // peft cannot merge it either: the layer has no bias.
    let bias = format!("unet.{PATH}.lora_B.bias");
    refused(&with(&bias, &[2], &[1.0, 1.0]), "{}", "lora-mismatch", &bias);
    let lost = tensors(&[
        ("lora_unet_down_blocks_9_attentions_0_proj_in.lora_down.weight", &[1, 4], &[0.0; 4]),
        ("lora_unet_down_blocks_9_attentions_0_proj_in.lora_up.weight", &[2, 1], &[0.0; 2]),
    ]);
    refused(&lost, "{}", "lora-mismatch", "'lora_unet_down_blocks_9_attentions_0_proj_in.lora_down.weight'");
    let mut twice = sided(&[1, 4], &[2, 1]);
    let kohya = format!("lora_unet_{}", PATH.replace('.', "_"));
    twice.0.insert(format!("{kohya}.lora_down.weight"), twice.0[&down].clone());
    twice.0.insert(format!("{kohya}.lora_up.weight"), twice.0[&up].clone());
    refused(&twice, "{}", "lora-mismatch", &kohya);
    let of_text = tensors(&[
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", &[1, 4], &[0.0; 4]),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", &[2, 1], &[0.0; 2]),
    ]);
    refused(&of_text, "{}", "lora-mismatch", "text_encoder");
}

#[test]
fn another_networks_updates_wait_for_it() {
    let weight = format!("{PATH}.weight");
    let inner = tensors(&[(&weight, &[1, 1], &[0.0])]);
    let lora = tensors(&[
        (&format!("unet.{PATH}.lora_A.weight"), &[1, 1], &[1.0]),
        (&format!("unet.{PATH}.lora_B.weight"), &[1, 1], &[1.0]),
        ("text_encoder.text_model.encoder.layers.7.mlp.fc1.lora_A.weight", &[1, 1], &[1.0]),
        ("text_encoder.text_model.encoder.layers.7.mlp.fc1.lora_B.weight", &[1, 1], &[1.0]),
    ]);
    assert_eq!(merged(&inner, Network::Unet, &lora, "{}", &weight).unwrap(), [2.0]);
}
