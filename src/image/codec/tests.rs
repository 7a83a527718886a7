use super::*;
use ::image::{Rgb, Rgba, RgbaImage};

const FORMATS: [ImageFormat; 5] =
    [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp];

fn picture() -> RgbImage {
    RgbImage::from_fn(48, 32, |x, y| Rgb([(5 * x) as u8, (7 * y) as u8, (x * y % 256) as u8]))
}

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// The head of a PNG that claims a size and has no pixels.
fn png_head(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    bytes.extend(&chunk);
    bytes.extend(crc32(&chunk).to_be_bytes());
    bytes.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn every_format_is_read() {
    for format in FORMATS {
        let decoded = decode(&encoded(picture(), format)).unwrap();
        assert_eq!(decoded.dimensions(), (48, 32), "{format:?}");
        if matches!(format, ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp) {
            assert_eq!(decoded, picture(), "{format:?}");
        }
    }
}

#[test]
fn a_huge_picture_is_refused_by_its_head() {
    for (width, height) in [(60_000, 60_000), (20_000, 2), (2, 20_000), (12_000, 12_000)] {
        let error = decode(&png_head(width, height)).unwrap_err();
        assert_eq!(error.code, "image-too-large", "{width}×{height}: {error}");
    }
    let mut bmp = encoded(picture(), ImageFormat::Bmp);
    bmp[18..22].copy_from_slice(&60_000_i32.to_le_bytes());
    bmp[22..26].copy_from_slice(&60_000_i32.to_le_bytes());
    assert_eq!(decode(&bmp).unwrap_err().code, "image-too-large");
    let mut gif = encoded(picture(), ImageFormat::Gif);
    gif[6..10].copy_from_slice(&[0xFF; 4]);
    assert_eq!(decode(&gif).unwrap_err().code, "image-too-large");
    let mut jpeg = encoded(picture(), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xEA, 0x60, 0xEA, 0x60]);
    assert_eq!(decode(&jpeg).unwrap_err().code, "image-too-large");
}

#[test]
fn what_is_no_picture_is_refused() {
    for bytes in
        [&b""[..], b"x", b"%PDF-1.7 and so on, for more than sixteen bytes", &[0; 4096], b"II*\0\x08\0\0\0"]
    {
        assert_eq!(decode(bytes).unwrap_err().code, "image-format");
    }
}

#[test]
fn a_cut_off_picture_is_damaged_wherever_it_is_cut() {
    for format in FORMATS {
        let bytes = encoded(picture(), format);
        for part in [20, 30, 50, 75, 95] {
            let cut = &bytes[..bytes.len() * part / 100];
            let error = decode(cut).map(|_| ()).unwrap_err();
            assert_eq!(error.code, "image-damaged", "{format:?} cut to {part} %: {error}");
        }
    }
}

/// The place of a JPEG's frame header.
fn frame_of(jpeg: &[u8]) -> usize {
    jpeg.windows(2).position(|pair| matches!(pair, [0xFF, 0xC0..=0xC2])).unwrap()
}

/// A camera that writes no end marker, or that something of its own behind the picture.
#[test]
fn a_photo_without_its_end_marker_is_whole_whatever_follows() {
    let jpeg = encoded(picture(), ImageFormat::Jpeg);
    let whole = decode(&jpeg).unwrap();
    let trailers =
        [&b""[..], b"\0\0trailer", &[0; 500], b"\xFF\xC0\0", b"\xFF\xD8\xFF\xE1\xFF\xFFExif", &[0xFF; 9]];
    for trailer in trailers {
        let photo = [&jpeg[..jpeg.len() - 2], trailer].concat();
        assert_eq!(decode(&photo).unwrap(), whole, "{trailer:?}");
    }
    assert_eq!(decode(&[&jpeg[..], b"trailer", &jpeg].concat()).unwrap(), whole);
}

/// The decoder would fill the rest with gray, an end marker or not.
#[test]
fn a_jpeg_with_less_data_than_it_says_is_damaged() {
    let jpeg = encoded(picture(), ImageFormat::Jpeg);
    let frame = frame_of(&jpeg);
    for (width, height) in [(8192_u16, 8192_u16), (48, 40), (56, 32), (48, 8192)] {
        let mut claims = jpeg.clone();
        claims[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
        claims[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
        let error = decode(&claims).map(|_| ()).unwrap_err();
        assert_eq!(error.code, "image-damaged", "{width}×{height}: {error}");
    }
    // The last bits are padding, so the last byte may be missing.
    for end in frame + 20..jpeg.len() - 3 {
        let cut = [&jpeg[..end], &[0xFF, 0xD9]].concat();
        assert_eq!(decode(&cut).map(|_| ()).unwrap_err().code, "image-damaged", "cut at {end}");
    }
}

#[test]
fn other_kinds_of_jpeg_are_refused_by_name() {
    let jpeg = encoded(picture(), ImageFormat::Jpeg);
    let frame = frame_of(&jpeg);
    let kinds =
        [(1, 0xC9, "arithmetic"), (1, 0xCA, "arithmetic"), (1, 0xC3, "lossless"), (1, 0xC5, "hierarchical")];
    for (at, byte, name) in kinds.into_iter().chain([(4, 12, "12 bits"), (9, 2, "2 components")]) {
        let mut other = jpeg.clone();
        other[frame + at] = byte;
        if byte == 2 {
            // Two components have a shorter header.
            other[frame + 3] -= 3;
            other.drain(frame + 16..frame + 19);
        }
        let error = decode(&other).map(|_| ()).unwrap_err();
        assert!(error.code == "image-format" && error.message.contains(name), "{name}: {error}");
    }
}

/// Fewer rows than the head says are not accepted in any format.
#[test]
fn a_picture_with_fewer_rows_than_it_says_is_damaged() {
    for format in FORMATS {
        let mut bytes = encoded(picture(), format);
        match format {
            ImageFormat::Png => {
                bytes[20..24].copy_from_slice(&4096_u32.to_be_bytes());
                let crc = crc32(&bytes[12..29]);
                bytes[29..33].copy_from_slice(&crc.to_be_bytes());
            }
            ImageFormat::Jpeg => {
                let frame = frame_of(&bytes);
                bytes[frame + 5..frame + 7].copy_from_slice(&4096_u16.to_be_bytes());
            }
            ImageFormat::WebP => {
                // VP8L: 14 bits of width less 1, 14 of height less 1.
                let place = bytes.windows(4).position(|name| name == b"VP8L").unwrap() + 9;
                let size: [u8; 4] = bytes[place..place + 4].try_into().unwrap();
                let size = u32::from_le_bytes(size) & !(0x3FFF << 14) | 4095 << 14;
                bytes[place..place + 4].copy_from_slice(&size.to_le_bytes());
            }
            ImageFormat::Gif => {
                let image = bytes.windows(5).position(|head| head == [0x2C, 0, 0, 0, 0]).unwrap();
                bytes[8..10].copy_from_slice(&4096_u16.to_le_bytes());
                bytes[image + 7..image + 9].copy_from_slice(&4096_u16.to_le_bytes());
            }
            _ => bytes[22..26].copy_from_slice(&4096_i32.to_le_bytes()),
        }
        let error = decode(&bytes).map(|_| ()).unwrap_err();
        assert_eq!(error.code, "image-damaged", "{format:?}: {error}");
    }
}

#[test]
fn flipped_bytes_never_panic() {
    for format in FORMATS {
        let bytes = encoded(picture(), format);
        for i in 0..bytes.len().min(600) {
            let mut broken = bytes.clone();
            broken[i] ^= 0x5A;
            if let Err(error) = decode(&broken) {
                assert!(error.code.starts_with("image-"), "{error}");
            }
        }
    }
}

#[test]
fn transparency_is_white_in_pictures_and_black_in_masks() {
    let clear = RgbaImage::from_fn(2, 1, |x, _| Rgba([200, 100, 0, if x == 0 { 0 } else { 128 }]));
    let bytes = encoded(clear, ImageFormat::Png);
    let picture = decode(&bytes).unwrap();
    assert_eq!(picture.get_pixel(0, 0), &Rgb([255, 255, 255]));
    assert_eq!(picture.get_pixel(1, 0), &Rgb([227, 177, 127]));
    assert_eq!(decode_mask(&bytes).unwrap().get_pixel(0, 0).0, [0]);
}

/// The JPEG with an Exif segment (`Exif`, two zeros and a TIFF file) before all others.
fn with_exif(jpeg: &[u8], tiff: &[u8]) -> Vec<u8> {
    let mut bytes = jpeg[..2].to_vec();
    bytes.extend([0xFF, 0xE1]);
    bytes.extend((tiff.len() as u16 + 8).to_be_bytes());
    bytes.extend(b"Exif\0\0");
    bytes.extend(tiff);
    bytes.extend(&jpeg[2..]);
    bytes
}

/// A TIFF file with a single tag, the orientation.
fn tiff(orientation: u16, little_endian: bool) -> Vec<u8> {
    let short = |value: u16| if little_endian { value.to_le_bytes() } else { value.to_be_bytes() };
    let long = |value: u32| if little_endian { value.to_le_bytes() } else { value.to_be_bytes() };
    let mut bytes = if little_endian { b"II".to_vec() } else { b"MM".to_vec() };
    // 42, where the directory begins, entries; tag 0x112 of type SHORT, one value; no other directory.
    bytes.extend(short(42));
    bytes.extend(long(8));
    bytes.extend([short(1), short(0x112), short(3)].concat());
    bytes.extend(long(1));
    bytes.extend([short(orientation), short(0)].concat());
    bytes.extend(long(0));
    bytes
}

/// Exif 2.3, section 4.6.4, tag 274: which edges of the scene the stored first row and first column are.
#[test]
fn photos_are_turned_upright_whichever_way_the_camera_was_held() {
    let jpeg = encoded(picture(), ImageFormat::Jpeg);
    let stored = decode(&jpeg).unwrap();
    let (w, h) = stored.dimensions();
    /// Where an upright pixel is stored.
    type Place = fn(u32, u32, u32, u32) -> (u32, u32);
    let places: [Place; 8] = [
        |x, y, _, _| (x, y),
        |x, y, w, _| (w - 1 - x, y),
        |x, y, w, h| (w - 1 - x, h - 1 - y),
        |x, y, _, h| (x, h - 1 - y),
        |x, y, _, _| (y, x),
        |x, y, _, h| (y, h - 1 - x),
        |x, y, w, h| (w - 1 - y, h - 1 - x),
        |x, y, w, _| (w - 1 - y, x),
    ];
    for (i, place) in places.into_iter().enumerate() {
        let (width, height) = if i < 4 { (w, h) } else { (h, w) };
        let expected = RgbImage::from_fn(width, height, |x, y| {
            let (column, row) = place(x, y, w, h);
            *stored.get_pixel(column, row)
        });
        for little_endian in [true, false] {
            let photo = with_exif(&jpeg, &tiff(i as u16 + 1, little_endian));
            assert_eq!(decode(&photo).unwrap(), expected, "orientation {}", i + 1);
            let mask = decode_mask(&photo).unwrap();
            assert_eq!(
                mask,
                DynamicImage::from(expected.clone()).into_luma8(),
                "mask, orientation {}",
                i + 1
            );
        }
    }
    // PNG and WebP keep the same TIFF file in chunks of their own.
    let png = encoded(picture(), ImageFormat::Png);
    let chunk = [b"eXIf".to_vec(), tiff(6, false)].concat();
    let mut photo = png[..33].to_vec();
    photo.extend((chunk.len() as u32 - 4).to_be_bytes());
    photo.extend(&chunk);
    photo.extend(crc32(&chunk).to_be_bytes());
    photo.extend(&png[33..]);
    assert_eq!(decode(&photo).unwrap(), ::image::imageops::rotate90(&picture()));
}

/// A photo whose Exif data make no sense is shown as it is stored.
#[test]
fn broken_exif_data_are_passed_over() {
    let jpeg = encoded(picture(), ImageFormat::Jpeg);
    let stored = decode(&jpeg).unwrap();
    let good = tiff(6, true);
    let mut broken: Vec<Vec<u8>> = (0..18).map(|end| good[..end].to_vec()).collect();
    // No such orientation.
    broken.extend([0, 9, u16::MAX].map(|orientation| tiff(orientation, true)));
    let changed = |at: usize, with: &[u8]| {
        let mut tiff = good.clone();
        tiff[at..at + with.len()].copy_from_slice(with);
        tiff
    };
    // Another byte order, a directory beyond the end, before its own head and at the last byte, and no entry.
    broken.push(changed(0, b"MM"));
    broken.extend([u32::MAX, 1, 25, 1 << 31].map(|start| changed(4, &start.to_le_bytes())));
    broken.push(changed(8, &[0, 0]));
    for tiff in broken {
        assert_eq!(decode(&with_exif(&jpeg, &tiff)).unwrap(), stored, "{tiff:?}");
    }
    // More entries than there are: what comes first counts.
    let many = decode(&with_exif(&jpeg, &changed(8, &[0xFF, 0xFF]))).unwrap();
    assert_eq!(many, ::image::imageops::rotate90(&stored));
    // Any byte may be any other; a photo is told from its turned self by its size alone.
    for at in 0..good.len() {
        for byte in [0, 1, 0x7F, 0x80, 0xFF] {
            let pixels = decode(&with_exif(&jpeg, &changed(at, &[byte]))).unwrap();
            assert_eq!(pixels.len(), stored.len());
        }
    }
}

#[test]
fn texts_survive_a_png() {
    let texts = [("parameters", "a portrait, steps: 25"), ("prompt", "портрет — 肖像 🙂"), ("empty", "")];
    let bytes = encode_png(&picture(), &texts).unwrap();
    assert_eq!(decode(&bytes).unwrap(), picture());
    let mut read = read_png_texts(&bytes).unwrap();
    read.sort();
    let mut expected = texts.map(|(k, t)| (k.to_owned(), t.to_owned()));
    expected.sort();
    assert_eq!(read, expected);
    assert!(read_png_texts(&encode_png(&picture(), &[]).unwrap()).unwrap().is_empty());
}

/// A thousand texts that inflate to a megabyte each are a gigabyte.
#[test]
fn the_texts_of_a_png_are_bounded_together() {
    let megabyte = "x".repeat(1 << 20);
    let with_texts = |count: usize, text: &str| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
        for _ in 0..count {
            encoder.add_ztxt_chunk("a".to_owned(), text.to_owned()).unwrap();
        }
        encoder.write_header().unwrap().write_image_data(&[0]).unwrap();
        bytes
    };
    assert_eq!(read_png_texts(&with_texts(1, &megabyte)).unwrap()[0].1, megabyte);
    assert_eq!(read_png_texts(&with_texts(2, &megabyte)).unwrap_err().code, "image-damaged");
    assert_eq!(read_png_texts(&with_texts(1000, &megabyte[..2000])).unwrap_err().code, "image-damaged");
    // They are not looked at for the picture.
    assert_eq!(decode(&with_texts(2, &megabyte)).unwrap().dimensions(), (1, 1));
}

#[test]
fn unusable_texts_are_errors() {
    for keyword in ["", "ключ", &"k".repeat(80), "a\0b"] {
        assert_eq!(encode_png(&picture(), &[(keyword, "text")]).unwrap_err().code, "png-text");
    }
    assert_eq!(read_png_texts(b"GIF89a").unwrap_err().code, "image-format");
    assert_eq!(read_png_texts(&png_head(8, 8)[..20]).unwrap_err().code, "image-damaged");
}

/// What exiftool, browsers and content checkers read: XMP in an uncompressed iTXt chunk, before the pixels.
#[test]
fn a_generated_picture_says_so_in_the_iptcs_words() {
    let bytes = encode_experiment_png(&picture(), &serde_json::json!({ "seed": 7 })).unwrap();
    assert_eq!(decode(&bytes).unwrap(), picture());
    let place = |what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    let chunk = place(b"iTXtXML:com.adobe.xmp\0\0\0\0\0<?xpacket begin=\"\"").expect("XMP chunk");
    assert!(chunk < place(b"IDAT").unwrap());
    let texts: std::collections::BTreeMap<_, _> = read_png_texts(&bytes).unwrap().into_iter().collect();
    assert_eq!(texts["facestudio"], r#"{"seed":7}"#);
    assert!(texts["Software"].starts_with("FaceStudio "));
    let xmp = &texts["XML:com.adobe.xmp"];
    let source = "Iptc4xmpExt:DigitalSourceType=\"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia\"";
    assert!(xmp.contains(source), "{xmp}");
}

#[test]
fn a_photo_in_which_a_face_was_replaced_says_so() {
    use crate::request::{GenerateRequest, IntoPhoto, ModelId, Person, Replacement, WhichFace};
    let face = Replacement { face: WhichFace::Index(0), person: 0, mask: None };
    let into = IntoPhoto { photo: picture(), faces: vec![face], strength: 0.8 };
    let plain = GenerateRequest { people: vec![Person::new(vec![picture()])], ..GenerateRequest::default() };
    let texts = |request: &GenerateRequest| {
        let model = ModelId { name: None, version: None, sha256: "00ff".repeat(16) };
        let recipe = Recipe::new(request, model, "f32", [8, 8]).unwrap();
        let png = encode_generated_png(&picture(), &recipe).unwrap();
        read_png_texts(&png).unwrap().into_iter().collect::<std::collections::BTreeMap<_, _>>()
    };
    let replaced = texts(&GenerateRequest { into: Some(into), ..plain.clone() });
    assert!(
        replaced["XML:com.adobe.xmp"].contains("digitalsourcetype/compositeWithTrainedAlgorithmicMedia\"")
    );
    assert_eq!(replaced["Comment"], "A face in this picture was replaced by a generated one.");
    let drawn = texts(&plain);
    assert!(drawn["XML:com.adobe.xmp"].contains("digitalsourcetype/trainedAlgorithmicMedia\""));
    assert!(!drawn.contains_key("Comment"));
}

#[test]
fn an_enlarged_picture_says_what_it_said_before() {
    use crate::request::{EnlargeRecipe, ModelId, PixelHash};
    let model = ModelId { name: None, version: None, sha256: "00ff".repeat(16) };
    let recipe =
        EnlargeRecipe { version: "1".to_owned(), model, factor: 4, source: PixelHash::of(&picture()) };
    let texts = |source: &[u8]| {
        let png = encode_enlarged_png(&picture(), &recipe, source).unwrap();
        let texts = read_png_texts(&png).unwrap();
        assert_eq!(texts.iter().filter(|(keyword, _)| keyword == ENLARGED).count(), 1);
        (texts.into_iter().collect::<std::collections::BTreeMap<_, _>>(), png)
    };
    let generated = encode_experiment_png(&picture(), &serde_json::json!({ "seed": 7 })).unwrap();
    let (said, larger) = texts(&generated);
    assert_eq!(said["facestudio"], r#"{"seed":7}"#);
    assert!(said["XML:com.adobe.xmp"].contains("digitalsourcetype/trainedAlgorithmicMedia"));
    let own: EnlargeRecipe = serde_json::from_str(&said[ENLARGED]).unwrap();
    assert_eq!(own, recipe);
    // The last time counts.
    texts(&larger);
    // A photo's says that an algorithm made it better.
    for photo in [encode_png(&picture(), &[]).unwrap(), b"\xff\xd8\xff no PNG".to_vec()] {
        let (said, _) = texts(&photo);
        assert!(said["XML:com.adobe.xmp"].contains("digitalsourcetype/algorithmicallyEnhanced"));
    }
}
