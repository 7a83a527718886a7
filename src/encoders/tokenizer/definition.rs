//! A tokenizer's folder: the vocabulary, and the files beside it that say how text becomes its ids.
//!
//! Read as transformers' `CLIPTokenizer.from_pretrained` reads them. `added_tokens_decoder` of `tokenizer_config.json` says
//! which tokens were added; in older folders, which lack it, `added_tokens.json` and `tokenizer.json` do, and
//! `special_tokens_map.json` wins over the config. Two files that contradict each other are refused.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::added::AddedToken;
use super::json::TokenizerJson;
use super::{SpecialTokens, damaged};
use crate::error::{Error, Result};
use crate::weights::{Component, without_mark};

/// The names of a tokenizer's files, in the order in which they are written: whoever looks for `vocab.json` or
/// `tokenizer.json` finds the others there.
pub const FILES: [&str; 6] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "tokenizer.json",
    "vocab.json",
];

/// Classes of transformers whose files are read here.
const CLASSES: [&str; 4] =
    ["CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"];
/// Those that take every step from `tokenizer.json`; CLIP's own know their steps.
const STEPLESS: [&str; 2] = ["PreTrainedTokenizerFast", "TokenizersBackend"];
/// transformers writes 1e30 where no length is meant.
const MOST_LENGTH: f64 = 1e9;

/// What a tokenizer is made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Definition {
    pub vocab: HashMap<String, u32>,
    /// Pairs in the order of their rank.
    pub merges: Vec<(String, String)>,
    /// Tokens by the ids that the files give them.
    pub added: BTreeMap<u32, AddedToken>,
    pub special: SpecialTokens,
    /// Tokens without an id of their own: the vocabulary's, or new ones.
    pub others: Vec<AddedToken>,
    /// Most ids of a text, begin and end included.
    pub model_max_length: Option<usize>,
}

impl Definition {
    pub fn read(component: &Component) -> Result<Self> {
        let object = |name: &str| -> Result<Option<Map<String, Value>>> {
            if component.contains(name)? { component.json(name).map(Some) } else { Ok(None) }
        };
        let mut config = object("tokenizer_config.json")?.unwrap_or_default();
        refuse_unknown(&config)?;
        let json = if component.contains("tokenizer.json")? {
            let class = config.get("tokenizer_class").and_then(Value::as_str);
            let needs_steps = class.is_some_and(|class| STEPLESS.contains(&class));
            Some(TokenizerJson::parse(&component.read("tokenizer.json")?, needs_steps)?)
        } else {
            None
        };

        let mut definition = Self::default();
        if json.is_none() || component.contains("vocab.json")? {
            let merges = String::from_utf8(component.read("merges.txt")?)
                .map_err(|_| damaged("merges.txt is not UTF-8 text".to_owned()))?;
            definition.vocab = vocabulary(&component.read("vocab.json")?)?;
            definition.merges = pairs(&merges)?;
        }
        let (mut post, mut padding, mut unknown, mut longest) = (None, None, None, None);
        let mut of_json = BTreeMap::new();
        if let Some(json) = json {
            if definition.vocab.is_empty() {
                (definition.vocab, definition.merges) = (json.vocab, json.merges);
            } else {
                same_vocabulary(&definition, &json)?;
            }
            of_json = json.added_tokens;
            (post, padding, unknown, longest) = (json.ends, json.pad_token, json.unk_token, json.max_length);
        }

        let decoder = config.remove("added_tokens_decoder");
        let of_words = object("added_tokens.json")?.unwrap_or_default();
        let of_words = of_words
            .into_iter()
            .map(|(content, id)| Ok((id_of(&id, "added_tokens.json", &content)?, content)))
            .collect::<Result<BTreeMap<u32, String>>>()?;
        if let Some(decoder) = &decoder {
            let entries =
                decoder.as_object().ok_or_else(|| config_error("added_tokens_decoder is no object"))?;
            for (id, token) in entries {
                let id = id
                    .parse()
                    .map_err(|_| config_error(format!("added_tokens_decoder has the id '{id}'")))?;
                definition.added.insert(id, token_of("added_tokens_decoder", token)?);
            }
        } else if let Some(map) = object("special_tokens_map.json")? {
            config.extend(map.into_iter().filter(|(_, value)| !value.is_null()));
        }
        definition.take_names(&config)?;
        let contents: HashSet<String> = definition.named().map(|token| token.content.clone()).collect();
        let is_named = |content: &str| contents.contains(content);
        let lists = of_words.iter().map(|(id, content)| (*id, content.as_str(), "added_tokens.json"));
        let lists =
            lists.chain(of_json.iter().map(|(id, token)| (*id, token.content.as_str(), "tokenizer.json")));
        if decoder.is_some() {
            for (id, content, file) in lists {
                let said = definition.added.get(&id).is_some_and(|token| token.content == content);
                let known = is_named(content) && definition.vocab.get(content) == Some(&id);
                if !(said || known) {
                    return Err(contradiction(format!(
                        "{file} has the token '{content}' as {id}, and added_tokens_decoder in tokenizer_config.json does not"
                    )));
                }
            }
        } else {
            let word = |content: &String| AddedToken {
                content: content.clone(),
                special: is_named(content),
                ..AddedToken::default()
            };
            definition.added = of_words.iter().map(|(id, content)| (*id, word(content))).collect();
            for (id, token) in of_json {
                let other = definition.added.get(&id).filter(|other| other.content != token.content);
                if let Some(other) = other {
                    return Err(contradiction(format!(
                        "token {id} is '{}' in added_tokens.json and '{}' in tokenizer.json",
                        other.content, token.content
                    )));
                }
                definition.added.insert(id, token);
            }
        }

        let max_length = config.get("model_max_length").or(config.get("max_len")).filter(|v| !v.is_null());
        definition.model_max_length = match max_length {
            None => longest,
            Some(length) => {
                let length = length.as_f64().filter(|length| *length >= 2.0).ok_or_else(|| {
                    config_error(format!("model_max_length is {length}; begin and end token take two"))
                })?;
                Some(length as usize).filter(|_| length < MOST_LENGTH)
            }
        };
        definition.special.pad_token = definition.special.pad_token.or(padding);
        definition.special.unk_token = definition.special.unk_token.or(unknown);
        definition.frame(post)?;
        Ok(definition)
    }

    /// Takes the special tokens that a config names.
    fn take_names(&mut self, config: &Map<String, Value>) -> Result<()> {
        // Named ones are numbered before those of lists.
        let is_list = |name: &str| ["additional_special_tokens", "extra_special_tokens"].contains(&name);
        let special = |name: &str, value: &Value| {
            token_of(name, value).map(|token| AddedToken { special: true, ..token })
        };
        let named = |(name, value): &(&String, &Value)| {
            name.ends_with("_token") && (value.is_string() || value.is_object())
        };
        for (name, value) in config.iter().filter(named) {
            let token = special(name, value)?;
            match name.as_str() {
                "bos_token" => self.special.bos_token = Some(token),
                "eos_token" => self.special.eos_token = Some(token),
                "pad_token" => self.special.pad_token = Some(token),
                "unk_token" => self.special.unk_token = Some(token),
                _ => self.others.push(token),
            }
        }
        for (name, value) in config.iter().filter(|(name, _)| is_list(name)) {
            let values: Vec<&Value> = match value {
                Value::Array(values) => values.iter().collect(),
                Value::Object(values) => values.values().collect(),
                _ => continue,
            };
            for value in values {
                self.others.push(special(name, value)?);
            }
        }
        Ok(())
    }

    /// Every token that a config names.
    fn named(&self) -> impl Iterator<Item = &AddedToken> {
        let SpecialTokens { bos_token, eos_token, pad_token, unk_token } = &self.special;
        [bos_token, eos_token, pad_token, unk_token].into_iter().flatten().chain(&self.others)
    }

    /// Takes begin and end from a post-processor where no config names them; refuses others than those.
    fn frame(&mut self, ends: Option<[(String, u32); 2]>) -> Result<()> {
        let Some(ends) = ends else { return Ok(()) };
        let SpecialTokens { bos_token, eos_token, .. } = &mut self.special;
        for ((content, id), (name, token)) in ends.into_iter().zip([("begin", bos_token), ("end", eos_token)])
        {
            let known = self.vocab.get(&content).copied();
            let known =
                known.or(self.added.iter().find(|(_, added)| added.content == content).map(|(id, _)| *id));
            if known != Some(id) {
                return Err(contradiction(format!(
                    "the post-processor of tokenizer.json has '{content}' as {id}"
                )));
            }
            match token {
                Some(token) if token.content != content => {
                    return Err(contradiction(format!(
                        "texts {name} with '{content}' in tokenizer.json and with '{}' in tokenizer_config.json",
                        token.content
                    )));
                }
                Some(_) => {}
                None => *token = Some(AddedToken::special(&content)),
            }
        }
        Ok(())
    }
}

/// The contents of `vocab.json`.
pub(super) fn vocabulary(vocab_json: &[u8]) -> Result<HashMap<String, u32>> {
    serde_json::from_slice(without_mark(vocab_json)).map_err(|e| damaged(format!("vocab.json: {e}")))
}

/// The pairs of `merges.txt`.
pub(super) fn pairs(merges_txt: &str) -> Result<Vec<(String, String)>> {
    // Only the version line is a comment: CLIP's merges hold pairs that begin with '#'.
    let lines = merges_txt.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty());
    lines
        .map(|line| {
            pair(line.trim())
                .ok_or_else(|| damaged(format!("merges.txt has the line '{line}', which is not a pair")))
        })
        .collect()
}

/// `a b` → `a` and `b`.
pub(super) fn pair(text: &str) -> Option<(String, String)> {
    let (left, right) = text.split_once(' ')?;
    Some((left.to_owned(), right.to_owned()))
}

/// Refuses settings of `tokenizer_config.json` under which texts would become other ids than they do here.
fn refuse_unknown(config: &Map<String, Value>) -> Result<()> {
    let text = |name: &str| config.get(name).and_then(Value::as_str);
    for name in ["padding_side", "truncation_side"] {
        if let Some(side) = text(name).filter(|side| *side != "right") {
            return Err(unsupported(format!("tokenizer_config.json: {name} is '{side}'")));
        }
    }
    if let Some(class) = text("tokenizer_class").filter(|class| !CLASSES.contains(class)) {
        return Err(unsupported(format!("tokenizer_config.json: tokenizer_class is '{class}'")));
    }
    if config.get("split_special_tokens") == Some(&Value::Bool(true)) {
        return Err(unsupported("tokenizer_config.json: split_special_tokens is true"));
    }
    Ok(())
}

/// Refuses two vocabularies, of which nothing says which one the text encoder knows.
fn same_vocabulary(plain: &Definition, json: &TokenizerJson) -> Result<()> {
    let added: HashSet<&str> = json.added_tokens.values().map(|token| token.content.as_str()).collect();
    let other = |one: &HashMap<String, u32>, two: &HashMap<String, u32>| {
        let differs = |(token, id): &(&String, &u32)| match two.get(*token) {
            Some(other) => other != *id,
            None => !added.contains(token.as_str()),
        };
        one.iter().find(differs).map(|(token, _)| token.clone())
    };
    if let Some(token) = other(&plain.vocab, &json.vocab).or_else(|| other(&json.vocab, &plain.vocab)) {
        return Err(contradiction(format!(
            "vocab.json and tokenizer.json disagree about the token '{token}'"
        )));
    }
    if plain.merges != json.merges {
        return Err(contradiction("merges.txt and the merges of tokenizer.json differ"));
    }
    Ok(())
}

fn token_of(name: &str, value: &Value) -> Result<AddedToken> {
    if let Some(content) = value.as_str() {
        return Ok(AddedToken { content: content.to_owned(), ..AddedToken::default() });
    }
    let token = value.get("content").and_then(|_| AddedToken::deserialize(value).ok());
    token.ok_or_else(|| damaged(format!("{name}: {value} is no token")))
}

fn id_of(id: &Value, file: &str, content: &str) -> Result<u32> {
    let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| damaged(format!("{file}: '{content}' has no id")))
}

fn config_error(message: impl std::fmt::Display) -> Error {
    damaged(format!("tokenizer_config.json: {message}"))
}

pub(super) fn unsupported(message: impl Into<String>) -> Error {
    Error::weights(
        "config-unsupported",
        message,
        "use the tokenizer of a CLIP text encoder: vocab.json and merges.txt, or tokenizer.json",
    )
}

pub(super) fn contradiction(message: impl Into<String>) -> Error {
    Error::weights(
        "tokenizer",
        message,
        "keep those of the tokenizer's files that the text encoder was trained with",
    )
}
