//! Qwen's byte-level byte-pair encoding (transformers' `Qwen2Tokenizer`), and the chat that FLUX.2's prompts are put into.
//!
//! Text → added tokens cut out → NFC → words → UTF-8 bytes written as printable characters → merges in order of rank. Nothing
//! is lower-cased, and nothing begins or ends a text.

use std::collections::{BTreeMap, HashMap};

use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};
use unicode_normalization::UnicodeNormalization;

use super::added::AddedToken;
use super::bpe::Merges;
use super::definition::{contradiction, pairs, vocabulary};
use super::json::Pair;
use super::{Excess, damaged, printable};
use crate::error::{Error, Result};
use crate::weights::{Component, without_mark};

/// Qwen's words, as its files spell them: English contractions, letters with one sign before them, single digits, signs with
/// the line ends behind them, line ends with the spaces before them, other spaces.
const WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same without what looks ahead, which [`Qwen2Tokenizer::words`] does, and with the letters of both cases written out
/// (`ſ` is an s).
const PATTERN: &str = r"'(?:[sSſ]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
/// Fills texts up, unless the folder names another.
const PAD: &str = "<|endoftext|>";
/// What stands before a prompt.
const OPENING: &str = "<|im_start|>user\n";
/// What a chat is made of; a folder's own template must be of this kind.
const MARKS: [&str; 3] = ["<|im_start|>", "<|im_end|>", "enable_thinking"];

/// Qwen's tokenizer.
#[derive(Debug, Clone)]
pub struct Qwen2Tokenizer {
    /// Of each byte.
    bytes: Vec<u32>,
    merges: Merges,
    /// By their first character, the longest first.
    added: HashMap<char, Vec<(String, u32)>>,
    pad: u32,
    pattern: Regex,
}

/// A prompt as the text encoder takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatIds {
    /// As many as were asked for, padded at the end.
    pub ids: Vec<u32>,
    /// How many of them are the chat's.
    pub real: usize,
    /// How many there was no room for.
    pub cut: usize,
}

/// `tokenizer.json`, of the tokenizers library.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Entry>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Entry {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<Pair>,
    #[serde(default)]
    ignore_merges: bool,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

impl Qwen2Tokenizer {
    /// Loads the tokenizer of a component folder: `tokenizer.json`, or else `vocab.json` and `merges.txt`, and what
    /// `tokenizer_config.json` says of added tokens and padding.
    ///
    /// Fails with `tokenizer` where they are damaged or contradict each other, and with `config-unsupported` where they ask
    /// for steps that Qwen's tokenizer does not have.
    pub fn load(component: &Component) -> Result<Self> {
        let config: Map<String, Value> = if component.contains("tokenizer_config.json")? {
            component.json("tokenizer_config.json")?
        } else {
            Map::new()
        };
        let mut added = Added::default();
        let (vocab, merges) = if component.contains("tokenizer.json")? {
            let file: File = serde_json::from_slice(without_mark(&component.read("tokenizer.json")?))
                .map_err(|e| damaged(format!("tokenizer.json: {e}")))?;
            check_steps(&file)?;
            for Entry { id, token } in file.added_tokens {
                added.insert(id, token)?;
            }
            let merges = file.model.merges.into_iter().map(Pair::split).collect::<Result<_>>()?;
            (file.model.vocab, merges)
        } else {
            let merges = String::from_utf8(component.read("merges.txt")?)
                .map_err(|_| damaged("merges.txt is not UTF-8 text".to_owned()))?;
            (vocabulary(&component.read("vocab.json")?)?, pairs(&merges)?)
        };
        for (id, token) in config.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten()
        {
            let read = || Some((id.parse().ok()?, AddedToken::deserialize(token).ok()?));
            let (id, token) = read().ok_or_else(|| {
                damaged(format!("tokenizer_config.json: added_tokens_decoder has '{id}': {token}"))
            })?;
            added.insert(id, token)?;
        }
        if let Some(side) = ["padding_side", "truncation_side"]
            .into_iter()
            .find(|side| config.get(*side).and_then(Value::as_str).is_some_and(|of| of != "right"))
        {
            return Err(unsupported(format!("tokenizer_config.json: {side} is {}", config[side])));
        }
        check_template(component, &config)?;
        let named = config.get("pad_token").filter(|token| !token.is_null());
        let named =
            named.map(|token| token.as_str().or_else(|| token["content"].as_str()).unwrap_or_default());
        Self::new(&vocab, &merges, added.tokens, named.unwrap_or(PAD))
    }

    fn new(
        vocab: &HashMap<String, u32>,
        merges: &[(String, String)],
        added: BTreeMap<u32, AddedToken>,
        pad: &str,
    ) -> Result<Self> {
        let id = |token: &str| {
            vocab.get(token).copied().ok_or_else(|| damaged(format!("the vocabulary has no token '{token}'")))
        };
        let bytes = (0..=u8::MAX).map(|byte| id(printable(byte).encode_utf8(&mut [0; 4])));
        let mut tokens: HashMap<char, Vec<(String, u32)>> = HashMap::new();
        let mut of_pad = None;
        for (id, token) in added {
            let strange = [
                ("lstrip", token.lstrip),
                ("rstrip", token.rstrip),
                ("single_word", token.single_word),
                ("normalized", token.normalized == Some(true)),
            ];
            if let Some((name, _)) = strange.iter().find(|(_, is)| *is) {
                return Err(unsupported(format!("the added token '{}': its {name} is true", token.content)));
            }
            let Some(first) = token.content.chars().next() else {
                return Err(damaged(format!("the added token {id} is empty")));
            };
            if token.content == pad {
                of_pad = Some(id);
            }
            tokens.entry(first).or_default().push((token.content, id));
        }
        for tokens in tokens.values_mut() {
            tokens.sort_by_key(|(content, _)| std::cmp::Reverse(content.len()));
        }
        Ok(Self {
            bytes: bytes.collect::<Result<_>>()?,
            merges: Merges::new(merges, id)?,
            pad: of_pad.map_or_else(|| id(pad), Ok)?,
            added: tokens,
            pattern: Regex::new(PATTERN).map_err(|e| Error::internal("tokenizer-pattern", format!("{e}")))?,
        })
    }

    /// The tokens of a text; names of added tokens in it are those tokens, as in transformers.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut start = 0;
        let mut at = 0;
        while let Some(first) = text[at..].chars().next() {
            let mut known = self.added.get(&first).into_iter().flatten();
            match known.find(|(content, _)| text[at..].starts_with(content.as_str())) {
                Some((content, id)) => {
                    self.encode_plain(&text[start..at], &mut ids);
                    ids.push(*id);
                    at += content.len();
                    start = at;
                }
                None => at += first.len_utf8(),
            }
        }
        self.encode_plain(&text[start..], &mut ids);
        ids
    }

    /// `prompt` as a user's turn of a chat, with an answer that begins without thinking: what FLUX.2 klein reads (the template
    /// of Qwen3 with `add_generation_prompt` and without `enable_thinking`).
    pub fn chat(prompt: &str) -> String {
        format!("{OPENING}{prompt}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    }

    /// The tokens of [`chat`](Self::chat), cut or padded at the end to `length`.
    pub fn encode_chat(&self, prompt: &str, length: usize) -> ChatIds {
        let mut ids = self.encode(&Self::chat(prompt));
        let (real, cut) = (ids.len().min(length), ids.len().saturating_sub(length));
        ids.resize(length, self.pad);
        ChatIds { ids, real, cut }
    }

    /// What [`encode_chat`](Self::encode_chat) cuts off; `None` where it fits. Where only the marks behind the prompt are, they are
    /// what it is cut off from.
    pub fn chat_excess(&self, prompt: &str, length: usize) -> Option<Excess> {
        let ChatIds { cut, .. } = self.encode_chat(prompt, length);
        if cut == 0 {
            return None;
        }
        let ends: Vec<usize> = prompt
            .split_whitespace()
            .map(|word| word.as_ptr() as usize - prompt.as_ptr() as usize + word.len())
            .collect();
        // More of a text is never fewer tokens, but for one that ends amid a word.
        let fits = |end: &usize| self.encode(&format!("{OPENING}{}", &prompt[..*end])).len() <= length;
        let read = ends.partition_point(fits);
        let from = prompt.split_whitespace().nth(read).unwrap_or(MARKS[1]).to_owned();
        Some(Excess { tokens: cut, from, room: length })
    }

    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) {
        let text: String = text.nfc().collect();
        for word in self.words(&text) {
            self.merges.encode(word.bytes().map(|byte| self.bytes[usize::from(byte)]), ids);
        }
    }

    /// Qwen's words. Of a run of spaces before a word the last one is left for it: all of `\s+(?!\S)` that [`PATTERN`] lacks.
    fn words<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let mut words = Vec::new();
        let mut at = 0;
        while let Some(found) = self.pattern.find_at(text, at) {
            let word = found.as_str();
            let is_run = word.chars().all(char::is_whitespace) && !word.contains(['\r', '\n']);
            let last = word.char_indices().next_back().map_or(0, |(last, _)| last);
            let length = if is_run && found.end() < text.len() && last > 0 { last } else { word.len() };
            words.push(&word[..length]);
            at = found.start() + length;
        }
        words
    }
}

/// Tokens that were added, as the files name them.
#[derive(Default)]
struct Added {
    tokens: BTreeMap<u32, AddedToken>,
    ids: HashMap<String, u32>,
}

impl Added {
    /// Fails where an id or a content has another partner already.
    fn insert(&mut self, id: u32, token: AddedToken) -> Result<()> {
        let content = self.tokens.get(&id).map_or(&token.content, |known| &known.content);
        let known = self.ids.get(&token.content).copied().unwrap_or(id);
        if known != id || *content != token.content {
            return Err(contradiction(format!(
                "the tokenizer's files have '{}' as {id} and as {known}, or '{content}' in its place",
                token.content
            )));
        }
        self.ids.insert(token.content.clone(), id);
        self.tokens.insert(id, token);
        Ok(())
    }
}

/// Fails with `config-unsupported`, naming the step, where one is another than Qwen's.
fn check_steps(file: &File) -> Result<()> {
    let model = &file.model;
    let none = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
    let steps = [
        ("model is no byte-pair encoding", model.kind.as_deref().is_none_or(|kind| kind == "BPE")),
        ("normalizer is another than NFC", file.normalizer.is_null() || file.normalizer["type"] == "NFC"),
        (
            "pre_tokenizer is another than Qwen's",
            file.pre_tokenizer.is_null() || is_pre_tokenizer(&file.pre_tokenizer),
        ),
        ("ignore_merges is set", !model.ignore_merges),
        ("continuing_subword_prefix is set", none(&model.continuing_subword_prefix)),
        ("end_of_word_suffix is set", none(&model.end_of_word_suffix)),
    ];
    match steps.iter().find(|(_, right)| !right) {
        Some((what, _)) => Err(unsupported(format!("tokenizer.json: its {what}"))),
        None => Ok(()),
    }
}

/// Qwen's words, their bytes as printable characters.
fn is_pre_tokenizer(step: &Value) -> bool {
    let Some([split, bytes]) = step["pretokenizers"].as_array().map(Vec::as_slice) else { return false };
    step["type"] == "Sequence"
        && split["type"] == "Split"
        && split["pattern"]["Regex"] == WORDS
        && split["behavior"] == "Isolated"
        && split["invert"] == false
        && bytes["type"] == "ByteLevel"
        && bytes["add_prefix_space"] == false
        && bytes["use_regex"] == false
}

/// Fails with `config-unsupported` where the folder has a chat template without Qwen3's marks.
fn check_template(component: &Component, config: &Map<String, Value>) -> Result<()> {
    let template = if component.contains("chat_template.jinja")? {
        Some(String::from_utf8_lossy(&component.read("chat_template.jinja")?).into_owned())
    } else {
        config.get("chat_template").and_then(Value::as_str).map(str::to_owned)
    };
    let lacks = |template: &String| MARKS.into_iter().find(|mark| !template.contains(mark));
    match template.as_ref().and_then(lacks) {
        Some(mark) => Err(unsupported(format!("the chat template knows no {mark}"))),
        None => Ok(()),
    }
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::weights("config-unsupported", message, "use the tokenizer of a Qwen3")
}
