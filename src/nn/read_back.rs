//! What comes back from the device.

use burn::tensor::{DType, Tensor};

use crate::error::{Error, Result};

/// A tensor's values, row-major; `what` tells the tensor in errors. Fails with `read-back` where the device is lost.
pub async fn read_back<const D: usize>(tensor: Tensor<D>, what: &str) -> Result<Vec<f32>> {
    let fail =
        |e: String| Error::device("read-back", format!("could not read {what} back: {e}"), "try again");
    let data = tensor.cast(DType::F32).into_data_async().await.map_err(|e| fail(format!("{e:?}")))?;
    data.try_into_vec::<f32>().map_err(|e| fail(format!("{e:?}")))
}

/// [`read_back`] of values that are all finite.
///
/// Fails with `computed-not-finite` where one is not: weights and inputs are finite, so that the device, or its precision, made it
/// so. Later layers may hide it (a maximum does), so that it is looked for where networks meet.
pub async fn read_finite<const D: usize>(tensor: Tensor<D>, what: &str) -> Result<Vec<f32>> {
    let values = read_back(tensor, what).await?;
    match values.iter().find(|value| !value.is_finite()) {
        None => Ok(values),
        Some(value) => Err(Error::device(
            "computed-not-finite",
            format!("{what} came out as {value} in places"),
            "use another backend, or f32 as precision; lower the guidance scale",
        )),
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::error::Fault;

    #[test]
    fn what_is_not_finite_is_the_devices_fault() {
        let read = |value: f32| {
            let tensor = Tensor::<1>::from_floats([1.0, value, -2.0], &Device::flex());
            pollster::block_on(read_finite(tensor, "the latents"))
        };
        assert_eq!(read(0.5).unwrap(), [1.0, 0.5, -2.0]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = read(bad).unwrap_err();
            assert_eq!((error.code, error.fault), ("computed-not-finite", Fault::Device));
            assert!(error.message.starts_with("the latents"), "{error}");
        }
    }
}
