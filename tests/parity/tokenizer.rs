//! The tokenizer against transformers' `CLIPTokenizer`: equal ids, no tolerance.

use std::collections::BTreeMap;
use std::path::PathBuf;

use facestudio::encoders::tokenizer::Tokenizer;
use facestudio::weights::{Component, Files, Folder, MemoryFiles};
use serde_json::{Value, json};

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

#[derive(serde::Deserialize)]
pub struct Beside {
    pub texts: Vec<String>,
    pub cases: Vec<BesideCase>,
}

#[derive(serde::Deserialize)]
pub struct BesideCase {
    pub name: String,
    /// `null` for a file that is not there.
    pub files: BTreeMap<String, Value>,
    pub ids: Vec<Vec<u32>>,
    /// The texts as diffusers' pipelines write them out.
    pub prompts: Vec<String>,
}

/// The folder `plain` with `files` besides, or in place of its own.
pub fn folder(files: &BTreeMap<String, Value>) -> MemoryFiles {
    let plain = fixture("tokenizer/plain");
    let read = |name: &str| plain.read(name).unwrap();
    let mut folder = BTreeMap::from(["vocab.json", "merges.txt"].map(|name| (name.to_owned(), read(name))));
    for (name, content) in files {
        let mut content = content.clone();
        if content["model"]["vocab"] == "PLAIN" {
            content["model"]["vocab"] = serde_json::from_slice(&read("vocab.json")).unwrap();
            let joined = content["model"]["merges"] == "PLAIN JOINED";
            let merges = String::from_utf8(read("merges.txt")).unwrap();
            let pairs = merges.lines().skip(1).map(|line| match line.split_once(' ').unwrap() {
                _ if joined => json!(line),
                pair => json!(pair),
            });
            content["model"]["merges"] = pairs.collect();
        }
        if content.is_null() {
            folder.remove(name);
        } else {
            folder.insert(name.clone(), content.to_string().into_bytes());
        }
    }
    MemoryFiles(folder)
}

pub fn cases() -> Beside {
    serde_json::from_slice(&fixture("tokenizer").read("beside.json").unwrap()).unwrap()
}

#[test]
fn every_file_beside_a_vocabulary_is_obeyed() {
    let Beside { texts, cases } = cases();
    assert!(cases.len() >= 20);
    for BesideCase { name, files, ids, prompts } in cases {
        let files = folder(&files);
        let tokenizer =
            Tokenizer::load(&Component::new(&files, "")).unwrap_or_else(|e| panic!("{name}: {e}"));
        for ((text, ids), prompt) in texts.iter().zip(ids).zip(prompts) {
            assert_eq!(tokenizer.encode(text, 77).unwrap(), ids, "{name}: {text}");
            assert_eq!(tokenizer.written_out(text), prompt, "{name}");
        }
    }
}

#[test]
fn what_is_not_obeyed_or_contradicts_itself_is_refused_by_its_name() {
    let one = |name: &str, content: Value| BTreeMap::from([(name.to_owned(), content)]);
    let config = |name: &str, value: Value| one("tokenizer_config.json", json!({ name: value }));
    let Beside { cases, .. } = cases();
    let whole = &cases.iter().find(|case| case.name == "tokenizer.json").unwrap().files["tokenizer.json"];
    let with = |name: &str, value: Value| {
        let mut file = whole.clone();
        *file.pointer_mut(name).unwrap_or_else(|| panic!("{name}")) = value;
        BTreeMap::from([
            ("tokenizer.json".to_owned(), file),
            ("vocab.json".to_owned(), Value::Null),
            ("merges.txt".to_owned(), Value::Null),
        ])
    };
    let known = json!({ "content": "<|endoftext|>", "special": true });
    for (files, code, name) in [
        (config("padding_side", json!("left")), "config-unsupported", "padding_side"),
        (config("truncation_side", json!("left")), "config-unsupported", "truncation_side"),
        (config("tokenizer_class", json!("T5Tokenizer")), "config-unsupported", "T5Tokenizer"),
        (config("split_special_tokens", json!(true)), "config-unsupported", "split_special_tokens"),
        (config("model_max_length", json!(1)), "tokenizer", "model_max_length"),
        (config("bos_token", json!("<s>")), "tokenizer", "'<s>'"),
        (config("pad_token", json!({ "lstrip": true })), "tokenizer", "pad_token"),
        (config("added_tokens_decoder", json!({ "5": { "content": "<x>" } })), "tokenizer", "'<x>'"),
        (config("added_tokens_decoder", json!({ "x": { "content": "<x>" } })), "tokenizer", "'x'"),
        (one("added_tokens.json", json!({ "<x>": 5 })), "tokenizer", "'<x>'"),
        (one("added_tokens.json", json!({ "<|endoftext|>": 5 })), "tokenizer", "'<|endoftext|>'"),
        (one("added_tokens.json", json!({ "<x>": "one" })), "tokenizer", "'<x>'"),
        (
            BTreeMap::from([
                ("tokenizer_config.json".to_owned(), json!({ "added_tokens_decoder": {} })),
                ("added_tokens.json".to_owned(), json!({ "<x>": 5000 })),
            ]),
            "tokenizer",
            "'<x>'",
        ),
        (
            one("tokenizer.json", json!({ "model": { "vocab": { "a": 1 }, "merges": [] } })),
            "tokenizer",
            "tokenizer.json",
        ),
        (with("/model/type", json!("WordPiece")), "config-unsupported", "byte-pair"),
        (with("/model/end_of_word_suffix", json!("")), "config-unsupported", "end_of_word_suffix"),
        (
            with("/model/continuing_subword_prefix", json!("##")),
            "config-unsupported",
            "continuing_subword_prefix",
        ),
        (with("/model/dropout", json!(0.1)), "config-unsupported", "dropout"),
        (with("/model/fuse_unk", json!(true)), "config-unsupported", "fuse_unk"),
        (with("/model/ignore_merges", json!(true)), "config-unsupported", "ignore_merges"),
        (with("/model/byte_fallback", json!(true)), "config-unsupported", "byte_fallback"),
        (with("/normalizer", json!({ "type": "NFC" })), "config-unsupported", "normalizer"),
        (with("/normalizer/normalizers/2", json!({ "type": "NFKC" })), "config-unsupported", "normalizer"),
        (
            with("/pre_tokenizer/pretokenizers/1/add_prefix_space", json!(true)),
            "config-unsupported",
            "pre_tokenizer",
        ),
        (
            with("/pre_tokenizer/pretokenizers/0/pattern/Regex", json!("\\w+")),
            "config-unsupported",
            "pre_tokenizer",
        ),
        (with("/post_processor", json!({ "type": "ByteLevel" })), "config-unsupported", "post_processor"),
        (with("/post_processor/cls/1", json!(3)), "tokenizer", "'<|startoftext|>'"),
        (with("/padding", json!({ "direction": "Left" })), "config-unsupported", "padding"),
        (with("/truncation", json!({ "direction": "Left" })), "config-unsupported", "truncation"),
        (with("/added_tokens/0/id", json!(7)), "tokenizer", "'<|startoftext|>'"),
        (
            {
                let mut files = with("/normalizer", Value::Null);
                let config = json!({ "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": known });
                files.insert("tokenizer_config.json".to_owned(), config);
                files
            },
            "config-unsupported",
            "normalizer",
        ),
    ] {
        let error = Tokenizer::load(&Component::new(&folder(&files), "")).unwrap_err();
        assert!(error.code == code && error.message.contains(name), "{name}: {error}");
    }
}

#[test]
fn an_added_word_keeps_the_id_that_its_file_gives_it() {
    // transformers 4 reads it so; transformers 5 numbers added tokens anew, which is the same where none is left out.
    let files = folder(&BTreeMap::from([("added_tokens.json".to_owned(), json!({ "<cat-toy>": 1000 }))]));
    let tokenizer = Tokenizer::load(&Component::new(&files, "")).unwrap();
    assert_eq!(tokenizer.encode("<cat-toy>", 77).unwrap()[1], 1000);
}
