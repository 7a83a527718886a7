//! Picture files of other programs against Pillow.

use facestudio::image::codec::decode;
use facestudio::weights::TensorSource;

use crate::{fixture, io};

/// JPEG and lossy WebP leave rounding free, in the cosine transform, in the colours and where chroma is enlarged. A block that is
/// out of place costs over 100.
const TOLERANCE: (u8, f32) = (3, 0.3);

#[test]
fn pictures_of_every_layout_have_their_pixels() {
    let io = io(&fixture("codec"));
    let names: Vec<String> =
        io.0.keys().filter_map(|name| Some(name.strip_suffix(".file")?.to_owned())).collect();
    assert!(names.len() > 55, "{names:?}");
    let mut wrong = Vec::new();
    for name in names {
        let bytes = |what: &str| -> Vec<u8> {
            io.read(&format!("{name}.{what}")).unwrap().into_iter().map(|value| value as u8).collect()
        };
        let (file, expected) = (bytes("file"), bytes("pixels"));
        let ours = match decode(&file) {
            Ok(ours) => ours,
            Err(e) => {
                wrong.push(format!("{name}: {e}"));
                continue;
            }
        };
        let shape = io.shape(&format!("{name}.pixels")).unwrap();
        assert_eq!([ours.height() as usize, ours.width() as usize, 3], shape[..], "{name}");
        let off: Vec<u8> = ours.iter().zip(&expected).map(|(ours, theirs)| ours.abs_diff(*theirs)).collect();
        let most = off.iter().copied().max().unwrap();
        let mean = off.iter().map(|off| f32::from(*off)).sum::<f32>() / off.len() as f32;
        let is_lossy = name.starts_with("jpeg") || name == "webp.lossy" || name == "webp.two";
        let (tolerance, on_average) = if is_lossy { TOLERANCE } else { (0, 0.0) };
        if most > tolerance || mean > on_average {
            wrong.push(format!("{name}: off by {most}, {mean:.2} on average"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
