//! Identity mixing, `e_f = Σ β_i e_f^i` (paper section 3.2), on the host: embeddings are small.

/// Averages the embeddings of several photos of one face and brings the mean back to unit norm, as is usual for
/// ArcFace templates.
pub fn average(embeddings: &[Vec<f32>]) -> Vec<f32> {
    weighted(embeddings.iter().map(|e| (1.0, e.as_slice())))
}

/// Mixes identities `(β, embedding)`. Only the weights' proportions count, whatever their size: the mix is brought back to unit norm,
/// because the Linear saw only unit-norm identities (and zero) in training, and the mean of two nearly orthogonal ones has norm 0.7.
pub fn mix(identities: &[(f32, Vec<f32>)]) -> Vec<f32> {
    let largest = identities.iter().map(|(beta, _)| f64::from(*beta)).fold(0.0, f64::max);
    // A power of two changes no digit, and keeps the squares of the largest and the smallest weights within f32's range.
    let scale = if largest > 0.0 { 2f64.powi(-(largest.log2().floor() as i32)) } else { 1.0 };
    weighted(identities.iter().map(|(beta, e)| ((f64::from(*beta) * scale) as f32, e.as_slice())))
}

fn weighted<'a>(parts: impl Iterator<Item = (f32, &'a [f32])>) -> Vec<f32> {
    let mut sum: Vec<f32> = Vec::new();
    for (beta, embedding) in parts {
        if sum.is_empty() {
            sum = vec![0.0; embedding.len()];
        }
        let norm = norm(embedding).max(f32::MIN_POSITIVE);
        sum.iter_mut().zip(embedding).for_each(|(s, e)| *s += beta * e / norm);
    }
    let norm = norm(&sum);
    if norm > 0.0 {
        sum.iter_mut().for_each(|s| *s /= norm);
    }
    sum
}

/// The cosine of the angle between two embeddings; 0 where one of them is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    let norms = norm(a) * norm(b);
    if norms > 0.0 { dot / norms } else { 0.0 }
}

fn norm(v: &[f32]) -> f32 {
    v.iter().map(|x| x * x).sum::<f32>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_identity_is_itself_at_any_weight() {
        for beta in [0.2, 1.0, 7.0] {
            let mixed = mix(&[(beta, vec![0.0, 3.0, 4.0])]);
            assert!(mixed.iter().zip([0.0, 0.6, 0.8]).all(|(m, e)| (m - e).abs() < 1e-6), "{mixed:?}");
        }
    }

    /// Their squares leave f32's range, their sum too.
    #[test]
    fn weights_of_any_size_mix_by_their_proportions() {
        let identities = |beta| [(beta, vec![0.0, 3.0, 4.0]), (beta, vec![2.0, 0.0, 0.0])];
        let expected = mix(&identities(1.0));
        for beta in [f32::from_bits(1), 1e-25, 0.3, 1e20, 3e38] {
            let mixed = mix(&identities(beta));
            assert!(mixed.iter().zip(&expected).all(|(m, e)| (m - e).abs() < 1e-6), "{beta}: {mixed:?}");
        }
    }

    #[test]
    fn cosine_knows_direction_alone() {
        let a = [3.0, 4.0];
        for (b, expected) in [([6.0, 8.0], 1.0), ([-3.0, -4.0], -1.0), ([-4.0, 3.0], 0.0), ([0.0, 0.0], 0.0)]
        {
            assert!((cosine(&a, &b) - expected).abs() < 1e-6, "{b:?}");
        }
    }

    #[test]
    fn mixing_moves_monotonically_between_both() {
        let (a, b) = (vec![1.0, 0.0], vec![0.0, 1.0]);
        let toward_a: Vec<f32> =
            (0..=10).map(|i| mix(&[(i as f32, a.clone()), (10.0 - i as f32, b.clone())])[0]).collect();
        assert!(toward_a.windows(2).all(|w| w[0] < w[1]), "{toward_a:?}");
        assert!((toward_a[5] - 0.5f32.sqrt()).abs() < 1e-6);
    }
}
