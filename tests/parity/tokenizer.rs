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
    let ours = |case: &Case| tokenizer.encode(&case.text, case.context_length).unwrap();
    let wrong: Vec<&Case> = cases.iter().filter(|case| ours(case) != case.ids).collect();
    if let Some(first) = wrong.first() {
        let texts: Vec<&str> = wrong.iter().map(|case| case.text.as_str()).collect();
        assert_eq!(ours(first), first.ids, "{} of {} texts: {texts:?}", wrong.len(), cases.len());
    }
}

/// `make parity-full` names a folder with CLIP's own vocabulary, which is not ours to commit, and a few thousand texts.
#[test]
fn clips_own_special_tokens() {
    let given = std::env::var_os("FACESTUDIO_TOKENIZER_CASES").map(|folder| Folder(PathBuf::from(folder)));
    assert_equal(&given.unwrap_or_else(|| fixture("tokenizer/plain")));
}

#[test]
fn a_padding_token_of_its_own_and_special_tokens_after_lower_casing() {
    assert_equal(&fixture("tokenizer/padding"));
}
