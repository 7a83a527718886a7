use std::collections::BTreeMap;

use super::*;
use crate::guidance::ip_adapter::ProjectionConfig;
use crate::pipeline::family::made_up::{assert_same, halves, request, row, seen, waves};
use crate::request::Identity;
use crate::weights::Tensors;

const WIDTH: usize = 4;
const EMBED: usize = 6;
const ID: usize = 3;
const HIDDEN: usize = 5;
/// Of a text.
const TOKENS: [usize; 3] = [1, 7, WIDTH];

fn adapter(role: Role, projection: ProjectionConfig, shapes: &[(&str, &[usize])]) -> Adapter {
    let mut tensors = Tensors::default();
    for (i, (name, shape)) in shapes.iter().enumerate() {
        let values = waves(i as f32, [shape.iter().product()]).try_into_vec_as::<f32>().unwrap();
        tensors.0.insert(format!("image_proj.{name}"), (shape.to_vec(), values));
    }
    let config =
        IpAdapterConfig { role, projection, scale: 0.8, block_scales: BTreeMap::new(), interval: [0.1, 0.9] };
    let projection = config.projection.load(&tensors, &Device::flex()).unwrap();
    Adapter { config, projection, scale: LayerScale::All(0.8) }
}

/// Reads identities.
fn face_id() -> Adapter {
    let projection = ProjectionConfig::FaceId {
        id_embed_dim: ID,
        intermediate_size: 6,
        num_tokens: 2,
        cross_attention_dim: WIDTH,
    };
    let shapes: [(&str, &[usize]); 6] = [
        ("proj.0.weight", &[6, ID]),
        ("proj.0.bias", &[6]),
        ("proj.2.weight", &[2 * WIDTH, 6]),
        ("proj.2.bias", &[2 * WIDTH]),
        ("norm.weight", &[WIDTH]),
        ("norm.bias", &[WIDTH]),
    ];
    adapter(Role::Identity, projection, &shapes)
}

/// Reads a picture's embedding.
fn image(role: Role) -> Adapter {
    let projection =
        ProjectionConfig::Image { image_embed_dim: EMBED, num_tokens: 3, cross_attention_dim: WIDTH };
    let shapes: [(&str, &[usize]); 4] = [
        ("proj.weight", &[3 * WIDTH, EMBED]),
        ("proj.bias", &[3 * WIDTH]),
        ("norm.weight", &[WIDTH]),
        ("norm.bias", &[WIDTH]),
    ];
    adapter(role, projection, &shapes)
}

/// Reads a picture's states.
fn full_face() -> Adapter {
    let projection = ProjectionConfig::FullFace { hidden_size: HIDDEN, cross_attention_dim: WIDTH };
    let shapes: [(&str, &[usize]); 6] = [
        ("proj.0.weight", &[HIDDEN, HIDDEN]),
        ("proj.0.bias", &[HIDDEN]),
        ("proj.2.weight", &[WIDTH, HIDDEN]),
        ("proj.2.bias", &[WIDTH]),
        ("proj.3.weight", &[WIDTH]),
        ("proj.3.bias", &[WIDTH]),
    ];
    adapter(Role::Identity, projection, &shapes)
}

fn person(phase: f32) -> PersonEvidence {
    PersonEvidence { id_embeds: Some(waves(phase, [1, ID])), ..PersonEvidence::default() }
}

fn condition(
    adapters: Vec<Adapter>,
    evidence: &Evidence,
    request: &GenerateRequest,
    places: Option<&Places>,
) -> (AdapterGuidance, Vec<Guided>) {
    let family = AdapterGuidance { adapters };
    let guided = family.condition(evidence, request, places, &Device::flex()).unwrap();
    (family, guided)
}

#[test]
fn text_faces_and_style_have_a_stream_each_and_alpha_weighs_text_against_style() {
    let evidence = Evidence {
        people: vec![person(1.0), person(2.0)],
        style: Some(seen(3.0, EMBED, None)),
        // The prompt, no prompt, the negative prompt.
        tokens: [4.0, 5.0, 6.0].map(|phase| waves(phase, TOKENS)).into(),
        ..Evidence::default()
    };
    let (request, places) = (GenerateRequest { count: 2, ..request(2) }, halves());
    let (family, guided) = condition(vec![face_id(), image(Role::Style)], &evidence, &request, Some(&places));
    assert_eq!((guided.len(), guided[1].guidance_scale), (2, Some(3.0)));
    let [text, faces, style] = &guided[0].condition.streams[..] else { panic!("{guided:?}") };

    assert_eq!((text.projection, &text.scale), (Layers::Own, &LayerScale::All(1.0)));
    let [prompt, nothing, negative] = [0, 1, 2].map(|i| evidence.tokens[i].clone());
    assert_same(row(&text.tokens[0], 1), prompt * 0.75 + nothing * 0.25);
    assert_same(row(&text.tokens[0], 0), negative);

    assert_eq!((faces.projection, &faces.scale), (Layers::Adapter(0), &LayerScale::All(0.8)));
    assert!(faces.places.is_some() && faces.interval == (0.1..0.9));
    let projected = |adapter: usize, embeds: ImagePromptEmbeds| {
        family.adapters[adapter].projection.forward(&embeds).unwrap()
    };
    for (tokens, person) in faces.tokens.iter().zip(&evidence.people) {
        let of =
            |id_embeds| projected(0, ImagePromptEmbeds { id_embeds: Some(id_embeds), ..Default::default() });
        let id_embeds = person.id_embeds.clone().unwrap();
        assert_same(row(tokens, 0), of(id_embeds.zeros_like()));
        assert_same(row(tokens, 1), of(id_embeds));
    }

    assert_eq!((style.projection, &style.scale), (Layers::Adapter(1), &LayerScale::All(0.8 * 0.25)));
    assert!(style.places.is_none());
    let of = |embeds| projected(1, ImagePromptEmbeds { image_embeds: Some(embeds), ..Default::default() });
    let embeds = evidence.style.as_ref().unwrap().image_embeds.clone();
    assert_same(row(&style.tokens[0], 0), of(embeds.zeros_like()));
    assert_same(row(&style.tokens[0], 1), of(embeds));
}

#[test]
fn who_acts_alike_shares_a_stream_in_which_others_are_nothing() {
    let people = [1.0, 2.0, 3.0].map(person);
    let evidence =
        Evidence { people: people.into(), tokens: vec![waves(4.0, TOKENS)], ..Evidence::default() };
    let mut request = GenerateRequest { style: None, guidance_scale: 1.0, ..request(3) };
    (request.people[1].strength, request.people[1].end) = (0.5, 0.5);
    let thirds = (0..3).map(|i| (0..3).map(|p| if p == i { 1.0 } else { 0.0 }).collect()).collect();
    let places = Places::Regions(crate::condition::Regions::new(1, 3, thirds, 0).unwrap());
    let (_, guided) = condition(vec![face_id()], &evidence, &request, Some(&places));
    let [_, most, one] = &guided[0].condition.streams[..] else { panic!("{guided:?}") };
    assert_eq!((&most.scale, &one.scale), (&LayerScale::All(0.8), &LayerScale::All(0.4)));
    assert_eq!((most.interval.clone(), one.interval.clone()), (0.1..0.9, 0.1..0.5));
    let size = |tokens: &Tensor<3>| tokens.clone().abs().max().into_scalar::<f32>();
    for (stream, there) in [(most, [true, false, true]), (one, [false, true, false])] {
        assert_eq!(stream.places, Some(places.clone()));
        assert!(stream.tokens.iter().zip(there).all(|(tokens, there)| (size(tokens) > 0.0) == there));
    }
}

/// Of 14, 7 and 21 tokens: no prompt twice beside the prompt, and both halves of guidance to 42.
#[test]
fn shorter_texts_are_repeated_beside_longer_ones() {
    let [prompt, nothing, negative] =
        [(4.0, 14), (5.0, 7), (6.0, 21)].map(|(phase, tokens)| waves(phase, [1, tokens, WIDTH]));
    let evidence = Evidence {
        style: Some(seen(3.0, EMBED, None)),
        tokens: vec![prompt.clone(), nothing.clone(), negative.clone()],
        ..Evidence::default()
    };
    let (_, guided) = condition(vec![image(Role::Style)], &evidence, &request(0), None);
    let text = &guided[0].condition.streams[0].tokens[0];
    assert_eq!(text.dims(), [2, 42, WIDTH]);
    let mixed = prompt * 0.75 + nothing.repeat_dim(1, 2) * 0.25;
    assert_same(row(text, 1), mixed.repeat_dim(1, 3));
    assert_same(row(text, 0), negative.repeat_dim(1, 2));
}

#[test]
fn adapters_without_anything_to_read_have_no_stream() {
    let evidence = Evidence { tokens: vec![waves(4.0, TOKENS)], ..Evidence::default() };
    let request = GenerateRequest { style: None, guidance_scale: 1.0, ..request(0) };
    let (_, guided) = condition(vec![face_id(), image(Role::Style)], &evidence, &request, None);
    let [text] = &guided[0].condition.streams[..] else { panic!("{guided:?}") };
    assert_eq!(guided[0].guidance_scale, None);
    assert_same(text.tokens[0].clone(), waves(4.0, TOKENS));
    // A text that was not read is our own mistake.
    let nothing = Evidence::default();
    let family = AdapterGuidance { adapters: Vec::new() };
    let error = family.condition(&nothing, &request, None, &Device::flex()).unwrap_err();
    assert_eq!(error.code, "condition-shape");
}

#[test]
fn embeddings_of_photos_are_averaged_by_weight_and_states_are_joined() {
    let (first, second) = (seen(1.0, EMBED, Some([1, 2, HIDDEN])), seen(2.0, EMBED, Some([1, 2, HIDDEN])));
    let nothing = seen(3.0, EMBED, Some([1, 2, HIDDEN]));
    let evidence = Evidence {
        people: vec![PersonEvidence {
            id_embeds: None,
            faces: vec![(0.3, first.clone()), (0.1, second.clone())],
            ..PersonEvidence::default()
        }],
        nothing: Some(nothing.clone()),
        tokens: [4.0, 6.0].map(|phase| waves(phase, TOKENS)).into(),
        ..Evidence::default()
    };
    let request = GenerateRequest { style: None, ..request(1) };
    let (family, guided) = condition(vec![full_face(), image(Role::Identity)], &evidence, &request, None);
    let [_, states, embeds] = &guided[0].condition.streams[..] else { panic!("{guided:?}") };
    let state = |seen: &VisionOutput| seen.penultimate_hidden_state.clone().unwrap();
    let of = |states: [Tensor<3>; 2]| {
        let hidden_states = Some(Tensor::cat(states.into(), 1));
        family.adapters[0]
            .projection
            .forward(&ImagePromptEmbeds { hidden_states, ..Default::default() })
            .unwrap()
    };
    assert_same(row(&states.tokens[0], 1), of([state(&first), state(&second)]));
    // What the encoder says to nothing, once for each photo.
    assert_same(row(&states.tokens[0], 0), of([state(&nothing), state(&nothing)]));
    let mean = first.image_embeds * 0.75 + second.image_embeds * 0.25;
    let mean = ImagePromptEmbeds { image_embeds: Some(mean), ..Default::default() };
    assert_same(row(&embeds.tokens[0], 1), family.adapters[1].projection.forward(&mean).unwrap());
}

#[test]
fn what_is_read_follows_from_the_adapters_and_what_none_reads_is_refused() {
    let both = AdapterGuidance { adapters: vec![face_id(), image(Role::Style)] };
    both.check(&request(1)).unwrap();
    let asked = request(1);
    let needs = both.needs(&asked, None);
    assert_eq!((needs.identities, needs.faces, needs.nothing), (true, false, true));
    assert_eq!(needs.style, Some(Style::Whole));
    let Texts::Tokens(texts) = &needs.texts else { panic!("{needs:?}") };
    assert_eq!(texts[..], ["a man", "", ""]);
    let worded = GenerateRequest { style: None, guidance_scale: 1.0, ..request(1) };
    let needs = both.needs(&worded, None);
    assert!(!needs.nothing && needs.style.is_none());
    let Texts::Tokens(texts) = &needs.texts else { panic!("{needs:?}") };
    assert_eq!(texts[..], ["a man"]);

    let styles = AdapterGuidance { adapters: vec![image(Role::Style)] };
    let faces = AdapterGuidance { adapters: vec![full_face()] };
    assert!(styles.reads_styles() && !faces.reads_styles());
    for (family, what) in [(&styles, "faces"), (&faces, "a style image")] {
        let error = family.check(&request(1)).unwrap_err();
        assert!(error.code == "adapter-missing" && error.message.contains(what), "{error}");
    }
    let photo = || Identity::new(vec![::image::RgbImage::new(1, 1)], 1.0);
    let mixed = Person::of(vec![photo(), photo()]);
    let mixed = GenerateRequest { people: vec![mixed], style: None, ..request(0) };
    assert_eq!(faces.check(&mixed).unwrap_err().code, "mix-unsupported");
    AdapterGuidance { adapters: vec![face_id()] }.check(&mixed).unwrap();
}
