//! Arc2Face's reading of an identity against transformers' text encoder with the embedding put in a word's place.

use burn::tensor::{Device, Tensor};
use facestudio::encoders::arc2face::{Arc2FaceConfig, Arc2FaceEncoder};
use facestudio::encoders::text::TextEncoder;
use facestudio::encoders::tokenizer::Tokenizer;
use facestudio::weights::Component;

use crate::{assert_close, fixture, io};

/// Measured: 5e-7 of the largest value, from another order of summing. The word itself in the identity's place moves the
/// tokens by over 1e-2 (reference.py checks that).
const TOLERANCE: f32 = 1e-5;

fn load() -> Arc2FaceEncoder {
    let (folder, device) = (fixture("arc2face"), Device::flex());
    let tokenizer = Tokenizer::load(&Component::new(&folder, "tokenizer")).unwrap();
    let text_encoder = TextEncoder::load(&Component::new(&folder, "text_encoder"), &device).unwrap();
    Arc2FaceEncoder::new(&Arc2FaceConfig::default(), tokenizer, text_encoder).unwrap()
}

#[test]
fn identities_become_the_same_tokens() {
    let (encoder, io, device) = (load(), io(&fixture("arc2face")), Device::flex());
    let tokens = encoder.forward(io.tensor("id_embeds", &device).unwrap()).unwrap();
    assert_close(tokens, io.tensor("tokens", &device).unwrap(), TOLERANCE);
    assert_close(encoder.nobody().unwrap(), io.tensor("nobody", &device).unwrap(), TOLERANCE);
}

#[test]
fn identities_wider_than_the_text_encoder_are_refused() {
    let error = load().forward(Tensor::zeros([1, 40], &Device::flex())).unwrap_err();
    assert_eq!(error.code, "projection-input");
}
