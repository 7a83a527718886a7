//! What a picture's file tells, and what it can be asked not to tell, on the command line.

#[path = "../../../tests/support/tiny_model.rs"]
mod tiny_model;

use std::path::Path;
use std::process::Command;

use facestudio::image::codec::read_png_texts;
use serde_json::{Value, json};

fn generate(arguments: &[&str]) {
    let run =
        Command::new(env!("CARGO_BIN_EXE_facestudio")).arg("generate").args(arguments).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

/// The settings of a picture, and whether its file has one of the words anywhere.
fn settings(path: &Path) -> (Value, bool) {
    let png = std::fs::read(path).unwrap();
    let texts = read_png_texts(&png).unwrap();
    let (_, settings) = texts.iter().find(|(keyword, _)| keyword == "facestudio").unwrap();
    let said =
        [b"astronaut".as_slice(), b"blurry"].iter().any(|word| png.windows(word.len()).any(|at| at == *word));
    (serde_json::from_str(settings).unwrap(), said)
}

#[test]
fn the_words_are_left_out_of_a_picture_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    facestudio::weights::write_folder(Path::new(&at("model")), |new| {
        tiny_model::files().0.iter().try_for_each(|(path, bytes)| new.write(path, bytes))
    })
    .unwrap();
    let (model, told, silent, job) = (at("model"), at("told.png"), at("silent.png"), at("job.png"));
    let words = ["--prompt", "an astronaut", "--negative-prompt", "blurry", "--steps", "1", "--seed", "3"];
    let with = |more: &[&str]| generate(&[&["--model", model.as_str()], words.as_slice(), more].concat());
    with(&["--out", &told]);
    with(&["--out", &silent, "--no-prompt-in-metadata"]);
    let line = json!({ "prompt": "an astronaut", "negative_prompt": "blurry", "steps": 1, "seed": 3,
        "no_prompt_in_metadata": true, "out": job });
    std::fs::write(at("jobs.jsonl"), line.to_string()).unwrap();
    generate(&["--model", &model, "--jobs", &at("jobs.jsonl")]);

    let (open, said) = settings(Path::new(&told));
    assert!(said);
    assert_eq!((&open["prompt"], &open["negative_prompt"]), (&"an astronaut".into(), &"blurry".into()));
    for path in [&silent, &job] {
        let (settings, said) = settings(Path::new(path));
        assert!(!said, "{settings}");
        assert_eq!((&settings["seed"], &settings["generated"]), (&3.into(), &true.into()));
        assert_eq!(settings.get("prompt"), None);
        // The picture is the same: the words count all the same.
        assert_eq!(image::open(path).unwrap(), image::open(&told).unwrap());
    }
}
