//! A request's layout on the latents' grid: who acts where, and what may change (paper section 3.4).

use ::image::{DynamicImage, GrayImage, RgbImage};
use burn::tensor::Device;

use super::folder::missing;
use crate::condition::Regions;
use crate::encoders::detector::{DetectedFace, Detector};
use crate::encoders::segmenter::Segmenter;
use crate::error::{Error, Result};
use crate::image::mask::Mask;
use crate::image::preprocess::{cut_to_cover, resize_to_cover};
use crate::request::{Background, GenerateRequest, InitImage, Layout};

/// Sizes of a picture and its latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Canvas {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Latents across.
    pub latent_width: usize,
    /// Latents down.
    pub latent_height: usize,
}

impl Canvas {
    /// Positions of the latents.
    pub fn positions(&self) -> usize {
        self.latent_width * self.latent_height
    }
}

/// The picture sizes that a model makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Width and height in pixels that it was trained on, where its config says.
    pub own: Option<[usize; 2]>,
    /// Sides are multiples of this.
    pub multiple: usize,
}

/// What finds the people of a content image.
#[derive(Debug, Clone, Copy)]
pub struct Finder<'a> {
    /// The model's, where it has one.
    pub detector: Option<&'a Detector>,
    /// The model's, where it has one: it takes the detector's place.
    pub segmenter: Option<&'a Segmenter>,
}

/// One mask per person over the latents; none for a layout without regions.
pub async fn masks(
    request: &GenerateRequest,
    canvas: &Canvas,
    finder: Finder<'_>,
    device: &Device,
) -> Result<Vec<Mask>> {
    let Canvas { latent_width: width, latent_height: height, .. } = *canvas;
    match &request.layout {
        Layout::Whole => Ok(Vec::new()),
        Layout::Boxes(boxes) => Ok(boxes.iter().map(|area| Mask::from_box(area, width, height)).collect()),
        Layout::Masks(masks) => masks
            .iter()
            .enumerate()
            .map(|(i, mask)| {
                let name = format!("mask {}", i + 1);
                let size = (canvas.width as u32, canvas.height as u32);
                same_proportions(&name, mask.dimensions(), "the picture", size)?;
                Mask::from_gray(mask)?.resized(width, height)
            })
            .collect(),
        Layout::Content(content) => people_in(content, request.people.len().max(1), canvas, finder, device)
            .await?
            .iter()
            .map(|mask| mask.resized(width, height))
            .collect(),
    }
}

/// The masks of the `count` largest people, from left to right.
async fn people_in(
    content: &RgbImage,
    count: usize,
    canvas: &Canvas,
    Finder { detector, segmenter }: Finder<'_>,
    device: &Device,
) -> Result<Vec<Mask>> {
    // How large each is, where its middle is, and its mask.
    let mut people: Vec<(f32, f32, Mask)> = match segmenter {
        Some(segmenter) => {
            // From the picture as it is: it has a size of its own, whatever is drawn.
            let content = cut_to_cover(content, canvas.width, canvas.height)?;
            let masks = segmenter.people(&content, device).await?;
            masks.into_iter().map(|mask| (mask.coverage(), mask.centre_x(), mask)).collect()
        }
        None => {
            let content = resize_to_cover(content, canvas.width, canvas.height)?;
            let detector = detector.ok_or_else(|| missing("detector"))?;
            let mut found = detector.detect(&content, true, device).await?;
            found.sort_by(|a, b| b.area().total_cmp(&a.area()));
            found.truncate(count);
            let faces: Vec<[f32; 4]> = found.iter().map(|person| person.face_box).collect();
            // Drawn after the faces where the detector knows faces alone.
            let drawn = Mask::people(&faces, canvas.width, canvas.height);
            let middle = |face: [f32; 4]| face[0] + face[2];
            let person = |(person, drawn): (DetectedFace, Mask)| {
                (person.area(), middle(person.face_box), person.mask.unwrap_or(drawn))
            };
            found.into_iter().zip(drawn).map(person).collect()
        }
    };
    if people.len() < count {
        return Err(Error::input(
            "content-people",
            format!("{} people were found in the content image, {count} are needed", people.len()),
            "use a content image that shows as many people, or draw boxes or masks",
        ));
    }
    people.sort_by(|(a, _, _), (b, _, _)| b.total_cmp(a));
    people.truncate(count);
    people.sort_by(|(_, a, _), (_, b, _)| a.total_cmp(b));
    Ok(people.into_iter().map(|(_, _, mask)| mask).collect())
}

/// Who acts where; `None` with a single identity, which acts everywhere.
///
/// What is outside every mask follows the background's person. Where it is held instead, nobody's tokens matter there.
pub fn regions(masks: &[Mask], background: Background, canvas: &Canvas) -> Result<Option<Regions>> {
    if masks.len() < 2 {
        return Ok(None);
    }
    let background = match background {
        Background::Person(index) => index,
        Background::Hold => 0,
    };
    let weights = masks.iter().map(|mask| mask.values().to_vec()).collect();
    Regions::new(canvas.latent_height, canvas.latent_width, weights, background).map(Some)
}

/// Who of `people` is at a place in fractions of the picture's sides: whose mask says most there, or the first without masks; `None`
/// where there is nobody.
pub fn person_at(masks: &[Mask], people: usize, [x, y]: [f32; 2]) -> Option<usize> {
    let inside = |mask: &Mask| {
        let (width, height) = mask.size();
        let cell = |at: f32, length: usize| ((at * length as f32) as usize).min(length - 1);
        mask.values()[cell(y, height) * width + cell(x, width)]
    };
    let most = masks.iter().enumerate().max_by(|(_, a), (_, b)| inside(a).total_cmp(&inside(b)));
    (people > 0).then(|| most.map_or(0, |(index, _)| index))
}

/// Where latents may change: inside the people if the background is held, and inside the init image's mask. `None`
/// is everywhere.
pub fn changing(request: &GenerateRequest, masks: &[Mask], canvas: &Canvas) -> Result<Option<Mask>> {
    let mut changing =
        request.init.as_ref().and_then(|init| init_mask(init, canvas).transpose()).transpose()?;
    if let (Background::Hold, Some((first, rest))) = (request.background, masks.split_first()) {
        let people = rest.iter().try_fold(first.clone(), |people, mask| people.union(mask))?;
        changing = Some(match changing {
            // Inside both.
            Some(mask) => mask.inverted().union(&people.inverted())?.inverted(),
            None => people,
        });
    }
    Ok(changing)
}

/// The init image's mask on the latents; it is cut as the init image itself is.
fn init_mask(init: &InitImage, canvas: &Canvas) -> Result<Option<Mask>> {
    let Some(mask) = &init.mask else { return Ok(None) };
    same_proportions("the init image's mask", mask.dimensions(), "the init image", init.image.dimensions())?;
    let cut =
        resize_to_cover(&DynamicImage::ImageLuma8(mask.clone()).into_rgb8(), canvas.width, canvas.height)?;
    let cut: GrayImage = DynamicImage::ImageRgb8(cut).into_luma8();
    Mask::from_gray(&cut)?.resized(canvas.latent_width, canvas.latent_height).map(Some)
}

/// Fails with `mask-size` unless two sizes have one aspect ratio, to within a pixel of the smaller.
fn same_proportions(name: &str, mask: (u32, u32), other_name: &str, other: (u32, u32)) -> Result<()> {
    let cross = |a: u32, b: u32| u64::from(a) * u64::from(b);
    let off = cross(mask.0, other.1).abs_diff(cross(mask.1, other.0));
    let pixel = u64::from(mask.0.max(mask.1).max(other.0).max(other.1));
    if mask.0 > 0 && mask.1 > 0 && off <= pixel {
        return Ok(());
    }
    Err(Error::input(
        "mask-size",
        format!("{name} is {}×{}, {other_name} {}×{}", mask.0, mask.1, other.0, other.1),
        "make the mask the size of the picture, or of the same proportions",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RelativeBox;

    const CANVAS: Canvas = Canvas { width: 64, height: 32, latent_width: 16, latent_height: 8 };

    fn mask(x: f32, width: f32) -> Mask {
        Mask::from_box(&RelativeBox { x, y: 0.0, width, height: 1.0 }, 16, 8)
    }

    #[test]
    fn one_identity_needs_no_regions() {
        assert_eq!(CANVAS.positions(), 128);
        assert_eq!(regions(&[mask(0.0, 0.5)], Background::Person(0), &CANVAS).unwrap(), None);
        let two = regions(&[mask(0.0, 0.5), mask(0.5, 0.25)], Background::Person(1), &CANVAS).unwrap();
        assert_eq!(two.unwrap().resized(1, 16)[1], [[0.0; 8], [1.0; 8]].concat());
    }

    #[test]
    fn people_without_masks_are_drawn_after_their_faces() {
        let device = Device::flex();
        let detector = Detector::YuNet(crate::encoders::detector::yunet::finds_squares(&device));
        let content = RgbImage::from_fn(64, 32, |x, y| {
            let white = (8..16).contains(&y) && ((8..16).contains(&x) || (48..56).contains(&x));
            ::image::Rgb([if white { 255 } else { 0 }; 3])
        });
        let layout = Layout::Content(content);
        let mut request = GenerateRequest { layout, ..GenerateRequest::default() };
        request.people = vec![crate::request::Person::of(Vec::new()); 2];
        let find = |request: &GenerateRequest| {
            pollster::block_on(masks(
                request,
                &CANVAS,
                Finder { detector: Some(&detector), segmenter: None },
                &device,
            ))
        };
        let people = find(&request).unwrap();
        assert_eq!(people.len(), 2);
        // Each in its own half.
        let bottom =
            |mask: &Mask| mask.values()[7 * 16..].iter().map(|v| v.round() as u8).collect::<Vec<_>>();
        let left: Vec<u8> = (0..16).map(|x| u8::from(x < 8)).collect();
        assert!(bottom(&people[0]).iter().zip(&left).all(|(inside, left)| inside <= left));
        assert!(bottom(&people[1]).iter().zip(&left).all(|(inside, left)| *inside <= 1 - left));
        assert!(people.iter().all(|mask| mask.coverage() > 0.2));
        request.people.push(crate::request::Person::of(Vec::new()));
        assert_eq!(find(&request).unwrap_err().code, "content-people");
    }

    #[test]
    fn a_place_is_the_person_s_whose_mask_is_there() {
        let masks = [mask(0.0, 0.5), mask(0.5, 0.5)];
        assert_eq!([0.1, 0.9, 1.0].map(|x| person_at(&masks, 2, [x, 0.5])), [Some(0), Some(1), Some(1)]);
        assert_eq!(person_at(&[], 1, [0.5, 0.5]), Some(0));
        assert_eq!(person_at(&[], 0, [0.5, 0.5]), None);
    }

    #[test]
    fn what_changes_is_inside_people_and_mask() {
        let init_mask = GrayImage::from_fn(64, 32, |x, _| ::image::Luma([if x < 32 { 255 } else { 0 }]));
        let init = InitImage { image: RgbImage::new(64, 32), strength: 0.5, mask: Some(init_mask) };
        let mut request = GenerateRequest { init: Some(init), ..GenerateRequest::default() };
        let people = [mask(0.25, 0.125), mask(0.375, 0.375)];
        let row = |request: &GenerateRequest| {
            changing(request, &people, &CANVAS).unwrap().map(|mask| mask.values()[..16].to_vec())
        };
        assert_eq!(row(&request).unwrap(), [[1.0; 8], [0.0; 8]].concat());
        request.background = Background::Hold;
        assert_eq!(row(&request).unwrap(), [[0.0; 4], [1.0; 4], [0.0; 4], [0.0; 4]].concat());
        request.init = None;
        assert_eq!(row(&request).unwrap(), [[0.0; 4], [1.0; 4], [1.0; 4], [0.0; 4]].concat());
        request.background = Background::Person(0);
        assert_eq!(row(&request), None);
    }

    #[test]
    fn a_mask_of_other_proportions_is_refused() {
        assert!(same_proportions("mask 1", (640, 321), "the picture", (64, 32)).is_ok());
        let error = same_proportions("mask 1", (64, 64), "the picture", (64, 32)).unwrap_err();
        assert_eq!(error.code, "mask-size");
        assert_eq!(
            same_proportions("mask 1", (0, 0), "the picture", (64, 32)).unwrap_err().code,
            "mask-size"
        );
    }
}
