//! The paper's baselines on a tiny model with random weights: what tuning changes and what it leaves, and the experiment's way
//! through the report.

#[path = "../../../tests/support/tiny_model.rs"]
mod tiny_model;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

use burn::tensor::Device;
use facestudio::pipeline::FaceStudio;
use facestudio::weights::{Component, Files, MemoryFiles, Overlay, Tensors};
use facestudio_lab::eval::{EvalEvent, EvalOptions, Evaluation, Named};
use facestudio_lab::train::dreambooth::{self, ClassPicture};
use facestudio_lab::train::subject::{Learnt, Subject};
use facestudio_lab::train::{Backend, textual_inversion};
use image::RgbImage;

fn picture(shift: u32) -> RgbImage {
    RgbImage::from_fn(40, 40, |x, y| image::Rgb([(6 * x) as u8, (5 * y + shift) as u8, (x * y) as u8]))
}

fn subject<'a>(files: &'a dyn Files, photos: &'a [RgbImage], steps: usize) -> Subject<'a> {
    Subject { files, photos, class: "woman", steps, seed: 3, backend: Backend::Cpu }
}

fn class() -> Vec<ClassPicture> {
    (0..3).map(|seed| ClassPicture { image: picture(40 + seed as u32), seed }).collect()
}

fn invert(subject: &Subject) -> facestudio::Result<Learnt> {
    textual_inversion::learn(subject, &mut |_| ControlFlow::Continue(()))
}

fn boot(subject: &Subject) -> facestudio::Result<Learnt> {
    dreambooth::learn(subject, &class(), &mut |_| ControlFlow::Continue(()))
}

fn weights(files: &dyn Files, folder: &str) -> Tensors {
    Component::new(files, folder).tensors().unwrap().read_all().unwrap()
}

fn folders(files: &MemoryFiles) -> BTreeSet<String> {
    files.folders("").unwrap().into_iter().collect()
}

fn mean(losses: &[f32]) -> f32 {
    losses.iter().sum::<f32>() / losses.len() as f32
}

#[test]
fn a_learnt_word_is_one_row_of_the_text_encoder() {
    let (files, photos) = (tiny_model::files(), [picture(0), picture(9)]);
    let first = invert(&subject(&files, &photos, 40)).unwrap();
    assert_eq!(first.losses.len(), 40);
    assert_eq!(folders(&first.folders), ["text_encoder".to_owned()].into());

    let (before, after) = (weights(&files, "text_encoder"), weights(&first.folders, "text_encoder"));
    let vocabulary: std::collections::HashMap<String, usize> =
        Component::new(&files, "tokenizer").json("vocab.json").unwrap();
    let token = vocabulary["*</w>"];
    assert_eq!(before.0.len(), after.0.len());
    for (name, (shape, values)) in &before.0 {
        let new = &after.0[name].1;
        if !name.ends_with("token_embedding.weight") {
            assert_eq!(values, new, "{name}");
            continue;
        }
        let rows = values.chunks(shape[1]).zip(new.chunks(shape[1])).enumerate();
        let changed: Vec<usize> = rows.filter(|(_, (old, new))| old != new).map(|(row, _)| row).collect();
        assert_eq!(changed, [token]);
    }

    // The same batches again, from the learnt word on: it tells the denoiser more than the class's.
    let learnt = Overlay { files: &files, over: &first.folders };
    let again = invert(&Subject { class: "*", ..subject(&learnt, &photos, 20) }).unwrap();
    assert!(mean(&again.losses) < mean(&first.losses[..20]), "{:?} {:?}", first.losses, again.losses);
}

#[test]
fn dreambooth_tunes_a_copy_of_unet_and_linear() {
    let (files, photos) = (tiny_model::files(), [picture(0)]);
    let untouched = files.clone();
    let first = boot(&subject(&files, &photos, 40)).unwrap();
    assert_eq!(files.0, untouched.0);
    assert_eq!(folders(&first.folders), ["guidance".to_owned(), "unet".to_owned()].into());
    for folder in ["unet", "guidance"] {
        let (before, after) = (weights(&files, folder), weights(&first.folders, folder));
        assert!(before.0.iter().all(|(name, (shape, _))| after.0[name].0 == *shape), "{folder}");
        assert_ne!(before, after, "{folder}");
    }
    let tuned = Overlay { files: &files, over: &first.folders };
    let again = boot(&subject(&tuned, &photos, 20)).unwrap();
    assert!(mean(&again.losses) < mean(&first.losses[..20]), "{:?} {:?}", first.losses, again.losses);
    FaceStudio::load(&tuned, &Device::flex()).unwrap();

    // The same person, the same weights.
    let second = boot(&subject(&files, &photos, 40)).unwrap();
    assert_eq!(first.losses, second.losses);
}

#[test]
fn what_cannot_be_learnt_is_named() {
    let (files, photos) = (tiny_model::files(), [picture(0)]);
    type Learn = fn(&Subject) -> facestudio::Result<Learnt>;
    for learn in [invert as Learn, boot] {
        let code = |subject: Subject| learn(&subject).err().map(|error| error.code);
        assert_eq!(code(subject(&files, &[], 1)), Some("no-photo"));
        assert_eq!(code(Subject { class: " ", ..subject(&files, &photos, 1) }), Some("class-missing"));
        assert_eq!(code(subject(&files, &photos, 0)), Some("steps-range"));
        let adapters = tiny_model::files_with_adapters(false);
        assert_eq!(code(subject(&adapters, &photos, 1)), Some("component-missing"));
        let mut damaged = files.clone();
        damaged.0.insert("unet/config.json".to_owned(), b"{".to_vec());
        assert_eq!(code(subject(&damaged, &photos, 1)), Some("config"));
    }
    let alone = dreambooth::learn(&subject(&files, &photos, 1), &[], &mut |_| ControlFlow::Continue(()));
    assert_eq!(alone.err().map(|error| error.code), Some("class-missing"));

    let mut wordless = files.clone();
    let vocabulary = String::from_utf8(wordless.0["tokenizer/vocab.json"].clone()).unwrap();
    let vocabulary = vocabulary.replace("\"*</w>\"", "\"another</w>\"");
    wordless.0.insert("tokenizer/vocab.json".to_owned(), vocabulary.into_bytes());
    assert_eq!(invert(&subject(&wordless, &photos, 1)).err().map(|error| error.code), Some("word-token"));

    let stopped = textual_inversion::learn(&subject(&files, &photos, 5), &mut |step| {
        if step == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped.err().map(|error| error.code), Some("cancelled"));
}

#[test]
fn baselines_are_tuned_drawn_and_reported_once() {
    let (files, out) = (tiny_model::files(), tempfile::tempdir().unwrap());
    let encoder = files
        .0
        .iter()
        .filter_map(|(path, bytes)| Some((path.strip_prefix("face_encoder/")?.to_owned(), bytes.clone())));
    let encoder = MemoryFiles(encoder.collect());
    let evaluation = Evaluation {
        model: Named { name: "tiny".to_owned(), files: &files },
        against: None,
        clip: None,
        encoder: Named { name: "face_encoder".to_owned(), files: &encoder },
        encoder_conditions: true,
        options: EvalOptions { trials: 2, steps: 1, tuning_steps: Some(2), ..EvalOptions::default() },
        experiments: vec!["baselines".to_owned()],
        tuning: Backend::Cpu,
        shard: None,
        out: out.path(),
    };
    let device = Device::flex();
    let tuned = Cell::new(0);
    let mut watch =
        |doing: EvalEvent| tuned.set(tuned.get() + usize::from(matches!(doing, EvalEvent::Tuning(..))));

    // Stopped within the first tuning: what was drawn before is kept, nothing of the copy.
    let error = evaluation.run(&device, &mut watch, &|| tuned.get() > 0).err().unwrap();
    assert_eq!((error.code, tuned.get()), ("cancelled", 1));

    // Two people, two methods, one photo and eleven, two steps each.
    tuned.set(0);
    let report = evaluation.run(&device, &mut watch, &|| false).unwrap().unwrap();
    assert_eq!(tuned.get(), 16);
    for key in
        ["similarity-ours-1", "similarity-dreambooth-11", "lead-textual-inversion-1", "tuning-dreambooth-1"]
    {
        assert!(report.figure("baselines", key).is_some(), "{key}");
    }
    let findings = &report.experiments[0];
    assert!(findings.text.last().unwrap().contains("Against DreamBooth, 1 photo: "), "{:?}", findings.text);
    assert_eq!(findings.tables.iter().map(|table| table.rows.len()).collect::<Vec<_>>(), [7, 4]);
    let page = std::fs::read_to_string(out.path().join("index.html")).unwrap();
    assert!(page.contains("Textual Inversion, 11 photos"));

    // Everything is there.
    std::fs::remove_dir_all(out.path().join("results")).unwrap();
    tuned.set(0);
    evaluation.run(&device, &mut watch, &|| false).unwrap().unwrap();
    assert_eq!(tuned.get(), 0);
}
