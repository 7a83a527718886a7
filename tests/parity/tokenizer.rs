//! The tokenizer against transformers' `CLIPTokenizer`: equal ids, no tolerance.

use std::path::PathBuf;

use facestudio::encoders::tokenizer::Tokenizer;
use facestudio::weights::{Component, Files, Folder};

use crate::fixture;

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    context_length: usize,
    ids: Vec<u32>,
}

fn assert_equal(folder: &Folder) {
    let tokenizer = Tokenizer::load(&Component::new(folder, "")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&folder.read("cases.json").unwrap()).unwrap();
    assert!(cases.len() >= 50);
    println!("{} cases", cases.len());
    for case in cases {
        let ids = tokenizer.encode(&case.text, case.context_length).unwrap();
        assert_eq!(ids, case.ids, "{:?}", case.text);
    }
}

#[test]
fn clips_own_special_tokens() {
    assert_equal(&fixture("tokenizer/plain"));
}

#[test]
fn a_padding_token_of_its_own_and_special_tokens_after_lower_casing() {
    assert_equal(&fixture("tokenizer/padding"));
}

/// CLIP's own vocabulary, which is not ours to commit, and a few thousand texts.
#[test]
#[ignore = "its cases are made by `make parity-full`"]
fn a_folder_of_cases() {
    let folder =
        std::env::var("FACESTUDIO_TOKENIZER_CASES").expect("FACESTUDIO_TOKENIZER_CASES names the folder");
    assert_equal(&Folder(PathBuf::from(folder)));
}
