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
    let bytes = encode_generated_png(&picture(), r#"{"seed":7}"#).unwrap();
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
