//! The rendered pictures of each stage, from [`synth`](facestudio_synth).

use std::path::Path;

use facestudio::error::Result;
use facestudio_synth::{Creature, Identity, IdentitySplit, Scene, SceneOptions, render};

use super::data::{Meta, OwnedPicture, Person, Pictures};
use super::photographs::photographs;
use super::run::Event;
use super::{Rendered, Setup, Source};

/// Rendered pictures of the stages that learn to draw, where `--pictures` does not say.
const PORTRAITS: usize = 12_000;
/// Half coverage: the pixel counts as the person's.
const COVERED: u8 = 128;
/// Changes when the same name no longer gives the same pictures: older caches are then left alone.
const VERSION: u32 = 2;

/// What the generating stages train on: photographs, or portraits of one to three people and some other pictures.
pub fn portraits(
    setup: &Setup,
    source: &Source,
    size: usize,
    log: &mut dyn FnMut(Event),
) -> Result<Pictures> {
    match source {
        Source::Photographs(folder) => photographs(folder, &setup.cache, size, &setup.run.stop, log),
        Source::Rendered(rendered) => {
            let count = rendered.pictures.unwrap_or(PORTRAITS);
            scenes(setup, "portraits", size, count, &portrait_options(*rendered), log)
        }
    }
}

fn portrait_options(rendered: Rendered) -> SceneOptions {
    SceneOptions { frontal_fraction: 0.1, creatures: rendered.creatures, ..SceneOptions::default() }
}

/// A caption of picture `i` of [`portraits`] of a run's `seed`; each `variant` leaves out and rewords other details. A photograph has
/// the one caption of its metadata.
pub fn caption(source: &Source, seed: u64, pictures: &Pictures, i: usize, variant: u64) -> String {
    match source {
        Source::Photographs(_) => pictures.get(i).meta.caption.clone(),
        Source::Rendered(rendered) => facestudio_synth::caption(
            &portrait(*rendered, seed, i),
            &mut facestudio_synth::Rng::new(variant, i as u64),
        ),
    }
}

/// The scene of rendered picture `i`.
fn portrait(rendered: Rendered, seed: u64, i: usize) -> Scene {
    Scene::random(seed, i as u64, &portrait_options(rendered))
}

/// A caption of picture `i` with or without its heads, and one that is [wrong](facestudio_synth::wrong_caption) in one thing. A
/// photograph has the one caption of its metadata and no wrong one.
pub fn captions(
    source: &Source,
    seed: u64,
    pictures: &Pictures,
    i: usize,
    heads: bool,
    variant: u64,
) -> (String, Option<String>) {
    let rendered = match source {
        Source::Photographs(_) => return (pictures.get(i).meta.caption.clone(), None),
        Source::Rendered(rendered) => *rendered,
    };
    let scene = portrait(rendered, seed, i);
    let caption = if heads { facestudio_synth::caption } else { facestudio_synth::caption_without_heads };
    let rng = facestudio_synth::Rng::new(variant, i as u64);
    let wrong = facestudio_synth::wrong_caption(
        &scene,
        caption,
        &rng,
        &mut facestudio_synth::Rng::new(!variant, i as u64),
    );
    (caption(&scene, &mut rng.clone()), Some(wrong))
}

/// What the detector trains on: scenes of none to three people, in equal parts but fewer without people; so many as `rendered`
/// says, or `count`.
pub fn crowds(
    setup: &Setup,
    rendered: Rendered,
    size: usize,
    count: usize,
    log: &mut dyn FnMut(Event),
) -> Result<Pictures> {
    let count = rendered.pictures.unwrap_or(count);
    let options = SceneOptions {
        people: [0.1, 0.4, 0.3, 0.2],
        non_human_fraction: 0.05,
        creatures: rendered.creatures,
        ..SceneOptions::default()
    };
    scenes(setup, "crowds", size, count, &options, log)
}

/// `count` scenes of `options`, drawn or from the cache.
fn scenes(
    setup: &Setup,
    name: &str,
    size: usize,
    count: usize,
    options: &SceneOptions,
    log: &mut dyn FnMut(Event),
) -> Result<Pictures> {
    let seed = setup.run.seed;
    let make = |i: u64| owned(&render(&Scene::random(seed, i, options), size as u32), size, 0);
    let name = format!("{}-v{VERSION}-seed{seed}", set_name(options.creatures, name));
    cached(&setup.cache, &name, size, count, make, setup, log)
}

/// `identities` people of a pool, `views` pictures of each, one person a picture; `Meta::identity` says who.
pub fn people(
    setup: &Setup,
    rendered: Rendered,
    split: IdentitySplit,
    identities: usize,
    views: usize,
    size: usize,
    log: &mut dyn FnMut(Event),
) -> Result<Pictures> {
    let seed = setup.run.seed;
    let options = SceneOptions {
        people: [0.0, 1.0, 0.0, 0.0],
        identities: split,
        non_human_fraction: 0.0,
        frontal_fraction: 0.25,
        ..SceneOptions::default()
    };
    let make = |i: u64| {
        let who = i / views as u64;
        let mut scene = Scene::random(seed ^ 0xFACE, i, &options);
        if let Some(person) = scene.people.first_mut() {
            if rendered.creatures {
                person.become_creature(Creature::from_pool(split, who));
            } else {
                person.identity = Identity::from_pool(split, who);
            }
        }
        owned(&render(&scene, size as u32), size, who)
    };
    let name =
        format!("{}-v{VERSION}-{split:?}-{views}views-seed{seed}", set_name(rendered.creatures, "people"));
    let name = name.to_lowercase();
    cached(&setup.cache, &name, size, identities * views, make, setup, log)
}

/// The name of pictures of people, or of animals in their place.
fn set_name(creatures: bool, name: &str) -> String {
    if creatures { format!("{name}-creatures") } else { name.to_owned() }
}

fn cached(
    cache: &Path,
    name: &str,
    size: usize,
    count: usize,
    make: impl Fn(u64) -> OwnedPicture + Sync,
    setup: &Setup,
    log: &mut dyn FnMut(Event),
) -> Result<Pictures> {
    Pictures::cached(cache, name, size, count, |i| Ok(make(i as u64)), &setup.run.stop, log)
}

/// A rendered picture with its masks as maps of person numbers.
pub(super) fn owned(rendered: &facestudio_synth::Rendered, size: usize, identity: u64) -> OwnedPicture {
    let (mut people, mut faces) = (vec![0; size * size], vec![0; size * size]);
    let mut known = Vec::with_capacity(rendered.people.len());
    for (k, person) in rendered.people.iter().enumerate() {
        for (map, mask) in [(&mut people, &person.mask), (&mut faces, &person.face_mask)] {
            for (value, covered) in map.iter_mut().zip(mask.as_raw()) {
                if *covered >= COVERED {
                    *value = k as u8 + 1;
                }
            }
        }
        known.push(Person { face_box: person.face_box, landmarks: person.landmarks });
    }
    let meta = Meta { caption: rendered.caption.clone(), people: known, identity };
    OwnedPicture { rgb: rendered.image.as_raw().clone(), people, faces, meta }
}

#[cfg(test)]
mod tests {
    use super::*;
    use facestudio::image::mask::Mask;

    #[test]
    fn ears_of_animals_are_hidden_with_their_heads() {
        for n in 0..40 {
            let identity = Identity::from_pool(IdentitySplit::HeldOut, n);
            let mut scene = Scene::photo_of(identity, n);
            let person = &mut scene.people[0];
            (person.yaw, person.pitch, person.roll) = (0.0, 0.0, 0.0);
            person.become_creature(Creature::from_pool(IdentitySplit::HeldOut, n));
            let size = 128;
            let rendered = render(&scene, size);
            let seen = &rendered.people[0];
            let hidden = Mask::head(seen.face_box, size as usize, size as usize).into_values();
            let chin = seen.face_box[3];
            let above = (0..size * size).filter(|p| (p / size) as f32 <= chin - 20.0);
            let out =
                above.filter(|p| seen.mask.as_raw()[*p as usize] > 128 && hidden[*p as usize] < 0.5).count();
            assert!(out < 12, "{out} pixels of {:?}", scene.people[0].creature);
        }
    }
}
