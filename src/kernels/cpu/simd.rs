//! Vectors of f32, as wide as the processor's.

/// A kernel's inner part, compiled once for every kind of vector.
pub(super) trait Task {
    /// Does the work; must be `#[inline(always)]`, so that it is compiled with the vectors' instructions.
    ///
    /// # Safety
    /// The processor has `S`, and what the task's own pointers state holds.
    unsafe fn run<S: Simd>(&self);
}

/// Kinds of vectors that this program has code for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// [`Base`].
    Base,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Width {
    /// The widest that this processor has.
    pub(super) fn widest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return if is_x86_feature_detected!("avx512f") { Self::Avx512 } else { Self::Avx2 };
        }
        Self::Base
    }

    /// The best for panels of so many columns in all: the widest, unless half of its only panel would be empty.
    pub(super) fn of(columns: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        if Self::widest() == Self::Avx512 && columns <= Self::Avx2.panel() {
            return Self::Avx2;
        }
        let _ = columns;
        Self::widest()
    }

    /// Floats of one panel: two vectors.
    pub(super) fn panel(self) -> usize {
        match self {
            Self::Base => 2 * Base::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 2 * x86::Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 2 * x86::Avx512::LANES,
        }
    }

    /// Runs a task with these vectors.
    ///
    /// # Safety
    /// They are of [`widest`](Self::widest) or [`of`](Self::of), and what the task's own pointers state holds.
    pub(super) unsafe fn run(self, task: &impl Task) {
        // SAFETY: the processor has them, as the caller says; every processor of this target has the first.
        unsafe {
            match self {
                Self::Base => task.run::<Base>(),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => x86::run_avx2(task),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => x86::run_avx512(task),
            }
        }
    }
}

/// Most rows of any kind of vector ([`Simd::ROWS`]).
pub(super) const MOST_ROWS: usize = 12;
/// Most floats of a panel.
pub(super) const MOST_LANES: usize = 32;

/// One vector's arithmetic.
///
/// # Safety
/// Every method needs the processor to have the instructions; `load` and `store` need `LANES` floats at the pointer.
pub(super) trait Simd {
    /// The vector.
    type V: Copy;
    /// Its floats.
    const LANES: usize;
    /// Rows that are multiplied by a panel at once: as many as leave registers for the panel and one factor. In wasm six
    /// would fit into sixteen registers, but V8 spills them: 22 GFLOP/s where four reach 37.
    const ROWS: usize = 4;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, x: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`, rounded once or twice.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The nearest whole number.
    unsafe fn round(x: Self::V) -> Self::V;
    /// `2^x` for whole numbers from −126 to 127.
    unsafe fn exp2(x: Self::V) -> Self::V;

    /// Sum of the lanes.
    #[inline(always)]
    unsafe fn sum(x: Self::V) -> f32 {
        let mut lanes = [0.0; 16];
        // SAFETY: no vector has more than 16 lanes.
        unsafe { Self::store(lanes.as_mut_ptr(), x) };
        lanes[..Self::LANES].iter().sum()
    }

    /// `e^x`, to 2 units in the last place, for x from −87.3 to 88; beyond, its value there.
    ///
    /// `x = n ln 2 + r`, |r| ≤ ln 2 / 2; `e^r` by the degree-5 minimax polynomial of Cephes' `expf`.
    #[inline(always)]
    unsafe fn exp(x: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe {
            let x = Self::min(Self::max(x, Self::splat(-87.33)), Self::splat(88.0));
            let n = Self::round(Self::mul(x, Self::splat(std::f32::consts::LOG2_E)));
            // ln 2 in two parts, so that n · ln 2 is exact enough.
            let r = Self::mul_add(n, Self::splat(-0.693_359_4), x);
            let r = Self::mul_add(n, Self::splat(2.121_944_4e-4), r);
            let mut p = Self::splat(1.987_569_1e-4);
            for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
                p = Self::mul_add(p, r, Self::splat(c));
            }
            let p = Self::add(Self::mul_add(Self::mul(p, r), r, r), Self::splat(1.0));
            Self::mul(p, Self::exp2(n))
        }
    }

    /// `x · σ(x)`.
    #[inline(always)]
    unsafe fn silu(x: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe {
            let e = Self::exp(Self::sub(Self::splat(0.0), x));
            Self::div(x, Self::add(Self::splat(1.0), e))
        }
    }

    /// `x · Φ(x)`, the exact GELU of finite numbers: `Φ(x) = erfc(−x/√2) / 2` by Abramowitz and Stegun 7.1.26, whose error is at most
    /// 1.5·10⁻⁷.
    #[inline(always)]
    unsafe fn gelu(x: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe {
            let zero = Self::splat(0.0);
            let size = Self::max(x, Self::sub(zero, x));
            let z = Self::mul(size, Self::splat(std::f32::consts::FRAC_1_SQRT_2));
            let one = Self::splat(1.0);
            let t = Self::div(one, Self::mul_add(z, Self::splat(0.327_591_1), one));
            let mut p = Self::splat(1.061_405_4);
            for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
                p = Self::mul_add(p, t, Self::splat(c));
            }
            let erfc = Self::mul(Self::mul(p, t), Self::exp(Self::mul(Self::sub(zero, z), z)));
            // x Φ(x) = (x + |x|) / 2 − |x| erfc(|x|/√2) / 2 on both sides of 0.
            let twice = Self::sub(Self::add(x, size), Self::mul(size, erfc));
            Self::mul(twice, Self::splat(0.5))
        }
    }
}

/// A function of one vector. Not a closure: those are compiled without the instructions of the function that they are
/// passed to, and then call every one of them.
pub(super) trait Map: Sync {
    /// # Safety
    /// The processor has `S`.
    unsafe fn map<S: Simd>(&self, x: S::V) -> S::V;
}

/// `out[i] = map(x[i])`.
///
/// # Safety
/// The processor has `S`; `out` has room for as many floats as `x`.
#[inline(always)]
pub(super) unsafe fn each<S: Simd>(x: &[f32], out: *mut f32, map: &impl Map) {
    let even = x.len() / S::LANES * S::LANES;
    // SAFETY: `even` floats are whole vectors; the rest goes through a vector of its own.
    unsafe {
        for i in (0..even).step_by(S::LANES) {
            S::store(out.add(i), map.map::<S>(S::load(x.as_ptr().add(i))));
        }
        let rest = x.len() - even;
        if rest > 0 {
            let mut lanes = [0.0; 16];
            lanes[..rest].copy_from_slice(&x[even..]);
            S::store(lanes.as_mut_ptr(), map.map::<S>(S::load(lanes.as_ptr())));
            lanes.as_ptr().copy_to_nonoverlapping(out.add(even), rest);
        }
    }
}

/// Four lanes: wasm's `v128`.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(super) struct Base;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
impl Simd for Base {
    type V = std::arch::wasm32::v128;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        std::arch::wasm32::f32x4_splat(x)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: as the caller's; wasm loads need no alignment.
        unsafe { std::arch::wasm32::v128_load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self::V) {
        // SAFETY: as the caller's; wasm stores need no alignment.
        unsafe { std::arch::wasm32::v128_store(to.cast(), x) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        std::arch::wasm32::f32x4_add(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        std::arch::wasm32::f32x4_sub(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        std::arch::wasm32::f32x4_mul(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        std::arch::wasm32::f32x4_div(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        std::arch::wasm32::f32x4_pmax(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        std::arch::wasm32::f32x4_pmin(a, b)
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::arch::wasm32::f32x4_add(std::arch::wasm32::f32x4_mul(a, b), c)
    }
    #[inline(always)]
    unsafe fn round(x: Self::V) -> Self::V {
        std::arch::wasm32::f32x4_nearest(x)
    }
    #[inline(always)]
    unsafe fn exp2(x: Self::V) -> Self::V {
        use std::arch::wasm32::{i32x4_add, i32x4_shl, i32x4_splat, i32x4_trunc_sat_f32x4};
        i32x4_shl(i32x4_add(i32x4_trunc_sat_f32x4(x), i32x4_splat(127)), 23)
    }
}

/// Four lanes in plain Rust, which the compiler turns into the target's own vectors.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(super) struct Base;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
impl Simd for Base {
    type V = [f32; 4];
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self::V) {
        // SAFETY: as the caller's.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { b[i] } else { a[i] })
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if b[i] < a[i] { b[i] } else { a[i] })
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn round(x: Self::V) -> Self::V {
        // Adding 1.5 · 2²³ leaves no bits for a fraction.
        const WHOLE: f32 = 12_582_912.0;
        x.map(|x| (x + WHOLE) - WHOLE)
    }
    #[inline(always)]
    unsafe fn exp2(x: Self::V) -> Self::V {
        x.map(|x| f32::from_bits(((x as i32 + 127) as u32) << 23))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Simd, Task};

    /// Runs the task with AVX2.
    ///
    /// # Safety
    /// The processor has AVX2 and FMA, and what the task's own pointers state holds.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn run_avx2(task: &impl Task) {
        // SAFETY: as the caller's.
        unsafe { task.run::<Avx2>() }
    }

    /// Runs the task with AVX-512.
    ///
    /// # Safety
    /// The processor has AVX-512F, AVX2 and FMA, and what the task's own pointers state holds.
    #[target_feature(enable = "avx512f,avx2,fma")]
    pub unsafe fn run_avx512(task: &impl Task) {
        // SAFETY: as the caller's.
        unsafe { task.run::<Avx512>() }
    }

    /// Eight lanes.
    pub struct Avx2;

    // SAFETY, of every block: who calls a method of `Simd` runs inside of `run_avx2`; pointers are as the trait says.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;
        const ROWS: usize = 6;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self::V {
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, x: Self::V) {
            unsafe { _mm256_storeu_ps(to, x) }
        }
        #[inline(always)]
        unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_min_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn round(x: Self::V) -> Self::V {
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
        }
        #[inline(always)]
        unsafe fn exp2(x: Self::V) -> Self::V {
            unsafe {
                let n = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n))
            }
        }
    }

    /// Sixteen lanes.
    pub struct Avx512;

    // SAFETY, of every block: who calls a method of `Simd` runs inside of `run_avx512`; pointers are as the trait says.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Simd for Avx512 {
        type V = __m512;
        const LANES: usize = 16;
        const ROWS: usize = 12;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self::V {
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, x: Self::V) {
            unsafe { _mm512_storeu_ps(to, x) }
        }
        #[inline(always)]
        unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_min_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn round(x: Self::V) -> Self::V {
            unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
        }
        #[inline(always)]
        unsafe fn exp2(x: Self::V) -> Self::V {
            unsafe {
                let n = _mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(127));
                _mm512_castsi512_ps(_mm512_slli_epi32::<23>(n))
            }
        }
    }
}
