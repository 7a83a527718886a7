//! Dense matrices of doubles, row by row: as much of linear algebra as the measurements need.

/// Solves `A X = B` for a symmetric, positive definite `A` (`n × n`) and `B` (`n × columns`), by Cholesky's
/// factorisation; `None` where `A` is not positive definite.
pub fn solve(a: &[f64], b: &[f64], n: usize, columns: usize) -> Option<Vec<f64>> {
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = l[i * n..i * n + j].iter().zip(&l[j * n..j * n + j]).map(|(x, y)| x * y).sum();
            let rest = a[i * n + j] - dot;
            l[i * n + j] = if i == j {
                if rest <= 0.0 || rest.is_nan() {
                    return None;
                }
                rest.sqrt()
            } else {
                rest / l[j * n + j]
            };
        }
    }
    let mut x = b.to_vec();
    for c in 0..columns {
        for i in 0..n {
            let dot: f64 = (0..i).map(|k| l[i * n + k] * x[k * columns + c]).sum();
            x[i * columns + c] = (x[i * columns + c] - dot) / l[i * n + i];
        }
        for i in (0..n).rev() {
            let dot: f64 = (i + 1..n).map(|k| l[k * n + i] * x[k * columns + c]).sum();
            x[i * columns + c] = (x[i * columns + c] - dot) / l[i * n + i];
        }
    }
    Some(x)
}

/// The eigenvalues of a symmetric `n × n` matrix, in no order, and their vectors as columns, `[n][n]`, by cyclic Jacobi rotations
/// (Golub and Van Loan, section 8.5).
pub fn eigen(symmetric: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    /// Off-diagonal weight, relative to the whole, at which the matrix counts as diagonal.
    const TOLERANCE: f64 = 1e-22;
    /// Far more than convergence, which is quadratic, takes.
    const SWEEPS: usize = 40;
    let mut a = symmetric.to_vec();
    let mut vectors: Vec<f64> = (0..n * n).map(|i| f64::from(u8::from(i / n == i % n))).collect();
    let whole: f64 = a.iter().map(|x| x * x).sum();
    for _ in 0..SWEEPS {
        let off: f64 =
            (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].powi(2)).sum();
        if off <= TOLERANCE * whole {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                let apq = a[p * n + q];
                if apq == 0.0 {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let t = if theta == 0.0 { 1.0 } else { t };
                let cosine = 1.0 / (t * t + 1.0).sqrt();
                let sine = t * cosine;
                for m in [&mut a, &mut vectors] {
                    for k in 0..n {
                        let (kp, kq) = (m[k * n + p], m[k * n + q]);
                        m[k * n + p] = cosine * kp - sine * kq;
                        m[k * n + q] = sine * kp + cosine * kq;
                    }
                }
                for k in 0..n {
                    let (pk, qk) = (a[p * n + k], a[q * n + k]);
                    a[p * n + k] = cosine * pk - sine * qk;
                    a[q * n + k] = sine * pk + cosine * qk;
                }
            }
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solution_solves() {
        let a = [4.0, 2.0, 0.5, 2.0, 5.0, 1.0, 0.5, 1.0, 3.0];
        let b = [1.0, 2.0, 0.0, 1.0, -1.0, 4.0];
        let x = solve(&a, &b, 3, 2).unwrap();
        for i in 0..3 {
            for c in 0..2 {
                let product: f64 = (0..3).map(|k| a[i * 3 + k] * x[k * 2 + c]).sum();
                assert!((product - b[i * 2 + c]).abs() < 1e-12);
            }
        }
        assert_eq!(solve(&[1.0, 2.0, 2.0, 1.0], &[1.0, 1.0], 2, 1), None);
    }

    #[test]
    fn eigenvalues_of_a_known_matrix() {
        // The second difference with fixed ends: 2 − 2 cos(kπ/(n + 1)).
        let n: usize = 6;
        let a: Vec<f64> = (0..n * n)
            .map(|p| match (p / n).abs_diff(p % n) {
                0 => 2.0,
                1 => -1.0,
                _ => 0.0,
            })
            .collect();
        let (mut found, vectors) = eigen(&a, n);
        for (k, value) in found.iter().enumerate() {
            for i in 0..n {
                let turned: f64 = (0..n).map(|j| a[i * n + j] * vectors[j * n + k]).sum();
                assert!((turned - value * vectors[i * n + k]).abs() < 1e-10);
            }
        }
        found.sort_by(f64::total_cmp);
        for (k, value) in found.iter().enumerate() {
            let expected = 2.0 - 2.0 * ((k + 1) as f64 * std::f64::consts::PI / (n + 1) as f64).cos();
            assert!((value - expected).abs() < 1e-10, "{value} is not {expected}");
        }
    }
}
