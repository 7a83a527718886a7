//! JPEG files: what their markers say, and their pixels.
//!
//! The decoder fills what a scan lacks with gray, and reads on into what a camera has put behind the picture. So the
//! markers and scans are walked through first (ITU-T T.81), and it gets no more than the picture.

mod frame;
mod scan;
mod standard_tables;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, GrayImage, RgbImage};
use jpeg_decoder::{ColorTransform, Decoder, PixelFormat, UnsupportedFeature};

use super::{check_size, damaged, unsupported};
use crate::error::Result;
use frame::Frame;
use scan::{Coefficients, Tables};
use standard_tables::STANDARD_TABLES;

/// Most scans of a progressive picture. Encoders write about ten; each costs a walk over all blocks, however short it is.
const MAX_SCANS: usize = 200;

const START: u8 = 0xD8;
const END: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;
const HUFFMAN_TABLES: u8 = 0xC4;

/// Decodes a baseline, extended or progressive JPEG with 8 bits a sample and Huffman coding, upright.
///
/// One that lacks its end marker is whole if its scans are; what follows them is passed over. Fails with `image-damaged`
/// where a scan breaks off, however much is claimed, with `image-format` on other kinds of JPEG, and with
/// `image-too-large`.
pub(super) fn decode(bytes: &[u8]) -> Result<DynamicImage> {
    let picture = Picture::read(bytes)?;
    let mut decoder = Decoder::new(picture.stream.as_slice());
    decoder.set_color_transform(picture.transform);
    let pixels = decoder.decode().map_err(from_decoder)?;
    let Some(info) = decoder.info() else { return Err(damaged("the JPEG file has no picture")) };
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    let image = match info.pixel_format {
        PixelFormat::L8 => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        PixelFormat::RGB24 => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
        PixelFormat::CMYK32 => RgbImage::from_raw(width, height, rgb(&pixels)).map(DynamicImage::from),
        PixelFormat::L16 => return Err(unsupported("JPEG with 16 bits a sample")),
    };
    let mut image = image.ok_or_else(|| damaged("the JPEG file has fewer pixels than it says"))?;
    image.apply_orientation(picture.orientation);
    Ok(image)
}

/// Ink on white paper, without a profile of the inks.
fn rgb(cmyk: &[u8]) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(cmyk.len() / 4 * 3);
    for pixel in cmyk.as_chunks::<4>().0 {
        let [c, m, y, k] = pixel.map(|ink| 255 - u32::from(ink));
        rgb.extend([c, m, y].map(|light| ((light * k + 127) / 255) as u8));
    }
    rgb
}

fn from_decoder(error: jpeg_decoder::Error) -> crate::Error {
    match error {
        jpeg_decoder::Error::Unsupported(UnsupportedFeature::NonIntegerSubsamplingRatio) => {
            unsupported("JPEG whose colours are stored at an uneven fraction of its size")
        }
        jpeg_decoder::Error::Unsupported(what) => unsupported(&format!("JPEG with {what:?}")),
        other => damaged(&format!("the JPEG file cannot be read: {other}")),
    }
}

/// A picture whose scans are all there.
struct Picture {
    /// From its start to the end of its last scan, with an end marker.
    stream: Vec<u8>,
    orientation: Orientation,
    transform: ColorTransform,
}

/// What the application segments say.
#[derive(Default)]
struct Application {
    jfif: bool,
    /// The colour transform of Adobe's segment.
    adobe: Option<u8>,
    orientation: Option<Orientation>,
}

impl Application {
    fn read(&mut self, marker: u8, segment: &[u8]) {
        match marker {
            0xE0 if segment.starts_with(b"JFIF\0") => self.jfif = true,
            0xE1 if self.orientation.is_none() => {
                let tiff = segment.strip_prefix(b"Exif\0\0");
                self.orientation = tiff.and_then(Orientation::from_exif_chunk);
            }
            0xEE if segment.starts_with(b"Adobe") => self.adobe = segment.get(11).copied(),
            _ => {}
        }
    }

    /// As libjpeg decides.
    fn transform(&self, frame: &Frame) -> ColorTransform {
        let names: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        match (names.as_slice(), self.adobe) {
            ([_], _) => ColorTransform::Grayscale,
            ([_, _, _], _) if self.jfif => ColorTransform::YCbCr,
            ([_, _, _], Some(0)) | (b"RGB", None) => ColorTransform::RGB,
            ([_, _, _], _) => ColorTransform::YCbCr,
            (_, None | Some(0)) => ColorTransform::CMYK,
            _ => ColorTransform::YCCK,
        }
    }
}

impl Picture {
    fn read(bytes: &[u8]) -> Result<Self> {
        let mut at = 2;
        let mut application = Application::default();
        let mut tables = Tables::default();
        let mut frame: Option<(Frame, Coefficients)> = None;
        let (mut scans, mut end, mut ended) = (0, None, false);
        while let Some(marker) = next_marker(bytes, &mut at) {
            match marker {
                0x01 | 0xD0..=START => continue,
                END => {
                    ended = true;
                    break;
                }
                _ => {}
            }
            let Some(segment) = segment(bytes, &mut at) else { break };
            match marker {
                HUFFMAN_TABLES => tables.define_huffman(segment)?,
                0xC0..=0xC2 if frame.is_none() => {
                    let read = Frame::read(segment, marker == 0xC2)?;
                    check_size(read.width, read.height)?;
                    let coefficients = Coefficients::new(&read);
                    frame = Some((read, coefficients));
                }
                0xC0..=0xC2 => return Err(damaged("the JPEG file has two frames")),
                0xC9..=0xCF => return Err(unsupported("JPEG with arithmetic coding")),
                0xC3 | 0xC5..=0xC7 | 0xDE => return Err(unsupported("lossless or hierarchical JPEG")),
                0xDD => tables.define_restarts(segment)?,
                START_OF_SCAN => {
                    let Some((frame, coefficients)) = &mut frame else {
                        return Err(damaged("the JPEG file has a scan before its frame"));
                    };
                    scans += 1;
                    if scans > MAX_SCANS {
                        return Err(unsupported(&format!("JPEG with more than {MAX_SCANS} scans")));
                    }
                    at = scan::walk(bytes, at, segment, frame, &tables, coefficients)?;
                    end = Some(at);
                    if coefficients.are_complete() {
                        break;
                    }
                }
                _ => application.read(marker, segment),
            }
        }
        let Some((frame, coefficients)) = frame else { return Err(cut_off()) };
        let Some(end) = end else { return Err(cut_off()) };
        // A progressive picture may end before its last bits, if its writer says so.
        let whole = coefficients.are_complete() || (ended && coefficients.have_brightness());
        if !whole {
            return Err(cut_off());
        }
        let mut stream = Vec::with_capacity(end + STANDARD_TABLES.len() + 6);
        stream.extend([0xFF, START, 0xFF, HUFFMAN_TABLES]);
        stream.extend((STANDARD_TABLES.len() as u16 + 2).to_be_bytes());
        stream.extend(STANDARD_TABLES);
        stream.extend(&bytes[2..end]);
        stream.extend([0xFF, END]);
        Ok(Self {
            stream,
            orientation: application.orientation.unwrap_or(Orientation::NoTransforms),
            transform: application.transform(&frame),
        })
    }
}

fn cut_off() -> crate::Error {
    damaged("the JPEG file ends before its picture does")
}

/// The next marker; passes over what is none, as other readers do, and over fill bytes.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        *at += bytes.get(*at..)?.iter().position(|byte| *byte == 0xFF)?;
        *at += bytes[*at..].iter().position(|byte| *byte != 0xFF)?;
        let marker = bytes[*at];
        *at += 1;
        if marker != 0 {
            return Some(marker);
        }
    }
}

/// A segment's content, after its length.
fn segment<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let length = bytes.get(*at..*at + 2)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let segment = bytes.get(*at + 2..(*at + length).max(*at + 2))?;
    *at += length.max(2);
    Some(segment)
}
