//! Learns a vocabulary from captions (Sennrich et al. 2016, algorithm 1), laid out as CLIP's.

use std::collections::{BTreeMap, HashMap};

use super::{BOS, END_OF_WORD, EOS, Tokenizer, normalize, printable, symbols, words};
use crate::error::{Error, Result};

/// The bytes, the bytes that end a word, and two special tokens.
const SMALLEST: usize = 2 * 256 + 2;

impl Tokenizer {
    /// Learns a vocabulary of at most `vocab_size` tokens, and returns the contents of `vocab.json` and `merges.txt`.
    ///
    /// Ids are laid out as CLIP's: the 256 bytes, the 256 bytes that end a word, merges in the order they were
    /// learned, begin and end token. Stops early once no pair occurs twice. The same captions give the same files.
    /// Fails with `vocab-size` outside 514 to 65536.
    pub fn train<S: AsRef<str>>(
        captions: impl IntoIterator<Item = S>,
        vocab_size: usize,
    ) -> Result<(String, String)> {
        if !(SMALLEST..=65_536).contains(&vocab_size) {
            return Err(Error::input(
                "vocab-size",
                format!("a vocabulary of {vocab_size} tokens; it must have {SMALLEST} to 65536"),
                "give a size in that range",
            ));
        }
        let mut tokens = byte_tokens();
        let mut ids: HashMap<String, usize> =
            tokens.iter().enumerate().map(|(id, token)| (token.clone(), id)).collect();

        let pattern = words()?;
        let mut counts: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        for caption in captions {
            for word in pattern.find_iter(&normalize(caption.as_ref())) {
                // Every symbol of a word is a byte token.
                let word =
                    symbols(word.as_str()).iter().filter_map(|symbol| ids.get(symbol).copied()).collect();
                *counts.entry(word).or_default() += 1;
            }
        }
        let mut corpus: Vec<(Vec<usize>, usize)> = counts.into_iter().collect();

        let mut merges = String::from("#version: 0.2\n");
        while tokens.len() + 2 < vocab_size {
            let mut pairs: BTreeMap<(usize, usize), usize> = BTreeMap::new();
            for (word, count) in &corpus {
                for pair in word.windows(2) {
                    *pairs.entry((pair[0], pair[1])).or_default() += count;
                }
            }
            // The most frequent pair; the one of lowest ids among equals.
            let best = pairs.into_iter().max_by_key(|(pair, count)| (*count, std::cmp::Reverse(*pair)));
            let Some(((left, right), 2..)) = best else { break };
            let merged = format!("{}{}", tokens[left], tokens[right]);
            merges.push_str(&format!("{} {}\n", tokens[left], tokens[right]));
            // Two pairs may spell the same token.
            let id = *ids.entry(merged.clone()).or_insert_with(|| {
                tokens.push(merged);
                tokens.len() - 1
            });
            for (word, _) in &mut corpus {
                merge(word, (left, right), id);
            }
        }

        tokens.extend([BOS.to_owned(), EOS.to_owned()]);
        let entries =
            tokens.iter().enumerate().map(|(id, token)| format!("{}:{id}", serde_json::json!(token)));
        let vocab = format!("{{{}}}\n", entries.collect::<Vec<_>>().join(","));
        Ok((vocab, merges))
    }
}

/// CLIP's first 512 tokens: the bytes in the order of GPT-2's table (printable ones first), then each with the mark.
fn byte_tokens() -> Vec<String> {
    let (plain, moved): (Vec<u8>, Vec<u8>) =
        (0..=255).partition(|byte| u32::from(printable(*byte)) == u32::from(*byte));
    let bytes: Vec<String> =
        plain.into_iter().chain(moved).map(|byte| String::from(printable(byte))).collect();
    let last = bytes.iter().map(|byte| format!("{byte}{END_OF_WORD}"));
    bytes.iter().cloned().chain(last).collect()
}

/// Replaces every `pair` in `word` by `id`, from the left.
fn merge(word: &mut Vec<usize>, pair: (usize, usize), id: usize) {
    let mut at = 0;
    while at + 1 < word.len() {
        if (word[at], word[at + 1]) == pair {
            word[at] = id;
            word.remove(at + 1);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_has_clips_layout_and_the_asked_size() {
        let captions = ["a man with red hair", "a woman with red hair", "a man with a red hat"];
        let (vocab, merges) = Tokenizer::train(captions, 520).unwrap();
        let ids: BTreeMap<String, usize> = serde_json::from_str(&vocab).unwrap();
        assert_eq!(ids.len(), 520);
        // Ids of OpenAI's vocabulary.
        assert_eq!((ids["!"], ids["a"], ids["!</w>"], ids["a</w>"]), (0, 64, 256, 320));
        assert_eq!((ids[BOS], ids[EOS]), (518, 519));
        assert_eq!(merges.lines().count(), 1 + 520 - SMALLEST);
    }

    #[test]
    fn training_stops_when_nothing_repeats() {
        let (vocab, _) = Tokenizer::train(["abc"], 1024).unwrap();
        let ids: BTreeMap<String, usize> = serde_json::from_str(&vocab).unwrap();
        assert_eq!(ids.len(), SMALLEST);
        assert_eq!(Tokenizer::train(["abc"], 513).unwrap_err().code, "vocab-size");
    }
}
