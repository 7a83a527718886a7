//! `facestudio faces`, with the model that ships.

use std::process::{Command, Output};

use facestudio_synth::{Identity, IdentitySplit, Scene, SceneOptions, render};

fn facestudio(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_facestudio")).args(arguments).output().unwrap()
}

#[test]
fn faces_are_found_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let options = SceneOptions {
        people: [0.0, 1.0, 0.0, 0.0],
        non_human_fraction: 0.0,
        frontal_fraction: 1.0,
        ..Default::default()
    };
    for (name, scene, who) in [("a.png", 1, 7), ("b.png", 2, 7), ("c.png", 3, 8)] {
        let mut scene = Scene::random(5, scene, &options);
        scene.people[0].identity = Identity::from_pool(IdentitySplit::HeldOut, who);
        render(&scene, 256).image.save(at(name)).unwrap();
    }
    image::RgbImage::new(64, 64).save(at("none.png")).unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/mini");
    let photos = ["a.png", "b.png", "c.png", "none.png"].map(at);
    let arguments = |more: &[&'static str]| -> Vec<String> {
        ["faces", "--model", model]
            .iter()
            .chain(more)
            .map(|a| (*a).to_owned())
            .chain(photos.clone())
            .collect()
    };
    let run = |more| facestudio(&arguments(more).iter().map(String::as_str).collect::<Vec<_>>());
    let report: serde_json::Value = serde_json::from_slice(&run(&["--json"]).stdout).unwrap();
    let faces = |i: usize| report["photos"][i]["faces"].as_array().unwrap().len();
    assert_eq!([0, 1, 2, 3].map(faces), [1, 1, 1, 0], "{report}");
    let alike = |i: usize, j: usize| report["similarity"][i][j].as_f64();
    assert!(alike(0, 0).unwrap() > 0.999 && alike(0, 1) > alike(0, 2), "{report}");
    assert_eq!(alike(0, 3), None);
    let said = String::from_utf8(run(&[]).stdout).unwrap();
    assert!(said.contains("a.png: 1 face, ") && said.contains("none.png: no face\n"), "{said}");
    assert!(said.contains("  1.00"), "{said}");

    let run = facestudio(&["faces", "--model", model, &at("missing.png")]);
    let said = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(5), "{said}");
    assert!(said.contains("missing.png"), "{said}");
}
