//! Files to pixels and back: every size is checked before anything is allocated for it.

mod jpeg;

use std::borrow::Cow;
use std::io::Cursor;

use ::image::error::{ImageError, LimitErrorKind};
use ::image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::request::{EnlargeRecipe, Recipe};

/// Most pixels of a picture that is read: 64 megapixels, more than phones take.
pub const MAX_PIXELS: u64 = 64 << 20;
/// Most pixels along one side of a picture that is read.
pub const MAX_SIDE: u32 = 16_384;
/// Most bytes of a picture's file: the largest picture with four channels of 16 bits as they are, and something beside it.
pub const MAX_FILE: u64 = MAX_PIXELS * 8 + (1 << 20);
/// Most bytes that a decoder may hold: the largest picture with four channels of 16 bits, and as much again.
const MAX_ALLOCATION: u64 = MAX_PIXELS * 8 * 2;
/// Most bytes of text that is read from a PNG.
const MAX_TEXT: usize = 1 << 20;

/// Decodes a PNG, JPEG, WebP, GIF (its first frame) or BMP file, told apart by its content.
///
/// Turns the picture upright where the camera's Exif data say so, and lays transparent pixels over white. Colour
/// profiles are ignored: pixels are taken as sRGB. Fails with `image-format` on anything else, `image-too-large`
/// beyond [`MAX_PIXELS`] or [`MAX_SIDE`], and `image-damaged` on a file that is cut off or broken.
pub fn decode(bytes: &[u8]) -> Result<RgbImage> {
    let picture = decode_dynamic(bytes)?;
    Ok(if picture.color().has_alpha() { over(&picture, 255) } else { picture.into_rgb8() })
}

/// [`decode`] for masks: brightness, with transparent pixels black (outside).
pub fn decode_mask(bytes: &[u8]) -> Result<GrayImage> {
    let picture = decode_dynamic(bytes)?;
    let picture = if picture.color().has_alpha() { over(&picture, 0).into() } else { picture };
    Ok(picture.into_luma8())
}

fn decode_dynamic(bytes: &[u8]) -> Result<DynamicImage> {
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_ALLOCATION);
    let bytes = match ::image::guess_format(bytes).map_err(|_| not_a_picture())? {
        ImageFormat::Jpeg => return jpeg::decode(bytes),
        ImageFormat::Png => Cow::Owned(without_ancillary_chunks(bytes)),
        ImageFormat::WebP if is_cut_off_webp(bytes) => {
            return Err(damaged("the WebP file ends before its picture does"));
        }
        _ => Cow::Borrowed(bytes),
    };
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|_| not_a_picture())?;
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(from_image)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let orientation = decoder.orientation().map_err(from_image)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(from_image)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

fn check_size(width: u32, height: u32) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(damaged(&format!("the picture has {width}×{height} pixels")));
    }
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(too_large(&format!("the picture has {width}×{height} pixels")));
    }
    Ok(())
}

/// Blends over a gray background.
fn over(picture: &DynamicImage, background: u8) -> RgbImage {
    let rgba = picture.to_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, alpha] = rgba.get_pixel(x, y).0.map(u32::from);
        let blend = |c: u32| ((c * alpha + u32::from(background) * (255 - alpha) + 127) / 255) as u8;
        ::image::Rgb([blend(r), blend(g), blend(b)])
    })
}

/// Whether a WebP file, or a chunk of it, is shorter than its head says: the decoder takes what is missing of a picture for
/// zeros, and makes room for all that is claimed.
fn is_cut_off_webp(bytes: &[u8]) -> bool {
    let size = |at: usize| {
        let size = bytes.get(at..at + 4).map(|size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
        size.map_or(u64::MAX, u64::from)
    };
    // Some writers count the last chunk's padding and leave it out.
    let length = bytes.len() as u64 + 1;
    let end = size(4).saturating_add(8);
    let mut at = 12;
    while at + 8 <= end && end <= length {
        let size = size(at as usize + 4);
        at = (at + 8).saturating_add(size).saturating_add(size % 2);
        if at > length {
            return true;
        }
    }
    end > length
}

/// A PNG with nothing but its picture: colour profiles and texts may inflate to a thousand times their size, and are not
/// looked at.
fn without_ancillary_chunks(bytes: &[u8]) -> Vec<u8> {
    const KEPT: [&[u8]; 6] = [b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"];
    let (signature, mut rest) = bytes.split_at(bytes.len().min(8));
    let mut kept = signature.to_vec();
    while let Some(head) = rest.first_chunk::<8>() {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let (chunk, after) = rest.split_at(length.saturating_add(12).min(rest.len()));
        if KEPT.contains(&&head[4..]) {
            kept.extend(chunk);
        }
        rest = after;
    }
    kept
}

fn not_a_picture() -> Error {
    Error::input(
        "image-format",
        "the file is not a PNG, JPEG, WebP, GIF or BMP picture",
        "save the picture as PNG or JPEG",
    )
}

fn too_large(message: &str) -> Error {
    Error::input(
        "image-too-large",
        format!("{message}; at most {} megapixels and {MAX_SIDE} along a side can be read", MAX_PIXELS >> 20),
        "scale the picture down first",
    )
}

fn damaged(message: &str) -> Error {
    Error::input("image-damaged", message, "save or download the picture again")
}

fn unsupported(what: &str) -> Error {
    Error::input(
        "image-format",
        format!("this kind of picture is not supported: {what}"),
        "save the picture as PNG, or as JPEG with usual settings",
    )
}

fn from_image(error: ImageError) -> Error {
    match error {
        ImageError::Limits(limit) => match limit.kind() {
            LimitErrorKind::DimensionError | LimitErrorKind::InsufficientMemory => {
                too_large("the picture is too large")
            }
            _ => damaged(&format!("the picture cannot be read: {limit}")),
        },
        ImageError::Unsupported(what) => unsupported(&what.to_string()),
        other => damaged(&format!("the picture cannot be read: {other}")),
    }
}

/// The first bytes of every PNG.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The keyword of XMP metadata in a PNG (XMP specification, part 3, section 1.1.5).
const XMP: &str = "XML:com.adobe.xmp";
/// What the IPTC's vocabulary of digital source types calls a picture that a trained model made, and one in which it made a part.
const GENERATED: &str = "trainedAlgorithmicMedia";
const COMPOSITE: &str = "compositeWithTrainedAlgorithmicMedia";
/// And one that an algorithm made better.
const ENHANCED: &str = "algorithmicallyEnhanced";

/// XMP that names a picture's source in the IPTC's vocabulary.
fn xmp(source: &str) -> String {
    format!(
        r#"<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
   Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/{source}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"#
    )
}

/// The keyword under which a generated picture says how it was made.
pub const SETTINGS: &str = "facestudio";
/// The keyword under which a picture says how it was made larger.
pub const ENLARGED: &str = "facestudio-enlarged";

/// What a PNG says to people where a face of a photo was replaced, under the keyword `Comment`.
const REPLACED: &str = "A face in this picture was replaced by a generated one.";

/// Encodes a generated picture as a PNG that says so: to programs that know the IPTC's digital source type, and under
/// [`SETTINGS`] with the recipe that makes it again. Of a photo that people were put into both say that it is one, and a comment says
/// that a face was replaced.
pub fn encode_generated_png(picture: &RgbImage, recipe: &Recipe) -> Result<Vec<u8>> {
    let replaced = recipe.into.is_some();
    let comment = replaced.then_some(("Comment", REPLACED));
    encode_with_settings(picture, recipe, if replaced { COMPOSITE } else { GENERATED }, comment)
}

/// As [`encode_generated_png`], with an experiment's own settings.
pub fn encode_experiment_png(picture: &RgbImage, settings: &impl Serialize) -> Result<Vec<u8>> {
    encode_with_settings(picture, settings, GENERATED, None)
}

/// Encodes a picture that was made larger as a PNG that says so under [`ENLARGED`], beside all that the file of the picture that it was
/// made from says in a PNG's texts; to programs that know the IPTC's digital source type too, where that file says nothing to them.
pub fn encode_enlarged_png(picture: &RgbImage, recipe: &EnlargeRecipe, source: &[u8]) -> Result<Vec<u8>> {
    let own = serde_json::to_string(recipe).map_err(|e| Error::internal("json", e.to_string()))?;
    let said = if source.starts_with(PNG) { read_png_texts(source)? } else { Vec::new() };
    let enhanced = xmp(ENHANCED);
    let mut texts: Vec<(&str, &str)> = said
        .iter()
        .filter(|(keyword, _)| keyword != ENLARGED)
        .map(|(keyword, text)| (keyword.as_str(), text.as_str()))
        .collect();
    if !said.iter().any(|(keyword, _)| keyword == XMP) {
        texts.push((XMP, &enhanced));
    }
    texts.push((ENLARGED, &own));
    encode_png(picture, &texts)
}

fn encode_with_settings(
    picture: &RgbImage,
    settings: &impl Serialize,
    source: &str,
    comment: Option<(&str, &str)>,
) -> Result<Vec<u8>> {
    let software = concat!("FaceStudio ", env!("CARGO_PKG_VERSION"));
    let settings = serde_json::to_string(settings).map_err(|e| Error::internal("json", e.to_string()))?;
    let xmp = xmp(source);
    let mut texts = vec![("Software", software), (SETTINGS, &settings), (XMP, &xmp)];
    texts.extend(comment);
    encode_png(picture, &texts)
}

/// The recipe of a generated picture, from its PNG.
///
/// Fails with `recipe-missing` where it has none, with `recipe-format` where it is of another version or damaged, and as
/// [`read_png_texts`].
pub fn read_recipe(bytes: &[u8]) -> Result<Recipe> {
    let texts = read_png_texts(bytes)?;
    let (_, text) = texts.iter().find(|(keyword, _)| keyword == SETTINGS).ok_or_else(|| {
        Error::input(
            "recipe-missing",
            "the picture does not say how it was made",
            "take the PNG as FaceStudio wrote it: other programs drop its texts",
        )
    })?;
    Recipe::from_json(text)
}

/// Encodes a PNG with texts under their keywords (`tEXt`, or `iTXt` where a text is not Latin-1 and for XMP).
///
/// Fails with `png-text` on a keyword that is empty, longer than 79 characters or not Latin-1.
pub fn encode_png(picture: &RgbImage, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
    let fail = |e: png::EncodingError| Error::internal("png-encode", format!("{e}"));
    let is_latin_1 = |text: &str| text.chars().all(|c| u32::from(c) < 256);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
        if !(1..=79).contains(&keyword.chars().count()) || !is_latin_1(keyword) || keyword.contains('\0') {
            return Err(Error::input(
                "png-text",
                format!("'{keyword}' cannot be a keyword of a PNG"),
                "use 1 to 79 Latin letters",
            ));
        }
        let (keyword, text) = ((*keyword).to_owned(), (*text).to_owned());
        if is_latin_1(&text) && !text.contains('\0') && keyword != XMP {
            encoder.add_text_chunk(keyword, text).map_err(fail)?;
        } else {
            encoder.add_itxt_chunk(keyword, text).map_err(fail)?;
        }
    }
    let mut writer = encoder.write_header().map_err(fail)?;
    writer.write_image_data(picture).map_err(fail)?;
    writer.finish().map_err(fail)?;
    Ok(bytes)
}

/// The texts before a PNG's pixels, with their keywords; decodes no pixels.
///
/// Fails with `image-format` where the bytes are no PNG and `image-damaged` where its head is broken.
pub fn read_png_texts(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    if !bytes.starts_with(PNG) {
        return Err(not_a_picture());
    }
    let fail = |e: png::DecodingError| damaged(&format!("the PNG cannot be read: {e}"));
    // A row of the widest picture must fit as well.
    let limits = png::Limits { bytes: MAX_TEXT + MAX_SIDE as usize * 8 };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_ignore_iccp_chunk(true);
    let reader = decoder.read_info().map_err(fail)?;
    let info = reader.info();
    let mut texts = Vec::new();
    // All of them together: a file may have a thousand that inflate to the limit.
    let mut left = MAX_TEXT;
    let too_long = || damaged(&format!("the texts of the PNG are longer than {} kB", MAX_TEXT >> 10));
    for chunk in &info.uncompressed_latin1_text {
        texts.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    for chunk in &info.compressed_latin1_text {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(left).map_err(fail)?;
        let text = chunk.get_text().map_err(fail)?;
        left = left.checked_sub(text.len()).ok_or_else(too_long)?;
        texts.push((chunk.keyword.clone(), text));
    }
    for chunk in &info.utf8_text {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(left).map_err(fail)?;
        let text = chunk.get_text().map_err(fail)?;
        left = left.checked_sub(text.len()).ok_or_else(too_long)?;
        texts.push((chunk.keyword.clone(), text));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests;
