//! The program draws wherever it is: it carries mini.

use std::path::Path;
use std::process::Command;

#[test]
fn without_a_model_the_program_draws_with_mini_in_any_folder() {
    let folder = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let command = ["generate", "--prompt", "a woman with red hair", "--steps", "1", "--seed", "3"];
        let output = Command::new(env!("CARGO_BIN_EXE_facestudio"))
            .args(command.iter().chain(more))
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let mini = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mini");
    run(&["--out", "carried.png"]);
    run(&["--model", mini.to_str().unwrap(), "--out", "folder.png"]);
    let read = |name| std::fs::read(folder.path().join(name)).unwrap();
    assert!(read("carried.png") == read("folder.png"), "the same picture, with the same recipe");
}
