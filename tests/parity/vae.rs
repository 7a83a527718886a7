//! The autoencoders against diffusers.

use burn::tensor::Device;
use facestudio::vae::{Vae, VaeConfig};
use facestudio::weights::{Component, Files, SafetensorsFile, TensorSource, collect};

use crate::{assert_close, fixture, io};

/// f32 sums in another order; a few 1e-6 are to be expected.
const TOLERANCE: f32 = 2e-5;

/// `heights` are those of the fixture's pictures.
fn assert_parity(case: &str, heights: &[usize], downsampling: usize) {
    let device = Device::flex();
    let folder = fixture(case);
    let vae = Vae::load(&Component::new(&folder, ""), &device).unwrap();
    assert_eq!(vae.downsampling(), downsampling);
    let io = io(&folder);
    for height in heights {
        let tensor = |name: &str| io.tensor::<4>(&format!("{height}.{name}"), &device).unwrap();
        let moments = vae.encode(tensor("images")).unwrap();
        assert_eq!(moments.mean.dims()[1], vae.latent_channels());
        assert_close(moments.mean, tensor("mean"), TOLERANCE);
        assert_eq!(moments.logvar.is_some(), case.contains("kl"));
        if let Some(logvar) = moments.logvar {
            assert_close(logvar, tensor("logvar"), TOLERANCE);
        }
        assert_close(vae.encode_latents(tensor("images")).unwrap(), tensor("normalised"), TOLERANCE);
        assert_close(vae.decode(tensor("latents")).unwrap(), tensor("decoded"), TOLERANCE);
        assert_close(vae.decode_latents(tensor("latents")).unwrap(), tensor("restored"), TOLERANCE);
    }
}

#[test]
fn deep_compression_as_in_mini() {
    assert_parity("vae/dc", &[32, 16], 8);
}

#[test]
fn deep_compression_with_the_rarer_config_values() {
    assert_parity("vae/dc_plain", &[16], 4);
}

#[test]
fn stable_diffusion() {
    assert_parity("vae/kl", &[32, 16], 4);
}

#[test]
fn older_attention_names_and_no_quant_conv() {
    assert_parity("vae/kl_older", &[24], 4);
}

#[test]
fn tiny() {
    assert_parity("vae/tiny", &[16, 8], 4);
}

#[test]
fn tiny_with_another_activation() {
    assert_parity("vae/tiny_silu", &[16], 4);
}

/// What is written after training is what is read: a module's names are the checkpoint's.
#[test]
fn collected_names_are_those_of_the_checkpoint() {
    let device = Device::flex();
    let folder = fixture("vae/dc");
    let component = Component::new(&folder, "");
    let VaeConfig::Dc(config) = VaeConfig::from_component(&component).unwrap() else {
        panic!("another autoencoder");
    };
    let collected = collect(&config.init(&device).unwrap(), "").unwrap();
    let names: Vec<String> = collected.0.into_keys().collect();
    let checkpoint = SafetensorsFile::new(folder.read("model.safetensors").unwrap()).unwrap();
    assert_eq!(names, checkpoint.names());
}

#[test]
fn flux2_in_patches() {
    let device = Device::flex();
    let folder = fixture("vae/kl_flux2");
    let vae = Vae::load(&Component::new(&folder, ""), &device).unwrap();
    assert_eq!((vae.downsampling(), vae.latent_channels(), vae.unscaled_channels()), (8, 12, 3));
    let io = io(&folder);
    for height in [32, 16] {
        let tensor = |name: &str| io.tensor::<4>(&format!("{height}.{name}"), &device).unwrap();
        let moments = vae.encode(tensor("images")).unwrap();
        assert_close(moments.mean, tensor("mean"), TOLERANCE);
        assert_close(moments.logvar.unwrap(), tensor("logvar"), TOLERANCE);
        assert_close(vae.encode_latents(tensor("images")).unwrap(), tensor("normalised"), TOLERANCE);
        assert_close(vae.decode(tensor("unscaled")).unwrap(), tensor("decoded"), TOLERANCE);
        assert_close(vae.decode_latents(tensor("latents")).unwrap(), tensor("decoded"), TOLERANCE);
    }
    let VaeConfig::KlFlux2(config) = VaeConfig::from_component(&Component::new(&folder, "")).unwrap() else {
        panic!("another autoencoder");
    };
    let names: Vec<String> = collect(&config.init(&device).unwrap(), "").unwrap().0.into_keys().collect();
    let checkpoint = SafetensorsFile::new(folder.read("model.safetensors").unwrap()).unwrap();
    assert_eq!(names, checkpoint.names());
}
