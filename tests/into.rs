//! People put into a photo, on small models of every family: what is outside of a mask is the
//! photo's to the byte, and inside is who was asked for.

#[path = "support/tiny_model.rs"]
mod tiny_model;

use std::ops::ControlFlow;

use burn::tensor::Device;
use facestudio::image::watermark;
use facestudio::pipeline::{FaceStudio, Generated, Phase, Progress};
use facestudio::request::{GenerateRequest, IntoPhoto, Person, RelativeBox, Replacement, WhichFace};
use facestudio::weights::MemoryFiles;
use facestudio::{Error, Result};
use image::{GrayImage, Luma, Rgb, RgbImage};

const ANN: [u8; 3] = [255, 210, 180];
const BEN: [u8; 3] = [180, 255, 210];

struct Studio {
    files: MemoryFiles,
    studio: FaceStudio,
}

impl Studio {
    fn new(files: MemoryFiles) -> Self {
        let studio = FaceStudio::load(&files, &Device::flex()).unwrap();
        Self { files, studio }
    }

    fn watched(
        &self,
        request: &GenerateRequest,
        watch: impl AsyncFnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>> {
        let bring = async |name: &str| self.studio.load_component(name, &self.files);
        pollster::block_on(self.studio.generate_with(request, watch, bring))
    }

    fn generate(&self, request: &GenerateRequest) -> Result<Vec<Generated>> {
        self.watched(request, async |_| ControlFlow::Continue(()))
    }

    #[track_caller]
    fn picture(&self, request: &GenerateRequest) -> RgbImage {
        self.generate(request).unwrap().swap_remove(0).image
    }
}

/// Bright spots on a dark ground that is nowhere the same, which the small detector takes for faces of half the longer side.
fn photo(width: u32, height: u32, faces: &[[u32; 2]], colour: [u8; 3]) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let near = |at: &[u32; 2]| x.abs_diff(at[0]).max(y.abs_diff(at[1])) < 9;
        let ground = [(x % 23) as u8, (y % 19) as u8, ((x + y) % 17) as u8];
        Rgb(if faces.iter().any(near) { colour } else { ground })
    })
}

fn person(colour: [u8; 3]) -> Person {
    Person::new(vec![photo(64, 64, &[[32, 32]], colour)])
}

fn area(x: f32, y: f32, width: f32, height: f32) -> WhichFace {
    WhichFace::Box(RelativeBox { x, y, width, height })
}

/// The face of the first person, at a box in the middle of the photo's left half.
fn request(colour: [u8; 3]) -> GenerateRequest {
    let face = Replacement { face: area(0.1, 0.3, 0.25, 0.4), person: 0, mask: None };
    GenerateRequest {
        people: vec![person(colour)],
        prompt: "a smiling man".to_owned(),
        into: Some(IntoPhoto { photo: photo(120, 80, &[], ANN), faces: vec![face], strength: 0.8 }),
        steps: 3,
        guidance_scale: 1.0,
        width: Some(32),
        height: Some(32),
        ..GenerateRequest::default()
    }
}

fn into(request: &mut GenerateRequest) -> &mut IntoPhoto {
    request.into.as_mut().unwrap()
}

fn differing(a: &RgbImage, b: &RgbImage) -> Vec<(u32, u32)> {
    assert_eq!(a.dimensions(), b.dimensions());
    a.enumerate_pixels()
        .zip(b.pixels())
        .filter(|((_, _, a), b)| *a != *b)
        .map(|((x, y, _), _)| (x, y))
        .collect()
}

/// Every family, and what it is asked beside the people.
fn families() -> Vec<(&'static str, MemoryFiles, &'static str)> {
    vec![
        ("fused", tiny_model::files(), "a smiling man"),
        ("transformer", tiny_model::files_of_transformer(), "a smiling man"),
        ("adapters", tiny_model::files_with_adapters(false), "a smiling man"),
        ("pictures of faces", tiny_model::files_with_adapters(true), "a smiling man"),
        ("arc2face", tiny_model::files_of_arc2face(), ""),
        ("klein", tiny_model::files_of_klein(true), "a smiling man"),
    ]
}

#[test]
fn outside_of_the_mask_the_picture_is_the_photo_whatever_draws() {
    let mask = GrayImage::from_fn(120, 80, |x, y| {
        Luma([if (20..50).contains(&x) && (15..60).contains(&y) { 255 } else { 0 }])
    });
    for (family, files, prompt) in families() {
        let studio = Studio::new(files);
        let sampler = studio.studio.defaults().sampler;
        let mut oval = GenerateRequest { prompt: prompt.to_owned(), sampler, ..request(ANN) };
        let photo = into(&mut oval).photo.clone();
        let made = studio.generate(&oval).unwrap_or_else(|e| panic!("{family}: {e}")).swap_remove(0);
        let changed = differing(&photo, &made.image);
        // The box is 12 to 42 by 24 to 56: half its width and height more on each side hold the head and its soft edge.
        assert!(changed.len() > 300, "{family}: {}", changed.len());
        assert!(changed.iter().all(|(x, y)| *x < 62 && (1..66).contains(y)), "{family}");

        let mut masked = oval.clone();
        into(&mut masked).faces[0].mask = Some(mask.clone());
        let within = studio.picture(&masked);
        let changed = differing(&photo, &within);
        assert!(changed.len() > 300, "{family}");
        assert!(changed.iter().all(|(x, y)| mask.get_pixel(*x, *y).0[0] == 255), "{family}");

        // Who is drawn counts, and the seed; the same request gives the same picture.
        assert!(studio.picture(&oval) == made.image, "{family}");
        let other = studio.picture(&GenerateRequest { people: vec![person(BEN)], ..oval.clone() });
        assert!(!differing(&other, &made.image).is_empty(), "{family}");
        let other = studio.picture(&GenerateRequest { seed: 1, ..oval.clone() });
        assert!(!differing(&other, &made.image).is_empty(), "{family}");
        // Strength 0 gives it back as the autoencoder sees it, which the soft edge and the mark alone are told from.
        into(&mut oval).strength = 0.0;
        assert!(!differing(&studio.picture(&oval), &made.image).is_empty(), "{family}");
    }
}

#[test]
fn the_surroundings_are_the_style_where_nothing_else_is_said() {
    let studio = Studio::new(tiny_model::files());
    let silent = GenerateRequest { prompt: String::new(), ..request(ANN) };
    let photo = silent.into.as_ref().unwrap().photo.clone();
    let made = studio.generate(&silent).unwrap().swap_remove(0);
    assert!(!differing(&photo, &made.image).is_empty());
    // It is another picture with another style, and where words say what it is.
    let styled =
        GenerateRequest { style: Some(RgbImage::from_pixel(40, 40, Rgb([200, 30, 30]))), ..silent.clone() };
    assert!(!differing(&studio.picture(&styled), &made.image).is_empty());
    assert!(!differing(&studio.picture(&request(ANN)), &made.image).is_empty());
    assert_eq!(made.recipe.style, None);
}

#[test]
fn faces_are_found_and_several_change_in_one_go() {
    let studio = Studio::new(tiny_model::files());
    let both = photo(160, 80, &[[40, 40], [120, 40]], ANN);
    let found = pollster::block_on(studio.studio.faces(&both)).unwrap();
    assert_eq!(found.len(), 2);
    let replace = |faces: &[(usize, usize)]| {
        let faces = faces.iter().map(|(index, person)| Replacement {
            face: WhichFace::Index(*index),
            person: *person,
            mask: None,
        });
        let people = [person(ANN), person(BEN)].into_iter().take(faces.len()).collect();
        let into = IntoPhoto { photo: both.clone(), faces: faces.collect(), strength: 0.7 };
        GenerateRequest { people, into: Some(into), ..request(ANN) }
    };
    let mut steps = Vec::new();
    let watch = async |progress: Progress| {
        if progress.phase == Phase::Denoise {
            steps.push((progress.step, progress.steps));
        }
        ControlFlow::Continue(())
    };
    let made = studio.watched(&replace(&[(0, 0), (1, 1)]), watch).unwrap().swap_remove(0);
    // Strength 0.7 takes two of three steps, of each face.
    assert_eq!(steps, [(1, 4), (2, 4), (3, 4), (4, 4)]);
    let changed = differing(&both, &made.image);
    assert!(changed.iter().any(|(x, _)| *x < 80) && changed.iter().any(|(x, _)| *x >= 80));
    // One alone leaves the other's half as it is, and a face is known again by the box in the recipe.
    let one = studio.generate(&replace(&[(1, 0)])).unwrap().swap_remove(0);
    // Between two faces a pixel of the small canvas is several of the photo's.
    let sides: Vec<bool> = differing(&both, &one.image)
        .iter()
        .filter(|(x, _)| x.abs_diff(80) > 8)
        .map(|(x, _)| *x < 80)
        .collect();
    assert!(!sides.is_empty() && sides.iter().all(|side| *side == sides[0]));
    let named = &one.recipe.into.as_ref().unwrap().faces[0];
    let WhichFace::Box(area) = named.face else { panic!("{named:?}") };
    assert_eq!(area.x < 0.5, sides[0]);
    let pictures = [both.clone(), photo(64, 64, &[[32, 32]], ANN)];
    let again = one.recipe.request(&pictures, &[], &[], [None; 2]).unwrap();
    assert!(studio.picture(&again) == one.image);
}

#[test]
fn cancelling_stops_within_a_step_whichever_face_is_drawn() {
    let studio = Studio::new(tiny_model::files());
    let second = Replacement { face: area(0.6, 0.3, 0.25, 0.4), person: 0, mask: None };
    let mut asked = request(ANN);
    into(&mut asked).faces.push(second);
    let mut all = 0;
    studio
        .watched(&asked, async |_| {
            all += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    for stop in 1..=all {
        studio.studio.forget_encoded();
        let mut calls = 0;
        let watch = async |_| {
            calls += 1;
            if calls == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let error = studio.watched(&asked, watch).map(|_| ()).unwrap_err();
        assert_eq!((error, calls), (Error::cancelled(), stop));
    }
}

#[test]
fn each_picture_of_a_request_has_its_own_seed() {
    let studio = Studio::new(tiny_model::files());
    let two = studio.generate(&GenerateRequest { count: 2, seed: 6, ..request(ANN) }).unwrap();
    assert_eq!(two.iter().map(|made| made.recipe.seed).collect::<Vec<_>>(), [6, 7]);
    assert!(!differing(&two[0].image, &two[1].image).is_empty());
    assert!(studio.picture(&GenerateRequest { seed: 7, ..request(ANN) }) == two[1].image);
}

#[test]
fn of_several_candidates_the_most_alike_comes_first() {
    let studio = Studio::new(tiny_model::files());
    let mut asked = GenerateRequest { candidates: 3, seed: 6, ..request(ANN) };
    *into(&mut asked) = IntoPhoto {
        photo: photo(160, 80, &[[40, 40], [120, 40]], ANN),
        faces: vec![Replacement { face: WhichFace::Index(0), person: 0, mask: None }],
        strength: 0.8,
    };
    let made = studio.generate(&asked).unwrap();
    let mut seeds: Vec<u64> = made.iter().map(|made| made.recipe.seed).collect();
    let likeness: Vec<f32> = made.iter().filter_map(|made| made.likeness).collect();
    assert!(likeness.len() == 3 && likeness.is_sorted_by(|a, b| a >= b), "{likeness:?}");
    seeds.sort_unstable();
    assert_eq!(seeds, [6, 7, 8]);
}

#[test]
fn the_mark_is_inside_the_faces_alone_and_cannot_be_left_out() {
    let studio = Studio::new(tiny_model::files());
    let mut asked = request(ANN);
    asked.watermark = false;
    assert_eq!(studio.generate(&asked).map(|_| ()).unwrap_err().code, "into-unmarked");
    // A head that fills most of a large photo leaves enough of the mark to be found.
    let mut large = request(ANN);
    *into(&mut large) = IntoPhoto {
        photo: photo(512, 512, &[], ANN),
        faces: vec![Replacement { face: area(0.2, 0.25, 0.6, 0.6), person: 0, mask: None }],
        strength: 0.8,
    };
    assert!(watermark::detect(&studio.picture(&large)).unwrap().found());
    assert!(!watermark::detect(&photo(512, 512, &[], ANN)).unwrap().found());
}

#[test]
fn what_cannot_be_put_into_a_photo_is_refused_by_name() {
    let studio = Studio::new(tiny_model::files());
    let code = |change: &dyn Fn(&mut IntoPhoto)| {
        let mut request = request(ANN);
        change(into(&mut request));
        studio.generate(&request).map(|_| ()).unwrap_err().code
    };
    assert_eq!(code(&|into| into.faces[0].face = WhichFace::Index(0)), "face-not-found");
    let one = photo(120, 80, &[[40, 40]], ANN);
    assert_eq!(
        code(&|into| (into.photo, into.faces[0].face) = (one.clone(), WhichFace::Index(1))),
        "face-index"
    );
    assert_eq!(code(&|into| into.faces.push(into.faces[0].clone())), "into-faces");
    assert_eq!(code(&|into| into.faces[0].mask = Some(GrayImage::new(120, 80))), "mask-empty");
    assert_eq!(code(&|into| into.faces[0].mask = Some(GrayImage::new(80, 120))), "mask-size");
    assert_eq!(code(&|into| into.faces[0].person = 3), "into-faces");
    // A face alone says who: a model that draws from faces alone has no place for words.
    let arc2face = Studio::new(tiny_model::files_of_arc2face());
    assert_eq!(arc2face.generate(&request(ANN)).map(|_| ()).unwrap_err().code, "identity-only");
    let mut silent = request(ANN);
    silent.prompt = String::new();
    arc2face.generate(&silent).unwrap();
}
