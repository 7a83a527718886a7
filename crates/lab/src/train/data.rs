//! Pictures to train on, rendered or from a folder of photographs: made once, kept in a file, and read where it lies.
//!
//! Rendering as it trains would take one of two cores from the training; a cache of some thousand pictures, each
//! seen again under other noise, costs minutes once and serves every stage. The file is mapped, so that what does not fit into
//! memory (FFHQ at 512 pixels is 92 GB) is the system's to bring and to drop.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Device, Tensor, TensorData};
use memmap2::Mmap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::private;
use super::rng::Rng;
use super::run::Event;
use crate::read_back::read_back;
use facestudio::error::{Error, Result};
use facestudio::image::preprocess::{to_byte, to_signed};

/// A person in a picture, in pixels from its upper left corner.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// Left, top, right, bottom of the face.
    pub face_box: [f32; 4],
    /// Eyes, nose tip, mouth corners; the picture's left one first.
    pub landmarks: [[f32; 2]; 5],
}

/// How many of `len` pictures are trained on: all but `held_out`, to measure on, or an eighth where that is less. The last ones are
/// held out.
///
/// Fails with `no-pictures` where that leaves none.
pub fn trained(len: usize, held_out: usize) -> Result<usize> {
    match len - held_out.min(len.div_ceil(8)) {
        0 => {
            let message = format!("{len} pictures are too few to train on");
            Err(Error::input("no-pictures", message, "render or give more pictures"))
        }
        trained => Ok(trained),
    }
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

/// Many pictures of one size, in a file.
#[derive(Debug)]
pub struct Pictures {
    name: String,
    size: usize,
    bytes: Mmap,
    meta: Vec<Meta>,
}

/// A square part of a picture, perhaps mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Side in pixels.
    pub side: usize,
    /// Left and right are exchanged.
    pub mirrored: bool,
}

impl View {
    /// All of a picture.
    pub fn whole(size: usize) -> Self {
        Self { top: 0, left: 0, side: size, mirrored: false }
    }

    /// A part of `side` pixels, or all where the picture is smaller, anywhere in it, mirrored in half of the cases.
    pub fn draw(size: usize, side: usize, rng: &mut Rng) -> Self {
        let side = side.min(size);
        let [top, left] = [0; 2].map(|_: usize| rng.below(size - side + 1));
        Self { top, left, side, mirrored: rng.chance(0.5) }
    }
}

/// Colour and two maps.
const PLANES: usize = 5;
/// Most pictures, and most bytes of them, that are made between two looks at the stop flag and held until they are written.
const CHUNK: [usize; 2] = [256, 1 << 26];

impl Pictures {
    /// Makes `count` pictures with `make` on all cores, or finds them in `cache` if they were made before. What was made
    /// before this was stopped or failed is kept, and gone on from.
    ///
    /// `name` must say all that decides the pictures. `log` hears how far it is.
    pub fn cached(
        cache: &Path,
        name: &str,
        size: usize,
        count: usize,
        make: impl Fn(usize) -> Result<OwnedPicture> + Sync,
        stop: &AtomicBool,
        log: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        let name = format!("{name}-{size}px-{count}");
        let [bin, jsonl] = ["bin", "jsonl"].map(|ending| cache.join(format!("{name}.{ending}")));
        private::folder(cache)?;
        // The cache counts as complete once this is there.
        if !jsonl.exists() {
            let mut partial = Partial::open(&bin, &jsonl, size * size * PLANES)?;
            while partial.len < count {
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::cancelled());
                }
                let at_once = (CHUNK[1] / (size * size * PLANES).max(1)).clamp(1, CHUNK[0]);
                let next = partial.len..count.min(partial.len + at_once);
                partial.add(next.into_par_iter().map(&make).collect::<Result<Vec<_>>>()?)?;
                log(Event::Prepared(partial.len, count));
            }
            partial.finish()?;
        }
        Self::read(name, &bin, &jsonl, size)
    }

    /// Says all that decides the pictures.
    pub fn name(&self) -> &str {
        &self.name
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

    /// Pictures `indices` as `[n, 3, size, size]` in [-1, 1].
    pub fn tensor(&self, indices: &[usize], device: &Device) -> Tensor<4> {
        self.views(indices, &vec![View::whole(self.size); indices.len()], device)
    }

    /// A view of each of pictures `indices`, all of one side, as `[n, 3, side, side]` in [-1, 1].
    pub fn views(&self, indices: &[usize], views: &[View], device: &Device) -> Tensor<4> {
        let n = indices.len();
        let side = views.first().map_or(self.size, |view| view.side);
        let mut values = vec![0.0; n * 3 * side * side];
        values
            .par_chunks_mut(3 * side * side)
            .zip(indices.par_iter().zip(views))
            .for_each(|(out, (i, view))| planes(self.get(*i).rgb, self.size, *view, out));
        Tensor::from_data(TensorData::new(values, [n, 3, side, side]), device)
    }

    /// `count` indices drawn from the first `below` pictures.
    pub fn draw(&self, rng: &mut Rng, count: usize, below: usize) -> Vec<usize> {
        (0..count).map(|_| rng.below(below.min(self.len()))).collect()
    }

    #[allow(unsafe_code)] // the memory map
    fn read(name: String, bin: &Path, jsonl: &Path, size: usize) -> Result<Self> {
        let text = std::fs::read_to_string(jsonl).map_err(|e| Error::io(jsonl.display(), &e))?;
        let damaged = |path: &Path, what: String| {
            Error::input(
                "cache",
                format!("{}: {what}", path.display()),
                format!("delete {}; the pictures will be made again", jsonl.display()),
            )
        };
        let meta = text
            .lines()
            .map(|line| serde_json::from_str(line).map_err(|e| damaged(jsonl, e.to_string())))
            .collect::<Result<Vec<Meta>>>()?;
        let file = File::open(bin).map_err(|e| Error::io(bin.display(), &e))?;
        // SAFETY: nothing of this program writes to a finished cache; it is replaced by renaming only.
        let bytes = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(bin.display(), &e))?;
        if bytes.len() != meta.len() * size * size * PLANES {
            return Err(damaged(bin, format!("{} bytes for {} pictures", bytes.len(), meta.len())));
        }
        Ok(Self { name, size, bytes, meta })
    }

    /// These pictures, in a file that nobody else sees.
    #[cfg(test)]
    pub fn of(size: usize, pictures: &[OwnedPicture]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let make = |i: usize| Ok(pictures[i].clone());
        Self::cached(folder.path(), "of", size, pictures.len(), make, &AtomicBool::new(false), &mut |_| ())
            .unwrap()
    }
}

/// A cache that is being made: pictures in one file, and a line about each in another that follows it.
struct Partial {
    /// Each with its path so far, and the one that it gets in the end.
    bin: (File, PathBuf, PathBuf),
    jsonl: (File, PathBuf, PathBuf),
    /// Bytes of a picture.
    stride: usize,
    /// Pictures that are in both.
    len: usize,
}

impl Partial {
    /// What an earlier run left of it, or an empty one. Fails where another run makes it at this moment.
    fn open(bin: &Path, jsonl: &Path, stride: usize) -> Result<Self> {
        let file = |path: &Path| {
            let mut partial = path.as_os_str().to_owned();
            partial.push(".partial");
            let partial = PathBuf::from(partial);
            let opened = File::options().read(true).write(true).create(true).truncate(false).open(&partial);
            opened
                .and_then(|file| private::file(&file).map(|()| (file, partial.clone(), path.to_owned())))
                .map_err(|e| Error::io(partial.display(), &e))
        };
        let (mut bin, mut jsonl) = (file(bin)?, file(jsonl)?);
        jsonl.0.try_lock().map_err(|_| {
            let message = format!("another run is making {}", bin.2.display());
            Error::input("cache-busy", message, "wait for it, or name another folder with --runs")
        })?;
        let mut kept = || {
            let mut lines = String::new();
            jsonl.0.read_to_string(&mut lines)?;
            // A line or a picture that was cut short is made again.
            let whole = bin.0.metadata()?.len() as usize / stride.max(1);
            let ends = lines.match_indices('\n').map(|(at, _)| at + 1).take(whole).collect::<Vec<_>>();
            jsonl.0.set_len(ends.last().copied().unwrap_or(0) as u64)?;
            bin.0.set_len((ends.len() * stride) as u64)?;
            jsonl.0.seek(SeekFrom::End(0))?;
            bin.0.seek(SeekFrom::End(0))?;
            Ok(ends.len())
        };
        let len = kept().map_err(|e| Error::io(jsonl.1.display(), &e))?;
        Ok(Self { bin, jsonl, stride, len })
    }

    fn add(&mut self, pictures: Vec<OwnedPicture>) -> Result<()> {
        let (mut bytes, mut lines) = (Vec::with_capacity(pictures.len() * self.stride), Vec::new());
        for OwnedPicture { rgb, people, faces, meta } in &pictures {
            if [rgb.len(), people.len(), faces.len()] != [3, 1, 1].map(|planes| planes * self.stride / PLANES)
            {
                return Err(Error::internal("picture-size", "a picture's planes are of another size"));
            }
            [rgb, people, faces].into_iter().for_each(|plane| bytes.extend_from_slice(plane));
            serde_json::to_writer(&mut lines, meta)
                .map_err(|e| Error::io(self.jsonl.1.display(), &e.into()))?;
            lines.push(b'\n');
        }
        self.bin.0.write_all(&bytes).map_err(|e| Error::io(self.bin.1.display(), &e))?;
        self.jsonl.0.write_all(&lines).map_err(|e| Error::io(self.jsonl.1.display(), &e))?;
        self.len += pictures.len();
        Ok(())
    }

    /// Gives both their names, the one that says that the cache is complete last.
    fn finish(self) -> Result<()> {
        for (file, partial, path) in [self.bin, self.jsonl] {
            file.sync_all()
                .and_then(|()| std::fs::rename(partial, &path))
                .map_err(|e| Error::io(path.display(), &e))?;
        }
        Ok(())
    }
}

/// A view of interleaved bytes, `size × size`, to three planes in [-1, 1].
pub fn planes(rgb: &[u8], size: usize, view: View, out: &mut [f32]) {
    let area = view.side * view.side;
    for (y, row) in rgb.chunks_exact(size * 3).skip(view.top).take(view.side).enumerate() {
        for (x, pixel) in row.chunks_exact(3).skip(view.left).take(view.side).enumerate() {
            let p = y * view.side + if view.mirrored { view.side - 1 - x } else { x };
            for (c, value) in pixel.iter().enumerate() {
                out[c * area + p] = to_signed(f32::from(*value));
            }
        }
    }
}

/// `[n, 3, h, w]` in [-1, 1] to pictures.
pub fn pictures_of(tensor: Tensor<4>) -> Result<Vec<image::RgbImage>> {
    let [n, _, h, w] = tensor.dims();
    let values = read_back(tensor, "pictures")?;
    let area = h * w;
    Ok((0..n)
        .map(|i| {
            image::RgbImage::from_fn(w as u32, h as u32, |x, y| {
                let p = i * 3 * area + y as usize * w + x as usize;
                image::Rgb([0, 1, 2].map(|c| to_byte(values[p + c * area])))
            })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn make(i: usize) -> Result<OwnedPicture> {
        let meta = Meta { caption: format!("picture {i}"), identity: i as u64, ..Meta::default() };
        Ok(OwnedPicture { rgb: vec![i as u8; 4 * 4 * 3], people: vec![1; 16], faces: vec![2; 16], meta })
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
        assert_eq!((&first.bytes[..], &first.meta), (&second.bytes[..], &second.meta));
        let picture = second.get(299);
        assert_eq!((picture.rgb[0], picture.people[0], picture.faces[15]), (43, 1, 2));
        assert_eq!(picture.meta.caption, "picture 299");
    }

    #[test]
    fn what_was_made_before_a_stop_is_kept_and_a_second_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (stop, made) = (AtomicBool::new(false), AtomicUsize::new(0));
        let run = |log: &mut dyn FnMut(Event)| {
            let make = |i| {
                made.fetch_add(1, Ordering::Relaxed);
                make(i)
            };
            Pictures::cached(folder.path(), "test", 4, 700, make, &stop, log)
        };
        let mut busy = None;
        let stopped = run(&mut |_| {
            busy.get_or_insert_with(|| run(&mut |_| ()).unwrap_err().code);
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!((stopped.unwrap_err().code, busy), ("cancelled", Some("cache-busy")));
        assert_eq!(made.load(Ordering::Relaxed), 256);
        // A machine that went down while it wrote.
        let lines = folder.path().join("test-4px-700.jsonl.partial");
        let text = std::fs::read_to_string(&lines).unwrap();
        std::fs::write(&lines, &text[..text.len() - 3]).unwrap();
        stop.store(false, Ordering::Relaxed);
        let pictures = run(&mut |_| ()).unwrap();
        assert_eq!(made.load(Ordering::Relaxed), 701);
        for i in [0, 254, 255, 256, 699] {
            let picture = pictures.get(i);
            assert_eq!((picture.rgb[47], picture.meta.identity), (i as u8, i as u64));
        }
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(
            names.collect::<BTreeSet<_>>(),
            ["test-4px-700.bin", "test-4px-700.jsonl"].map(Into::into).into()
        );
    }

    #[cfg(unix)]
    #[test]
    fn pictures_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        std::fs::create_dir(&cache).unwrap();
        Pictures::cached(&cache, "x", 4, 3, make, &AtomicBool::new(false), &mut |_| ()).unwrap();
        assert_eq!(private::mode(&cache), 0o700);
        for entry in std::fs::read_dir(&cache).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(private::mode(&path), 0o600, "{}", path.display());
        }
    }

    #[test]
    fn mirrored_planes_are_mirrored() {
        let rgb: Vec<u8> = (0..12).collect();
        let (mut plain, mut mirrored, mut part) = (vec![0.0; 12], vec![0.0; 12], vec![0.0; 3]);
        planes(&rgb, 2, View::whole(2), &mut plain);
        planes(&rgb, 2, View { mirrored: true, ..View::whole(2) }, &mut mirrored);
        planes(&rgb, 2, View { top: 1, left: 0, side: 1, mirrored: true }, &mut part);
        assert_eq!(part, [2, 6, 10].map(|p| plain[p]));
        assert_eq!(plain[0], -1.0);
        assert_eq!(
            (plain[0], plain[1], plain[2], plain[3]),
            (mirrored[1], mirrored[0], mirrored[3], mirrored[2])
        );
    }

    #[test]
    fn a_view_is_anywhere_in_its_picture_and_mirrored_in_half_of_the_cases() {
        let mut rng = Rng::new(5, 5);
        let views: Vec<View> = (0..2000).map(|_| View::draw(10, 7, &mut rng)).collect();
        for at in [|view: &View| view.top, |view: &View| view.left] {
            let mut seen = [0; 4];
            views.iter().for_each(|view| seen[at(view)] += 1);
            assert!(seen.iter().all(|count| (400..600).contains(count)), "{seen:?}");
        }
        assert!(views.iter().all(|view| view.side == 7));
        let mirrored = views.iter().filter(|view| view.mirrored).count();
        assert!((900..1100).contains(&mirrored), "{mirrored}");
        let whole = View::draw(5, 7, &mut rng);
        assert_eq!((whole.top, whole.left, whole.side), (0, 0, 5));
    }

    #[test]
    fn an_eighth_at_most_is_kept_from_training() {
        assert_eq!(
            [trained(1000, 64), trained(512, 64), trained(511, 64)].map(Result::unwrap),
            [936, 448, 447]
        );
        assert_eq!([trained(9, 64), trained(2, 64)].map(Result::unwrap), [7, 1]);
        assert_eq!(
            [trained(0, 64), trained(1, 64)].map(|result| result.unwrap_err().code),
            ["no-pictures"; 2]
        );
    }

    #[test]
    fn tensors_become_the_pictures_that_they_were() {
        let values: Vec<f32> = (0..2 * 3 * 2 * 3).map(|i| ((i * 7) % 36) as f32 / 18.0 - 1.0).collect();
        let tensor = Tensor::<4>::from_data(TensorData::new(values.clone(), [2, 3, 2, 3]), &Device::flex());
        let pictures = pictures_of(tensor).unwrap();
        assert_eq!(pictures.len(), 2);
        for (i, picture) in pictures.iter().enumerate() {
            assert_eq!(picture.dimensions(), (3, 2));
            for (x, y, pixel) in picture.enumerate_pixels() {
                let expected = [0, 1, 2].map(|c| values[((i * 3 + c) * 2 + y as usize) * 3 + x as usize]);
                assert_eq!(pixel.0, expected.map(|v| ((v + 1.0) * 127.5).round() as u8));
            }
        }
    }
}
