//! The list of experiments, and the run of those that are asked for: draw what is missing, measure, report.

use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::drawing::Drawing;
use super::lab::{Lab, Models};
use super::options::EvalOptions;
use super::report::{self, Report};
use super::section::Section;
use super::store::Store;
use super::tuner::Tuner;
use super::{
    alpha, attributes, baselines, creatures, diversity, frechet, image_to_image, mixing, non_human,
    precision, several, steps, style_swap, styles, table_1, views, words,
};
use crate::train::Backend;
use facestudio::encoders::face::FaceEncoder;
use facestudio::error::{Error, Result};
use facestudio::weights::{Component, Files, sha256, write_file};

/// One question to a model.
pub struct Experiment {
    /// As `--experiments` names it.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// The pictures that it needs.
    plan: fn(&EvalOptions) -> Vec<Drawing>,
    /// The answer, as `results/NAME.json` keeps it; every picture of the plan is there.
    measure: fn(&Lab) -> Result<serde_json::Value>,
    /// The template that says it in words.
    words: &'static str,
}

macro_rules! experiments {
    ($(($name:literal, $title:literal, $module:ident)),* $(,)?) => {
        /// Every experiment, in the order of the report.
        pub const EXPERIMENTS: &[Experiment] = &[$(
            Experiment {
                name: $name,
                title: $title,
                plan: $module::plan,
                measure: |lab| json($module::measure(lab)?),
                words: include_str!(concat!("templates/", $name, ".txt")),
            }
        ),*];
    };
}

fn json(figures: impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(figures).map_err(|e| Error::internal("json", e.to_string()))
}

experiments![
    ("table-1", "Identity from one photo and from eleven", table_1),
    ("baselines", "Against tuning: Textual Inversion and DreamBooth", baselines),
    ("style-swap", "Whose face: the photo's or the style image's?", style_swap),
    ("styles", "Eight styles", styles),
    ("alpha", "From prompt to style image", alpha),
    ("mixing", "Two people mixed into one", mixing),
    ("views", "From the side", views),
    ("several", "Several people in one picture", several),
    ("image-to-image", "From picture to picture", image_to_image),
    ("attributes", "What words ask for", attributes),
    ("non-human", "Pictures without people", non_human),
    ("creatures", "Animals in the place of people", creatures),
    ("diversity", "Other seeds, other pictures", diversity),
    ("frechet", "Distance to renders", frechet),
    ("steps", "Steps against quality", steps),
    ("precision", "Fewer bits", precision),
];

/// The experiment that needs a second model.
const PRECISION: &str = "precision";
/// The experiments that prompts decide.
const BY_WORDS: [&str; 6] = [BASELINES, "alpha", "attributes", "non-human", "diversity", "frechet"];
/// The experiment that takes hours.
const BASELINES: &str = "baselines";
/// The experiment of animals, which few models know.
const CREATURES: &str = "creatures";
/// The experiments that are run where they are named.
const NAMED: [&str; 2] = [BASELINES, CREATURES];

/// A folder with the name that reports call it by.
pub struct Named<'a> {
    /// For people.
    pub name: String,
    /// The files.
    pub files: &'a dyn Files,
}

impl Named<'_> {
    /// The name and a digest of the files.
    fn digested(&self) -> Result<(String, String)> {
        Ok((self.name.clone(), digest(self.files)?))
    }
}

/// What is evaluated, by what, and where the results go.
pub struct Evaluation<'a> {
    /// The model folder.
    pub model: Named<'a>,
    /// A model folder to compare with.
    pub against: Option<Named<'a>>,
    /// A model folder whose CLIP judges, in place of the model's own: for models that are compared with each other.
    pub clip: Option<Named<'a>>,
    /// The identity encoder's folder.
    pub encoder: Named<'a>,
    /// Whether that encoder is the one that conditions the model, and so judges itself.
    pub encoder_conditions: bool,
    /// What is asked.
    pub options: EvalOptions,
    /// Names of experiments; if empty, all that can be run but `baselines`, which tunes a model for every person, and `creatures`.
    pub experiments: Vec<String>,
    /// Where models are tuned.
    pub tuning: Backend,
    /// Draw every `N`th picture from the `I`th on, and measure nothing.
    pub shard: Option<(usize, usize)>,
    /// The folder of pictures, results and report.
    pub out: &'a Path,
}

/// What an evaluation is doing.
#[derive(Debug, Clone, Copy)]
pub enum EvalEvent<'a> {
    /// So many of so many pictures are drawn.
    Drawing(usize, usize),
    /// A copy of the model is being tuned: so many steps of so many are done.
    Tuning(usize, usize),
    /// This experiment is being measured.
    Measuring(&'a str),
}

/// What decides an experiment's result, beside this program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// This program's version.
    pub version: String,
    /// The model's name.
    pub model: String,
    /// A digest of its files.
    pub model_digest: String,
    /// The encoder's name.
    pub encoder: String,
    /// A digest of its files.
    pub encoder_digest: String,
    /// Whether the encoder conditions the model that it measures.
    pub encoder_conditions: bool,
    /// Name and digest of the model that is compared with.
    pub against: Option<(String, String)>,
    /// Name and digest of the model whose CLIP judges, where it is not the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<(String, String)>,
    /// What was asked.
    pub options: EvalOptions,
}

/// An experiment's result on disk.
#[derive(Serialize, Deserialize)]
struct Finished {
    run: Run,
    figures: serde_json::Value,
}

/// A digest of the files in a folder's folders (a model) or of its own files (a component); what only tells people about
/// them, or lists them, does not count.
fn digest(files: &dyn Files) -> Result<String> {
    let mut parts = Vec::new();
    for folder in files.folders("")? {
        for name in files.list(&folder)? {
            let path = format!("{folder}/{name}");
            parts.push(format!("{path} {}", sha256(&files.read(&path)?)));
        }
    }
    if parts.is_empty() {
        for name in files.list("")? {
            parts.push(format!("{name} {}", sha256(&files.read(&name)?)));
        }
    }
    Ok(sha256(parts.join("\n").as_bytes())[..16].to_owned())
}

impl Evaluation<'_> {
    /// The experiments that are asked for, in the report's order.
    fn selected(&self) -> Result<Vec<&'static Experiment>> {
        for name in &self.experiments {
            if !EXPERIMENTS.iter().any(|experiment| experiment.name == name) {
                let names: Vec<&str> = EXPERIMENTS.iter().map(|experiment| experiment.name).collect();
                return Err(Error::input(
                    "experiment-unknown",
                    format!("there is no experiment '{name}'"),
                    format!("use some of {}", names.join(", ")),
                ));
            }
            if name == PRECISION && self.against.is_none() {
                return Err(Error::input(
                    "against-missing",
                    format!("'{name}' compares two models, and there is only one"),
                    "name the other with --against",
                ));
            }
            if self.options.images_only && BY_WORDS.contains(&name.as_str()) {
                return Err(Error::input(
                    "experiment-words",
                    format!("'{name}' asks for pictures by prompts"),
                    "leave it out, or --images-only",
                ));
            }
        }
        let wanted = |experiment: &&Experiment| match self.experiments.is_empty() {
            true => {
                !NAMED.contains(&experiment.name)
                    && (experiment.name != PRECISION || self.against.is_some())
                    && !(self.options.images_only && BY_WORDS.contains(&experiment.name))
            }
            false => self.experiments.iter().any(|name| name == experiment.name),
        };
        Ok(EXPERIMENTS.iter().filter(wanted).collect())
    }

    /// Draws, measures and reports. Pictures and results that are there already, of the same model, encoder and options,
    /// are kept. A shard only draws: there is no report then.
    ///
    /// `stop` is asked after every step of every picture; a run that was stopped goes on where it was.
    pub fn run(
        &self,
        device: &Device,
        watch: &mut dyn FnMut(EvalEvent),
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Report>> {
        if self.options.tuning_steps == Some(0) {
            return Err(Error::input("steps-range", "tuning takes at least one step", "leave it out"));
        }
        if self.options.trials < 2 {
            return Err(Error::input(
                "trials-range",
                "people are compared with each other",
                "use at least 2 trials",
            ));
        }
        let selected = self.selected()?;
        let against = self.against.as_ref();
        let run = Run {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: self.model.name.clone(),
            model_digest: digest(self.model.files)?,
            encoder: self.encoder.name.clone(),
            encoder_digest: digest(self.encoder.files)?,
            encoder_conditions: self.encoder_conditions,
            against: against.map(Named::digested).transpose()?,
            clip: self.clip.as_ref().map(Named::digested).transpose()?,
            options: self.options.clone(),
        };
        let digest = run.against.as_ref().map(|(_, digest)| digest.clone()).unwrap_or_default();
        let store = Store::open(&self.out.join("pictures"), [run.model_digest.clone(), digest])?;
        let encoder = FaceEncoder::load(&Component::new(self.encoder.files, ""), device)?;
        let models = Models {
            own: self.model.files,
            against: against.map(|named| named.files),
            clip: self.clip.as_ref().map_or(self.model.files, |named| named.files),
        };
        let lab = Lab::new(&models, encoder, store, self.options.clone(), device)?;

        self.draw(&lab, &selected, device, watch, stop)?;
        if self.shard.is_some() {
            return Ok(None);
        }
        let results = self.out.join("results");
        std::fs::create_dir_all(&results).map_err(|e| Error::io(results.display(), &e))?;
        for experiment in &selected {
            if stop() {
                return Err(Error::cancelled());
            }
            let run = of_experiment(&run, experiment);
            if finished(&results, experiment, &run).is_none() {
                watch(EvalEvent::Measuring(experiment.title));
                let figures = (experiment.measure)(&lab).map_err(|e| e.context(experiment.name))?;
                let json = serde_json::to_vec(&Finished { run, figures });
                let json = json.map_err(|e| Error::internal("json", e.to_string()))?;
                write_file(&results.join(format!("{}.json", experiment.name)), &json)?;
            }
        }
        // What earlier runs have measured of the same model belongs to the report as well.
        let finished = EXPERIMENTS.iter().filter_map(|experiment| {
            Some((experiment, finished(&results, experiment, &of_experiment(&run, experiment))?))
        });
        let sections = finished
            .map(|(experiment, figures)| {
                Ok((experiment, words::section(experiment.name, experiment.words, &figures)?))
            })
            .collect::<Result<Vec<(&'static Experiment, Section)>>>()?;
        report::write(self.out, &run, &sections, &lab).map(Some)
    }

    /// Draws the pictures of all plans that are missing, each once.
    fn draw(
        &self,
        lab: &Lab,
        selected: &[&'static Experiment],
        device: &Device,
        watch: &mut dyn FnMut(EvalEvent),
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut planned: Vec<Drawing> = Vec::new();
        for drawing in selected.iter().flat_map(|experiment| (experiment.plan)(&self.options)) {
            if !planned.contains(&drawing) {
                planned.push(drawing);
            }
        }
        let (index, count) = self.shard.unwrap_or((0, 1));
        // One copy's pictures are one machine's.
        let together = planned.chunk_by(|a, b| a.tuned.is_some() && a.tuned == b.tuned);
        let share: Vec<&Drawing> = together.skip(index).step_by(count).flatten().collect();
        let mut tuner = Tuner::new(self.model.files, self.tuning, device);
        for (done, drawing) in share.iter().enumerate() {
            watch(EvalEvent::Drawing(done, share.len()));
            if lab.has(drawing)? {
                continue;
            }
            match &drawing.tuned {
                Some(tuned) => tuner.draw(lab, drawing, tuned, watch, stop)?,
                None => lab.draw(drawing, stop)?,
            }
        }
        watch(EvalEvent::Drawing(share.len(), share.len()));
        Ok(())
    }
}

/// Only [`PRECISION`] depends on the other model, and only [`BASELINES`] on how long copies are tuned.
fn of_experiment(run: &Run, experiment: &Experiment) -> Run {
    let against = run.against.clone().filter(|_| experiment.name == PRECISION);
    let tuning_steps = run.options.tuning_steps.filter(|_| experiment.name == BASELINES);
    Run { against, options: EvalOptions { tuning_steps, ..run.options.clone() }, ..run.clone() }
}

/// An experiment's result, where it is there and of this run.
fn finished(results: &Path, experiment: &Experiment, run: &Run) -> Option<serde_json::Value> {
    let bytes = std::fs::read(results.join(format!("{}.json", experiment.name))).ok()?;
    let finished: Finished = serde_json::from_slice(&bytes).ok()?;
    (finished.run == *run).then_some(finished.figures)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use facestudio::weights::MemoryFiles;

    #[test]
    fn what_takes_hours_is_run_only_where_it_is_named() {
        let files = MemoryFiles::default();
        let named = || Named { name: String::new(), files: &files };
        let of = |experiments: &[&str]| Evaluation {
            model: named(),
            against: None,
            clip: None,
            encoder: named(),
            encoder_conditions: false,
            options: EvalOptions::default(),
            experiments: experiments.iter().map(|name| (*name).to_owned()).collect(),
            tuning: Backend::Cpu,
            shard: None,
            out: Path::new(""),
        };
        let names = |evaluation: Evaluation| -> Vec<&str> {
            evaluation.selected().unwrap().iter().map(|experiment| experiment.name).collect()
        };
        let usual = names(of(&[]));
        assert!(usual.contains(&"table-1") && !usual.contains(&PRECISION));
        assert!(NAMED.iter().all(|name| !usual.contains(name)));
        assert_eq!(names(of(&[BASELINES])), [BASELINES]);

        let images = |experiments| Evaluation {
            options: EvalOptions { images_only: true, ..EvalOptions::default() },
            ..of(experiments)
        };
        let usual = names(images(&[]));
        assert!(usual.contains(&"table-1") && BY_WORDS.iter().all(|name| !usual.contains(name)));
        assert_eq!(images(&["alpha"]).selected().err().unwrap().code, "experiment-words");
        let options = images(&[]).options;
        let planned: Vec<Drawing> = EXPERIMENTS
            .iter()
            .filter(|experiment| usual.contains(&experiment.name))
            .flat_map(|experiment| (experiment.plan)(&options))
            .collect();
        assert!(planned.iter().all(|drawing| drawing.prompt.is_empty()), "nothing is asked for by words");
    }

    #[test]
    fn experiments_have_names_of_their_own_and_share_pictures() {
        let names: BTreeSet<&str> = EXPERIMENTS.iter().map(|experiment| experiment.name).collect();
        assert_eq!(names.len(), EXPERIMENTS.len());
        let options = EvalOptions { trials: 8, ..EvalOptions::default() };
        let mut all: Vec<Drawing> = Vec::new();
        let mut planned = 0;
        let usual = EXPERIMENTS.iter().filter(|experiment| !NAMED.contains(&experiment.name));
        for drawing in usual.flat_map(|experiment| (experiment.plan)(&options)) {
            planned += 1;
            if !all.contains(&drawing) {
                all.push(drawing);
            }
        }
        // Less than three quarters: what experiments have in common is drawn once.
        assert!(4 * all.len() < 3 * planned, "{} of {planned}", all.len());
    }
}
