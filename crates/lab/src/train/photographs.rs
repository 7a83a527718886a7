//! Folders of photographs to train on: `metadata.jsonl`, or FFHQ as it is distributed.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::UNIX_EPOCH;

use serde::Deserialize;

use super::data::{Meta, OwnedPicture, Person, Pictures};
use super::run::Event;
use facestudio::error::{Error, Result};
use facestudio::image::codec;
use facestudio::weights::{MAX_TEXT, open_file, read_file, read_text, sha256};

/// The list of FFHQ's pictures (Karras et al. 2019, arXiv 1812.04948; github.com/NVlabs/ffhq-dataset).
const FFHQ: &str = "ffhq-dataset-v2.json";
/// Changes when the same photographs no longer give the same pictures: older caches are then left alone.
const VERSION: u32 = 2;
/// Side of its large pictures, where the list does not say.
const FFHQ_SIDE: f32 = 1024.0;

/// A line of a photograph folder's `metadata.jsonl`.
#[derive(Debug, Deserialize)]
struct Photograph {
    file_name: PathBuf,
    #[serde(default)]
    text: String,
    #[serde(default)]
    people: Vec<Person>,
    #[serde(default)]
    identity: u64,
    /// Width of the picture that boxes and landmarks are told for; by default the picture's own.
    #[serde(skip)]
    width: Option<f32>,
}

/// An entry of FFHQ's list; what else it says is not needed.
#[derive(Deserialize)]
struct FfhqEntry {
    image: FfhqImage,
    thumbnail: Option<FfhqFile>,
}

#[derive(Deserialize)]
struct FfhqImage {
    #[serde(flatten)]
    file: FfhqFile,
    /// dlib's 68 points.
    face_landmarks: Vec<[f32; 2]>,
}

#[derive(Deserialize)]
struct FfhqFile {
    file_path: PathBuf,
    pixel_size: Option<[f32; 2]>,
}

/// Reads a folder of photographs, each cut to its middle square and scaled to `size`: one with `metadata.jsonl`
/// (`file_name`, and where known `text`, `identity` and `people` with `face_box` and `landmarks` in pixels; what `facestudio
/// synth` writes is such a folder), or FFHQ with its `ffhq-dataset-v2.json` and its 1024 or 128 pixel pictures, of which
/// some may be missing.
///
/// Without segmentation at hand a face's map is the ellipse in its box, and a person's the same ellipse.
///
/// They are decoded once, into a file in `cache`; changed photographs are other pictures.
pub fn photographs(
    folder: &Path,
    cache: &Path,
    size: usize,
    stop: &AtomicBool,
    log: &mut dyn FnMut(Event),
) -> Result<Pictures> {
    let path = folder.join("metadata.jsonl");
    let (path, rows) = match path.exists() || !folder.join(FFHQ).exists() {
        true => (path.clone(), listed(&path)?),
        false => (folder.join(FFHQ), ffhq(folder, log)?),
    };
    if rows.is_empty() {
        let message = format!("{} lists no picture that is there", path.display());
        return Err(Error::input("no-pictures", message, "check --data"));
    }
    let name = format!("photographs-v{VERSION}-{}", &fingerprint(folder, &path, &rows)?[..16]);
    let make = |i: usize| photograph(folder, &rows[i], size);
    Pictures::cached(cache, &name, size, rows.len(), make, stop, log)
}

/// Changes with the list, and with any file's size or time of change.
fn fingerprint(folder: &Path, list: &Path, rows: &[Photograph]) -> Result<String> {
    let mut known = read_file(list, MAX_TEXT)?;
    for row in rows {
        let path = folder.join(&row.file_name);
        let metadata = std::fs::metadata(&path).map_err(|e| Error::io(path.display(), &e))?;
        let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let changed = changed.map_or(0, |since| since.as_nanos());
        known.extend(format!("{}\0{}\0{changed}\0", row.file_name.display(), metadata.len()).bytes());
    }
    Ok(sha256(&known))
}

fn listed(path: &Path) -> Result<Vec<Photograph>> {
    let text = read_text(path)?;
    let row = |(i, line)| {
        serde_json::from_str(line).map_err(|e| {
            Error::input(
                "metadata",
                format!("{} line {}: {e}", path.display(), i + 1),
                "each line is an object with \"file_name\"",
            )
        })
    };
    text.lines().enumerate().map(row).collect()
}

fn ffhq(folder: &Path, log: &mut dyn FnMut(Event)) -> Result<Vec<Photograph>> {
    let path = folder.join(FFHQ);
    let damaged = |what: String| {
        Error::input(
            "metadata",
            format!("{}: {what}", path.display()),
            "fetch the file again from FFHQ's own place",
        )
    };
    let file = open_file(&path)?;
    let entries: BTreeMap<u64, FfhqEntry> =
        serde_json::from_reader(BufReader::new(file)).map_err(|e| damaged(e.to_string()))?;
    let listed = entries.len();
    let mut rows = Vec::with_capacity(listed);
    for (number, FfhqEntry { image, thumbnail }) in entries {
        let person = person(&image.face_landmarks).ok_or_else(|| {
            damaged(format!("picture {number} has {} landmarks instead of 68", image.face_landmarks.len()))
        })?;
        let width = Some(image.file.pixel_size.map_or(FFHQ_SIDE, |[width, _]| width));
        let files = [Some(image.file), thumbnail].into_iter().flatten().map(|file| file.file_path);
        if let Some(file_name) = files.into_iter().find(|file| folder.join(file).is_file()) {
            // No two pictures are known to show one person.
            let (people, identity) = (vec![person], number + 1);
            rows.push(Photograph { file_name, text: String::new(), people, identity, width });
        }
    }
    log(Event::Note(format!("{} of the {listed} pictures of {FFHQ} are there", rows.len())));
    Ok(rows)
}

/// Box and landmarks of a face from dlib's 68 points (Sagonas et al. 2013: 0–16 the jaw, 17–26 the brows, 30 the tip of the nose,
/// 36–41 and 42–47 the eyes, 48 and 54 the corners of the mouth). dlib counts from the centre of the upper left pixel, hence the
/// `quad + 0.5` in FFHQ's own `download_ffhq.py`.
fn person(points: &[[f32; 2]]) -> Option<Person> {
    let points: &[[f32; 2]; 68] = points.try_into().ok()?;
    let points = points.map(|point| point.map(|v| v + 0.5));
    let mean = |points: &[[f32; 2]]| {
        [0, 1].map(|axis| points.iter().map(|p| p[axis]).sum::<f32>() / points.len() as f32)
    };
    let least = |axis: usize| points.iter().map(|p| p[axis]).fold(f32::INFINITY, f32::min);
    let most = |axis: usize| points.iter().map(|p| p[axis]).fold(f32::NEG_INFINITY, f32::max);
    // From the hairline to the brows is a third of a face (the canon of three sections: Farkas et al. 1985).
    let (brows, chin) = (least(1), most(1));
    let hairline = brows - (chin - brows) / 2.0;
    let landmarks = [mean(&points[36..42]), mean(&points[42..48]), points[30], points[48], points[54]];
    Some(Person { face_box: [least(0), hairline, most(0), chin], landmarks })
}

fn photograph(folder: &Path, row: &Photograph, size: usize) -> Result<OwnedPicture> {
    let path = folder.join(&row.file_name);
    let bytes = read_file(&path, codec::MAX_FILE)?;
    let picture = codec::decode(&bytes).map_err(|e| e.context(path.display()))?;
    let side = picture.width().min(picture.height());
    let (left, top) = ((picture.width() - side) / 2, (picture.height() - side) / 2);
    let square = image::imageops::crop_imm(&picture, left, top, side, side).to_image();
    let scaled =
        image::imageops::resize(&square, size as u32, size as u32, image::imageops::FilterType::Triangle);
    let scale = size as f32 / side.max(1) as f32;
    // FFHQ's landmarks are those of the large pictures, also where only the small ones are there.
    let told = row.width.map_or(1.0, |width| picture.width() as f32 / width);
    let place = |[x, y]: [f32; 2]| [(x * told - left as f32) * scale, (y * told - top as f32) * scale];
    let people: Vec<Person> = row
        .people
        .iter()
        .map(|person| {
            let [x0, y0, x1, y1] = person.face_box;
            let ([x0, y0], [x1, y1]) = (place([x0, y0]), place([x1, y1]));
            Person { face_box: [x0, y0, x1, y1], landmarks: person.landmarks.map(place) }
        })
        .collect();
    let mut faces = vec![0; size * size];
    for (k, person) in people.iter().enumerate() {
        let [x0, y0, x1, y1] = person.face_box;
        for (p, value) in faces.iter_mut().enumerate() {
            let (x, y) = ((p % size) as f32 + 0.5, (p / size) as f32 + 0.5);
            let dx = (2.0 * x - x0 - x1) / (x1 - x0).max(1.0);
            let dy = (2.0 * y - y0 - y1) / (y1 - y0).max(1.0);
            if dx * dx + dy * dy <= 1.0 {
                *value = k as u8 + 1;
            }
        }
    }
    Ok(OwnedPicture {
        rgb: scaled.into_raw(),
        people: faces.clone(),
        faces,
        meta: Meta { caption: row.text.clone(), people, identity: row.identity },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn photographs(folder: &Path, size: usize, log: &mut dyn FnMut(Event)) -> Result<Pictures> {
        super::photographs(folder, &folder.join("cache"), size, &AtomicBool::new(false), log)
    }

    #[test]
    fn a_folder_of_the_renderer_is_a_folder_of_photographs() {
        use facestudio_synth::{Scene, SceneOptions, dataset, render};
        let folder = tempfile::tempdir().unwrap();
        let options =
            SceneOptions { people: [0.0, 0.0, 1.0, 0.0], non_human_fraction: 0.0, ..SceneOptions::default() };
        let scene = Scene::random(1, 4, &options);
        let rendered = render(&scene, 96);
        rendered.image.save(folder.path().join("a.png")).unwrap();
        let line = dataset::record(&scene, &rendered, "a.png", &[]).to_string();
        std::fs::write(folder.path().join("metadata.jsonl"), line).unwrap();
        let mut decoded = 0;
        let read = |decoded: &mut usize| {
            let mut log = |event| *decoded += usize::from(matches!(event, Event::Prepared(..)));
            photographs(folder.path(), 48, &mut log).unwrap()
        };
        let first = read(&mut decoded);
        let read_again = read(&mut decoded);
        assert_eq!((decoded, first.get(0).rgb), (1, read_again.get(0).rgb));
        let black = image::RgbImage::new(96, 96);
        black.save(folder.path().join("a.png")).unwrap();
        let changed = read(&mut decoded);
        assert!(decoded == 2 && changed.get(0).rgb.iter().all(|v| *v == 0));
        let meta = first.get(0).meta;
        assert_eq!(meta.caption, rendered.caption);
        assert_eq!(meta.people.len(), 2);
        for (read, drawn) in meta.people.iter().zip(&rendered.people) {
            assert_eq!(read.face_box, drawn.face_box.map(|v| v / 2.0));
            assert_eq!(read.landmarks, drawn.landmarks.map(|point| point.map(|v| v / 2.0)));
        }
    }

    /// A list as FFHQ's, of which the first picture is there in full, the second as a thumbnail only, and the third not at all.
    #[test]
    fn ffhq_is_read_as_it_is_distributed() {
        let folder = tempfile::tempdir().unwrap();
        let grey = |name: &str, side: u32| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::from_pixel(side, side, image::Rgb([90; 3])).save(path).unwrap();
        };
        grey("images1024x1024/00000/00000.png", 1024);
        grey("thumbnails128x128/00000/00001.png", 128);
        // The jaw from (300, 500) down to (512, 800), brows at 400, eyes at 450.
        let point = |i: usize| match i {
            8 => [512.0, 800.0],
            0..=16 => [300.0 + 26.5 * i as f32, 500.0],
            17..=26 => [400.0 + 25.0 * (i - 17) as f32, 400.0],
            30 => [512.0, 560.0],
            36..=41 => [400.0 + (i - 36) as f32 * 10.0, 450.0],
            42..=47 => [574.0 + (i - 42) as f32 * 10.0, 450.0],
            48 => [440.0, 660.0],
            54 => [584.0, 660.0],
            _ => [512.0, 600.0],
        };
        let points: Vec<[f32; 2]> = (0..68).map(point).collect();
        let entry = |i: usize| {
            serde_json::json!({
                "category": "training",
                "metadata": { "photo_title": "", "license": "Public Domain Mark 1.0" },
                "image": {
                    "file_url": "", "file_path": format!("images1024x1024/00000/{i:05}.png"), "file_size": 1, "file_md5": "",
                    "pixel_size": [1024, 1024], "pixel_md5": "", "face_landmarks": points,
                },
                "thumbnail": { "file_path": format!("thumbnails128x128/00000/{i:05}.png"), "pixel_size": [128, 128] },
                "in_the_wild": { "file_path": "in-the-wild-images/00000/00000.png", "face_rect": [0, 0, 9, 9] },
            })
        };
        let list = |entries: &[(&str, serde_json::Value)]| {
            let list: serde_json::Map<_, _> =
                entries.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
            std::fs::write(folder.path().join(FFHQ), serde_json::Value::from(list).to_string()).unwrap();
        };
        list(&[("0", entry(0)), ("1", entry(1)), ("2", entry(2))]);
        let mut notes = Vec::new();
        let mut log = |event: Event| {
            if let Event::Note(note) = event {
                notes.push(note);
            }
        };
        let pictures = photographs(folder.path(), 64, &mut log).unwrap();
        assert_eq!(notes, ["2 of the 3 pictures of ffhq-dataset-v2.json are there"]);
        assert_eq!(pictures.len(), 2);
        for i in 0..2 {
            let meta = pictures.get(i).meta;
            assert_eq!(meta.identity, i as u64 + 1);
            let wanted = [[425.0, 450.0], [599.0, 450.0], [512.0, 560.0], [440.0, 660.0], [584.0, 660.0]];
            assert_eq!(meta.people[0].landmarks, wanted.map(|p| p.map(|v| (v + 0.5) / 16.0)), "picture {i}");
            assert_eq!(meta.people[0].face_box, [300.5, 200.5, 724.5, 800.5].map(|v| v / 16.0));
            assert!(pictures.get(i).faces[31 * 64 + 32] == 1 && pictures.get(i).faces[0] == 0);
        }

        let mut short = entry(0);
        short["image"]["face_landmarks"] = serde_json::json!([[1, 2]]);
        list(&[("0", short)]);
        let error = photographs(folder.path(), 64, &mut |_| ()).unwrap_err();
        assert!(error.code == "metadata" && error.to_string().contains("68"), "{error}");
        list(&[("7", entry(7))]);
        assert_eq!(photographs(folder.path(), 64, &mut |_| ()).unwrap_err().code, "no-pictures");
    }

    /// A face is the oval in its box, pixel by pixel; one of no height still has the row that it lies in.
    #[test]
    fn a_face_is_the_oval_in_its_box() {
        let folder = tempfile::tempdir().unwrap();
        image::RgbImage::new(12, 12).save(folder.path().join("a.png")).unwrap();
        let marks = [[1.0, 1.0]; 5];
        let people = serde_json::json!([
            { "face_box": [1.0, 0.0, 5.0, 8.0], "landmarks": marks },
            { "face_box": [2.0, 10.0, 10.0, 10.5], "landmarks": marks },
        ]);
        let row = serde_json::json!({ "file_name": "a.png", "people": people }).to_string();
        std::fs::write(folder.path().join("metadata.jsonl"), row).unwrap();
        let pictures = photographs(folder.path(), 12, &mut |_| ()).unwrap();
        let drawn: Vec<String> = pictures
            .get(0)
            .faces
            .chunks(12)
            .map(|row| row.iter().map(|who| [".", "1", "2"][*who as usize]).collect())
            .collect();
        assert_eq!(
            drawn,
            [
                "..11........",
                ".1111.......",
                ".1111.......",
                ".1111.......",
                ".1111.......",
                ".1111.......",
                ".1111.......",
                "..11........",
                "............",
                "............",
                "...222222...",
                "............",
            ]
        );
    }

    /// A wide and a tall photograph, whose colour tells the place: the middle square is cut out, and what is known of it moves along.
    #[test]
    fn an_oblong_photograph_is_cut_to_its_middle_with_its_landmarks() {
        let folder = tempfile::tempdir().unwrap();
        let place = |x: u32, y: u32| image::Rgb([2 * x as u8, 2 * y as u8, 0]);
        image::RgbImage::from_fn(90, 60, place).save(folder.path().join("wide.png")).unwrap();
        image::RgbImage::from_fn(60, 90, place).save(folder.path().join("tall.png")).unwrap();
        let row = |name: &str| {
            let people = serde_json::json!([{
                "face_box": [35.0, 35.0, 55.0, 65.0],
                "landmarks": [[35.0, 45.0], [37.0, 45.0], [36.0, 47.0], [35.0, 49.0], [37.0, 49.0]],
            }]);
            serde_json::json!({ "file_name": name, "people": people }).to_string()
        };
        let list = format!("{}\n{}\n", row("wide.png"), row("tall.png"));
        std::fs::write(folder.path().join("metadata.jsonl"), list).unwrap();
        let pictures = photographs(folder.path(), 30, &mut |_| ()).unwrap();
        for (i, [left, top]) in [[15.0f32, 0.0], [0.0, 15.0]].into_iter().enumerate() {
            let picture = pictures.get(i);
            let person = &picture.meta.people[0];
            let [x0, x1] = [35.0, 55.0].map(|x: f32| (x - left) / 2.0);
            let [y0, y1] = [35.0, 65.0].map(|y: f32| (y - top) / 2.0);
            assert_eq!(person.face_box, [x0, y0, x1, y1]);
            assert_eq!(person.landmarks[2], [(36.0 - left) / 2.0, (47.0 - top) / 2.0]);
            // The middle of a pixel is that of two of the photograph's.
            for (x, y) in [(0, 0), (14, 15), (29, 29)] {
                let pixel = &picture.rgb[3 * (30 * y + x)..][..2];
                let expected = [2.0 * (left + 2.0 * x as f32) + 1.0, 2.0 * (top + 2.0 * y as f32) + 1.0];
                let near = pixel.iter().zip(expected).all(|(found, v)| (f32::from(*found) - v).abs() <= 2.0);
                assert!(near, "{x},{y}: {pixel:?}, not {expected:?}");
            }
        }
    }
}
