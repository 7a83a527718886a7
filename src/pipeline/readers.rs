//! The networks that read a request's photos, style image and texts.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use super::cache::Cache;
use super::folder::missing;
use super::prompt::{Said, TextBranch, cut};
use super::regions::Finder;
use crate::encoders::detector::Detector;
use crate::encoders::face::FaceEncoder;
use crate::encoders::segmenter::Segmenter;
use crate::encoders::text::TextEncoder;
use crate::encoders::tokenizer::Tokenizer;
use crate::encoders::vision::{VisionEncoder, VisionEnsemble, VisionOutput};
use crate::error::{Notice, Result};

/// What a model reads with: a picture needs them before its first step only.
#[derive(Debug)]
pub struct Readers {
    /// The model's.
    pub detector: Arc<Detector>,
    /// The model's.
    pub cache: Arc<Cache>,
    /// `segmenter/`: finds the outlines of people in photographs.
    pub segmenter: Option<Segmenter>,
    /// `face_encoder/`; a model whose adapters read pictures of faces may lack it.
    pub face_encoder: Option<FaceEncoder>,
    /// `vision_encoder/`, `vision_encoder_2/`, and so on; none in a family that reads no pictures.
    pub vision: VisionEnsemble,
    /// What reads texts, where the family has it read any.
    pub text: Option<TextReader>,
}

/// What texts become.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a program holds one")]
pub enum TextReader {
    /// Tokens.
    Tokens {
        /// `tokenizer/`.
        tokenizer: Tokenizer,
        /// `text_encoder/`.
        encoder: TextEncoder,
    },
    /// Embeddings in the vision ensemble's space, which a prior draws.
    Prior(TextBranch),
}

impl TextReader {
    /// What of a text is not read.
    pub fn cut(&self, said: Said, text: &str) -> Result<Option<Notice>> {
        let (tokenizer, encoder) = match self {
            Self::Tokens { tokenizer, encoder } => (tokenizer, encoder),
            Self::Prior(branch) => (&branch.tokenizer, &branch.text_encoder),
        };
        cut(tokenizer, encoder.context_length(), said, text)
    }
}

impl Readers {
    /// What finds the people of a content image.
    pub fn finder(&self) -> Finder<'_> {
        Finder { detector: &self.detector, segmenter: self.segmenter.as_ref() }
    }

    /// The identity encoder; fails with `component-missing` where the model has none.
    pub fn face_encoder(&self) -> Result<&FaceEncoder> {
        self.face_encoder.as_ref().ok_or_else(|| missing("face_encoder"))
    }

    /// The first vision encoder; fails with `component-missing` where the model has none.
    pub fn vision_encoder(&self) -> Result<&VisionEncoder> {
        self.vision.encoders.first().ok_or_else(|| missing("vision_encoder"))
    }

    /// What the first vision encoder says to `pixel_values`, `[1, 3, size, size]`, or to zeros: the null condition of
    /// adapters that read its states (diffusers' `encode_image`).
    pub fn see(&self, pixel_values: Option<Tensor<4>>, device: &Device) -> Result<VisionOutput> {
        let vision = self.vision_encoder()?;
        let size = vision.preprocessing().size;
        let seen =
            vision.forward(pixel_values.unwrap_or_else(|| Tensor::zeros([1, 3, size, size], device)))?;
        // No family reads the last states; what is kept of a picture is smaller without.
        Ok(VisionOutput { last_hidden_state: None, ..seen })
    }
}
