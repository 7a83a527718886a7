//! Tokens that are looked for in text as they are, before it is split into words: transformers' `AddedToken`.

use std::collections::HashMap;

use regex::Regex;
use serde::Deserialize;

use super::normalize;
use crate::error::{Error, Result};

/// A token and how it is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AddedToken {
    /// Its text.
    pub content: String,
    /// Whether the spaces before it belong to it.
    pub lstrip: bool,
    /// Whether the spaces after it belong to it.
    pub rstrip: bool,
    /// Whether it is none where a letter, a digit or `_` touches it.
    pub single_word: bool,
    /// Whether it is looked for after lower-casing instead of before; where nothing is said, special tokens are not and
    /// others are.
    pub normalized: Option<bool>,
    /// Whether it is a mark of the format, as begin, end and padding, and no word.
    pub special: bool,
}

impl AddedToken {
    /// A special token of that text.
    pub fn special(content: &str) -> Self {
        Self { content: content.to_owned(), special: true, ..Self::default() }
    }

    fn is_normalized(&self) -> bool {
        self.normalized.unwrap_or(!self.special)
    }
}

/// Every token of its kind, with its id.
#[derive(Debug, Clone)]
pub(super) struct AddedTokens {
    tokens: Vec<Known>,
    /// Places in `tokens` by content.
    contents: HashMap<String, usize>,
    /// Places in `tokens` by whether they are looked for after lower-casing, and their first character.
    beginnings: HashMap<(bool, char), Vec<usize>>,
    begins_with_word: Regex,
    ends_with_word: Regex,
}

#[derive(Debug, Clone)]
struct Known {
    id: u32,
    token: AddedToken,
    /// What is looked for.
    pattern: String,
}

/// A part of a text.
pub(super) enum Piece<'a> {
    /// A token with its text.
    Token(u32, &'a str),
    /// What lies between tokens.
    Text(&'a str),
}

impl AddedTokens {
    pub fn new() -> Result<Self> {
        let regex = |pattern| {
            Regex::new(pattern).map_err(|e| Error::internal("tokenizer-pattern", format!("{pattern}: {e}")))
        };
        Ok(Self {
            tokens: Vec::new(),
            contents: HashMap::new(),
            beginnings: HashMap::new(),
            begins_with_word: regex(r"^\w")?,
            ends_with_word: regex(r"\w$")?,
        })
    }

    /// Adds a token, unless there is one of that content already.
    pub fn add(&mut self, id: u32, token: AddedToken) {
        let normalized = token.is_normalized();
        let pattern = if normalized { normalize(&token.content) } else { token.content.clone() };
        let Some(first) = pattern.chars().next().filter(|_| !self.contents.contains_key(&token.content))
        else {
            return;
        };
        self.contents.insert(token.content.clone(), self.tokens.len());
        self.beginnings.entry((normalized, first)).or_default().push(self.tokens.len());
        self.tokens.push(Known { id, token, pattern });
    }

    /// The id of a token.
    pub fn id(&self, content: &str) -> Option<u32> {
        self.contents.get(content).map(|at| self.tokens[*at].id)
    }

    /// The words of Textual Inversion that have several vectors, with their ids and what they stand for: `<cat>` for
    /// `<cat> <cat>_1 <cat>_2`, where there are such tokens.
    pub fn several(&self) -> impl Iterator<Item = (u32, &str, String)> {
        self.tokens.iter().filter_map(|known| {
            let content = known.token.content.as_str();
            let others =
                (1..).map(|i| format!("{content}_{i}")).take_while(|other| self.contents.contains_key(other));
            let whole = others.fold(content.to_owned(), |whole, other| whole + " " + &other);
            (whole != content).then_some((known.id, content, whole))
        })
    }

    /// Cuts out of `text` the tokens that are looked for before, or after lower-casing (`normalized`); of several that begin
    /// at one place the longest.
    pub fn cut<'a>(&self, text: &'a str, normalized: bool) -> Vec<Piece<'a>> {
        let (mut pieces, mut start) = (Vec::new(), 0);
        let mut rest = text.char_indices();
        while let Some((at, first)) = rest.next() {
            let here = self.beginnings.get(&(normalized, first)).into_iter().flatten();
            let here =
                here.map(|at| &self.tokens[*at]).filter(|known| text[at..].starts_with(&known.pattern));
            let Some(Known { id, token, pattern }) = here.max_by_key(|known| known.pattern.len()) else {
                continue;
            };
            let (before, after) = (&text[..at], &text[at + pattern.len()..]);
            while rest.offset() < at + pattern.len() && rest.next().is_some() {}
            let touched = self.ends_with_word.is_match(before) || self.begins_with_word.is_match(after);
            if token.single_word && touched {
                continue;
            }
            // Spaces that the token before it has taken are gone.
            let from = if token.lstrip { before.trim_end().len().max(start) } else { at };
            let to = text.len() - if token.rstrip { after.trim_start().len() } else { after.len() };
            if from > start {
                pieces.push(Piece::Text(&text[start..from]));
            }
            pieces.push(Piece::Token(*id, &text[at..at + pattern.len()]));
            start = to;
        }
        if start < text.len() {
            pieces.push(Piece::Text(&text[start..]));
        }
        pieces
    }
}
