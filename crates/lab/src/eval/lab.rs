//! What experiments measure with: the model, the identity encoder, the judges and the pictures made so far.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::rc::Rc;
use std::time::Instant;

use ::image::RgbImage;
use burn::tensor::Device;
use pollster::block_on;
use rayon::prelude::*;

use super::clip::Clip;
use super::drawing::{Drawing, ModelRole, PHOTO, Photo, Staged, TARGETS};
use super::judge::{self, Question};
use super::likeness::{Face, Levels, cosine, embed};
use super::options::EvalOptions;
use super::section::Picture;
use super::store::{Made, Store, Tuning};
use facestudio::encoders::face::FaceEncoder;
use facestudio::error::{Error, Result};
use facestudio::image::preprocess::{read_pictures, signed_tensor};
use facestudio::pipeline::{FaceStudio, Precision};
use facestudio::vae::Vae;
use facestudio::weights::{Component, Files};
use facestudio_synth::Rendered;

/// What was computed already.
type Cache<K, V> = RefCell<BTreeMap<K, Rc<V>>>;

/// Model folders of an evaluation.
pub struct Models<'a> {
    /// What is evaluated.
    pub own: &'a dyn Files,
    /// What it is compared with.
    pub against: Option<&'a dyn Files>,
    /// Whose CLIP judges.
    pub clip: &'a dyn Files,
}

/// A model with what it is measured by.
pub struct Lab {
    /// What is asked.
    pub options: EvalOptions,
    /// Side of the model's own pictures in pixels.
    pub size: u32,
    studio: FaceStudio,
    against: Option<FaceStudio>,
    encoder: FaceEncoder,
    clip: Clip,
    vae: Vae,
    store: Store,
    device: Device,
    styles: OnceCell<Question>,
    attributes: OnceCell<Vec<Question>>,
    subjects: OnceCell<Question>,
    faces: Cache<String, Vec<Face>>,
    photos: Cache<(u64, u64), Vec<f32>>,
}

/// A model that computes in f32: figures of different devices are compared.
pub(super) fn exact(files: &dyn Files, device: &Device) -> Result<FaceStudio> {
    FaceStudio::load(files, device)?.with_precision(Precision::F32)
}

impl Lab {
    /// Loads the models, and takes an identity encoder and a store.
    pub fn new(
        models: &Models,
        encoder: FaceEncoder,
        store: Store,
        options: EvalOptions,
        device: &Device,
    ) -> Result<Self> {
        let studio = exact(models.own, device)?;
        let size = studio.sizes().own.map_or(PHOTO, |[width, _]| width as u32);
        Ok(Self {
            options,
            size,
            studio,
            against: models.against.map(|files| exact(files, device)).transpose()?,
            encoder,
            clip: Clip::load(models.clip, device)?,
            vae: Vae::load(&Component::new(models.own, "vae"), device)?,
            store,
            device: device.clone(),
            styles: OnceCell::new(),
            attributes: OnceCell::new(),
            subjects: OnceCell::new(),
            faces: RefCell::default(),
            photos: RefCell::default(),
        })
    }

    /// Whether the picture needs not be drawn any more.
    pub fn has(&self, drawing: &Drawing) -> Result<bool> {
        self.store.has(drawing)
    }

    /// Draws a picture of a model that is not tuned into the store; `stop` is asked after every step.
    pub fn draw(&self, drawing: &Drawing, stop: &dyn Fn() -> bool) -> Result<()> {
        let studio = match drawing.model {
            ModelRole::Model => &self.studio,
            ModelRole::Against => self.against.as_ref().ok_or_else(|| {
                Error::internal("picture-unplanned", "a picture of a second model, and there is none")
            })?,
        };
        self.draw_with(studio, drawing, None, stop)
    }

    /// Draws a picture with any model into the store, which was tuned for it where there is a `tuning`.
    pub fn draw_with(
        &self,
        studio: &FaceStudio,
        drawing: &Drawing,
        tuning: Option<Tuning>,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let request = drawing.request();
        let start = Instant::now();
        let watch = async |_| if stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        match block_on(studio.generate(&request, watch)) {
            Ok(mut pictures) => {
                let picture = pictures.pop();
                let picture =
                    picture.ok_or_else(|| Error::internal("picture-missing", "no picture was made"))?;
                let seconds = start.elapsed().as_secs_f64();
                self.store.keep(drawing, &Made { image: picture.image, seconds, tuning })
            }
            // A reference without a face is a result, not an end: the model's detector missed it.
            Err(error) if error.code == "face-not-found" => self.store.keep_none(drawing, &error),
            Err(error) => Err(error),
        }
    }

    /// A finished picture; none where a reference showed no face.
    pub fn picture(&self, drawing: &Drawing) -> Result<Option<Made>> {
        self.store.read(drawing)
    }

    /// The finished ones of several pictures.
    pub fn pictures(&self, drawings: &[Drawing]) -> Result<Vec<RgbImage>> {
        let made = drawings.iter().map(|drawing| self.picture(drawing)).collect::<Result<Vec<_>>>()?;
        Ok(made.into_iter().flatten().map(|made| made.image).collect())
    }

    /// Seconds of each finished picture.
    pub fn seconds(&self, drawings: &[Drawing]) -> Result<Vec<f64>> {
        let made = drawings.iter().map(|drawing| self.picture(drawing)).collect::<Result<Vec<_>>>()?;
        Ok(made.into_iter().flatten().map(|made| made.seconds).collect())
    }

    /// The faces that the model's detector finds in a finished picture, largest first.
    pub fn faces(&self, drawing: &Drawing) -> Result<Rc<Vec<Face>>> {
        let name = self.store.name(drawing)?;
        if let Some(faces) = self.faces.borrow().get(&name) {
            return Ok(faces.clone());
        }
        let faces = match self.picture(drawing)? {
            Some(made) => self.faces_in(&made.image)?,
            None => Vec::new(),
        };
        let faces = Rc::new(faces);
        self.faces.borrow_mut().insert(name, faces.clone());
        Ok(faces)
    }

    /// The faces in any picture, largest first.
    pub fn faces_in(&self, picture: &RgbImage) -> Result<Vec<Face>> {
        let found = block_on(self.studio.faces(picture))?;
        let mut faces = found
            .iter()
            .map(|found| Face::new(&self.encoder, picture, found, &self.device))
            .collect::<Result<Vec<_>>>()?;
        faces.sort_by(|a, b| b.area().total_cmp(&a.area()));
        Ok(faces)
    }

    /// The embedding of a person's photo.
    pub fn photo(&self, who: u64, shot: u64) -> Result<Rc<Vec<f32>>> {
        if let Some(embedding) = self.photos.borrow().get(&(who, shot)) {
            return Ok(embedding.clone());
        }
        let embedding = Rc::new(self.embed_known(&Photo::new(who, shot).render())?);
        self.photos.borrow_mut().insert((who, shot), embedding.clone());
        Ok(embedding)
    }

    /// The embedding of the first person of a render, whose landmarks are known.
    fn embed_known(&self, rendered: &Rendered) -> Result<Vec<f32>> {
        let person = rendered.people.first();
        let person = person.ok_or_else(|| Error::internal("photo", "a rendered photo shows nobody"))?;
        embed(&self.encoder, &rendered.image, &person.landmarks, &self.device)
    }

    /// Mean cosine of an embedding and the two photos of a person that never condition.
    pub fn similarity(&self, embedding: &[f32], who: u64) -> Result<f64> {
        let mut sum = 0.0;
        for shot in TARGETS {
            sum += cosine(embedding, &self.photo(who, shot)?);
        }
        Ok(sum / TARGETS.len() as f64)
    }

    /// [`Lab::similarity`] of the largest face of a finished picture; none where no face was found.
    pub fn likeness(&self, drawing: &Drawing, who: u64) -> Result<Option<f64>> {
        let faces = self.faces(drawing)?;
        faces.first().map(|face| self.similarity(&face.embedding, who)).transpose()
    }

    /// [`Lab::likeness`] of several pictures, each to the person of its index.
    pub fn likenesses(&self, drawings: &[Drawing]) -> Result<Vec<Option<f64>>> {
        drawings.iter().zip(0..).map(|(drawing, who)| self.likeness(drawing, who)).collect()
    }

    /// The encoder's levels on people 0 to `people` − 1.
    pub fn levels(&self, people: usize) -> Result<Levels> {
        self.levels_of(0..people as u64)
    }

    /// The encoder's levels on people of these numbers.
    pub fn levels_of(&self, people: Range<u64>) -> Result<Levels> {
        let missing: Vec<(u64, u64)> = people
            .clone()
            .flat_map(|who| TARGETS.map(|shot| (who, shot)))
            .filter(|photo| !self.photos.borrow().contains_key(photo))
            .collect();
        let rendered: Vec<Rendered> =
            missing.par_iter().map(|(who, shot)| Photo::new(*who, *shot).render()).collect();
        for (photo, rendered) in missing.into_iter().zip(&rendered) {
            let embedding = Rc::new(self.embed_known(rendered)?);
            self.photos.borrow_mut().insert(photo, embedding);
        }
        let photos = people
            .map(|who| Ok([self.photo(who, TARGETS[0])?.to_vec(), self.photo(who, TARGETS[1])?.to_vec()]))
            .collect::<Result<Vec<_>>>()?;
        Ok(Levels::new(&photos))
    }

    /// CLIP's embedding of any picture.
    pub fn clip_picture(&self, picture: &RgbImage) -> Result<Vec<f32>> {
        self.clip.picture(picture)
    }

    /// CLIP's embedding of a text.
    pub fn clip_text(&self, text: &str) -> Result<Vec<f32>> {
        self.clip.text(text)
    }

    /// CLIP's embedding of a finished picture.
    pub fn clip_drawing(&self, drawing: &Drawing) -> Result<Option<Vec<f32>>> {
        self.picture(drawing)?.map(|made| self.clip.picture(&made.image)).transpose()
    }

    /// CLIP's embedding of a picture and after it the identity encoder's of the largest face, zero where there is none: CLIP
    /// alone, which sees whole pictures, hardly sees glasses.
    fn describe(&self, picture: &RgbImage) -> Result<Vec<f32>> {
        let mut embedding = self.clip.picture(picture)?;
        let width = self.photo(0, TARGETS[0])?.len();
        let face = self.faces_in(picture)?.into_iter().next();
        embedding.extend(face.map_or_else(|| vec![0.0; width], |face| face.embedding));
        Ok(embedding)
    }

    /// What [`Lab::attributes`] are asked of: a finished picture's embedding.
    pub fn describe_drawing(&self, drawing: &Drawing) -> Result<Option<Vec<f32>>> {
        self.picture(drawing)?.map(|made| self.describe(&made.image)).transpose()
    }

    /// Which style a picture is drawn in.
    pub fn styles(&self) -> Result<&Question> {
        once(&self.styles, || judge::styles(&self.clip, self.judged(&|picture| self.through_vae(picture))))
    }

    /// The question of each attribute.
    pub fn attributes(&self) -> Result<&Vec<Question>> {
        let describe = |picture: &RgbImage| self.describe(picture);
        let decode = |picture: &RgbImage| self.through_vae(picture);
        once(&self.attributes, || judge::attributes(&self.clip, &describe, self.judged(&decode)))
    }

    /// Which thing a picture shows.
    pub fn subjects(&self) -> Result<&Question> {
        once(&self.subjects, || {
            judge::subjects(&self.clip, self.judged(&|picture| self.through_vae(picture)))
        })
    }

    /// A picture of the model's own size after its autoencoder: the best that any denoiser could give.
    pub fn through_vae(&self, picture: &RgbImage) -> Result<RgbImage> {
        let latents = self.vae.encode_latents(signed_tensor(&[picture], &self.device)?)?;
        let mut pictures = block_on(read_pictures(self.vae.decode_latents(latents)?))?;
        pictures.pop().ok_or_else(|| Error::internal("picture-missing", "the decoder gave no picture"))
    }

    /// What judges learn from.
    fn judged<'a>(&self, decode: &'a judge::Decode<'a>) -> judge::Pictures<'a> {
        judge::Pictures { side: self.size, decode }
    }

    /// A render at the size of the model's own pictures.
    pub fn render(&self, staged: &Staged) -> RgbImage {
        staged.render(self.size).image
    }

    /// Several renders at the size of the model's own pictures.
    pub fn renders(&self, staged: &[Staged]) -> Vec<RgbImage> {
        let size = self.size;
        staged.par_iter().map(|staged| staged.render(size).image).collect()
    }

    /// A picture of the report, at the size of the model's own pictures; none where there can be none.
    pub fn show(&self, picture: &Picture) -> Result<Option<RgbImage>> {
        Ok(match picture {
            Picture::Drawing(drawing) => self.picture(drawing)?.map(|made| made.image),
            Picture::Photo(photo) => {
                Some(::image::imageops::thumbnail(&photo.render().image, self.size, self.size))
            }
            Picture::Staged(staged) => Some(self.render(staged)),
        })
    }
}

fn once<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if let Some(value) = cell.get() {
        return Ok(value);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}
