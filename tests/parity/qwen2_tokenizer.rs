//! Qwen's tokenizer and the chat of FLUX.2's prompts against transformers.

use std::collections::BTreeMap;

use facestudio::encoders::tokenizer::Qwen2Tokenizer;
use facestudio::weights::{Component, Files, MemoryFiles};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::fixture;

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    chat: Vec<u32>,
    real: usize,
    cut: usize,
}

#[test]
fn texts_and_chats_have_transformers_ids() {
    let cases = fixture("qwen2_tokenizer").read("texts.json").unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&cases).unwrap();
    assert!(cases.len() > 100 && cases.iter().any(|case| case.cut > 0), "{}", cases.len());
    for folder in ["json", "plain"] {
        let folder = fixture(&format!("qwen2_tokenizer/{folder}"));
        let tokenizer = Qwen2Tokenizer::load(&Component::new(&folder, "")).unwrap();
        for case in &cases {
            assert_eq!(tokenizer.encode(&case.text), case.ids, "{:?}", case.text);
            let chat = tokenizer.encode_chat(&case.text, case.chat.len());
            assert_eq!(
                (&chat.ids, chat.real, chat.cut),
                (&case.chat, case.real, case.cut),
                "{:?}",
                case.text
            );
        }
    }
}

/// The `json` folder with one of its files changed.
fn changed(file: &str, change: impl FnOnce(&mut Value)) -> String {
    let folder = fixture("qwen2_tokenizer/json");
    let names = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
    let names = names.into_iter().filter(|name| folder.list("").unwrap().iter().any(|file| file == name));
    let mut files: BTreeMap<String, Vec<u8>> =
        names.map(|name| (name.to_owned(), folder.read(name).unwrap())).collect();
    let mut value: Value = serde_json::from_slice(&files[file]).unwrap();
    change(&mut value);
    files.insert(file.to_owned(), value.to_string().into_bytes());
    let files = MemoryFiles(files);
    Qwen2Tokenizer::load(&Component::new(&files, "")).unwrap_err().code.to_owned()
}

#[test]
fn other_steps_are_refused_and_damage_is_named() {
    for (file, code, change) in [
        (
            "tokenizer.json",
            "config-unsupported",
            (|v| v["normalizer"] = json!({"type": "NFKC"})) as fn(&mut Value),
        ),
        ("tokenizer.json", "config-unsupported", |v| v["model"]["type"] = json!("Unigram")),
        ("tokenizer.json", "config-unsupported", |v| v["model"]["ignore_merges"] = json!(true)),
        ("tokenizer.json", "config-unsupported", |v| v["model"]["end_of_word_suffix"] = json!("</w>")),
        ("tokenizer.json", "config-unsupported", |v| {
            v["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("\\s+")
        }),
        ("tokenizer.json", "config-unsupported", |v| v["added_tokens"][0]["lstrip"] = json!(true)),
        ("tokenizer_config.json", "config-unsupported", |v| v["padding_side"] = json!("left")),
        ("tokenizer.json", "tokenizer", |v| v["added_tokens"][1]["id"] = v["added_tokens"][0]["id"].clone()),
        ("tokenizer.json", "tokenizer", |v| v["model"]["merges"] = json!([["no", "such"]])),
        ("tokenizer.json", "tokenizer", |v| v["model"]["merges"] = json!(["pair"])),
        ("tokenizer.json", "tokenizer", |v| v["model"]["vocab"] = json!({"a": 0})),
        ("tokenizer.json", "tokenizer", |v| v["model"] = json!(7)),
        ("tokenizer_config.json", "tokenizer", |v| v["pad_token"] = json!("<none>")),
        ("tokenizer_config.json", "tokenizer", |v| {
            v["added_tokens_decoder"] = json!({"x": {"content": "y"}})
        }),
    ] {
        assert_eq!(changed(file, change), code, "{file}");
    }
    let folder = fixture("qwen2_tokenizer/json");
    let files = MemoryFiles(BTreeMap::from([
        ("tokenizer.json".to_owned(), folder.read("tokenizer.json").unwrap()),
        ("chat_template.jinja".to_owned(), b"{{ messages }}".to_vec()),
    ]));
    let error = Qwen2Tokenizer::load(&Component::new(&files, "")).unwrap_err();
    assert_eq!(error.code, "config-unsupported");
    assert!(error.message.contains("chat template"), "{error}");
}
