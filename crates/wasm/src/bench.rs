//! One network in the browser, for `benches/`: with the feature `bench` only, which the package is built without.

use burn::tensor::{Device, Tensor};
use wasm_bindgen::prelude::*;

use super::failure::Failure;
use facestudio::condition::Condition;
use facestudio::encoders::vision::VisionEncoder;
use facestudio::error::{Error, Result};
use facestudio::unet::UNet2DConditionModel;
use facestudio::vae::Vae;
use facestudio::weights::{Component, MemoryFiles, SafetensorsFile};

/// A loaded network with its inputs.
#[wasm_bindgen]
pub struct Bench(Box<dyn Fn() -> Result<Tensor<1>>>);

#[wasm_bindgen]
impl Bench {
    /// Loads a network of `kind` (as `facestudio component` names it) from its `config.json` and safetensors, with `inputs`
    /// as safetensors, onto `backend` (as `Engine.open`).
    pub async fn open(
        backend: String,
        kind: String,
        config: Vec<u8>,
        weights: Vec<u8>,
        inputs: Vec<u8>,
    ) -> Result<Bench, Failure> {
        let device = super::engine::device(&backend).await?;
        let files = [("config.json".to_owned(), config), ("model.safetensors".to_owned(), weights)];
        Ok(Self(load(&kind, &MemoryFiles(files.into()), inputs, &device)?))
    }

    /// Computes the output and reads it back, its floats in order.
    pub async fn run(&self) -> Result<Vec<f32>, Failure> {
        let unread = |e: String| Error::device("read-back", format!("no output came back: {e}"), "try again");
        let data = (self.0)()?.into_data_async().await.map_err(|e| unread(format!("{e:?}")))?;
        Ok(data.try_into_vec().map_err(|e| unread(format!("{e:?}")))?)
    }
}

fn load(
    kind: &str,
    files: &MemoryFiles,
    inputs: Vec<u8>,
    device: &Device,
) -> Result<Box<dyn Fn() -> Result<Tensor<1>>>> {
    let component = Component::new(files, "");
    let inputs = SafetensorsFile::new(inputs)?.into_tensors()?;
    Ok(match kind {
        "unet" => {
            let unet = UNet2DConditionModel::load(&component, device)?;
            let sample: Tensor<4> = inputs.tensor("sample", device)?;
            let timestep: Tensor<1> = inputs.tensor("timestep", device)?;
            let condition = Condition::single(inputs.tensor("encoder_hidden_states", device)?);
            Box::new(move || Ok(unet.forward(sample.clone(), timestep.clone(), &condition)?.flatten(0, 3)))
        }
        "vae-decode" => {
            let vae = Vae::load(&component, device)?;
            let latents: Tensor<4> = inputs.tensor("latents", device)?;
            Box::new(move || Ok(vae.decode(latents.clone())?.flatten(0, 3)))
        }
        "vision-encoder" => {
            let encoder = VisionEncoder::load(&component, device)?;
            let pixel_values: Tensor<4> = inputs.tensor("pixel_values", device)?;
            Box::new(move || Ok(encoder.forward(pixel_values.clone())?.image_embeds.flatten(0, 1)))
        }
        _ => {
            return Err(Error::weights(
                "config-unsupported",
                format!("networks of kind '{kind}' are not measured"),
                "name one that is",
            ));
        }
    })
}
