//! Puts the documents of `models/recipes` into the crate.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let variable = |name| env::var_os(name).map(PathBuf::from).ok_or(io::ErrorKind::NotFound);
    let folder = variable("CARGO_MANIFEST_DIR")?.join("../../models/recipes");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut tables = String::new();
    for (name, folder) in [("RECIPES", folder.clone()), ("PARTS", folder.join("parts"))] {
        let _ = writeln!(tables, "const {name}: &[(&str, &str)] = &[");
        for (stem, path) in documents(&folder)? {
            let _ = writeln!(tables, "    ({stem:?}, include_str!({path:?})),");
        }
        tables.push_str("];\n");
    }
    fs::write(variable("OUT_DIR")?.join("recipes.rs"), tables)
}

/// The JSON files of a folder and their names without the ending, sorted.
fn documents(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            found.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}
