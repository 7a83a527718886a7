//! What a picture's file tells, and what it can be asked not to tell, on the command line.

#[path = "../../../tests/support/tiny_model.rs"]
mod tiny_model;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use facestudio::image::codec::read_png_texts;
use image::{GrayImage, Luma, Rgb, RgbImage};
use serde_json::{Value, json};

fn run(arguments: &[impl AsRef<OsStr>]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_facestudio")).arg("generate").args(arguments).output().unwrap()
}

fn generate(arguments: &[impl AsRef<OsStr>]) {
    let run = run(arguments);
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
        assert_eq!((&settings["seed"], settings.get("prompt")), (&3.into(), None));
        // The picture is the same: the words count all the same.
        assert_eq!(image::open(path).unwrap(), image::open(&told).unwrap());
    }

    // Made again, the words are told where they were told.
    let (again, other) = (at("again.png"), at("other.png"));
    generate(&["--model", &model, "--recipe", &told, "--out", &again]);
    assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&told).unwrap());
    generate(&[&["--model", &model, "--recipe", &silent, "--out", &other], &words[..4]].concat());
    assert_eq!(std::fs::read(&other).unwrap(), std::fs::read(&silent).unwrap());
}

/// A picture of everything that is made from other pictures, made again from its PNG and those.
#[test]
fn a_picture_is_made_again_from_its_file_and_its_photos() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    facestudio::weights::write_folder(Path::new(&at("model")), |new| {
        tiny_model::files().0.iter().try_for_each(|(path, bytes)| new.write(path, bytes))
    })
    .unwrap();
    // The model takes a bright spot for a face.
    let spot = |face: [u8; 3]| {
        let colour =
            move |x: u32, y: u32| if x.abs_diff(32).max(y.abs_diff(32)) < 9 { face } else { [10, 12, 20] };
        RgbImage::from_fn(64, 64, move |x, y| Rgb(colour(x, y)))
    };
    for (name, face) in
        [("ann", [255, 210, 180]), ("ben", [180, 255, 210]), ("style", [9, 90, 200]), ("start", [200, 90, 9])]
    {
        spot(face).save(at(&format!("{name}.png"))).unwrap();
    }
    for (name, left) in [("left", true), ("right", false)] {
        let mask = GrayImage::from_fn(64, 64, |x, _| Luma([if (x < 32) == left { 255 } else { 0 }]));
        mask.save(at(&format!("{name}.png"))).unwrap();
    }
    let names = ["ann", "ben", "style", "start", "left", "right"];
    let [ann, ben, style, start, left, right] = names.map(|name| at(&format!("{name}.png")));
    let (model, mixed) = (at("model"), format!("{ann}:0.7,{ben}:0.2"));
    let people = ["--person", &mixed, "--person", &ben, "--layout", &left, "--layout", &right];
    let pictures = ["--style", &style, "--init", &start, "--strength", "0.7", "--mask", &right];
    let numbers = ["--alpha", "0.3", "--steps", "2", "--guidance-scale", "2.5", "--sampler", "heun"];
    let words = ["--prompt", "a man", "--negative-prompt", "fog", "--no-watermark"];
    let place = ["--model", &model, "--size", "64x64", "--seed", "7", "--count", "2", "--out"];
    generate(&[&people[..], &pictures, &numbers, &words, &place, &[at("out.png").as_str()]].concat());

    // In another order, under other names, one of them in another format.
    let moved = at("moved.bmp");
    image::open(&ann).unwrap().save(&moved).unwrap();
    let photos = [&right, &start, &moved, &style, &left, &ben].map(|path| ["--photo", path]).concat();
    for (picture, seed) in [("out-000.png", 7), ("out-001.png", 8)] {
        let (made, again) = (at(picture), at("again.png"));
        generate(&[&["--model", &model, "--recipe", &made, "--out", &again], &photos[..]].concat());
        assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&made).unwrap());
        assert_eq!(settings(Path::new(&again)).0["seed"], seed);
    }
    let told = settings(Path::new(&at("out-000.png"))).0.to_string();
    assert!(names.iter().all(|name| !told.contains(&format!("{name}.png"))), "{told}");

    let made = at("out-000.png");
    let fails = |more: &[&str], code: &str, named: &str| {
        let out = at("never.png");
        let arguments = [&["--model", &model, "--recipe", &made, "--out", &out], more].concat();
        let run = run(&arguments);
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.code() == Some(2) && said.contains(code) && said.contains(named), "{said}");
        assert!(!Path::new(&out).exists());
    };
    // The only file that says how it was made is never lost.
    let own = run(&[&["--model", &model, "--recipe", &made, "--out", &made], &photos[..]].concat());
    let said = String::from_utf8_lossy(&own.stderr);
    assert!(own.status.code() == Some(2) && said.contains("[output-name]"), "{said}");
    assert_eq!(settings(Path::new(&made)).0["seed"], 7);
    fails(&photos[2..], "[recipe-picture]", "mask 2");
    fails(&[&photos[..], &["--prompt", "a man"]].concat(), "[recipe-words]", "out-000.png");
    fails(&[&photos[..], &["--seed", "3"]].concat(), "cannot be used with", "--seed");
    // Another model; a manifest is no longer what its files are.
    std::fs::remove_file(Path::new(&model).join("manifest.json")).unwrap();
    let config = Path::new(&model).join("unet/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text + "\n").unwrap();
    fails(&photos, "[recipe-model]", "tiny 1");
}

/// Who is put into a photo is told by flags, and the file says that a face was replaced, whatever is asked.
#[test]
fn people_are_put_into_a_photo_which_says_so_and_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    facestudio::weights::write_folder(Path::new(&at("model")), |new| {
        tiny_model::files().0.iter().try_for_each(|(path, bytes)| new.write(path, bytes))
    })
    .unwrap();
    let spots = |width: u32, centres: &[u32], face: [u8; 3]| {
        let near = |x: u32, y: u32| centres.iter().any(|at| x.abs_diff(*at).max(y.abs_diff(32)) < 9);
        RgbImage::from_fn(width, 64, |x, y| Rgb(if near(x, y) { face } else { [10, 12, 20] }))
    };
    spots(64, &[32], [255, 210, 180]).save(at("ann.png")).unwrap();
    spots(64, &[32], [180, 255, 210]).save(at("ben.png")).unwrap();
    let photo = spots(160, &[30, 120], [220, 220, 220]);
    photo.save(at("photo.png")).unwrap();
    let mask = GrayImage::from_fn(160, 64, |x, _| Luma([if (100..140).contains(&x) { 255 } else { 0 }]));
    mask.save(at("mask.png")).unwrap();
    let [model, ann, ben, group, mask_file, out, again] =
        ["model", "ann.png", "ben.png", "photo.png", "mask.png", "out.png", "again.png"].map(at);
    let base = ["--model", &model, "--into", &group, "--steps", "2", "--out", &out];
    let with = |more: &[&str]| -> Vec<String> {
        [&base[..], more].concat().iter().map(|word| (*word).to_owned()).collect()
    };
    let (first, second) = (format!("1={ann}"), format!("0.65,0.3,0.2,0.4={ben}+{ann}"));

    // By number and by box, a person each.
    generate(&with(&["--replace", &first, "--replace", &second, "--prompt", "a man", "--seed", "4"]));
    let made = image::open(&out).unwrap().into_rgb8();
    assert_eq!(made.dimensions(), photo.dimensions());
    assert!(made != photo);
    let (told, _) = settings(Path::new(&out));
    assert_eq!(told["people"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&told["into"]["faces"][0]["person"], &told["into"]["faces"][1]["person"]),
        (&0.into(), &1.into())
    );
    let texts = read_png_texts(&std::fs::read(&out).unwrap()).unwrap();
    let says = |word: &str| texts.iter().any(|(_, text)| text.contains(word));
    assert!(says("compositeWithTrainedAlgorithmicMedia") && says("A face in this picture was replaced"));
    let photos = [&ann, &ben, &group].map(|path| ["--photo", path]).concat();
    generate(&[&["--model", &model, "--recipe", &out, "--out", &again], &photos[..]].concat());
    assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&out).unwrap());

    // With a mask, which is kept to the pixel, and with nothing said of what is seen.
    let box_of_ben = format!("0.65,0.3,0.2,0.4={ben}");
    generate(&with(&["--replace", &box_of_ben, "--mask", &mask_file, "--strength", "1"]));
    let made = image::open(&out).unwrap().into_rgb8();
    let changed: Vec<u32> = made
        .enumerate_pixels()
        .filter(|(x, y, p)| *p != photo.get_pixel(*x, *y))
        .map(|(x, _, _)| x)
        .collect();
    assert!(!changed.is_empty() && changed.iter().all(|x| (100..140).contains(x)));

    let fails = |more: &[&str], said: &str| {
        let run = run(&with(more));
        let error = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.code() == Some(2) && error.contains(said), "{error}");
    };
    fails(&["--replace", &first, "--no-watermark"], "[into-unmarked]");
    fails(&["--replace", &format!("3={ann}")], "[face-index]");
    fails(&["--replace", &format!("0={ann}")], "[replace-format]");
    fails(&["--replace", &ann], "[replace-format]");
    fails(&["--replace", &first, "--replace", &first], "[into-faces]");
    fails(&["--replace", &first, "--mask", &mask_file, "--mask", &mask_file], "[mask-count]");
    fails(&["--replace", &first, "--init", &ben], "cannot be used with");
    fails(&["--replace", &first, "--face", &ben], "cannot be used with");
    fails(&[], "--replace");
    let dark = at("dark.png");
    RgbImage::from_pixel(64, 64, Rgb([9, 9, 9])).save(&dark).unwrap();
    let none = run(&["--model", &model, "--into", &dark, "--replace", &first, "--out", &out]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("[face-not-found]"));
}

/// Real-ESRGAN's file becomes a folder, with which a generated picture is made larger and says both how it was drawn and how enlarged.
#[test]
fn a_picture_is_made_larger_and_still_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity/upscaler/compact_x4/network.pth");
    let program =
        |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_facestudio")).args(arguments).output().unwrap();
    let [model, drawn, larger] = ["upscaler", "drawn.png", "larger.png"].map(at);
    let converted = program(&["convert", fixture.to_str().unwrap(), "--out", &model, "--dtype", "f32"]);
    assert!(converted.status.success(), "{}", String::from_utf8_lossy(&converted.stderr));
    generate(&["--prompt", "an astronaut", "--steps", "1", "--out", &drawn]);
    let enlarged = program(&["enlarge", &drawn, "--model", &model, "--out", &larger]);
    assert!(enlarged.status.success(), "{}", String::from_utf8_lossy(&enlarged.stderr));
    assert_eq!(image::open(&larger).unwrap().into_rgb8().dimensions(), (512, 512));
    assert_eq!(settings(Path::new(&larger)).0, settings(Path::new(&drawn)).0);
    let texts = read_png_texts(&std::fs::read(&larger).unwrap()).unwrap();
    let (_, how) = texts.iter().find(|(keyword, _)| keyword == "facestudio-enlarged").unwrap();
    let how: Value = serde_json::from_str(how).unwrap();
    assert_eq!(how["factor"], 4);
    let none = program(&["enlarge", &drawn, "--model", &at("nowhere"), "--out", &larger]);
    assert!(!none.status.success());
}
