//! The discrete Fourier transform of small planes, whose height is a power of two.
//!
//! Sixty lines instead of a general library, whose planners would weigh more in the browser than the rest of the mark.

/// A complex number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Complex {
    pub re: f32,
    pub im: f32,
}

impl Complex {
    /// `exp(i · turn)`.
    pub(super) fn turned(turn: f32) -> Self {
        Self { re: libm::cosf(turn), im: libm::sinf(turn) }
    }

    pub(super) fn conjugate(self) -> Self {
        Self { im: -self.im, ..self }
    }

    pub(super) fn times(self, other: Self) -> Self {
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }

    pub(super) fn length(self) -> f32 {
        (self.re * self.re + self.im * self.im).sqrt()
    }

    /// The number of length 1 in the same direction; 0 stays 0.
    pub(super) fn direction(self) -> Self {
        let length = self.length();
        if length > 0.0 { Self { re: self.re / length, im: self.im / length } } else { self }
    }
}

/// Complex numbers in rows.
pub(super) struct Plane {
    width: usize,
    re: Vec<f32>,
    im: Vec<f32>,
}

impl Plane {
    pub(super) fn new(width: usize, height: usize) -> Self {
        Self { width, re: vec![0.0; width * height], im: vec![0.0; width * height] }
    }

    pub(super) fn at(&self, x: usize, y: usize) -> Complex {
        let place = y * self.width + x;
        Complex { re: self.re[place], im: self.im[place] }
    }

    pub(super) fn set(&mut self, x: usize, y: usize, value: Complex) {
        let place = y * self.width + x;
        (self.re[place], self.im[place]) = (value.re, value.im);
    }

    /// The real parts, row by row.
    pub(super) fn re(&mut self) -> &mut Vec<f32> {
        &mut self.re
    }

    /// Two rows, `a` above `b`: real and imaginary parts of each.
    fn rows(&mut self, a: usize, b: usize) -> [&mut [f32]; 4] {
        let width = self.width;
        let (above, below) = self.re.split_at_mut(b * width);
        let (above_im, below_im) = self.im.split_at_mut(b * width);
        let first = a * width..(a + 1) * width;
        [&mut above[first.clone()], &mut above_im[first], &mut below[..width], &mut below_im[..width]]
    }
}

/// Tables for one height.
pub(super) struct Fourier {
    height: usize,
    /// `exp(−2πi k / height)`.
    roots: Vec<Complex>,
}

impl Fourier {
    pub(super) fn new(height: usize) -> Self {
        assert!(height.is_power_of_two(), "height {height}");
        let root = |k: usize| Complex::turned(-std::f32::consts::TAU * k as f32 / height as f32);
        Self { height, roots: (0..height / 2).map(root).collect() }
    }

    /// Transforms every column of a plane in place, not normalised: Cooley and Tukey, radix 2, whole rows at a time.
    pub(super) fn columns(&self, plane: &mut Plane) {
        let shift = usize::BITS - self.height.trailing_zeros();
        for i in 0..self.height {
            let j = i.reverse_bits() >> shift;
            if i < j {
                let [a, a_im, b, b_im] = plane.rows(i, j);
                a.swap_with_slice(b);
                a_im.swap_with_slice(b_im);
            }
        }
        let mut half = 1;
        while half < self.height {
            for first in (0..self.height).step_by(2 * half) {
                for k in 0..half {
                    let root = self.roots[k * (self.height / (2 * half))];
                    let [a, a_im, b, b_im] = plane.rows(first + k, first + k + half);
                    for (((a, a_im), b), b_im) in a.iter_mut().zip(a_im).zip(b).zip(b_im) {
                        let re = *b * root.re - *b_im * root.im;
                        let im = *b * root.im + *b_im * root.re;
                        (*b, *b_im) = (*a - re, *a_im - im);
                        (*a, *a_im) = (*a + re, *a_im + im);
                    }
                }
            }
            half *= 2;
        }
    }
}
