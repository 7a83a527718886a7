//! IP-Adapter's projections against diffusers.

use burn::tensor::Device;
use facestudio::guidance::ip_adapter::{ImagePromptEmbeds, Projection};
use facestudio::weights::{Component, Tensors};

use crate::{assert_close, fixture, io};

/// Measured: at most 5e-7 of the largest value, from another order of summing; a wrong ε or GELU costs over 1e-4.
const TOLERANCE: f32 = 1e-5;

fn load(case: &str) -> (Projection, Tensors) {
    let folder = fixture(&format!("ip_adapter/{case}"));
    let projection = Projection::load(&Component::new(&folder, ""), &Device::flex()).unwrap();
    (projection, io(&folder))
}

fn embeds(io: &Tensors) -> ImagePromptEmbeds {
    let device = Device::flex();
    let has = |name: &str| io.0.contains_key(name);
    ImagePromptEmbeds {
        image_embeds: has("image_embeds").then(|| io.tensor("image_embeds", &device).unwrap()),
        hidden_states: has("hidden_states").then(|| io.tensor("hidden_states", &device).unwrap()),
        id_embeds: has("id_embeds").then(|| io.tensor("id_embeds", &device).unwrap()),
    }
}

#[test]
fn every_projection_makes_the_same_tokens() {
    for case in ["image", "plus", "full_face", "face_id", "face_id_plus", "face_id_plus_v2"] {
        let (projection, io) = load(case);
        let tokens = projection.forward(&embeds(&io)).unwrap();
        let reference = io.tensor::<3>("tokens", &Device::flex()).unwrap();
        println!("{case}");
        assert_close(tokens, reference, TOLERANCE);
    }
}

#[test]
fn features_that_are_missing_or_of_another_width_are_named() {
    let (projection, io) = load("face_id_plus");
    let whole = embeds(&io);
    let without = ImagePromptEmbeds { hidden_states: None, ..whole.clone() };
    let narrow = whole.id_embeds.clone().map(|id| id.narrow(1, 0, 5));
    let narrow = ImagePromptEmbeds { id_embeds: narrow, ..whole };
    for (embeds, name) in [(without, "hidden_states"), (narrow, "id_embeds is 5 wide")] {
        let error = projection.forward(&embeds).unwrap_err();
        assert_eq!(error.code, "projection-input");
        assert!(error.message.contains(name), "{error}");
    }
}
