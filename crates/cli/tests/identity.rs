//! Likeness that is chosen: how strongly and when each person acts, and the picture of several that is most like them.

#[path = "../../../tests/support/tiny_model.rs"]
mod tiny_model;

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Output};

use burn::tensor::Device;
use facestudio::pipeline::{FaceStudio, Generated};
use facestudio::request::{GenerateRequest, InitImage, Layout, Person, RelativeBox};
use facestudio::weights::MemoryFiles;
use facestudio::{Result, image::codec};
use image::{Rgb, RgbImage};

const ANN: [u8; 3] = [255, 210, 180];
const BEN: [u8; 3] = [150, 190, 160];

/// A bright square on a dark ground, which the tiny model takes for a face.
fn photo(colour: [u8; 3]) -> RgbImage {
    RgbImage::from_fn(64, 64, |x, y| {
        let face = x.abs_diff(32).max(y.abs_diff(32)) < 9;
        Rgb(if face { colour } else { [10, 12, 20] })
    })
}

fn open(files: &MemoryFiles) -> FaceStudio {
    FaceStudio::load(files, &Device::flex()).unwrap()
}

fn generate(studio: &FaceStudio, request: &GenerateRequest) -> Result<Vec<Generated>> {
    pollster::block_on(studio.generate(request, async |_| ControlFlow::Continue(())))
}

#[track_caller]
fn drawn(studio: &FaceStudio, request: &GenerateRequest) -> RgbImage {
    generate(studio, request).unwrap().remove(0).image
}

fn acting(colour: [u8; 3], strength: f32, start: f32, end: f32) -> Person {
    Person { strength, start, end, ..Person::new(vec![photo(colour)]) }
}

fn of(people: Vec<Person>) -> GenerateRequest {
    let layout = match people.len() {
        2 => Layout::Boxes([0.0, 0.5].map(|x| RelativeBox { x, y: 0.0, width: 0.5, height: 1.0 }).into()),
        _ => Layout::Whole,
    };
    let prompt = "a man".to_owned();
    GenerateRequest {
        people,
        prompt,
        layout,
        steps: 4,
        guidance_scale: 2.0,
        watermark: false,
        ..Default::default()
    }
}

/// Models that know identities each in their own way: tokens of style and face, and adapters beside a text.
fn models() -> [FaceStudio; 2] {
    [tiny_model::files(), tiny_model::files_with_adapters(true)].map(|files| open(&files))
}

#[test]
fn strength_and_steps_of_a_person_are_obeyed() {
    for studio in models() {
        let ann = |strength, start, end| drawn(&studio, &of(vec![acting(ANN, strength, start, end)]));
        let (whole, nobody) = (ann(1.0, 0.0, 1.0), drawn(&studio, &of(Vec::new())));
        assert_eq!(whole, drawn(&studio, &of(vec![Person::new(vec![photo(ANN)])])));
        assert_ne!(whole, nobody);
        assert_eq!(ann(0.0, 0.0, 1.0), nobody, "at strength 0 nobody is there");
        let kinds = [
            ann(0.5, 0.0, 1.0),
            ann(1.5, 0.0, 1.0),
            ann(1.0, 0.5, 1.0),
            ann(1.0, 0.0, 0.5),
            ann(1.0, 0.25, 0.75),
        ];
        for (i, kind) in kinds.iter().enumerate() {
            assert!(*kind != whole && *kind != nobody, "{i}");
            assert!(kinds[..i].iter().all(|other| other != kind), "{i}");
        }
        // Of four steps none begins in the last tenth.
        assert_eq!(ann(1.0, 0.9, 1.0), nobody);
    }
}

#[test]
fn each_person_has_their_own() {
    for studio in models() {
        let two = |ann: [f32; 3], ben: [f32; 3]| {
            let people = [(ANN, ann), (BEN, ben)].map(|(colour, [s, a, b])| acting(colour, s, a, b));
            drawn(&studio, &of(people.into()))
        };
        const WHOLE: [f32; 3] = [1.0, 0.0, 1.0];
        let pictures = [
            two(WHOLE, WHOLE),
            two([0.5, 0.0, 1.0], WHOLE),
            two(WHOLE, [0.5, 0.0, 1.0]),
            two([0.5, 0.0, 1.0], [0.5, 0.0, 1.0]),
            two([1.0, 0.5, 1.0], WHOLE),
            two(WHOLE, [1.0, 0.0, 0.5]),
            two([1.0, 0.5, 1.0], [1.0, 0.0, 0.5]),
        ];
        for (i, picture) in pictures.iter().enumerate() {
            assert!(pictures[..i].iter().all(|other| other != picture), "{i}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_what_a_family_cannot_do_too() {
    let studio = open(&tiny_model::files());
    let code = |studio: &FaceStudio, person: Person| generate(studio, &of(vec![person])).unwrap_err().code;
    for strength in [-0.1, 2.1, f32::NAN] {
        assert_eq!(code(&studio, acting(ANN, strength, 0.0, 1.0)), "identity-strength-range");
    }
    for (start, end) in [(-0.1, 1.0), (0.0, 1.1), (0.5, 0.5), (0.6, 0.5), (f32::NAN, 1.0), (0.0, f32::NAN)] {
        assert_eq!(code(&studio, acting(ANN, 1.0, start, end)), "identity-steps-range", "{start} {end}");
    }
    let faces = open(&tiny_model::files_of_arc2face());
    let alone = |person| GenerateRequest { prompt: String::new(), ..of(vec![person]) };
    let error = generate(&faces, &alone(acting(ANN, 0.5, 0.0, 1.0))).unwrap_err();
    assert_eq!(error.code, "identity-strength-unsupported");
    let late = drawn(&faces, &alone(acting(ANN, 1.0, 0.5, 1.0)));
    assert_ne!(late, drawn(&faces, &alone(acting(ANN, 1.0, 0.0, 1.0))));
}

/// Started from a photo, so that there is a face to be found.
fn candidates(candidates: usize, people: Vec<Person>) -> GenerateRequest {
    let init = Some(InitImage { image: photo(BEN), strength: 0.5, mask: None });
    GenerateRequest { candidates, init, seed: 7, ..of(people) }
}

#[test]
fn of_several_candidates_the_one_most_like_the_person_comes_first() {
    let studio = open(&tiny_model::files());
    let ann = Person::new(vec![photo(ANN)]);
    let made = generate(&studio, &candidates(4, vec![ann.clone()])).unwrap();
    assert_eq!(made.len(), 4);
    let likeness: Vec<f32> = made.iter().map(|one| one.likeness.unwrap_or(f32::NEG_INFINITY)).collect();
    assert!(likeness.is_sorted_by(|a, b| a >= b) && likeness[0].is_finite(), "{likeness:?}");
    let mut seeds: Vec<u64> = made.iter().map(|one| one.recipe.seed).collect();
    assert!(!seeds.is_sorted() || likeness[0] > likeness[3], "{likeness:?}");
    let several = GenerateRequest { count: 4, ..candidates(1, vec![ann.clone()]) };
    for one in generate(&studio, &several).unwrap() {
        assert_eq!(one.likeness, None);
        let same = made.iter().find(|other| other.recipe == one.recipe).unwrap();
        assert_eq!(same.image, one.image);
        let measured = pollster::block_on(studio.similarity(&one.image, &ann));
        assert_eq!(same.likeness, measured.ok());
    }
    seeds.sort_unstable();
    assert_eq!(seeds, [7, 8, 9, 10]);
    // Of two people the one who is met least counts.
    let both = [ANN, BEN].map(|colour| Person::new(vec![photo(colour)]));
    for one in generate(&studio, &candidates(2, both.to_vec())).unwrap() {
        let each =
            both.each_ref().map(|person| pollster::block_on(studio.similarity(&one.image, person)).ok());
        let [Some(a), Some(b)] = each else {
            assert_eq!(one.likeness, None);
            continue;
        };
        assert_eq!(one.likeness, Some(a.min(b)));
    }
    for wrong in [
        candidates(0, vec![ann.clone()]),
        candidates(65, vec![ann.clone()]),
        candidates(2, Vec::new()),
        GenerateRequest { count: 2, ..candidates(2, vec![ann]) },
    ] {
        assert_eq!(generate(&studio, &wrong).unwrap_err().code, "candidates-range");
    }
}

#[test]
fn the_command_line_sets_them_per_person_and_tells_the_likeness() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    facestudio::weights::write_folder(Path::new(&at("model")), |new| {
        tiny_model::files().0.iter().try_for_each(|(path, bytes)| new.write(path, bytes))
    })
    .unwrap();
    for (name, colour) in [("ann.png", ANN), ("ben.png", BEN)] {
        photo(colour).save(at(name)).unwrap();
    }
    let run = |out: &str, more: &str| -> Output {
        let settings = if more.starts_with("--recipe") { "" } else { " --prompt man --steps 2" };
        let arguments = format!("generate --model @model --out @{out} {more}{settings}");
        let arguments = arguments.split(' ').map(|argument| argument.replace('@', &at("")));
        Command::new(env!("CARGO_BIN_EXE_facestudio")).args(arguments).output().unwrap()
    };
    let picture = |out: &str, more: &str| -> RgbImage {
        let run = run(out, more);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        codec::decode(&std::fs::read(at(out)).unwrap()).unwrap()
    };
    let two = "--person @ann.png --person @ben.png --layout 0,0,0.5,1 --layout 0.5,0,0.5,1";
    let whole = picture("1.png", two);
    let weak = picture("2.png", &format!("{two} --identity-strength 0.5 --identity-strength 1"));
    let late = picture("3.png", &format!("{two} --identity-start 0.5"));
    let early = picture("4.png", &format!("{two} --identity-end 0.5"));
    assert!(whole != weak && whole != late && whole != early && late != early);
    let again = picture("5.png", "--recipe @2.png --photo @ann.png --photo @ben.png");
    assert_eq!(again, weak);
    for wrong in ["--identity-strength 1 --identity-strength 1", "--identity-end 0.5 --identity-end 1"] {
        let run = run("6.png", &format!("--face @ann.png {wrong}"));
        assert!(String::from_utf8_lossy(&run.stderr).contains("identity-values"));
    }
    let run = run("7.png", "--face @ann.png --init @ben.png --strength 0.5 --candidates 3");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let told = String::from_utf8(run.stdout).unwrap();
    let likeness: Vec<f32> =
        told.lines().map(|line| line.rsplit_once("  ").unwrap().1.parse().unwrap_or(-2.0)).collect();
    assert!(likeness.len() == 3 && likeness.is_sorted_by(|a, b| a >= b) && likeness[0] > -2.0, "{told}");
    assert!(["7-000.png", "7-001.png", "7-002.png"].iter().all(|name| Path::new(&at(name)).is_file()));
}
