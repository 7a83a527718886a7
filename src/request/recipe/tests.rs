use super::*;
use crate::request::{Identity, InitImage, IntoPhoto, Layout, Person, RelativeBox, Replacement, WhichFace};
use ::image::{Luma, Rgb};

fn picture(value: u8) -> RgbImage {
    RgbImage::from_fn(3, 2, |x, y| Rgb([value, x as u8, y as u8]))
}

fn mask(value: u8) -> GrayImage {
    GrayImage::from_pixel(4, 4, Luma([value]))
}

fn model() -> ModelId {
    ModelId { name: Some("tiny".to_owned()), version: Some("1".to_owned()), sha256: "00ff".repeat(16) }
}

fn learnt() -> Embedding {
    Embedding::new("ann", vec![0.5, -1.0], 2).unwrap()
}

/// Every field is another than its default.
fn request() -> GenerateRequest {
    let identity = |value, beta| Identity { photos: vec![picture(value).into()], beta };
    GenerateRequest {
        people: vec![Person::of(vec![identity(1, 0.7), identity(2, 0.3)]), Person::new(vec![picture(3)])],
        style: Some(picture(4)),
        prompt: "a “man”".to_owned(),
        roles: Some(Roles { style: "as {images}".to_owned(), ..Roles::default() }),
        negative_prompt: "fog".to_owned(),
        embeddings: vec![learnt()],
        clip_skip: 2,
        alpha: 0.1,
        layout: Layout::Masks(vec![mask(1), mask(2)]),
        background: Background::Hold,
        init: Some(InitImage { image: picture(5), strength: 0.6, mask: Some(mask(3)) }),
        into: Some(IntoPhoto {
            photo: picture(7),
            faces: vec![Replacement { face: WhichFace::Index(1), person: 1, mask: Some(mask(5)) }],
            strength: 0.45,
        }),
        redraw_faces: Some(RedrawFaces { strength: 0.35, from: Some(40.0) }),
        seed: u64::MAX,
        count: 3,
        candidates: 2,
        steps: 7,
        guidance_scale: 2.3,
        sampler: Sampler::Heun,
        width: None,
        height: None,
        preview_every: Some(2),
        watermark: false,
        prompt_in_metadata: true,
    }
}

fn recipe(request: &GenerateRequest) -> Recipe {
    Recipe::new(request, model(), "f32", [64, 32]).unwrap()
}

fn json(recipe: &Recipe) -> String {
    serde_json::to_string(recipe).unwrap()
}

fn album() -> (Vec<RgbImage>, Vec<GrayImage>) {
    ((1..=7).rev().map(picture).collect(), (1..=5).rev().map(mask).collect())
}

#[test]
fn a_recipe_and_its_pictures_are_the_request() {
    let (pictures, masks) = album();
    let boxes = Layout::Boxes(vec![RelativeBox { x: 0.1, y: 0.2, width: 0.3, height: 0.4 }; 2]);
    for layout in [request().layout, boxes, Layout::Content(picture(6))] {
        let recipe = recipe(&GenerateRequest { layout: layout.clone(), ..request() });
        assert_eq!(Recipe::from_json(&json(&recipe)).unwrap(), recipe);
        let again = recipe.request(&pictures, &masks, &[learnt()], [None; 2]).unwrap();
        assert_eq!(self::recipe(&again), recipe);
        assert_eq!(again.layout, layout);
        assert_eq!((&again.embeddings[..], again.clip_skip), (&[learnt()][..], 2));
        let expected = request();
        assert_eq!((again.people, again.style, again.init), (expected.people, expected.style, expected.init));
        assert_eq!((again.into, again.redraw_faces), (expected.into, expected.redraw_faces));
        assert_eq!((again.count, again.width, again.height), (1, Some(64), Some(32)));
    }
}

#[test]
fn what_decides_the_picture_is_in_its_recipe() {
    let whole = recipe(&request());
    let changes: [fn(&mut GenerateRequest); 31] = [
        |r| r.people[0].identities[1].beta = 0.4,
        |r| r.people[0].identities[1].photos[0] = picture(9).into(),
        |r| r.people[0].identities[1].photos[0].landmarks = Some([[1.0, 0.5]; 5]),
        |r| r.people.swap(0, 1),
        |r| r.people[1].strength = 0.5,
        |r| r.people[1].start = 0.25,
        |r| r.people[1].end = 0.75,
        |r| r.style = None,
        |r| r.style = Some(picture(9)),
        |r| r.prompt.push('.'),
        |r| r.roles = None,
        |r| r.roles.as_mut().unwrap().person.clear(),
        |r| r.negative_prompt.clear(),
        |r| r.embeddings.clear(),
        |r| r.embeddings[0] = r.embeddings[0].named("ben").unwrap(),
        |r| r.clip_skip = 1,
        |r| r.alpha = 0.2,
        |r| r.layout = Layout::Masks(vec![mask(1), mask(9)]),
        |r| r.background = Background::Person(1),
        |r| r.init.as_mut().unwrap().strength = 0.5,
        |r| r.init.as_mut().unwrap().mask = None,
        |r| r.into = None,
        |r| r.into.as_mut().unwrap().photo = picture(9),
        |r| r.into.as_mut().unwrap().faces[0].face = WhichFace::Index(0),
        |r| r.into.as_mut().unwrap().faces[0].mask = None,
        |r| r.redraw_faces.as_mut().unwrap().from = None,
        |r| r.seed = 1,
        |r| r.steps = 8,
        |r| r.guidance_scale = 1.0,
        |r| r.sampler = Sampler::Euler,
        |r| r.watermark = true,
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut request = request();
        change(&mut request);
        assert_ne!(recipe(&request), whole, "{i}");
    }
    let with = |change: fn(&mut GenerateRequest)| {
        let mut request = request();
        change(&mut request);
        recipe(&request)
    };
    // How many more are made, and what is shown on the way, decide nothing.
    assert_eq!(with(|r| (r.count, r.candidates, r.preview_every) = (1, 1, None)), whole);
    // Two pictures of as many bytes and other shapes are two.
    let rotated = ImageBuffer::from_raw(2, 3, picture(1).into_raw()).unwrap();
    assert_ne!(PixelHash::of(&picture(1)), PixelHash::of::<Rgb<u8>, Vec<u8>>(&rotated));
    // Width 2 and height 1 little-endian, then two black pixels.
    assert_eq!(
        PixelHash::of(&RgbImage::new(2, 1)).to_string(),
        crate::weights::sha256(&[2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    );
}

#[test]
fn a_picture_that_is_missing_is_named() {
    let recipe = recipe(&request());
    let (pictures, masks) = album();
    let names = [
        (1, "person 1"),
        (2, "person 1"),
        (3, "person 2"),
        (4, "the style picture"),
        (5, "the start picture"),
        (7, "the photo"),
    ];
    for (value, name) in names {
        let others: Vec<_> = pictures.iter().filter(|own| **own != picture(value)).cloned().collect();
        let error = recipe.request(&others, &masks, &[learnt()], [None; 2]).unwrap_err();
        assert_eq!(error.code, "recipe-picture");
        let hash = PixelHash::of(&picture(value)).to_string();
        assert!(error.message.contains(name) && error.message.contains(&hash), "{error}");
    }
    for (value, name) in [(2, "mask 2"), (3, "the mask of the start picture"), (5, "the mask of face 1")] {
        let others: Vec<_> = masks.iter().filter(|own| **own != mask(value)).cloned().collect();
        let error = recipe.request(&pictures, &others, &[learnt()], [None; 2]).unwrap_err();
        assert!(error.code == "recipe-picture" && error.message.contains(name), "{error}");
    }
}

#[test]
fn an_embedding_is_known_by_its_vectors_and_has_its_word() {
    let (pictures, masks) = album();
    let again = |recipe: &Recipe, given: &[Embedding], words| recipe.request(&pictures, &masks, given, words);
    let other = Embedding::new("ann", vec![0.5, 1.0], 2).unwrap();
    let error = again(&recipe(&request()), &[other], [None; 2]).unwrap_err();
    assert!(error.code == "recipe-embedding" && error.message.contains("'ann'"), "{error}");
    // From another file, under the word that the prompt has.
    let renamed = learnt().named("file").unwrap();
    let request_again = again(&recipe(&request()), std::slice::from_ref(&renamed), [None; 2]).unwrap();
    assert_eq!(request_again.embeddings, [learnt()]);
    // Without words in the recipe, the word is as it is given.
    let silent = recipe(&GenerateRequest { prompt_in_metadata: false, ..request() });
    assert!(!json(&silent).contains("ann"));
    let request_again = again(&silent, std::slice::from_ref(&renamed), [Some("a"), Some("b")]).unwrap();
    assert_eq!(request_again.embeddings, [renamed]);
    let plain = GenerateRequest { embeddings: Vec::new(), clip_skip: 1, ..request() };
    assert!(!json(&recipe(&plain)).contains("clip_skip") && !json(&recipe(&plain)).contains("embeddings"));
}

#[test]
fn words_are_its_own_or_are_given() {
    let silent = recipe(&GenerateRequest { prompt_in_metadata: false, ..request() });
    assert!(!json(&silent).contains("fog") && !json(&silent).contains("prompt"));
    let (pictures, masks) = album();
    let code =
        |recipe: &Recipe, words| recipe.request(&pictures, &masks, &[learnt()], words).map_err(|e| e.code);
    for words in [[None, None], [Some("a"), None], [None, Some("a")]] {
        assert_eq!(code(&silent, words).unwrap_err(), "recipe-words");
    }
    let again = code(&silent, [Some("a “man”"), Some("fog")]).unwrap();
    assert!(!again.prompt_in_metadata, "what was not told then is not told now");
    assert_eq!((again.prompt, again.negative_prompt), (request().prompt, request().negative_prompt));
    assert_eq!(code(&recipe(&request()), [Some("a"), None]).unwrap_err(), "recipe-words");
    let empty = recipe(&GenerateRequest { negative_prompt: String::new(), ..request() });
    assert_eq!(code(&empty, [None; 2]).unwrap().negative_prompt, "");
}

#[test]
fn another_model_and_another_precision_are_refused() {
    let recipe = recipe(&request());
    recipe.check(&model(), "f32").unwrap();
    // The name is for people.
    recipe.check(&ModelId { name: None, version: None, ..model() }, "f32").unwrap();
    let other = ModelId { sha256: "11".repeat(32), ..model() };
    let error = recipe.check(&other, "f32").unwrap_err();
    assert!(error.code == "recipe-model" && error.message.contains("tiny 1 (00ff"), "{error}");
    assert_eq!(recipe.check(&model(), "f16").unwrap_err().code, "recipe-precision");
}

#[test]
fn other_formats_and_fields_are_refused() {
    let good = json(&recipe(&request()));
    let message = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        let error = Recipe::from_json(&good.replacen(from, to, 1)).unwrap_err();
        assert_eq!(error.code, "recipe-format", "{error}");
        error.message
    };
    assert!(message("\"format\":1", "\"format\":2").contains("format 2; this version reads 1"));
    assert!(message("\"steps\":7", "\"steps\":7,\"sharpness\":3").contains("sharpness"));
    assert!(message("\"strength\":", "\"strenght\":").contains("strenght"));
    assert!(message("\"sampler\":\"heun\"", "\"sampler\":\"fastest\"").contains("fastest"));
    assert!(message("\"hold\"", "\"drop\"").contains("drop"));
    let hash = PixelHash::of(&picture(4)).to_string();
    assert!(message(&hash, &hash[1..]).contains("64 digits"));
    assert!(message("{", "[").contains("cannot be read"));
    // What versions before recipes wrote.
    let old = r#"{"version":"0.1.0","generated":true,"alpha":0.5,"seed":3,"steps":25}"#;
    let error = Recipe::from_json(old).unwrap_err();
    assert!(error.code == "recipe-format" && error.message.contains("format"), "{error}");
}

/// `web/engine/recipe.d.ts` is written from the types here: `UPDATE_TYPES=1 cargo test --lib recipe` writes it anew.
#[test]
fn typescript_knows_the_same_recipe() {
    use ts_rs::{Config, TS};

    fn declared<T: TS>(config: &Config) -> String {
        let lines =
            |text: String| text.lines().map(|line| line.trim_end().to_owned() + "\n").collect::<String>();
        format!("\n{}export {}", lines(T::docs().unwrap_or_default()), lines(T::decl(config)))
    }
    let config = Config::default();
    let mut types = "\
        // Written from src/request.rs and its folder by the test `typescript_knows_the_same_recipe`; not edited.\n\n\
        import type { Sampler } from \"./protocol.js\";\n"
        .to_owned();
    type Any = PixelHash;
    types += &declared::<Recipe>(&config);
    types += &declared::<ModelId>(&config);
    types += &declared::<PixelHash>(&config);
    types += &declared::<Roles>(&config);
    types += &declared::<EmbeddingHash>(&config);
    types += &declared::<PhotoHash>(&config);
    types += &declared::<PersonOf<Any>>(&config);
    types += &declared::<super::super::IdentityOf<Any>>(&config);
    types += &declared::<LayoutOf<Any, Any>>(&config);
    types += &declared::<RelativeBox>(&config);
    types += &declared::<Background>(&config);
    types += &declared::<InitImageOf<Any, Any>>(&config);
    types += &declared::<IntoPhotoOf<Any, Any>>(&config);
    types += &declared::<super::super::ReplacementOf<Any>>(&config);
    types += &declared::<super::super::WhichFace>(&config);
    types += &declared::<RedrawFaces>(&config);

    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web/engine/recipe.d.ts");
    if std::env::var_os("UPDATE_TYPES").is_some() {
        std::fs::write(&path, &types).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == types,
        "web/engine/recipe.d.ts is not of these types; write it anew with UPDATE_TYPES=1"
    );
}
