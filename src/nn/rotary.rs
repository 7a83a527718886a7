use burn::tensor::{DType, Device, Tensor, TensorData};

/// Which channels of a head are turned together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// `2i` and `2i + 1`: FLUX.
    Neighbours,
    /// `i` and `i + dim / 2`: Qwen, and Llama before it.
    Halves,
}

/// Rotary positions (Su et al. 2021, arXiv 2104.09864, equation 34): each pair of a head's channels is turned by an angle that
/// grows with the token's position.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// `[1, 1, tokens, dim / 2]`.
    cos: Tensor<4>,
    /// Likewise.
    sin: Tensor<4>,
    pairs: Pairs,
}

impl Rotary {
    /// `angles` of each token, `dim / 2` each, token by token. Sines and cosines are computed in f64.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn new(angles: &[f64], tokens: usize, pairs: Pairs, device: &Device) -> Self {
        let table = |of: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|angle| of(*angle) as f32).collect();
            let halves = values.len() / tokens.max(1);
            Tensor::from_data(TensorData::new(values, [1, 1, tokens, halves]), device)
        };
        Self { cos: table(f64::cos), sin: table(f64::sin), pairs }
    }

    /// `[batch, heads, tokens, dim]` → the same shape and precision; computes in f32.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let dtype = x.dtype();
        let shape @ [batch, heads, tokens, dim] = x.dims();
        let half = dim / 2;
        let x = x.cast(DType::F32);
        // Either way a pair's members are the entries of an axis of two.
        let (paired, axis) = match self.pairs {
            Pairs::Neighbours => (x.reshape([batch, heads, tokens, half, 2]), 4),
            Pairs::Halves => (x.reshape([batch, heads, tokens, 2, half]), 3),
        };
        let member = |i| paired.clone().narrow(axis, i, 1).reshape([batch, heads, tokens, half]);
        let (re, im) = (member(0), member(1));
        let turned = [
            re.clone() * self.cos.clone() - im.clone() * self.sin.clone(),
            im * self.cos.clone() + re * self.sin.clone(),
        ];
        Tensor::stack::<5>(turned.to_vec(), axis).reshape(shape).cast(dtype)
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use std::f64::consts::FRAC_PI_2;

    use super::*;

    #[test]
    fn pairs_are_turned() {
        let device = Device::flex();
        let x = Tensor::<4>::from_floats([[[[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]]]], &device);
        let angles = [0.0, 0.0, FRAC_PI_2, 0.0];
        for (pairs, expected) in
            [(Pairs::Neighbours, [-2.0, 1.0, 3.0, 4.0]), (Pairs::Halves, [-3.0, 2.0, 1.0, 4.0])]
        {
            let turned = Rotary::new(&angles, 2, pairs, &device).forward(x.clone());
            let turned: Vec<f32> = turned.try_into_vec_as().unwrap();
            assert_eq!(turned[..4], [1.0, 2.0, 3.0, 4.0], "{pairs:?}");
            for (ours, expected) in turned[4..].iter().zip(expected) {
                assert!((ours - expected).abs() < 1e-6, "{pairs:?}: {turned:?}");
            }
        }
    }
}
