//! The networks that read a request's photos, style image and texts.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use super::cache::{self, Cache};
use super::chat::ChatReader;
use super::folder::{ModelFolder, missing};
use super::progress::Host;
use super::prompt::{Prior, TextReader};
use super::resident::{Reloadable, Resident};
use crate::encoders::detector::Detector;
use crate::encoders::face::FaceEncoder;
use crate::encoders::segmenter::Segmenter;
use crate::encoders::vision::{VisionEncoder, VisionEnsemble, VisionOutput};
use crate::error::Result;
use crate::transformer::Flux2Transformer2DModel;
use crate::weights::Files;

/// What a family reads with.
#[derive(Default)]
pub struct RequiredReaders {
    /// Folders of vision encoders, in the order of their embeddings.
    pub vision: Vec<String>,
    /// Whether `tokenizer/` and `text_encoder/` read texts.
    pub text: bool,
    /// Whether `prior/` draws of what they say.
    pub prior: bool,
}

/// What a model reads with. Detector and face encoder stay, since likeness is measured with them after every picture; the others
/// are needed for guidance alone, and come and go.
#[derive(Debug)]
pub struct Readers {
    /// `detector/`; a model that sees pictures themselves may lack it.
    detector: Option<Detector>,
    /// `face_encoder/`; a model whose adapters read pictures of faces may lack it.
    face_encoder: Option<FaceEncoder>,
    /// What was read of earlier pictures and texts; it outlives what read it.
    pub cache: Cache,
    /// What was read as a chat, which is larger.
    pub chats: Cache,
    /// `segmenter/`: finds the outlines of people in photographs.
    pub segmenter: Option<Resident<Segmenter>>,
    /// `vision_encoder/`, `vision_encoder_2/`, and so on; none in a family that reads no pictures.
    vision: Vec<Resident<VisionEncoder>>,
    /// `tokenizer/` and `text_encoder/`, where the family has texts read.
    text: Option<Resident<TextReader>>,
    /// `prior/`, where one draws of texts.
    prior: Option<Resident<Prior>>,
    /// The same folders as [`text`](Self::text)'s, where a text is a chat.
    chat: Option<Turns>,
}

/// A text encoder and a transformer, each so large that one is there at a time.
#[derive(Debug)]
struct Turns {
    reader: Resident<ChatReader>,
    transformer: Arc<Resident<Flux2Transformer2DModel>>,
}

impl Readers {
    /// Loads what `reads` names, and what every family has, which is read through the `folder` of these files.
    pub fn load(
        files: &dyn Files,
        folder: &ModelFolder,
        reads: &RequiredReaders,
        has_face_encoder: bool,
        transformer: Option<&Arc<Resident<Flux2Transformer2DModel>>>,
        device: &Device,
    ) -> Result<Self> {
        let detector = (folder.has("detector") || transformer.is_none())
            .then(|| folder.load("detector", |c| Detector::load(c, device)))
            .transpose()?;
        let face_encoder = has_face_encoder
            .then(|| folder.load("face_encoder", |c| FaceEncoder::load(c, device)))
            .transpose()?;
        let vision = |name: &String| {
            let own = name.clone();
            let read = move |folder: &ModelFolder, device: &Device| {
                folder.load_compact(&own, |c| VisionEncoder::load(c, device))
            };
            Resident::open(name, files, device, read)
        };
        let segmenter =
            |folder: &ModelFolder, device: &Device| folder.load("segmenter", |c| Segmenter::load(c, device));
        let has = |there: bool| there.then_some(());
        Ok(Self {
            detector,
            face_encoder,
            cache: Cache::new(cache::READINGS),
            chats: Cache::new(cache::CHATS),
            segmenter: has(folder.has("segmenter"))
                .map(|()| Resident::open("segmenter", files, device, segmenter))
                .transpose()?,
            vision: reads.vision.iter().map(vision).collect::<Result<_>>()?,
            text: has(reads.text)
                .map(|()| Resident::open("text_encoder", files, device, TextReader::load))
                .transpose()?,
            prior: has(reads.prior)
                .map(|()| Resident::open("prior", files, device, Prior::load))
                .transpose()?,
            chat: transformer.map(|transformer| Turns::open(files, transformer.clone())).transpose()?,
        })
    }

    /// What comes and goes.
    pub fn residents(&self) -> impl Iterator<Item = &dyn Reloadable> {
        fn any<T>(resident: &Resident<T>) -> &dyn Reloadable {
            resident
        }
        let vision = self.vision.iter().map(any);
        let segmenter = self.segmenter.iter().map(any);
        let chat = self.chat.iter().map(|turns| any(&turns.reader));
        let texts = self.text.iter().map(any).chain(chat);
        vision.chain(segmenter).chain(texts).chain(self.prior.iter().map(any))
    }

    /// What finds faces; fails with `component-missing` where the model has nothing that does.
    pub fn detector(&self) -> Result<&Detector> {
        self.detector.as_ref().ok_or_else(|| missing("detector"))
    }

    /// The identity encoder; fails with `component-missing` where the model has none.
    pub fn face_encoder(&self) -> Result<&FaceEncoder> {
        self.face_encoder.as_ref().ok_or_else(|| missing("face_encoder"))
    }

    /// The first vision encoder; fails with `component-missing` where the model has none.
    pub async fn vision_encoder(&self, host: &mut impl Host) -> Result<Arc<VisionEncoder>> {
        self.vision.first().ok_or_else(|| missing("vision_encoder"))?.get(host).await
    }

    /// All vision encoders side by side.
    pub async fn ensemble(&self, host: &mut impl Host) -> Result<VisionEnsemble> {
        let mut encoders = Vec::new();
        for encoder in &self.vision {
            // Their tensors are shared.
            encoders.push(VisionEncoder::clone(&*encoder.get(host).await?));
        }
        Ok(VisionEnsemble { encoders })
    }

    /// What reads texts; fails with `component-missing` where nothing does.
    pub async fn text(&self, host: &mut impl Host) -> Result<Arc<TextReader>> {
        self.text.as_ref().ok_or_else(|| missing("text_encoder"))?.get(host).await
    }

    /// What reads texts as a chat; fails with `component-missing` where nothing does. Where it comes, the transformer goes.
    pub async fn chat(&self, host: &mut impl Host, device: &Device) -> Result<Arc<ChatReader>> {
        let Turns { reader, transformer } = self.chat.as_ref().ok_or_else(|| missing("text_encoder"))?;
        if !reader.is_held() {
            transformer.release();
            device.memory_cleanup();
        }
        reader.get(host).await
    }

    /// Lets go of what reads texts as a chat: the transformer comes.
    pub fn release_chat(&self) {
        self.chat.iter().for_each(|turns| turns.reader.release());
    }

    /// The prior; fails with `component-missing` where the model has none.
    pub async fn prior(&self, host: &mut impl Host) -> Result<Arc<Prior>> {
        self.prior.as_ref().ok_or_else(|| missing("prior"))?.get(host).await
    }
}

impl Turns {
    /// Reads configs alone: weights are read when there is something to encode.
    fn open(files: &dyn Files, transformer: Arc<Resident<Flux2Transformer2DModel>>) -> Result<Self> {
        let folder = ModelFolder::new(files)?;
        for component in ["tokenizer", "text_encoder"] {
            folder.load(component, |_| Ok(()))?;
        }
        Ok(Self { reader: Resident::opened("text_encoder", &folder, None, ChatReader::load)?, transformer })
    }
}

/// What a vision encoder says to `pixel_values`, `[1, 3, size, size]`, or to zeros: the null condition of adapters that read its
/// states (diffusers' `encode_image`).
pub fn see(vision: &VisionEncoder, pixel_values: Option<Tensor<4>>, device: &Device) -> Result<VisionOutput> {
    let size = vision.preprocessing().size;
    let seen = vision.forward(pixel_values.unwrap_or_else(|| Tensor::zeros([1, 3, size, size], device)))?;
    // No family reads the last states; what is kept of a picture is smaller without.
    Ok(VisionOutput { last_hidden_state: None, ..seen })
}
