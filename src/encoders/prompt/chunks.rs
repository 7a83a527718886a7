//! A prompt as sequences that a text encoder reads one by one.

use super::{Part, parse};
use crate::encoders::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::request::Embedding;

/// Most chunks of a prompt: 600 tokens of CLIP's. Classifier-free guidance repeats both prompts to their least common multiple.
pub const MAX_CHUNKS: usize = 8;
/// How far back from a chunk's end a comma may lie for what follows it to move to the next chunk (the web UI's own default).
const COMMA_REACH: usize = 20;

/// A sequence of a text encoder's length.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Begin token, tokens, end token and padding.
    pub ids: Vec<u32>,
    /// What the encoder's state at each of them is multiplied by.
    pub weights: Vec<f32>,
    /// Vectors in the place of tokens' embeddings, one after the other from a position on.
    pub vectors: Vec<(usize, Embedding)>,
}

/// A prompt's chunks.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunked {
    /// One at least.
    pub chunks: Vec<Chunk>,
    /// Whether each of the embeddings stands in it.
    pub used: Vec<bool>,
}

/// Cuts a prompt into chunks, as the web UI does: where one is full, or at `BREAK`; what follows a comma near the end of a full one
/// moves to the next together, and an embedding's vectors stay together.
///
/// Fails with `prompt-editing` as [`parse`], with `prompt-length` where there are more than [`MAX_CHUNKS`], with `embedding-length`
/// where an embedding has more vectors than a chunk has room, and with `context-length` as the tokenizer.
pub fn chunks(
    tokenizer: &Tokenizer,
    prompt: &str,
    context_length: usize,
    embeddings: &[Embedding],
) -> Result<Chunked> {
    let length = tokenizer.length(context_length);
    let room = tokenizer.room(context_length)?;
    if let Some(long) = embeddings.iter().find(|embedding| embedding.count() > room) {
        return Err(Error::input(
            "embedding-length",
            format!(
                "the embedding '{}' has {} vectors; the model's text encoder reads {room} at once",
                long.word(),
                long.count()
            ),
            "use an embedding of fewer vectors",
        ));
    }
    let comma = match tokenizer.ids(",")[..] {
        [comma] => Some(comma),
        _ => None,
    };
    let mut used = vec![false; embeddings.len()];
    let (mut full, mut open) = (Vec::new(), Open::default());
    for part in parse(prompt)? {
        let (text, weight) = match part {
            Part::Break => {
                full.push(std::mem::take(&mut open));
                continue;
            }
            Part::Words { text, weight } => (text, weight as f32),
        };
        for piece in pieces(&text, embeddings) {
            match piece {
                Piece::Text(text) => {
                    for id in tokenizer.ids(&tokenizer.written_out(text)) {
                        open.push(id, weight, comma, room, &mut full);
                    }
                }
                Piece::Learnt(which) => {
                    used[which] = true;
                    open.push_vectors(&embeddings[which], weight, room, &mut full);
                }
            }
        }
    }
    if !open.tokens.is_empty() || full.is_empty() {
        full.push(open);
    }
    if full.len() > MAX_CHUNKS {
        return Err(Error::input(
            "prompt-length",
            format!(
                "the prompt takes {} chunks of {room} tokens; the model reads {MAX_CHUNKS} at most",
                full.len()
            ),
            "shorten it, or use fewer BREAKs",
        ));
    }
    let chunks = full.into_iter().map(|open| open.close(tokenizer, length)).collect();
    Ok(Chunked { chunks, used })
}

/// A stretch of words, or an embedding by its number.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Text(&'a str),
    Learnt(usize),
}

/// Cuts the embeddings' words out of a text: the first one first, and of several that begin together the longest.
fn pieces<'a>(mut text: &'a str, embeddings: &[Embedding]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    loop {
        let found =
            embeddings.iter().enumerate().filter_map(|(i, embedding)| Some((i, embedding.find(text)?)));
        let next = found.min_by_key(|(_, (at, length))| (*at, std::cmp::Reverse(*length)));
        let Some((which, (at, length))) = next else { break };
        pieces.extend([Piece::Text(&text[..at]), Piece::Learnt(which)]);
        text = &text[at + length..];
    }
    pieces.push(Piece::Text(text));
    pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
    pieces
}

/// A chunk that is being filled.
#[derive(Default)]
struct Open {
    /// With their weights.
    tokens: Vec<(u32, f32)>,
    /// The place of the last comma.
    comma: Option<usize>,
    vectors: Vec<(usize, Embedding)>,
}

impl Open {
    fn push(&mut self, id: u32, weight: f32, comma: Option<u32>, room: usize, full: &mut Vec<Self>) {
        let is_full = self.tokens.len() == room;
        if Some(id) == comma {
            self.comma = Some(self.tokens.len());
        } else if is_full
            && let Some(at) = self.comma
            && self.tokens.len() - at <= COMMA_REACH
        {
            let moved = self.tokens.split_off(at + 1);
            let vectors = self.vectors.iter().position(|(place, _)| *place > at);
            let vectors = vectors.map_or_else(Vec::new, |first| self.vectors.split_off(first));
            self.next(full);
            self.tokens = moved;
            self.vectors = vectors.into_iter().map(|(place, own)| (place - at - 1, own)).collect();
        }
        if self.tokens.len() == room {
            self.next(full);
        }
        self.tokens.push((id, weight));
    }

    fn push_vectors(&mut self, embedding: &Embedding, weight: f32, room: usize, full: &mut Vec<Self>) {
        if self.tokens.len() + embedding.count() > room {
            self.next(full);
        }
        self.vectors.push((self.tokens.len(), embedding.clone()));
        // Any token: its embedding is replaced.
        self.tokens.extend(vec![(0, weight); embedding.count()]);
    }

    fn next(&mut self, full: &mut Vec<Self>) {
        full.push(std::mem::take(self));
    }

    fn close(self, tokenizer: &Tokenizer, length: usize) -> Chunk {
        let (ids, weights): (Vec<u32>, Vec<f32>) = self.tokens.into_iter().unzip();
        let mut ids = [vec![tokenizer.bos_token_id()], ids, vec![tokenizer.eos_token_id()]].concat();
        let mut weights = [vec![1.0], weights].concat();
        ids.resize(length, tokenizer.pad_token_id());
        weights.resize(length, 1.0);
        let vectors = self.vectors.into_iter().map(|(place, own)| (place + 1, own)).collect();
        Chunk { ids, weights, vectors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoders::tokenizer::SpecialTokens;

    fn tokenizer() -> Tokenizer {
        let (vocab, merges) = Tokenizer::train(["a b c d"], 512 + 2).unwrap();
        Tokenizer::new(vocab.as_bytes(), &merges, &SpecialTokens::default()).unwrap()
    }

    /// The chunks' words of one letter; `_` is a vector, `.` an end or padding.
    fn read(prompt: &str, context: usize, embeddings: &[Embedding]) -> Result<Vec<String>> {
        let tokenizer = tokenizer();
        let letters = |chunk: &Chunk| -> String {
            let is_vector =
                |at: usize| chunk.vectors.iter().any(|(from, own)| (*from..from + own.count()).contains(&at));
            let letter = |(at, id): (usize, &u32)| match *id {
                _ if is_vector(at) => '_',
                id if id == tokenizer.eos_token_id() => '.',
                id => "abcd,".chars().find(|c| tokenizer.ids(&c.to_string()) == [id]).unwrap_or('?'),
            };
            assert_eq!((chunk.ids.len(), chunk.weights.len()), (context, context));
            assert_eq!(chunk.ids[0], tokenizer.bos_token_id());
            chunk.ids.iter().enumerate().skip(1).map(letter).collect()
        };
        Ok(chunks(&tokenizer, prompt, context, embeddings)?.chunks.iter().map(letters).collect())
    }

    #[test]
    fn full_chunks_and_breaks_begin_others() {
        assert_eq!(read("a b", 6, &[]).unwrap(), ["ab..."]);
        assert_eq!(read("", 6, &[]).unwrap(), ["....."]);
        assert_eq!(read("a b c d", 6, &[]).unwrap(), ["abcd."]);
        assert_eq!(read("a b c d a", 6, &[]).unwrap(), ["abcd.", "a...."]);
        assert_eq!(read("a BREAK b", 6, &[]).unwrap(), ["a....", "b...."]);
        assert_eq!(read("BREAK b BREAK", 6, &[]).unwrap(), [".....", "b...."]);
        assert_eq!(read("a (b BREAK c:2)", 6, &[]).unwrap(), ["ab...", "c...."]);
    }

    #[test]
    fn what_follows_a_near_comma_moves_on_together() {
        assert_eq!(read("a, b c d", 6, &[]).unwrap(), ["a,...", "bcd.."]);
        // A comma that does not fit itself moves nothing.
        assert_eq!(read("a, b c, d", 6, &[]).unwrap(), ["a,bc.", ",d..."]);
        // A comma more than 20 tokens back is too far.
        let far = |letters: usize| format!("a, {}", "b ".repeat(letters));
        assert_eq!(read(&far(20), 23, &[]).unwrap()[1].trim_end_matches('.').len(), 20);
        assert_eq!(read(&far(21), 24, &[]).unwrap()[1].trim_end_matches('.').len(), 1);
    }

    #[test]
    fn weights_lie_on_their_tokens_alone() {
        let chunked = chunks(&tokenizer(), "a (b:1.5) [c]", 8, &[]).unwrap();
        let expected = [1.0, 1.0, 1.5, (1.0f64 / 1.1) as f32, 1.0, 1.0, 1.0, 1.0];
        assert_eq!(chunked.chunks[0].weights, expected);
    }

    #[test]
    fn vectors_stand_together_where_their_word_is() {
        let learnt = |word: &str, count: usize| Embedding::new(word, vec![0.5; 2 * count], 2).unwrap();
        let [one, three] = [learnt("b", 1), learnt("B c", 3)];
        let both = [one.clone(), three.clone()];
        // The longer word is meant where both begin.
        assert_eq!(read("a b c, b", 8, &both).unwrap(), ["a___,_."]);
        assert_eq!(read("a b, b c", 6, &both).unwrap(), ["a_,..", "___.."]);
        // They move on with what follows a comma.
        assert_eq!(read("a, b c d", 6, &both[..1]).unwrap(), ["a,...", "_cd.."]);
        let chunked = chunks(&tokenizer(), "a (b:2)", 6, &both).unwrap();
        assert_eq!(chunked.used, [true, false]);
        assert_eq!(chunked.chunks[0].vectors, [(2, one)]);
        assert_eq!(chunked.chunks[0].weights, [1.0, 1.0, 2.0, 1.0, 1.0, 1.0]);
        assert_eq!(read("a", 4, &[three]).unwrap_err().code, "embedding-length");
    }

    #[test]
    fn a_prompt_without_end_is_refused() {
        assert!(read(&"a ".repeat(8 * 4), 6, &[]).is_ok());
        assert_eq!(read(&"a ".repeat(8 * 4 + 1), 6, &[]).unwrap_err().code, "prompt-length");
        assert_eq!(read(&"BREAK ".repeat(9), 6, &[]).unwrap_err().code, "prompt-length");
        assert_eq!(read("a", 1, &[]).unwrap_err().code, "context-length");
    }
}
