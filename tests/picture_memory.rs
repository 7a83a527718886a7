//! What reading a hostile picture allocates, counted. Alone in its program, since the allocator counts for all threads.

#![allow(unsafe_code)] // an allocator

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use facestudio::image::codec;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

fn grown(size: usize) {
    let live = LIVE.fetch_add(size, Ordering::Relaxed) + size;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Bytes at the peak of `run`, over those before it.
fn peak<T>(run: impl FnOnce() -> T) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    run();
    PEAK.load(Ordering::Relaxed) - before
}

const MEGABYTE: usize = 1 << 20;

/// A PNG of one pixel with a colour profile and a text that inflate to so many bytes each.
fn bomb(size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut info = png::Info::with_size(1, 1);
    info.icc_profile = Some(vec![0; size].into());
    let mut encoder = png::Encoder::with_info(&mut bytes, info).unwrap();
    encoder.add_ztxt_chunk("a".to_owned(), "a".repeat(size)).unwrap();
    encoder.write_header().unwrap().write_image_data(&[0]).unwrap();
    bytes
}

/// A WebP file of this chunk beside its picture, which says that it is `size` bytes long.
fn claiming_webp(name: &[u8; 4], size: u32) -> Vec<u8> {
    let mut picture = std::io::Cursor::new(Vec::new());
    let webp = image::ImageFormat::WebP;
    image::DynamicImage::new_rgb8(1, 1).write_to(&mut picture, webp).unwrap();
    let picture = &picture.get_ref()[12..];
    // An extended file that has Exif data and a profile.
    let head = [&b"WEBPVP8X\x0A\0\0\0\x28\0\0\0"[..], &[0; 6]].concat();
    let chunk = [&name[..], &size.to_le_bytes()].concat();
    let content =
        if name == b"ICCP" { [&head, &chunk[..], picture] } else { [&head, picture, &chunk[..]] }.concat();
    [&b"RIFF"[..], &(content.len() as u32).to_le_bytes(), &content].concat()
}

#[test]
fn what_is_beside_a_picture_takes_no_memory() {
    let bomb = bomb(128 * MEGABYTE);
    assert!(bomb.len() < MEGABYTE);
    let decoding = peak(|| codec::decode(&bomb).unwrap());
    assert!(decoding < 4 * MEGABYTE, "{decoding} bytes for a pixel");
    let mask = peak(|| codec::decode_mask(&bomb).unwrap());
    assert!(mask < 4 * MEGABYTE, "{mask} bytes for a pixel of a mask");
    let texts = peak(|| codec::read_png_texts(&bomb));
    assert!(texts < 8 * MEGABYTE, "{texts} bytes for the texts");
    for name in [b"EXIF", b"ICCP", b"XMP "] {
        for size in [800 << 20, u32::MAX - 9] {
            let webp = claiming_webp(name, size);
            let decoding = peak(|| codec::decode(&webp));
            assert!(decoding < 4 * MEGABYTE, "{decoding} bytes for a claim of {size} in {name:?}");
        }
    }
    // A JPEG that claims 64 megapixels and has a few bytes of them.
    let mut jpeg = std::io::Cursor::new(Vec::new());
    image::DynamicImage::new_rgb8(8, 8).write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
    let mut jpeg = jpeg.into_inner();
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x20, 0, 0x20, 0]);
    let decoding = peak(|| codec::decode(&jpeg).unwrap_err());
    assert!(decoding < 4 * MEGABYTE, "{decoding} bytes for a JPEG that claims 64 megapixels");
}
