//! [`Embedding`]: a word that was learnt.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::weights::Sha256Stream;

/// Most vectors of a word: as many tokens as CLIP reads at once.
const MAX_VECTORS: usize = 75;
/// Bytes of a word.
const MAX_WORD: usize = 200;

/// A word of Textual Inversion (Gal et al. 2022, arXiv 2208.01618): vectors in the place of tokens' embeddings, wherever it stands in
/// prompt or negative prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    word: String,
    /// `[count][width]`.
    vectors: Vec<f32>,
    width: usize,
}

impl Embedding {
    /// `word` for vectors of `width` values each, `[count][width]`.
    ///
    /// Fails with `embedding-word` on a word of nothing but spaces or of more than 200 bytes, and with `embedding-format` on
    /// vectors that are none, too many (75), incomplete or not finite.
    pub fn new(word: &str, vectors: Vec<f32>, width: usize) -> Result<Self> {
        let word = word.trim();
        if word.is_empty() || word.len() > MAX_WORD {
            return Err(Error::input(
                "embedding-word",
                format!("'{word}' is no word that could stand in a prompt"),
                "give the embedding a word of one letter or more",
            ));
        }
        let count = vectors.len().checked_div(width).unwrap_or(0);
        if !(1..=MAX_VECTORS).contains(&count)
            || vectors.len() != count * width
            || !vectors.iter().all(|value| value.is_finite())
        {
            return Err(Error::input(
                "embedding-format",
                format!(
                    "the embedding '{word}' has {} values for vectors of {width}: 1 to {MAX_VECTORS} whole vectors of finite \
                     numbers are needed",
                    vectors.len()
                ),
                "use a file of Textual Inversion",
            ));
        }
        Ok(Self { word: word.to_owned(), vectors, width })
    }

    /// What is written in a prompt.
    pub fn word(&self) -> &str {
        &self.word
    }

    /// The vectors one after the other.
    pub fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    /// Values of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of vectors.
    pub fn count(&self) -> usize {
        self.vectors.len() / self.width
    }

    /// The same vectors for another word.
    pub fn named(&self, word: &str) -> Result<Self> {
        Self::new(word, self.vectors.clone(), self.width)
    }

    /// SHA-256 of the vectors, in lower-case hexadecimal: of their width as a little-endian 32-bit number, and of their values as
    /// little-endian f32.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256Stream::default();
        hash.update(&(self.width as u32).to_le_bytes());
        self.vectors.iter().for_each(|value| hash.update(&value.to_le_bytes()));
        hash.finish()
    }

    /// Where the word stands by itself in `text`, from the first on, whatever its case: its place in bytes and the length there.
    pub(crate) fn find(&self, text: &str) -> Option<(usize, usize)> {
        let is_letter = |c: char| c.is_alphanumeric() || c == '_';
        let touches = |own: Option<char>, other: Option<char>| {
            own.is_some_and(is_letter) && other.is_some_and(is_letter)
        };
        let (first, last) = (self.word.chars().next(), self.word.chars().next_back());
        let mut before = None;
        for (at, here) in text.char_indices() {
            if let Some(length) = begins_with(&text[at..], &self.word)
                && !touches(first, before)
                && !touches(last, text[at + length..].chars().next())
            {
                return Some((at, length));
            }
            before = Some(here);
        }
        None
    }
}

/// How many bytes of `text` are `word` but for upper and lower case.
fn begins_with(text: &str, word: &str) -> Option<usize> {
    let (mut letters, mut length) = (text.chars(), 0);
    for wanted in word.chars() {
        let found = letters.next()?;
        if !found.to_lowercase().eq(wanted.to_lowercase()) {
            return None;
        }
        length += found.len_utf8();
    }
    Some(length)
}

/// An embedding in a recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct EmbeddingHash {
    /// Its word; left out with the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub word: Option<String>,
    /// Of its vectors, see [`Embedding::sha256`].
    pub sha256: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_embedding_is_refused() {
        let code =
            |word: &str, vectors: Vec<f32>, width| Embedding::new(word, vectors, width).map_err(|e| e.code);
        for (word, vectors, width, expected) in [
            (" ", vec![0.0; 2], 2, "embedding-word"),
            (&*"x".repeat(201), vec![0.0; 2], 2, "embedding-word"),
            ("a", vec![], 2, "embedding-format"),
            ("a", vec![0.0; 2], 0, "embedding-format"),
            ("a", vec![0.0; 3], 2, "embedding-format"),
            ("a", vec![0.0; 76], 1, "embedding-format"),
            ("a", vec![0.0, f32::NAN], 2, "embedding-format"),
        ] {
            assert_eq!(code(word, vectors, width).unwrap_err(), expected, "{word} {width}");
        }
        let embedding = Embedding::new(" cat ", vec![0.5; 75], 1).unwrap();
        assert_eq!((embedding.word(), embedding.count(), embedding.width()), ("cat", 75, 1));
    }

    #[test]
    fn a_word_is_found_where_it_stands_by_itself() {
        let find = |word: &str, text: &str| Embedding::new(word, vec![0.0], 1).unwrap().find(text);
        assert_eq!(find("Cat", "a CAT, cat"), Some((2, 3)));
        assert_eq!(find("cat", "category, tomcat, cat_, cat"), Some((24, 3)));
        assert_eq!(find("<cat>", "a<Cat>s"), Some((1, 5)));
        assert_eq!(find("my-style", "é my-styles my-style."), Some((13, 8)));
        assert_eq!(find("cat", "dog"), None);
    }

    #[test]
    fn the_hash_is_of_width_and_values() {
        let hash = |values: &[f32], width| Embedding::new("a", values.to_vec(), width).unwrap().sha256();
        // hashlib.sha256(struct.pack("<Iff", 2, 0.5, -1.0)).hexdigest()
        assert_eq!(hash(&[0.5, -1.0], 2), "1199494fa88c6c3139454bb547fd48ef2251d7efb4f4e14ba15ae44cd2200b26");
        assert_ne!(hash(&[0.5, -1.0], 1), hash(&[0.5, -1.0], 2));
    }
}
