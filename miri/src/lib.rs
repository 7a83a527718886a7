//! The CPU kernels' own files, and none of burn, for Miri: it looks at every access to memory of the plain-array width, which
//! processors without our vectors take.

#[allow(dead_code)]
mod kernels {
    #[path = "../../../src/kernels/sizes.rs"]
    mod sizes;
    use sizes::{BLOCK, Geometry, Sizes};

    mod cpu {
        #[path = "../../../../src/kernels/cpu/activation.rs"]
        mod activation;
        #[path = "../../../../src/kernels/cpu/attention.rs"]
        mod attention;
        #[path = "../../../../src/kernels/cpu/conv.rs"]
        mod conv;
        #[path = "../../../../src/kernels/cpu/linear.rs"]
        mod linear;
        #[path = "../../../../src/kernels/cpu/memory.rs"]
        mod memory;
        #[path = "../../../../src/kernels/cpu/norm.rs"]
        mod norm;
        #[path = "../../../../src/kernels/cpu/product.rs"]
        mod product;
        #[path = "../../../../src/kernels/cpu/simd.rs"]
        mod simd;
        #[path = "../../../../src/kernels/cpu/weights.rs"]
        mod weights;

        use super::{Geometry, Sizes};
        use memory::{Heads, Shared, for_each, written};

        #[cfg(test)]
        mod tests;
    }
}
