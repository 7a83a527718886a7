//! What goes to standard output, and warnings.

use std::io::{ErrorKind, Write};

use facestudio::{Error, Notice, Result};

/// Writes text; a reader that has gone (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("standard output", &e)),
        _ => Ok(()),
    }
}

/// Tells of what was done otherwise than asked; standard output stays as programs read it.
pub fn warn(notice: &Notice) {
    let Notice { code, message, remedy, .. } = notice;
    // Words of a prompt are told back: they must not steer the terminal.
    let plain: String = message.chars().filter(|c| !c.is_control()).collect();
    eprintln!("warning: {plain} [{code}]\n  help: {remedy}");
}
