//! The command line of training: each stage has its own flags.

use std::path::Path;
use std::process::{Command, Output};

fn facestudio(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_facestudio")).args(arguments).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn each_stage_of_training_takes_its_own_flags_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let here = text(folder.path());
    let run = |more: &[&str]| {
        let arguments = [&["train"], more, &["--steps", "1", "--out", text(&out)]].concat();
        facestudio(&arguments)
    };
    for (stage, flag) in [
        (&["face"][..], &["--base", here][..]),
        (&["face"], &["--data", here]),
        (&["detector"], &["--base", here]),
        (&["diffusion"], &["--decoder-only"]),
        (&["vae"], &["--gradient-checkpointing"]),
        (&["clip"], &["--n-tokens", "4"]),
        (&["prior"], &["--drop-style", "0.3"]),
        (&["vae"], &["--preset", "mini"]),
    ] {
        let refused = run(&[stage, flag].concat());
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("unexpected argument '{}'", flag[0])), "{said}");
    }
    for (arguments, missing) in [(&["consistency"][..], "--base"), (&["vae", "--decoder-only"], "--base")] {
        let refused = run(arguments);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(2) && said.contains(missing), "{said}");
    }
    let refused = run(&["vae", "--data", here, "--pictures", "4"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cannot be used with"));
    assert!(!out.exists());

    let help = |stage: &str| String::from_utf8(facestudio(&["train", stage, "--help"]).stdout).unwrap();
    assert!(help("vae").contains("--decoder-only") && help("vae").contains("--batch 8 --lr 6e-4"));
    assert!(help("diffusion").contains("--drop-style <P>") && help("diffusion").contains("[default: 0.64]"));
    assert!(!help("detector").contains("--data"));
}

#[test]
fn numbers_that_no_training_can_have_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let train = |more: &[&str], code: &str| {
        let refused = facestudio(&[&["train"], more, &["--out", text(&out)]].concat());
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.starts_with("error: ") && said.contains(&format!("[{code}]")), "{said}");
        assert!(!out.exists());
        said
    };
    train(&["diffusion", "--steps", "1", "--drop-identity", "1.5"], "drop-range");
    train(&["vae", "--minutes", "0"], "minutes-range");
    train(&["vae", "--minutes", "nan"], "minutes-range");
    train(&["clip", "--steps", "1", "--lr", "0"], "lr-range");
    for flag in ["--batch", "--accumulate", "--steps", "--pictures", "--n-tokens"] {
        assert!(train(&["diffusion", flag, "0"], "count-range").contains(flag));
    }
}
