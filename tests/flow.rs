//! The whole flow on a small model with random weights: what must hold of any model's pictures.

#[path = "support/tiny_model.rs"]
mod tiny_model;

use std::ops::ControlFlow;

use burn::tensor::Device;
use facestudio::pipeline::{FaceStudio, Generated, Phase, Progress};
use facestudio::request::{
    Background, Defaults, GenerateRequest, Identity, InitImage, Layout, Person, RelativeBox,
};
use facestudio::sampling::Sampler;
use facestudio::weights::MemoryFiles;
use facestudio::{Error, Result};
use image::{GrayImage, Luma, Rgb, RgbImage};

const STEPS: usize = 4;

fn studio() -> FaceStudio {
    FaceStudio::load(&tiny_model::files(), &Device::flex()).unwrap()
}

fn generate(studio: &FaceStudio, request: &GenerateRequest) -> Result<Vec<Generated>> {
    pollster::block_on(studio.generate(request, async |_| ControlFlow::Continue(())))
}

/// The one picture of a request that works.
#[track_caller]
fn picture(studio: &FaceStudio, request: &GenerateRequest) -> RgbImage {
    let mut pictures = generate(studio, request).unwrap();
    assert_eq!(pictures.len(), request.count);
    pictures.swap_remove(0).image
}

/// Bright spots of radius `radius` on a dark ground: what the tiny model takes for faces.
fn spots(width: u32, height: u32, radius: f32, centres: &[(f32, f32)], colour: [u8; 3]) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let near = |(cx, cy): &(f32, f32)| {
            let squared = (x as f32 + 0.5 - cx).powi(2) + (y as f32 + 0.5 - cy).powi(2);
            squared < radius * radius
        };
        Rgb(if centres.iter().any(near) { colour } else { [12, 20, 30] })
    })
}

fn photo(colour: [u8; 3]) -> RgbImage {
    spots(64, 64, 14.0, &[(34.0, 30.0)], colour)
}

const ANN: [u8; 3] = [255, 210, 180];
const BEN: [u8; 3] = [180, 255, 210];

fn person(colour: [u8; 3]) -> Person {
    Person::new(vec![photo(colour)])
}

fn style(shade: u8) -> RgbImage {
    RgbImage::from_fn(40, 48, |x, y| Rgb([(x * 3) as u8, (y * 2) as u8, shade]))
}

/// One person with a style image and a prompt.
fn request() -> GenerateRequest {
    GenerateRequest {
        people: vec![person(ANN)],
        style: Some(style(90)),
        prompt: "a smiling man".to_owned(),
        steps: STEPS,
        // The mark would hide small differences between pictures, and make some.
        watermark: false,
        ..GenerateRequest::default()
    }
}

fn left_and_right() -> Layout {
    let side = |x| RelativeBox { x, y: 0.0, width: 0.4, height: 1.0 };
    Layout::Boxes(vec![side(0.0), side(0.6)])
}

fn worst(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn a_photo_is_most_like_the_person_it_shows() {
    let studio = studio();
    let similarity =
        |picture: &RgbImage, person: &Person| pollster::block_on(studio.similarity(picture, person));
    let own = similarity(&photo(ANN), &person(ANN)).unwrap();
    let other = similarity(&photo(BEN), &person(ANN)).unwrap();
    assert!((own - 1.0).abs() < 1e-4, "{own}");
    assert!(other < own - 1e-3, "{other} is not below {own}");
    let nobody = RgbImage::from_pixel(64, 64, Rgb([10, 10, 10]));
    assert_eq!(similarity(&nobody, &person(ANN)).unwrap_err().code, "face-not-found");
}

#[test]
fn a_seed_decides_the_picture() {
    let studio = studio();
    let first = picture(&studio, &request());
    assert_eq!(first.dimensions(), (32, 32));
    assert_eq!(first, picture(&studio, &request()));
    assert_eq!(first, picture(&self::studio(), &request()));
    assert_ne!(first, picture(&studio, &GenerateRequest { seed: 1, ..request() }));
}

#[test]
fn every_picture_of_a_request_can_be_made_alone() {
    let studio = studio();
    let several = generate(&studio, &GenerateRequest { count: 3, seed: 7, ..request() }).unwrap();
    for (i, generated) in several.iter().enumerate() {
        assert_eq!(generated.recipe.seed, 7 + i as u64);
        let alone = picture(&studio, &GenerateRequest { seed: generated.recipe.seed, ..request() });
        assert_eq!(generated.image, alone);
    }
    assert_ne!(several[0].image, several[1].image);
}

#[test]
fn pictures_are_marked_unless_that_is_turned_off() {
    assert!(GenerateRequest::default().watermark);
    let studio = studio();
    let mut expected = picture(&studio, &request());
    let marked = picture(&studio, &GenerateRequest { watermark: true, ..request() });
    assert_ne!(marked, expected);
    facestudio::image::watermark::embed(&mut expected);
    assert_eq!(marked, expected);
}

#[test]
fn alpha_moves_from_the_prompt_to_the_style() {
    let studio = studio();
    let with = |alpha, prompt: &str, shade| {
        let style = Some(style(shade));
        picture(&studio, &GenerateRequest { alpha, prompt: prompt.to_owned(), style, ..request() })
    };
    assert_eq!(with(1.0, "a man", 90), with(1.0, "a woman with red hair", 90));
    assert_ne!(with(1.0, "a man", 90), with(1.0, "a man", 200));
    assert_eq!(with(0.0, "a man", 90), with(0.0, "a man", 200));
    assert_ne!(with(0.0, "a man", 90), with(0.0, "a woman with red hair", 90));
    let between = with(0.5, "a man", 90);
    assert_ne!(between, with(0.0, "a man", 90));
    assert_ne!(between, with(1.0, "a man", 90));
    // What is missing has no say.
    assert_eq!(with(0.3, " ", 90), with(1.0, "a man", 90));
    let no_style = picture(&studio, &GenerateRequest { style: None, alpha: 0.9, ..request() });
    assert_eq!(no_style, with(0.0, "a smiling man", 90));
}

#[test]
fn the_face_changes_the_picture_and_the_largest_one_counts() {
    let studio = studio();
    let of = |people| picture(&studio, &GenerateRequest { people, ..request() });
    let ann = of(vec![person(ANN)]);
    assert_ne!(ann, of(vec![person(BEN)]));
    assert_ne!(ann, of(vec![]));
    let mixed = |beta| {
        let ann = Identity::new(vec![photo(ANN)], 1.0);
        let ben = Identity::new(vec![photo(BEN)], beta);
        of(vec![Person::of(vec![ann, ben])])
    };
    assert_eq!(ann, mixed(0.0));
    assert_ne!(ann, mixed(1.0));
}

#[test]
fn a_face_in_the_style_image_has_no_say() {
    let studio = studio();
    let with = |colour| {
        // Within the hidden oval, whose radius is a quarter of the picture's longer side.
        let style = Some(spots(64, 64, 12.0, &[(36.0, 36.0)], colour));
        picture(&studio, &GenerateRequest { style, alpha: 1.0, ..request() })
    };
    assert_eq!(with([250, 250, 250]), with([220, 255, 255]));
}

#[test]
fn the_order_of_people_does_not_matter() {
    let studio = studio();
    let (ann, ben) = (person(ANN), person(BEN));
    let Layout::Boxes(boxes) = left_and_right() else { unreachable!() };
    let of = |people: [&Person; 2], boxes: [RelativeBox; 2], background| {
        let people = people.map(Clone::clone).to_vec();
        let (layout, background) = (Layout::Boxes(boxes.to_vec()), Background::Person(background));
        picture(&studio, &GenerateRequest { people, layout, background, ..request() })
    };
    let first = of([&ann, &ben], [boxes[0], boxes[1]], 0);
    // Sums in another order round otherwise: up to a level or two after decoding.
    assert!(worst(&first, &of([&ben, &ann], [boxes[1], boxes[0]], 1)) <= 2);
    assert!(worst(&first, &of([&ben, &ann], [boxes[0], boxes[1]], 0)) > 2);
    assert!(worst(&first, &of([&ann, &ben], [boxes[0], boxes[1]], 1)) > 0);
}

#[test]
fn a_layout_can_be_boxes_masks_or_a_content_image() {
    let studio = studio();
    let of = |layout| {
        let people = vec![person(ANN), person(BEN)];
        generate(&studio, &GenerateRequest { people, layout, ..request() })
    };
    let half =
        |left: bool| GrayImage::from_fn(64, 64, move |x, _| Luma([if (x < 32) == left { 255 } else { 0 }]));
    let halves = [0.0, 0.5].map(|x| RelativeBox { x, y: 0.0, width: 0.5, height: 1.0 });
    let masks = of(Layout::Masks(vec![half(true), half(false)])).unwrap();
    let boxes = of(Layout::Boxes(halves.to_vec())).unwrap();
    assert_eq!(masks[0].image, boxes[0].image);

    let content = |centres: &[(f32, f32)]| Layout::Content(spots(64, 64, 7.0, centres, [255; 3]));
    let (left, right) = ((14.0, 20.0), (50.0, 44.0));
    let found = of(content(&[left, right])).unwrap();
    assert_eq!(found[0].image, of(content(&[right, left])).unwrap()[0].image);
    assert_ne!(found[0].image, of(content(&[(14.0, 44.0), (50.0, 20.0)])).unwrap()[0].image);
    let error = of(content(&[left])).unwrap_err();
    assert_eq!(error.code, "content-people");
    assert!(error.message.contains("1 people were found"), "{error}");
    let narrow = GrayImage::new(64, 32);
    assert_eq!(of(Layout::Masks(vec![narrow.clone(), narrow])).unwrap_err().code, "mask-size");
}

#[test]
fn what_is_held_stays_the_init_image() {
    let studio = studio();
    let image = RgbImage::from_fn(128, 64, |x, y| Rgb([(2 * x) as u8, (4 * y) as u8, 128]));
    let init = |mask| Some(InitImage { image: image.clone(), strength: 0.8, mask });
    let right = |from: u32| GrayImage::from_fn(128, 64, move |x, _| Luma([if x >= from { 255 } else { 0 }]));
    let of = |seed, sampler, mask| {
        let (width, height) = (Some(128), Some(64));
        picture(&studio, &GenerateRequest { init: init(mask), seed, sampler, width, height, ..request() })
    };
    // Nothing may change: the picture is the autoencoder's.
    let unchanged = of(0, Sampler::Euler, Some(GrayImage::new(128, 64)));
    for sampler in Sampler::of_diffusion() {
        let (a, b) = (of(1, sampler, Some(right(112))), of(2, sampler, Some(right(112))));
        assert_ne!(a, b);
        // The decoder sees less than 64 pixels far; held latents are equal to the last bit.
        let left = |picture: &RgbImage| image::imageops::crop_imm(picture, 0, 0, 40, 64).to_image();
        assert_eq!(left(&a), left(&unchanged), "{sampler:?}");
        assert_eq!(left(&a), left(&b), "{sampler:?}");
        let free = of(1, sampler, None);
        assert_ne!(left(&free), left(&unchanged), "{sampler:?}");
    }
    // A held background keeps what is outside every box.
    let held = |seed| {
        let layout = Layout::Boxes(vec![RelativeBox { x: 0.9, y: 0.0, width: 0.1, height: 1.0 }]);
        let (width, height) = (Some(128), Some(64));
        let background = Background::Hold;
        let request = GenerateRequest { init: init(None), seed, width, height, ..request() };
        picture(&studio, &GenerateRequest { layout, background, ..request })
    };
    let left = |picture: &RgbImage| image::imageops::crop_imm(picture, 0, 0, 40, 64).to_image();
    assert_eq!(left(&held(5)), left(&unchanged));
    assert_ne!(held(5), held(6));
}

#[test]
fn strength_says_how_far_to_go() {
    let studio = studio();
    let image = RgbImage::from_fn(32, 32, |x, y| Rgb([(8 * x) as u8, (8 * y) as u8, 128]));
    let of = |strength, mask| {
        let init = Some(InitImage { image: image.clone(), strength, mask });
        picture(&studio, &GenerateRequest { init, steps: 20, ..request() })
    };
    let unchanged = of(0.5, Some(GrayImage::new(32, 32)));
    let distance = |a: &RgbImage| -> f64 {
        a.as_raw().iter().zip(unchanged.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum()
    };
    let (little, half) = (of(0.0, None), of(0.5, None));
    assert!(distance(&little) < distance(&half), "{} {}", distance(&little), distance(&half));
    // The first step's noise still lies over the init image; only where an inpainting starts has it no say.
    let from_noise = picture(&studio, &GenerateRequest { steps: 20, ..request() });
    assert_ne!(of(1.0, None), from_noise);
    assert_eq!(of(1.0, Some(GrayImage::from_pixel(32, 32, Luma([255])))), from_noise);
}

#[test]
fn latents_are_never_clipped_and_leading_steps_are_offset_whatever_the_scheduler_states() {
    let of = |scheduler: &str| {
        let mut files = tiny_model::files();
        files.0.insert("scheduler/scheduler_config.json".to_owned(), scheduler.as_bytes().to_vec());
        let studio = FaceStudio::load(&files, &Device::flex()).unwrap();
        picture(&studio, &GenerateRequest { sampler: Sampler::Ddim, ..request() })
    };
    let right = of(r#"{ "_class_name": "DDIMScheduler", "clip_sample": false, "steps_offset": 1 }"#);
    for other in ["", r#", "clip_sample": true, "clip_sample_range": 0.1"#, r#", "steps_offset": 0"#] {
        assert_eq!(of(&format!(r#"{{ "_class_name": "DDIMScheduler"{other} }}"#)), right, "{other}");
    }
}

#[test]
fn moving_away_from_the_prompt_itself_is_no_guidance() {
    let studio = studio();
    let of = |negative_prompt: &str, guidance_scale| {
        let negative_prompt = negative_prompt.to_owned();
        let people = Vec::new();
        let request = GenerateRequest { people, style: None, negative_prompt, guidance_scale, ..request() };
        picture(&studio, &request)
    };
    let unguided = of("", 1.0);
    assert!(worst(&unguided, &of("a smiling man", 4.0)) <= 2);
    assert!(worst(&unguided, &of("", 4.0)) > 2);
    assert_ne!(of("", 4.0), of("a woman with a hat", 4.0));
    assert_eq!(unguided, of("a woman with a hat", 1.0));
}

#[test]
fn progress_counts_every_phase() {
    let studio = studio();
    let mut seen: Vec<Progress> = Vec::new();
    let request = GenerateRequest { count: 2, ..request() };
    let watch = async |progress| {
        seen.push(progress);
        ControlFlow::Continue(())
    };
    pollster::block_on(studio.generate(&request, watch)).unwrap();
    let of = |phase, picture| -> Vec<(usize, usize)> {
        let of_phase = seen.iter().filter(|p| p.phase == phase && p.picture == picture);
        of_phase.map(|p| (p.step, p.steps)).collect()
    };
    // A photo, the style image, and two pictures' priors.
    assert_eq!(of(Phase::Encode, 0), [(1, 4), (2, 4), (3, 4), (4, 4)]);
    for picture in 0..2 {
        assert_eq!(of(Phase::Denoise, picture), [(1, 4), (2, 4), (3, 4), (4, 4)]);
        assert_eq!(of(Phase::Decode, picture), [(1, 1)]);
    }
    let phases: Vec<Phase> = seen.iter().map(|p| p.phase).collect();
    assert_eq!(phases[..4], [Phase::Encode; 4]);
    assert_eq!((phases[8], phases[13]), (Phase::Decode, Phase::Decode));
}

#[test]
fn previews_come_as_often_as_asked_and_end_in_the_picture() {
    let studio = studio();
    let mut previews: Vec<(usize, RgbImage)> = Vec::new();
    let request = GenerateRequest { preview_every: Some(2), ..request() };
    let watch = async |progress: Progress| {
        previews.extend(progress.preview.map(|preview| (progress.step, preview)));
        ControlFlow::Continue(())
    };
    let pictures = pollster::block_on(studio.generate(&request, watch)).unwrap();
    assert_eq!(previews.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [2, 4]);
    // After the last step the predicted picture is the picture: this model has no cheaper decoder for previews.
    assert!(worst(&previews[1].1, &pictures[0].image) <= 1);
    assert!(worst(&previews[0].1, &pictures[0].image) > 1);
}

#[test]
fn cancelling_stops_at_once() {
    let studio = studio();
    let all = 3 + STEPS + 1;
    for stop in 1..=all {
        // Another seed each time: what an earlier one encoded is not encoded again.
        let request = GenerateRequest { seed: stop as u64, ..request() };
        let mut calls = 0;
        let watch = async |_| {
            calls += 1;
            if calls == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let error = pollster::block_on(studio.generate(&request, watch)).unwrap_err();
        assert_eq!(error, Error::cancelled());
        assert_eq!(calls, stop);
    }
}

#[test]
fn a_photo_without_a_face_is_named() {
    let dark = RgbImage::from_pixel(50, 70, Rgb([10, 12, 9]));
    let people = vec![person(ANN), Person::new(vec![photo(BEN), dark])];
    let request = GenerateRequest { people, layout: left_and_right(), ..request() };
    let error = generate(&studio(), &request).unwrap_err();
    assert_eq!(error.code, "face-not-found");
    assert!(error.message.contains("photo 2 of person 2"), "{error}");
}

#[test]
fn every_unusable_request_has_its_code() {
    let studio = studio();
    let base = request;
    let two = || vec![person(ANN), person(BEN)];
    let weighed = |beta| vec![Person::of(vec![Identity::new(vec![photo(ANN)], beta)])];
    let init = |strength| Some(InitImage { image: style(1), strength, mask: None });
    let outside = Layout::Boxes(vec![RelativeBox { x: 0.8, y: 0.0, width: 0.5, height: 1.0 }]);
    let wrong_mask = Some(InitImage { image: style(1), strength: 0.5, mask: Some(GrayImage::new(10, 40)) });
    let no_style = || GenerateRequest { style: None, prompt: "  ".to_owned(), ..base() };
    let cases = [
        ("alpha-range", GenerateRequest { alpha: 1.2, ..base() }),
        ("alpha-range", GenerateRequest { alpha: f32::NAN, ..base() }),
        ("guidance-scale-range", GenerateRequest { guidance_scale: 0.0, ..base() }),
        ("steps-range", GenerateRequest { steps: 0, ..base() }),
        ("count-range", GenerateRequest { count: 1000, ..base() }),
        ("preview-range", GenerateRequest { preview_every: Some(0), ..base() }),
        ("size-range", GenerateRequest { width: Some(1 << 20), ..base() }),
        ("size-multiple", GenerateRequest { width: Some(34), ..base() }),
        ("people-count", GenerateRequest { people: vec![person(ANN); 9], ..base() }),
        ("nothing-to-draw", no_style()),
        ("nothing-to-draw", GenerateRequest { alpha: 0.0, ..no_style() }),
        ("nothing-asked", GenerateRequest { people: vec![], ..no_style() }),
        ("no-photo", GenerateRequest { people: vec![Person::new(vec![])], ..base() }),
        ("beta-range", GenerateRequest { people: weighed(-1.0), ..base() }),
        ("beta-sum", GenerateRequest { people: weighed(0.0), ..base() }),
        ("layout-missing", GenerateRequest { people: two(), ..base() }),
        ("region-count", GenerateRequest { layout: left_and_right(), ..base() }),
        ("box-range", GenerateRequest { layout: outside, ..base() }),
        ("background-person", GenerateRequest { background: Background::Person(1), ..base() }),
        ("hold-without-init", GenerateRequest { background: Background::Hold, ..base() }),
        ("strength-range", GenerateRequest { init: init(1.5), ..base() }),
        ("mask-size", GenerateRequest { init: wrong_mask, ..base() }),
        ("image-empty", GenerateRequest { people: vec![Person::new(vec![RgbImage::new(0, 4)])], ..base() }),
        ("image-empty", GenerateRequest { style: Some(RgbImage::new(3, 0)), ..base() }),
    ];
    for (code, request) in cases {
        assert_eq!(generate(&studio, &request).map(|p| p.len()).unwrap_err().code, code);
    }
}

#[test]
fn pictures_can_have_any_size_the_model_can_make() {
    let studio = studio();
    let of = |width, height| {
        let request = GenerateRequest { width: Some(width), height: Some(height), ..request() };
        picture(&studio, &request).dimensions()
    };
    for (width, height) in [(48, 32), (20, 44), (4, 4)] {
        assert_eq!(of(width, height), (width as u32, height as u32));
    }
}

fn without(folder: &str) -> MemoryFiles {
    let mut files = tiny_model::files();
    files.0.retain(|path, _| !path.starts_with(&format!("{folder}/")));
    files
}

#[test]
fn a_missing_component_is_named() {
    for folder in [
        "tokenizer",
        "text_encoder",
        "vision_encoder",
        "face_encoder",
        "detector",
        "guidance",
        "unet",
        "vae",
        "scheduler",
    ] {
        let error = FaceStudio::load(&without(folder), &Device::flex()).unwrap_err();
        assert_eq!(error.code, "component-missing");
        assert!(error.message.contains(&format!("'{folder}'")), "{error}");
    }
}

#[test]
fn without_a_prior_only_prompts_fail() {
    let studio = FaceStudio::load(&without("prior"), &Device::flex()).unwrap();
    let styled = GenerateRequest { prompt: String::new(), ..request() };
    assert_eq!(picture(&studio, &styled), picture(&self::studio(), &styled));
    let error = generate(&studio, &request()).unwrap_err();
    assert_eq!(error.code, "component-missing");
    assert!(error.message.contains("'prior'"), "{error}");
}

#[test]
fn components_that_do_not_fit_are_named() {
    let files = without("vision_encoder_2");
    let error = FaceStudio::load(&files, &Device::flex()).unwrap_err();
    assert_eq!(error.code, "model-mismatch");
    assert!(error.message.contains("guidance") && error.message.contains("vision encoders"), "{error}");
    for (path, from, to) in [
        ("unet/config.json", "\"cross_attention_dim\": 8", "\"cross_attention_dim\": 12"),
        ("unet/config.json", "\"in_channels\": 4", "\"in_channels\": 8"),
        ("guidance/config.json", "\"id_embed_dim\": 16", "\"id_embed_dim\": 8"),
        ("prior/config.json", "\"embedding_proj_dim\": 12", "\"embedding_proj_dim\": 10"),
        ("prior/config.json", "\"encoder_hid_dim\": 16", "\"encoder_hid_dim\": 10"),
    ] {
        let mut files = tiny_model::files();
        let config = String::from_utf8(files.0[path].clone()).unwrap();
        assert!(config.contains(from), "{config}");
        files.0.insert(path.to_owned(), config.replace(from, to).into_bytes());
        assert_eq!(FaceStudio::load(&files, &Device::flex()).unwrap_err().code, "model-mismatch", "{to}");
    }
}

fn with_adapters(pictures: bool) -> FaceStudio {
    FaceStudio::load(&tiny_model::files_with_adapters(pictures), &Device::flex()).unwrap()
}

#[test]
fn adapters_take_the_same_request_and_every_part_of_it_counts() {
    for pictures in [false, true] {
        let studio = with_adapters(pictures);
        assert!(studio.reads_words() && studio.reads_styles());
        let whole = picture(&studio, &request());
        assert_eq!(worst(&whole, &picture(&studio, &request())), 0);
        for changed in [
            GenerateRequest { people: vec![person(BEN)], ..request() },
            GenerateRequest { people: Vec::new(), ..request() },
            GenerateRequest { style: Some(style(220)), ..request() },
            GenerateRequest { prompt: "a woman with red hair".to_owned(), ..request() },
            GenerateRequest { negative_prompt: "a hat".to_owned(), ..request() },
            GenerateRequest { alpha: 0.8, ..request() },
            GenerateRequest { guidance_scale: 1.0, ..request() },
        ] {
            assert!(worst(&whole, &picture(&studio, &changed)) > 0, "{changed:?}");
        }
    }
}

#[test]
fn alpha_moves_from_the_prompt_to_the_style_adapter() {
    let studio = with_adapters(false);
    let of = |alpha, style, prompt: &str| {
        picture(&studio, &GenerateRequest { alpha, style, prompt: prompt.to_owned(), ..request() })
    };
    let prompt = "a smiling man";
    assert_eq!(worst(&of(1.0, Some(style(90)), prompt), &of(0.3, Some(style(90)), "")), 0);
    assert_eq!(worst(&of(0.0, Some(style(90)), prompt), &of(0.3, None, prompt)), 0);
    assert!(worst(&of(0.0, Some(style(90)), prompt), &of(1.0, Some(style(90)), prompt)) > 0);
}

#[test]
fn adapters_keep_people_in_their_regions() {
    for pictures in [false, true] {
        let studio = with_adapters(pictures);
        let side = |x| RelativeBox { x, y: 0.0, width: 0.4, height: 1.0 };
        let two = |colours: [[u8; 3]; 2], xs: [f32; 2], background| GenerateRequest {
            people: colours.map(person).to_vec(),
            layout: Layout::Boxes(xs.map(side).to_vec()),
            background: Background::Person(background),
            ..request()
        };
        let first = picture(&studio, &two([ANN, BEN], [0.0, 0.6], 0));
        // Sums are taken in another order.
        assert!(worst(&first, &picture(&studio, &two([BEN, ANN], [0.6, 0.0], 1))) <= 1);
        assert!(worst(&first, &picture(&studio, &two([BEN, ANN], [0.0, 0.6], 0))) > 1);
    }
}

#[test]
fn what_adapters_give_no_meaning_is_refused_with_the_reason() {
    let mixed = Person::of([ANN, BEN].map(|face| Identity::new(vec![photo(face)], 1.0)).to_vec());
    let mixed = GenerateRequest { people: vec![mixed], ..request() };
    let (embeddings, pictures) = (with_adapters(false), with_adapters(true));
    assert!(worst(&picture(&embeddings, &mixed), &picture(&embeddings, &request())) > 0);
    assert_eq!(generate(&pictures, &mixed).unwrap_err().code, "mix-unsupported");
    let photos = GenerateRequest { people: vec![Person::new(vec![photo(ANN), photo(BEN)])], ..request() };
    assert!(worst(&picture(&pictures, &photos), &picture(&pictures, &request())) > 0);

    let mut files = tiny_model::files_with_adapters(false);
    files.0.retain(|path, _| !path.starts_with("ip_adapter_2/"));
    let faces_alone = FaceStudio::load(&files, &Device::flex()).unwrap();
    assert_eq!(generate(&faces_alone, &request()).unwrap_err().code, "adapter-missing");
    picture(&faces_alone, &GenerateRequest { style: None, ..request() });
}

/// What a folder with that scheduler and `defaults.json` is made for.
fn defaults(scheduler: &str, file: Option<&str>) -> Result<Defaults> {
    let mut files = tiny_model::files();
    files.0.insert("scheduler/scheduler_config.json".to_owned(), scheduler.as_bytes().to_vec());
    files.0.extend(file.map(|text| ("defaults.json".to_owned(), text.as_bytes().to_vec())));
    FaceStudio::load(&files, &Device::flex()).map(|studio| studio.defaults())
}

#[test]
fn a_folder_says_how_its_model_samples() {
    let made_for = |sampler, steps, guidance_scale| Defaults { sampler, steps, guidance_scale };
    let turbo = r#"{ "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing" }"#;
    let lcm = r#"{ "_class_name": "LCMScheduler" }"#;
    let one_step = Some(r#"{ "steps": 1, "guidance_scale": 1 }"#);
    assert_eq!(studio().defaults(), made_for(Sampler::EulerAncestral, 25, 3.0));
    assert_eq!(defaults(turbo, None).unwrap(), made_for(Sampler::Euler, 25, 3.0));
    assert_eq!(defaults(turbo, one_step).unwrap(), made_for(Sampler::Euler, 1, 1.0));
    assert_eq!(defaults(lcm, None).unwrap(), made_for(Sampler::Lcm, 4, 1.0));
    assert_eq!(defaults(lcm, Some(r#"{ "steps": 8 }"#)).unwrap(), made_for(Sampler::Lcm, 8, 1.0));
    for (file, code) in [
        (r#"{ "steps": 0 }"#, "config-range"),
        (r#"{ "guidance_scale": 0 }"#, "config-range"),
        (r#"{ "guidance": 1 }"#, "config"),
        ("4", "config"),
    ] {
        let error = defaults(lcm, Some(file)).unwrap_err();
        assert_eq!(error.code, code, "{file}");
        assert!(error.message.contains("defaults.json"), "{error}");
    }
    assert_eq!(
        defaults(r#"{ "_class_name": "TCDScheduler" }"#, None).unwrap(),
        made_for(Sampler::Tcd, 4, 1.0)
    );
    let error = defaults(r#"{ "_class_name": "UnCLIPScheduler" }"#, None).unwrap_err();
    assert_eq!(error.code, "config-unsupported");
}
