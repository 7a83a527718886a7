//! [`Identity`]: who a person is, apart from pose, light, clothes and style.

use super::geometry::V3;
use super::rng::Rng;

macro_rules! traits {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A made-up person: continuous traits in [0, 1], and a few choices.
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Identity {
            $($(#[$doc])* pub $name: f32,)*
            /// Hair cut.
            pub hair_style: HairStyle,
            /// Name of the hair colour; `hair_red`, `hair_green` and `hair_blue` hold the colour itself.
            pub hair_color: HairColor,
            /// Beard or moustache.
            pub beard: Beard,
            /// Shape of the glasses worn, if any.
            pub glasses: Option<Glasses>,
        }

        /// Number of continuous traits.
        const TRAITS: usize = [$(stringify!($name)),*].len();

        impl Identity {
            /// Names of the continuous traits, in the order of [`Identity::to_vec`].
            pub const TRAIT_NAMES: [&'static str; TRAITS] = [$(stringify!($name)),*];

            fn traits(&self) -> [f32; TRAITS] {
                [$(self.$name),*]
            }

            fn from_traits(values: [f32; TRAITS]) -> Self {
                let [$($name),*] = values;
                Self {
                    $($name,)*
                    hair_style: HairStyle::Short,
                    hair_color: HairColor::Brown,
                    beard: Beard::None,
                    glasses: None,
                }
            }
        }
    };
}

traits! {
    /// 0 reads as masculine, 1 as feminine.
    presentation,
    /// 0 is about eighteen years, 1 about eighty.
    age,
    /// Width of the skull.
    skull_width,
    /// Height of the skull above the eyes.
    skull_height,
    /// Depth of the skull.
    skull_depth,
    /// Length of the lower face.
    face_length,
    /// Width of the jaw.
    jaw_width,
    /// 0 is a pointed jaw, 1 a square one.
    jaw_square,
    /// How far the chin juts.
    chin,
    /// Width of the chin.
    chin_width,
    /// Prominence of the cheekbones.
    cheek,
    /// Fullness of the lower cheeks.
    fullness,
    /// Size of the eyes.
    eye_size,
    /// Roundness of the eyes.
    eye_open,
    /// Distance between the eyes.
    eye_spacing,
    /// 1 tilts the outer corners up.
    eye_tilt,
    /// Height of the eyes in the face.
    eye_height,
    /// Colour of the iris, from brown over green to blue.
    iris_hue,
    /// Brightness of the iris.
    iris_light,
    /// Height of the crease of the upper lid; 0 has none.
    lid_crease,
    /// Thickness of the lashes.
    lashes,
    /// Thickness of the brows.
    brow_thickness,
    /// Arch of the brows.
    brow_arch,
    /// 1 raises the outer ends of the brows.
    brow_tilt,
    /// Distance of the brows from the eyes.
    brow_height,
    /// Length of the nose.
    nose_length,
    /// Width of the nose at its wings.
    nose_width,
    /// Size of the tip of the nose.
    nose_tip,
    /// Height of the bridge.
    nose_bridge,
    /// 0 is snub, 1 hooked.
    nose_hook,
    /// Width of the mouth.
    mouth_width,
    /// Fullness of the upper lip.
    lip_upper,
    /// Fullness of the lower lip.
    lip_lower,
    /// Redness of the lips.
    lip_tint,
    /// Height of the mouth between nose and chin.
    mouth_height,
    /// Size of the ears.
    ear_size,
    /// How far the ears stand out.
    ear_stick,
    /// 0 is the palest skin, 1 the darkest.
    skin_tone,
    /// Undertone of the skin, from pink to olive.
    skin_hue,
    /// Redness of cheeks and nose.
    blush,
    /// Density of freckles; none below 0.6.
    freckles,
    /// Width of neck and shoulders.
    build,
    /// Red of the hair.
    hair_red,
    /// Green of the hair.
    hair_green,
    /// Blue of the hair.
    hair_blue,
    /// Volume of the hair.
    hair_volume,
    /// Length of the hair within its style.
    hair_length,
    /// Height of the hairline.
    hairline,
    /// Waviness of the hair.
    hair_wave,
    /// Side and depth of the parting.
    hair_part,
    /// Size of the glasses.
    glasses_size,
    /// Red of the frame.
    frame_red,
    /// Green of the frame.
    frame_green,
    /// Blue of the frame.
    frame_blue,
    /// Thickness of the frame.
    frame_thickness,
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
        }
    };
}
pub(super) use choice;

choice! {
    /// Hair cuts.
    HairStyle {
        Bald, Buzz, Short, SidePart, Quiff, Curly, Afro, Bob, BobBangs, Long, LongBangs, LongWavy,
        Ponytail, Bun, Pixie, Receding,
    }
}
choice! {
    /// Hair colours by name.
    HairColor {
        Black, DarkBrown, Brown, Auburn, Red, Blonde, Platinum, Grey, White, Pink, Blue, Teal, Purple,
    }
}
choice! {
    /// Beards and moustaches.
    Beard { None, Stubble, Moustache, Goatee, Short, Full }
}
choice! {
    /// Shapes of glasses.
    Glasses { Round, Square, CatEye, Wide, Sun }
}

/// Which identities a picture may show; the pools are disjoint by construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentitySplit {
    /// Seen while the generator and its encoders train.
    Train,
    /// Never seen in training; for evaluation.
    HeldOut,
    /// Trains only the encoder that evaluation measures with.
    EvalEncoder,
}

impl HairColor {
    /// Red, green and blue in [0, 1].
    pub fn rgb(self) -> [f32; 3] {
        match self {
            Self::Black => [0.07, 0.06, 0.07],
            Self::DarkBrown => [0.18, 0.11, 0.08],
            Self::Brown => [0.36, 0.22, 0.13],
            Self::Auburn => [0.45, 0.16, 0.09],
            Self::Red => [0.72, 0.27, 0.08],
            Self::Blonde => [0.86, 0.66, 0.32],
            Self::Platinum => [0.93, 0.85, 0.66],
            Self::Grey => [0.56, 0.56, 0.58],
            Self::White => [0.90, 0.90, 0.92],
            Self::Pink => [0.92, 0.42, 0.62],
            Self::Blue => [0.20, 0.40, 0.85],
            Self::Teal => [0.12, 0.62, 0.58],
            Self::Purple => [0.52, 0.25, 0.70],
        }
    }
}

/// How many identities a pool has.
const POOL: u64 = 1_000_000;

impl IdentitySplit {
    /// Number `n` (modulo one million) of this pool among all of them.
    pub(super) fn number(self, n: u64) -> u64 {
        let pool = match self {
            Self::Train => 0,
            Self::HeldOut => 1,
            Self::EvalEncoder => 2,
        };
        pool * POOL + n % POOL
    }
}

impl Identity {
    /// Length of [`Identity::to_vec`].
    pub const LEN: usize =
        TRAITS + HairStyle::ALL.len() + HairColor::ALL.len() + Beard::ALL.len() + Glasses::ALL.len();

    /// Identity `n` (modulo one million) of a pool.
    pub fn from_pool(split: IdentitySplit, n: u64) -> Self {
        Self::random(&mut Rng::new(split.number(n), 0x1D))
    }

    /// A random, plausible person.
    pub fn random(rng: &mut Rng) -> Self {
        let mut values = [0.0; TRAITS];
        values.iter_mut().for_each(|v| *v = rng.bell());
        let mut id = Self::from_traits(values);
        let feminine = rng.chance(0.5);
        id.presentation = if feminine { rng.range(0.6, 1.0) } else { rng.range(0.0, 0.4) };
        if rng.chance(0.08) {
            id.presentation = rng.range(0.4, 0.6);
        }
        let lean = id.presentation - 0.5;
        let shift = |v: &mut f32, by: f32| *v = (*v + by * lean).clamp(0.0, 1.0);
        shift(&mut id.jaw_width, -0.3);
        shift(&mut id.jaw_square, -0.5);
        shift(&mut id.chin_width, -0.3);
        shift(&mut id.eye_size, 0.3);
        shift(&mut id.lashes, 0.9);
        shift(&mut id.brow_thickness, -0.6);
        shift(&mut id.brow_arch, 0.4);
        shift(&mut id.brow_height, 0.3);
        shift(&mut id.lip_upper, 0.3);
        shift(&mut id.lip_lower, 0.3);
        shift(&mut id.lip_tint, 0.6);
        shift(&mut id.nose_width, -0.2);
        shift(&mut id.build, -0.6);
        shift(&mut id.face_length, -0.2);
        id.age = rng.unit() * rng.range(0.5, 1.0);
        id.skin_tone = rng.unit();
        id.skin_hue = rng.unit();
        id.freckles = if id.skin_tone < 0.5 { rng.unit() } else { rng.unit() * 0.6 };
        // Lighter eyes are rarer with darker skin.
        id.iris_hue = rng.unit() * (1.0 - 0.75 * smooth(id.skin_tone, 0.35, 0.7));
        id.iris_light = rng.unit();
        id.hair_part = rng.unit();
        id.hair_length = rng.unit();
        id.hair_wave = rng.unit();
        id.ear_stick = rng.unit();

        use HairStyle::*;
        id.hair_style = if feminine {
            rng.pick(&[
                Bob, BobBangs, Long, LongBangs, LongWavy, LongWavy, Long, Ponytail, Bun, Pixie, Afro, Curly,
            ])
        } else {
            rng.pick(&[
                Bald, Buzz, Short, Short, SidePart, SidePart, Quiff, Quiff, Curly, Afro, Long, Bun, Receding,
                Pixie,
            ])
        };
        use HairColor::*;
        let dark = id.skin_tone > 0.55;
        id.hair_color = if id.age > 0.62 && rng.chance(0.65) {
            rng.pick(&[Grey, Grey, White])
        } else if rng.chance(0.12) {
            rng.pick(&[Pink, Blue, Teal, Purple])
        } else if dark {
            rng.pick(&[Black, Black, DarkBrown, DarkBrown, Brown, Auburn])
        } else {
            rng.pick(&[Black, DarkBrown, Brown, Brown, Auburn, Red, Red, Blonde, Blonde, Platinum])
        };
        let rgb = id.hair_color.rgb();
        let warm = rng.range(0.88, 1.12);
        let bright = rng.range(0.88, 1.12);
        id.hair_red = (rgb[0] * bright * warm).min(1.0);
        id.hair_green = (rgb[1] * bright).min(1.0);
        id.hair_blue = (rgb[2] * bright / warm).min(1.0);
        id.beard = if id.presentation < 0.45 && rng.chance(0.5) {
            rng.pick(&[
                Beard::Stubble,
                Beard::Moustache,
                Beard::Goatee,
                Beard::Short,
                Beard::Full,
                Beard::Full,
            ])
        } else {
            Beard::None
        };
        id.glasses = rng.chance(0.3).then(|| {
            rng.pick(&[Glasses::Round, Glasses::Round, Glasses::Square, Glasses::CatEye, Glasses::Wide])
        });
        if id.glasses.is_some() && rng.chance(0.05) {
            id.glasses = Some(Glasses::Sun);
        }
        let frame = rng.pick(&[
            [0.06, 0.06, 0.07],
            [0.06, 0.06, 0.07],
            [0.30, 0.16, 0.08],
            [0.78, 0.60, 0.25],
            [0.70, 0.10, 0.12],
            [0.12, 0.25, 0.60],
            [0.80, 0.80, 0.82],
        ]);
        [id.frame_red, id.frame_green, id.frame_blue] = frame;
        id
    }

    /// The traits, then one-hot choices (hair style, hair colour, beard, glasses): [`Identity::LEN`] values.
    pub fn to_vec(&self) -> Vec<f32> {
        let mut out = self.traits().to_vec();
        out.extend(HairStyle::ALL.iter().map(|s| f32::from(*s == self.hair_style)));
        out.extend(HairColor::ALL.iter().map(|s| f32::from(*s == self.hair_color)));
        out.extend(Beard::ALL.iter().map(|s| f32::from(*s == self.beard)));
        out.extend(Glasses::ALL.iter().map(|s| f32::from(Some(*s) == self.glasses)));
        out
    }

    /// The same person with every trait brought into [0, 1]; one that is no number becomes 0.5.
    pub fn clamped(&self) -> Self {
        let values = self.traits().map(|v| if v.is_nan() { 0.5 } else { v.clamp(0.0, 1.0) });
        let Self { hair_style, hair_color, beard, glasses, .. } = *self;
        Self { hair_style, hair_color, beard, glasses, ..Self::from_traits(values) }
    }

    /// The person between two: `t` = 0 is `self`, 1 is `other`. Choices come from the nearer one.
    pub fn mix(&self, other: &Self, t: f32) -> Self {
        let (a, b) = (self.traits(), other.traits());
        let near = if t < 0.5 { self } else { other };
        let mut values = [0.0; TRAITS];
        for (v, (a, b)) in values.iter_mut().zip(a.iter().zip(b)) {
            *v = a + (b - a) * t;
        }
        Self {
            hair_style: near.hair_style,
            hair_color: near.hair_color,
            beard: near.beard,
            glasses: near.glasses,
            ..Self::from_traits(values)
        }
    }

    /// Colour of the hair in [0, 1].
    pub fn hair_rgb(&self) -> [f32; 3] {
        [self.hair_red, self.hair_green, self.hair_blue]
    }

    /// Colour of the skin in [0, 1], from a ramp of the six Fitzpatrick types bent by the undertone.
    pub fn skin_rgb(&self) -> [f32; 3] {
        const RAMP: [V3; 6] = [
            [0.98, 0.83, 0.75],
            [0.95, 0.76, 0.64],
            [0.87, 0.64, 0.49],
            [0.74, 0.50, 0.35],
            [0.54, 0.34, 0.23],
            [0.35, 0.21, 0.15],
        ];
        let t = self.skin_tone.clamp(0.0, 1.0) * 5.0;
        let i = (t as usize).min(4);
        let c = super::geometry::lerp3(RAMP[i], RAMP[i + 1], t - i as f32);
        let h = (self.skin_hue - 0.5) * 0.09;
        [(c[0] * (1.0 - 0.3 * h)).min(1.0), c[1] * (1.0 + 0.5 * h), c[2] * (1.0 - 0.9 * h)]
    }

    pub(super) fn iris_rgb(&self) -> V3 {
        const RAMP: [V3; 5] = [
            [0.22, 0.11, 0.05],
            [0.42, 0.23, 0.09],
            [0.42, 0.42, 0.16],
            [0.28, 0.50, 0.38],
            [0.25, 0.50, 0.78],
        ];
        let t = self.iris_hue.clamp(0.0, 1.0) * 4.0;
        let i = (t as usize).min(3);
        let c = super::geometry::lerp3(RAMP[i], RAMP[i + 1], t - i as f32);
        c.map(|v| (v * (0.8 + 0.5 * self.iris_light)).min(1.0))
    }
}

fn smooth(x: f32, low: f32, high: f32) -> f32 {
    super::geometry::smoothstep(low, high, x)
}
