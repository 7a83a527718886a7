//! [`Scene`]: everything a picture shows, before it is drawn.

use super::creature::Creature;
use super::identity::{Identity, IdentitySplit, choice};
use super::rng::Rng;

choice! {
    /// How a picture is drawn.
    Style { Photo, FlatCartoon, InkSketch, Watercolor, Oil, PopArt, PixelArt, Neon }
}
choice! {
    /// Clothes.
    ClothingKind { TShirt, VNeck, Turtleneck, Shirt, Suit, Hoodie, Dress, Striped }
}
choice! {
    /// Backgrounds.
    Background { Plain, Gradient, Sky, Forest, City, Room, Beach, Stripes, Stars, Sunset, Mountains, Bokeh }
}
choice! {
    /// Headwear.
    HatKind { Beanie, Cap, Fedora }
}
choice! {
    /// Pictures without people.
    Subject { Landscape, Fruit, House, Car, Tree, Ball, Boat, Flower }
}

/// A colour with its name in captions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Color {
    /// As captions say it.
    pub name: &'static str,
    /// Red, green and blue in [0, 1].
    pub rgb: [f32; 3],
}

/// The colours of clothes and backgrounds.
pub const COLORS: [Color; 12] = [
    Color { name: "red", rgb: [0.80, 0.14, 0.14] },
    Color { name: "orange", rgb: [0.93, 0.50, 0.13] },
    Color { name: "yellow", rgb: [0.95, 0.80, 0.25] },
    Color { name: "green", rgb: [0.22, 0.56, 0.28] },
    Color { name: "teal", rgb: [0.13, 0.58, 0.58] },
    Color { name: "blue", rgb: [0.18, 0.36, 0.78] },
    Color { name: "navy", rgb: [0.12, 0.16, 0.36] },
    Color { name: "purple", rgb: [0.48, 0.25, 0.62] },
    Color { name: "pink", rgb: [0.93, 0.55, 0.66] },
    Color { name: "white", rgb: [0.93, 0.93, 0.91] },
    Color { name: "grey", rgb: [0.50, 0.52, 0.55] },
    Color { name: "black", rgb: [0.10, 0.10, 0.12] },
];

/// The face's movement. Zero everywhere is a neutral face.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Expression {
    /// −1 frowns, 1 smiles broadly.
    pub smile: f32,
    /// 0 closed, 1 wide open.
    pub mouth_open: f32,
    /// −1 lowers the brows, 1 raises them.
    pub brow: f32,
    /// 0 open as the identity has them, 1 closed, −0.4 wide.
    pub lids: f32,
    /// Gaze, right and up in the picture, each in [−1, 1].
    pub gaze: [f32; 2],
}

/// Clothes: kind, main colour and second colour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clothing {
    /// The cut.
    pub kind: ClothingKind,
    /// Main colour.
    pub color: Color,
    /// Collar, stripes or strings.
    pub accent: Color,
}

/// A hat and its colour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hat {
    /// The shape.
    pub kind: HatKind,
    /// The colour.
    pub color: Color,
}

/// One person in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Person {
    /// Who.
    pub identity: Identity,
    /// The animal whose head is there instead; `identity` is then its shape.
    pub creature: Option<Creature>,
    /// Degrees; positive turns the face to the image's right.
    pub yaw: f32,
    /// Degrees; positive looks up.
    pub pitch: f32,
    /// Degrees; positive tips the head clockwise.
    pub roll: f32,
    /// The face's movement.
    pub expression: Expression,
    /// Centre of the head in the picture, each in [0, 1] of its side.
    pub position: [f32; 2],
    /// Height of the head in the picture, as a fraction of its side.
    pub scale: f32,
    /// Clothes.
    pub clothing: Clothing,
    /// Hat, if any.
    pub hat: Option<Hat>,
    /// Scarf, if any.
    pub scarf: Option<Color>,
}

/// The light.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Light {
    /// Towards the light: right, up, towards the viewer; unit length.
    pub direction: [f32; 3],
    /// Colour of the light, about 1.
    pub color: [f32; 3],
    /// Strength of the ambient light, in [0, 1].
    pub ambient: f32,
}

/// A picture to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Zero to three people, nearest last.
    pub people: Vec<Person>,
    /// What is shown where there are no people.
    pub subject: Option<Subject>,
    /// The background.
    pub background: Background,
    /// Main colour of the background.
    pub color: Color,
    /// Second colour of the background.
    pub accent: Color,
    /// The light.
    pub light: Light,
    /// How it is drawn.
    pub style: Style,
    /// Seeds textures, strokes and the caption.
    pub seed: u64,
}

/// What [`Scene::random`] may draw.
#[derive(Debug, Clone, PartialEq)]
pub struct SceneOptions {
    /// Weights of 0, 1, 2 and 3 people.
    pub people: [f32; 4],
    /// Pool of the identities.
    pub identities: IdentitySplit,
    /// How many identities of the pool are used; at most one million.
    pub pool: u64,
    /// Fraction of pictures without people, on top of `people[0]`.
    pub non_human_fraction: f32,
    /// Styles to draw from; all if empty.
    pub styles: Vec<Style>,
    /// Animals of the pool in the place of people.
    pub creatures: bool,
    /// Probability of a frontal photo on a plain background with even light: what an identity photo looks like.
    pub frontal_fraction: f32,
}

impl Default for SceneOptions {
    fn default() -> Self {
        Self {
            people: [0.0, 0.82, 0.12, 0.06],
            identities: IdentitySplit::Train,
            pool: 1_000_000,
            non_human_fraction: 0.08,
            styles: Vec::new(),
            creatures: false,
            frontal_fraction: 0.0,
        }
    }
}

impl Scene {
    /// Picture `index` of the endless series `seed`.
    pub fn random(seed: u64, index: u64, options: &SceneOptions) -> Self {
        let mut rng = Rng::new(seed, index);
        let rng = &mut rng;
        let styles = if options.styles.is_empty() { Style::ALL } else { &options.styles };
        let style = rng.pick(styles);
        let non_human = rng.chance(options.non_human_fraction);
        let count = if non_human { 0 } else { rng.weighted(&options.people) };
        let frontal = rng.chance(options.frontal_fraction);
        let mut people: Vec<Person> = (0..count)
            .map(|i| {
                let n = rng.u32();
                let n = ((u64::from(n) << 20) | u64::from(rng.u32() >> 12)) % options.pool.max(1);
                let identity = Identity::from_pool(options.identities, n);
                let mut person = Person::random(rng, identity, i, count, frontal);
                if options.creatures {
                    person.become_creature(Creature::from_pool(options.identities, n));
                }
                person
            })
            .collect();
        people.sort_by(|a, b| a.scale.total_cmp(&b.scale));
        let color = rng.pick(&COLORS);
        let accent = rng.pick(&COLORS);
        let background = if frontal { Background::Plain } else { rng.pick(Background::ALL) };
        let subject = (count == 0).then(|| rng.pick(Subject::ALL));
        let side = if rng.chance(0.5) { 1.0 } else { -1.0 };
        let direction = if frontal {
            [0.2 * side, 0.4, 0.9]
        } else {
            [side * rng.range(0.1, 0.9), rng.range(0.1, 0.9), rng.range(0.45, 1.0)]
        };
        let warm = rng.range(-0.07, 0.09);
        let light = Light {
            direction: super::geometry::unit(direction),
            color: [1.0 + warm, 1.0, 1.0 - 1.3 * warm],
            ambient: rng.range(0.36, 0.52),
        };
        Self { people, subject, background, color, accent, light, style, seed: seed ^ (index << 17) ^ index }
    }

    /// One person looking at the viewer in even light before a plain background: an identity photo.
    pub fn photo_of(identity: Identity, seed: u64) -> Self {
        let mut rng = Rng::new(seed, 0x9407);
        let person = Person::random(&mut rng, identity, 0, 1, true);
        Self {
            people: vec![person],
            subject: None,
            background: Background::Plain,
            color: COLORS[10],
            accent: COLORS[9],
            light: Light {
                direction: super::geometry::unit([0.3, 0.45, 0.9]),
                color: [1.0; 3],
                ambient: 0.45,
            },
            style: Style::Photo,
            seed,
        }
    }
}

impl Person {
    /// Puts an animal into the person's place: the same pose and clothes, without a hat.
    pub fn become_creature(&mut self, creature: Creature) {
        self.identity = creature.head.clone();
        self.creature = Some(creature);
        self.hat = None;
    }

    /// `identity` as person `i` of `count`, in a random pose and clothes; `frontal` faces the viewer.
    pub fn random(rng: &mut Rng, identity: Identity, i: usize, count: usize, frontal: bool) -> Self {
        let (yaw, pitch, roll) = if frontal {
            (rng.normal() * 5.0, rng.normal() * 3.0, rng.normal() * 2.0)
        } else if rng.chance(0.15) {
            (rng.range(-60.0, 60.0), rng.range(-18.0, 18.0), rng.normal() * 5.0)
        } else {
            (rng.normal() * 19.0, rng.normal() * 6.5, rng.normal() * 5.0)
        };
        let happy = rng.chance(0.62);
        let smile = if happy { rng.range(0.3, 1.0) } else { rng.range(-0.35, 0.3) };
        let mouth_open = if rng.chance(0.3) { rng.range(0.2, 0.9) } else { 0.0 };
        let lids = if rng.chance(0.04) { 1.0 } else { rng.range(-0.2, 0.3) };
        let look = if rng.chance(0.65) { 0.15 } else { 0.7 };
        let expression = Expression {
            smile,
            mouth_open: if frontal { mouth_open * 0.3 } else { mouth_open },
            brow: rng.normal() * 0.4,
            lids: if frontal { lids.min(0.2) } else { lids },
            gaze: [rng.range(-look, look), rng.range(-look, look) * 0.6],
        };
        let (position, scale) = match count {
            0 | 1 => (
                [0.5 + rng.normal() * 0.035, 0.475 + rng.normal() * 0.02],
                if frontal { rng.range(0.56, 0.62) } else { rng.range(0.46, 0.62) },
            ),
            2 => (
                [0.29 + 0.42 * i as f32 + rng.normal() * 0.015, 0.47 + rng.normal() * 0.03],
                rng.range(0.38, 0.45),
            ),
            _ => (
                [0.2 + 0.3 * i as f32 + rng.normal() * 0.012, 0.46 + rng.normal() * 0.045],
                rng.range(0.29, 0.35),
            ),
        };
        let kinds: &[ClothingKind] = if identity.presentation > 0.55 {
            ClothingKind::ALL
        } else {
            use ClothingKind::*;
            &[TShirt, VNeck, Turtleneck, Shirt, Suit, Hoodie, Striped]
        };
        let color = rng.pick(&COLORS);
        let mut accent = rng.pick(&COLORS);
        if accent.name == color.name {
            accent = if color.name == "white" { COLORS[5] } else { COLORS[9] };
        }
        let clothing = Clothing { kind: rng.pick(kinds), color, accent };
        let hat = (!frontal && rng.chance(0.13))
            .then(|| Hat { kind: rng.pick(HatKind::ALL), color: rng.pick(&COLORS) });
        let scarf = (!frontal && rng.chance(0.08)).then(|| rng.pick(&COLORS));
        Self {
            identity,
            creature: None,
            yaw: yaw.clamp(-60.0, 60.0),
            pitch: pitch.clamp(-20.0, 20.0),
            roll: roll.clamp(-15.0, 15.0),
            expression,
            position,
            scale,
            clothing,
            hat,
            scarf,
        }
    }
}
