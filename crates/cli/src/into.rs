//! What a picture is started from: an init image, or a photo that people are put into.

use std::path::Path;

use anyhow::Result;
use facestudio::Error;
use facestudio::request::{INTO_STRENGTH, InitImage, IntoPhoto, Person, Replacement, WhichFace};
use image::GrayImage;

use crate::generate::{Job, parse_box, person};
use crate::picture::{open, open_mask};

/// How far to move from an init image where nothing is said.
const INIT_STRENGTH: f32 = 0.6;

/// What a picture is started from.
#[derive(Default)]
pub struct Start {
    pub init: Option<InitImage>,
    pub into: Option<IntoPhoto>,
    /// Those who are put into a photo.
    pub people: Option<Vec<Person>>,
}

/// What the flags `--init`, `--into`, `--replace`, `--strength` and `--mask` say.
pub fn start(args: &Job) -> Result<Start> {
    let mut masks = args.mask.iter().map(|path| open_mask(path)).collect::<facestudio::Result<Vec<_>>>()?;
    if let Some(path) = &args.init {
        check_count(masks.len(), 1, "the init image has one mask")?;
        let strength = args.strength.unwrap_or(INIT_STRENGTH);
        let init = InitImage { image: open(path)?, strength, mask: masks.pop() };
        return Ok(Start { init: Some(init), ..Start::default() });
    }
    let Some(path) = &args.into else { return Ok(Start::default()) };
    if !masks.is_empty() {
        check_count(masks.len(), args.replace.len(), "give one for each --replace, or none")?;
    }
    let into = put_into(path, args, masks)?;
    let people = args.replace.iter().map(|text| person(split(text)?.1)).collect::<Result<_>>()?;
    Ok(Start { into: Some(into), people: Some(people), ..Start::default() })
}

fn put_into(path: &Path, args: &Job, masks: Vec<GrayImage>) -> Result<IntoPhoto> {
    let mut masks = masks.into_iter();
    let replacement = |(index, text): (usize, &String)| {
        Ok(Replacement { face: split(text)?.0, person: index, mask: masks.next() })
    };
    let faces = args.replace.iter().enumerate().map(replacement).collect::<Result<_>>()?;
    Ok(IntoPhoto { photo: open(path)?, faces, strength: args.strength.unwrap_or(INTO_STRENGTH) })
}

/// A face, and who takes its place.
fn split(text: &str) -> Result<(WhichFace, &str)> {
    let face = |text: &str| match (text.parse::<usize>(), parse_box(text)) {
        (Ok(number), _) => number.checked_sub(1).map(WhichFace::Index),
        (_, area) => area.map(WhichFace::Box),
    };
    text.split_once('=').and_then(|(which, person)| Some((face(which)?, person))).ok_or_else(|| {
        let remedy =
            "write a face's number from 1 or its box, an equals sign and a person: --replace 1=anna.png";
        Error::input("replace-format", format!("--replace is '{text}'"), remedy).into()
    })
}

fn check_count(there: usize, most: usize, remedy: &str) -> Result<()> {
    if there == most || there < 2 && most == 1 {
        return Ok(());
    }
    Err(Error::input("mask-count", format!("--mask is given {there} times"), remedy).into())
}
