//! Prompts as people write them for Stable Diffusion, in the syntax of AUTOMATIC1111's web UI: `(word:1.2)`, `(word)`, `[word]`,
//! backslashes before brackets that are meant, and `BREAK`.
//!
//! A weight multiplies what the text encoder says at its tokens, see [`TextEncoder::weighted`]; `BREAK` begins a new [`Chunk`].
//!
//! [`TextEncoder::weighted`]: super::text::TextEncoder::weighted

mod chunks;

pub use chunks::{Chunk, Chunked, MAX_CHUNKS, chunks};

use crate::error::{Error, Result};

/// What a pair of round brackets multiplies by; square ones divide by it.
const EMPHASIS: f64 = 1.1;
/// Begins a new chunk.
const BREAK: &str = "BREAK";

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Words of one weight.
    Words {
        /// As they are to be read: without brackets and backslashes.
        text: String,
        /// 1 where nothing is said.
        weight: f64,
    },
    /// What follows begins a new chunk.
    Break,
}

/// The parts of a prompt, of which two neighbours never have the same weight. Brackets that are not closed end with the prompt;
/// those that were never opened are words.
///
/// Fails with `prompt-editing` where words are to change from step to step (`[a:b:0.5]`, `[a|b]`), which is not supported.
pub fn parse(prompt: &str) -> Result<Vec<Part>> {
    let Scanned { parts, editing, .. } = scan(prompt);
    match editing {
        None => Ok(parts),
        Some(bracket) => Err(Error::input(
            "prompt-editing",
            format!("the prompt changes words from step to step: {bracket}"),
            "write the words of one picture; put a backslash before brackets that are meant: \\[ and \\]",
        )),
    }
}

/// Whether a prompt weighs words by a number, or begins a new chunk: what cannot be meant as words.
pub fn weighs(prompt: &str) -> bool {
    let Scanned { parts, numbers, .. } = scan(prompt);
    numbers || parts.contains(&Part::Break)
}

/// What was found in a prompt.
struct Scanned<'a> {
    parts: Vec<Part>,
    /// Whether a bracket says its weight.
    numbers: bool,
    /// A bracket whose words are to change.
    editing: Option<&'a str>,
}

fn scan(prompt: &str) -> Scanned<'_> {
    let mut parts: Vec<Part> = Vec::new();
    let (mut numbers, mut editing) = (false, None);
    // Where in `parts` each open bracket begins, and for square ones where in the prompt.
    let (mut round, mut square): (Vec<usize>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(first) = prompt[at..].chars().next() {
        let rest = &prompt[at..];
        let mut taken = first.len_utf8();
        match first {
            '\\' => {
                let meant = rest[1..].chars().next().filter(|c| "()[]\\".contains(*c));
                taken += meant.map_or(0, char::len_utf8);
                parts.push(words(meant.map(String::from).unwrap_or_default()));
            }
            '(' => round.push(parts.len()),
            '[' => square.push((parts.len(), at)),
            ')' => match round.pop() {
                Some(from) => multiply(&mut parts[from..], EMPHASIS),
                None => parts.push(words(")".to_owned())),
            },
            ']' => match square.pop() {
                Some((from, opened)) => {
                    let bracket = &prompt[opened..=at];
                    editing = editing.or(Some(bracket).filter(|bracket| is_editing(bracket)));
                    multiply(&mut parts[from..], 1.0 / EMPHASIS);
                }
                None => parts.push(words("]".to_owned())),
            },
            ':' => match weight(rest).filter(|_| !round.is_empty()) {
                Some((weight, length)) => {
                    (taken, numbers) = (length, true);
                    multiply(&mut parts[round.pop().unwrap_or_default()..], weight);
                }
                None => parts.push(words(":".to_owned())),
            },
            _ => {
                taken = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                for (i, text) in between_breaks(&rest[..taken]).into_iter().enumerate() {
                    if i > 0 {
                        parts.push(Part::Break);
                    }
                    parts.push(words(text.to_owned()));
                }
            }
        }
        at += taken;
    }
    round.into_iter().for_each(|from| multiply(&mut parts[from..], EMPHASIS));
    square.into_iter().for_each(|(from, _)| multiply(&mut parts[from..], 1.0 / EMPHASIS));
    Scanned { parts: merged(parts), numbers, editing }
}

/// The number that closes a bracket (`:1.2)`), and how much of the text that is; `None` where it is no number.
fn weight(rest: &str) -> Option<(f64, usize)> {
    let (number, after) = rest.strip_prefix(':')?.split_once(')')?;
    let length = rest.len() - after.len();
    let number = number.trim();
    let plain = number.strip_prefix(['+', '-']).unwrap_or(number);
    if plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    (number as f32).is_finite().then_some((number, length))
}

/// `[a|b]`, `[a:b:0.5]`.
fn is_editing(bracket: &str) -> bool {
    let inside = &bracket[1..bracket.len() - 1];
    let alternates = inside.match_indices('|').any(|(at, _)| !inside[..at].ends_with('\\'));
    let when = inside.rsplit_once(':').map(|(_, when)| when.trim());
    alternates || when.is_some_and(|when| when.parse::<f64>().is_ok())
}

/// What lies between the words `BREAK`, without the spaces around them.
fn between_breaks(text: &str) -> Vec<&str> {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    let (mut between, mut start) = (Vec::new(), 0);
    for (at, _) in text.match_indices(BREAK) {
        let after = &text[at + BREAK.len()..];
        if text[..at].ends_with(is_letter) || after.starts_with(is_letter) {
            continue;
        }
        between.push(text[start..at].trim_end());
        start = text.len() - after.trim_start().len();
    }
    between.push(&text[start..]);
    between
}

fn words(text: String) -> Part {
    Part::Words { text, weight: 1.0 }
}

fn multiply(parts: &mut [Part], factor: f64) {
    for part in parts {
        if let Part::Words { weight, .. } = part {
            *weight *= factor;
        }
    }
}

/// Neighbours of one weight as one: words are read together.
fn merged(parts: Vec<Part>) -> Vec<Part> {
    let mut merged: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        match (merged.last_mut(), part) {
            (Some(Part::Words { text, weight }), Part::Words { text: next, weight: of_next })
                if *weight == of_next =>
            {
                text.push_str(&next);
            }
            (_, part) => merged.push(part),
        }
    }
    merged.retain(|part| !matches!(part, Part::Words { text, .. } if text.is_empty()));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words with their weights; a break is `None`.
    fn read(prompt: &str) -> Vec<Option<(String, f64)>> {
        let told = |part| match part {
            Part::Words { text, weight } => Some((text, (weight * 1e9).round() / 1e9)),
            Part::Break => None,
        };
        parse(prompt).unwrap().into_iter().map(told).collect()
    }

    fn expected(parts: &[(&str, f64)]) -> Vec<Option<(String, f64)>> {
        parts.iter().map(|(text, weight)| Some(((*text).to_owned(), *weight))).collect()
    }

    #[test]
    fn brackets_weigh_and_nest() {
        for (prompt, parts) in [
            ("a plain text, of course: yes", &[("a plain text, of course: yes", 1.0)][..]),
            ("an (important) word", &[("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
            ("(a:1.25) [b]", &[("a", 1.25), (" ", 1.0), ("b", 0.909090909)]),
            ("((a) b:2)", &[("a", 2.2), (" b", 2.0)]),
            ("(a)(b)", &[("ab", 1.1)]),
            ("(open", &[("open", 1.1)]),
            ("[[open", &[("open", 0.826446281)]),
            ("closed) ] too:1.5)", &[("closed) ] too:1.5)", 1.0)]),
            (r"\(meant\) \[too\] \\ \n", &[(r"(meant) [too] \ n", 1.0)]),
            (r"(a \(b\):0.5)", &[("a (b)", 0.5)]),
            ("(a: -1.5 )(b:+2)", &[("a", -1.5), ("b", 2.0)]),
            ("(a:1.2.3)", &[("a:1.2.3", 1.1)]),
            ("(a:word)", &[("a:word", 1.1)]),
            ("(é:2) 漢字", &[("é", 2.0), (" 漢字", 1.0)]),
        ] {
            assert_eq!(read(prompt), expected(parts), "{prompt}");
        }
        assert!(parse("").unwrap().is_empty() && parse("()").unwrap().is_empty());
        // What is no number of any size is words.
        let huge = format!("(a:{})", "9".repeat(60));
        assert_eq!(read(&huge), expected(&[(&huge[1..63], 1.1)]));
    }

    #[test]
    fn break_stands_between_words_wherever_it_is() {
        let read = read("a man BREAK  (a hat BREAK a coat:2) BREAKFAST break");
        let words = |text: &str, weight| Some((text.to_owned(), weight));
        let rest = words(" BREAKFAST break", 1.0);
        assert_eq!(read, [words("a man", 1.0), None, words("a hat", 2.0), None, words("a coat", 2.0), rest]);
    }

    #[test]
    fn words_that_would_change_from_step_to_step_are_refused() {
        for prompt in ["[a:b:0.5]", "a [b:.5] c", "[a|b]", "[(a:1.2)|b]", "x [[c]: 3 ]"] {
            assert_eq!(parse(prompt).unwrap_err().code, "prompt-editing", "{prompt}");
        }
        for prompt in ["[a]", "[a: b]", "a|b", r"\[a|b\]", "[(a:1.2)]"] {
            assert!(parse(prompt).is_ok(), "{prompt}");
        }
    }

    #[test]
    fn only_numbers_and_breaks_cannot_be_words() {
        for prompt in ["(a:1.2)", "((a):2)", "a BREAK b"] {
            assert!(weighs(prompt), "{prompt}");
        }
        for prompt in ["a (b) [c]", "breakfast: BREAKFAST", "at 1:2)", ""] {
            assert!(!weighs(prompt), "{prompt}");
        }
    }
}
