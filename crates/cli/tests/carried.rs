//! The program draws wherever it is: it carries mini.

use std::path::Path;
use std::process::Command;

use facestudio::image::codec::read_recipe;
use facestudio::request::RedrawFaces;
use facestudio_synth::{Identity, IdentitySplit, Scene, SceneOptions, render};

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

/// Two people of a picture are small: each face is drawn once more, and nothing else changes.
#[test]
fn small_faces_are_drawn_once_more() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (n, name) in [(3, "ann.png"), (8, "ben.png")] {
        let scene = Scene::photo_of(Identity::from_pool(IdentitySplit::HeldOut, n), n);
        render(&scene, 128).image.save(at(name)).unwrap();
    }
    // Of two people the faces are large already.
    let three =
        SceneOptions { people: [0.0, 0.0, 0.0, 1.0], non_human_fraction: 0.0, ..SceneOptions::default() };
    render(&Scene::random(5, 2, &three), 128).image.save(at("style.png")).unwrap();
    let (ann, ben, style) = (at("ann.png"), at("ben.png"), at("style.png"));
    let asked = [
        "generate",
        "--person",
        &ann,
        "--person",
        &ben,
        "--person",
        &ann,
        "--layout",
        "0,0,0.34,1",
        "--layout",
        "0.33,0,0.34,1",
        "--layout",
        "0.66,0,0.34,1",
        "--style",
        &style,
        "--steps",
        "8",
        "--no-watermark",
        "--out",
    ];
    let run = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_facestudio")).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let open = |name: &str| image::open(at(name)).unwrap().into_rgb8();
    run(&[&asked[..], &[&at("plain.png")]].concat());
    run(&[&asked[..], &[&at("large.png"), "--redraw-faces", "0.5", "--redraw-from", "1"]].concat());
    run(&[&asked[..], &[&at("redrawn.png"), "--redraw-faces", "0.5", "--redraw-from", "60"]].concat());
    // No face is below one pixel.
    assert!(open("large.png") == open("plain.png"));
    let (plain, redrawn) = (open("plain.png"), open("redrawn.png"));
    let changed: Vec<(u32, u32)> = plain
        .enumerate_pixels()
        .filter(|(x, y, pixel)| *pixel != redrawn.get_pixel(*x, *y))
        .map(|(x, y, _)| (x, y))
        .collect();
    let columns = changed.iter().map(|(x, _)| *x);
    let [first, last] = [columns.clone().min(), columns.max()];
    assert!(
        first < Some(64) && last >= Some(64),
        "{} changed, from column {first:?} to {last:?}",
        changed.len()
    );
    assert!(changed.len() < 128 * 128 / 2, "{}", changed.len());
    let recipe = read_recipe(&std::fs::read(at("redrawn.png")).unwrap()).unwrap();
    assert_eq!(recipe.redraw_faces, Some(RedrawFaces { strength: 0.5, from: Some(60.0) }));
    let made = at("redrawn.png");
    let again = at("again.png");
    run(&[
        "generate", "--recipe", &made, "--photo", &ann, "--photo", &ben, "--photo", &style, "--out", &again,
    ]);
    assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&made).unwrap());
}
