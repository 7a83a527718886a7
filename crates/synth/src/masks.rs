//! What is known about each person in a picture: masks, box and landmarks.

use image::{GrayImage, Luma};

use super::geometry::Material;
use super::head::Face;
use super::identity::Identity;
use super::raster::{Buffer, Placement};

/// Where a person is in a picture. Coordinates are pixels of the picture, origin at its upper left corner.
#[derive(Debug, Clone)]
pub struct RenderedPerson {
    /// Coverage (0 to 255) of the visible part of the whole person.
    pub mask: GrayImage,
    /// The visible face from brow to chin (255 inside): the region that training hides from the style image.
    pub face_mask: GrayImage,
    /// Left, top, right, bottom of the face, hidden parts included; may reach outside the picture.
    pub face_box: [f32; 4],
    /// Eyes, tip of the nose, corners of the mouth; of each pair the one to the image's left of a frontal face first.
    pub landmarks: [[f32; 2]; 5],
    /// Share of the face that is in the picture and not behind another person, in [0, 1].
    pub visible: f32,
}

pub(super) fn measure(
    buffer: &Buffer,
    index: u8,
    face: &Face,
    id: &Identity,
    head: &Placement,
) -> RenderedPerson {
    let size = buffer.size / 2;
    let full = size as f32;
    let place = |p| {
        let [x, y, _] = head.project(p);
        [x * full, y * full]
    };
    let at = |x: f32, y: f32| place([x, y, face.front(x, y, id)]);
    let [nx, ny, nz] = face.nose;
    let corner = face.mouth_half * 0.95;
    let my = face.mouth[1] + face.curve(corner);
    let landmarks =
        [place(face.eyes[0]), place(face.eyes[1]), place([nx, ny, nz]), at(-corner, my), at(corner, my)];

    // The oval of the face as a fan of points on the skin.
    let top = face.hairline_y;
    let mut face_box = [f32::MAX, f32::MAX, f32::MIN, f32::MIN];
    let (mut seen, mut total) = (0u32, 0u32);
    for i in 0..=12 {
        let s = 2.6 + 7.2 * i as f32 / 12.0;
        for j in 0..=12 {
            let angle = std::f32::consts::PI * (j as f32 / 12.0 - 0.5);
            let p = face.skull(libm::sinf(angle), libm::cosf(angle), s);
            if p[1] > top {
                continue;
            }
            let [x, y] = place(p);
            face_box[0] = face_box[0].min(x);
            face_box[1] = face_box[1].min(y);
            face_box[2] = face_box[2].max(x);
            face_box[3] = face_box[3].max(y);
            total += 1;
            if x >= 0.0 && y >= 0.0 && x < full && y < full {
                let sample = &buffer.samples[(2.0 * y) as usize * buffer.size + (2.0 * x) as usize];
                // A point on the outline may fall just beside it.
                seen += u32::from(sample.person == index || sample.person == 255);
            }
        }
    }
    for [x, y] in landmarks {
        face_box =
            [face_box[0].min(x - 1.0), face_box[1].min(y), face_box[2].max(x + 1.0), face_box[3].max(y)];
    }

    let mut mask = GrayImage::new(size as u32, size as u32);
    let mut face_mask = GrayImage::new(size as u32, size as u32);
    for y in 0..size {
        let mut span: Option<(usize, usize)> = None;
        for x in 0..size {
            let mut cover = 0u16;
            let mut skin = false;
            for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                let sample = &buffer.samples[(2 * y + dy) * buffer.size + 2 * x + dx];
                if sample.person != index {
                    continue;
                }
                cover += 1;
                skin |= match sample.material {
                    Material::Skin => sample.coordinate[2] > -0.05 && sample.coordinate[1] < top,
                    Material::Frame | Material::Lens => sample.coordinate[2] > 0.4,
                    _ => false,
                };
            }
            mask.put_pixel(x as u32, y as u32, Luma([(cover * 255 / 4) as u8]));
            if skin {
                span = Some(span.map_or((x, x), |(a, _)| (a, x)));
            }
        }
        // Strands of hair across the face belong to the region that is hidden.
        if let Some((a, b)) = span {
            for x in a..=b {
                if mask.get_pixel(x as u32, y as u32).0[0] > 0 {
                    face_mask.put_pixel(x as u32, y as u32, Luma([255]));
                }
            }
        }
    }
    let visible = seen as f32 / total.max(1) as f32;
    RenderedPerson { mask, face_mask, face_box, landmarks, visible }
}
