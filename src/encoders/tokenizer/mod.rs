//! CLIP's byte-level byte-pair encoding (Radford et al. 2021; transformers' `CLIPTokenizer`), from `vocab.json` and
//! `merges.txt`.
//!
//! Text → special tokens cut out → NFC, lower case → words → UTF-8 bytes written as printable characters → merges
//! in order of rank, the last symbol of a word marked `</w>` → ids between the begin and end tokens.

mod training;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use regex::Regex;
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

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
    /// Pair → its rank and what it becomes.
    merges: HashMap<(u32, u32), (usize, u32)>,
    special: Vec<Special>,
    bos: u32,
    eos: u32,
    pad: u32,
    unk: u32,
    words: Regex,
}

/// A special token as it is looked for in text.
#[derive(Debug, Clone)]
struct Special {
    content: String,
    id: u32,
    /// Looked for after lower-casing instead of before.
    normalized: bool,
}

/// The special tokens of `tokenizer_config.json` and `special_tokens_map.json`; absent ones are CLIP's.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct SpecialTokens {
    /// Begins every sequence; `<|startoftext|>`.
    pub bos_token: Option<SpecialToken>,
    /// Ends every sequence; `<|endoftext|>`.
    pub eos_token: Option<SpecialToken>,
    /// Fills sequences up; `<|endoftext|>`.
    pub pad_token: Option<SpecialToken>,
    /// Stands for a byte that is not in the vocabulary; `<|endoftext|>`.
    pub unk_token: Option<SpecialToken>,
}

/// A special token: its text, or its text with the way it is looked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum SpecialToken {
    /// Looked for in the text as it is.
    Plain(String),
    /// Transformers' `AddedToken`.
    Added {
        /// Its text.
        content: String,
        /// Whether it is looked for after lower-casing instead of before.
        #[serde(default)]
        normalized: bool,
    },
}

impl SpecialToken {
    fn parts(&self) -> (&str, bool) {
        match self {
            Self::Plain(content) => (content, false),
            Self::Added { content, normalized } => (content, *normalized),
        }
    }
}

impl SpecialTokens {
    /// As transformers reads them: `tokenizer_config.json`, over which an older folder's
    /// `special_tokens_map.json` wins.
    fn read(component: &Component) -> Result<Self> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(flatten)]
            tokens: SpecialTokens,
            added_tokens_decoder: Option<serde::de::IgnoredAny>,
        }
        let mut tokens = Self::default();
        if component.contains("tokenizer_config.json")? {
            let config: Config = component.json("tokenizer_config.json")?;
            tokens = config.tokens;
            if config.added_tokens_decoder.is_some() {
                return Ok(tokens);
            }
        }
        if component.contains("special_tokens_map.json")? {
            let map: Self = component.json("special_tokens_map.json")?;
            tokens = Self {
                bos_token: map.bos_token.or(tokens.bos_token),
                eos_token: map.eos_token.or(tokens.eos_token),
                pad_token: map.pad_token.or(tokens.pad_token),
                unk_token: map.unk_token.or(tokens.unk_token),
            };
        }
        Ok(tokens)
    }
}

impl Tokenizer {
    /// Loads `vocab.json` and `merges.txt` of a component folder, and its special tokens where it names them.
    pub fn load(component: &Component) -> Result<Self> {
        let merges = String::from_utf8(component.read("merges.txt")?)
            .map_err(|_| damaged("merges.txt is not UTF-8 text".to_owned()))?;
        Self::new(&component.read("vocab.json")?, &merges, &SpecialTokens::read(component)?)
    }

    /// From the contents of `vocab.json` and `merges.txt`. Fails with `tokenizer` where they do not fit each other.
    pub fn new(vocab_json: &[u8], merges_txt: &str, special_tokens: &SpecialTokens) -> Result<Self> {
        let vocab: HashMap<String, u32> =
            serde_json::from_slice(vocab_json).map_err(|e| damaged(format!("vocab.json: {e}")))?;
        let id = |token: &str| {
            vocab.get(token).copied().ok_or_else(|| damaged(format!("vocab.json has no token '{token}'")))
        };
        let mut merges = HashMap::new();
        // Only the version line is a comment: CLIP's merges hold pairs that begin with '#'.
        let lines =
            merges_txt.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty());
        for (rank, line) in lines.enumerate() {
            let (left, right) = line
                .trim()
                .split_once(' ')
                .ok_or_else(|| damaged(format!("merges.txt has the line '{line}', which is not a pair")))?;
            merges.insert((id(left)?, id(right)?), (rank, id(&format!("{left}{right}"))?));
        }

        let mut special: Vec<Special> = Vec::new();
        let mut add = |token: &Option<SpecialToken>, default: &str| {
            let (content, normalized) = token.as_ref().map_or((default, false), SpecialToken::parts);
            let id = id(content)?;
            let content = if normalized { normalize(content) } else { content.to_owned() };
            if !content.is_empty() && special.iter().all(|known| known.id != id) {
                special.push(Special { content, id, normalized });
            }
            Ok(id)
        };
        let bos = add(&special_tokens.bos_token, BOS)?;
        let eos = add(&special_tokens.eos_token, EOS)?;
        let pad = add(&special_tokens.pad_token, EOS)?;
        let unk = add(&special_tokens.unk_token, EOS)?;
        Ok(Self { merges, special, bos, eos, pad, unk, words: words()?, vocab })
    }

    /// The token that ends every text.
    pub fn eos_token_id(&self) -> u32 {
        self.eos
    }

    /// The begin token, the tokens of `text` (cut to fit), the end token, and padding: `context_length` ids, as
    /// transformers' `CLIPTokenizer` makes them with `padding="max_length", truncation=True`.
    ///
    /// Fails with `context-length` below 2.
    pub fn encode(&self, text: &str, context_length: usize) -> Result<Vec<u32>> {
        let Some(room) = context_length.checked_sub(2) else {
            return Err(Error::input(
                "context-length",
                format!("a context of {context_length} tokens has no room for the begin and end tokens"),
                "use the text encoder's context length",
            ));
        };
        let mut ids = vec![self.bos];
        self.encode_text(text, room + 1, &mut ids);
        ids.truncate(room + 1);
        ids.push(self.eos);
        ids.resize(context_length, self.pad);
        Ok(ids)
    }

    /// Appends the tokens of `text` to `ids` until there are at least `enough`.
    fn encode_text(&self, text: &str, enough: usize, ids: &mut Vec<u32>) {
        for piece in self.cut(text, false) {
            let text = match piece {
                Piece::Special(id) => {
                    ids.push(id);
                    continue;
                }
                Piece::Text(text) => normalize(text),
            };
            for piece in self.cut(&text, true) {
                match piece {
                    Piece::Special(id) => ids.push(id),
                    Piece::Text(text) => {
                        for word in self.words.find_iter(text) {
                            if ids.len() >= enough {
                                return;
                            }
                            self.encode_word(word.as_str(), ids);
                        }
                    }
                }
            }
        }
    }

    /// Cuts the special tokens out of `text`, the longest where several begin at one place.
    fn cut<'a>(&self, text: &'a str, normalized: bool) -> Vec<Piece<'a>> {
        let special = || self.special.iter().filter(|token| token.normalized == normalized);
        let (mut pieces, mut start) = (Vec::new(), 0);
        let mut rest = text.char_indices();
        while let Some((at, _)) = rest.next() {
            let found = special().filter(|token| text[at..].starts_with(&token.content));
            if let Some(token) = found.max_by_key(|token| token.content.len()) {
                pieces.push(Piece::Text(&text[start..at]));
                pieces.push(Piece::Special(token.id));
                start = at + token.content.len();
                while rest.offset() < start && rest.next().is_some() {}
            }
        }
        pieces.push(Piece::Text(&text[start..]));
        pieces
    }

    /// Appends the tokens of one word: merges the pair of lowest rank, the leftmost first, until none is left.
    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        let mut symbols: Vec<Symbol> = symbols(word)
            .iter()
            .enumerate()
            .map(|(at, symbol)| Symbol {
                id: Some(self.vocab.get(symbol).copied().unwrap_or(self.unk)),
                previous: at.checked_sub(1),
                next: at + 1,
            })
            .collect();
        let count = symbols.len();
        let mut queue = BinaryHeap::new();
        let candidate = |symbols: &[Symbol], left: usize| {
            let symbol = symbols.get(left)?;
            let right = symbols.get(symbol.next)?;
            let (rank, merged) = self.merges.get(&(symbol.id?, right.id?))?;
            Some(Reverse((*rank, left, *merged)))
        };
        queue.extend((0..count).filter_map(|left| candidate(&symbols, left)));
        while let Some(Reverse((_, left, merged))) = queue.pop() {
            // Neighbours may have changed since the pair was queued.
            if candidate(&symbols, left).is_none_or(|Reverse((_, _, now))| now != merged) {
                continue;
            }
            let right = symbols[left].next;
            let after = symbols[right].next;
            symbols[right].id = None;
            symbols[left].id = Some(merged);
            symbols[left].next = after;
            if let Some(symbol) = symbols.get_mut(after) {
                symbol.previous = Some(left);
            }
            queue.extend(candidate(&symbols, left));
            queue.extend(symbols[left].previous.and_then(|previous| candidate(&symbols, previous)));
        }
        ids.extend(symbols.iter().filter_map(|symbol| symbol.id));
    }
}

enum Piece<'a> {
    Text(&'a str),
    Special(u32),
}

/// A symbol of a word while its pairs merge: a node of a doubly linked list in a vector.
struct Symbol {
    /// `None` once merged into its left neighbour.
    id: Option<u32>,
    previous: Option<usize>,
    /// The vector's length at the end of the word.
    next: usize,
}

fn damaged(message: String) -> Error {
    Error::weights("tokenizer", message, "use the vocab.json and merges.txt that belong to the text encoder")
}

fn words() -> Result<Regex> {
    Regex::new(WORDS).map_err(|e| Error::internal("tokenizer-pattern", format!("{e}")))
}

/// NFC and lower case, letter by letter. (CLIP also turns runs of spaces into one, which splitting into words makes
/// no difference to.)
fn normalize(text: &str) -> String {
    text.nfc().flat_map(char::to_lowercase).collect()
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
        let special = SpecialTokens {
            pad_token: Some(SpecialToken::Plain("!".to_owned())),
            ..SpecialTokens::default()
        };
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
