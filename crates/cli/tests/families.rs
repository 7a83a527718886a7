//! What a model folder has decides what is drawn: its defaults, a segmenter, and models that read faces alone.

#[path = "../../../tests/support/tiny_model.rs"]
mod tiny_model;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::process::{Command, Output};

use burn::tensor::Device;
use facestudio::encoders::segmenter::Segmenter;
use facestudio::image::mask::Mask;
use facestudio::pipeline::{FaceStudio, Generated, Phase, Progress};
use facestudio::request::{Background, GenerateRequest, Identity, Layout, MAX_PEOPLE, Person, RelativeBox};
use facestudio::weights::{Component, Files, MemoryFiles};
use facestudio::{Error, Result};
use image::{GrayImage, Rgb, RgbImage};
use serde_json::json;

fn facestudio(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_facestudio")).args(arguments).output().unwrap()
}

#[test]
fn a_picture_is_made_as_its_model_is_made_for_unless_the_request_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut files = tiny_model::files().0;
    // It would not be what its manifest says.
    files.remove("manifest.json");
    files.insert(
        "scheduler/scheduler_config.json".to_owned(),
        br#"{ "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing" }"#.to_vec(),
    );
    files.insert("defaults.json".to_owned(), br#"{ "steps": 1, "guidance_scale": 1 }"#.to_vec());
    facestudio::weights::write_folder(Path::new(&at("model")), |new| {
        files.iter().try_for_each(|(path, bytes)| new.write(path, bytes))
    })
    .unwrap();
    let (model, out) = (at("model"), at("out.png"));
    let settings = |more: &[&str]| -> serde_json::Value {
        let base = ["generate", "--model", &model, "--prompt", "a man", "--out", &out];
        let run = facestudio(&[&base, more].concat());
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let texts =
            facestudio::image::codec::read_png_texts(&std::fs::read(&out).unwrap()).unwrap().into_iter();
        let said = texts.filter_map(|(_, text)| serde_json::from_str::<serde_json::Value>(&text).ok());
        let said = said.into_iter().find(|said| said.is_object()).unwrap();
        json!([said["sampler"], said["steps"], said["guidance_scale"]])
    };
    assert_eq!(settings(&[]), json!(["euler", 1, 1.0]));
    assert_eq!(
        settings(&["--steps", "2", "--guidance-scale", "2", "--sampler", "lcm"]),
        json!(["lcm", 2, 2.0])
    );
    let refused = facestudio(&[
        "generate",
        "--model",
        &model,
        "--prompt",
        "a man",
        "--steps",
        "0",
        "--out",
        &at("no.png"),
    ]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("[steps-range]"));
}

// ---- a segmenter -------------------------------------------------------------------------------------------------------

#[test]
fn a_segmenter_says_where_the_people_of_a_content_image_are() {
    let device = Device::flex();
    let files = tiny_model::files_with_segmenter();
    let segmenter = Segmenter::load(&Component::new(&files, "segmenter"), &device).unwrap();
    let studio = FaceStudio::load(&files, &device).unwrap();

    // Its random weights take parts of these fields for people, none of which has a face.
    let fields = |x: u32, y: u32| {
        Rgb([[[0, 0, 0], [0, 0, 255]], [[255, 255, 136], [255, 0, 0]]][y as usize / 32][x as usize / 32])
    };
    let content = RgbImage::from_fn(64, 64, fields);
    // Its sides are beyond the picture that is drawn.
    let wide =
        RgbImage::from_fn(
            84,
            64,
            |x, y| {
                if (10..74).contains(&x) { fields(x - 10, y) } else { Rgb([90, 160, 20]) }
            },
        );
    let mut found = pollster::block_on(segmenter.people(&content, &device)).unwrap();
    let count = found.len();
    assert!((2..MAX_PEOPLE).contains(&count), "{count}");
    found.sort_by(|a, b| b.coverage().total_cmp(&a.coverage()));
    found.truncate(2);
    found.sort_by(|a, b| a.centre_x().total_cmp(&b.centre_x()));
    let gray = |mask: &Mask| {
        let (width, height) = mask.size();
        let bytes = mask.values().iter().map(|value| (value * 255.0) as u8).collect();
        GrayImage::from_raw(width as u32, height as u32, bytes).unwrap()
    };
    let two = GenerateRequest {
        people: [ANN, BEN].map(|colour| Person::of(vec![identity(colour, 1.0)])).into(),
        layout: Layout::Content(wide),
        prompt: "two people".to_owned(),
        ..request(Vec::new())
    };
    let drawn = GenerateRequest { layout: Layout::Masks(found.iter().map(gray).collect()), ..two.clone() };
    assert_eq!(
        worst(&picture(&studio, &two), &picture(&studio, &drawn)),
        0,
        "each where the segmenter has them"
    );
    let swapped =
        GenerateRequest { layout: Layout::Masks(found.iter().rev().map(gray).collect()), ..two.clone() };
    assert!(worst(&picture(&studio, &two), &picture(&studio, &swapped)) > 0);

    // Without it people have faces, and the detector finds one at most.
    let without = FaceStudio::load(&tiny_model::files_with_adapters(false), &device).unwrap();
    assert_eq!(generate(&without, &two).unwrap_err().code, "content-people");
    let people = vec![two.people[0].clone(); count + 1];
    let error = generate(&studio, &GenerateRequest { people, ..two }).err();
    let error = error.map_or(String::new(), |error| error.to_string());
    assert!(error.contains(&format!("{count} people were found")), "{error}");
}

// ---- encoders ----------------------------------------------------------------------------------------------------------

/// A request of everything.
fn whole() -> GenerateRequest {
    let prompt = "a smiling man".to_owned();
    GenerateRequest { style: Some(photo(BEN)), prompt, ..request(vec![identity(ANN, 1.0)]) }
}

/// Files that note which of them are read.
struct Noted {
    files: MemoryFiles,
    read: RefCell<BTreeSet<String>>,
}

impl Noted {
    fn new(files: MemoryFiles) -> Self {
        Self { files, read: RefCell::default() }
    }

    /// The components that were read from since the last call.
    fn components(&self) -> Vec<String> {
        let read = self.read.take().into_iter();
        let folders = read.map(|path| path.split('/').next().unwrap().to_owned());
        folders.collect::<BTreeSet<String>>().into_iter().collect()
    }

    fn note(&self, path: &str) -> &MemoryFiles {
        self.read.borrow_mut().insert(path.to_owned());
        &self.files
    }
}

impl Files for Noted {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.note(path).read(path)
    }

    fn size(&self, path: &str) -> Result<u64> {
        self.files.size(path)
    }

    fn read_range(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>> {
        self.note(path).read_range(path, range)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.files.list(folder)
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        self.files.folders(folder)
    }
}

/// A model as the browser's engine holds a large one: what makes guidance is let go of when that is made, and brought again.
struct Lean {
    files: Noted,
    studio: FaceStudio,
}

impl Lean {
    fn load(files: MemoryFiles) -> Self {
        let files = Noted::new(files);
        let studio = FaceStudio::load(&files, &Device::flex()).unwrap();
        assert!(files.components().len() > 5 && studio.has_encoders());
        Self { files, studio }
    }

    /// Draws, holds the pictures against those of a model that keeps everything, and says which components were read.
    #[track_caller]
    fn draw(&self, request: &GenerateRequest) -> Vec<String> {
        let watch = async |Progress { phase, step, steps, .. }: Progress| {
            if phase == Phase::Encode && step == steps {
                self.studio.release_encoders();
            }
            assert!(phase == Phase::Encode || !self.studio.has_encoders());
            ControlFlow::Continue(())
        };
        let bring = async |component: &str| self.studio.load_component(component, &self.files);
        let made = pollster::block_on(self.studio.generate_with(request, watch, bring)).unwrap();
        let read = self.files.components();
        let fresh = FaceStudio::load(&self.files.files, &Device::flex()).unwrap();
        for (made, fresh) in made.iter().zip(generate(&fresh, request).unwrap()) {
            assert_eq!(
                (&made.image, &made.recipe, &made.notices),
                (&fresh.image, &fresh.recipe, &fresh.notices)
            );
        }
        read
    }
}

/// Two pictures of another seed, of another person, in another style, of other words.
fn changes() -> [GenerateRequest; 4] {
    let base = || GenerateRequest { count: 2, ..whole() };
    [
        GenerateRequest { seed: 99, ..base() },
        GenerateRequest { people: vec![Person::of(vec![identity(BEN, 1.0)])], ..base() },
        GenerateRequest { style: Some(photo(ANN)), ..base() },
        GenerateRequest { prompt: "a woman".to_owned(), ..base() },
    ]
}

#[test]
fn a_lean_model_reads_again_what_a_request_needs_and_nothing_else() {
    const ADAPTERS: [&str; 2] = ["ip_adapter", "ip_adapter_2"];
    const TEXT: [&str; 2] = ["text_encoder", "tokenizer"];
    let vision = [&ADAPTERS[..], &["vision_encoder"]].concat();
    let words = [&ADAPTERS[..], &TEXT].concat();
    // The face encoder is there: a new face takes the adapters alone, where they read identities.
    let faces: [Vec<&str>; 4] = [vec![], ADAPTERS.into(), vision.clone(), words.clone()];
    let pictures: [Vec<&str>; 4] = [vec![], vision.clone(), vision, words];
    let own: [Vec<&str>; 4] = [
        vec!["guidance", "prior"],
        // What was drawn of the words for these seeds is kept.
        vec!["guidance"],
        vec!["guidance", "vision_encoder", "vision_encoder_2"],
        vec!["guidance", "prior", "text_encoder", "tokenizer"],
    ];
    for (files, expected) in [
        (tiny_model::files_with_adapters(false), faces),
        (tiny_model::files_with_adapters(true), pictures),
        (tiny_model::files(), own),
    ] {
        let lean = Lean::load(files);
        assert_eq!(lean.draw(&GenerateRequest { count: 2, ..whole() }), [""; 0], "all is there");
        for (request, expected) in changes().iter().zip(expected) {
            assert_eq!(lean.draw(request), expected, "{:?}", request.seed);
            // What was just drawn is drawn again of what is kept.
            assert_eq!(lean.draw(&GenerateRequest { steps: 3, ..request.clone() }), [""; 0]);
        }
    }
    // Of a style alone no prior draws.
    let lean = Lean::load(tiny_model::files());
    let styled = GenerateRequest { prompt: String::new(), ..whole() };
    lean.draw(&styled);
    assert_eq!(lean.draw(&GenerateRequest { seed: 5, ..styled }), [""; 0]);
}

#[test]
fn a_lean_model_of_faces_alone_reads_its_text_encoder_for_new_ones() {
    let lean = Lean::load(tiny_model::files_of_arc2face());
    lean.draw(&request(vec![identity(ANN, 1.0)]));
    assert_eq!(lean.draw(&GenerateRequest { seed: 99, ..request(vec![identity(ANN, 1.0)]) }), [""; 0]);
    assert_eq!(lean.draw(&request(vec![identity(BEN, 1.0)])), ["arc2face", "text_encoder", "tokenizer"]);
}

#[test]
fn a_lean_model_looks_for_the_people_of_a_content_image_once() {
    let lean = Lean::load(tiny_model::files_with_segmenter());
    let fields = |x: u32, y: u32| {
        Rgb([[[0, 0, 0], [0, 0, 255]], [[255, 255, 136], [255, 0, 0]]][y as usize / 32][x as usize / 32])
    };
    // Another picture, of which the same is seen.
    let content = |left: u32| {
        let picture =
            |x: u32, y| if (left..left + 64).contains(&x) { fields(x - left, y) } else { Rgb([90; 3]) };
        Layout::Content(RgbImage::from_fn(64 + 2 * left, 64, picture))
    };
    let two = GenerateRequest {
        people: [ANN, BEN].map(|colour| Person::of(vec![identity(colour, 1.0)])).into(),
        layout: content(0),
        prompt: "two people".to_owned(),
        ..request(Vec::new())
    };
    lean.draw(&two);
    let words = GenerateRequest { prompt: "a man".to_owned(), ..two.clone() };
    assert_eq!(lean.draw(&words), ["ip_adapter", "ip_adapter_2", "text_encoder", "tokenizer"]);
    let other = GenerateRequest { layout: content(10), ..two };
    assert_eq!(lean.draw(&other), ["ip_adapter", "ip_adapter_2", "segmenter"]);
}

#[test]
fn likeness_is_measured_after_a_picture_without_reading_anything() {
    for (files, request) in [
        (tiny_model::files(), whole()),
        (tiny_model::files_with_adapters(false), whole()),
        (tiny_model::files_of_arc2face(), request(vec![identity(ANN, 1.0)])),
    ] {
        let lean = Lean::load(files);
        lean.draw(&request);
        assert!(!lean.studio.has_encoders());
        let person = |colour| Person::of(vec![identity(colour, 1.0)]);
        let alike =
            |colour| pollster::block_on(lean.studio.similarity(&photo(ANN), &person(colour))).unwrap();
        assert!(alike(ANN) > 0.999 && alike(BEN) < 0.999, "{} {}", alike(ANN), alike(BEN));
        assert_eq!(lean.files.components(), [""; 0]);
    }
}

#[test]
fn what_was_let_go_of_and_nobody_brings_is_named() {
    let files = tiny_model::files_with_adapters(false);
    let studio = FaceStudio::load(&files, &Device::flex()).unwrap();
    generate(&studio, &whole()).unwrap();
    studio.release_encoders();
    generate(&studio, &GenerateRequest { steps: 3, ..whole() }).unwrap();
    let other = GenerateRequest { prompt: "a woman".to_owned(), ..whole() };
    let named = |name: &str| {
        let error = generate(&studio, &other).unwrap_err();
        assert_eq!(error.code, "encoders-released");
        assert!(error.message.contains(&format!("'{name}'")), "{error}");
        studio.load_component(name, &files).unwrap();
    };
    named("ip_adapter");
    named("text_encoder");
    generate(&studio, &other).unwrap();
    studio.forget_encoded();
    assert_eq!(generate(&studio, &other).unwrap_err().code, "encoders-released", "the style image's");
    assert_eq!(studio.load_component("unet", &files).unwrap_err().code, "component-missing");

    // Not another component than the others were fitted to.
    let mut changed = files.clone();
    let config = String::from_utf8(changed.0["vision_encoder/config.json"].clone()).unwrap();
    let other_heads = config.replace("\"num_attention_heads\": 2", "\"num_attention_heads\": 4");
    assert_ne!(config, other_heads);
    changed.0.insert("vision_encoder/config.json".to_owned(), other_heads.into_bytes());
    let error = studio.load_component("vision_encoder", &changed).unwrap_err();
    assert_eq!(error.code, "model-mismatch", "{error}");
    studio.load_component("vision_encoder", &files).unwrap();
    generate(&studio, &other).unwrap();
}

// ---- faces alone -------------------------------------------------------------------------------------------------------

fn arc2face() -> FaceStudio {
    FaceStudio::load(&tiny_model::files_of_arc2face(), &Device::flex()).unwrap()
}

fn generate(studio: &FaceStudio, request: &GenerateRequest) -> Result<Vec<Generated>> {
    pollster::block_on(studio.generate(request, async |_| ControlFlow::Continue(())))
}

#[track_caller]
fn picture(studio: &FaceStudio, request: &GenerateRequest) -> RgbImage {
    generate(studio, request).unwrap().swap_remove(0).image
}

fn worst(a: &RgbImage, b: &RgbImage) -> u8 {
    a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// A bright spot on a dark ground: what the tiny model takes for a face.
fn photo(colour: [u8; 3]) -> RgbImage {
    let inside = |x: u32, y: u32| x.abs_diff(32).max(y.abs_diff(32)) < 9;
    RgbImage::from_fn(64, 64, |x, y| Rgb(if inside(x, y) { colour } else { [10, 12, 20] }))
}

const ANN: [u8; 3] = [255, 210, 180];
const BEN: [u8; 3] = [190, 220, 250];

fn identity(colour: [u8; 3], beta: f32) -> Identity {
    Identity::new(vec![photo(colour)], beta)
}

fn request(identities: Vec<Identity>) -> GenerateRequest {
    let people = vec![Person::of(identities)];
    GenerateRequest { people, steps: 4, watermark: false, ..GenerateRequest::default() }
}

#[test]
fn a_face_alone_is_drawn_and_identities_mix() {
    let studio = arc2face();
    assert!(!studio.reads_words() && !studio.reads_styles());
    let of = |identities| picture(&studio, &request(identities));
    let (ann, ben) = (of(vec![identity(ANN, 1.0)]), of(vec![identity(BEN, 1.0)]));
    assert!(worst(&ann, &ben) > 1, "the face decides");
    assert_eq!(worst(&ann, &of(vec![identity(ANN, 1.0), identity(BEN, 0.0)])), 0);
    let mixed = of(vec![identity(ANN, 1.0), identity(BEN, 1.0)]);
    assert!(worst(&mixed, &ann) > 0 && worst(&mixed, &ben) > 0);
    let unguided = GenerateRequest { guidance_scale: 1.0, ..request(vec![identity(ANN, 1.0)]) };
    assert!(worst(&ann, &picture(&studio, &unguided)) > 0);
}

#[test]
fn faces_alone_keep_to_their_regions() {
    let studio = arc2face();
    let side = |x| RelativeBox { x, y: 0.0, width: 0.4, height: 1.0 };
    let two = |colours: [[u8; 3]; 2], xs: [f32; 2], background| GenerateRequest {
        people: colours.map(|colour| Person::of(vec![identity(colour, 1.0)])).to_vec(),
        layout: Layout::Boxes(xs.map(side).to_vec()),
        background: Background::Person(background),
        ..request(Vec::new())
    };
    let first = picture(&studio, &two([ANN, BEN], [0.0, 0.6], 0));
    // Sums are taken in another order.
    assert!(worst(&first, &picture(&studio, &two([BEN, ANN], [0.6, 0.0], 1))) <= 1);
    assert!(worst(&first, &picture(&studio, &two([BEN, ANN], [0.0, 0.6], 0))) > 1);
}

#[test]
fn what_a_face_alone_gives_no_meaning_is_refused_with_the_reason() {
    let studio = arc2face();
    let base = || request(vec![identity(ANN, 1.0)]);
    let refused = |request| generate(&studio, &request).map(|made| made.len()).unwrap_err();
    for (request, named) in [
        (GenerateRequest { style: Some(photo(BEN)), ..base() }, "style image"),
        (GenerateRequest { prompt: "a hat".to_owned(), ..base() }, "prompt"),
        (GenerateRequest { negative_prompt: "a hat".to_owned(), ..base() }, "negative prompt"),
        (GenerateRequest { style: Some(photo(BEN)), prompt: "a hat".to_owned(), alpha: 0.3, ..base() }, "α"),
    ] {
        let error = refused(request);
        assert_eq!(error.code, "identity-only");
        assert!(error.message.contains(named), "{named}: {error}");
    }
    let nobody = GenerateRequest { people: Vec::new(), prompt: "a hat".to_owned(), ..base() };
    assert_eq!(refused(nobody).code, "identity-only");
    assert_eq!(refused(GenerateRequest { people: Vec::new(), ..base() }).code, "nothing-asked");
}

#[test]
fn a_folder_that_cannot_be_of_faces_alone_is_told_why() {
    let load = |change: fn(&mut MemoryFiles)| -> Error {
        let mut files = tiny_model::files_of_arc2face();
        change(&mut files);
        FaceStudio::load(&files, &Device::flex()).unwrap_err()
    };
    let without = load(|files| files.0.retain(|path, _| !path.starts_with("face_encoder/")));
    assert_eq!(without.code, "component-missing");
    let no_word = load(|files| {
        let text = br#"{ "id_token": "unheard-of" }"#.to_vec();
        files.0.insert("arc2face/config.json".to_owned(), text);
    });
    assert_eq!((no_word.code, no_word.message.contains("unheard-of")), ("tokenizer", true), "{no_word}");
    let elsewhere = load(|files| {
        let text = br#"{ "prompt": "a smiling man" }"#.to_vec();
        files.0.insert("arc2face/config.json".to_owned(), text);
    });
    assert_eq!(
        (elsewhere.code, elsewhere.message.contains("a smiling man")),
        ("config", true),
        "{elsewhere}"
    );
    let both = load(|files| {
        files.0.insert("ip_adapter/config.json".to_owned(), b"{}".to_vec());
    });
    assert_eq!(both.code, "model-mismatch");
}

#[test]
fn a_converted_arc2face_draws_as_what_it_was_converted_from() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (path, bytes) in &tiny_model::files_of_arc2face().0 {
        // As published: what is fine-tuned apart from what is shared with Stable Diffusion.
        let (part, file) = path.split_once('/').unwrap_or(("", path));
        let apart = match part {
            "unet" => format!("published/arc2face/{file}"),
            "text_encoder" => format!("published/encoder/{file}"),
            _ => format!("base/{path}"),
        };
        for to in [apart, format!("whole/{path}")] {
            let to = folder.path().join(to);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::write(to, bytes).unwrap();
        }
    }
    let (base, published, out) = (at("base"), at("published"), at("converted"));
    let (face, detector) = (at("base/face_encoder"), at("base/detector"));
    let convert = ["convert", "--base", &base, "--arc2face", &published, "--out", &out, "--dtype", "f32"];
    let more = ["--face-encoder", &face, "--detector", &detector, "--steps", "2"];
    let run = facestudio(&[&convert[..], &more].concat());
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    photo(ANN).save(at("ann.png")).unwrap();
    let drawn = |model: &str, steps: &[&str]| {
        let (png, photo, model) = (at("out.png"), at("ann.png"), at(model));
        let run =
            facestudio(&[&["generate", "--model", &model, "--face", &photo, "--out", &png], steps].concat());
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        image::open(png).unwrap().to_rgb8()
    };
    assert_eq!(worst(&drawn("converted", &[]), &drawn("whole", &["--steps", "2"])), 0);
    let both = facestudio(&[&convert[..], &["--unet", &base]].concat());
    assert_eq!(both.status.code(), Some(2), "two networks for one place");
}

// ---- texts that are too long -------------------------------------------------------------------------------------------

/// As many words as there is room for, and one more.
fn too_long(last: &str) -> String {
    // The tiny text encoder reads 16 tokens, of which two are begin and end.
    format!("{}{last}", "a ".repeat(14))
}

#[test]
fn what_of_a_text_is_not_read_is_told_with_the_word_where_it_ends() {
    let studio = FaceStudio::load(&tiny_model::files(), &Device::flex()).unwrap();
    let told = |request: &GenerateRequest| -> Vec<(&'static str, String, String, String)> {
        let pictures = generate(&studio, request).unwrap();
        assert!(pictures.iter().all(|picture| picture.notices == pictures[0].notices));
        let notices = pictures[0].notices.iter();
        notices
            .map(|n| (n.code, n.values["tokens"].clone(), n.values["from"].clone(), n.values["room"].clone()))
            .collect()
    };
    let fits = GenerateRequest { prompt: too_long(""), steps: 1, count: 2, ..GenerateRequest::default() };
    assert!(told(&fits).is_empty());
    let long = GenerateRequest {
        prompt: too_long("man man"),
        negative_prompt: too_long("Id, a man"),
        guidance_scale: 2.0,
        ..fits.clone()
    };
    let one = |code, tokens: &str, from: &str| (code, tokens.to_owned(), from.to_owned(), "14".to_owned());
    let both = [one("prompt-cut", "2", "man"), one("negative-prompt-cut", "4", "id")];
    assert_eq!(told(&long), both);
    // What was encoded before is told of again.
    assert_eq!(told(&GenerateRequest { steps: 2, ..long.clone() }), both);
    // A text that is not read loses nothing.
    assert_eq!(told(&GenerateRequest { guidance_scale: 1.0, ..long.clone() }), both[..1]);
    let styled = GenerateRequest { style: Some(photo(BEN)), alpha: 1.0, guidance_scale: 1.0, ..long };
    assert!(told(&styled).is_empty());
}

#[test]
fn a_tokenizer_that_reads_less_than_its_text_encoder_says_so() {
    let mut files = tiny_model::files_with_adapters(false);
    let config = br#"{ "model_max_length": 6 }"#.to_vec();
    files.0.insert("tokenizer/tokenizer_config.json".to_owned(), config.clone());
    let studio = FaceStudio::load(&files, &Device::flex()).unwrap();
    let request = GenerateRequest { prompt: "a ".repeat(33), steps: 1, ..GenerateRequest::default() };
    let error = generate(&studio, &request).unwrap_err();
    assert!(error.message.contains("9 chunks of 4 tokens"), "{error}");
    // A prior that reads every token's state has as many places as its text encoder.
    let mut files = tiny_model::files();
    files.0.insert("tokenizer/tokenizer_config.json".to_owned(), config);
    let error = FaceStudio::load(&files, &Device::flex()).unwrap_err();
    assert!(error.code == "model-mismatch" && error.message.contains("tokenizer"), "{error}");
}

#[test]
fn the_command_line_warns_of_a_text_that_is_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let files = tiny_model::files().0;
    facestudio::weights::write_folder(Path::new(&at("model")), |new| {
        files.iter().try_for_each(|(path, bytes)| new.write(path, bytes))
    })
    .unwrap();
    let (model, out) = (at("model"), at("out.png"));
    let warned = |prompt: &str| {
        let run =
            facestudio(&["generate", "--model", &model, "--steps", "1", "--prompt", prompt, "--out", &out]);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        assert_eq!(String::from_utf8_lossy(&run.stdout).trim(), out, "standard output is for programs");
        String::from_utf8(run.stderr).unwrap()
    };
    let warning = warned(&too_long("man man man"));
    let expected = "its last 3 tokens were cut off, from 'man' on [prompt-cut]";
    assert!(warning.contains("warning: ") && warning.contains(expected), "{warning}");
    assert!(!warned("a man").contains("warning"));
}
