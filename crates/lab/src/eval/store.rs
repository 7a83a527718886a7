//! Finished pictures on disk, each under a name made of everything that decides it: what several experiments need is made
//! once, a run that was stopped goes on, and the shares of several machines are put together by copying their folders.

use std::path::{Path, PathBuf};

use ::image::RgbImage;
use serde::{Deserialize, Serialize};

use super::drawing::Drawing;
use crate::train::Backend;
use facestudio::error::{Error, Result};
use facestudio::image::codec;
use facestudio::weights::{sha256, write_file};

/// A folder of pictures.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Digests of the model and of the one that it is compared with.
    models: [String; 2],
}

/// A picture and the time that it took.
#[derive(Debug, Clone)]
pub struct Made {
    /// The pixels.
    pub image: RgbImage,
    /// Seconds from the request to the picture, encoders included, models loaded.
    pub seconds: f64,
    /// How the model was tuned before, where it was.
    pub tuning: Option<Tuning>,
}

/// How tuning went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// Seconds from the photos to the tuned weights, models loaded.
    pub seconds: f64,
    /// Where it computed.
    pub backend: Backend,
    /// Mean loss of the first tenth of its steps and of the last.
    pub losses: [f64; 2],
}

/// What a finished picture says of itself.
#[derive(Serialize, Deserialize)]
struct Settings {
    version: String,
    generated: bool,
    seconds: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tuning: Option<Tuning>,
    drawing: Drawing,
}

impl Store {
    /// Opens the folder, making it where there is none.
    pub fn open(folder: &Path, models: [String; 2]) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder.display(), &e))?;
        Ok(Self { folder: folder.to_owned(), models })
    }

    /// The name of a picture: a digest of everything that decides it.
    pub fn name(&self, drawing: &Drawing) -> Result<String> {
        let model = &self.models[drawing.model as usize];
        let json = serde_json::to_string(&(env!("CARGO_PKG_VERSION"), model, drawing));
        let json = json.map_err(|e| Error::internal("json", e.to_string()))?;
        Ok(sha256(json.as_bytes())[..20].to_owned())
    }

    fn path(&self, drawing: &Drawing, extension: &str) -> Result<PathBuf> {
        Ok(self.folder.join(format!("{}.{extension}", self.name(drawing)?)))
    }

    /// Whether the picture is there, or is known not to be possible.
    pub fn has(&self, drawing: &Drawing) -> Result<bool> {
        Ok(self.path(drawing, "png")?.exists() || self.path(drawing, "none")?.exists())
    }

    /// Keeps a picture.
    pub fn keep(&self, drawing: &Drawing, made: &Made) -> Result<()> {
        let settings = Settings {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generated: true,
            seconds: made.seconds,
            tuning: made.tuning,
            drawing: drawing.clone(),
        };
        write_file(&self.path(drawing, "png")?, &codec::encode_experiment_png(&made.image, &settings)?)
    }

    /// Keeps that there can be no picture, because a reference shows no face.
    pub fn keep_none(&self, drawing: &Drawing, why: &Error) -> Result<()> {
        write_file(&self.path(drawing, "none")?, why.to_string().as_bytes())
    }

    /// The picture; none where there can be none. Fails with `picture-unplanned` where it has not been made.
    pub fn read(&self, drawing: &Drawing) -> Result<Option<Made>> {
        if self.path(drawing, "none")?.exists() {
            return Ok(None);
        }
        let path = self.path(drawing, "png")?;
        if !path.exists() {
            return Err(Error::internal(
                "picture-unplanned",
                format!("no plan names the picture {drawing:?}"),
            ));
        }
        let bytes = std::fs::read(&path).map_err(|e| Error::io(path.display(), &e))?;
        let read = || -> Result<Made> {
            let texts = codec::read_png_texts(&bytes)?;
            let settings = texts.iter().find(|(keyword, _)| keyword == codec::SETTINGS);
            let settings: Option<Settings> = settings.and_then(|(_, text)| serde_json::from_str(text).ok());
            let settings = settings.ok_or_else(|| {
                Error::input(
                    "picture-foreign",
                    "it does not say how it was made",
                    "delete it; it is then made again",
                )
            })?;
            let Settings { seconds, tuning, .. } = settings;
            Ok(Made { image: codec::decode(&bytes)?, seconds, tuning })
        };
        read().map(Some).map_err(|e| e.context(path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::EvalOptions;

    #[test]
    fn what_is_kept_is_read_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), ["a".to_owned(), "b".to_owned()]).unwrap();
        let drawing = Drawing::trial(&EvalOptions::default(), 0);
        assert!(!store.has(&drawing).unwrap());
        assert_eq!(store.read(&drawing).unwrap_err().code, "picture-unplanned");
        let image = RgbImage::from_fn(8, 8, |x, y| ::image::Rgb([x as u8, y as u8, 9]));
        let tuning = Tuning { seconds: 60.0, backend: Backend::TorchCuda, losses: [0.5, 0.25] };
        let made = Made { image, seconds: 1.5, tuning: Some(tuning) };
        store.keep(&drawing, &made).unwrap();
        let read = store.read(&drawing).unwrap().unwrap();
        assert_eq!((read.image, read.seconds, read.tuning), (made.image, 1.5, Some(tuning)));

        let longer = Drawing { steps: 50, ..drawing.clone() };
        assert_ne!(store.name(&drawing).unwrap(), store.name(&longer).unwrap());
        let against = Drawing { model: super::super::drawing::ModelRole::Against, ..drawing.clone() };
        assert!(!store.has(&against).unwrap());
        store.keep_none(&longer, &Error::input("face-not-found", "no face", "")).unwrap();
        assert!(store.has(&longer).unwrap() && store.read(&longer).unwrap().is_none());

        let other = Store::open(folder.path(), ["another model".to_owned(), "b".to_owned()]).unwrap();
        assert!(!other.has(&drawing).unwrap());
    }
}
