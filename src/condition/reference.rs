//! [`Reference`]: a picture that a denoiser sees beside the one that it draws.

use burn::tensor::Tensor;

/// A picture that is referred to.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Its latents, `[1, in_channels, h, w]`, of any size.
    pub latents: Tensor<4>,
    /// Which picture it is, from 1 to 1000: "image 1" of a prompt.
    pub number: usize,
    /// How strongly it is seen, from 0 on: the logarithm is added to its tokens' scores. 1 is the model as it is; at 0 it is as
    /// if the picture were not there.
    pub strength: f32,
    /// How strongly each position of the drawn picture's latents sees it, row by row, from 0 to 1; `None` for everywhere. With
    /// a region, text and other references do not see it.
    pub region: Option<Vec<f32>>,
}

impl Reference {
    /// A picture that is seen as the model was trained.
    pub fn new(latents: Tensor<4>, number: usize) -> Self {
        Self { latents, number, strength: 1.0, region: None }
    }

    /// Positions of its latents, of which each is a token.
    pub fn tokens(&self) -> usize {
        let [_, _, height, width] = self.latents.dims();
        height * width
    }

    /// Whether nobody sees it.
    pub fn is_unseen(&self) -> bool {
        self.strength == 0.0
            || self.region.as_ref().is_some_and(|region| region.iter().all(|seen| *seen == 0.0))
    }
}
