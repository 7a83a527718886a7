//! Prompts with weights, breaks, any length and learnt words, against what AUTOMATIC1111's web UI makes of them, written anew in PyTorch
//! (`weighted/reference.py`).

use burn::tensor::Device;
use facestudio::encoders::text::TextEncoder;
use facestudio::encoders::tokenizer::Tokenizer;
use facestudio::pipeline::prompt::TextReader;
use facestudio::request::Embedding;
use facestudio::weights::{Component, Files, MemoryFiles};
use facestudio_convert::embedding;
use serde::Deserialize;

use crate::{assert_close, fixture, io};

/// Another order of summing through two layers, times the mean that weights are made up for with, which is near zero; a weight that is
/// missed costs over 1e-2.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Case {
    name: String,
    prompt: String,
    clip_skip: usize,
    pad: Option<String>,
    embeddings: Vec<String>,
}

/// The reader of tests/parity/prompt's model, whose texts are filled up with `pad` as Stable Diffusion 2's are with `!`.
fn reader(pad: Option<&str>) -> TextReader {
    let model = fixture("prompt/model");
    let mut files = MemoryFiles::default();
    for name in ["vocab.json", "merges.txt"] {
        files.0.insert(name.to_owned(), model.read(&format!("tokenizer/{name}")).unwrap());
    }
    if let Some(pad) = pad {
        let config = serde_json::json!({ "pad_token": pad }).to_string().into_bytes();
        files.0.insert("tokenizer_config.json".to_owned(), config);
    }
    TextReader {
        tokenizer: Tokenizer::load(&Component::new(&files, "")).unwrap(),
        encoder: TextEncoder::load(&Component::new(&model, "text_encoder"), &Device::flex()).unwrap(),
    }
}

fn file(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity/weighted/embeddings").join(name)
}

/// A learnt word from a file in each layout: the web UI's, the authors', and diffusers'.
fn learnt(word: &str) -> Embedding {
    let name = match word {
        "webui" => "webui.pt",
        "Authors" => "Authors.pt",
        "params" => "params.safetensors",
        "<cat-toy>" => "learned_embeds.bin",
        _ => "learned_embeds.safetensors",
    };
    embedding::read(&file(name), None).unwrap()
}

#[test]
fn states_are_those_of_the_reference() {
    let folder = fixture("weighted");
    let cases: Vec<Case> = serde_json::from_slice(&folder.read("cases.json").unwrap()).unwrap();
    let io = io(&folder);
    assert!(cases.len() >= 18, "{}", cases.len());
    for Case { name, prompt, clip_skip, pad, embeddings } in cases {
        println!("{prompt} clip skip {clip_skip}, {pad:?}, {embeddings:?}");
        let embeddings: Vec<Embedding> = embeddings.iter().map(|word| learnt(word)).collect();
        let (states, used) = reader(pad.as_deref()).weighted(&prompt, clip_skip, &embeddings).unwrap();
        assert!(used.iter().all(|used| *used), "{prompt}");
        assert_close(states, io.tensor::<3>(&name, &Device::flex()).unwrap(), TOLERANCE);
    }
}

#[test]
fn a_plain_prompt_has_the_very_numbers_of_its_tokens() {
    for pad in [None, Some("!")] {
        let reader = reader(pad);
        for prompt in ["", "A portrait of an old man: oil", "a a a a a a a a a a a a a a"] {
            let plain = reader.encode(&[prompt]).unwrap().encoder_hidden_states.into_data();
            assert_eq!(reader.weighted(prompt, 1, &[]).unwrap().0.into_data(), plain, "{prompt}");
        }
    }
}

#[test]
fn words_are_the_files_own_or_their_names_or_given() {
    let word = |name: &str, given| embedding::read(&file(name), given).unwrap().word().to_owned();
    for (name, own) in [
        ("webui.pt", "webui"),
        ("Authors.pt", "Authors"),
        ("params.safetensors", "params"),
        ("learned_embeds.bin", "<cat-toy>"),
        ("learned_embeds.safetensors", "<two words>"),
    ] {
        assert_eq!(word(name, None), own);
        assert_eq!(word(name, Some("ann")), "ann");
    }
    assert_eq!([learnt("webui").count(), learnt("<cat-toy>").count(), learnt("webui").width()], [3, 1, 12]);
}

#[test]
fn what_is_no_learnt_word_is_refused_by_name() {
    let refused = |path: std::path::PathBuf| embedding::read(&path, None).unwrap_err();
    let error = refused(file("xl.safetensors"));
    assert!(error.code == "embedding-format" && error.message.contains("Stable Diffusion XL"), "{error}");
    let error = refused(file("../../prompt/model/text_encoder/model.safetensors"));
    assert!(error.code == "embedding-format" && error.message.contains("36 tensors"), "{error}");
    let reader = reader(None);
    let wide = Embedding::new("ann", vec![0.5; 13], 13).unwrap();
    let error = reader.weighted("ann", 1, std::slice::from_ref(&wide)).unwrap_err();
    assert!(error.code == "embedding-width" && error.message.contains("13 values"), "{error}");
    // Where it does not stand it does no harm.
    assert_eq!(reader.weighted("anna", 1, &[wide]).unwrap().1, [false]);
    for clip_skip in [0, 3] {
        assert_eq!(reader.weighted("a", clip_skip, &[]).unwrap_err().code, "clip-skip-range");
    }
}
