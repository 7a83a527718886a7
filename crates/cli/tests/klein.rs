//! FLUX.2 klein from a model folder to a picture: photos and styles as reference pictures, on a tiny one with random weights.

#[path = "../../../tests/support/tiny_model.rs"]
mod tiny_model;

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Output};

use burn::tensor::Device;
use facestudio::image::codec::{read_png_texts, read_recipe};
use facestudio::pipeline::{FaceStudio, Generated, Progress};
use facestudio::request::{
    Background, GenerateRequest, Identity, InitImage, Layout, Person, Photo, RelativeBox, Roles,
};
use facestudio::sampling::Sampler;
use facestudio::weights::MemoryFiles;
use facestudio::{Error, Result};
use image::{GrayImage, Luma, Rgb, RgbImage};
use serde_json::{Value, json};

const ANN: [u8; 3] = [255, 210, 180];
const BEN: [u8; 3] = [150, 190, 160];

/// A bright spot on a dark ground: what the tiny model takes for a face.
fn photo(colour: [u8; 3]) -> RgbImage {
    let inside = |x: u32, y: u32| x.abs_diff(32).max(y.abs_diff(32)) < 9;
    RgbImage::from_fn(64, 64, |x, y| Rgb(if inside(x, y) { colour } else { [10, 12, 20] }))
}

fn style(shade: u8) -> RgbImage {
    RgbImage::from_fn(72, 64, |x, y| Rgb([(x * 3) as u8, (y * 2) as u8, shade]))
}

fn person(colour: [u8; 3], beta: f32) -> Person {
    Person::of(vec![Identity::new(vec![photo(colour)], beta)])
}

/// Two steps of 32×40 pixels.
fn request(people: Vec<Person>) -> GenerateRequest {
    GenerateRequest {
        people,
        prompt: "a man".to_owned(),
        width: Some(32),
        height: Some(40),
        steps: 2,
        guidance_scale: 1.0,
        sampler: Sampler::FlowMatchEuler,
        watermark: false,
        ..GenerateRequest::default()
    }
}

/// A model, and the components that were asked for.
struct Klein {
    files: MemoryFiles,
    studio: FaceStudio,
    brought: RefCell<Vec<String>>,
}

impl Klein {
    fn open(files: MemoryFiles) -> Result<Self> {
        let studio = FaceStudio::load(&files, &Device::flex())?;
        Ok(Self { files, studio, brought: RefCell::default() })
    }

    fn new(distilled: bool) -> Self {
        Self::open(tiny_model::files_of_klein(distilled)).unwrap()
    }

    fn generate(&self, request: &GenerateRequest) -> Result<Vec<Generated>> {
        let bring = async |component: &str| {
            self.brought.borrow_mut().push(component.to_owned());
            self.studio.load_component(component, &self.files)
        };
        let watch = async |_: Progress| ControlFlow::Continue(());
        pollster::block_on(self.studio.generate_with(request, watch, bring))
    }

    #[track_caller]
    fn picture(&self, request: &GenerateRequest) -> RgbImage {
        self.generate(request).unwrap().swap_remove(0).image
    }

    #[track_caller]
    fn refused(&self, request: &GenerateRequest) -> Error {
        self.generate(request).unwrap_err()
    }
}

fn worst(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

// ---- the program -------------------------------------------------------------------------------------------------------

fn facestudio(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_facestudio")).args(arguments).output().unwrap()
}

#[test]
fn the_program_draws_with_a_klein_and_draws_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    facestudio::weights::write_folder(Path::new(&at("model")), |new| {
        tiny_model::files_of_klein(true).0.iter().try_for_each(|(path, bytes)| new.write(path, bytes))
    })
    .unwrap();
    photo(ANN).save(at("ann.png")).unwrap();
    style(9).save(at("style.png")).unwrap();
    let (model, ann, look) = (at("model"), at("ann.png"), at("style.png"));
    let base = ["generate", "--model", model.as_str()];
    let make = |more: &[&str], out: &str| {
        let run = facestudio(&[&base[..], more, &["--out", at(out).as_str()]].concat());
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        std::fs::read(at(out)).unwrap()
    };
    let asked = ["--face", &ann, "--style", &look, "--prompt", "a man", "--size", "32x40", "--seed", "5"];
    let first = make(&[&asked[..], &["--role", "style=As {images}."]].concat(), "first.png");
    let texts = read_png_texts(&first).unwrap();
    let (_, settings) = texts.iter().find(|(keyword, _)| keyword == "facestudio").unwrap();
    let settings: Value = serde_json::from_str(settings).unwrap();
    assert_eq!(
        json!([
            settings["steps"],
            settings["guidance_scale"],
            settings["sampler"],
            settings["roles"]["style"]
        ]),
        json!([4, 1.0, "flow_match_euler", "As {images}."]),
        "as distilled models are made for"
    );
    assert_eq!(settings["roles"]["person"], Roles::default().person);
    let again = make(&["--recipe", &at("first.png"), "--photo", &look, "--photo", &ann], "again.png");
    assert!(first == again, "a recipe and its pictures make the same file");
    assert!(read_recipe(&first).unwrap() != read_recipe(&make(&asked, "other.png")).unwrap());

    let unknown = facestudio(&[&base[..], &asked, &["--role", "hat={images}"]].concat());
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("[role-name]"));
}

// ---- what reaches the picture ----------------------------------------------------------------------------------------------

#[test]
fn everything_that_is_asked_for_reaches_the_picture() {
    let klein = Klein::new(true);
    let whole = || GenerateRequest { style: Some(style(9)), ..request(vec![person(ANN, 1.0)]) };
    let base = klein.picture(&whole());
    assert_eq!(base.dimensions(), (32, 40));
    assert_eq!(worst(&base, &klein.picture(&whole())), 0);
    let roles = Roles { person: "As {images}.".to_owned(), ..Roles::default() };
    let init = |shade, strength, mask| Some(InitImage { image: style(shade), strength, mask });
    let changes: [(&str, GenerateRequest); 11] = [
        ("seed", GenerateRequest { seed: 1, ..whole() }),
        ("steps", GenerateRequest { steps: 3, ..whole() }),
        ("prompt", GenerateRequest { prompt: "a woman".to_owned(), ..whole() }),
        ("person", GenerateRequest { people: vec![person(BEN, 1.0)], ..whole() }),
        ("beta", GenerateRequest { people: vec![person(ANN, 0.3)], ..whole() }),
        ("style", GenerateRequest { style: Some(style(200)), ..whole() }),
        ("alpha", GenerateRequest { alpha: 0.2, ..whole() }),
        ("alpha 1", GenerateRequest { alpha: 1.0, ..whole() }),
        ("roles", GenerateRequest { roles: Some(roles), ..whole() }),
        ("init", GenerateRequest { init: init(90, 0.5, None), ..whole() }),
        ("strength 1", GenerateRequest { init: init(90, 1.0, None), ..whole() }),
    ];
    let pictures: Vec<_> = changes.iter().map(|(name, request)| (name, klein.picture(request))).collect();
    for (i, (name, picture)) in pictures.iter().enumerate() {
        assert!(worst(&base, picture) > 0, "{name}");
        assert!(pictures[..i].iter().all(|(_, other)| worst(other, picture) > 0), "{name}");
    }

    // The latents outside of a mask are those of the picture that is started from, which the autoencoder gives back.
    let mask = GrayImage::from_fn(72, 64, |x, _| Luma([if x < 36 { 255 } else { 0 }]));
    let nothing = GrayImage::new(72, 64);
    let started = |mask| klein.picture(&GenerateRequest { init: init(90, 0.8, Some(mask)), ..whole() });
    let (half, kept) = (started(mask), started(nothing));
    let column = |x: u32| (0..40).map(|y| worst_pixel(&half, &kept, x, y)).max().unwrap();
    assert!(column(2) > 0, "what may change does");
    let other = GenerateRequest { init: init(90, 0.8, Some(GrayImage::new(72, 64))), seed: 8, ..whole() };
    assert_eq!(worst(&kept, &klein.picture(&other)), 0, "nothing may change, whatever the seed");
}

fn worst_pixel(a: &RgbImage, b: &RgbImage, x: u32, y: u32) -> u8 {
    let pair = a.get_pixel(x, y).0.into_iter().zip(b.get_pixel(x, y).0);
    pair.map(|(a, b)| a.abs_diff(b)).max().unwrap()
}

#[test]
fn people_keep_to_their_regions_in_any_order_and_backgrounds_are_held() {
    let klein = Klein::new(true);
    let side = |x| RelativeBox { x, y: 0.0, width: 0.4, height: 1.0 };
    let two = |colours: [[u8; 3]; 2], xs: [f32; 2], background| GenerateRequest {
        layout: Layout::Boxes(xs.map(side).to_vec()),
        background,
        ..request(colours.map(|colour| person(colour, 1.0)).to_vec())
    };
    let first = klein.picture(&two([ANN, BEN], [0.0, 0.6], Background::Person(0)));
    let permuted = two([BEN, ANN], [0.6, 0.0], Background::Person(1));
    assert_eq!(worst(&first, &klein.picture(&permuted)), 0);
    assert!(worst(&first, &klein.picture(&two([BEN, ANN], [0.0, 0.6], Background::Person(0)))) > 0);
    assert!(worst(&first, &klein.picture(&two([ANN, BEN], [0.0, 0.6], Background::Person(1)))) > 0);

    let init = Some(InitImage { image: style(90), strength: 0.8, mask: None });
    let held = GenerateRequest { init, ..two([ANN, BEN], [0.0, 0.6], Background::Hold) };
    assert!(worst(&first, &klein.picture(&held)) > 0);

    // Whoever is nowhere is as if nobody: another in their place changes nothing.
    let black = GrayImage::new(32, 40);
    let white = GrayImage::from_pixel(32, 40, Luma([255]));
    let masked = |colour| GenerateRequest {
        layout: Layout::Masks(vec![white.clone(), black.clone()]),
        ..request(vec![person(ANN, 1.0), person(colour, 1.0)])
    };
    assert_eq!(worst(&klein.picture(&masked(BEN)), &klein.picture(&masked([90, 255, 90]))), 0);
}

#[test]
fn a_model_with_guidance_is_guided_away_from_the_negative_prompt() {
    let klein = Klein::new(false);
    assert_eq!((klein.studio.defaults().steps, klein.studio.defaults().guidance_scale), (50, 4.0));
    let guided = |negative: &str| GenerateRequest {
        guidance_scale: 3.0,
        negative_prompt: negative.to_owned(),
        ..request(vec![person(ANN, 1.0)])
    };
    let base = klein.picture(&guided(""));
    assert!(worst(&base, &klein.picture(&guided("fog"))) > 0);
    assert!(worst(&base, &klein.picture(&request(vec![person(ANN, 1.0)]))) > 0);
}

// ---- what comes and goes ---------------------------------------------------------------------------------------------------

#[test]
fn text_encoder_and_transformer_take_turns() {
    let klein = Klein::new(true);
    assert!(klein.studio.takes_turns() && klein.studio.sees_references());
    let alone =
        pollster::block_on(klein.studio.generate(&request(vec![]), async |_| ControlFlow::Continue(())));
    let error = alone.unwrap_err();
    assert!(error.code == "encoders-released" && error.message.contains("'text_encoder'"), "{error}");

    let brought = |request: &GenerateRequest| {
        klein.generate(request).unwrap();
        assert!(!klein.studio.has_encoders(), "the text encoder is gone");
        klein.brought.take()
    };
    let both = ["text_encoder", "transformer"];
    let base = || GenerateRequest { style: Some(style(9)), ..request(vec![person(ANN, 1.0)]) };
    assert_eq!(brought(&base()), both);
    assert_eq!(brought(&GenerateRequest { seed: 4, ..base() }), [""; 0]);
    // The same words of other pictures are read already.
    assert_eq!(brought(&GenerateRequest { people: vec![person(BEN, 1.0)], ..base() }), [""; 0]);
    assert_eq!(brought(&GenerateRequest { prompt: "a woman".to_owned(), ..base() }), both);
    assert_eq!(brought(&base()), [""; 0]);
    klein.studio.forget_encoded();
    assert_eq!(brought(&base()), both);
}

// ---- what is refused -------------------------------------------------------------------------------------------------------

#[test]
fn what_has_no_meaning_for_references_is_refused() {
    let klein = Klein::new(true);
    let refused = |request: GenerateRequest, code: &str, part: &str| {
        let error = klein.refused(&request);
        assert!(error.code == code && error.message.contains(part), "{error}");
        assert!(!error.remedy.is_empty(), "{error}");
    };
    let of = |person: Person| request(vec![person]);
    let ann = || of(person(ANN, 1.0));
    let mixed = Person::of(vec![Identity::new(vec![photo(ANN)], 0.5), Identity::new(vec![photo(BEN)], 0.5)]);
    refused(of(mixed), "mix-unsupported", "person 1");
    let photos = Person::new(vec![photo(ANN); 5]);
    refused(of(photos), "references-count", "5 pictures");
    refused(
        GenerateRequest {
            style: Some(style(1)),
            init: Some(InitImage { image: style(2), strength: 0.5, mask: None }),
            ..of(Person::new(vec![photo(ANN); 3]))
        },
        "references-count",
        "takes 4",
    );
    refused(GenerateRequest { guidance_scale: 3.0, ..ann() }, "guidance-distilled", "scale 3");
    refused(GenerateRequest { negative_prompt: "fog".to_owned(), ..ann() }, "guidance-distilled", "negative");
    refused(GenerateRequest { prompt: String::new(), ..ann() }, "nothing-to-draw", "style image");
    let weighed = GenerateRequest { prompt: "a (woman:1.2)".to_owned(), ..ann() };
    refused(weighed, "weights-unsupported", "language");
    refused(GenerateRequest { clip_skip: 2, ..ann() }, "clip-skip-unsupported", "clip skip is 2");
    refused(GenerateRequest { sampler: Sampler::Euler, ..ann() }, "config-unsupported", "sampler");
    refused(GenerateRequest { width: Some(36), ..ann() }, "size-multiple", "multiples of 8");
    // Sentences of one's own are words too; those that every picture has are no secret.
    let own = Roles { person: "As {images}.".to_owned(), ..Roles::default() };
    let wordless = |roles| GenerateRequest { roles: Some(roles), prompt_in_metadata: false, ..ann() };
    refused(wordless(own), "roles-in-metadata", "without words");
    klein.picture(&wordless(Roles::default()));
    let line = Some(RgbImage::new(90, 10));
    refused(GenerateRequest { style: line, ..ann() }, "reference-aspect", "90×10");
    let nobody = Photo::from(RgbImage::from_pixel(64, 64, Rgb([10, 12, 20])));
    let nobody = Person::of(vec![Identity { photos: vec![nobody], beta: 1.0 }]);
    refused(of(nobody), "face-not-found", "photo 1 of person 1");

    // A model that sees no pictures is told of none.
    let mini = FaceStudio::load(&tiny_model::files(), &Device::flex()).unwrap();
    let (prompt, roles) = ("a".to_owned(), Some(Roles::default()));
    let told = GenerateRequest { prompt, roles, ..GenerateRequest::default() };
    let made = pollster::block_on(mini.generate(&told, async |_| ControlFlow::Continue(())));
    assert_eq!(made.unwrap_err().code, "roles-unsupported");
}

#[test]
fn without_a_detector_photos_say_where_their_faces_are() {
    let mut files = tiny_model::files_of_klein(true);
    files.0.retain(|path, _| !path.starts_with("detector/") && path != "manifest.json");
    let with = Klein::new(true);
    let without = Klein::open(files).unwrap();
    let error = without.refused(&request(vec![person(ANN, 1.0)]));
    assert!(error.code == "component-missing" && error.message.contains("'detector'"), "{error}");
    let face = pollster::block_on(with.studio.faces(&photo(ANN))).unwrap().swap_remove(0);
    let photos = vec![Photo { image: photo(ANN), landmarks: Some(face.landmarks) }];
    let told = request(vec![Person::of(vec![Identity { photos, beta: 1.0 }])]);
    assert_eq!(worst(&with.picture(&request(vec![person(ANN, 1.0)])), &without.picture(&told)), 0);
}

#[test]
fn folders_that_make_no_klein_are_refused_by_name() {
    let with = |path: &str, change: &dyn Fn(&mut Value)| {
        let mut files = tiny_model::files_of_klein(true);
        let mut json: Value = serde_json::from_slice(&files.0[path]).unwrap();
        change(&mut json);
        files.0.insert(path.to_owned(), json.to_string().into_bytes());
        files.0.remove("manifest.json");
        files
    };
    let without = |path: &str| {
        let mut files = tiny_model::files_of_klein(true);
        files.0.retain(|other, _| !other.starts_with(path) && other != "manifest.json");
        files
    };
    let transformer = "transformer/config.json";
    let text = "text_encoder/config.json";
    for (files, code, part) in [
        (with(transformer, &|c| c["in_channels"] = json!(16)), "model-mismatch", "vae"),
        (with(transformer, &|c| c["out_channels"] = json!(4)), "model-mismatch", "output"),
        (with(transformer, &|c| c["joint_attention_dim"] = json!(40)), "model-mismatch", "text encoder"),
        (with(transformer, &|c| c["guidance_embeds"] = json!(true)), "config-unsupported", "guidance_embeds"),
        (with(transformer, &|c| c["num_layers"] = json!(1e18)), "config", "transformer"),
        (
            with(transformer, &|c| c["num_attention_heads"] = json!(5000)),
            "config-range",
            "num_attention_heads",
        ),
        (
            with(transformer, &|c| c["_class_name"] = json!("FluxTransformer2DModel")),
            "config-unsupported",
            "Flux",
        ),
        (with(text, &|c| c["num_hidden_layers"] = json!(100_000)), "config-range", "num_hidden_layers"),
        (with(text, &|c| c["model_type"] = json!("llama")), "config-unsupported", "llama"),
        (
            with("model_index.json", &|c| c["_class_name"] = json!("Flux2KleinKVPipeline")),
            "config-unsupported",
            "KV",
        ),
        (with("model_index.json", &|c| c["is_distilled"] = json!("yes")), "config", "model_index.json"),
        (without("model_index.json"), "file-missing", "model_index.json"),
        (without("text_encoder/"), "component-missing", "text_encoder"),
        (without("scheduler/"), "component-missing", "scheduler"),
        (
            with("scheduler/scheduler_config.json", &|c| c["_class_name"] = json!("DDIMScheduler")),
            "config-unsupported",
            "DDIMScheduler",
        ),
    ] {
        let error = Klein::open(files).map(|_| ()).unwrap_err();
        assert!(error.code == code && error.to_string().contains(part), "{code}, {part}: {error:?}");
    }

    // Of weights that fit no config is told when they are read.
    let fewer = with(transformer, &|c| c["num_layers"] = json!(3));
    let error = Klein::open(fewer).unwrap().refused(&request(vec![]));
    assert!(error.code == "weights-mismatch" && error.to_string().contains("transformer"), "{error:?}");
    let deeper = with(text, &|c| c["num_hidden_layers"] = json!(8));
    let error = Klein::open(deeper).unwrap().refused(&request(vec![]));
    assert!(error.code == "weights-mismatch" && error.to_string().contains("text_encoder"), "{error:?}");
    let mut two = tiny_model::files_of_klein(true);
    two.0.remove("manifest.json");
    two.0.insert("arc2face/config.json".to_owned(), b"{}".to_vec());
    let error = Klein::open(two).map(|_| ()).unwrap_err();
    assert!(error.code == "model-mismatch" && error.message.contains("arc2face"), "{error}");
}

#[test]
fn a_prompt_that_is_too_long_is_told() {
    let klein = Klein::new(true);
    let long = GenerateRequest { prompt: "scarf ".repeat(400) + "hat", ..request(vec![]) };
    let made = klein.generate(&long).unwrap().swap_remove(0);
    let [notice] = &made.notices[..] else { panic!("{:?}", made.notices) };
    assert_eq!(notice.code, "prompt-cut");
    assert!(
        notice.message.contains("256 tokens") && notice.message.contains("'scarf'"),
        "{}",
        notice.message
    );
    // What comes after that is not read.
    let other = GenerateRequest { prompt: "scarf ".repeat(400) + "cap", ..request(vec![]) };
    assert_eq!(worst(&made.image, &klein.picture(&other)), 0);
}
