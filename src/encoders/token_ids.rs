//! What every text encoder demands of its tokens.

use crate::error::{Error, Result};

/// The tokens of each sequence, of which all have as many.
///
/// Fails with `token-ids` where they have not, or have none or more than `context_length`, or where an id is outside of the
/// vocabulary.
pub fn check(input_ids: &[Vec<u32>], context_length: usize, vocab_size: usize) -> Result<usize> {
    let tokens = input_ids.first().map_or(0, Vec::len);
    if tokens == 0 || tokens > context_length {
        return Err(refuse(format!("{tokens} tokens; the text encoder takes 1 to {context_length}")));
    }
    for (row, ids) in input_ids.iter().enumerate() {
        if ids.len() != tokens {
            let message = format!("sequence {} has {} tokens, the first has {tokens}", row + 1, ids.len());
            return Err(refuse(message));
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
            return Err(refuse(format!("token id {id} is outside the vocabulary of {vocab_size}")));
        }
    }
    Ok(tokens)
}

/// `token-ids`, with what to do.
pub fn refuse(message: String) -> Error {
    Error::input("token-ids", message, "tokenize with this encoder's own tokenizer")
}
