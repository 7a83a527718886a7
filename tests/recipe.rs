//! A picture's recipe and the pictures that it was made from make the same picture, whatever the model draws from.

#[path = "support/tiny_model.rs"]
mod tiny_model;

use std::ops::ControlFlow;

use burn::tensor::Device;
use facestudio::image::codec;
use facestudio::pipeline::{FaceStudio, Generated};
use facestudio::request::{
    Background, GenerateRequest, Identity, InitImage, IntoPhoto, Layout, Person, PixelHash, RelativeBox,
    Replacement, WhichFace,
};
use facestudio::sampling::Sampler;
use facestudio::weights::MemoryFiles;
use image::{GrayImage, Luma, Rgb, RgbImage};

fn open(files: &MemoryFiles) -> FaceStudio {
    FaceStudio::load(files, &Device::flex()).unwrap()
}

fn generate(studio: &FaceStudio, request: &GenerateRequest) -> Vec<Generated> {
    pollster::block_on(studio.generate(request, async |_| ControlFlow::Continue(()))).unwrap()
}

/// Bright spots, which the tiny model takes for faces.
fn spots(centres: &[u32], colour: [u8; 3]) -> RgbImage {
    RgbImage::from_fn(64, 64, |x, y| {
        let near = |at: &u32| x.abs_diff(*at).max(y.abs_diff(32)) < 9;
        Rgb(if centres.iter().any(near) { colour } else { [10, 12, 20] })
    })
}

fn identity(colour: [u8; 3], beta: f32) -> Identity {
    Identity { photos: vec![spots(&[32], colour).into()], beta }
}

fn person(identities: Vec<Identity>) -> Person {
    Person::of(identities)
}

const ANN: [u8; 3] = [255, 210, 180];
const BEN: [u8; 3] = [180, 255, 210];

/// Two people, of whom one is a mix.
fn people() -> Vec<Person> {
    vec![person(vec![identity(ANN, 0.75), identity(BEN, 0.5)]), person(vec![identity(BEN, 1.0)])]
}

fn half(left: bool) -> GrayImage {
    GrayImage::from_fn(64, 64, |x, _| Luma([if (x < 32) == left { 255 } else { 0 }]))
}

fn boxes() -> Layout {
    Layout::Boxes([0.0, 0.5].map(|x| RelativeBox { x, y: 0.1, width: 0.5, height: 0.8 }).to_vec())
}

/// What families with styles and prompts are asked for: no field is as in another request or by default.
fn requests() -> Vec<GenerateRequest> {
    let style = Some(RgbImage::from_fn(40, 48, |x, y| Rgb([(x * 3) as u8, (y * 2) as u8, 90])));
    let base = GenerateRequest {
        style,
        prompt: "a smiling man".to_owned(),
        negative_prompt: "red hair".to_owned(),
        alpha: 0.3,
        seed: 41,
        count: 2,
        steps: 3,
        ..GenerateRequest::default()
    };
    let init = |strength, mask| Some(InitImage { image: spots(&[20], [200, 90, 40]), strength, mask });
    vec![
        GenerateRequest {
            people: people(),
            layout: boxes(),
            background: Background::Person(1),
            guidance_scale: 2.5,
            sampler: Sampler::Unipc,
            width: Some(64),
            height: Some(32),
            ..base.clone()
        },
        GenerateRequest {
            people: people(),
            layout: Layout::Masks(vec![half(true), half(false)]),
            init: init(0.7, Some(half(false))),
            sampler: Sampler::Euler,
            watermark: false,
            ..base.clone()
        },
        GenerateRequest {
            people: vec![person(vec![identity(ANN, 1.0)])],
            layout: Layout::Content(spots(&[32], BEN)),
            background: Background::Hold,
            init: init(0.5, None),
            guidance_scale: 1.0,
            ..base.clone()
        },
        GenerateRequest {
            people: people(),
            into: Some(IntoPhoto {
                photo: spots(&[14, 50], ANN),
                faces: vec![
                    Replacement { face: WhichFace::Index(1), person: 0, mask: Some(half(true)) },
                    Replacement { face: WhichFace::Index(0), person: 1, mask: None },
                ],
                strength: 0.7,
            }),
            ..base.clone()
        },
        GenerateRequest { people: Vec::new(), style: None, prompt_in_metadata: false, ..base },
    ]
}

/// All pictures and masks of a request, in another order than it has them, and one more.
fn album(request: &GenerateRequest) -> (Vec<RgbImage>, Vec<GrayImage>) {
    let photos = request.people.iter().flat_map(|person| &person.identities).flat_map(|own| &own.photos);
    let mut pictures: Vec<RgbImage> = photos.map(|photo| photo.image.clone()).collect();
    pictures.extend(request.style.clone());
    pictures.extend(request.init.as_ref().map(|init| init.image.clone()));
    pictures.extend(request.into.as_ref().map(|into| into.photo.clone()));
    let mut masks: Vec<GrayImage> = request.init.iter().filter_map(|init| init.mask.clone()).collect();
    masks.extend(request.into.iter().flat_map(|into| &into.faces).filter_map(|face| face.mask.clone()));
    match &request.layout {
        Layout::Masks(own) => masks.extend(own.iter().cloned()),
        Layout::Content(content) => pictures.push(content.clone()),
        Layout::Whole | Layout::Boxes(_) => {}
    }
    pictures.push(RgbImage::new(3, 3));
    pictures.reverse();
    masks.reverse();
    (pictures, masks)
}

#[test]
fn a_recipe_and_its_pictures_make_the_same_picture() {
    let faces =
        GenerateRequest { people: people(), layout: boxes(), count: 2, steps: 2, ..Default::default() };
    // An adapter that reads pictures of faces mixes nobody.
    let unmixed = requests().into_iter().map(|mut request| {
        request.people.iter_mut().for_each(|person| person.identities.truncate(1));
        request
    });
    let families = [
        (tiny_model::files(), requests()),
        (tiny_model::files_with_adapters(false), requests()),
        (tiny_model::files_with_adapters(true), unmixed.collect()),
        (tiny_model::files_of_arc2face(), vec![faces]),
    ];
    for (family, (files, requests)) in families.iter().enumerate() {
        let studio = open(files);
        for (i, request) in requests.iter().enumerate() {
            let made = generate(&studio, request);
            assert_eq!(made.len(), 2);
            assert_ne!(made[0].image, made[1].image);
            for (n, Generated { image, recipe, .. }) in made.iter().enumerate() {
                let png = codec::encode_generated_png(image, recipe).unwrap();
                let read = codec::read_recipe(&png).unwrap();
                assert_eq!(&read, recipe);
                read.check(studio.model(), studio.precision()).unwrap();
                let (pictures, masks) = album(request);
                let silent = [Some(request.prompt.as_str()), Some(request.negative_prompt.as_str())];
                let words = if request.prompt_in_metadata { [None; 2] } else { silent };
                let again = read.request(&pictures, &masks, &[], words).unwrap();
                // Nothing is remembered of the first.
                studio.forget_encoded();
                let again = generate(&studio, &again).swap_remove(0);
                assert!(again.image == *image, "family {family}, request {i}, picture {n}");
                assert_eq!(&again.recipe, recipe, "family {family}, request {i}, picture {n}");
            }
        }
    }
}

#[test]
fn a_recipe_holds_hashes_and_no_picture() {
    let studio = open(&tiny_model::files());
    let request = &requests()[0];
    let made = generate(&studio, request).swap_remove(0);
    let json = serde_json::to_value(&made.recipe).unwrap();
    let hash = |colour| serde_json::json!({ "sha256": PixelHash::of(&spots(&[32], colour)) });
    let expected = serde_json::json!([
        { "identities": [{ "photos": [hash(ANN)], "beta": 0.75 }, { "photos": [hash(BEN)], "beta": 0.5 }] },
        { "identities": [{ "photos": [hash(BEN)], "beta": 1.0 }] },
    ]);
    assert_eq!(json["people"], expected);
    assert_eq!((&json["model"]["name"], &json["precision"]), (&"tiny".into(), &"f32".into()));
    assert_eq!((&json["width"], &json["height"], &json["seed"]), (&64.into(), &32.into(), &41.into()));
    assert!(json.to_string().len() < 2000, "{json}");
}

/// The same weights are the same model, with and without a manifest; a byte more is another.
#[test]
fn a_model_is_known_by_its_files() {
    let files = tiny_model::files();
    let (id, mut bare) = (open(&files).model().clone(), files.clone());
    assert_eq!((id.name.as_deref(), id.version.as_deref(), id.sha256.len()), (Some("tiny"), Some("1"), 64));
    bare.0.remove("manifest.json");
    bare.0.insert("unet/README.md".to_owned(), b"for people".to_vec());
    bare.0.insert("notes/config.json".to_owned(), b"{}".to_vec());
    let without = open(&bare).model().clone();
    assert_eq!((&without.name, &without.sha256), (&None, &id.sha256));
    bare.0.get_mut("scheduler/scheduler_config.json").unwrap().push(b'\n');
    let changed = open(&bare);
    assert_ne!(changed.model().sha256, id.sha256);

    let request = &requests()[4];
    let made = generate(&open(&files), request).swap_remove(0);
    let error = made.recipe.check(changed.model(), "f32").unwrap_err();
    assert!(error.code == "recipe-model" && error.message.contains("tiny 1"), "{error}");
}
