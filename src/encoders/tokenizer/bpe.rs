//! Byte-pair encoding itself (Sennrich et al. 2016, section 3.2): which neighbours of a word's symbols become one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::error::Result;

/// Pair → its rank and what it becomes.
#[derive(Debug, Clone)]
pub(super) struct Merges(HashMap<(u32, u32), (usize, u32)>);

impl Merges {
    /// Of pairs in the order of their rank; `id` is a token's.
    pub fn new(pairs: &[(String, String)], id: impl Fn(&str) -> Result<u32>) -> Result<Self> {
        let mut merges = HashMap::with_capacity(pairs.len());
        for (rank, (left, right)) in pairs.iter().enumerate() {
            merges.insert((id(left)?, id(right)?), (rank, id(&format!("{left}{right}"))?));
        }
        Ok(Self(merges))
    }

    /// Appends the tokens of one word to `ids`: merges the pair of lowest rank, the leftmost first, until none is left.
    pub fn encode(&self, symbols: impl Iterator<Item = u32>, ids: &mut Vec<u32>) {
        let mut symbols: Vec<Symbol> = symbols
            .enumerate()
            .map(|(at, id)| Symbol { id: Some(id), previous: at.checked_sub(1), next: at + 1 })
            .collect();
        let count = symbols.len();
        let mut queue = BinaryHeap::new();
        let candidate = |symbols: &[Symbol], left: usize| {
            let symbol = symbols.get(left)?;
            let right = symbols.get(symbol.next)?;
            let (rank, merged) = self.0.get(&(symbol.id?, right.id?))?;
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

/// A symbol of a word while its pairs merge: a node of a doubly linked list in a vector.
struct Symbol {
    /// `None` once merged into its left neighbour.
    id: Option<u32>,
    previous: Option<usize>,
    /// The vector's length at the end of the word.
    next: usize,
}
