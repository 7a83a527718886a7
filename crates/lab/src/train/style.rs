//! The style input of training: the picture without its heads, as the vision ensemble takes it.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::data::{Picture, Pictures};
use ::image::RgbImage;
use facestudio::error::Result;
use facestudio::image::mask::{FACE_FILL, Mask, hide};
use facestudio::image::processor::Preprocessing;

/// Folder of the ensemble's encoder `k`, in diffusers' numbering.
pub fn folder(k: usize) -> String {
    if k == 0 { "vision_encoder".to_owned() } else { format!("vision_encoder_{}", k + 1) }
}

/// The picture with every head hidden (paper section 3.1): an oval around each face's box, which a detector finds as well.
pub fn hidden(picture: &Picture) -> Result<RgbImage> {
    let size = picture.size;
    let mut rgb = rgb(picture);
    for person in &picture.meta.people {
        rgb = hide(&rgb, &Mask::head(person.face_box, size, size), FACE_FILL)?;
    }
    Ok(rgb)
}

/// The picture as it is.
pub fn rgb(picture: &Picture) -> RgbImage {
    let size = picture.size as u32;
    RgbImage::from_fn(size, size, |x, y| {
        let p = 3 * (y as usize * picture.size + x as usize);
        ::image::Rgb([picture.rgb[p], picture.rgb[p + 1], picture.rgb[p + 2]])
    })
}

/// Pictures `indices` for each encoder, `[n, 3, size_k, size_k]`, with the faces of those with `hide` hidden.
pub fn pixels(
    pictures: &Pictures,
    indices: &[usize],
    hide: &[bool],
    encoders: &[Preprocessing],
    device: &Device,
) -> Result<Vec<Tensor<4>>> {
    let prepared: Vec<RgbImage> = indices
        .par_iter()
        .zip(hide)
        .map(|(i, hide)| {
            let picture = pictures.get(*i);
            if *hide { hidden(&picture) } else { Ok(rgb(&picture)) }
        })
        .collect::<Result<_>>()?;
    let mut out: Vec<(Preprocessing, Tensor<4>)> = Vec::new();
    for encoder in encoders {
        // Encoders that see alike share one tensor.
        let tensor = match out.iter().find(|(made, _)| made == encoder) {
            Some((_, tensor)) => tensor.clone(),
            None => tensor(&prepared, encoder, device)?,
        };
        out.push((*encoder, tensor));
    }
    Ok(out.into_iter().map(|(_, tensor)| tensor).collect())
}

fn tensor(pictures: &[RgbImage], with: &Preprocessing, device: &Device) -> Result<Tensor<4>> {
    let (n, area) = (pictures.len(), with.size * with.size);
    let mut values = vec![0.0; n * 3 * area];
    values.par_chunks_mut(3 * area).zip(pictures).try_for_each(|(out, picture)| {
        for (p, pixel) in with.square(picture)?.pixels().enumerate() {
            for (c, byte) in pixel.0.iter().enumerate() {
                out[c * area + p] = (f32::from(*byte) / with.divisor - with.mean[c]) / with.std[c];
            }
        }
        Ok(())
    })?;
    Ok(Tensor::from_data(TensorData::new(values, [n, 3, with.size, with.size]), device))
}
