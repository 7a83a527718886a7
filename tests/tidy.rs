//! The house's rules (ARCHITECTURE.md), held against the files themselves.
//!
//! Every rule is a function of files that returns what it found, and is itself tested on small bad samples.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use regex::Regex;

/// A file's path relative to the repository, with `/` between parts, and its text.
struct File {
    path: String,
    text: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Rust code without comments and without its unit tests.
    fn code(&self) -> String {
        if self.path.ends_with("/tests.rs") {
            return String::new();
        }
        let text = self.text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        // A `//` after a colon is an address in a string.
        let comment = Regex::new(r"(?m)(^|[^:])//.*$").unwrap();
        comment.replace_all(text, "$1").into_owned()
    }

    /// `src/unet/mod.rs` and `src/unet.rs` are in room `unet`; `None` outside `src`, and for `lib.rs`.
    fn room(&self) -> Option<&str> {
        let room = self.path.strip_prefix("src/")?.split('/').next()?;
        let room = room.strip_suffix(".rs").unwrap_or(room);
        (room != "lib").then_some(room)
    }
}

/// All files below `folder` with one of the endings, sorted.
fn files(folder: &str, endings: &[&str]) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "node_modules" && name != "__pycache__" {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let relative = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                found.push(File { path: relative, text: std::fs::read_to_string(&path).unwrap() });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The library.
fn library() -> Vec<File> {
    let found = files("src", &[".rs"]);
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// The library, and the crates on top of it.
fn sources() -> Vec<File> {
    let mut found = library();
    found.extend(files("crates", &[".rs"]).into_iter().filter(|file| !file.path.contains("/tests/")));
    found
}

/// Our own text files: programs, tests, page, scripts.
fn everything() -> Vec<File> {
    let endings = [".rs", ".js", ".mjs", ".css", ".html", ".py", ".wgsl", ".sh"];
    ["src", "crates", "tests", "web", "benches", "scripts", "examples"]
        .iter()
        .flat_map(|folder| files(folder, &endings))
        .collect()
}

#[track_caller]
fn assert_none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

// ---- error codes -----------------------------------------------------------------------------------------------------

/// Codes that the sources can return: the first argument of `Error`'s constructors and of our own functions that take a
/// `code`, and what a `let code = match` chooses from.
fn codes_in(sources: &[File]) -> BTreeSet<String> {
    let code: Vec<(String, bool)> =
        sources.iter().map(|file| (file.code(), file.room() == Some("error"))).collect();
    let taker = Regex::new(r"fn (\w+)\(\s*code: &'static str").unwrap();
    let others = code.iter().filter(|(_, is_error)| !is_error);
    let takers: Vec<String> =
        others.flat_map(|(code, _)| taker.captures_iter(code)).map(|c| c[1].to_owned()).collect();
    let constructor = Regex::new(r#"Error::(?:input|weights|device|internal)\(\s*"([^"]*)""#).unwrap();
    let own = Regex::new(r#"Self::new\(Fault::\w+,\s*"([^"]*)""#).unwrap();
    let chosen = Regex::new(r"let code = [^;]*;").unwrap();
    let literal = Regex::new(r#"=> "([^"]*)"|\{ "([^"]*)" \}"#).unwrap();
    let mut found = BTreeSet::new();
    for (code, is_error) in &code {
        found.extend(constructor.captures_iter(code).map(|c| c[1].to_owned()));
        if *is_error {
            found.extend(own.captures_iter(code).map(|c| c[1].to_owned()));
        }
        for choice in chosen.find_iter(code) {
            let literals = literal.captures_iter(choice.as_str());
            found.extend(literals.filter_map(|c| Some(c.get(1).or(c.get(2))?.as_str().to_owned())));
        }
        for taker in &takers {
            let call = Regex::new(&format!(r#"\b{taker}\(\s*"([^"]*)""#)).unwrap();
            found.extend(call.captures_iter(code).map(|c| c[1].to_owned()));
        }
    }
    found
}

/// Codes in the first column of the tables of `docs/errors.md`.
fn documented(errors: &str) -> BTreeSet<String> {
    let row = Regex::new(r"(?m)^\| `([^`]+)` \|").unwrap();
    row.captures_iter(errors).map(|c| c[1].to_owned()).collect()
}

fn code_problems(sources: &[File], errors: &str) -> Vec<String> {
    let (used, documented) = (codes_in(sources), documented(errors));
    let kebab = Regex::new(r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$").unwrap();
    let missing = used.difference(&documented).map(|code| format!("{code} is not in docs/errors.md"));
    let gone =
        documented.difference(&used).map(|code| format!("docs/errors.md lists {code}, nothing returns it"));
    let misspelt =
        used.iter().filter(|code| !kebab.is_match(code)).map(|code| format!("'{code}' is not kebab-case"));
    missing.chain(gone).chain(misspelt).collect()
}

#[test]
fn every_error_code_is_documented_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    assert_none(code_problems(&sources(), &std::fs::read_to_string(path).unwrap()));
}

#[test]
fn undocumented_stale_and_misspelt_codes_are_found() {
    let source = r#"
        // Error::input("in-a-comment", "")
        Error::weights(
            "direct",
            "message", "remedy");
        let code = match name { "a" => "chosen-a", _ => "chosen-b" };
        let code = if wide { "by-if" } else { "by-else" };
        fn fail(code: &'static str) {}
        fail("through-a-function");
        Error::input("Bad_Case", "", "");
        #[cfg(test)]
mod tests { fn x() { Error::input("in-a-test", "", "") } }"#;
    let sources = [File::new("src/unet/mod.rs", source)];
    let docs = "| `direct` | `not-a-code` |\n| `chosen-a` | |\n| `stale` | |\n";
    let mut expected = vec![
        "Bad_Case is not in docs/errors.md",
        "by-else is not in docs/errors.md",
        "by-if is not in docs/errors.md",
        "chosen-b is not in docs/errors.md",
        "through-a-function is not in docs/errors.md",
        "docs/errors.md lists stale, nothing returns it",
        "'Bad_Case' is not kebab-case",
    ];
    let mut found = code_problems(&sources, docs);
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
}

// ---- who may import whom ---------------------------------------------------------------------------------------------

/// The rooms from left to right: each may import those of earlier rows, none of its own row.
const ROOMS: &[&[&str]] = &[
    &["error", "kernels"],
    &["condition", "nn", "weights"],
    &["attention", "sampling"],
    &["request"],
    &["image"],
    &["encoders", "guidance", "pixart", "transformer", "unet", "upscaler", "vae"],
    &["pipeline"],
];

fn row(room: &str) -> Option<usize> {
    ROOMS.iter().position(|row| row.contains(&room))
}

/// Rooms that a file names through `crate::`; what lib.rs re-exports counts as `error`'s.
fn imports(file: &File) -> BTreeSet<String> {
    let code = file.code();
    let mut found = BTreeSet::new();
    let path = Regex::new(r"\bcrate::(\w+)").unwrap();
    found.extend(path.captures_iter(&code).map(|c| c[1].to_owned()));
    // `use crate::{a::b, c::{d, e}}`: the names after which the nesting is one deep.
    for (start, _) in code.match_indices("crate::{") {
        let (mut depth, mut name, mut naming) = (1, String::new(), true);
        for c in code[start + "crate::{".len()..].chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && c == ',') {
                found.extend(Some(std::mem::take(&mut name)).filter(|name| !name.is_empty()));
                naming = true;
            } else if !(c.is_alphanumeric() || c == '_' || c.is_whitespace()) {
                naming = false;
            } else if naming && !c.is_whitespace() {
                name.push(c);
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
        .into_iter()
        .map(|name| if name.starts_with(char::is_uppercase) { "error".to_owned() } else { name })
        .collect()
}

fn arrow_problems(sources: &[File]) -> Vec<String> {
    let mut problems = Vec::new();
    for file in sources {
        let Some(room) = file.room() else { continue };
        let Some(own) = row(room) else {
            problems.push(format!("{}: room {room} is not in the drawing", file.path));
            continue;
        };
        for import in imports(file).into_iter().filter(|import| import != room) {
            if row(&import).is_none_or(|other| other >= own) {
                problems.push(format!("{} ({room}) imports {import}", file.path));
            }
        }
    }
    problems
}

#[test]
fn rooms_import_only_to_their_left() {
    assert_none(arrow_problems(&library()));
}

#[test]
fn wrong_arrows_are_found() {
    let bad = [
        ("src/error.rs", "use crate::weights::Files;"),
        ("src/guidance/fusion.rs", "use crate::encoders::text;"),
        ("src/guidance/fusion.rs", "use crate::{error::Error, encoders::{text, face}};"),
        ("src/guidance/fusion.rs", "let x = crate::pipeline::run();"),
        ("src/unet/mod.rs", "use crate::vae::Vae;"),
        ("src/sampling/ddim.rs", "use crate::{\n    nn::Linear,\n    unet,\n};"),
        ("src/nn/mod.rs", "use crate::weights::apply;"),
        ("src/weights/mod.rs", "use crate::image::codec;"),
        ("src/pipeline.rs", "use crate::train;"),
        ("src/attic/mod.rs", ""),
    ];
    for (path, text) in bad {
        assert_eq!(arrow_problems(&[File::new(path, text)]).len(), 1, "{path}: {text}");
    }
    let good = [
        ("src/pipeline.rs", "use crate::{error::{Error, Result}, unet::blocks, vae::Vae};"),
        ("src/unet/mod.rs", "use crate::unet::blocks; use crate::{Error, Result};"),
        ("src/unet/mod.rs", "// once crate::vae\n#[cfg(test)]\nmod tests { use crate::vae; }"),
        ("src/lib.rs", "pub use crate::pipeline::FaceStudio;"),
    ];
    for (path, text) in good {
        assert_none(arrow_problems(&[File::new(path, text)]));
    }
}

/// Of each file of the folder `folder`, the siblings that it names through `super::`, and what else it takes from above.
fn siblings(sources: &[File], folder: &str) -> (BTreeMap<String, BTreeSet<String>>, Vec<String>) {
    let stem = |file: &File| file.path.strip_prefix(folder)?.strip_suffix(".rs").map(str::to_owned);
    let own = sources.iter().filter_map(|file| Some((stem(file)?, file)));
    let own: BTreeMap<String, &File> = own.filter(|(stem, _)| !stem.contains('/')).collect();
    let path = Regex::new(r"\bsuper::(\{[^;]*|\w+)").unwrap();
    let first = Regex::new(r"^\w+").unwrap();
    let (mut named, mut above) = (BTreeMap::new(), Vec::new());
    for (stem, file) in &own {
        let mut names = BTreeSet::new();
        for found in path.captures_iter(&file.code()) {
            for part in found[1].trim_matches(['{', '}']).split(", ") {
                let part = first.find(part).map_or("", |part| part.as_str());
                if own.contains_key(part) {
                    names.insert(part.to_owned());
                } else {
                    above.push(format!("{} takes {part} from the file above it", file.path));
                }
            }
        }
        named.insert(stem.clone(), names);
    }
    (named, above)
}

/// Files of the folder that know each other in a circle, or the file that is made of them.
fn circle_problems(sources: &[File], folder: &str) -> Vec<String> {
    let (mut named, mut problems) = siblings(sources, folder);
    // Whoever names nobody that is left is in no circle.
    while let Some(free) = named.iter().find(|(_, names)| names.is_empty()).map(|(stem, _)| stem.clone()) {
        named.remove(&free);
        named.values_mut().for_each(|names| {
            names.remove(&free);
        });
    }
    problems.extend(named.keys().map(|stem| format!("{folder}{stem}.rs is in a circle, or leads into one")));
    problems
}

#[test]
fn the_pipeline_is_made_of_files_without_a_circle() {
    let sources = library();
    assert!(siblings(&sources, "src/pipeline/").0.values().any(|names| names.contains("family")));
    assert_none(circle_problems(&sources, "src/pipeline/"));
    let file = |name: &str, text: &str| File::new(&format!("src/pipeline/{name}.rs"), text);
    let found = |a: &str, b: &str| circle_problems(&[file("a", a), file("b", b)], "src/pipeline/").len();
    assert_eq!(found("use super::b::B;", "fn x() {}"), 0);
    assert_eq!(found("use super::b::B;", "fn x() { super::a::f() }"), 2);
    assert_eq!(found("use super::{Above, b};", ""), 1);
    assert_eq!(found("", "#[cfg(test)]\nmod tests { use super::*; }"), 0);
}

fn sampler_problems(sources: &[File]) -> Vec<String> {
    let sampling = sources.iter().filter(|file| file.room() == Some("sampling"));
    sampling
        .filter(|file| file.code().to_lowercase().contains("unet"))
        .map(|file| format!("{} names the UNet", file.path))
        .collect()
}

#[test]
fn sampling_knows_no_network() {
    let sources = library();
    assert!(sources.iter().any(|file| file.room() == Some("sampling")));
    assert_none(sampler_problems(&sources));
    let bad = File::new("src/sampling/euler.rs", "fn step(unet: &UNet2DConditionModel) {}");
    assert_eq!(sampler_problems(&[bad]).len(), 1);
}

/// Files of the library that may read or write files, or ask the system anything else.
const OUTSIDE: &[&str] = &["src/weights/folder.rs", "src/weights/paths.rs", "src/weights/writing.rs"];

fn outside_problems(sources: &[File]) -> Vec<String> {
    let outside =
        Regex::new(r"std::(fs|net|env|process)\b|image::open\(|ImageReader::open\(|\.save\(").unwrap();
    sources
        .iter()
        .filter(|file| !OUTSIDE.iter().any(|prefix| file.path.starts_with(prefix)))
        .filter_map(|file| {
            let code = file.code();
            let found = outside.find(&code)?;
            Some(format!("{} uses {}", file.path, found.as_str()))
        })
        .collect()
}

#[test]
fn only_a_few_files_touch_the_outside_world() {
    let mut inside = library();
    inside.extend(files("crates/synth/src", &[".rs"]));
    assert_none(outside_problems(&inside));
    for bad in
        ["use std::fs;", "std::net::TcpStream::connect(x)", "std::env::var(\"X\")", "picture.save(path)"]
    {
        assert_eq!(outside_problems(&[File::new("src/vae/kl.rs", bad)]).len(), 1, "{bad}");
    }
    assert_none(outside_problems(&[File::new("src/weights/folder.rs", "use std::fs;")]));
}

/// Manifests of crates without the workspace's lints, which deny unsafe code.
fn lint_problems(manifests: &[File]) -> Vec<String> {
    let lints = "\n[lints]\nworkspace = true\n";
    let without = manifests.iter().filter(|file| !file.text.contains(lints));
    without.map(|file| format!("{} does not take the workspace's lints", file.path)).collect()
}

#[test]
fn every_crate_takes_the_lints() {
    let mut manifests = files("crates", &["Cargo.toml"]);
    assert!(manifests.len() > 5, "the crates were not found");
    let root = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    manifests.push(File::new("Cargo.toml", &root));
    assert_none(lint_problems(&manifests));
    assert_eq!(lint_problems(&[File::new("crates/x/Cargo.toml", "[package]\nname = \"x\"\n")]).len(), 1);
}

// ---- sizes, names, unfinished work -----------------------------------------------------------------------------------

const LONGEST: usize = 600;

fn length_problems(files: &[File]) -> Vec<String> {
    let lines = |file: &File| file.text.lines().count();
    let long = files.iter().filter(|file| lines(file) > LONGEST);
    long.map(|file| format!("{} has {} lines; at most {LONGEST}", file.path, lines(file))).collect()
}

#[test]
fn no_file_is_long() {
    assert_none(length_problems(&everything()));
    assert_eq!(length_problems(&[File::new("src/x.rs", &"x\n".repeat(601))]).len(), 1);
    assert_none(length_problems(&[File::new("src/x.rs", &"x\n".repeat(600))]));
}

#[test]
fn no_fixture_is_large() {
    const LARGEST: u64 = 500_000;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("tests/parity")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let size = path.metadata().unwrap().len();
                assert!(size <= LARGEST, "{} has {size} bytes; at most {LARGEST}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "the fixtures were not found");
}

/// Marks of unfinished work, spelt so that this file does not hold them.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("unimplemented", "!"),
    concat!("to", "do!("),
    concat!("#[", "ignore"),
];

fn unfinished_problems(files: &[File]) -> Vec<String> {
    let mut problems = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(mark) = UNFINISHED.iter().find(|mark| line.contains(**mark)) {
                problems.push(format!("{}:{}: {mark}", file.path, number + 1));
            }
        }
    }
    problems
}

#[test]
fn nothing_is_left_unfinished() {
    assert_none(unfinished_problems(&everything()));
    for mark in UNFINISHED {
        assert_eq!(
            unfinished_problems(&[File::new("src/x.rs", &format!("\n// {mark} later"))]).len(),
            1,
            "{mark}"
        );
    }
}

/// Names that say nothing about what is inside.
const VAGUE: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"];

fn name_problems(files: &[File]) -> Vec<String> {
    let declared = Regex::new(r"\b(?:mod|struct|enum|trait|class)\s+(\w+)").unwrap();
    let mut problems = BTreeMap::new();
    for file in files {
        let parts = file.path.split('/').flat_map(|part| part.split(['.', '-', '_']));
        let declared = declared.captures_iter(&file.text).map(|c| c[1].to_owned());
        let names = parts.map(str::to_owned).chain(declared);
        for name in names {
            let lower = name.to_lowercase();
            let vague =
                VAGUE.contains(&lower.as_str()) || name.ends_with("Manager") || name.ends_with("Helper");
            if vague {
                problems.insert(format!("{}: '{name}' says nothing", file.path), ());
            }
        }
    }
    problems.into_keys().collect()
}

#[test]
fn names_say_what_is_inside() {
    assert_none(name_problems(&everything()));
    let bad = [
        ("src/utils.rs", ""),
        ("src/nn/helpers/mod.rs", ""),
        ("web/engine/common.js", ""),
        ("src/x.rs", concat!("mod mi", "sc {}")),
        ("src/x.rs", concat!("pub struct Cache", "Manager;")),
    ];
    for (path, text) in bad {
        assert_eq!(name_problems(&[File::new(path, text)]).len(), 1, "{path} {text}");
    }
}

// ---- documents -------------------------------------------------------------------------------------------------------

/// Links and pictures of Markdown documents to files that are not there.
fn link_problems(documents: &[File]) -> Vec<String> {
    let link = Regex::new(r"\]\(([^)#\s]+)(?:#[^)]*)?\)").unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut problems = Vec::new();
    for document in documents {
        let folder = root.join(&document.path).parent().unwrap().to_owned();
        for found in link.captures_iter(&document.text) {
            let address = &found[1];
            if !address.contains("://") && !folder.join(address).exists() {
                problems.push(format!("{}: no {address}", document.path));
            }
        }
    }
    problems
}

#[test]
fn documents_link_to_what_is_there() {
    let root = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SAFETY.md"];
    let text =
        |name: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let mut documents: Vec<File> = root.iter().map(|name| File::new(name, &text(name))).collect();
    documents.extend(["docs", "models/mini", "benches"].iter().flat_map(|folder| files(folder, &[".md"])));
    assert!(documents.iter().any(|document| document.path == "models/mini/README.md"));
    assert_none(link_problems(&documents));
    let bad = File::new("docs/x.md", "[a](eval.md), [b](gone.md#part), ![c](https://example.org/gone.md)");
    assert_eq!(link_problems(&[bad]), ["docs/x.md: no gone.md"]);
}
