//! A part of the evaluation on the model that ships, with thresholds.
//!
//! The encoder that conditions nothing does not ship; here the model's own judges, which is partial: this test says that the
//! pictures carry the identity that the model was given and put each person in the right place, not how well.

use std::path::Path;

use burn::tensor::Device;
use facestudio::weights::Folder;
use facestudio_lab::eval::{EvalEvent, EvalOptions, Evaluation, Named, Report};
use facestudio_lab::train::Backend;

struct Model {
    model: Folder,
    encoder: Folder,
}

impl Model {
    fn mini() -> Self {
        let model = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("models/mini");
        Self { encoder: Folder(model.join("face_encoder")), model: Folder(model) }
    }

    fn evaluation<'a>(
        &'a self,
        out: &'a Path,
        experiments: &[&str],
        trials: usize,
        steps: usize,
    ) -> Evaluation<'a> {
        Evaluation {
            model: Named { name: "mini".to_owned(), files: &self.model },
            against: None,
            clip: None,
            encoder: Named { name: "face_encoder".to_owned(), files: &self.encoder },
            encoder_conditions: true,
            options: EvalOptions { trials, steps, ..EvalOptions::default() },
            experiments: experiments.iter().map(|name| (*name).to_owned()).collect(),
            tuning: Backend::Cpu,
            shard: None,
            out,
        }
    }
}

fn value(report: &Report, experiment: &str, key: &str) -> f64 {
    report.figure(experiment, key).unwrap().estimate.value
}

#[test]
fn animals_are_measured_where_they_are_named() {
    let out = tempfile::tempdir().unwrap();
    let mini = Model::mini();
    let evaluation = mini.evaluation(out.path(), &["creatures"], 3, 4);
    let report = evaluation.run(&Device::flex(), &mut |_| {}, &|| false).unwrap().unwrap();
    for key in ["found", "similarity", "nearest", "margin"] {
        let estimate = report.figure("creatures", key).unwrap().estimate;
        assert!(estimate.value.is_finite() && estimate.low <= estimate.high, "{key} {estimate:?}");
    }
    assert_eq!(report.figure("creatures", "found").unwrap().estimate.n, 3);
    let page = std::fs::read_to_string(out.path().join("index.html")).unwrap();
    assert!(page.contains("Animals in the place of people"));
}

#[test]
fn faces_are_the_photos_and_each_person_is_in_place() {
    let out = tempfile::tempdir().unwrap();
    let mini = Model::mini();
    let evaluation = mini.evaluation(out.path(), &["style-swap", "several"], 12, 10);
    let report = evaluation.run(&Device::flex(), &mut |_| {}, &|| false).unwrap().unwrap();
    for experiment in &report.experiments {
        for figure in &experiment.figures {
            println!("{} {} {:?}", experiment.name, figure.key, figure.estimate);
        }
    }
    // Measured: 0.56, 0.06, 12 and 12 of 12; 10 of 12 regions of two, 9 of 18 of three, where chance is 6 and 6.
    assert!(value(&report, "style-swap", "margin") > 0.35);
    assert!(value(&report, "style-swap", "control") < 0.25);
    assert!(value(&report, "style-swap", "wins") > 0.8);
    assert!(value(&report, "style-swap", "closer") > 0.8);
    assert!(value(&report, "several", "regions-2") > 0.6);
    assert!(value(&report, "several", "regions-3") > 0.4);

    let page = std::fs::read_to_string(out.path().join("index.html")).unwrap();
    assert!(page.contains("the one that conditions it") && page.contains("data:image/jpeg;base64,"));
    // Pictures spell anything.
    let page = regex::Regex::new("base64,[^\"]*").unwrap().replace_all(&page, "");
    assert!(!page.contains("NaN") && !page.contains("<script"));
    // It stands alone: the paper's address is the only one.
    assert_eq!(page.matches("http").count(), 1);
}

#[test]
fn a_run_goes_on_where_it_was_and_shares_add_up() {
    let out = tempfile::tempdir().unwrap();
    let mini = Model::mini();
    let device = Device::flex();
    let pictures = || std::fs::read_dir(out.path().join("pictures")).map_or(0, |files| files.count());
    let evaluation = mini.evaluation(out.path(), &["style-swap"], 2, 1);

    // Stopped within the second picture: the first is kept, and nothing else.
    let asked = std::cell::Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        pictures() == 1
    };
    let error = evaluation.run(&device, &mut |_| {}, &stop).err().unwrap();
    assert_eq!((error.code, pictures()), ("cancelled", 1));
    assert!(asked.get() > 1);

    // Two machines' shares: no report yet.
    for shard in [(0, 2), (1, 2)] {
        let share = Evaluation { shard: Some(shard), ..mini.evaluation(out.path(), &["style-swap"], 2, 1) };
        assert!(share.run(&device, &mut |_| {}, &|| false).unwrap().is_none());
        assert!(!out.path().join("report.json").exists());
    }
    assert_eq!(pictures(), 4);
    let made = |out: &Path| -> Vec<_> {
        let files = std::fs::read_dir(out.join("pictures")).unwrap();
        let mut made: Vec<_> = files
            .map(|f| f.unwrap())
            .map(|f| (f.path(), f.metadata().unwrap().modified().unwrap()))
            .collect();
        made.sort();
        made
    };
    let before = made(out.path());

    // Measured once; the second run finds the result, and both leave the pictures alone.
    for expected in [1, 0] {
        let mut measured = 0;
        let mut watch = |doing: EvalEvent| measured += usize::from(matches!(doing, EvalEvent::Measuring(_)));
        let report = evaluation.run(&device, &mut watch, &|| false).unwrap().unwrap();
        assert_eq!(report.experiments.len(), 1);
        assert_eq!(measured, expected);
    }
    assert_eq!(made(out.path()), before);
}

#[test]
fn what_cannot_be_run_is_named() {
    let out = tempfile::tempdir().unwrap();
    let mini = Model::mini();
    for (experiment, trials, code) in [
        ("mxing", 4, "experiment-unknown"),
        ("precision", 4, "against-missing"),
        ("mixing", 1, "trials-range"),
    ] {
        let evaluation = mini.evaluation(out.path(), &[experiment], trials, 1);
        let error = evaluation.run(&Device::flex(), &mut |_| {}, &|| false).err().unwrap();
        assert_eq!(error.code, code);
    }
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
}
