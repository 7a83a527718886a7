//! Whose code is inside, as the program says it.

use std::path::Path;
use std::process::{Command, Output};

fn facestudio(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_facestudio")).args(arguments).output().unwrap()
}

/// The packages of `Cargo.lock` as "name version".
fn locked() -> Vec<String> {
    let lock =
        std::fs::read_to_string(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("Cargo.lock"))
            .unwrap();
    let value = |line: Option<&str>| line.unwrap().split('"').nth(1).unwrap().to_owned();
    let mut packages = Vec::new();
    for package in lock.split("[[package]]\n").skip(1) {
        let mut lines = package.lines();
        packages.push(format!("{} {}", value(lines.next()), value(lines.next())));
    }
    packages
}

/// What `scripts/notices.mjs --check` looks at more closely, with node and the crates' own files.
#[test]
fn the_program_says_whose_code_is_inside() {
    let run = facestudio(&["--licenses"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let told = String::from_utf8(run.stdout).unwrap();
    let crates: Vec<String> = told
        .lines()
        .filter_map(|line| line.strip_prefix("* ")?.split_once(" ("))
        .map(|(package, _)| package.to_owned())
        .filter(|package| {
            package.split(' ').nth(1).is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
        })
        .collect();
    let locked = locked();
    // The page's scripts hold npm packages, which the browser's tests look at.
    let (packages, crates): (Vec<_>, Vec<_>) =
        crates.into_iter().partition(|package| package.starts_with('@'));
    assert_eq!(packages.len(), 2, "{packages:?}");
    assert!(crates.len() > 200 && locked.len() > 500, "{} of {}", crates.len(), locked.len());
    let stale: Vec<_> = crates.iter().filter(|package| !locked.contains(package)).collect();
    assert!(stale.is_empty(), "run `node scripts/notices.mjs`: {stale:?} are not in Cargo.lock");
    for name in ["burn", "burn-cubecl", "image", "clap", "hyper", "wasm-bindgen", "wgpu"] {
        assert!(crates.iter().any(|package| package.starts_with(&format!("{name} "))), "{name}");
    }
    for text in
        ["Apache License", "Permission is hereby granted", "Mozilla Public License", "UNICODE LICENSE"]
    {
        assert!(told.contains(text), "{text}");
    }
    assert!(!facestudio(&["--licenses", "presets"]).status.success());
}
