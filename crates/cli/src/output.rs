//! What goes to the terminal. Names, paths and texts in files are strangers': what would move the cursor, change a colour or
//! turn the writing around is shown, not obeyed.

use std::io::{ErrorKind, Write};

use facestudio::{Error, Notice, Result};
use serde::Serialize;

/// Writes text; a reader that has gone (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    print_own(&lines(text))
}

/// A text with nothing in it that a terminal obeys but the ends of its lines.
pub fn lines(text: &str) -> String {
    escape_all(text, |c| c == '\n', escaped)
}

/// Writes a value as JSON on one line, or indented.
pub fn print_json(value: &impl Serialize, indented: bool) -> Result<()> {
    let json = if indented { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    let json = json.map_err(|e| Error::internal("json", e.to_string()))?;
    // These characters stand in texts alone, where JSON has the same word for them as for its own escapes.
    print_own(&(escape_all(&json, |c| c == '\n', escaped_in_json) + "\n"))
}

/// Writes an error to standard error, after the place in a file that it is about.
pub fn complain(place: &str, error: &Error) {
    let printable = Error { message: line(&error.message), remedy: line(&error.remedy), ..error.clone() };
    eprintln!("error: {}{printable}", line(place));
}

/// A text on one line, with nothing in it that a terminal obeys.
pub fn line(text: &str) -> String {
    escape_all(text, |_| false, escaped)
}

/// Writes words of our own as they are.
pub fn print_own(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("standard output", &e)),
        _ => Ok(()),
    }
}

/// Tells of what was done otherwise than asked; standard output stays as programs read it.
pub fn warn(notice: &Notice) {
    let Notice { code, message, remedy, .. } = notice;
    // Words of a prompt are told back.
    eprintln!("warning: {} [{code}]\n  help: {}", line(message), line(remedy));
}

fn escaped(c: char) -> String {
    c.escape_default().to_string()
}

/// JSON knows four digits; none of these characters has more.
fn escaped_in_json(c: char) -> String {
    format!("\\u{:04x}", u32::from(c))
}

fn escape_all(text: &str, is_kept: fn(char) -> bool, escape: fn(char) -> String) -> String {
    let mut escaped_text = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) && !is_kept(c) {
            escaped_text += &escape(c);
        } else {
            escaped_text.push(c);
        }
    }
    escaped_text
}

/// Control characters, and those that turn the direction of writing or begin a line (Unicode, section 23.2).
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{206F}' | '\u{FFF9}'..='\u{FFFB}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown() {
        let hostile = "a\u{1b}]0;title\u{7}\u{9b}2J\r\n\tb\u{202e}c\u{2066}\u{7f}\u{2028}é👩‍👩‍👧";
        let plain = line(hostile);
        assert_eq!(plain, "a\\u{1b}]0;title\\u{7}\\u{9b}2J\\r\\n\\tb\\u{202e}c\\u{2066}\\u{7f}\\u{2028}é👩‍👩‍👧");
        let json = serde_json::to_string(&[hostile]).unwrap();
        let escaped = escape_all(&json, |c| c == '\n', escaped_in_json);
        assert!(!escaped.chars().any(is_obeyed), "{escaped}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&escaped).unwrap()[0], hostile);
    }
}
