//! The list of samplers exists once: page, types and documentation are held against [`Sampler::ALL`].

use std::path::Path;

use facestudio::sampling::Sampler;

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)).unwrap()
}

/// What stands between two marks.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let from = text.find(start).unwrap_or_else(|| panic!("{start} is not there")) + start.len();
    &text[from..from + text[from..].find(end).unwrap()]
}

#[test]
fn the_page_and_its_types_have_every_sampler_of_the_models_that_it_opens() {
    let rows: String = Sampler::of_diffusion()
        .map(|sampler| format!("  {}: \"{}\",\n", sampler.name(), sampler.label()))
        .collect();
    let protocol = text("web/engine/protocol.js");
    assert_eq!(between(&protocol, "export const SAMPLERS = /** @type {const} */ ({\n", "});"), rows);
}

#[test]
fn the_documentation_has_every_sampler() {
    let rows: String = Sampler::ALL
        .iter()
        .map(|sampler| {
            let made_for = match sampler.distilled_for() {
                Some((steps, scale)) => format!("distilled ones: {steps} steps, guidance scale {scale}"),
                None if sampler.is_of_flow_matching() => "flow matching".to_owned(),
                None => "any model of diffusion".to_owned(),
            };
            let [name, label, class] = [sampler.name(), sampler.label(), sampler.scheduler_class()];
            let (evaluations, source) = (sampler.evaluations(25), sampler.source());
            format!("| `{name}` | {label} | `{class}` | {evaluations} | {made_for} | {source} |\n")
        })
        .collect();
    assert_eq!(
        between(&text("docs/samplers.md"), "|---|---|---|---|---|---|\n", "\n\n").to_owned() + "\n",
        rows
    );
}

#[test]
fn the_command_line_has_every_sampler() {
    for command in ["generate", "convert"] {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_facestudio"));
        let help = program.args([command, "--help"]).output().unwrap().stdout;
        let help = String::from_utf8(help).unwrap();
        for sampler in Sampler::ALL {
            let row = format!("- {}:", sampler.name().replace('_', "-"));
            let row = help.lines().find(|line| line.trim().starts_with(&row));
            let row = row.unwrap_or_else(|| panic!("{command} --help lacks {sampler}"));
            assert!(row.ends_with(sampler.label()), "{row}");
        }
    }
}
