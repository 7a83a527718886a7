//! The batches that the stages of the UNet learn from: latents of pictures, and what guides it to them, drawn at random.
//!
//! A picture is told by itself with its faces hidden (style) and by its largest face (identity), each dropped independently
//! (paper, section 3.1 and 4.1). A picture whose identity is dropped, and a few others, keep their heads in the style. In a
//! part of the batches pictures of several people are told by all of their identities, each in its region.

use burn::tensor::{DType, Device, Tensor, TensorData};
use rayon::prelude::*;

use super::data::{Picture, Pictures};
use super::encoded::{Encoded, PEOPLE, by_face};
use super::rng::Rng;
use facestudio::condition::{Added, Condition, Places, Projection, Regions, Stream};
use facestudio::error::Result;
use facestudio::guidance::fusion::Fusion;
use facestudio::image::mask::Mask;

/// How often a style with its heads seen stands beside an identity, as a prompt's does; without an identity it always does,
/// since nothing else says then how a head is.
const WHOLE: f32 = 0.2;
/// Steps that train on several people with regions.
const TOGETHER: f32 = 0.25;
/// How often their regions are boxes, as people draw them, and not the people's outlines.
const BOXES: f32 = 0.5;
/// What an error in a face counts, against 1 elsewhere: a face has few latents, and is what is looked at.
const FACE_WEIGHT: f32 = 3.0;

/// How often a picture is told by less than it could be, for classifier-free guidance: probabilities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drops {
    /// How often the style is dropped.
    pub style: f32,
    /// How often the identity is dropped, independently of the style.
    pub identity: f32,
}

impl Default for Drops {
    /// The paper's (section 4.1).
    fn default() -> Self {
        Self { style: 0.64, identity: 0.1 }
    }
}

/// The pictures that are drawn from.
pub struct BatchSampler<'a> {
    drops: Drops,
    pictures: &'a Pictures,
    encoded: &'a Encoded,
    /// The first so many are trained on.
    trained: usize,
    /// Those of them that show several people.
    crowds: Vec<usize>,
    /// How much of each latent position a face covers, `[pictures][height · width]`.
    faces: Vec<f32>,
}

/// One batch.
pub struct TrainingBatch {
    /// `[n, channels, height, width]`.
    pub latents: Tensor<4>,
    /// What guides to them, in the precision of the activations.
    pub condition: Condition,
    /// What an error counts, `[n, 1, height, width]`.
    pub weight: Tensor<4>,
}

impl<'a> BatchSampler<'a> {
    /// Of the first `trained` pictures.
    pub fn new(drops: Drops, pictures: &'a Pictures, encoded: &'a Encoded, trained: usize) -> Result<Self> {
        let [_, height, width] = encoded.latent_dims;
        let faces = face_coverage(pictures, [height, width])?;
        let crowds = (0..trained).filter(|i| shows_several(&pictures.get(*i))).collect();
        Ok(Self { drops, pictures, encoded, trained, crowds, faces })
    }

    /// `n` pictures, guided to by tokens of `guidance`, and by the style beside the timestep if the UNet `adds_style`.
    pub fn draw(
        &self,
        n: usize,
        guidance: &Fusion,
        adds_style: bool,
        dtype: DType,
        device: &Device,
        rng: &mut Rng,
    ) -> Result<TrainingBatch> {
        let Self { drops, pictures, encoded, trained, crowds, faces } = self;
        let [_, height, width] = encoded.latent_dims;
        let together = rng.chance(TOGETHER) && !crowds.is_empty();
        let mut draw = || if together { crowds[rng.below(crowds.len())] } else { rng.below(*trained) };
        let indices: Vec<usize> = (0..n).map(|_| draw()).collect();
        let mut kept =
            |p: f32| -> Vec<f32> { (0..n).map(|_| if rng.chance(p) { 0.0 } else { 1.0 }).collect() };
        let (keep_style, keep_identity, hidden) = (kept(drops.style), kept(drops.identity), kept(WHOLE));
        let column = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [n, 1]), device);
        let hidden = column(hidden.iter().zip(&keep_identity).map(|(h, k)| h * k).collect());
        let (keep_style, keep_identity) = (column(keep_style), column(keep_identity));
        let rows = |values: &[f32]| Encoded::rows(values, encoded.image_embed_dim(), &indices, device);
        let whole = rows(&encoded.whole_embeds);
        let image_embeds = (whole.clone() + (rows(&encoded.image_embeds) - whole) * hidden) * keep_style;
        let tokens = |k| {
            let id_embeds = encoded.identities(k, &indices, device) * keep_identity.clone();
            guidance.forward(image_embeds.clone(), id_embeds).cast(dtype)
        };
        let condition = if together {
            let own = |i: &usize| regions(&pictures.get(*i), [height, width], rng);
            let regions = Regions::stack(&indices.iter().map(own).collect::<Result<Vec<_>>>()?)?;
            let tokens = (0..PEOPLE).map(tokens).collect();
            Condition::new(vec![Stream::new(Projection::Own, tokens, Some(Places::Regions(regions)))?])
        } else {
            Condition::single(tokens(0))
        };
        let condition = condition.adding(adds_style.then(|| Added::ClassLabels(image_embeds.clone())));
        let faces = Encoded::rows(faces, height * width, &indices, device).reshape([n, 1, height, width]);
        Ok(TrainingBatch {
            latents: encoded.latents(&indices, device),
            condition,
            weight: faces * (FACE_WEIGHT - 1.0) + 1.0,
        })
    }
}

/// The mean of errors `[n, channels, height, width]`, of which each counts what [`TrainingBatch::weight`] says.
pub fn weighted(errors: Tensor<4>, weight: &Tensor<4>) -> Tensor<1> {
    (errors * weight.clone()).mean() / weight.clone().mean()
}

/// How much of each latent position a face covers, `[pictures][height · width]`.
fn face_coverage(pictures: &Pictures, size: [usize; 2]) -> Result<Vec<f32>> {
    let rows = (0..pictures.len())
        .into_par_iter()
        .map(|i| covered(pictures.get(i).faces, pictures.size(), size, |person| person > 0))
        .collect::<Result<Vec<_>>>()?;
    Ok(rows.concat())
}

/// How much of each position of `[height, width]` has a value of `map`, `side × side`, that `counts`.
fn covered(map: &[u8], side: usize, size: [usize; 2], counts: impl Fn(u8) -> bool) -> Result<Vec<f32>> {
    let values = map.iter().map(|person| if counts(*person) { 1.0 } else { 0.0 }).collect();
    Ok(Mask::new(side, side, values)?.resized(size[1], size[0])?.into_values())
}

/// Whether two people or more are seen.
fn shows_several(picture: &Picture) -> bool {
    picture.people.contains(&1) && picture.people.iter().any(|person| *person > 1)
}

/// Where each of a picture's people is, those with the largest faces: their outlines, or boxes around them. The rest of
/// the picture goes to any one of them, as a request may choose.
fn regions(picture: &Picture, [height, width]: [usize; 2], rng: &mut Rng) -> Result<Regions> {
    let people = by_face(picture);
    let boxes = rng.chance(BOXES);
    let mut masks = vec![vec![0.0; height * width]; PEOPLE];
    for (mask, person) in masks.iter_mut().zip(&people) {
        *mask = covered(picture.people, picture.size, [height, width], |p| usize::from(p) == person + 1)?;
        if boxes {
            fill_box(mask, width);
        }
    }
    Regions::new(height, width, masks, rng.below(people.len()))
}

/// Fills the box around what a mask covers.
fn fill_box(mask: &mut [f32], width: usize) {
    let covered: Vec<usize> = (0..mask.len()).filter(|p| mask[*p] > 0.0).collect();
    let span = |of: fn(usize, usize) -> usize| {
        let places = covered.iter().map(|p| of(*p, width));
        places.clone().min().zip(places.max())
    };
    if let (Some((top, bottom)), Some((left, right))) = (span(|p, w| p / w), span(|p, w| p % w)) {
        for y in top..=bottom {
            mask[y * width + left..=y * width + right].fill(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::data::{Meta, OwnedPicture, Person};
    use burn::module::Param;
    use facestudio::guidance::fusion::FusionConfig;

    /// The left person smaller than the right one; a strip between them that is nobody's.
    fn two_people() -> Pictures {
        let side = 8;
        let people = (0..side * side).map(|p| [1, 1, 0, 0, 2, 2, 2, 2][p % side]).collect::<Vec<u8>>();
        let person = |face_box| Person { face_box, ..Person::default() };
        let known = vec![person([0.0, 0.0, 1.0, 1.0]), person([4.0, 0.0, 8.0, 4.0])];
        let meta = Meta { people: known, ..Meta::default() };
        let rgb = vec![0; 3 * side * side];
        Pictures::of(side, &[OwnedPicture { rgb, faces: people.clone(), people, meta }])
    }

    #[test]
    fn each_person_has_its_place_and_the_rest_is_anyones() {
        let pictures = two_people();
        let picture = pictures.get(0);
        assert!(shows_several(&picture));
        assert_eq!(by_face(&picture), [1, 0]);
        let mut rest = [0; PEOPLE];
        for seed in 0..20 {
            let regions = regions(&picture, [4, 4], &mut Rng::new(seed, 0)).unwrap();
            let weights = regions.resized(4, 4);
            for row in 0..4 {
                assert_eq!([2, 3].map(|x| weights[0][4 * row + x]), [1.0, 1.0]);
                assert_eq!(weights[1][4 * row], 1.0);
            }
            assert!(weights[2].iter().all(|w| *w == 0.0));
            rest[weights.iter().position(|w| w[1] == 1.0).unwrap()] += 1;
        }
        assert!(rest[0] > 0 && rest[1] > 0 && rest[2] == 0, "{rest:?}");
        assert_eq!(face_coverage(&pictures, [1, 4]).unwrap(), [1.0, 0.0, 1.0, 1.0]);
    }

    /// Pictures of one person each, in the left half: styles of 1 with the face hidden and 2 as they are, identities of 3.
    fn portraits(count: usize) -> (Pictures, Encoded) {
        let faces: Vec<u8> = (0..16).map(|p| u8::from(p % 4 < 2)).collect();
        let person = Person { face_box: [0.0, 0.0, 2.0, 4.0], ..Person::default() };
        let picture = || OwnedPicture {
            rgb: vec![0; 48],
            people: faces.clone(),
            faces: faces.clone(),
            meta: Meta { people: vec![person.clone()], ..Meta::default() },
        };
        let pictures = Pictures::of(4, &(0..count).map(|_| picture()).collect::<Vec<_>>());
        let encoded = Encoded {
            latents: vec![0.0; count * 4],
            latent_dims: [1, 2, 2],
            image_embeds: vec![1.0; count],
            whole_embeds: vec![2.0; count],
            id_embeds: [3.0, 0.0, 0.0].repeat(count),
            len: count,
        };
        (pictures, encoded)
    }

    /// What `n` pictures are told by, `[style, identity]` of each, where they are dropped so often.
    fn guides(n: usize, style: f32, identity: f32) -> Vec<[f32; 2]> {
        let device = Device::flex();
        let (pictures, encoded) = portraits(8);
        let config =
            FusionConfig { image_embed_dim: 1, id_embed_dim: 1, n_tokens: 1, cross_attention_dim: 2 };
        let mut linear = config.init(&device).unwrap();
        // The token is the style and the identity, side by side.
        linear.proj.weight = Param::from_tensor(Tensor::from_floats([[1.0, 0.0], [0.0, 1.0]], &device));
        linear.proj.bias = None;
        let drawn = BatchSampler::new(Drops { style, identity }, &pictures, &encoded, 8)
            .and_then(|batches| batches.draw(n, &linear, true, DType::F32, &device, &mut Rng::new(3, 5)))
            .unwrap();
        let tokens = drawn.condition.tokens().next().unwrap().clone();
        let values: Vec<f32> = tokens.try_into_vec_as().unwrap();
        values.chunks(2).map(|token| [token[0], token[1]]).collect()
    }

    #[test]
    fn style_and_identity_are_dropped_as_often_as_is_said() {
        let share = |guides: &[[f32; 2]], part: usize| {
            guides.iter().filter(|guides| guides[part] == 0.0).count() as f32 / guides.len() as f32
        };
        assert_eq!(Drops::default(), Drops { style: 0.64, identity: 0.1 });
        for (style, identity) in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.64, 0.1), (0.3, 0.2)] {
            let guides = guides(4000, style, identity);
            assert!((share(&guides, 0) - style).abs() < 0.03, "style {style}: {}", share(&guides, 0));
            assert!(
                (share(&guides, 1) - identity).abs() < 0.03,
                "identity {identity}: {}",
                share(&guides, 1)
            );
            // Independently of each other.
            let neither = guides.iter().filter(|guides| **guides == [0.0, 0.0]).count() as f32 / 4000.0;
            assert!((neither - style * identity).abs() < 0.03, "{neither}");
            // Heads are seen in the style where nothing else says how they are, and now and then beside an identity.
            let styled = || guides.iter().filter(|guides| guides[0] > 0.0);
            assert!(styled().filter(|guides| guides[1] == 0.0).all(|guides| guides[0] == 2.0));
            let beside: Vec<_> = styled().filter(|guides| guides[1] > 0.0).collect();
            let whole = beside.iter().filter(|guides| guides[0] == 2.0).count() as f32;
            assert!(beside.is_empty() || (whole / beside.len() as f32 - WHOLE).abs() < 0.05, "{whole}");
        }
    }

    #[test]
    fn errors_in_faces_count_more() {
        let device = Device::flex();
        let (pictures, encoded) = portraits(2);
        let config =
            FusionConfig { image_embed_dim: 1, id_embed_dim: 1, n_tokens: 1, cross_attention_dim: 2 };
        let linear = config.init(&device).unwrap();
        let batches = BatchSampler::new(Drops::default(), &pictures, &encoded, 2).unwrap();
        let weight =
            batches.draw(1, &linear, false, DType::F32, &device, &mut Rng::new(1, 1)).unwrap().weight;
        let values: Vec<f32> = weight.clone().try_into_vec_as().unwrap();
        assert_eq!(values, [FACE_WEIGHT, 1.0, FACE_WEIGHT, 1.0]);
        let loss = |errors: [f32; 4]| {
            let errors = Tensor::<1>::from_floats(errors, &device).reshape([1, 1, 2, 2]);
            weighted(errors, &weight).into_scalar::<f32>()
        };
        assert!((loss([1.0; 4]) - 1.0).abs() < 1e-6, "weights share the errors out, and add none");
        let (face, ground) = (loss([1.0, 0.0, 0.0, 0.0]), loss([0.0, 1.0, 0.0, 0.0]));
        assert!((face / ground - FACE_WEIGHT).abs() < 1e-5, "{face} {ground}");
    }

    #[test]
    fn a_box_goes_around_what_is_covered() {
        let mut mask = vec![0.0; 12];
        (mask[1], mask[6]) = (0.3, 1.0);
        fill_box(&mut mask, 4);
        assert_eq!(mask, [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let mut empty = vec![0.0; 4];
        fill_box(&mut empty, 2);
        assert_eq!(empty, [0.0; 4]);
    }

    /// One picture of one person, and one of two, of whom the first lacks a corner of the box around it.
    #[test]
    fn a_quarter_of_the_steps_is_of_several_people_in_outlines_or_boxes() {
        let side = 8;
        let person = |face_box| Person { face_box, ..Person::default() };
        let picture = |people: Vec<u8>, known: Vec<Person>| OwnedPicture {
            rgb: vec![0; 3 * side * side],
            faces: people.clone(),
            people,
            meta: Meta { people: known, ..Meta::default() },
        };
        let alone = picture(vec![1; 64], vec![person([0.0, 0.0, 8.0, 8.0])]);
        let map = (0..64).map(|p| match (p % 8, p / 8) {
            (0..4, 0..4) => 0,
            (0..4, _) | (4, _) => 1,
            _ => 2,
        });
        let both = picture(map.collect(), vec![person([0.0, 4.0, 4.0, 8.0]), person([5.0, 0.0, 6.0, 1.0])]);
        let pictures = Pictures::of(side, &[alone, both]);
        let encoded = Encoded {
            latents: vec![0.0; 2 * 16],
            latent_dims: [1, 4, 4],
            image_embeds: vec![0.0; 2],
            whole_embeds: vec![0.0; 2],
            id_embeds: vec![0.0; 2 * PEOPLE],
            len: 2,
        };
        let device = Device::flex();
        let config =
            FusionConfig { image_embed_dim: 1, id_embed_dim: 1, n_tokens: 1, cross_attention_dim: 2 };
        let linear = config.init(&device).unwrap();
        let batches = BatchSampler::new(Drops::default(), &pictures, &encoded, 2).unwrap();
        let (mut together, mut first) = (0, 0);
        const DRAWS: u64 = 3000;
        for seed in 0..DRAWS {
            let drawn = batches.draw(1, &linear, false, DType::F32, &device, &mut Rng::new(seed, 1)).unwrap();
            let stream = &drawn.condition.streams[0];
            let Some(places) = &stream.places else { continue };
            assert_eq!(stream.tokens.len(), PEOPLE);
            together += 1;
            let weights = places.resized(4, 4);
            // Where the first person is, where the second is, and where nobody is but in a box.
            assert_eq!([weights[0][12], weights[1][3]], [1.0, 1.0]);
            first += usize::from(weights[0][0] == 1.0);
        }
        let share = together as f32 / DRAWS as f32;
        assert!((share - 0.25).abs() < 0.025, "{share}");
        // In half of them it is the box's; in the others it is either's.
        let share = first as f32 / together as f32;
        assert!((share - 0.75).abs() < 0.05, "{share}");
    }

    #[test]
    fn only_two_people_that_are_seen_are_several() {
        let meta = Meta::default();
        let several =
            |people: &[u8]| shows_several(&Picture { size: 1, rgb: &[], people, faces: &[], meta: &meta });
        assert!(several(&[0, 1, 2]) && several(&[3, 1]));
        assert!(!several(&[0, 1, 1]) && !several(&[0, 2, 3]) && !several(&[0]));
    }
}
