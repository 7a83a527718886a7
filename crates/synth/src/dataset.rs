//! Data sets of rendered pictures: the metadata of one, and contact sheets of many. Writes no files.

use image::RgbImage;
use serde_json::{Value, json};

use super::{Rendered, Scene};

/// One line of `metadata.jsonl`: the picture's `file`, its caption and style, and of each person the identity
/// vector, pose, box, landmarks (pixels) and the name of the mask file given in `masks`.
pub fn record(scene: &Scene, rendered: &Rendered, file: &str, masks: &[String]) -> Value {
    let people: Vec<Value> = scene
        .people
        .iter()
        .zip(&rendered.people)
        .enumerate()
        .map(|(i, (person, seen))| {
            json!({
                "identity": person.identity.to_vec(),
                "species": person.creature.as_ref().map(|creature| creature.species.name()),
                "yaw": person.yaw,
                "pitch": person.pitch,
                "roll": person.roll,
                "face_box": seen.face_box,
                "landmarks": seen.landmarks,
                "visible": seen.visible,
                "mask": masks.get(i),
            })
        })
        .collect();
    json!({
        "file_name": file,
        "text": rendered.caption,
        "style": format!("{:?}", scene.style),
        "people": people,
    })
}

/// The pictures side by side, `columns` to a row; all must be of one size.
pub fn sheet(pictures: &[RgbImage], columns: u32) -> RgbImage {
    let (width, height) = pictures.first().map_or((0, 0), RgbImage::dimensions);
    let columns = columns.clamp(1, pictures.len().max(1) as u32);
    let rows = (pictures.len() as u32).div_ceil(columns);
    let mut out = RgbImage::new(columns * width, rows * height);
    for (i, picture) in (0u32..).zip(pictures) {
        let (x, y) = ((i % columns) * width, (i / columns) * height);
        image::imageops::replace(&mut out, picture, i64::from(x), i64::from(y));
    }
    out
}
