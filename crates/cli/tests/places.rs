//! What flags of the built program name: files that are none, places that cannot be written, names that are strange.

#[path = "../../../tests/support/tiny_model.rs"]
mod tiny_model;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use facestudio::image::codec;
use facestudio::weights::{Quantization, Tensors, encode, write_folder};
use serde_json::json;

/// Most time that a run of these tests may take; it hangs where it takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder, and the program run in it.
struct Place(tempfile::TempDir);

struct Run {
    status: i32,
    said: String,
    complained: String,
}

impl Place {
    /// With a model in `model`, which takes the bright spot of `ann.png` for a face.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        write_folder(&place.at("model"), |new| {
            tiny_model::files().0.iter().try_for_each(|(path, bytes)| new.write(path, bytes))
        })
        .unwrap();
        place.picture("ann.png");
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn picture(&self, name: &str) {
        let bright = |x: u32, y: u32| x.abs_diff(32).max(y.abs_diff(32)) < 9;
        let colour = |x, y| if bright(x, y) { [255, 210, 180] } else { [10, 12, 20] };
        let picture = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb(colour(x, y)));
        fs::write(self.at(name), codec::encode_png(&picture, &[]).unwrap()).unwrap();
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Run {
        // Into files: a pipe that is not read would fill.
        let (out, err) = (self.at(".out"), self.at(".err"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_facestudio"))
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("{arguments:?} hangs");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let text = |path| fs::read_to_string(path).unwrap();
        Run { status: status.code().unwrap_or(-1), said: text(out), complained: text(err) }
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], status: i32, code: &str) -> String {
        let run = self.run(arguments);
        assert_eq!(run.status, status, "{arguments:?}: {}", run.complained);
        assert!(run.complained.contains(&format!("[{code}]")), "{arguments:?}: {}", run.complained);
        run.complained
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let run = self.run(arguments);
        assert_eq!(run.status, 0, "{arguments:?}: {}", run.complained);
        run.said
    }

    /// Writes a file of jobs and runs it.
    fn jobs(&self, lines: &[serde_json::Value]) -> Run {
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        fs::write(self.at("jobs.jsonl"), lines.join("\n")).unwrap();
        self.run(&["generate", "--model", "model", "--jobs", "jobs.jsonl"])
    }
}

fn job(out: &str) -> serde_json::Value {
    json!({ "face": "ann.png", "prompt": "a man", "steps": 1, "out": out })
}

fn is_picture(path: &Path) -> bool {
    codec::decode(&fs::read(path).unwrap()).is_ok()
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_neither_waited_for_nor_replaced() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let place = Place::new();
    assert!(Command::new("mkfifo").arg(place.at("pipe")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(place.at("socket")).unwrap();
    fs::create_dir(place.at("folder")).unwrap();
    symlink("/dev/null", place.at("null.png")).unwrap();
    symlink("/dev/zero", place.at("zero")).unwrap();

    for input in ["pipe", "socket", "zero", "folder"] {
        place.fails(&["watermark", "detect", input], 2, "not-a-file");
        place.fails(&["faces", "--model", "model", input], 2, "not-a-file");
        let generate = ["generate", "--model", "model", "--prompt", "a man", "--out", "x.png"];
        for flag in ["--face", "--person", "--style", "--init", "--content"] {
            place.fails(&[&generate[..], &[flag, input]].concat(), 2, "not-a-file");
        }
        place.fails(&[&generate[..], &["--init", "ann.png", "--mask", input]].concat(), 2, "not-a-file");
        place.fails(&["generate", "--model", "model", "--jobs", input], 2, "not-a-file");
        let component = ["component", "unet", "--model", "model/unet", "--output", "x.safetensors"];
        place.fails(&[&component[..], &["--inputs", input]].concat(), 2, "not-a-file");
        if input != "folder" {
            place.fails(&["inspect", input], 2, "not-a-file");
            for flag in ["--base", "--unet", "--face-encoder"] {
                place.fails(&["convert", flag, input, "--out", "new"], 2, "not-a-file");
            }
        }
    }

    for output in ["pipe", "socket", "folder"] {
        place.fails(&["watermark", "embed", "ann.png", "--out", output], 2, "not-a-file");
        place.fails(&["synth", "--sheet", "--count", "1", "--size", "16", "--out", output], 2, "not-a-file");
        let generate = ["generate", "--model", "model", "--prompt", "a man", "--steps", "1"];
        place.fails(&[&generate[..], &["--out", output]].concat(), 2, "not-a-file");
    }
    let kind = |name| fs::symlink_metadata(place.at(name)).unwrap().file_type();
    assert!(kind("pipe").is_fifo() && kind("socket").is_socket() && kind("folder").is_dir());

    // A device takes what is written; a link stays, and what it leads to is replaced.
    place.succeeds(&["watermark", "embed", "ann.png", "--out", "null.png"]);
    assert!(kind("null.png").is_symlink());
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    fs::write(place.at("old.png"), "old").unwrap();
    symlink("old.png", place.at("link.png")).unwrap();
    place.succeeds(&["watermark", "embed", "ann.png", "--out", "link.png"]);
    assert!(kind("link.png").is_symlink() && is_picture(&place.at("old.png")));
}

#[test]
fn a_place_that_cannot_be_written_is_told_before_the_work() {
    let place = Place::new();
    // The work itself would fail otherwise.
    fs::remove_file(place.at("model/unet/diffusion_pytorch_model.safetensors"))
        .or_else(|_| fs::remove_file(place.at("model/unet/model.safetensors")))
        .unwrap();
    let generate = ["generate", "--model", "model", "--prompt", "a man", "--out"];
    let component = ["component", "unet", "--model", "model/unet", "--inputs", "none", "--output"];
    let denoise = ["denoise", "--model", "model", "--inputs", "none", "--output"];
    let sheet = ["synth", "--sheet", "--count", "400", "--size", "1024", "--out"];
    let embed = ["watermark", "embed", "none.png", "--out"];
    for arguments in [&generate[..], &component, &denoise, &sheet, &embed] {
        let said = place.fails(&[arguments, &["missing/x.png"]].concat(), 5, "io");
        assert!(said.contains("missing") && said.contains("make this folder first"), "{said}");
        place.fails(&[arguments, &["ann.png/x.png"]].concat(), 5, "io");
    }
    let convert = ["convert", "--unet", "none", "--out"];
    let quantize = ["quantize", "--model", "model", "--dtype", "q8", "--out"];
    let eval = ["eval", "--model", "model", "--encoder", "none", "--out"];
    let synth = ["synth", "--count", "1", "--out"];
    for arguments in [&convert[..], &quantize, &eval, &synth] {
        let said = place.fails(&[arguments, &["ann.png/x"]].concat(), 5, "io");
        assert!(said.contains("ann.png"), "{said}");
    }
    assert!(!place.at("missing").exists());
    let run = place.jobs(&[job("a.png"), job("missing/b.png")]);
    assert_eq!(run.status, 5, "{}", run.complained);
    assert!(run.complained.contains("line 2") && run.complained.contains("make this folder first"));
    assert!(!place.at("a.png").exists());
}

#[test]
fn a_model_that_is_not_there_comes_with_what_to_do() {
    let place = Place::new();
    for arguments in [
        &["generate", "--model", "none", "--prompt", "a man"][..],
        &["faces", "--model", "none", "ann.png"],
        &["generate", "--model", "ann.png", "--prompt", "a man"],
        &["quantize", "--model", "none", "--dtype", "q8", "--out", "new"],
        &["component", "unet", "--model", "none", "--inputs", "i", "--output", "o"],
        &["denoise", "--model", "none", "--inputs", "i", "--output", "o"],
        &["eval", "--model", "none", "--encoder", "e", "--out", "new"],
    ] {
        let said = place.fails(arguments, 5, "io");
        assert!(said.contains("--model") && said.contains("facestudio presets"), "{said}");
    }
}

#[test]
fn two_jobs_never_write_one_file() {
    let place = Place::new();
    fs::create_dir(place.at("sub")).unwrap();
    let absolute = place.at("a.png").to_str().unwrap().to_owned();
    for other in ["./a.png", "sub/../a.png", ".//a.png", &absolute] {
        let run = place.jobs(&[job("a.png"), job(other)]);
        assert_eq!(run.status, 2, "{other}: {}", run.complained);
        assert!(run.complained.contains("[job-format]") && run.complained.contains("line 1"), "{other}");
        assert!(!place.at("a.png").exists());
    }
    let mut several = job("a.png");
    several["count"] = 2.into();
    assert_eq!(place.jobs(&[several, job("./a-001.png")]).status, 2);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("sub", place.at("link")).unwrap();
        assert_eq!(place.jobs(&[job("sub/a.png"), job("link/a.png")]).status, 2);
        fs::write(place.at("b.png"), "").unwrap();
        std::os::unix::fs::symlink("b.png", place.at("c.png")).unwrap();
        assert_eq!(place.jobs(&[job("b.png"), job("c.png")]).status, 2);
        // Two names of one file are two files once they are written.
        fs::hard_link(place.at("b.png"), place.at("d.png")).unwrap();
        assert_eq!(place.jobs(&[job("b.png"), job("d.png")]).status, 0);
        assert!(is_picture(&place.at("b.png")) && is_picture(&place.at("d.png")));
    }
    // On most disks these are two files; where they are one, the second job fails.
    let run = place.jobs(&[job("e.png"), job("E.png")]);
    let two = fs::read_dir(place.0.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().eq_ignore_ascii_case("e.png"));
    assert_eq!(run.status == 0, two.count() == 2, "{}", run.complained);
}

#[test]
fn what_is_no_whole_picture_does_not_count_as_made() {
    let place = Place::new();
    place.picture("whole.png");
    let whole = fs::read(place.at("whole.png")).unwrap();
    fs::write(place.at("text.png"), "garbage").unwrap();
    fs::write(place.at("empty.png"), "").unwrap();
    fs::write(place.at("cut.png"), &whole[..whole.len() / 2]).unwrap();
    let names = ["whole.png", "text.png", "empty.png", "cut.png"];
    let run = place.jobs(&names.map(job));
    assert_eq!(run.status, 0, "{}", run.complained);
    assert_eq!(run.said.lines().collect::<Vec<_>>(), names[1..]);
    assert!(names.iter().all(|name| is_picture(&place.at(name))));
    assert_eq!(fs::read(place.at("whole.png")).unwrap(), whole);
    assert_eq!(place.jobs(&names.map(job)).said, "");
}

#[test]
fn numbers_without_bounds_are_refused() {
    let place = Place::new();
    for count in [json!(1_000_000_000_000_u64), json!(1e12), json!(u64::MAX), json!(65), json!(0)] {
        let mut job = job("a.png");
        job["count"] = count;
        let run = place.jobs(&[job]);
        assert!(run.status == 2 && run.complained.contains("[job-format]"), "{}", run.complained);
    }
    let generate = ["generate", "--model", "model", "--prompt", "a man"];
    let most = "1000000000000";
    for (flag, code) in [("--count", "count-range"), ("--steps", "steps-range")] {
        place.fails(&[&generate[..], &[flag, most]].concat(), 2, code);
    }
    place.fails(&[&generate[..], &["--size", "1000000000000x64"]].concat(), 2, "size-range");
    for arguments in [
        &["synth", "--out", "new", "--count", most][..],
        &["train", "vae", "--out", "new", "--batch", most],
        &["train", "vae", "--out", "new", "--pictures", most],
        &["train", "diffusion", "--out", "new", "--n-tokens", most],
        &["eval", "--model", "model", "--encoder", "e", "--out", "new", "--trials", most],
        &["watermark", "rates", "--marked", most],
        &["component", "unet", "--model", "m", "--inputs", "i", "--output", "o", "--repeat", most],
    ] {
        let run = place.run(arguments);
        assert!(
            run.status == 2 && run.complained.contains("at most") || run.complained.contains(".."),
            "{}",
            run.complained
        );
    }
}

#[test]
fn a_file_of_jobs_may_begin_with_a_byte_order_mark() {
    let place = Place::new();
    fs::write(place.at("jobs"), format!("\u{FEFF}{}\r\n{}\r\n", job("a.png"), job("b.png"))).unwrap();
    place.succeeds(&["generate", "--model", "model", "--jobs", "jobs"]);
    assert!(is_picture(&place.at("a.png")) && is_picture(&place.at("b.png")));
    let utf_16: Vec<u8> = job("a.png").to_string().encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(place.at("jobs"), [&[0xFF, 0xFE], &utf_16[..]].concat()).unwrap();
    place.fails(&["generate", "--model", "model", "--jobs", "jobs"], 2, "text-encoding");
}

/// As editors on Windows save it. A manifest says so, or there is none.
#[test]
fn a_models_json_may_begin_with_a_byte_order_mark() {
    let place = Place::new();
    let mark = |path: &str| {
        let json = fs::read(place.at(path)).unwrap();
        fs::write(place.at(path), [&b"\xEF\xBB\xBF"[..], &json].concat()).unwrap();
    };
    mark("model/manifest.json");
    place.succeeds(&["inspect", "model"]);
    fs::remove_file(place.at("model/manifest.json")).unwrap();
    ["unet", "vae", "text_encoder"].iter().for_each(|part| mark(&format!("model/{part}/config.json")));
    mark("model/scheduler/scheduler_config.json");
    place.succeeds(&["generate", "--model", "model", "--prompt", "a man", "--steps", "1", "--out", "x.png"]);
}

#[test]
fn separators_may_stand_in_the_names_of_photos() {
    let place = Place::new();
    for name in ["me+you.png", "a,b.png", "at 12:30.png", "c+d,e:0.5"] {
        place.picture(name);
        let generate =
            ["generate", "--model", "model", "--prompt", "a man", "--steps", "1", "--out", "x.png"];
        for with in [name.to_owned(), format!("{name}:0.7")] {
            place.succeeds(&[&generate[..], &["--face", &with]].concat());
            place.succeeds(&[&generate[..], &["--person", &format!("ann.png+{with},ann.png:0.2")]].concat());
        }
    }
}

/// What a stranger has put into a file, or called it, moves no cursor and turns no line around.
#[test]
fn a_terminal_obeys_no_stranger() {
    let place = Place::new();
    let hostile = "a\u{1b}]0;x\u{7}\u{1b}[2J\u{9b}31m\r\n  license MIT\u{8}\u{7f}\u{202e}gnp\u{2066}";
    let is_tame = |text: &str| {
        !text.chars().any(|c| {
            c.is_control() && c != '\n'
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}')
        })
    };
    let picture = image::RgbImage::new(4, 4);
    let png = codec::encode_png(&picture, &[("a", hostile), ("k\u{1b}\u{9b}", "v")]).unwrap();
    fs::write(place.at("a.png"), png).unwrap();
    let mut tensors = Tensors::default();
    tensors.0.insert(hostile.to_owned(), (vec![1], vec![0.0]));
    let metadata = [(hostile.to_owned(), hostile.to_owned())].into();
    fs::write(place.at("t"), encode(&tensors, Quantization::None, &metadata).unwrap()).unwrap();
    fs::remove_file(place.at("model/manifest.json")).unwrap();
    let config = place.at("model/unet/config.json");
    let mut unet: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    unet["_class_name"] = hostile.into();
    unet["stranger"] = hostile.into();
    fs::write(&config, unet.to_string()).unwrap();
    fs::copy(place.at("ann.png"), place.at("x\u{1b}[2J.png")).unwrap();

    for path in ["a.png", "t", "model", "model/unet", "x\u{1b}[2J.png"] {
        let said = place.succeeds(&["inspect", path]);
        assert!(is_tame(&said), "{said:?}");
        assert!(!said.lines().any(|line| line == "  license MIT"), "{said}");
        let json = place.succeeds(&["inspect", "--json", path]);
        assert!(is_tame(&json), "{json:?}");
        let report: serde_json::Value = serde_json::from_str(&json).unwrap();
        if path == "a.png" {
            assert_eq!(report["components"][0]["metadata"]["a"], hostile);
        }
    }
    for arguments in [
        &["faces", "--model", "model", "x\u{1b}[2J.png"][..],
        &["watermark", "detect", "x\u{1b}[2J.png"],
        &["watermark", "detect", "--json", "x\u{1b}[2J.png"],
        &["watermark", "detect", "none\u{1b}[2J\n  help: run rm -rf.png"],
        &["inspect", "none\u{9b}2J"],
        &["component", "unet", "--model", "model/unet", "--inputs", "t", "--output", "o"],
        &["generate", "--model", "model", "--prompt", "a man", "--out", "y\u{1b}[2J.png", "--steps", "1"],
        &["generate", "--model", "none\u{1b}[2J", "--prompt", "a man"],
        &["generate", "--\u{1b}[2J"],
        &["quantize", "--model", "model", "--dtype", "\u{1b}[2J", "--out", "new"],
    ] {
        let run = place.run(arguments);
        assert!(
            is_tame(&run.said) && is_tame(&run.complained),
            "{arguments:?}: {:?}{:?}",
            run.said,
            run.complained
        );
        assert!(!run.complained.contains("\n  help: run rm"), "{}", run.complained);
    }
    fs::write(place.at("jobs"), format!("{{\"out\": \"a.png\", \"{}\": 1}}", "\u{9b}2J\u{202e}")).unwrap();
    let run = place.run(&["generate", "--model", "model", "--jobs", "jobs"]);
    assert!(is_tame(&run.complained), "{:?}", run.complained);
}
