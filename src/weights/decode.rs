//! The numbers of stored tensors as f32.

use ::safetensors::Dtype;

use crate::error::{Error, Result};

/// The numbers of tensor `name`, little-endian, as f32.
pub fn decode(name: &str, dtype: Dtype, bytes: &[u8]) -> Result<Vec<f32>> {
    Ok(match dtype {
        Dtype::F32 => numbers(bytes, f32::from_le_bytes),
        Dtype::F16 => numbers(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => numbers(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
        Dtype::F64 => numbers(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::I64 => numbers(bytes, |b| i64::from_le_bytes(b) as f32),
        Dtype::I32 => numbers(bytes, |b| i32::from_le_bytes(b) as f32),
        Dtype::I16 => numbers(bytes, |b| i16::from_le_bytes(b).into()),
        Dtype::I8 => numbers(bytes, |b: [u8; 1]| i8::from_le_bytes(b) as f32),
        Dtype::U64 => numbers(bytes, |b| u64::from_le_bytes(b) as f32),
        Dtype::U32 => numbers(bytes, |b| u32::from_le_bytes(b) as f32),
        Dtype::U16 => numbers(bytes, |b| u16::from_le_bytes(b).into()),
        Dtype::F8_E4M3 => bytes.iter().map(|b| f8_e4m3(*b)).collect(),
        // The upper half of an f16.
        Dtype::F8_E5M2 => bytes.iter().map(|b| half::f16::from_bits(u16::from(*b) << 8).to_f32()).collect(),
        Dtype::U8 | Dtype::BOOL => bytes.iter().map(|b| *b as f32).collect(),
        other => {
            return Err(Error::weights(
                "dtype",
                format!("tensor '{name}' has type {other:?}, which is not supported"),
                "convert it to F32, F16 or BF16",
            ));
        }
    })
}

/// Micikevicius et al. 2022, "FP8 Formats for Deep Learning", table 1: four bits of exponent, three of mantissa, no infinities.
fn f8_e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from((byte >> 3) & 15), f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { size } else { -size }
}

fn numbers<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.tensor([…], dtype=torch.uint8).view(torch.float8_e4m3fn).float()`, and so on, in torch 2.11.
    #[test]
    fn eight_and_sixteen_bits_are_read() {
        let read = |dtype: Dtype, bytes: &[u8]| decode("a", dtype, bytes).unwrap();
        let some = [0x00, 0x80, 0x01, 0x07, 0x08, 0x38, 0xb9, 0x7e, 0xfe];
        assert_eq!(
            read(Dtype::F8_E4M3, &some),
            [0.0, -0.0, 0.001953125, 0.013671875, 0.015625, 1.0, -1.125, 448.0, -448.0]
        );
        assert!(read(Dtype::F8_E4M3, &[0x7f])[0].is_nan());
        let some = [0x00, 0x01, 0x04, 0x3c, 0xbd, 0x7b, 0x7c];
        assert_eq!(
            read(Dtype::F8_E5M2, &some),
            [0.0, 2f32.powi(-16), 2f32.powi(-14), 1.0, -1.25, 57344.0, f32::INFINITY]
        );
        assert_eq!(read(Dtype::I16, &[0xfe, 0xff]), [-2.0]);
        assert_eq!(read(Dtype::U16, &[0xfe, 0xff]), [65534.0]);
        assert_eq!(read(Dtype::U32, &[1, 0, 1, 0]), [65537.0]);
        assert_eq!(read(Dtype::U64, &[3, 0, 0, 0, 0, 0, 0, 0]), [3.0]);
    }

    #[test]
    fn types_without_a_meaning_as_f32_are_named() {
        let error = decode("a", Dtype::F8_E8M0, &[1]).unwrap_err();
        assert_eq!(error.code, "dtype");
        assert!(error.message.contains("'a'"));
    }
}
