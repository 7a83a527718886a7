//! Copies of the model, each tuned for a person and then drawn with.

use std::ops::ControlFlow;

use ::image::RgbImage;
use burn::tensor::Device;

use super::drawing::{Drawing, Method, Tuned};
use super::experiments::EvalEvent;
use super::lab::{Lab, exact};
use super::store::Tuning;
use crate::train::dreambooth::{self, ClassPicture};
use crate::train::subject::{Learnt, Subject};
use crate::train::{Backend, textual_inversion};
use facestudio::error::{Error, Result};
use facestudio::pipeline::FaceStudio;
use facestudio::weights::{Files, Overlay};

/// Tunes copies, and holds the latest: a person's pictures are drawn one after the other.
pub struct Tuner<'a> {
    files: &'a dyn Files,
    backend: Backend,
    /// Where pictures are drawn.
    device: &'a Device,
    held: Option<TunedModel>,
}

/// A tuned copy of the model.
struct TunedModel {
    tuned: Tuned,
    studio: FaceStudio,
    tuning: Tuning,
}

impl<'a> Tuner<'a> {
    /// Of copies of the model of `files`, tuned by `backend` and drawn with on `device`.
    pub fn new(files: &'a dyn Files, backend: Backend, device: &'a Device) -> Self {
        Self { files, backend, device, held: None }
    }

    /// Draws a picture of a tuned copy into the lab's store, tuning it unless it is the one that drew last. `stop` is asked after
    /// every step of both.
    pub fn draw(
        &mut self,
        lab: &Lab,
        drawing: &Drawing,
        tuned: &Tuned,
        watch: &mut dyn FnMut(EvalEvent),
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        // Another's copy goes before this one is made.
        let held = self.held.take().filter(|copy| copy.tuned == *tuned);
        let copy = match held {
            Some(copy) => copy,
            None => self.tune(lab, drawing, tuned, watch, stop)?,
        };
        lab.draw_with(&copy.studio, drawing, Some(copy.tuning), stop)?;
        self.held = Some(copy);
        Ok(())
    }

    fn tune(
        &self,
        lab: &Lab,
        drawing: &Drawing,
        tuned: &Tuned,
        watch: &mut dyn FnMut(EvalEvent),
        stop: &dyn Fn() -> bool,
    ) -> Result<TunedModel> {
        let mut class = Vec::new();
        for picture in drawing.class_pictures() {
            // A share of the work may lack pictures that are another machine's to draw.
            if !lab.has(&picture)? {
                lab.draw(&picture, stop)?;
            }
            let made = lab.picture(&picture)?;
            class.extend(made.map(|made| ClassPicture { image: made.image, seed: picture.seed }));
        }
        let photos: Vec<RgbImage> = tuned.photos.iter().map(|photo| photo.render().image).collect();
        let subject = Subject {
            files: self.files,
            photos: &photos,
            class: &tuned.class,
            steps: tuned.steps,
            seed: tuned.photos.first().map_or(0, |photo| photo.who),
            backend: self.backend,
        };
        let mut after = |step| {
            watch(EvalEvent::Tuning(step, tuned.steps));
            if stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let Learnt { folders, seconds, losses } = match tuned.method {
            Method::TextualInversion => textual_inversion::learn(&subject, &mut after)?,
            Method::DreamBooth => dreambooth::learn(&subject, &class, &mut after)?,
        };
        if losses.iter().any(|loss| !loss.is_finite()) {
            return Err(Error::weights(
                "tuning-diverged",
                format!("tuning for a {} came to a loss that is not a number", tuned.class),
                "tune in full precision (`--tuning-backend cpu`); if that fails as well, the weights are damaged",
            ));
        }
        let tenth = losses.len().div_ceil(10);
        let mean = |losses: &[f32]| losses.iter().map(|v| f64::from(*v)).sum::<f64>() / losses.len() as f64;
        let losses = [mean(&losses[..tenth]), mean(&losses[losses.len() - tenth..])];
        let studio = exact(&Overlay { files: self.files, over: &folders }, self.device)?;
        Ok(TunedModel {
            tuned: tuned.clone(),
            studio,
            tuning: Tuning { seconds, backend: self.backend, losses },
        })
    }
}
