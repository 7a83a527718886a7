//! Puts the files of `models/mini` into the program, so that it draws wherever it is.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let variable = |name| env::var_os(name).map(PathBuf::from).ok_or(io::ErrorKind::NotFound);
    let model = variable("CARGO_MANIFEST_DIR")?.join("../../models/mini");
    println!("cargo::rerun-if-changed={}", model.display());
    let mut files = Vec::new();
    walk(&model, "", &mut files)?;
    files.sort();
    let mut table = String::from("&[\n");
    for path in &files {
        let _ = writeln!(table, "    ({path:?}, include_bytes!({:?})),", model.join(path));
    }
    fs::write(variable("OUT_DIR")?.join("mini.rs"), table + "]\n")
}

/// The files in a folder by their paths in the model, but for its documents.
fn walk(model: &Path, folder: &str, files: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(model.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        if entry.file_type()?.is_dir() {
            walk(model, &path, files)?;
        } else if !path.ends_with(".md") {
            files.push(path);
        }
    }
    Ok(())
}
