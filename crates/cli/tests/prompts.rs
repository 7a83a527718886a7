//! Prompts as people write them, in models that attend to a CLIP's tokens, and refused by name in those that do not.

#[path = "../../../tests/support/tiny_model.rs"]
mod tiny_model;

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Output};

use burn::tensor::Device;
use facestudio::encoders::text::TextConfig;
use facestudio::image::codec;
use facestudio::pipeline::{FaceStudio, Generated};
use facestudio::request::{Embedding, GenerateRequest};
use facestudio::weights::{Component, MemoryFiles, Quantization, Tensors, collect, encode};
use facestudio::{Error, Result};
use image::{Rgb, RgbImage};

fn generate(studio: &FaceStudio, request: &GenerateRequest) -> Result<Vec<Generated>> {
    let watch = async |_| ControlFlow::Continue(());
    pollster::block_on(studio.generate(request, watch))
}

fn asked(prompt: &str) -> GenerateRequest {
    GenerateRequest { prompt: prompt.to_owned(), steps: 2, guidance_scale: 2.0, ..GenerateRequest::default() }
}

/// A model with adapters, whose text encoder has two layers and, as after training, states with a mean.
fn files() -> MemoryFiles {
    let mut files = tiny_model::files_with_adapters(false);
    let mut config = TextConfig::read(&Component::new(&files, "text_encoder")).unwrap();
    config.num_hidden_layers = 2;
    let mut tensors = collect(&config.init(&Device::flex()).unwrap(), "").unwrap();
    let bias = tensors.0.iter_mut().find(|(name, _)| name.ends_with("final_layer_norm.bias")).unwrap();
    bias.1.1.iter_mut().enumerate().for_each(|(i, value)| *value = 0.2 + 0.1 * (i % 3) as f32);
    files.0.retain(|path, _| !path.starts_with("text_encoder/") && path != "manifest.json");
    let weights = encode(&tensors, Quantization::None, &Default::default()).unwrap();
    files.0.insert("text_encoder/config.json".to_owned(), serde_json::to_vec(&config).unwrap());
    files.0.insert("text_encoder/model.safetensors".to_owned(), weights);
    files
}

fn open(files: &MemoryFiles) -> FaceStudio {
    FaceStudio::load(files, &Device::flex()).unwrap()
}

/// Width of a model's text encoder.
fn width(files: &MemoryFiles) -> usize {
    let tensors = Component::new(files, "text_encoder").tensors().unwrap();
    let names = tensors.names();
    let table = names.iter().find(|name| name.ends_with("token_embedding.weight")).unwrap();
    tensors.shape(table).unwrap()[1]
}

/// A picture without its notices and its recipe.
fn drawn(studio: &FaceStudio, request: &GenerateRequest) -> RgbImage {
    let made = generate(studio, request).unwrap().remove(0);
    assert!(made.notices.is_empty(), "{:?}", made.notices);
    made.image
}

#[test]
fn weights_breaks_and_words_beyond_the_first_chunk_change_the_picture() {
    let studio = open(&files());
    let plain = drawn(&studio, &asked("a man"));
    for (one, other) in [
        ("a (man:1.5)", "a man"),
        ("a (man)", "a man"),
        ("a [man]", "a (man)"),
        (r"a \(man\)", "a man"),
        ("a BREAK man", "a man"),
    ] {
        assert_ne!(drawn(&studio, &asked(one)), drawn(&studio, &asked(other)), "{one}");
    }
    assert_eq!(drawn(&studio, &asked("a (man:1)")), plain);
    // The tiny text encoder reads 16 tokens, of which two are begin and end.
    let long = |last: &str| drawn(&studio, &asked(&format!("{}{last}", "a ".repeat(20))));
    assert_ne!(long("man"), long("id"));
    // A long negative prompt beside a short prompt.
    let negative = |last: &str| GenerateRequest {
        negative_prompt: format!("{}{last}", "a ".repeat(30)),
        ..asked("a man")
    };
    assert_ne!(drawn(&studio, &negative("man")), drawn(&studio, &negative("id")));
    // A style image's share of no prompt is as long as the prompt.
    let styled = |last: &str| GenerateRequest {
        style: Some(RgbImage::from_pixel(64, 64, Rgb([200, 40, 90]))),
        ..asked(&format!("{}{last}", "a ".repeat(20)))
    };
    assert_ne!(drawn(&studio, &styled("man")), drawn(&studio, &styled("id")));
    let endless = generate(&studio, &asked(&"a ".repeat(200))).unwrap_err();
    assert!(endless.code == "prompt-length" && endless.message.contains("15 chunks of 14"), "{endless}");
    assert_eq!(generate(&studio, &asked("[a|b]")).unwrap_err().code, "prompt-editing");
}

#[test]
fn clip_skip_and_learnt_words_change_the_picture_and_are_in_its_recipe() {
    let files = files();
    let (studio, width) = (open(&files), width(&files));
    let plain = drawn(&studio, &asked("a man"));
    let skipped = GenerateRequest { clip_skip: 2, ..asked("a man") };
    let too_far = GenerateRequest { clip_skip: 50, ..asked("a man") };
    assert_ne!(drawn(&studio, &skipped), plain);
    assert_eq!(generate(&studio, &too_far).unwrap_err().code, "clip-skip-range");

    // Not the same in each channel, which a norm takes away.
    let learnt = |word: &str, value: f32| {
        Embedding::new(word, (0..2 * width).map(|i| value * (i % 3) as f32).collect(), width).unwrap()
    };
    let with = |embeddings: Vec<Embedding>, prompt: &str| GenerateRequest { embeddings, ..asked(prompt) };
    let ann = drawn(&studio, &with(vec![learnt("ann", 0.5)], "a Ann"));
    assert_ne!(ann, drawn(&studio, &asked("a ann")));
    assert_ne!(ann, drawn(&studio, &with(vec![learnt("ann", -0.5)], "a ann")));
    // In the negative prompt as well.
    let negative =
        |embeddings| GenerateRequest { negative_prompt: "ann".to_owned(), ..with(embeddings, "a man") };
    assert_ne!(drawn(&studio, &negative(vec![learnt("ann", 0.5)])), drawn(&studio, &negative(Vec::new())));
    let unused = generate(&studio, &with(vec![learnt("ben", 0.5)], "a man")).unwrap().remove(0);
    assert_eq!(unused.image, plain);
    assert_eq!(unused.notices[0].code, "embedding-unused");
    let twice = with(vec![learnt("ann", 0.5), learnt("ANN", 0.1)], "a ann");
    assert_eq!(generate(&studio, &twice).unwrap_err().code, "embedding-word");

    let made =
        generate(&studio, &GenerateRequest { clip_skip: 2, ..with(vec![learnt("ann", 0.5)], "a ann") });
    let made = made.unwrap().remove(0);
    let again = made.recipe.request(&[], &[], &[learnt("other", 0.5)], [None; 2]).unwrap();
    assert_eq!(drawn(&studio, &again), made.image);
    assert_eq!(made.recipe.request(&[], &[], &[], [None; 2]).unwrap_err().code, "recipe-embedding");
}

#[test]
fn a_model_that_draws_from_a_text_as_a_whole_refuses_weights_by_name() {
    let studio = FaceStudio::load(&tiny_model::files(), &Device::flex()).unwrap();
    let refused = |request: &GenerateRequest| -> Error { generate(&studio, request).unwrap_err() };
    for prompt in ["a (man:1.2)", "a BREAK man"] {
        assert_eq!(refused(&asked(prompt)).code, "weights-unsupported", "{prompt}");
        let negative = GenerateRequest { negative_prompt: prompt.to_owned(), ..asked("a man") };
        let error = refused(&negative);
        assert!(error.message.contains("negative prompt"), "{error}");
    }
    let learnt = vec![Embedding::new("ann", vec![0.5], 1).unwrap()];
    let request = GenerateRequest { embeddings: learnt, ..asked("a man") };
    assert_eq!(refused(&request).code, "embeddings-unsupported");
    let request = GenerateRequest { clip_skip: 2, ..asked("a man") };
    assert_eq!(refused(&request).code, "clip-skip-unsupported");
    // Brackets alone are punctuation.
    assert!(generate(&studio, &asked("a (man) [id]")).is_ok());
}

#[test]
fn the_command_line_takes_files_of_learnt_words() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let files = files();
    let width = width(&files);
    facestudio::weights::write_folder(Path::new(&at("model")), |new| {
        files.0.iter().try_for_each(|(path, bytes)| new.write(path, bytes))
    })
    .unwrap();
    let mut tensors = Tensors::default();
    tensors.0.insert("emb_params".to_owned(), (vec![2, width], vec![0.5; 2 * width]));
    let bytes = encode(&tensors, Quantization::None, &Default::default()).unwrap();
    std::fs::write(at("ann.safetensors"), bytes).unwrap();
    let run = |out: &str, more: &[&str]| -> Output {
        let out = at(out);
        let base = ["generate", "--model", &at("model"), "--out", &out].map(str::to_owned);
        let steps: &[&str] = if more[0] == "--recipe" { &[] } else { &["--steps", "2"] };
        let more = more.iter().chain(steps).map(|argument| argument.replace('@', &at("")));
        Command::new(env!("CARGO_BIN_EXE_facestudio")).args(base.into_iter().chain(more)).output().unwrap()
    };
    let picture = |out: &str, more: &[&str]| -> RgbImage {
        let run = run(out, more);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        codec::decode(&std::fs::read(at(out)).unwrap()).unwrap()
    };
    let learnt = picture("1.png", &["--prompt", "a ann", "--embedding", "@ann.safetensors"]);
    assert_ne!(learnt, picture("2.png", &["--prompt", "a ann"]));
    assert_eq!(learnt, picture("3.png", &["--prompt", "a sks", "--embedding", "sks=@ann.safetensors"]));
    let skipped =
        picture("4.png", &["--prompt", "a ann", "--clip-skip", "2", "--embedding", "@ann.safetensors"]);
    assert_ne!(learnt, skipped);
    let again = ["--recipe", "@4.png", "--embedding", "@ann.safetensors"];
    assert_eq!(skipped, picture("5.png", &again));
    let lacking = run("6.png", &again[..2]);
    assert!(String::from_utf8_lossy(&lacking.stderr).contains("recipe-embedding"));
    let missing = run("7.png", &["--prompt", "a", "--embedding", "@nobody.pt"]);
    assert!(!missing.status.success());
}
