//! What a request and a model folder say reaches the picture: each setting against a picture that must be the same without it.

#[path = "support/tiny_model.rs"]
mod tiny_model;

use std::ops::ControlFlow;

use burn::tensor::Device;
use facestudio::pipeline::{FaceStudio, Progress};
use facestudio::request::{GenerateRequest, Identity, Person, Photo};
use facestudio::weights::{Component, MemoryFiles, Quantization, Tensors, encode};
use image::{Rgb, RgbImage};

const ANN: [u8; 3] = [255, 210, 180];
const BEN: [u8; 3] = [150, 190, 160];

fn open(files: &MemoryFiles) -> FaceStudio {
    FaceStudio::load(files, &Device::flex()).unwrap()
}

#[track_caller]
fn picture(studio: &FaceStudio, request: &GenerateRequest) -> RgbImage {
    let made = pollster::block_on(studio.generate(request, async |_| ControlFlow::Continue(())));
    made.unwrap().swap_remove(0).image
}

fn worst(a: &RgbImage, b: &RgbImage) -> u8 {
    a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// Bright squares on a dark ground, which the tiny model takes for faces of half the picture's side.
fn photo(faces: &[(u32, [u8; 3])]) -> RgbImage {
    RgbImage::from_fn(64, 64, |x, y| {
        let colour = faces.iter().find(|(at, _)| x.abs_diff(*at).max(y.abs_diff(32)) < 9);
        Rgb(colour.map_or([10, 12, 20], |(_, colour)| *colour))
    })
}

fn person(photos: Vec<RgbImage>, beta: f32) -> Person {
    Person::of(vec![Identity::new(photos, beta)])
}

/// Without the mark, which hides small differences and makes some.
fn request(people: Vec<Person>) -> GenerateRequest {
    let prompt = "a man".to_owned();
    GenerateRequest { people, prompt, steps: 3, watermark: false, ..GenerateRequest::default() }
}

/// The files with a component's tensors, or its config, changed; without the manifest, of which they are no longer.
fn with_tensors(mut files: MemoryFiles, folder: &str, change: impl Fn(&mut Tensors)) -> MemoryFiles {
    let mut tensors = Component::new(&files, folder).tensors().unwrap().read_all().unwrap();
    change(&mut tensors);
    files.0.retain(|path, _| !path.starts_with(&format!("{folder}/")) || path.ends_with(".json"));
    let bytes = encode(&tensors, Quantization::None, &Default::default()).unwrap();
    files.0.insert(format!("{folder}/model.safetensors"), bytes);
    files.0.remove("manifest.json");
    files
}

fn with_config(mut files: MemoryFiles, path: &str, key: &str, value: serde_json::Value) -> MemoryFiles {
    let mut json: serde_json::Value = serde_json::from_slice(&files.0[path]).unwrap();
    json[key] = value;
    files.0.insert(path.to_owned(), json.to_string().into_bytes());
    files.0.remove("manifest.json");
    files
}

#[test]
fn of_several_faces_in_a_photo_the_largest_counts() {
    // A detector whose boxes are smaller where it is brighter.
    let files = with_tensors(tiny_model::files(), "detector", |tensors| {
        let (shape, values) = tensors.0.get_mut("boxes.weight").unwrap();
        let (row, window) = (shape[1..].iter().product::<usize>(), shape[2..].iter().product::<usize>());
        values.chunks_mut(row).for_each(|row| row[window / 2] = -1.0);
    });
    let studio = open(&files);
    for order in [[16, 48], [48, 16]] {
        let both = photo(&[(order[0], BEN), (order[1], ANN)]);
        let faces = pollster::block_on(studio.faces(&both)).unwrap();
        let area = |at: u32| {
            let near =
                faces.iter().find(|face| (face.face_box[0] + face.face_box[2]) as u32 / 2 / 32 == at / 32);
            near.unwrap().area()
        };
        assert_eq!(faces.len(), 2);
        assert!(area(order[0]) > 1.05 * area(order[1]), "{faces:?}");
        let of = |photo: RgbImage| picture(&studio, &request(vec![person(vec![photo], 1.0)]));
        let drawn = of(both);
        assert_eq!(drawn, of(photo(&[(order[0], BEN)])));
        assert_ne!(drawn, of(photo(&[(order[1], ANN)])));
    }
}

#[test]
fn a_photo_that_says_where_its_face_is_is_not_searched() {
    // Its identity encoder's, and its vision encoder's.
    let pictures = with_config(
        tiny_model::files_with_adapters(true),
        "ip_adapter_2/config.json",
        "role",
        "identity".into(),
    );
    for (i, files) in [tiny_model::files(), pictures].iter().enumerate() {
        let studio = open(files);
        let of = |image: RgbImage, landmarks| {
            let photos = vec![Photo { image, landmarks }];
            picture(&studio, &request(vec![Person::of(vec![Identity { photos, beta: 1.0 }])]))
        };
        // In the middle, and at the edge, where the cut-out shows less.
        for at in [32, 12] {
            let shown = photo(&[(at, ANN)]);
            let face = pollster::block_on(studio.faces(&shown)).unwrap().swap_remove(0);
            let searched = of(shown.clone(), None);
            assert_eq!(searched, of(shown.clone(), Some(face.landmarks)), "family {i}");
            let elsewhere = face.landmarks.map(|[x, y]| [x, y + 20.0]);
            assert_ne!(searched, of(shown.clone(), Some(elsewhere)), "family {i}");
            let cut = face.cut_out(&shown);
            of(cut.image, cut.landmarks);
            let nobody = RgbImage::from_pixel(64, 64, Rgb([10, 12, 20]));
            of(nobody, Some(face.landmarks));
        }
    }
}

#[test]
fn a_models_own_size_is_width_by_height() {
    let config =
        with_config(tiny_model::files(), "unet/config.json", "sample_size", serde_json::json!([8, 16]));
    let studio = open(&config);
    let multiple = studio.sizes().multiple;
    assert_eq!(studio.sizes().own, Some([16 * multiple, 8 * multiple]));
    let drawn = picture(&studio, &GenerateRequest { steps: 1, ..request(Vec::new()) });
    assert_eq!(drawn.dimensions(), (16 * multiple as u32, 8 * multiple as u32));
}

#[test]
fn landmarks_that_do_not_fit_their_photo_are_refused() {
    let studio = open(&tiny_model::files());
    let refused = |landmarks, code: &str| {
        let marked = Photo { image: photo(&[(32, ANN)]), landmarks: Some(landmarks) };
        let mut person = person(vec![photo(&[(32, ANN)])], 1.0);
        person.identities[0].photos.push(marked);
        let made = pollster::block_on(
            studio.generate(&request(vec![person.clone()]), async |_| ControlFlow::Continue(())),
        );
        let compared = pollster::block_on(studio.similarity(&photo(&[(32, ANN)]), &person));
        for error in [made.unwrap_err(), compared.unwrap_err()] {
            assert_eq!(error.code, code, "{error}");
            if code == "landmarks-range" {
                assert!(error.message.contains("photo 2 of person 1"), "{error}");
            }
        }
    };
    let fit = [[20.0, 20.0], [40.0, 20.0], [30.0, 30.0], [22.0, 40.0], [38.0, 40.0]];
    for wrong in [[f32::NAN, 20.0], [20.0, f32::INFINITY], [-33.0, 20.0], [20.0, 97.0], [1e30, 20.0]] {
        let mut landmarks = fit;
        landmarks[3] = wrong;
        refused(landmarks, "landmarks-range");
    }
    refused([[20.0, 20.0]; 5], "landmarks-degenerate");
}

#[test]
fn the_weight_of_a_persons_only_identity_changes_nothing() {
    // Adapters of all kinds: embeddings of identities, and embeddings and states of pictures of faces.
    let pictures = with_config(
        tiny_model::files_with_adapters(true),
        "ip_adapter_2/config.json",
        "role",
        "identity".into(),
    );
    let families = [
        tiny_model::files(),
        tiny_model::files_with_adapters(false),
        pictures,
        tiny_model::files_of_arc2face(),
    ];
    for (i, files) in families.iter().enumerate() {
        let studio = open(files);
        let of = |photos: usize, colour, beta| {
            let mut request = request(vec![person(vec![photo(&[(32, colour)]); photos], beta)]);
            if !studio.reads_words() {
                request.prompt.clear();
            }
            picture(&studio, &request)
        };
        let once = of(1, ANN, 1.0);
        assert!(worst(&once, &of(1, BEN, 1.0)) > 1, "family {i}: the face decides");
        for beta in [0.2, 0.5, 3.0] {
            assert!(worst(&once, &of(1, ANN, beta)) <= 1, "family {i}: β {beta}");
        }
        // Of states a second photo brings as many again, among which attention is shared.
        assert!(worst(&once, &of(2, ANN, 0.3)) <= 1, "family {i}: two photos");
    }
}

#[test]
fn alpha_scales_the_adapter_of_the_style_image() {
    // A text encoder that says the same of every text: α moves nothing but the adapter.
    let files = with_tensors(tiny_model::files_with_adapters(false), "text_encoder", |tensors| {
        let (_, values) = tensors.0.get_mut("text_model.final_layer_norm.weight").unwrap();
        values.fill(0.0);
        let (_, values) = tensors.0.get_mut("text_model.final_layer_norm.bias").unwrap();
        values.iter_mut().enumerate().for_each(|(i, v)| *v = (i as f32).sin());
    });
    let style = RgbImage::from_fn(48, 40, |x, y| Rgb([(5 * x) as u8, (6 * y) as u8, 90]));
    let at = |files: &MemoryFiles, alpha| {
        let (style, prompt) = (Some(style.clone()), "a man".to_owned());
        let request = GenerateRequest { style, prompt, alpha, guidance_scale: 1.0, ..request(Vec::new()) };
        picture(&open(files), &request)
    };
    let scaled = |scale: f32| with_config(files.clone(), "ip_adapter_2/config.json", "scale", scale.into());
    for alpha in [0.25, 0.5] {
        assert_eq!(at(&files, alpha), at(&scaled(alpha), 1.0));
        assert_eq!(at(&scaled(2.0), alpha), at(&scaled(2.0 * alpha), 1.0));
        assert!(worst(&at(&files, alpha), &at(&files, 1.0)) > 1);
        assert!(worst(&at(&files, alpha), &at(&files, 0.0)) > 1);
    }
}

#[test]
fn previews_are_the_preview_decoders_and_pictures_are_not() {
    // A second autoencoder, whose decoder's weights are others.
    let other = with_tensors(tiny_model::files(), "vae", |tensors| {
        let decoder = tensors.0.iter_mut().filter(|(name, _)| name.starts_with("decoder."));
        decoder.for_each(|(_, (_, values))| values.iter_mut().for_each(|v| *v *= 0.6));
    });
    let mut both = tiny_model::files();
    for (path, bytes) in &other.0 {
        if let Some(name) = path.strip_prefix("vae/") {
            both.0.insert(format!("tiny_vae/{name}"), bytes.clone());
        }
    }
    both.0.remove("manifest.json");
    let drawn = |files: &MemoryFiles| {
        let request = GenerateRequest {
            preview_every: Some(1),
            ..request(vec![person(vec![photo(&[(32, ANN)])], 1.0)])
        };
        let mut previews = Vec::new();
        let watch = async |progress: Progress| {
            previews.extend(progress.preview);
            ControlFlow::Continue(())
        };
        let made = pollster::block_on(open(files).generate(&request, watch)).unwrap().swap_remove(0).image;
        assert_eq!(previews.len(), request.steps);
        (made, previews)
    };
    let ((picture, own), (others_picture, others)) = (drawn(&tiny_model::files()), drawn(&other));
    assert_ne!(own, others);
    assert_ne!(picture, others_picture);
    assert_eq!(drawn(&both), (picture, others));
}

#[test]
fn a_prompt_against_itself_changes_nothing() {
    // A prior that makes of other noise another embedding: this one's predictions of the embedding itself all but forget it.
    let path = "prior/scheduler_config.json";
    let files = with_config(tiny_model::files(), path, "prediction_type", "v_prediction".into());
    let studio = open(&files);
    let guided = |prompt: &str, negative: &str, guidance_scale| {
        let (prompt, negative_prompt) = (prompt.to_owned(), negative.to_owned());
        let seed = 11;
        picture(
            &studio,
            &GenerateRequest { prompt, negative_prompt, guidance_scale, seed, ..request(Vec::new()) },
        )
    };
    let plain = guided("a smiling man", "", 1.0);
    for scale in [2.0, 6.0] {
        assert!(worst(&guided("a smiling man", "a smiling man", scale), &plain) <= 1);
        assert!(worst(&guided("a smiling man", "a woman with red hair", scale), &plain) > 1);
    }
}
