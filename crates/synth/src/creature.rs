//! [`Creature`]: an animal's head on a person's shoulders, to ask whether the method knows identities that are not human.

use super::geometry::{Material, Mesh, V3, bell2, lerp3, scale, smoothstep};
use super::head::Face;
use super::identity::{Beard, HairStyle, Identity, IdentitySplit};
use super::rng::{Rng, fractal, noise};

/// What kind of animal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Species {
    /// Pointed ears, a short muzzle.
    Cat,
    /// Hanging ears, a long muzzle.
    Dog,
    /// Small round ears.
    Bear,
    /// Long upright ears.
    Rabbit,
}

impl Species {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cat, Self::Dog, Self::Bear, Self::Rabbit];

    /// As captions call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cat => "cat",
            Self::Dog => "dog",
            Self::Bear => "bear",
            Self::Rabbit => "rabbit",
        }
    }
}

/// How the second colour lies on the coat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    Plain,
    Patches,
    Stripes,
    /// Around the eyes.
    Mask,
    /// Muzzle and brow.
    Blaze,
}

/// Who an animal is: its kind, its coat and the shape of its head.
#[derive(Debug, Clone, PartialEq)]
pub struct Creature {
    /// The kind.
    pub species: Species,
    pattern: Pattern,
    /// Main and second colour of the coat.
    coat: [V3; 2],
    nose: V3,
    pub(super) iris: V3,
    /// Places the pattern.
    seed: u32,
    /// Size of the ears, about 1.
    ear: f32,
    /// How far the muzzle juts, in head coordinates.
    pub(super) muzzle: f32,
    /// The head's shape, with nothing on it that animals do not have.
    pub(super) head: Identity,
}

/// Colours of coats.
const COATS: [V3; 9] = [
    [0.09, 0.08, 0.08],
    [0.30, 0.19, 0.12],
    [0.48, 0.30, 0.17],
    [0.78, 0.46, 0.20],
    [0.86, 0.68, 0.44],
    [0.93, 0.88, 0.78],
    [0.96, 0.95, 0.94],
    [0.55, 0.55, 0.58],
    [0.36, 0.38, 0.42],
];

impl Creature {
    /// Animal `n` (modulo one million) of a pool.
    pub fn from_pool(split: IdentitySplit, n: u64) -> Self {
        let mut head = Identity::from_pool(split, n);
        // Other numbers than those of the person whose head it begins with.
        let mut rng = Rng::new(split.number(n), 0xC4EA);
        let rng = &mut rng;
        let species = rng.pick(&Species::ALL);
        let first = rng.below(COATS.len());
        let second = (first + 1 + rng.below(COATS.len() - 1)) % COATS.len();
        let shade = |color: V3, rng: &mut Rng| scale(color, rng.range(0.88, 1.12)).map(|v| v.min(1.0));
        let coat = [shade(COATS[first], rng), shade(COATS[second], rng)];
        head.beard = Beard::None;
        head.hair_style = HairStyle::Bald;
        head.glasses = None;
        (head.age, head.presentation) = (0.3, 0.5);
        (head.freckles, head.blush, head.lip_tint, head.lashes) = (0.0, 0.0, 0.0, 0.2);
        (head.lip_upper, head.lip_lower, head.nose_bridge) = (0.0, 0.0, 0.15);
        (head.chin, head.cheek) = (0.2, 0.4);
        head.eye_size = 0.5 + 0.5 * head.eye_size;
        head.eye_open = 0.7 + 0.3 * head.eye_open;
        let (short, long) = match species {
            Species::Cat => (0.10, 0.18),
            Species::Dog => (0.26, 0.42),
            Species::Bear => (0.20, 0.30),
            Species::Rabbit => (0.12, 0.20),
        };
        Self {
            species,
            pattern: rng.pick(&[
                Pattern::Plain,
                Pattern::Patches,
                Pattern::Stripes,
                Pattern::Mask,
                Pattern::Blaze,
            ]),
            coat,
            nose: rng.pick(&[[0.10, 0.08, 0.08], [0.10, 0.08, 0.08], [0.70, 0.42, 0.42], [0.36, 0.20, 0.14]]),
            iris: rng.pick(&[
                [0.24, 0.13, 0.06],
                [0.62, 0.42, 0.10],
                [0.72, 0.62, 0.16],
                [0.36, 0.58, 0.26],
                [0.34, 0.58, 0.80],
            ]),
            seed: rng.u32(),
            ear: rng.range(0.85, 1.05),
            muzzle: rng.range(short, long),
            head,
        }
    }

    /// Colour of the coat in general.
    pub(super) fn color(&self) -> V3 {
        self.coat[0]
    }

    /// Colour of the coat at a point of the head.
    pub(super) fn fur(&self, face: &Face, [x, y, z]: V3) -> V3 {
        let eye = face.eyes[1];
        let second = match self.pattern {
            Pattern::Plain => 0.0,
            Pattern::Patches => smoothstep(0.52, 0.60, fractal(x * 1.6 + 9.0, y * 1.6 + z, self.seed)),
            Pattern::Stripes => {
                let wave = noise(x * 2.0 + 5.0, y * 2.0, self.seed);
                let stripe = ((y * 1.1 + 0.5 * x.abs() + 0.35 * wave) * 5.5).rem_euclid(1.0);
                smoothstep(0.52, 0.62, stripe) * smoothstep(-0.5, 0.0, y)
            }
            Pattern::Mask => smoothstep(0.3, 0.5, bell2(x.abs() - eye[0], y - eye[1], 0.20, 0.22)),
            Pattern::Blaze => {
                let muzzle = bell2(x, y - 0.5 * (face.nose[1] + face.mouth[1]), 0.30, 0.26);
                let brow = bell2(x, y - eye[1] - 0.35, 0.10, 0.45);
                smoothstep(0.35, 0.5, muzzle.max(brow)) * smoothstep(0.0, 0.2, z)
            }
        };
        let hairs = 0.90 + 0.20 * noise(x * 46.0 + z * 20.0, y * 17.0, self.seed ^ 1);
        scale(lerp3(self.coat[0], self.coat[1], second), hairs).map(|v| v.min(1.0))
    }

    /// Colour of the nose, and how much of it a point of the face is.
    pub(super) fn nose(&self, face: &Face, x: f32, y: f32) -> (V3, f32) {
        let [_, tip, _] = face.nose;
        // Wider above.
        let width = 0.085 + 0.45 * (y - tip).clamp(-0.12, 0.06);
        let cover =
            smoothstep(width + 0.02, width - 0.01, x.abs()) * smoothstep(0.085, 0.065, (y - tip).abs());
        (self.nose, cover)
    }

    /// Both ears. They stay within what is hidden of a head in a style image (`Mask::head` of the library's `image::mask`).
    pub(super) fn ears(&self, face: &Face) -> Vec<Mesh> {
        let wide = face.skull(1.0, 0.0, 3.0)[0];
        let (centre, radii): (V3, V3) = match self.species {
            Species::Cat => ([0.62 * wide, 0.80, -0.15], [0.29, 0.42, 0.12]),
            Species::Dog => ([1.04 * wide, 0.20, -0.10], [0.19, 0.58, 0.16]),
            Species::Bear => ([0.80 * wide, 0.80, -0.15], [0.27, 0.27, 0.12]),
            Species::Rabbit => ([0.40 * wide, 0.82, -0.15], [0.16, 0.44, 0.11]),
        };
        let radii = scale(radii, self.ear);
        let species = self.species;
        [-1.0, 1.0]
            .map(|side| {
                Mesh::ellipsoid(
                    Material::Skin,
                    (14, 16),
                    [side * centre[0], centre[1], centre[2]],
                    radii,
                    |[x, y, z]| match species {
                        // To a point, which leans out.
                        Species::Cat => {
                            let narrow = 1.0 - 0.75 * smoothstep(-0.4, 1.0, y);
                            [x * narrow + 0.25 * side * y, y, z]
                        }
                        // Hangs, and stands off at the lower end.
                        Species::Dog => {
                            let narrow = 0.7 + 0.3 * smoothstep(0.9, -0.3, y);
                            [x * narrow - 0.5 * side * y, y, z]
                        }
                        Species::Rabbit => [x + 0.5 * side * y, y, z],
                        Species::Bear => [x, y, z],
                    },
                )
            })
            .into()
    }
}
