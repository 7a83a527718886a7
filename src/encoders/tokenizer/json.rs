//! `tokenizer.json`, the file of the tokenizers library: vocabulary, merges and added tokens are read, and the steps before
//! and after them must be CLIP's.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::{Value, json};

use super::added::AddedToken;
use super::definition::{contradiction, pair, unsupported};
use super::{END_OF_WORD, damaged};
use crate::error::Result;
use crate::weights::without_mark;

/// CLIP's words as transformers writes them; some versions put the special tokens before.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
const SPECIAL_WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|";

/// What is read of it.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenizerJson {
    pub vocab: HashMap<String, u32>,
    pub merges: Vec<(String, String)>,
    pub added_tokens: BTreeMap<u32, AddedToken>,
    pub unk_token: Option<AddedToken>,
    /// Of its padding.
    pub pad_token: Option<AddedToken>,
    /// Of its truncation.
    pub max_length: Option<usize>,
    /// What begins and ends a text, with their ids.
    pub ends: Option<[(String, u32); 2]>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    truncation: Value,
    #[serde(default)]
    padding: Value,
    model: Value,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    merges: Vec<Pair>,
    unk_token: Option<String>,
}

/// Older files join a pair with a space.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Pair {
    Joined(String),
    Split(String, String),
}

impl Pair {
    pub fn split(self) -> Result<(String, String)> {
        match self {
            Self::Split(left, right) => Ok((left, right)),
            Self::Joined(text) => pair(&text).ok_or_else(|| {
                damaged(format!("tokenizer.json has the merge '{text}', which is not a pair"))
            }),
        }
    }
}

impl TokenizerJson {
    /// Parses the file. A step that it does not have is CLIP's, as `CLIPTokenizer` takes it, unless it `needs_steps`.
    ///
    /// Fails with `config-unsupported`, naming the step, where one is another than CLIP's.
    pub fn parse(bytes: &[u8], needs_steps: bool) -> Result<Self> {
        let file: File = serde_json::from_slice(without_mark(bytes))
            .map_err(|e| damaged(format!("tokenizer.json: {e}")))?;
        let is_clips = |step: &Value, clips: bool| if step.is_null() { !needs_steps } else { clips };
        let model = &file.model;
        let is = |name: &str, known: &[Value]| model[name].is_null() || known.contains(&model[name]);
        let suffix = &model["end_of_word_suffix"];
        let steps = [
            ("model is no byte-pair encoding", is("type", &["BPE".into()])),
            (
                "normalizer is another than CLIP's",
                is_clips(&file.normalizer, is_normalizer(&file.normalizer)),
            ),
            (
                "pre_tokenizer is another than CLIP's",
                is_clips(&file.pre_tokenizer, is_pre_tokenizer(&file.pre_tokenizer)),
            ),
            ("post_processor is missing", !(file.post_processor.is_null() && needs_steps)),
            ("end_of_word_suffix is another than CLIP's", is_clips(suffix, *suffix == json!(END_OF_WORD))),
            ("continuing_subword_prefix is set", is("continuing_subword_prefix", &["".into()])),
            ("dropout is set", is("dropout", &[json!(0), json!(0.0)])),
            ("fuse_unk is set", is("fuse_unk", &[false.into()])),
            ("byte_fallback is set", is("byte_fallback", &[false.into()])),
            ("ignore_merges is set", is("ignore_merges", &[false.into()])),
            ("padding is on the left", is_right(&file.padding)),
            ("truncation is on the left", is_right(&file.truncation)),
        ];
        if let Some((what, _)) = steps.iter().find(|(_, right)| !right) {
            return Err(unsupported(format!("tokenizer.json: its {what}")));
        }
        let Model { vocab, merges, unk_token } =
            Model::deserialize(model).map_err(|e| damaged(format!("tokenizer.json: {e}")))?;
        let merges = merges.into_iter().map(Pair::split);
        let mut added_tokens = BTreeMap::new();
        for Added { id, token } in file.added_tokens {
            if let Some(other) = added_tokens.insert(id, token.clone()) {
                return Err(contradiction(format!(
                    "tokenizer.json has the tokens '{}' and '{}' as {id}",
                    other.content, token.content
                )));
            }
        }
        Ok(Self {
            vocab,
            merges: merges.collect::<Result<_>>()?,
            added_tokens,
            unk_token: unk_token.as_deref().map(AddedToken::special),
            pad_token: file.padding["pad_token"].as_str().map(AddedToken::special),
            max_length: file.truncation["max_length"].as_u64().map(|length| length as usize),
            ends: ends(&file.post_processor)?,
        })
    }
}

fn is_right(step: &Value) -> bool {
    step.is_null() || step["direction"].is_null() || step["direction"] == "Right"
}

/// NFC, runs of spaces to one, lower case.
fn is_normalizer(step: &Value) -> bool {
    let spaces = json!({ "type": "Replace", "pattern": { "Regex": "\\s+" }, "content": " " });
    let [nfc, lower] = ["NFC", "Lowercase"].map(|kind| json!({ "type": kind }));
    // Splitting into words makes the spaces alike in any case.
    let known = [vec![nfc.clone(), spaces, lower.clone()], vec![nfc, lower]];
    step["type"] == "Sequence" && known.iter().any(|known| step["normalizers"] == json!(known))
}

/// CLIP's words, their bytes as printable characters.
fn is_pre_tokenizer(step: &Value) -> bool {
    let Some([split, bytes]) = step["pretokenizers"].as_array().map(Vec::as_slice) else { return false };
    let pattern = split["pattern"]["Regex"].as_str().unwrap_or_default();
    step["type"] == "Sequence"
        && split["type"] == "Split"
        && pattern.strip_prefix(SPECIAL_WORDS).unwrap_or(pattern) == WORDS
        && split["behavior"] == "Removed"
        && split["invert"] == true
        && bytes["type"] == "ByteLevel"
        && bytes["add_prefix_space"] == false
}

/// The tokens that a post-processor puts around a text; `None` where there is none.
fn ends(step: &Value) -> Result<Option<[(String, u32); 2]>> {
    let other = || unsupported("tokenizer.json: its post_processor is another than a begin and an end token");
    if step.is_null() {
        return Ok(None);
    }
    let entry = |value: &Value| {
        Some((value[0].as_str()?.to_owned(), value[1].as_u64().and_then(|id| u32::try_from(id).ok())?))
    };
    let found = match step["type"].as_str().unwrap_or_default() {
        "RobertaProcessing" | "BertProcessing" => entry(&step["cls"]).zip(entry(&step["sep"])),
        "TemplateProcessing" => {
            let token = |part: &Value| {
                let name = part["SpecialToken"]["id"].as_str()?;
                let known = &step["special_tokens"][name];
                match (known["tokens"].as_array()?.as_slice(), known["ids"].as_array()?.as_slice()) {
                    ([token], [id]) => entry(&json!([token, id])),
                    _ => None,
                }
            };
            match step["single"].as_array().map(Vec::as_slice) {
                Some([begin, text, end]) if text["Sequence"].is_object() => token(begin).zip(token(end)),
                _ => None,
            }
        }
        // It moves offsets only.
        "Sequence" => {
            let steps = step["processors"].as_array().ok_or_else(other)?;
            let steps: Vec<&Value> = steps.iter().filter(|step| step["type"] != "ByteLevel").collect();
            return match steps[..] {
                [step] => ends(step),
                _ => Err(other()),
            };
        }
        _ => None,
    };
    found.map(|(begin, end)| Some([begin, end])).ok_or_else(other)
}
