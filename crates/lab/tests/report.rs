//! Every experiment's way through the report, on a tiny model with random weights: what they measure is nothing, but all of
//! it is there.

#[path = "../../../tests/support/tiny_model.rs"]
mod tiny_model;

use std::collections::BTreeSet;

use burn::tensor::Device;
use facestudio::weights::MemoryFiles;
use facestudio_lab::eval::{EXPERIMENTS, EvalOptions, Evaluation, Named, Target};
use facestudio_lab::train::Backend;

#[test]
fn every_experiment_is_reported() {
    let (files, out) = (tiny_model::files(), tempfile::tempdir().unwrap());
    let encoder = files
        .0
        .iter()
        .filter_map(|(path, bytes)| Some((path.strip_prefix("face_encoder/")?.to_owned(), bytes.clone())));
    let encoder = MemoryFiles(encoder.collect());
    let evaluation = Evaluation {
        model: Named { name: "tiny".to_owned(), files: &files },
        against: Some(Named { name: "tiny again".to_owned(), files: &files }),
        clip: None,
        encoder: Named { name: "face_encoder".to_owned(), files: &encoder },
        encoder_conditions: true,
        options: EvalOptions { trials: 2, steps: 1, ..EvalOptions::default() },
        // `baselines.rs` beside this runs that one.
        experiments: EXPERIMENTS
            .iter()
            .map(|e| e.name.to_owned())
            .filter(|name| name != "baselines")
            .collect(),
        tuning: Backend::Cpu,
        shard: None,
        out: out.path(),
    };
    let report = evaluation.run(&Device::flex(), &mut |_| {}, &|| false).unwrap().unwrap();
    assert_eq!(report.experiments.len(), EXPERIMENTS.len() - 1);
    let page = std::fs::read_to_string(out.path().join("index.html")).unwrap();
    for findings in &report.experiments {
        let name = findings.name;
        assert!(!findings.text.is_empty() && !findings.figures.is_empty(), "{name}");
        let keys: BTreeSet<&str> = findings.figures.iter().map(|figure| figure.key.as_str()).collect();
        assert_eq!(keys.len(), findings.figures.len(), "{name}");
        for table in &findings.tables {
            assert!(
                table.rows.iter().all(|(_, cells)| cells.len() + 1 == table.head.len()),
                "{name} {table:?}"
            );
        }
        assert!(page.contains(&format!("<section id=\"{name}\">")), "{name}");
    }
    let of = |experiment, key| report.figure(experiment, key).unwrap();
    assert_eq!(of("table-1", "image-1").target, Some(Target::AtLeast(0.86)));
    assert_eq!(of("table-1", "nobody").target, Some(Target::AtMost(0.5)));
    assert!(of("attributes", "all").renders.is_some() && of("table-1", "text-11").renders.is_none());
    // Two strips of a plot, and three lines of another.
    let views = page.split("<section id=\"views\">").nth(1).unwrap();
    let views = views.split("</section>").next().unwrap();
    assert_eq!(views.matches("<polyline").count(), 3);
    let swap = page.split("<section id=\"style-swap\">").nth(1).unwrap();
    assert_eq!(swap.split("</section>").next().unwrap().matches("class=\"dot\"").count(), 2);
}
