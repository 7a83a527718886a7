//! People who are put into a photo that exists, in the place of those whom it shows.

use ::image::{GrayImage, RgbImage};
use serde::{Deserialize, Serialize};

use super::{Background, GenerateRequest, Layout, RelativeBox};
use crate::error::{Error, Result};

/// Most pixels of a photo that people are put into: 16 megapixels.
pub const MAX_PHOTO: u64 = 16 << 20;
/// How much of the steps is taken where nothing else is said.
pub const STRENGTH: f32 = 0.8;

/// A photo of pixels, and who is put into it.
pub type IntoPhoto = IntoPhotoOf<RgbImage, GrayImage>;
/// A face of a photo, and who takes its place.
pub type Replacement = ReplacementOf<GrayImage>;

/// A photo in which faces are drawn anew, each as one of the request's people. Outside of the heads' masks the picture is the photo,
/// byte for byte. `P` is a picture, `M` a mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename = "IntoPhoto"))]
pub struct IntoPhotoOf<P, M> {
    /// The photo, of at most 16 megapixels. The picture has its size.
    pub photo: P,
    /// Whose place is taken by whom.
    pub faces: Vec<ReplacementOf<M>>,
    /// How much of the steps is taken: 0 gives the faces back almost unchanged, 1 draws them from noise alone. 0.8 if left out.
    #[serde(default = "strength")]
    #[cfg_attr(test, ts(optional, as = "Option<f32>"))]
    pub strength: f32,
}

fn strength() -> f32 {
    STRENGTH
}

/// A face of the photo, and who takes its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename = "Replacement"))]
pub struct ReplacementOf<M> {
    /// Which face.
    pub face: WhichFace,
    /// Index of the person among the request's people.
    pub person: usize,
    /// Where the photo may change (white), of the photo's size; the head's oval if left out. Its edge is softened inwards.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub mask: Option<M>,
}

/// A face of a photo.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum WhichFace {
    /// Its place among those that are found, the largest being 0.
    Index(usize),
    /// The face that is found at this box, which overlaps it by half or more; where none is, the box itself is taken for one.
    Box(RelativeBox),
}

impl<P, M> IntoPhotoOf<P, M> {
    /// The same of another picture and other masks, which are told what they are called.
    pub fn try_map<Q, N>(
        &self,
        mut picture: impl FnMut(&P, &str) -> Result<Q>,
        mut mask: impl FnMut(&M, &str) -> Result<N>,
    ) -> Result<IntoPhotoOf<Q, N>> {
        let faces = self.faces.iter().enumerate().map(|(i, face)| {
            let name = format!("the mask of face {}", i + 1);
            let inside = face.mask.as_ref().map(|own| mask(own, &name)).transpose()?;
            Ok(ReplacementOf { face: face.face, person: face.person, mask: inside })
        });
        let faces = faces.collect::<Result<_>>()?;
        Ok(IntoPhotoOf { photo: picture(&self.photo, "the photo")?, faces, strength: self.strength })
    }
}

impl IntoPhoto {
    /// Checks what can be checked without a model.
    pub(super) fn validate(&self, request: &GenerateRequest) -> Result<()> {
        let (width, height) = self.photo.dimensions();
        if width == 0 || height == 0 {
            return Err(Error::input("image-empty", "the photo has no pixels", "use another picture"));
        }
        if u64::from(width) * u64::from(height) > MAX_PHOTO {
            return Err(Error::input(
                "image-too-large",
                format!(
                    "the photo that people are put into has {width}×{height} pixels; at most {} megapixels",
                    MAX_PHOTO >> 20
                ),
                "scale the photo down first",
            ));
        }
        super::range("strength", self.strength, 0.0, 1.0, "0.8 is a good start")?;
        let placed = [
            (!matches!(request.layout, Layout::Whole), "a layout"),
            (request.init.is_some(), "an init image"),
            (request.background != Background::default(), "a background"),
            (request.redraw_faces.is_some(), "faces that are redrawn once more"),
        ];
        if let Some((_, what)) = placed.iter().find(|(given, _)| *given) {
            return Err(Error::input(
                "into-conflict",
                format!(
                    "people are put into a photo, whose faces say where they go, and {what} is given beside it"
                ),
                format!("leave {what} out"),
            ));
        }
        if !request.watermark {
            return Err(Error::input(
                "into-unmarked",
                "people are put into a photo, and the mark that says so is to be left out",
                "leave the mark on: a photo in which a face was replaced always says it",
            ));
        }
        self.validate_faces(request.people.len())
    }

    fn validate_faces(&self, people: usize) -> Result<()> {
        let wrong = |message: String, remedy: &str| Err(Error::input("into-faces", message, remedy));
        if self.faces.is_empty() {
            return wrong("no face of the photo is named".to_owned(), "name a face, and who takes its place");
        }
        for (i, replacement) in self.faces.iter().enumerate() {
            let name = i + 1;
            if replacement.person >= people {
                let message = format!(
                    "face {name} is to become person {}, and the request has {people} people",
                    replacement.person + 1
                );
                return wrong(message, "name one of the people");
            }
            if let WhichFace::Box(area) = replacement.face {
                area.validate(&format!("the box of face {name}"))?;
            }
            if let Some(mask) =
                replacement.mask.as_ref().filter(|own| own.dimensions() != self.photo.dimensions())
            {
                return Err(Error::input(
                    "mask-size",
                    format!(
                        "the mask of face {name} is {:?}, the photo {:?}",
                        mask.dimensions(),
                        self.photo.dimensions()
                    ),
                    "make the mask the size of the photo",
                ));
            }
        }
        match (0..people).find(|index| self.faces.iter().all(|face| face.person != *index)) {
            Some(index) => wrong(
                format!("person {} takes nobody's place in the photo", index + 1),
                "name a face for each person, or leave the person out",
            ),
            None => Ok(()),
        }
    }
}

/// Faces of a finished picture that are drawn once more, larger, each as the person whose place it is in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct RedrawFaces {
    /// How much of the steps is taken, 0 to 1: little, for what is there is to be drawn better, not otherwise.
    pub strength: f32,
    /// Faces that are smaller than this, in pixels along the longer side, are redrawn; three tenths of the model's own shorter side
    /// if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub from: Option<f32>,
}

impl RedrawFaces {
    /// Fails with `strength-range` or `redraw-range`.
    pub(super) fn validate(&self) -> Result<()> {
        super::range("strength", self.strength, 0.0, 1.0, "0.4 is a good start")?;
        if let Some(from) = self.from.filter(|from| !(*from > 0.0 && *from <= super::MAX_SIDE as f32)) {
            return Err(Error::input(
                "redraw-range",
                format!("faces below {from} pixels are to be redrawn"),
                "name a size above 0 that a face can have",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{InitImage, Person};

    fn face(face: WhichFace, person: usize) -> Replacement {
        Replacement { face, person, mask: None }
    }

    fn request(people: usize, faces: Vec<Replacement>) -> GenerateRequest {
        GenerateRequest {
            people: vec![Person::new(vec![RgbImage::new(4, 4)]); people],
            into: Some(IntoPhoto { photo: RgbImage::new(8, 6), faces, strength: 0.5 }),
            ..GenerateRequest::default()
        }
    }

    fn change(change: impl Fn(&mut GenerateRequest, &mut IntoPhoto)) -> &'static str {
        let mut request = request(1, vec![face(WhichFace::Index(0), 0)]);
        let mut into = request.into.take().unwrap();
        change(&mut request, &mut into);
        GenerateRequest { into: Some(into), ..request }.validate().unwrap_err().code
    }

    #[test]
    fn what_has_no_meaning_in_a_photo_is_refused_by_name() {
        let second = WhichFace::Box(RelativeBox { x: 0.5, y: 0.5, width: 0.5, height: 0.4 });
        request(2, vec![face(WhichFace::Index(0), 1), face(second, 0)]).validate().unwrap();
        let init = InitImage { image: RgbImage::new(8, 8), strength: 0.5, mask: None };
        let area = RelativeBox { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
        assert_eq!(change(|r, _| r.watermark = false), "into-unmarked");
        assert_eq!(change(|r, _| r.init = Some(init.clone())), "into-conflict");
        assert_eq!(change(|r, _| r.layout = Layout::Boxes(vec![area])), "into-conflict");
        assert_eq!(change(|r, _| r.background = Background::Hold), "into-conflict");
        assert_eq!(
            change(|r, _| r.redraw_faces = Some(RedrawFaces { strength: 0.4, from: None })),
            "into-conflict"
        );
        assert_eq!(change(|_, i| i.faces.clear()), "into-faces");
        assert_eq!(change(|_, i| i.faces[0].person = 1), "into-faces");
        assert_eq!(change(|r, _| r.people.push(r.people[0].clone())), "into-faces");
        assert_eq!(change(|_, i| i.faces[0].mask = Some(GrayImage::new(6, 8))), "mask-size");
        assert_eq!(
            change(|_, i| i.faces[0].face = WhichFace::Box(RelativeBox { x: 0.9, ..area })),
            "box-range"
        );
        assert_eq!(change(|_, i| i.strength = 1.5), "strength-range");
        assert_eq!(change(|_, i| i.strength = f32::NAN), "strength-range");
        assert_eq!(change(|_, i| i.photo = RgbImage::new(0, 6)), "image-empty");
        assert_eq!(change(|_, i| i.photo = RgbImage::new(1 << 12, (1 << 12) + 1)), "image-too-large");
    }

    #[test]
    fn faces_once_more_have_a_strength_and_a_size() {
        let code = |strength, from| RedrawFaces { strength, from: Some(from) }.validate().map_err(|e| e.code);
        RedrawFaces { strength: 0.4, from: None }.validate().unwrap();
        code(0.4, 40.0).unwrap();
        assert_eq!(code(1.1, 40.0), Err("strength-range"));
        for from in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(code(0.4, from), Err("redraw-range"));
        }
    }

    #[test]
    fn a_face_is_a_number_or_a_box() {
        let read = |text: &str| serde_json::from_str::<WhichFace>(text).map_err(|_| ());
        assert_eq!(read("1"), Ok(WhichFace::Index(1)));
        let area = RelativeBox { x: 0.1, y: 0.2, width: 0.3, height: 0.4 };
        assert_eq!(read(r#"{"x":0.1,"y":0.2,"width":0.3,"height":0.4}"#), Ok(WhichFace::Box(area)));
        for wrong in ["-1", "0.5", "\"left\"", r#"{"x":0.1,"y":0.2,"width":0.3}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
