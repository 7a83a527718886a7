//! Parameters that are made when they are needed.

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor};

/// A parameter that is created on first use: a model about to be loaded never allocates its random start.
pub fn lazy<const D: usize>(
    shape: [usize; D],
    device: &Device,
    init: impl FnOnce([usize; D], &Device) -> Tensor<D> + Send + Sync + 'static,
) -> Param<Tensor<D>> {
    Param::uninitialized(
        ParamId::new(),
        move |device, require_grad| {
            let tensor = init(shape, device);
            if require_grad { tensor.require_grad() } else { tensor }
        },
        device.clone(),
        true,
        shape.into(),
    )
}
