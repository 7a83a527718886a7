//! Files are told by their tensors, whatever they are called.

use std::collections::BTreeMap;
use std::path::Path;

use facestudio::weights::{Quantization, Tensors, encode};
use facestudio_convert::ip_adapter::Role;
use facestudio_convert::kind::{Kind, Recognized, recognize};

fn fixture(name: &str) -> Recognized {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/parity").join(name);
    recognize(&path).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A file of tensors of these names and shapes.
fn file(tensors: &[(&str, &[usize])]) -> Recognized {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("of-any-name.bin");
    let tensor = |(name, shape): &(&str, &[usize])| {
        ((*name).to_owned(), (shape.to_vec(), vec![0.5; shape.iter().product()]))
    };
    let tensors = Tensors(tensors.iter().map(tensor).collect());
    std::fs::write(&path, encode(&tensors, Quantization::F16, &BTreeMap::new()).unwrap()).unwrap();
    recognize(&path).unwrap()
}

#[test]
fn every_kind_that_is_converted_is_told_with_its_flag() {
    for (name, kind, flag) in [
        ("convert/sd1.ckpt", Kind::Checkpoint, "--base"),
        ("convert/sd2.safetensors", Kind::Checkpoint, "--base"),
        ("gguf/sd1.gguf", Kind::Checkpoint, "--base"),
        ("prompt/model", Kind::Checkpoint, "--base"),
        ("gguf/comfy.gguf", Kind::Unet, "--unet"),
        ("prompt/model/unet/model.safetensors", Kind::Unet, "--unet"),
        ("vae/kl/model.safetensors", Kind::Vae, "--vae"),
        ("vae/tiny/model.safetensors", Kind::TinyVae, "--tiny-vae"),
        ("text/projection/model.safetensors", Kind::TextEncoder, "--text-encoder"),
        ("convert/transformers5/text/model.safetensors", Kind::TextEncoder, "--text-encoder"),
        ("vision/vit/model.safetensors", Kind::VisionEncoder, "--vision-encoder"),
        ("lora/styles.kohya.safetensors", Kind::Lora, "--lora"),
        ("lora/styles.comfy.safetensors", Kind::Lora, "--lora"),
        ("lora/peft_text/adapter_model.safetensors", Kind::Lora, "--lora"),
        ("lora_kinds/loha.safetensors", Kind::Lora, "--lora"),
        ("lora_kinds/differences.safetensors", Kind::Lora, "--lora"),
        ("ip_adapter/image/model.safetensors", Kind::Adapter, "--style-adapter"),
        ("ip_adapter/full_face/model.safetensors", Kind::Adapter, "--identity-adapter"),
        ("ip_adapter/face_id.bin", Kind::Adapter, "--identity-adapter"),
        ("face/even/exported.onnx", Kind::FaceNetwork, "--face-encoder"),
        ("convert/iresnet.pt", Kind::FaceNetwork, "--face-encoder"),
        ("yunet/plain/exported.onnx", Kind::Detector, "--detector"),
        ("segmenter/timm/model.safetensors", Kind::Segmenter, "--segmenter"),
        ("prior/karlo/model.safetensors", Kind::Prior, "--prior"),
    ] {
        let told = fixture(name);
        assert_eq!((told.kind, told.flag), (kind, Some(flag)), "{name}: {told}");
        assert!(!told.advice.is_empty(), "{name}");
    }
    assert_eq!(fixture("convert/clip.pt").kind, Kind::Clip);
    assert_eq!(fixture("convert/taesd/taesd_decoder.safetensors").kind, Kind::TinyVae);
    assert_eq!(fixture("convert/taesd/taesd_encoder.pth").kind, Kind::TinyVae);
}

#[test]
fn words_say_what_a_file_is_and_what_it_fits() {
    let said = |name: &str| fixture(name).to_string();
    assert!(said("convert/sd2.safetensors").contains("a whole Stable Diffusion 2. Convert it with --base"));
    assert!(said("lora/styles.kohya.safetensors").starts_with("a LoRA for the UNet and the text encoder"));
    assert!(said("lora_kinds/dora.safetensors").starts_with("a DoRA for the UNet and the text encoder"));
    assert!(said("lora_kinds/lokr.safetensors").starts_with("a LoKr for the UNet"));
    let lora = |width: usize| {
        file(&[
            (
                "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight",
                &[4, width],
            ),
            (
                "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight",
                &[320, 4],
            ),
        ])
    };
    for (width, fits) in [(768, "Stable Diffusion 1"), (1024, "Stable Diffusion 2")] {
        assert_eq!(lora(width).fits, fits);
    }
    assert!(lora(2048).fits.contains("XL"));
    let of_another = file(&[
        ("transformer.single_transformer_blocks.0.proj_out.lora_A.weight", &[4, 64]),
        ("transformer.single_transformer_blocks.0.proj_out.lora_B.weight", &[64, 4]),
    ]);
    assert_eq!((of_another.kind, of_another.flag), (Kind::Lora, None));
    assert!(of_another.to_string().contains("cannot be merged"), "{of_another}");
    // Plus and Plus-Face have the same tensors.
    let plus = fixture("ip_adapter/plus/model.safetensors");
    assert_eq!((plus.kind, plus.flag, plus.role), (Kind::Adapter, None, None));
    assert!(plus.advice.contains("--style-adapter or --identity-adapter"));
    assert_eq!(fixture("ip_adapter/face_id_plus_v2/model.safetensors").role, Some(Role::Identity));
}

#[test]
fn what_cannot_be_converted_is_told_too() {
    type Case<'a> = (&'a [(&'a str, &'a [usize])], Kind, &'a str);
    let cases: [Case; 8] = [
        (
            &[("conv_first.weight", &[64, 3, 3, 3]), ("body.0.rdb1.conv1.weight", &[32, 64, 3, 3])],
            Kind::Upscaler,
            "upscaler",
        ),
        (&[("model.1.sub.0.RDB1.conv1.0.weight", &[32, 64, 3, 3])], Kind::Upscaler, "upscaler"),
        (&[("emb_params", &[4, 768])], Kind::Embedding, "for Stable Diffusion 1"),
        (&[("<cat-toy>", &[1024])], Kind::Embedding, "for Stable Diffusion 2"),
        (&[("controlnet_cond_embedding.conv_in.weight", &[16, 3, 3, 3])], Kind::ControlNet, "ControlNet"),
        (
            &[
                ("model.diffusion_model.input_blocks.0.0.weight", &[320, 9, 3, 3]),
                ("model.diffusion_model.out.2.weight", &[4, 320, 3, 3]),
            ],
            Kind::Unet,
            "for inpainting",
        ),
        (
            &[
                ("conv_in.weight", &[320, 9, 3, 3]),
                ("conv_out.weight", &[4, 320, 3, 3]),
                ("time_embedding.linear_1.weight", &[1280, 320]),
                ("down_blocks.0.resnets.0.conv1.weight", &[320, 320, 3, 3]),
            ],
            Kind::Unet,
            "for inpainting",
        ),
        (&[("a", &[2, 2])], Kind::Unknown, "no kind that is known"),
    ];
    for (tensors, kind, part) in cases {
        let told = file(tensors);
        assert_eq!((told.kind, told.flag), (kind, None), "{told}");
        assert!(told.to_string().contains(part), "{told}");
    }
}
