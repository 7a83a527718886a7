//! [`PersonOf`]: whom a picture shows, from photos.

use std::hash::{Hash, Hasher};
use std::ops::Range;

use ::image::RgbImage;
use serde::{Deserialize, Serialize};

use super::{Identity, Person};
use crate::error::{Error, Result};

/// One person of the picture: one identity, or a mix of several. `P` is a photo: its pixels, its file, or its hash, perhaps with the
/// face that is meant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename = "Person"))]
pub struct PersonOf<P> {
    /// The identities that are mixed, `e_f = Σ β_i e_f^i`; usually one.
    pub identities: Vec<IdentityOf<P>>,
    /// How strongly the person acts, 0 to 2; 1, which is as the model was trained, if left out.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    #[cfg_attr(test, ts(optional, as = "Option<f32>"))]
    pub strength: f32,
    /// The part of the steps from which on the person acts, 0 to 1; 0 if left out. Before, nobody is told of there.
    #[serde(default, skip_serializing_if = "is_none")]
    #[cfg_attr(test, ts(optional, as = "Option<f32>"))]
    pub start: f32,
    /// The part of the steps up to which the person acts; 1 if left out.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    #[cfg_attr(test, ts(optional, as = "Option<f32>"))]
    pub end: f32,
}

/// One real identity: photos of the same face, whose embeddings are averaged, and its mixing weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename = "Identity"))]
pub struct IdentityOf<P> {
    /// Photos of this face.
    pub photos: Vec<P>,
    /// Mixing weight β, 1 if left out; a person's weights are normalised to sum to 1. Where a model sees the photos themselves it is
    /// how strongly they are seen, and 1 is as the model was trained.
    #[serde(default = "whole")]
    #[cfg_attr(test, ts(optional, as = "Option<f32>"))]
    pub beta: f32,
}

fn whole() -> f32 {
    1.0
}

fn is_whole(value: &f32) -> bool {
    *value == 1.0
}

fn is_none(value: &f32) -> bool {
    *value == 0.0
}

/// Most that a person's strength may be.
const MAX_STRENGTH: f32 = 2.0;

/// Eyes, nose tip and mouth corners, x and y in pixels from a photo's top left corner; of an upright face the photo's left
/// ones first.
pub type Landmarks = [[f32; 2]; 5];

/// A photo of a face.
#[derive(Debug, Clone, PartialEq)]
pub struct Photo {
    /// Pixels, of any size.
    pub image: RgbImage,
    /// The face that is meant; the photo is then not searched. `None` is the largest that is found.
    pub landmarks: Option<Landmarks>,
}

impl Photo {
    /// How far outside of a photo a landmark may lie, as a part of the photo's side: a face is found at the edge too.
    const BEYOND: f32 = 0.5;

    /// The place nearest to a landmark that [`Person::validate`] takes.
    pub fn nearest([x, y]: [f32; 2], width: u32, height: u32) -> [f32; 2] {
        let near = |at: f32, side: u32| {
            let side = side as f32;
            at.clamp(-Self::BEYOND * side, (1.0 + Self::BEYOND) * side)
        };
        [near(x, width), near(y, height)]
    }

    fn validate(&self, name: &str) -> Result<()> {
        let (width, height) = self.image.dimensions();
        if width == 0 || height == 0 {
            return Err(Error::input("image-empty", format!("{name} has no pixels"), "use another picture"));
        }
        // What is not a number equals nothing.
        let outside = |at: &&[f32; 2]| **at != Self::nearest(**at, width, height);
        if let Some([x, y]) = self.landmarks.iter().flatten().find(outside) {
            return Err(Error::input(
                "landmarks-range",
                format!("a landmark of {name} is at ({x}, {y}), outside of its {width}×{height} pixels"),
                "give the landmarks that were found in this very photo, or leave them out",
            ));
        }
        Ok(())
    }
}

impl From<RgbImage> for Photo {
    /// A photo that is yet to be searched.
    fn from(image: RgbImage) -> Self {
        Self { image, landmarks: None }
    }
}

impl Hash for Photo {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.image.hash(state);
        self.landmarks.map(|points| points.map(|point| point.map(f32::to_bits))).hash(state);
    }
}

impl Identity {
    /// An identity from photos that are yet to be searched.
    pub fn new(photos: Vec<RgbImage>, beta: f32) -> Self {
        Self { photos: photos.into_iter().map(Photo::from).collect(), beta }
    }
}

impl Person {
    /// One identity from its photos.
    pub fn new(photos: Vec<RgbImage>) -> Self {
        Self::of(vec![Identity::new(photos, 1.0)])
    }

    /// Checks what can be checked without a model; `index` is its place among the people.
    pub fn validate(&self, index: usize) -> Result<()> {
        let name = index + 1;
        if self.identities.iter().all(|identity| identity.photos.is_empty()) {
            return Err(Error::input(
                "no-photo",
                format!("person {name} has no photo"),
                "add a photo of the face",
            ));
        }
        for (i, photo) in self.identities.iter().flat_map(|identity| &identity.photos).enumerate() {
            photo.validate(&format!("photo {} of person {name}", i + 1))?;
        }
        if self.identities.iter().any(|identity| !identity.beta.is_finite() || identity.beta < 0.0) {
            return Err(Error::input(
                "beta-range",
                format!("person {name} has a negative or infinite mixing weight"),
                "use weights of 0 or more",
            ));
        }
        if self.identities.iter().map(|identity| identity.beta).sum::<f32>() <= 0.0 {
            return Err(Error::input(
                "beta-sum",
                format!("the mixing weights of person {name} sum to zero"),
                "give at least one identity a weight above 0",
            ));
        }
        if !(0.0..=MAX_STRENGTH).contains(&self.strength) {
            return Err(Error::input(
                "identity-strength-range",
                format!("the strength of person {name} is {}, outside 0 to {MAX_STRENGTH}", self.strength),
                "1 is as the model was trained",
            ));
        }
        if !(0.0 <= self.start && self.start < self.end && self.end <= 1.0) {
            return Err(Error::input(
                "identity-steps-range",
                format!("person {name} acts from {} to {} of the steps", self.start, self.end),
                "give a start below the end, both from 0 to 1",
            ));
        }
        Ok(())
    }
}

impl<P> PersonOf<P> {
    /// A person who acts as the model was trained, in all steps.
    pub fn of(identities: Vec<IdentityOf<P>>) -> Self {
        Self { identities, strength: 1.0, start: 0.0, end: 1.0 }
    }

    /// How strongly the person acts, and in which part of the steps.
    pub fn acts(&self) -> (f32, Range<f32>) {
        (self.strength, self.start..self.end)
    }

    /// The same person of other photos; `photo` is told what each is to be called, of the `index`th person from 0.
    pub fn try_map<Q>(
        &self,
        index: usize,
        mut photo: impl FnMut(&P, &str) -> Result<Q>,
    ) -> Result<PersonOf<Q>> {
        let name = format!("a photo of person {}", index + 1);
        let identities = self.identities.iter().map(|IdentityOf { photos, beta }| {
            let photos = photos.iter().map(|own| photo(own, &name)).collect::<Result<_>>()?;
            Ok(IdentityOf { photos, beta: *beta })
        });
        let Self { strength, start, end, .. } = self;
        Ok(PersonOf {
            identities: identities.collect::<Result<_>>()?,
            strength: *strength,
            start: *start,
            end: *end,
        })
    }
}
