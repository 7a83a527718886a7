//! Faces of a picture that exists, each drawn anew on a canvas of its own: cut out, drawn as any picture is, and put back.

use ::image::RgbImage;

use super::progress::{Host, OneFace};
use crate::encoders::detector::{DetectedFace, overlap};
use crate::error::{Error, Result};
use crate::image::patch::{Head, Patch};
use crate::image::watermark;
use crate::request::{
    Background, GenerateRequest, InitImage, IntoPhoto, Layout, RedrawFaces, RelativeBox, WhichFace,
};

/// How much of two boxes' union both must share to be of one face.
const SAME: f32 = 0.5;
/// Most that a face is enlarged to be drawn once more: what is smaller shows too little to begin with.
const LARGEST: f32 = 4.0;
/// Faces below this part of the model's own shorter side are small, where a request does not say.
const SMALL: f32 = 0.3;
/// Least enlargement at which drawing once more gains anything.
const SMALLEST: f32 = 1.25;

/// A face that is drawn anew.
pub struct Redrawn {
    /// Where.
    pub patch: Patch,
    /// As whom, among the request's people; as nobody in particular where there are none.
    pub person: Option<usize>,
    /// The box of the face in fractions of the picture's sides.
    pub area: RelativeBox,
}

/// Whether faces have to be looked for: a box with a mask says all.
pub fn searches(into: &IntoPhoto) -> bool {
    into.faces.iter().any(|face| matches!(face.face, WhichFace::Index(_)) || face.mask.is_none())
}

/// The faces of a photo that a request names, among those that were `found` in it, for a canvas of `[width, height]` pixels.
///
/// Fails with `face-not-found`, with `face-index` where fewer are found than are counted, with `into-faces` where one is named twice,
/// and with `mask-empty`.
pub fn chosen(into: &IntoPhoto, found: &[DetectedFace], canvas: [usize; 2]) -> Result<Vec<Redrawn>> {
    let size = into.photo.dimensions();
    let mut found: Vec<&DetectedFace> = found.iter().collect();
    found.sort_by(|a, b| b.area().total_cmp(&a.area()));
    let heads: Vec<Head> = found.iter().map(|face| head(face)).collect();
    let mut taken: Vec<[f32; 4]> = Vec::new();
    let mut chosen = Vec::new();
    for (i, replacement) in into.faces.iter().enumerate() {
        let place = match replacement.face {
            WhichFace::Index(index) if index < found.len() => Some(index),
            WhichFace::Index(_) if found.is_empty() => return Err(no_face()),
            WhichFace::Index(index) => {
                return Err(Error::input(
                    "face-index",
                    format!(
                        "face {} of the photo is to be replaced, counted from the largest, and {} were found",
                        index + 1,
                        found.len()
                    ),
                    "see `facestudio faces` for those that are found, or name a face by its box",
                ));
            }
            WhichFace::Box(area) => {
                let own = pixels(&area, size);
                let shared = found.iter().map(|face| overlap(&own, &face.face_box));
                let best = shared.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
                best.filter(|(_, shared)| *shared >= SAME).map(|(place, _)| place)
            }
        };
        let (own, area, face_box) = match (place, replacement.face) {
            (Some(place), _) => {
                let face_box = found[place].face_box;
                (heads[place], fractions(&face_box, size), face_box)
            }
            (None, WhichFace::Box(area)) => {
                let face_box = pixels(&area, size);
                (Head::new(face_box, None), area, face_box)
            }
            (None, WhichFace::Index(_)) => return Err(no_face()),
        };
        if taken.iter().any(|other| overlap(other, &face_box) >= SAME) {
            return Err(Error::input(
                "into-faces",
                format!("face {} of the request is one that another of it names as well", i + 1),
                "name each face of the photo once",
            ));
        }
        taken.push(face_box);
        let patch = match &replacement.mask {
            Some(mask) => Patch::of_mask(mask, canvas)?,
            None => {
                let others = heads.iter().enumerate().filter(|(other, _)| Some(*other) != place);
                let others: Vec<Head> = others.map(|(_, head)| *head).collect();
                Patch::of_head(&own, &others, size, canvas, f32::INFINITY)?
            }
        };
        chosen.push(Redrawn { patch, person: Some(replacement.person), area });
    }
    Ok(chosen)
}

/// The faces of a finished picture that are small enough to be drawn once more, for a canvas of `[width, height]` pixels. `person`
/// says who is at a place in fractions of the sides.
pub fn small(
    redraw: &RedrawFaces,
    found: &[DetectedFace],
    size: (u32, u32),
    canvas: [usize; 2],
    person: impl Fn([f32; 2]) -> Option<usize>,
) -> Result<Vec<Redrawn>> {
    let heads: Vec<Head> = found.iter().map(head).collect();
    let from = redraw.from.unwrap_or(SMALL * canvas[0].min(canvas[1]) as f32);
    let mut small = Vec::new();
    for (i, face) in found.iter().enumerate() {
        let [left, top, right, bottom] = face.face_box;
        if (right - left).max(bottom - top) >= from {
            continue;
        }
        let others: Vec<Head> =
            heads.iter().enumerate().filter(|(other, _)| *other != i).map(|(_, head)| *head).collect();
        let patch = Patch::of_head(&heads[i], &others, size, canvas, LARGEST)?;
        if patch.enlargement() < SMALLEST {
            continue;
        }
        let area = fractions(&face.face_box, size);
        let middle = [area.x + area.width / 2.0, area.y + area.height / 2.0];
        small.push(Redrawn { patch, person: person(middle), area });
    }
    Ok(small)
}

/// The request for one face: the part of the `picture` around it, drawn over as its person.
///
/// The part is the style image as well where the request says nothing of what is to be seen and the model reads styles: it shows
/// all but who it is.
fn request(
    whole: &GenerateRequest,
    face: &Redrawn,
    picture: &RgbImage,
    strength: f32,
    reads_styles: bool,
) -> GenerateRequest {
    let part = face.patch.cut(picture);
    let says_nothing = whole.style.is_none() && whole.prompt.trim().is_empty();
    let people = match face.person {
        Some(index) => whole.people.get(index).cloned().into_iter().collect(),
        None => Vec::new(),
    };
    GenerateRequest {
        people,
        style: if says_nothing && reads_styles { Some(part.clone()) } else { whole.style.clone() },
        layout: Layout::Whole,
        background: Background::default(),
        init: Some(InitImage { image: part, strength, mask: Some(face.patch.mask()) }),
        into: None,
        redraw_faces: None,
        count: 1,
        ..whole.clone()
    }
}

/// Draws faces of a picture anew, one after the other, each into what the ones before it left: all of a request with the same seed.
pub async fn redraw<H: Host>(
    whole: &GenerateRequest,
    picture: &mut RgbImage,
    faces: &[Redrawn],
    strength: f32,
    reads_styles: bool,
    host: &mut H,
    mut draw: impl AsyncFnMut(&GenerateRequest, &mut OneFace<'_, H>) -> Result<RgbImage>,
) -> Result<()> {
    for (i, face) in faces.iter().enumerate() {
        let request = request(whole, face, picture, strength, reads_styles);
        let drawn = draw(&request, &mut OneFace::new(host, i, faces.len())).await?;
        face.patch.paste(picture, &drawn);
    }
    Ok(())
}

/// Marks a photo as generated where faces were drawn into it, and nowhere else.
pub fn mark(picture: &mut RgbImage, faces: &[Redrawn]) {
    let mut marked = picture.clone();
    watermark::embed(&mut marked);
    for face in faces {
        face.patch.take_over(picture, &marked);
    }
}

fn head(face: &DetectedFace) -> Head {
    Head::new(face.face_box, Some(&face.landmarks))
}

fn no_face() -> Error {
    Error::input(
        "face-not-found",
        "no face was found in the photo that people are to be put into",
        "name the face by its box, or use a photo that shows faces from the front",
    )
}

/// `[left, top, right, bottom]` in pixels.
fn pixels(area: &RelativeBox, (width, height): (u32, u32)) -> [f32; 4] {
    let (width, height) = (width as f32, height as f32);
    [area.x * width, area.y * height, (area.x + area.width) * width, (area.y + area.height) * height]
}

/// As much of a box as is in the picture, in fractions of its sides.
fn fractions(face_box: &[f32; 4], (width, height): (u32, u32)) -> RelativeBox {
    let inside = |at: f32, length: u32| (at / length as f32).clamp(0.0, 1.0);
    let [x, right] = [face_box[0], face_box[2]].map(|at| inside(at, width));
    let [y, bottom] = [face_box[1], face_box[3]].map(|at| inside(at, height));
    RelativeBox { x, y, width: right - x, height: bottom - y }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::align::TEMPLATE;
    use crate::request::Replacement;
    use ::image::GrayImage;

    fn found(x: f32, side: f32) -> DetectedFace {
        let scale = side / 112.0;
        DetectedFace {
            face_box: [x, 20.0, x + side, 20.0 + side],
            landmarks: TEMPLATE.map(|[a, b]| [x + scale * a, 20.0 + scale * b]),
            mask: None,
        }
    }

    fn into(faces: Vec<WhichFace>) -> IntoPhoto {
        let faces = faces.into_iter().map(|face| Replacement { face, person: 0, mask: None }).collect();
        IntoPhoto { photo: RgbImage::new(200, 100), faces, strength: 0.5 }
    }

    fn area(x: f32, y: f32, width: f32, height: f32) -> WhichFace {
        WhichFace::Box(RelativeBox { x, y, width, height })
    }

    #[test]
    fn faces_are_named_by_their_size_or_their_box() {
        let both = [found(10.0, 20.0), found(120.0, 30.0)];
        let at = |faces: Vec<WhichFace>| -> Result<Vec<f32>, &'static str> {
            let chosen = chosen(&into(faces), &both, [64, 64]).map_err(|e| e.code)?;
            Ok(chosen.iter().map(|face| (face.area.x * 200.0).round()).collect())
        };
        assert_eq!(at(vec![WhichFace::Index(0)]), Ok(vec![120.0]), "the largest comes first");
        assert_eq!(at(vec![WhichFace::Index(1), WhichFace::Index(0)]), Ok(vec![10.0, 120.0]));
        // Nearly a face's box is that face; any other box is one of its own.
        assert_eq!(at(vec![area(0.06, 0.21, 0.1, 0.2)]), Ok(vec![10.0]));
        assert_eq!(at(vec![area(0.4, 0.2, 0.1, 0.2)]), Ok(vec![80.0]));
        assert_eq!(at(vec![WhichFace::Index(2)]), Err("face-index"));
        assert_eq!(at(vec![WhichFace::Index(1), area(0.05, 0.2, 0.1, 0.2)]), Err("into-faces"));
        assert_eq!(at(vec![area(0.4, 0.2, 0.1, 0.2), area(0.41, 0.2, 0.1, 0.2)]), Err("into-faces"));
        let error = chosen(&into(vec![WhichFace::Index(0)]), &[], [64, 64]).map(|_| ()).unwrap_err();
        assert_eq!(error.code, "face-not-found");
        // What was found is found again at its box.
        let first = chosen(&into(vec![WhichFace::Index(1)]), &both, [64, 64]).unwrap().remove(0);
        assert_eq!(at(vec![WhichFace::Box(first.area)]), Ok(vec![10.0]));
    }

    #[test]
    fn a_box_with_a_mask_needs_no_search() {
        let mut own = into(vec![area(0.1, 0.1, 0.2, 0.4)]);
        assert!(searches(&own));
        own.faces[0].mask = Some(GrayImage::from_pixel(200, 100, ::image::Luma([255])));
        assert!(!searches(&own));
        own.faces[0].face = WhichFace::Index(0);
        assert!(searches(&own));
    }

    #[test]
    fn small_faces_are_drawn_once_more_and_large_ones_are_left() {
        let faces = [found(10.0, 20.0), found(80.0, 60.0)];
        let redraw = |from| {
            let redraw = RedrawFaces { strength: 0.4, from };
            let person = |[x, _]: [f32; 2]| Some(usize::from(x > 0.5));
            let small = small(&redraw, &faces, (200, 200), [128, 128], person).unwrap();
            small.iter().map(|face| (face.person, (face.area.x * 200.0).round())).collect::<Vec<_>>()
        };
        assert_eq!(redraw(Some(40.0)), [(Some(0), 10.0)]);
        // The larger one would not be drawn larger than it is.
        assert_eq!(redraw(Some(500.0)), [(Some(0), 10.0)]);
        assert_eq!(redraw(Some(20.0)), []);
        assert_eq!(redraw(None), [(Some(0), 10.0)]);
    }

    #[test]
    fn a_face_s_request_shows_its_surroundings_where_nothing_else_is_said() {
        let face = chosen(&into(vec![area(0.4, 0.2, 0.1, 0.2)]), &[], [64, 64]).unwrap().remove(0);
        let whole =
            GenerateRequest { seed: 4, into: Some(into(Vec::new())), count: 3, ..GenerateRequest::default() };
        let picture = RgbImage::from_fn(200, 100, |x, y| ::image::Rgb([x as u8, y as u8, 0]));
        let part = face.patch.cut(&picture);
        let one = request(&whole, &face, &picture, 0.7, true);
        assert_eq!((one.style.as_ref(), one.count, one.seed, one.into.is_none()), (Some(&part), 1, 4, true));
        assert_eq!(one.init.as_ref().map(|init| (init.strength, &init.image)), Some((0.7, &part)));
        assert!(request(&whole, &face, &picture, 0.7, false).style.is_none());
        let worded = GenerateRequest { prompt: "a man".to_owned(), ..whole };
        assert!(request(&worded, &face, &picture, 0.7, true).style.is_none());
    }
}
