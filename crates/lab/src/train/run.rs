//! The loop that every stage shares.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};

use super::Backend;
use super::checkpoint::{self, Progress};
use super::optim::{AdamW, AdamWConfig};
use super::plot;
use super::rng::Rng;
use crate::read_back::read_scalar;
use facestudio::error::{Error, Result};

/// The batch and the rate that suit a stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// Samples of a batch.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
}

/// How long and how a run trains.
#[derive(Debug, Clone)]
pub struct Options {
    /// Checkpoints, the loss curve and sample sheets go here.
    pub folder: PathBuf,
    /// Where to compute.
    pub backend: Backend,
    /// Samples of a batch. The stage's objective makes them; the loop counts them for its report.
    pub batch: usize,
    /// Batches of a step, whose gradients are averaged: as one batch of so many times the samples, in the memory of one.
    pub accumulate: u32,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps over which the rate rises linearly from 0.
    pub warmup: u64,
    /// Stop after this many steps, all sessions together.
    pub steps: Option<u64>,
    /// Stop after this many minutes, all sessions together.
    pub minutes: Option<f64>,
    /// Go on from the folder's checkpoint, if there is one.
    pub resume: bool,
    /// Decides every random number of the run.
    pub seed: u64,
    /// AdamW's settings.
    pub optimizer: AdamWConfig,
    /// Time between checkpoints.
    pub checkpoint_every: Duration,
    /// Time between sample sheets.
    pub show_every: Duration,
    /// Set from outside to stop after the step in progress, with a checkpoint.
    pub stop: Arc<AtomicBool>,
}

impl Options {
    /// Whether the run goes on from a checkpoint.
    pub fn goes_on(&self) -> bool {
        self.resume && ["checkpoint", "checkpoint.old"].iter().any(|name| self.folder.join(name).exists())
    }

    /// The device, recording gradients; the seed decides what random weights it gives.
    pub fn device(&self) -> Result<Device> {
        let device = self.backend.device()?;
        device.seed(self.seed);
        Ok(device)
    }

    /// A run in `folder` with a stage's batch and rate, and what is alike in all of them.
    pub fn new(folder: impl Into<PathBuf>, Defaults { batch, lr }: Defaults) -> Self {
        Self {
            folder: folder.into(),
            backend: Backend::Cpu,
            batch,
            accumulate: 1,
            lr,
            warmup: 100,
            steps: None,
            minutes: None,
            resume: false,
            seed: 0,
            optimizer: AdamWConfig::default(),
            checkpoint_every: Duration::from_secs(120),
            show_every: Duration::from_secs(120),
            stop: Arc::default(),
        }
    }

    /// Fraction of the planned run that is done, in [0, 1].
    fn progress(&self, step: u64, elapsed: f64) -> f64 {
        let by_steps = self.steps.map_or(0.0, |steps| step as f64 / steps.max(1) as f64);
        let by_time = self.minutes.map_or(0.0, |minutes| elapsed / (60.0 * minutes).max(1e-9));
        by_steps.max(by_time).min(1.0)
    }

    /// Linear warm-up, the peak, and in the end a cool-down to a hundredth of it that falls like one minus a root (Hägele et al. 2024,
    /// arXiv 2405.18392, section 3: as good as a cosine, and a run's length need not be known before it cools down).
    fn rate(&self, step: u64, progress: f64) -> f64 {
        let warm = ((step + 1) as f64 / (self.warmup + 1) as f64).min(1.0);
        let cooled = ((progress - COOLS_FROM) / (1.0 - COOLS_FROM)).max(0.0);
        self.lr * warm * (0.01 + 0.99 * (1.0 - cooled.sqrt()))
    }
}

/// The step in progress.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Counts from 0.
    pub number: u64,
    /// Fraction of the planned run that is done, in [0, 1].
    pub progress: f64,
    /// Which of the step's batches this is.
    batch: u32,
    seed: u64,
}

impl Step {
    /// The random numbers of the step's batch.
    pub fn rng(&self) -> Rng {
        // No run has 2^40 steps.
        Rng::new(self.seed, self.number | u64::from(self.batch) << 40)
    }
}

/// A line of the run's log.
#[derive(Debug, Clone)]
pub struct Report {
    /// Steps done.
    pub step: u64,
    /// Fraction of the run that is done, in [0, 1].
    pub progress: f64,
    /// Moving average of the loss.
    pub loss: f32,
    /// Norm of the last gradient, before clipping.
    pub grad_norm: f32,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Samples a second of this session.
    pub samples_per_second: f64,
    /// Estimated seconds left.
    pub seconds_left: f64,
    /// What the stage measured, where it showed samples.
    pub note: Option<String>,
}

/// What a run tells of itself as it goes.
#[derive(Debug, Clone)]
pub enum Event {
    /// Something worth a line.
    Note(String),
    /// So many pictures of so many have been rendered, decoded or encoded.
    Prepared(usize, usize),
    /// A step was done.
    Step(Report),
}

/// A run that came to its end or was stopped.
pub struct Finished<M> {
    /// The module with averaged weights, recording no gradients.
    pub averaged: M,
    /// Steps done.
    pub steps: u64,
    /// False if it was stopped from outside before its plan was done.
    pub completed: bool,
}

/// Share of a run at the peak rate; the rest is the cool-down.
const COOLS_FROM: f64 = 0.7;
/// Decay of the reported loss.
const LOSS_DECAY: f32 = 0.98;
/// The loss curve is thinned to half when it has this many points.
const CURVE_POINTS: usize = 2000;

/// Trains `model` on `objective`, the mean loss of one step's batch (f32, `[1]`).
///
/// `show` gets the averaged weights from time to time and at the end, may write sample sheets into the folder, and
/// returns a line for the log. `log` hears of every step.
pub fn train<M: Module>(
    options: &Options,
    model: M,
    mut objective: impl FnMut(&M, &Step) -> Result<Tensor<1>>,
    show: impl FnMut(&M, &Path) -> Result<String>,
    log: &mut dyn FnMut(Event),
) -> Result<Finished<M>> {
    let objective = |model: &M, step: &Step, gather: Gather| {
        let loss = objective(model, step)?;
        gather(loss.backward())?;
        Ok(loss)
    };
    train_in_parts(options, model, objective, show, log)
}

/// Takes gradients of a batch's loss, of all parameters or of some; what it gets of a step is added up.
pub type Gather<'a> = &'a mut dyn FnMut(Gradients) -> Result<()>;

/// As [`train`], on an objective that hands over its loss's gradients itself.
pub fn train_in_parts<M: Module>(
    options: &Options,
    model: M,
    mut objective: impl FnMut(&M, &Step, Gather) -> Result<Tensor<1>>,
    mut show: impl FnMut(&M, &Path) -> Result<String>,
    log: &mut dyn FnMut(Event),
) -> Result<Finished<M>> {
    if options.steps.is_none() && options.minutes.is_none() {
        return Err(Error::input(
            "no-end",
            "the run has no end",
            "give --steps, --minutes or both (the first to be reached ends it)",
        ));
    }
    std::fs::create_dir_all(&options.folder).map_err(|e| Error::io(options.folder.display(), &e))?;
    let mut model = model;
    // Random weights are drawn when they are first looked at: here, in the order of their names and not in that of their use, so
    // that a run that is stopped before its first step draws the same ones as one that goes on.
    model.visit(&mut Draw);
    let mut optimizer = AdamW::new(options.optimizer);
    let mut state = Progress { seed: options.seed, ..Progress::default() };
    if options.goes_on() {
        (model, state) = checkpoint::load(&options.folder, model, &mut optimizer)?;
    }

    let samples = options.batch as f64 * f64::from(options.accumulate);
    let before = state.elapsed;
    let start = Instant::now();
    let first_step = state.step;
    let (mut last_checkpoint, mut last_show) = (Instant::now(), Instant::now());
    let mut loss_average = state.losses.last().map(|(_, loss)| *loss);
    let mut completed = true;
    loop {
        state.elapsed = before + start.elapsed().as_secs_f64();
        let progress = options.progress(state.step, state.elapsed);
        if progress >= 1.0 {
            break;
        }
        if options.stop.load(Ordering::Relaxed) {
            completed = false;
            break;
        }
        let mut loss = 0.0;
        for batch in 0..options.accumulate {
            let step = Step { number: state.step, progress, batch, seed: state.seed };
            let one = objective(&model, &step, &mut |gradients| optimizer.gather(&model, gradients))?;
            loss += read_scalar(one, "the loss")? / options.accumulate as f32;
        }
        let lr = options.rate(state.step, progress);
        let grad_norm;
        (model, grad_norm) = optimizer.step(model, options.accumulate, lr);
        state.step += 1;
        if loss.is_finite() {
            // Early on a plain mean, so that the start does not linger.
            let keep = LOSS_DECAY.min((state.step - 1) as f32 / state.step as f32);
            let average = loss_average.map_or(loss, |average| keep * average + (1.0 - keep) * loss);
            loss_average = Some(average);
            record(&mut state, average);
        }

        let note = if last_show.elapsed() >= options.show_every {
            let note = show(&optimizer.averaged(&model), &options.folder)?;
            plot::curve(&options.folder.join("loss.svg"), &state.losses)?;
            last_show = Instant::now();
            Some(note)
        } else {
            None
        };
        if last_checkpoint.elapsed() >= options.checkpoint_every {
            checkpoint::save(&options.folder, &model, &optimizer, &state)?;
            last_checkpoint = Instant::now();
        }
        let session = start.elapsed().as_secs_f64();
        let done = options.progress(state.step, before + session);
        log(Event::Step(Report {
            step: state.step,
            progress: done,
            loss: loss_average.unwrap_or(f32::NAN),
            grad_norm,
            lr,
            samples_per_second: (state.step - first_step) as f64 * samples / session,
            seconds_left: (before + session) * (1.0 - done) / done.max(1e-9),
            note,
        }));
    }
    checkpoint::save(&options.folder, &model, &optimizer, &state)?;
    let averaged = optimizer.averaged(&model);
    checkpoint::write(&options.folder.join("ema.safetensors"), &averaged)?;
    log(Event::Note(show(&averaged, &options.folder)?));
    plot::curve(&options.folder.join("loss.svg"), &state.losses)?;
    Ok(Finished { averaged, steps: state.step, completed })
}

/// Looks at each parameter.
struct Draw;

impl ModuleVisitor for Draw {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let _ = param.val();
    }
}

/// Adds a point to the loss curve; the curve keeps a spacing at which it stays within its size.
fn record(state: &mut Progress, loss: f32) {
    let spacing = match state.losses.as_slice() {
        [.., a, b] => b.0 - a.0,
        _ => 1,
    };
    if state.losses.last().is_none_or(|(step, _)| state.step >= step + spacing) {
        state.losses.push((state.step, loss));
    }
    if state.losses.len() >= CURVE_POINTS {
        let mut odd = false;
        state.losses.retain(|_| {
            odd = !odd;
            !odd
        });
    }
}

#[cfg(test)]
mod tests;
