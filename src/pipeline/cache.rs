//! What encoders made of the latest pictures, texts and requests: nothing is encoded again, and a request that differs in its
//! steps, its sampler, its init image or its seed needs no encoders at all, but for the prior where one draws.

use std::any::Any;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::regions::Canvas;
use crate::error::Result;
use crate::request::{GenerateRequest, Layout};

/// Most entries about pictures and texts: a picture of [`MAX_PEOPLE`](crate::request::MAX_PEOPLE) with a few photos each, of which
/// each has three. The largest, a ViT-H/14's states of a face, takes 1.3 MB.
pub const READINGS: usize = 96;
/// Most texts that are read as a chat: 512 tokens of FLUX.2 klein take 16 MB.
pub const CHATS: usize = 4;
/// Most requests whose guidance is kept: it holds every person's region for every picture.
pub const REQUESTS: usize = 2;

/// What was encoded, by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key([u64; 2]);

impl Key {
    /// Of what `feed` hashes, and what it is encoded `as_what`. 128 bits: chance makes no two alike.
    pub fn new(as_what: &str, feed: impl Fn(&mut DefaultHasher)) -> Self {
        Self([0u8, 1].map(|half| {
            let mut hasher = DefaultHasher::new();
            (half, as_what).hash(&mut hasher);
            feed(&mut hasher);
            hasher.finish()
        }))
    }

    /// Of all that a request's guidance and regions follow from; of its seed only where a prior `draws`, and of its init image only
    /// where the model `sees` it.
    pub fn of_guidance(request: &GenerateRequest, canvas: &Canvas, draws: bool, sees: bool) -> Self {
        Self::new("guidance", |hasher| {
            request.people.len().hash(hasher);
            for person in &request.people {
                person.identities.len().hash(hasher);
                [person.strength, person.start, person.end].map(f32::to_bits).hash(hasher);
                for identity in &person.identities {
                    (identity.beta.to_bits(), &identity.photos).hash(hasher);
                }
            }
            (&request.style, &request.prompt, &request.negative_prompt, &request.roles).hash(hasher);
            for embedding in &request.embeddings {
                (embedding.word(), embedding.sha256()).hash(hasher);
            }
            (request.embeddings.len(), request.clip_skip).hash(hasher);
            (request.alpha.to_bits(), request.guidance_scale.to_bits(), request.count).hash(hasher);
            std::mem::discriminant(&request.layout).hash(hasher);
            match &request.layout {
                Layout::Whole => {}
                Layout::Boxes(boxes) => {
                    let sides = boxes.iter().map(|b| [b.x, b.y, b.width, b.height].map(f32::to_bits));
                    sides.collect::<Vec<_>>().hash(hasher);
                }
                Layout::Masks(masks) => masks.hash(hasher),
                Layout::Content(content) => content.hash(hasher),
            }
            (request.background, canvas, draws.then_some(request.seed)).hash(hasher);
            request.init.as_ref().filter(|_| sees).map(|init| &init.image).hash(hasher);
        })
    }
}

type Entry = (Key, Box<dyn Any + Send + Sync>);

/// The latest entries.
#[derive(Debug)]
pub struct Cache {
    /// The oldest first.
    entries: Mutex<VecDeque<Entry>>,
    most: usize,
}

impl Cache {
    /// An empty one of `most` entries.
    pub fn new(most: usize) -> Self {
        Self { entries: Mutex::default(), most }
    }

    /// What is kept under a key.
    pub fn get<T: Clone + 'static>(&self, key: Key) -> Option<T> {
        let mut entries = self.entries();
        let at = entries.iter().position(|(other, _)| *other == key)?;
        let entry = entries.remove(at)?;
        let found = entry.1.downcast_ref().cloned();
        entries.push_back(entry);
        found
    }

    /// Keeps a value, and forgets the oldest if there are too many.
    pub fn put<T: Send + Sync + 'static>(&self, key: Key, value: T) {
        let mut entries = self.entries();
        entries.retain(|(other, _)| *other != key);
        entries.push_back((key, Box::new(value)));
        if entries.len() > self.most {
            entries.pop_front();
        }
    }

    /// What is kept under a key, or else what `make` makes, which is kept. An error is not.
    pub async fn remember<T: Clone + Send + Sync + 'static>(
        &self,
        key: Key,
        make: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<T> {
        if let Some(found) = self.get(key) {
            return Ok(found);
        }
        let made = make().await?;
        self.put(key, made.clone());
        Ok(made)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.entries().clear();
    }

    /// What is kept is whole whenever the lock is free, even if a thread ended while it held the lock.
    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::request::{Background, Embedding, Identity, InitImage, Person, RelativeBox, Roles};
    use ::image::{Rgb, RgbImage};

    const CANVAS: Canvas = Canvas { width: 64, height: 32, latent_width: 16, latent_height: 8 };

    fn key(of: usize) -> Key {
        Key::new("test", |hasher| of.hash(hasher))
    }

    #[test]
    fn the_latest_are_kept_and_nothing_is_made_twice() {
        let cache = Cache::new(3);
        (0..3_usize).for_each(|i| cache.put(key(i), i));
        assert_eq!(cache.get(key(0)), Some(0_usize));
        cache.put(key(3), 3_usize);
        assert_eq!(cache.get::<usize>(key(1)), None, "the oldest");
        assert_eq!(cache.get(key(0)), Some(0_usize), "asked for of late");
        assert_eq!(cache.get::<String>(key(0)), None, "something else");

        let made = |value: Result<usize>| pollster::block_on(cache.remember(key(1), async || value));
        assert!(made(Err(Error::cancelled())).is_err());
        assert_eq!(made(Ok(5)).unwrap(), 5);
        assert_eq!(made(Ok(6)).unwrap(), 5);
        cache.clear();
        assert_eq!(cache.get::<usize>(key(1)), None);
    }

    #[test]
    fn guidance_is_known_by_all_that_it_follows_from() {
        let picture = |value: u8| RgbImage::from_pixel(2, 3, Rgb([value; 3]));
        let identity = |value: u8| Identity::new(vec![picture(value)], 1.0);
        let request = GenerateRequest {
            people: vec![Person::of(vec![identity(1), identity(2)])],
            style: Some(picture(3)),
            prompt: "a".to_owned(),
            ..GenerateRequest::default()
        };
        let of = |change: &dyn Fn(&mut GenerateRequest)| {
            let mut request = request.clone();
            change(&mut request);
            Key::of_guidance(&request, &CANVAS, false, false)
        };
        let area = |x: f32| Layout::Boxes(vec![RelativeBox { x, y: 0.0, width: 0.5, height: 1.0 }]);
        let learnt = |word: &str, value: f32| Embedding::new(word, vec![value], 1).unwrap();
        let keys = [
            of(&|_| ()),
            of(&|request| request.people[0].identities[0].photos[0] = picture(9).into()),
            of(&|request| request.people[0].identities[0].photos[0].landmarks = Some([[0.0; 2]; 5])),
            of(&|request| request.people[0].identities[0].photos[0].landmarks = Some([[1.0; 2]; 5])),
            of(&|request| request.people[0].identities[1].beta = 0.5),
            of(&|request| request.people[0].identities.swap(0, 1)),
            of(&|request| request.people[0].strength = 0.5),
            of(&|request| request.people[0].start = 0.5),
            of(&|request| request.people[0].end = 0.5),
            of(&|request| request.people.push(Person::of(vec![identity(2)]))),
            of(&|request| {
                // The same photos in other hands.
                let moved = request.people[0].identities.pop().unwrap();
                request.people.push(Person::of(vec![moved]));
            }),
            of(&|request| request.style = None),
            of(&|request| request.style = Some(RgbImage::from_pixel(3, 2, Rgb([3; 3])))),
            of(&|request| request.prompt = "b".to_owned()),
            of(&|request| request.roles = Some(Roles::default())),
            of(&|request| request.negative_prompt = "a".to_owned()),
            of(&|request| request.clip_skip = 2),
            of(&|request| request.embeddings = vec![learnt("x", 0.5)]),
            of(&|request| request.embeddings = vec![learnt("y", 0.5)]),
            of(&|request| request.embeddings = vec![learnt("x", 0.25)]),
            of(&|request| request.alpha = 0.25),
            of(&|request| request.guidance_scale = 1.0),
            of(&|request| request.count = 2),
            of(&|request| request.layout = area(0.0)),
            of(&|request| request.layout = area(0.5)),
            of(&|request| request.layout = Layout::Content(picture(3))),
            of(&|request| request.background = Background::Hold),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|b| a != b), "{i}");
        }
        assert_ne!(keys[0], Key::of_guidance(&request, &Canvas { width: 32, ..CANVAS }, false, false));
        let same = of(&|request| {
            (request.seed, request.steps, request.preview_every) = (7, 3, Some(1));
            request.init = Some(InitImage { image: picture(4), strength: 0.5, mask: None });
        });
        assert_eq!(keys[0], same);
        let seed =
            |seed: u64| Key::of_guidance(&GenerateRequest { seed, ..request.clone() }, &CANVAS, true, false);
        assert_ne!(seed(1), seed(2));
        let started = |value: u8, strength: f32| {
            let init = Some(InitImage { image: picture(value), strength, mask: None });
            Key::of_guidance(&GenerateRequest { init, ..request.clone() }, &CANVAS, false, true)
        };
        assert_ne!(started(1, 0.5), started(2, 0.5), "it is seen");
        assert_eq!(started(1, 0.5), started(1, 0.6));
    }
}
