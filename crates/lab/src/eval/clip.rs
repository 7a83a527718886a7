//! A model's CLIP, text encoder and vision ensemble, as a judge of pictures.

use ::image::RgbImage;
use burn::tensor::{DType, Device, Tensor};

use facestudio::encoders::text::TextEncoder;
use facestudio::encoders::tokenizer::Tokenizer;
use facestudio::encoders::vision::{VisionEncoder, VisionEnsemble};
use facestudio::error::{Error, Result};
use facestudio::nn::read_finite;
use facestudio::weights::{Component, Files};

/// Text encoder and vision ensemble of a model folder.
#[derive(Debug)]
pub struct Clip {
    vision: VisionEnsemble,
    text: TextEncoder,
    tokenizer: Tokenizer,
    /// Width of the text embedding.
    text_width: usize,
    device: Device,
}

impl Clip {
    /// Loads `tokenizer/`, `text_encoder/` and `vision_encoder*/`.
    ///
    /// The text embedding is either as wide as all vision encoders together, one slice for each (`mini`), or as wide as
    /// the first and belongs to that alone (Stable Diffusion's ViT-L/14). Fails with `model-mismatch` otherwise.
    pub fn load(files: &dyn Files, device: &Device) -> Result<Self> {
        let folders = files.folders("")?;
        let names =
            std::iter::once("vision_encoder".to_owned()).chain((2..).map(|k| format!("vision_encoder_{k}")));
        let encoders = names
            .take_while(|name| folders.contains(name))
            .map(|name| VisionEncoder::load(&Component::new(files, &name), device))
            .collect::<Result<Vec<_>>>()?;
        let vision = VisionEnsemble { encoders };
        let text = TextEncoder::load(&Component::new(files, "text_encoder"), device)?;
        let tokenizer = Tokenizer::load(&Component::new(files, "tokenizer"))?;
        let mut clip = Self { vision, text, tokenizer, text_width: 0, device: device.clone() };
        clip.text_width = clip.text_embedding("")?.len();
        let first = clip.vision.encoders.first().map(VisionEncoder::embed_dim);
        if clip.text_width != clip.vision.embed_dim() && Some(clip.text_width) != first {
            return Err(Error::weights(
                "model-mismatch",
                format!(
                    "components do not fit: text_encoder {} wide, the vision encoders together {}",
                    clip.text_width,
                    clip.vision.embed_dim()
                ),
                "use components that were trained together",
            ));
        }
        Ok(clip)
    }

    /// A picture's embedding: each encoder's at equal length, the whole of length 1, so that a dot product is the mean of
    /// the encoders' cosines.
    pub fn picture(&self, picture: &RgbImage) -> Result<Vec<f32>> {
        let mut all = Vec::with_capacity(self.vision.embed_dim());
        for encoder in &self.vision.encoders {
            let pixels = encoder.preprocessing().tensor(picture, &self.device)?;
            all.extend(unit(read_embedding(encoder.forward(pixels)?.image_embeds)?));
        }
        Ok(unit(all))
    }

    /// A text's embedding; its dot product with a picture's is the mean of the cosines with those encoders that the text
    /// encoder belongs to.
    pub fn text(&self, text: &str) -> Result<Vec<f32>> {
        let embedding = self.text_embedding(text)?;
        let mut all = vec![0.0; self.vision.embed_dim()];
        let mut start = 0;
        let mut towers = 0;
        for encoder in &self.vision.encoders {
            let end = start + encoder.embed_dim();
            if let Some(slice) = embedding.get(start..end) {
                all[start..end].copy_from_slice(&unit(slice.to_vec()));
                towers += 1;
            }
            start = end;
        }
        // A picture's slices have length 1/√encoders.
        let scale = (self.vision.encoders.len() as f32).sqrt() / towers.max(1) as f32;
        all.iter_mut().for_each(|value| *value *= scale);
        Ok(all)
    }

    fn text_embedding(&self, text: &str) -> Result<Vec<f32>> {
        let ids = self.tokenizer.encode(text, self.text.context_length())?;
        let output = self.text.forward(&[ids], DType::F32)?;
        read_embedding(output.text_embeds.unwrap_or(output.pooled))
    }
}

fn read_embedding(embeds: Tensor<2>) -> Result<Vec<f32>> {
    pollster::block_on(read_finite(embeds, "an embedding"))
}

fn unit(mut values: Vec<f32>) -> Vec<f32> {
    let length = values.iter().map(|v| v * v).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    values.iter_mut().for_each(|v| *v /= length);
    values
}
