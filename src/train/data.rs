//! Pictures to train on: rendered once and kept in a file and in memory, or a folder of photographs.
//!
//! Rendering as it trains would take one of two cores from the training; a cache of some thousand pictures, each
//! seen again under other noise, costs minutes once and serves every stage.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::rng::Rng;
use super::run::Event;
use crate::error::{Error, Result};

/// A person in a picture, in pixels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// Left, top, right, bottom of the face.
    pub face_box: [f32; 4],
    /// Eyes, nose tip, mouth corners; the picture's left one first.
    pub landmarks: [[f32; 2]; 5],
}

/// What is known about a picture beside its pixels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// A sentence that describes it; may be empty.
    pub caption: String,
    /// The people, in the order of the maps' numbers.
    pub people: Vec<Person>,
    /// Whom it shows, where that is known: pictures of one person share it.
    #[serde(default)]
    pub identity: u64,
}

/// One picture with its maps.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// Side in pixels.
    pub size: usize,
    /// `size × size × 3`, row-major.
    pub rgb: &'a [u8],
    /// `size × size`: 0, or 1 + the number of the person that the pixel shows.
    pub people: &'a [u8],
    /// `size × size`: 0, or 1 + the number of the person whose face the pixel shows.
    pub faces: &'a [u8],
    /// Caption, boxes, landmarks.
    pub meta: &'a Meta,
}

/// A picture to be added to [`Pictures`]; its fields are as in [`Picture`].
#[derive(Debug, Clone)]
pub struct OwnedPicture {
    /// `size × size × 3`.
    pub rgb: Vec<u8>,
    /// Instance map.
    pub people: Vec<u8>,
    /// Face map.
    pub faces: Vec<u8>,
    /// Caption, boxes, landmarks.
    pub meta: Meta,
}

/// Many pictures of one size, in memory.
#[derive(Debug, Clone)]
pub struct Pictures {
    size: usize,
    bytes: Vec<u8>,
    meta: Vec<Meta>,
}

/// Colour and two maps.
const PLANES: usize = 5;
/// Pictures made between two looks at the stop flag.
const CHUNK: usize = 256;

impl Pictures {
    /// None yet, `size × size` each.
    pub fn new(size: usize) -> Self {
        Self { size, bytes: Vec::new(), meta: Vec::new() }
    }

    /// Makes `count` pictures with `make` on all cores, or reads them from `cache` if they were made before.
    ///
    /// `name` must say all that decides the pictures. `log` hears how far it is.
    pub fn cached(
        cache: &Path,
        name: &str,
        size: usize,
        count: usize,
        make: impl Fn(u64) -> OwnedPicture + Sync,
        stop: &AtomicBool,
        log: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        let path = cache.join(format!("{name}-{size}px-{count}"));
        if path.with_extension("jsonl").exists() {
            return Self::read(&path, size);
        }
        std::fs::create_dir_all(cache).map_err(|e| Error::io(cache.display(), &e))?;
        let mut pictures = Self::new(size);
        pictures.reserve(count)?;
        while pictures.len() < count {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::cancelled());
            }
            let first = pictures.len();
            let made: Vec<OwnedPicture> =
                (first..count.min(first + CHUNK)).into_par_iter().map(|i| make(i as u64)).collect();
            made.into_iter().try_for_each(|picture| pictures.push(picture))?;
            log(Event::Rendered(pictures.len(), count));
        }
        pictures.write(&path)?;
        Ok(pictures)
    }

    /// Makes room for `count` pictures. Fails with `pictures-memory` where there is none.
    fn reserve(&mut self, count: usize) -> Result<()> {
        let bytes = count.saturating_mul(self.size * self.size * PLANES);
        self.bytes.try_reserve_exact(bytes).map_err(|_| {
            Error::input(
                "pictures-memory",
                format!(
                    "{count} pictures of {0}×{0} pixels take {1:.1} GB of memory",
                    self.size,
                    bytes as f64 / 1e9
                ),
                "ask for fewer with --pictures",
            )
        })
    }

    /// Adds a picture; its planes must be of this collection's size.
    pub fn push(&mut self, picture: OwnedPicture) -> Result<()> {
        let area = self.size * self.size;
        if (picture.rgb.len(), picture.people.len(), picture.faces.len()) != (area * 3, area, area) {
            return Err(Error::internal("picture-size", "a picture's planes are of another size"));
        }
        for plane in [picture.rgb, picture.people, picture.faces] {
            self.bytes.extend_from_slice(&plane);
        }
        self.meta.push(picture.meta);
        Ok(())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.meta.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.meta.is_empty()
    }

    /// Side in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Picture `i`, which must be below [`Pictures::len`].
    pub fn get(&self, i: usize) -> Picture<'_> {
        let area = self.size * self.size;
        let bytes = &self.bytes[i * area * PLANES..][..area * PLANES];
        let (rgb, maps) = bytes.split_at(area * 3);
        let (people, faces) = maps.split_at(area);
        Picture { size: self.size, rgb, people, faces, meta: &self.meta[i] }
    }

    /// Pictures `indices` as `[n, 3, size, size]` in [-1, 1]; those of which `flip` is true are mirrored.
    pub fn tensor(&self, indices: &[usize], flip: &[bool], device: &Device) -> Tensor<4> {
        let (n, s) = (indices.len(), self.size);
        let mut values = vec![0.0; n * 3 * s * s];
        values.par_chunks_mut(3 * s * s).zip(indices).enumerate().for_each(|(k, (out, i))| {
            let mirrored = flip.get(k).copied().unwrap_or(false);
            planes(self.get(*i).rgb, s, mirrored, out);
        });
        Tensor::from_data(TensorData::new(values, [n, 3, s, s]), device)
    }

    /// `count` indices drawn from the first `below` pictures.
    pub fn draw(&self, rng: &mut Rng, count: usize, below: usize) -> Vec<usize> {
        (0..count).map(|_| rng.below(below.min(self.len()))).collect()
    }

    fn write(&self, path: &Path) -> Result<()> {
        let bin = path.with_extension("bin");
        std::fs::write(&bin, &self.bytes).map_err(|e| Error::io(bin.display(), &e))?;
        // Written last: the cache counts as complete once this is there.
        let (partial, jsonl) = (path.with_extension("partial"), path.with_extension("jsonl"));
        let written = (|| {
            let mut out = BufWriter::new(File::create(&partial)?);
            for meta in &self.meta {
                serde_json::to_writer(&mut out, meta)?;
                out.write_all(b"\n")?;
            }
            out.flush()?;
            std::fs::rename(&partial, &jsonl)
        })();
        written.map_err(|e| Error::io(jsonl.display(), &e))
    }

    fn read(path: &Path, size: usize) -> Result<Self> {
        let (bin, jsonl) = (path.with_extension("bin"), path.with_extension("jsonl"));
        let text = std::fs::read_to_string(&jsonl).map_err(|e| Error::io(jsonl.display(), &e))?;
        let damaged = |what: String| {
            Error::input(
                "cache",
                format!("{}: {what}", bin.display()),
                "delete the file; it will be made again",
            )
        };
        let meta = text
            .lines()
            .map(|line| serde_json::from_str(line).map_err(|e| damaged(e.to_string())))
            .collect::<Result<Vec<Meta>>>()?;
        let mut bytes = Vec::new();
        File::open(&bin)
            .and_then(|file| BufReader::new(file).read_to_end(&mut bytes))
            .map_err(|e| Error::io(bin.display(), &e))?;
        if bytes.len() != meta.len() * size * size * PLANES {
            return Err(damaged(format!("{} bytes for {} pictures", bytes.len(), meta.len())));
        }
        Ok(Self { size, bytes, meta })
    }
}

/// Interleaved bytes to three planes in [-1, 1].
pub fn planes(rgb: &[u8], size: usize, mirrored: bool, out: &mut [f32]) {
    let area = size * size;
    for (p, pixel) in rgb.chunks_exact(3).enumerate() {
        let p = if mirrored { p / size * size + size - 1 - p % size } else { p };
        for (c, value) in pixel.iter().enumerate() {
            out[c * area + p] = *value as f32 / 127.5 - 1.0;
        }
    }
}

/// `[n, 3, h, w]` in [-1, 1] to pictures.
pub fn pictures_of(tensor: Tensor<4>) -> Result<Vec<image::RgbImage>> {
    let [n, _, h, w] = tensor.dims();
    let values: Vec<f32> = tensor
        .try_into_vec_as::<f32>()
        .map_err(|e| Error::device("read-back", format!("could not read pictures back: {e:?}"), ""))?;
    let area = h * w;
    Ok((0..n)
        .map(|i| {
            image::RgbImage::from_fn(w as u32, h as u32, |x, y| {
                let p = i * 3 * area + y as usize * w + x as usize;
                image::Rgb(
                    [0, 1, 2].map(|c| ((values[p + c * area] + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8),
                )
            })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(i: u64) -> OwnedPicture {
        let meta = Meta { caption: format!("picture {i}"), identity: i, ..Meta::default() };
        OwnedPicture { rgb: vec![i as u8; 4 * 4 * 3], people: vec![1; 16], faces: vec![2; 16], meta }
    }

    #[test]
    fn a_cache_is_made_once_and_reads_back_equal() {
        let folder = tempfile::tempdir().unwrap();
        let run = |made: &AtomicBool| {
            let make = |i| {
                made.store(true, Ordering::Relaxed);
                make(i)
            };
            let stop = AtomicBool::new(false);
            Pictures::cached(folder.path(), "test", 4, 300, make, &stop, &mut |_| ()).unwrap()
        };
        let (first_made, second_made) = (AtomicBool::new(false), AtomicBool::new(false));
        let (first, second) = (run(&first_made), run(&second_made));
        assert!(first_made.into_inner() && !second_made.into_inner());
        assert_eq!((first.bytes, first.meta), (second.bytes.clone(), second.meta.clone()));
        let picture = second.get(299);
        assert_eq!((picture.rgb[0], picture.people[0], picture.faces[15]), (43, 1, 2));
        assert_eq!(picture.meta.caption, "picture 299");
    }

    #[test]
    fn mirrored_planes_are_mirrored() {
        let rgb: Vec<u8> = (0..12).collect();
        let (mut plain, mut mirrored) = (vec![0.0; 12], vec![0.0; 12]);
        planes(&rgb, 2, false, &mut plain);
        planes(&rgb, 2, true, &mut mirrored);
        assert_eq!(plain[0], -1.0);
        assert_eq!(
            (plain[0], plain[1], plain[2], plain[3]),
            (mirrored[1], mirrored[0], mirrored[3], mirrored[2])
        );
    }
}
