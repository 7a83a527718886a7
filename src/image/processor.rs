//! How pictures become a vision encoder's input, as transformers' `CLIPImageProcessor` does it by its
//! `preprocessor_config.json`: resize, cut out the middle, scale, subtract the mean and divide by the deviation.

use ::image::RgbImage;
use ::image::imageops::FilterType;
use burn::tensor::{Device, Tensor};
use serde_json::{Map, Value};

use super::preprocess::{Framing, frame, scaled_tensor};
use crate::error::{Error, Result};

/// Largest side of a resized picture.
const MOST_SIDE: u64 = 4096;
/// Classes of transformers that do these steps in this order, with these defaults.
const CLASSES: [&str; 4] =
    ["CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor"];
/// Steps that have no say in what becomes of one RGB picture.
const WITHOUT_EFFECT: [&str; 1] = ["do_convert_rgb"];

/// The steps from a picture to a vision encoder's square input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preprocessing {
    /// Side of the square input in pixels.
    pub size: usize,
    /// What the picture is resized to before its middle is cut out.
    pub resize: Resize,
    /// How it is resized; antialiased where it shrinks.
    pub filter: FilterType,
    /// What bytes are divided by: 255, or 1 where the network takes bytes as they are.
    pub divisor: f32,
    /// Mean of each channel (RGB) after that.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub std: [f32; 3],
}

/// What a picture is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// Its shorter side to so many pixels, in proportion.
    ShortestEdge(usize),
    /// To this size, out of proportion where the picture has others.
    Exact {
        /// Pixels from left to right.
        width: usize,
        /// Pixels from top to bottom.
        height: usize,
    },
}

impl Preprocessing {
    /// CLIP's constants (OpenAI CLIP, `clip.py`, `_transform`) at `size`.
    pub fn clip(size: usize) -> Self {
        Self {
            size,
            resize: Resize::ShortestEdge(size),
            filter: FilterType::CatmullRom,
            divisor: 255.0,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }

    /// What a `preprocessor_config.json` says, for an encoder whose input is `size` pixels wide. What it does not say is
    /// CLIP's, and sizes the encoder's.
    ///
    /// Fails with `preprocessor`, naming the entry, where it asks for steps that are not done here, or for another size than
    /// the encoder's.
    pub fn from_config(config: &Map<String, Value>, size: usize) -> Result<Self> {
        let config = Config(config);
        config.refuse_others()?;
        let usual = Self::clip(size);
        if !config.flag("do_resize", true)? {
            return Err(refused("do_resize is false, and pictures have every size"));
        }
        let crops = config.flag("do_center_crop", true)?;
        let resize = config.resize(size)?;
        // Without a crop size of its own the middle is what the encoder takes.
        let [width, height] = match config.get("crop_size") {
            Some(value) if crops => square_or_sides("crop_size", value)?,
            _ if crops => [size; 2],
            _ => match resize {
                Resize::Exact { width, height } => [width, height],
                Resize::ShortestEdge(_) => {
                    return Err(refused(
                        "do_center_crop is false, and size has a shortest_edge alone: pictures stay oblong",
                    ));
                }
            },
        };
        if [width, height] != [size; 2] {
            return Err(refused(format!(
                "{} is {width}×{height}, but the encoder takes {size}×{size}",
                if crops { "crop_size" } else { "size" }
            )));
        }
        let covers = match resize {
            Resize::ShortestEdge(edge) => edge >= size,
            Resize::Exact { width, height } => width >= size && height >= size,
        };
        if !covers {
            return Err(refused(format!("size is less than crop_size, {size}: the rest would be black")));
        }
        let divisor = if config.flag("do_rescale", true)? {
            1.0 / config.number("rescale_factor", 1.0 / 255.0)?
        } else {
            1.0
        };
        if !(divisor.is_finite() && divisor > 0.0) {
            return Err(refused("rescale_factor is no positive number"));
        }
        let mut made = Self { resize, filter: config.filter()?, divisor: divisor as f32, ..usual };
        if config.flag("do_normalize", true)? {
            made.mean = config.channels("image_mean", usual.mean)?;
            made.std = config.channels("image_std", usual.std)?;
        } else {
            (made.mean, made.std) = ([0.0; 3], [1.0; 3]);
        }
        if made.std.iter().any(|std| *std <= 0.0) {
            return Err(refused(format!(
                "image_std is {:?}; it must be positive in every channel",
                made.std
            )));
        }
        Ok(made)
    }

    /// The first entry of their configs by which two differ.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let entries = [
            ("crop_size", self.size == other.size),
            ("size", self.resize == other.resize),
            ("resample", self.filter == other.filter),
            ("rescale_factor", self.divisor == other.divisor),
            ("image_mean", self.mean == other.mean),
            ("image_std", self.std == other.std),
        ];
        entries.into_iter().find(|(_, same)| !same).map(|(name, _)| name)
    }

    /// A picture as the encoder takes it, `[1, 3, size, size]`. Fails with `image-empty` on one without pixels.
    pub fn tensor(&self, picture: &RgbImage, device: &Device) -> Result<Tensor<4>> {
        scaled_tensor(&self.square(picture)?, self.divisor, self.mean, self.std, device)
    }

    /// The part of a picture that the encoder sees, `size × size` pixels.
    pub fn square(&self, picture: &RgbImage) -> Result<RgbImage> {
        let framing = match self.resize {
            Resize::ShortestEdge(edge) => Framing::Cover { width: edge as u32, height: edge as u32 },
            Resize::Exact { width, height } => Framing::Squash { width: width as u32, height: height as u32 },
        };
        frame(picture, framing, (self.size as u32, self.size as u32), self.filter)
    }
}

/// The entries of a `preprocessor_config.json`.
struct Config<'a>(&'a Map<String, Value>);

impl Config<'_> {
    /// An entry that is there and not null.
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn flag(&self, name: &str, usual: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(usual),
            Some(value) => {
                value.as_bool().ok_or_else(|| refused(format!("{name} is {value}, neither true nor false")))
            }
        }
    }

    fn number(&self, name: &str, usual: f64) -> Result<f64> {
        match self.get(name) {
            None => Ok(usual),
            Some(value) => value.as_f64().ok_or_else(|| refused(format!("{name} is {value}, no number"))),
        }
    }

    /// A number for each channel, or one for all.
    fn channels(&self, name: &str, usual: [f32; 3]) -> Result<[f32; 3]> {
        let Some(value) = self.get(name) else { return Ok(usual) };
        let number = |value: &Value| value.as_f64().map(|v| v as f32).filter(|v| v.is_finite());
        let read = match value.as_array().map(Vec::as_slice) {
            Some([red, green, blue]) => number(red)
                .zip(number(green))
                .zip(number(blue))
                .map(|((red, green), blue)| [red, green, blue]),
            Some(_) => None,
            None => number(value).map(|all| [all; 3]),
        };
        read.ok_or_else(|| refused(format!("{name} is {value}, no number for each of three channels")))
    }

    fn resize(&self, size: usize) -> Result<Resize> {
        let Some(value) = self.get("size") else { return Ok(Resize::ShortestEdge(size)) };
        // A number alone is the shorter side's, in CLIP's classes.
        let shortest = value.as_u64().or(match value.as_object() {
            Some(entries) if entries.len() == 1 => entries.get("shortest_edge").and_then(Value::as_u64),
            _ => None,
        });
        if let Some(edge) = shortest {
            return Ok(Resize::ShortestEdge(side("size", edge)?));
        }
        let [width, height] = square_or_sides("size", value)?;
        Ok(Resize::Exact { width, height })
    }

    /// Pillow's numbers.
    fn filter(&self) -> Result<FilterType> {
        let Some(value) = self.get("resample") else { return Ok(FilterType::CatmullRom) };
        match value.as_u64() {
            Some(0) => Ok(FilterType::Nearest),
            Some(1) => Ok(FilterType::Lanczos3),
            Some(2) => Ok(FilterType::Triangle),
            Some(3) => Ok(FilterType::CatmullRom),
            _ => Err(refused(format!(
                "resample is {value}; 0 (nearest), 1 (Lanczos), 2 (bilinear) and 3 (bicubic) are known"
            ))),
        }
    }

    /// Refuses classes and steps that do something else.
    fn refuse_others(&self) -> Result<()> {
        const KNOWN: [&str; 5] = ["do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_pad"];
        for name in ["image_processor_type", "feature_extractor_type"] {
            let class = self.get(name).and_then(Value::as_str);
            if let Some(class) = class.filter(|class| !CLASSES.contains(class)) {
                return Err(refused(format!("{name} is '{class}', which is none of CLIP's")));
            }
        }
        // What comes out has one size: only padding to another would show.
        if self.flag("do_pad", false)? && self.get("pad_size").is_some() {
            return Err(refused("pad_size is set"));
        }
        let other = self.0.iter().find(|(name, value)| {
            let known = KNOWN.contains(&name.as_str()) || WITHOUT_EFFECT.contains(&name.as_str());
            (name.starts_with("do_") && !known || *name == "use_square_size") && **value == Value::Bool(true)
        });
        match other {
            None => Ok(()),
            Some((name, _)) => Err(refused(format!("{name} is true, which is not known"))),
        }
    }
}

/// `224`, or `{"height": 224, "width": 224}`: width and height.
fn square_or_sides(name: &str, value: &Value) -> Result<[usize; 2]> {
    if let Some(edge) = value.as_u64() {
        return Ok([side(name, edge)?; 2]);
    }
    let sides = value
        .as_object()
        .filter(|entries| entries.len() == 2)
        .and_then(|entries| Some([entries.get("width")?.as_u64()?, entries.get("height")?.as_u64()?]));
    let [width, height] = sides.ok_or_else(|| refused(format!("{name} is {value}")))?;
    Ok([side(name, width)?, side(name, height)?])
}

fn side(name: &str, side: u64) -> Result<usize> {
    if (1..=MOST_SIDE).contains(&side) {
        return Ok(side as usize);
    }
    Err(refused(format!("{name} is {side}; 1 to {MOST_SIDE} pixels are supported")))
}

fn refused(message: impl std::fmt::Display) -> Error {
    Error::weights(
        "preprocessor",
        format!("preprocessor_config.json: {message}"),
        "use the preprocessor_config.json of the encoder's own CLIP",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: Value) -> Result<Preprocessing> {
        Preprocessing::from_config(config.as_object().unwrap(), 24)
    }

    #[test]
    fn what_is_not_said_is_clips_and_sizes_are_the_encoders() {
        assert_eq!(read(json!({})).unwrap(), Preprocessing::clip(24));
        let old = json!({ "feature_extractor_type": "CLIPFeatureExtractor", "size": 24, "crop_size": 24, "resample": 3 });
        assert_eq!(read(old).unwrap(), Preprocessing::clip(24));
        // As the published files say it, one by one.
        let explicit = json!({
            "do_resize": true, "do_center_crop": true, "do_rescale": true, "do_normalize": true, "do_convert_rgb": true, "do_pad": false,
        });
        assert_eq!(read(explicit).unwrap(), Preprocessing::clip(24));
        let said =
            json!({ "image_mean": [0.5, 0.4, 0.3], "image_std": 0.25, "rescale_factor": 0.5, "resample": 2 });
        let (filter, divisor) = (FilterType::Triangle, 2.0);
        let usual = Preprocessing::clip(24);
        let expected = Preprocessing { filter, divisor, mean: [0.5, 0.4, 0.3], std: [0.25; 3], ..usual };
        assert_eq!(read(said).unwrap(), expected);
        let raw =
            read(json!({ "do_rescale": false, "do_normalize": false, "image_mean": [9, 9, 9] })).unwrap();
        assert_eq!((raw.divisor, raw.mean, raw.std), (1.0, [0.0; 3], [1.0; 3]));
    }

    #[test]
    fn what_is_not_done_is_refused_by_its_name() {
        for (config, name) in [
            (json!({ "do_resize": false }), "do_resize"),
            (json!({ "do_center_crop": false }), "do_center_crop"),
            (json!({ "crop_size": 32 }), "crop_size"),
            (json!({ "crop_size": { "height": 24, "width": 20 } }), "crop_size"),
            (json!({ "size": { "shortest_edge": 20 } }), "size"),
            (json!({ "size": { "shortest_edge": 24, "longest_edge": 30 } }), "size"),
            (json!({ "size": { "max_height": 24, "max_width": 24 } }), "size"),
            (json!({ "size": { "height": 20, "width": 30 } }), "size"),
            (json!({ "size": 1_000_000 }), "size"),
            (json!({ "resample": 4 }), "resample"),
            (json!({ "resample": "bicubic" }), "resample"),
            (json!({ "rescale_factor": 0 }), "rescale_factor"),
            (json!({ "image_std": [1, 0, 1] }), "image_std"),
            (json!({ "image_mean": [1, 0] }), "image_mean"),
            (json!({ "do_normalize": "no" }), "do_normalize"),
            (json!({ "do_flip_channel_order": true }), "do_flip_channel_order"),
            (json!({ "do_pad": true, "pad_size": 30 }), "pad_size"),
            (json!({ "image_processor_type": "SiglipImageProcessor" }), "SiglipImageProcessor"),
        ] {
            let error = read(config).unwrap_err();
            assert!(error.code == "preprocessor" && error.message.contains(name), "{name}: {error}");
        }
    }
}
