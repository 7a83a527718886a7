//! A whole model folder with random weights, small enough to draw a picture in milliseconds.
//!
//! The pictures are noise, but every part is there and has its real architecture. Only the detector's weights are
//! made by hand, since random ones find anything or nothing: it takes every bright spot on a dark ground for a face
//! of half the picture's longer side, and the bright pixels around it for the person.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::module::Module;
use burn::tensor::Device;
use facestudio::encoders::detector::DetectorConfig;
use facestudio::encoders::detector::facestudio::FaceStudioDetectorConfig;
use facestudio::encoders::face::FaceEncoderConfig;
use facestudio::encoders::text::TextConfig;
use facestudio::encoders::tokenizer::Tokenizer;
use facestudio::encoders::vision::{ClipResNetConfig, ClipVitConfig, VisionConfig};
use facestudio::guidance::fusion::FusionConfig;
use facestudio::guidance::ip_adapter::{IpAdapterConfig, ProjectionConfig, Role};
use facestudio::guidance::prior::PriorConfig;
use facestudio::image::align::{TEMPLATE, TEMPLATE_SIZE};
use facestudio::pixart::PixArtTransformer2DConfig;
use facestudio::sampling::NoiseSource;
use facestudio::unet::{DownBlockType, PerLevel, UNet2DConditionConfig, UpBlockType};
use facestudio::vae::AutoencoderDcConfig;
use facestudio::weights::{
    MAX_SHARD, Manifest, MemoryFiles, ModelCard, Quantization, Tensors, collect, write_shards,
};
use facestudio_convert::{Plan, Slot, convert};
use serde::Serialize;
use serde_json::json;

/// Side of the model's own pictures, in pixels.
pub const SIZE: usize = 32;
/// Side of a picture over side of its latents.
pub const DOWNSAMPLING: usize = 4;

const LATENT_CHANNELS: usize = 4;
const CONTEXT: usize = 16;
const TEXT_WIDTH: usize = 16;
const TEXT_EMBED: usize = 12;
const VIT_WIDTH: usize = 16;
const VIT_EMBED: usize = 12;
const RESNET_EMBED: usize = 8;
const ID_EMBED: usize = 16;
const TOKEN_CHANNELS: usize = 8;

/// The model folder's files. The same on every call.
pub fn files() -> MemoryFiles {
    files_of_width(16)
}

/// The same with a UNet of `width` channels.
pub fn files_of_width(width: usize) -> MemoryFiles {
    model(width, TOKEN_CHANNELS).finish()
}

/// A model whose denoiser is a transformer, as `mini`'s.
#[allow(dead_code, reason = "not every test draws with a transformer")]
pub fn files_of_transformer() -> MemoryFiles {
    let mut model = model(16, TOKEN_CHANNELS);
    model.files.0.retain(|path, _| !path.starts_with("unet/"));
    let config = PixArtTransformer2DConfig {
        num_attention_heads: 2,
        attention_head_dim: 8,
        in_channels: LATENT_CHANNELS,
        out_channels: None,
        num_layers: 2,
        cross_attention_dim: Some(16),
        caption_channels: Some(TOKEN_CHANNELS),
        sample_size: SIZE / DOWNSAMPLING,
        patch_size: 1,
        ..PixArtTransformer2DConfig::default()
    };
    let mut tensors = collect(&config.init(&Device::flex()).unwrap(), "").unwrap();
    // What starts from zeros would hide all that comes before it.
    for (stream, (shape, values)) in tensors.0.values_mut().enumerate() {
        let fan_in = shape.iter().skip(1).product::<usize>() as f32;
        *values = NoiseSource::new(2).normal(stream as u64, values.len());
        values.iter_mut().for_each(|value| *value /= fan_in.sqrt());
    }
    model.json("transformer/config.json", &config);
    model.weights("transformer", &tensors);
    model.finish()
}

/// A model with adapters in the place of prior and guidance: the first reads faces, the second the style image.
///
/// With `pictures`, the first reads pictures of faces (Full-Face) in place of embeddings (FaceID), and the model has no
/// identity encoder.
#[allow(dead_code, reason = "not every test draws with adapters")]
pub fn files_with_adapters(pictures: bool) -> MemoryFiles {
    with_adapters(pictures).finish()
}

/// The same, reading embeddings, with a segmenter: the fixture of `tests/parity/segmenter`, converted.
#[allow(dead_code, reason = "not every test looks for people")]
pub fn files_with_segmenter() -> MemoryFiles {
    let mut model = with_adapters(false);
    // Tests of several crates use this file.
    let fixture = |root: &Path| root.join("tests/parity/segmenter/transformers");
    let roots = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let fixture = roots.map(fixture).find(|folder| folder.is_dir()).unwrap();
    let plan = Plan { parts: vec![(Slot::Segmenter, fixture)], ..Plan::default() };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    convert(&plan, &out, &AtomicBool::new(false), &|_, _| ()).unwrap();
    for entry in std::fs::read_dir(out.join("segmenter")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        model.put(&format!("segmenter/{name}"), std::fs::read(entry.path()).unwrap());
    }
    model.finish()
}

#[allow(dead_code, reason = "not every test draws with adapters")]
fn with_adapters(pictures: bool) -> Writer {
    let mut model = model(16, TEXT_WIDTH);
    let unused =
        ["prior/", "guidance/", "vision_encoder_2/", if pictures { "face_encoder/" } else { "prior/" }];
    model.files.0.retain(|path, _| !unused.iter().any(|folder| path.starts_with(folder)));
    let (num_tokens, cross_attention_dim) = (3, TEXT_WIDTH);
    let rows = num_tokens * cross_attention_dim;
    if pictures {
        let projection = ProjectionConfig::FullFace { hidden_size: VIT_WIDTH, cross_attention_dim };
        let shapes: [(&str, &[usize]); 6] = [
            ("proj.0.weight", &[VIT_WIDTH, VIT_WIDTH]),
            ("proj.0.bias", &[VIT_WIDTH]),
            ("proj.2.weight", &[cross_attention_dim, VIT_WIDTH]),
            ("proj.2.bias", &[cross_attention_dim]),
            ("proj.3.weight", &[cross_attention_dim]),
            ("proj.3.bias", &[cross_attention_dim]),
        ];
        model.adapter("ip_adapter", Role::Identity, projection, &shapes);
    } else {
        let (id_embed_dim, intermediate_size) = (ID_EMBED, 2 * ID_EMBED);
        let projection =
            ProjectionConfig::FaceId { id_embed_dim, intermediate_size, num_tokens, cross_attention_dim };
        let shapes: [(&str, &[usize]); 6] = [
            ("proj.0.weight", &[intermediate_size, id_embed_dim]),
            ("proj.0.bias", &[intermediate_size]),
            ("proj.2.weight", &[rows, intermediate_size]),
            ("proj.2.bias", &[rows]),
            ("norm.weight", &[cross_attention_dim]),
            ("norm.bias", &[cross_attention_dim]),
        ];
        model.adapter("ip_adapter", Role::Identity, projection, &shapes);
    }
    let projection = ProjectionConfig::Image { image_embed_dim: VIT_EMBED, num_tokens, cross_attention_dim };
    let shapes: [(&str, &[usize]); 4] = [
        ("proj.weight", &[rows, VIT_EMBED]),
        ("proj.bias", &[rows]),
        ("norm.weight", &[cross_attention_dim]),
        ("norm.bias", &[cross_attention_dim]),
    ];
    model.adapter("ip_adapter_2", Role::Style, projection, &shapes);
    model
}

/// A model of Arc2Face's layout: the text encoder reads an identity embedding in the place of a word.
#[allow(dead_code, reason = "not every test draws faces alone")]
pub fn files_of_arc2face() -> MemoryFiles {
    let mut model = model(16, TEXT_WIDTH);
    let unused = ["prior/", "guidance/", "vision_encoder"];
    model.files.0.retain(|path, _| !unused.iter().any(|folder| path.starts_with(folder)));
    model.json("arc2face/config.json", &json!({ "model_type": "arc2face" }));
    model.finish()
}

/// A FLUX.2 klein, distilled or not: the networks of `tests/parity/klein`, with the detector of the others. Its text encoder takes
/// more tokens than theirs.
#[allow(dead_code, reason = "not every test draws with references")]
pub fn files_of_klein(distilled: bool) -> MemoryFiles {
    let mut model = model(16, TOKEN_CHANNELS);
    model.files.0.retain(|path, _| path.starts_with("detector/"));
    let roots = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let fixtures = roots.map(|root| root.join("tests/parity")).find(|folder| folder.is_dir()).unwrap();
    for (component, folder) in [
        ("transformer", "klein/transformer"),
        ("vae", "klein/vae"),
        ("text_encoder", "klein/text_encoder"),
        ("scheduler", "klein/scheduler"),
        ("tokenizer", "qwen2_tokenizer/json"),
    ] {
        for entry in std::fs::read_dir(fixtures.join(folder)).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            model.put(&format!("{component}/{name}"), std::fs::read(entry.path()).unwrap());
        }
    }
    let config = "text_encoder/config.json";
    let mut text: serde_json::Value = serde_json::from_slice(&model.files.0[config]).unwrap();
    text["max_position_embeddings"] = json!(256);
    model.json(config, &text);
    model
        .json("model_index.json", &json!({ "_class_name": "Flux2KleinPipeline", "is_distilled": distilled }));
    model.finish()
}

fn model(width: usize, token_channels: usize) -> Writer {
    let device = Device::flex();
    let mut model = Writer::default();
    let (vocab, merges) = Tokenizer::train(
        ["a smiling man with a hat", "a woman with red hair, an oil painting", "id id id"],
        560,
    )
    .unwrap();
    let tokens: BTreeMap<String, u32> = serde_json::from_str(&vocab).unwrap();
    model.put("tokenizer/vocab.json", vocab.into_bytes());
    model.put("tokenizer/merges.txt", merges.into_bytes());

    let text = TextConfig {
        vocab_size: tokens.len(),
        hidden_size: TEXT_WIDTH,
        intermediate_size: 32,
        projection_dim: TEXT_EMBED,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        max_position_embeddings: CONTEXT,
        eos_token_id: tokens["<|endoftext|>"],
        ..TextConfig::default()
    };
    model.component("text_encoder", &text, text.init(&device).unwrap());
    let prior = PriorConfig {
        num_attention_heads: 2,
        attention_head_dim: 8,
        num_layers: 1,
        embedding_dim: VIT_EMBED + RESNET_EMBED,
        num_embeddings: CONTEXT,
        embedding_proj_dim: Some(TEXT_EMBED),
        encoder_hid_dim: Some(TEXT_WIDTH),
        ..PriorConfig::default()
    };
    model.component("prior", &prior, prior.init(&device).unwrap());
    model.json(
        "prior/scheduler_config.json",
        &json!({
            "_class_name": "DDIMScheduler", "prediction_type": "sample", "clip_sample": false,
            "beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing",
        }),
    );

    let vit = ClipVitConfig {
        hidden_size: VIT_WIDTH,
        intermediate_size: 32,
        projection_dim: VIT_EMBED,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        image_size: 32,
        patch_size: 8,
        ..ClipVitConfig::default()
    };
    model.component("vision_encoder", &VisionConfig::Vit(vit.clone()), vit.init(&device).unwrap());
    let resnet =
        ClipResNetConfig { layers: [1; 4], embed_dim: RESNET_EMBED, heads: 2, image_size: 32, width: 2 };
    model.component("vision_encoder_2", &VisionConfig::ResNet(resnet.clone()), resnet.init(&device).unwrap());

    let face = FaceEncoderConfig {
        layers: [1; 4],
        channels: [4, 4, 8, 8, 8],
        embedding_size: ID_EMBED,
        image_size: 32,
        ..FaceEncoderConfig::default()
    };
    model.component("face_encoder", &face, face.init(&device).unwrap());
    let detector =
        FaceStudioDetectorConfig { channels: vec![4; 3], blocks: 0, head_channels: 4, image_size: 64 };
    let weights = bright_spots(collect(&detector.init(&device).unwrap(), "").unwrap());
    model.json("detector/config.json", &DetectorConfig::FaceStudio(detector));
    model.weights("detector", &weights);

    let fusion = FusionConfig {
        image_embed_dim: VIT_EMBED + RESNET_EMBED,
        id_embed_dim: ID_EMBED,
        n_tokens: 3,
        cross_attention_dim: token_channels,
    };
    model.component("guidance", &fusion, fusion.init(&device).unwrap());
    let unet = UNet2DConditionConfig {
        sample_size: Some(json!(SIZE / DOWNSAMPLING)),
        in_channels: LATENT_CHANNELS,
        out_channels: LATENT_CHANNELS,
        down_block_types: vec![DownBlockType::CrossAttnDownBlock2D; 2],
        up_block_types: vec![UpBlockType::CrossAttnUpBlock2D; 2],
        block_out_channels: vec![width / 2, width],
        layers_per_block: PerLevel::All(1),
        norm_num_groups: 4,
        cross_attention_dim: token_channels,
        attention_head_dim: PerLevel::All(2),
        use_linear_projection: true,
        ..UNet2DConditionConfig::default()
    };
    model.component("unet", &unet, unet.init(&device).unwrap());
    let vae = AutoencoderDcConfig {
        latent_channels: LATENT_CHANNELS,
        encoder_block_out_channels: vec![8, 16, 16],
        decoder_block_out_channels: vec![8, 16, 16],
        encoder_layers_per_block: vec![0, 1, 1],
        decoder_layers_per_block: vec![0, 1, 1],
        ..AutoencoderDcConfig::default()
    };
    model.component("vae", &vae, vae.init(&device).unwrap());
    model.json(
        "scheduler/scheduler_config.json",
        &json!({
            "_class_name": "EulerAncestralDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012,
            "beta_schedule": "scaled_linear", "timestep_spacing": "trailing",
        }),
    );

    model
}

#[derive(Default)]
struct Writer {
    files: MemoryFiles,
    /// Of the next tensor's random numbers.
    stream: u64,
}

impl Writer {
    /// The files, with their manifest.
    fn finish(mut self) -> MemoryFiles {
        let card = ModelCard {
            name: "tiny".to_owned(),
            family: "tiny".to_owned(),
            version: "1".to_owned(),
            license: "CC0-1.0".to_owned(),
            ..ModelCard::default()
        };
        let manifest = Manifest::build(&self.files, card).unwrap();
        self.put(Manifest::NAME, manifest.to_json().unwrap());
        self.files
    }

    /// An adapter for the UNet of [`model`]: its projection's tensors, and every layer's keys and values.
    #[allow(dead_code, reason = "not every test draws with adapters")]
    fn adapter(
        &mut self,
        folder: &str,
        role: Role,
        projection: ProjectionConfig,
        shapes: &[(&str, &[usize])],
    ) {
        let width = projection.cross_attention_dim();
        let own = shapes.iter().map(|(name, shape)| (format!("image_proj.{name}"), shape.to_vec()));
        // Two levels of one layer: on the way down one cross-attention each, up two, and one in the middle.
        let channels = [8, 16, 16, 16, 8, 8, 16].into_iter().enumerate();
        let layers = channels.flat_map(|(i, channels)| {
            ["k", "v"]
                .map(|part| (format!("ip_adapter.{}.to_{part}_ip.weight", 2 * i + 1), vec![channels, width]))
        });
        let mut tensors = Tensors::default();
        for (name, shape) in own.chain(layers) {
            self.stream += 1;
            let norm = shape.len() == 1 && name.ends_with("weight");
            let deviation = if norm { 0.1 } else { (shape[shape.len() - 1] as f32).sqrt().recip() };
            let values = NoiseSource::new(2).normal(self.stream, shape.iter().product());
            let values = values.into_iter().map(|n| f32::from(u8::from(norm)) + n * deviation).collect();
            tensors.0.insert(name, (shape, values));
        }
        let config = IpAdapterConfig {
            role,
            projection,
            scale: 1.0,
            block_scales: BTreeMap::new(),
            interval: [0.0, 1.0],
        };
        self.json(&format!("{folder}/config.json"), &config);
        self.weights(folder, &tensors);
    }

    fn put(&mut self, path: &str, bytes: Vec<u8>) {
        self.files.0.insert(path.to_owned(), bytes);
    }

    fn json(&mut self, path: &str, value: &impl Serialize) {
        self.put(path, serde_json::to_vec_pretty(value).unwrap());
    }

    fn weights(&mut self, folder: &str, tensors: &Tensors) {
        write_shards(tensors, Quantization::None, &BTreeMap::new(), MAX_SHARD, |name, bytes| {
            self.put(&format!("{folder}/{name}"), bytes.to_vec());
            Ok(())
        })
        .unwrap();
    }

    /// A config, and weights of the usual deviation; norms and biases that begin at a constant keep it.
    fn component<M: Module>(&mut self, folder: &str, config: &impl Serialize, module: M) {
        let mut tensors = collect(&module, "").unwrap();
        for (shape, values) in tensors.0.values_mut() {
            self.stream += 1;
            let fan_in = shape.iter().skip(1).product::<usize>();
            if values.iter().any(|value| *value != values[0]) {
                let noise = NoiseSource::new(1).normal(self.stream, values.len());
                *values = noise.iter().map(|n| n / (fan_in as f32).sqrt()).collect();
            }
        }
        self.json(&format!("{folder}/config.json"), config);
        self.weights(folder, &tensors);
    }
}

/// The detector's weights: its first channel carries brightness through every layer, the others carry nothing.
fn bright_spots(mut tensors: Tensors) -> Tensors {
    /// Half a face's side, in the face grid's cells.
    const REACH: f32 = 2.0;
    for (name, (shape, values)) in &mut tensors.0 {
        if !name.contains("norm") {
            values.fill(0.0);
        }
        // `[out, in, height, width]`: the first output is the mean over the first inputs' windows.
        let window = shape.iter().skip(2).product::<usize>();
        match name.as_str() {
            "stem.conv.weight" => values[..3 * window].fill(1.0 / (3 * window) as f32),
            "levels.0.down.conv.weight" | "levels.1.down.conv.weight" => {
                values[..window].fill(1.0 / window as f32);
            }
            _ if name.ends_with("conv.weight") => values[window / 2] = 1.0,
            "lateral.0.weight" | "lateral.1.weight" => values[0] = 1.0,
            "heatmap.weight" | "mask.weight" => values[0] = 40.0,
            "heatmap.bias" | "mask.bias" => values[0] = -4.0,
            // softplus(x) = REACH
            "boxes.bias" => values.fill(REACH.exp_m1().ln()),
            "landmarks.bias" => {
                let offset = |p: f32| (p / TEMPLATE_SIZE - 0.5) * 2.0 * REACH;
                values.copy_from_slice(&TEMPLATE.concat().into_iter().map(offset).collect::<Vec<_>>());
            }
            _ => {}
        }
    }
    tensors
}
