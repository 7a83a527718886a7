//! CLIP's byte-level byte-pair encoding (Radford et al. 2021; transformers' `CLIPTokenizer`), from `vocab.json` and
//! `merges.txt`.
//!
//! Text → special tokens cut out → NFC, lower case → words → UTF-8 bytes written as printable characters → merges
//! in order of rank, the last symbol of a word marked `</w>` → ids between the begin and end tokens.

mod added;
mod bpe;
mod definition;
mod json;
mod qwen2;
mod training;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

pub use added::AddedToken;
use added::{AddedTokens, Piece};
use bpe::Merges;
use definition::Definition;
pub use definition::FILES;
pub use qwen2::{ChatIds, Qwen2Tokenizer};

use crate::error::{Error, Result};
use crate::weights::Component;

/// Marks the last symbol of a word.
const END_OF_WORD: &str = "</w>";
/// Begins every sequence, unless the folder names another.
const BOS: &str = "<|startoftext|>";
/// Ends and pads every sequence, unless the folder names others.
const EOS: &str = "<|endoftext|>";
/// CLIP's words: English contractions, runs of letters, single digits, runs of anything else but space.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+";

/// CLIP's tokenizer.
///
/// ```
/// use facestudio::encoders::tokenizer::{SpecialTokens, Tokenizer};
///
/// let (vocab_json, merges_txt) = Tokenizer::train(["a smiling man", "a man"], 520)?;
/// let tokenizer = Tokenizer::new(vocab_json.as_bytes(), &merges_txt, &SpecialTokens::default())?;
/// assert_eq!(tokenizer.encode("A  man", 8)?, tokenizer.encode("a man", 8)?);
/// # Ok::<(), facestudio::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tokenizer {
    vocab: HashMap<String, u32>,
    merges: Merges,
    added: AddedTokens,
    bos: u32,
    eos: u32,
    pad: u32,
    unk: u32,
    words: Regex,
    model_max_length: Option<usize>,
}

/// The special tokens that a folder names; absent ones are CLIP's.
#[derive(Debug, Clone, Default)]
pub struct SpecialTokens {
    /// Begins every sequence; `<|startoftext|>`.
    pub bos_token: Option<AddedToken>,
    /// Ends every sequence; `<|endoftext|>`.
    pub eos_token: Option<AddedToken>,
    /// Fills sequences up; `<|endoftext|>`.
    pub pad_token: Option<AddedToken>,
    /// Stands for a byte that is not in the vocabulary; `<|endoftext|>`.
    pub unk_token: Option<AddedToken>,
}

/// What of a text had no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// Tokens of the text that were cut off.
    pub tokens: usize,
    /// The word that the first of them belongs to, as the tokenizer sees it: lower-cased, unless it is a token of its own.
    pub from: String,
    /// Tokens of the text that there is room for.
    pub room: usize,
}

impl Tokenizer {
    /// Loads the tokenizer of a component folder: `vocab.json` and `merges.txt`, or `tokenizer.json`, and what the files
    /// beside them say of added and special tokens ([`FILES`]).
    ///
    /// Fails with `tokenizer` where they are damaged or contradict each other, and with `config-unsupported` where they ask
    /// for steps that CLIP's tokenizer does not have.
    pub fn load(component: &Component) -> Result<Self> {
        Self::build(Definition::read(component)?)
    }

    /// From the contents of `vocab.json` and `merges.txt`. Fails with `tokenizer` where they do not fit each other.
    pub fn new(vocab_json: &[u8], merges_txt: &str, special_tokens: &SpecialTokens) -> Result<Self> {
        Self::build(Definition {
            vocab: definition::vocabulary(vocab_json)?,
            merges: definition::pairs(merges_txt)?,
            special: special_tokens.clone(),
            ..Definition::default()
        })
    }

    fn build(definition: Definition) -> Result<Self> {
        let Definition { vocab, merges: pairs, added, special, others, model_max_length } = definition;
        let id = |token: &str| {
            vocab.get(token).copied().ok_or_else(|| damaged(format!("the vocabulary has no token '{token}'")))
        };
        let merges = Merges::new(&pairs, id)?;

        let mut taken: HashSet<u32> = vocab.values().copied().collect();
        let mut tokens = AddedTokens::new()?;
        for (id, token) in &added {
            let known = vocab.get(&token.content);
            let is_free = match known {
                Some(known) => known == id,
                None => tokens.id(&token.content).is_none() && taken.insert(*id),
            };
            if !is_free {
                return Err(definition::contradiction(format!(
                    "the added token '{}' is given the id {id}, which is another's, or has another",
                    token.content
                )));
            }
            tokens.add(*id, token.clone());
        }
        // A token that no file gives an id comes after all that have one.
        let mut next = taken.iter().max().map_or(0, |last| last.saturating_add(1));
        let mut add = |token: AddedToken, is_new: bool| {
            if let Some(id) = tokens.id(&token.content) {
                return Ok(id);
            }
            let id = match vocab.get(&token.content) {
                Some(id) => *id,
                None if is_new => {
                    next = next.saturating_add(1);
                    next - 1
                }
                None => id(&token.content)?,
            };
            tokens.add(id, token);
            Ok(id)
        };
        let or =
            |token: Option<AddedToken>, default: &str| token.unwrap_or_else(|| AddedToken::special(default));
        let bos = add(or(special.bos_token, BOS), false)?;
        let eos = add(or(special.eos_token, EOS), false)?;
        let unk = add(or(special.unk_token, EOS), false)?;
        let names_pad = special.pad_token.is_some();
        let pad = add(or(special.pad_token, EOS), names_pad)?;
        for token in others {
            add(token, true)?;
        }
        Ok(Self { merges, added: tokens, bos, eos, pad, unk, words: words()?, vocab, model_max_length })
    }

    /// The token that begins every text.
    pub fn bos_token_id(&self) -> u32 {
        self.bos
    }

    /// The token that ends every text.
    pub fn eos_token_id(&self) -> u32 {
        self.eos
    }

    /// The token that fills texts up.
    pub fn pad_token_id(&self) -> u32 {
        self.pad
    }

    /// A prompt with the words of Textual Inversion that have several vectors written out, as diffusers' pipelines do it
    /// (`maybe_convert_prompt`).
    pub fn written_out<'a>(&self, prompt: &'a str) -> Cow<'a, str> {
        let mut written = Cow::Borrowed(prompt);
        let mut several = self.added.several().peekable();
        if several.peek().is_none() {
            return written;
        }
        let ids = self.ids(prompt);
        for (_, word, whole) in several.filter(|(id, _, _)| ids.contains(id)) {
            written = written.replace(word, &whole).into();
        }
        written
    }

    /// How many ids a text becomes for a text encoder of `context_length`: as many, or the folder's own `model_max_length`
    /// where that is less.
    pub fn length(&self, context_length: usize) -> usize {
        self.model_max_length.map_or(context_length, |most| most.min(context_length))
    }

    /// Tokens of a text that there is room for between begin and end token, in [`length`](Self::length).
    ///
    /// Fails with `context-length` where there is no room for these two.
    pub fn room(&self, context_length: usize) -> Result<usize> {
        self.length(context_length).checked_sub(2).ok_or_else(|| {
            Error::input(
                "context-length",
                format!("a context of {context_length} tokens has no room for the begin and end tokens"),
                "use the text encoder's context length",
            )
        })
    }

    /// The tokens of `text` alone.
    pub fn ids(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        self.encode_text(text, &mut ids, |_, _| ());
        ids
    }

    /// The begin token, the tokens of `text` (cut to fit), the end token, and padding: [`length`](Self::length) ids, as
    /// transformers' `CLIPTokenizer` makes them with `padding="max_length", truncation=True`.
    ///
    /// Fails with `context-length` below 2.
    pub fn encode(&self, text: &str, context_length: usize) -> Result<Vec<u32>> {
        Ok(self.read(text, context_length)?.0)
    }

    /// What [`encode`](Self::encode) cuts off of a text; `None` where it fits.
    pub fn excess(&self, text: &str, context_length: usize) -> Result<Option<Excess>> {
        Ok(self.read(text, context_length)?.1)
    }

    fn read(&self, text: &str, context_length: usize) -> Result<(Vec<u32>, Option<Excess>)> {
        let length = self.length(context_length);
        let room = self.room(context_length)?;
        let mut ids = vec![self.bos];
        let mut from = None;
        self.encode_text(text, &mut ids, |word, count| {
            if count > room + 1 && from.is_none() {
                from = Some(word.to_owned());
            }
        });
        let excess = from.map(|from| Excess { tokens: ids.len() - room - 1, from, room });
        ids.truncate(room + 1);
        ids.push(self.eos);
        ids.resize(length, self.pad);
        Ok((ids, excess))
    }

    /// Appends the tokens of `text` to `ids`; `after` hears of each word and how many ids there are then.
    fn encode_text(&self, text: &str, ids: &mut Vec<u32>, mut after: impl FnMut(&str, usize)) {
        for piece in self.added.cut(text, false) {
            let text = match piece {
                Piece::Token(id, token) => {
                    ids.push(id);
                    after(token, ids.len());
                    continue;
                }
                Piece::Text(text) => normalize(text),
            };
            for piece in self.added.cut(&text, true) {
                match piece {
                    Piece::Token(id, token) => {
                        ids.push(id);
                        after(token, ids.len());
                    }
                    Piece::Text(text) => {
                        for word in self.words.find_iter(text) {
                            self.encode_word(word.as_str(), ids);
                            after(word.as_str(), ids.len());
                        }
                    }
                }
            }
        }
    }

    /// Appends the tokens of one word.
    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        let symbols = symbols(word);
        let of = |symbol: &String| self.vocab.get(symbol).copied().unwrap_or(self.unk);
        self.merges.encode(symbols.iter().map(of), ids);
    }
}

fn damaged(message: String) -> Error {
    Error::weights("tokenizer", message, "use the tokenizer's files that belong to the text encoder")
}

fn words() -> Result<Regex> {
    Regex::new(WORDS).map_err(|e| Error::internal("tokenizer-pattern", format!("{e}")))
}

/// NFC, runs of spaces to one, and lower case, letter by letter.
fn normalize(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    let mut after_space = false;
    for character in text.nfc() {
        if character.is_whitespace() {
            if !after_space {
                normal.push(' ');
            }
        } else {
            normal.extend(character.to_lowercase());
        }
        after_space = character.is_whitespace();
    }
    normal
}

/// A word's first symbols: its UTF-8 bytes as printable characters, the last marked.
fn symbols(word: &str) -> Vec<String> {
    let mut symbols: Vec<String> = word.bytes().map(|byte| String::from(printable(byte))).collect();
    if let Some(last) = symbols.last_mut() {
        last.push_str(END_OF_WORD);
    }
    symbols
}

/// GPT-2's table: printable Latin-1 characters stand for themselves, the other 68 bytes for U+0100 onwards.
fn printable(byte: u8) -> char {
    match byte {
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).unwrap_or_default(),
        0x7f..=0xa0 => char::from_u32(0x121 + u32::from(byte - 0x7f)).unwrap_or_default(),
        0xad => '\u{143}',
        _ => char::from(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(special: &SpecialTokens) -> Tokenizer {
        let (vocab, merges) =
            Tokenizer::train(["a low lower lowest newer newest wide", "the lowest widest"], 560).unwrap();
        Tokenizer::new(vocab.as_bytes(), &merges, special).unwrap()
    }

    #[test]
    fn every_byte_has_its_own_printable_character() {
        let characters: std::collections::BTreeSet<char> = (0..=255).map(printable).collect();
        assert_eq!(characters.len(), 256);
        assert!(characters.iter().all(|c| !c.is_whitespace() && !c.is_control()));
    }

    #[test]
    fn any_text_fits_the_context_between_its_begin_and_end() {
        let tokenizer = tokenizer(&SpecialTokens::default());
        for text in ["", " ", "lowest", "é 漢字 👩‍👩‍👧 !?", &"low ".repeat(500), &"x".repeat(20_000)]
        {
            for context_length in [2, 3, 8, 77] {
                let ids = tokenizer.encode(text, context_length).unwrap();
                assert_eq!(ids.len(), context_length);
                assert_eq!(ids[0], tokenizer.bos);
                assert!(ids.contains(&tokenizer.eos));
            }
        }
        assert_eq!(tokenizer.encode("low", 1).unwrap_err().code, "context-length");
    }

    #[test]
    fn words_seen_often_become_one_token_and_bytes_never_fail() {
        let tokenizer = tokenizer(&SpecialTokens::default());
        let count =
            |text: &str| tokenizer.encode(text, 77).unwrap().iter().position(|id| *id == tokenizer.eos);
        assert_eq!(count("lowest"), Some(2));
        // Two bytes, neither ever merged.
        assert_eq!(count("é"), Some(3));
    }

    #[test]
    fn a_padding_token_of_its_own_pads_and_is_cut_out_of_text() {
        let special = SpecialTokens { pad_token: Some(AddedToken::special("!")), ..SpecialTokens::default() };
        let tokenizer = tokenizer(&special);
        let pad = tokenizer.vocab["!"];
        let ids = tokenizer.encode("a!", 8).unwrap();
        assert_eq!(ids[ids.len() - 1], pad);
        assert_eq!(ids[2], pad, "not '!</w>'");
    }

    #[test]
    fn merges_that_do_not_fit_the_vocabulary_are_an_error() {
        let (vocab, merges) = Tokenizer::train(["aa"], 514).unwrap();
        for merges in [format!("{merges}\na b"), format!("{merges}\nab")] {
            let error = Tokenizer::new(vocab.as_bytes(), &merges, &SpecialTokens::default()).unwrap_err();
            assert_eq!(error.code, "tokenizer");
        }
        let error = Tokenizer::new(b"{}", "", &SpecialTokens::default()).unwrap_err();
        assert!(error.message.contains(BOS), "{error}");
    }
}
