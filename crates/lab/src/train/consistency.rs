//! The consistency stage: a trained UNet is distilled into one that draws in 2 to 4 steps without guidance what the other draws
//! in its many with guidance (latent consistency distillation: Luo et al. 2023, arXiv 2310.04378, algorithm 1).
//!
//! The trained UNet, with classifier-free guidance, says where a noisy picture was a fiftieth of the schedule earlier; the
//! consistency function of both is to be the same. As in consistency training since Song and Dhariwal 2023 (arXiv 2310.14189,
//! section 3.2), the earlier one is the student's own, without gradient, and not that of averaged weights. The guidance scale is
//! the model's own, one for all, so that the student needs no input for it.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, Tensor, TensorData};

use super::batches::{BatchSampler, Drops, TrainingBatch, weighted};
use super::data::trained;
use super::denoiser::{Denoiser, DenoiserConfig};
use super::diffusion::{HELD_OUT, Sheet, check_fits, levels, noised, picture_side};
use super::encoded::{encode_all, fingerprint};
use super::export::export;
use super::run::{Defaults, Event, Step};
use super::{Setup, Source, portraits, run};
use facestudio::condition::{Added, Condition};
use facestudio::error::{Error, Result};
use facestudio::guidance::fusion::FusionConfig;
use facestudio::internal::{TIMESTEP_SCALING, boundary};
use facestudio::pipeline::{self, defaults};
use facestudio::sampling::{Prediction, Sampler, SchedulerConfig};
use facestudio::vae::VaeConfig;
use facestudio::weights::{CheckedFolder, Component, apply};

/// Steps of the solver that the student's are taken from (paper, appendix; diffusers' `num_ddim_timesteps`).
const SOLVER_STEPS: usize = 50;
/// Scale of the pseudo-Huber loss, `√(x² + c²) − c` (diffusers' `examples/consistency_distillation`).
const HUBER: f64 = 1e-3;
/// A share of the picture that is none: the last one of diffusers' schedulers with `rescale_betas_zero_snr` that divide by it.
const NO_SIGNAL: f64 = 1.0 / (1 << 24) as f64;
/// Steps of a sample sheet.
const SHEET_STEPS: usize = 4;

/// The batch and the rate that suit the stage.
pub const DEFAULTS: Defaults = Defaults { batch: 32, lr: 1e-4 };

/// What the stage is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model folder, and how the run goes.
    pub setup: Setup,
    /// What to learn from.
    pub source: Source,
    /// The model folder whose UNet is distilled.
    pub base: PathBuf,
    /// How often a picture is told by less.
    pub drops: Drops,
}

/// Distils the UNet of [`Options::base`], and writes `unet/`, `guidance/` and `scheduler/` of the model folder, whose encoders and
/// autoencoder must be the base's. A `defaults.json` there, which is for the base's many steps, is removed.
///
/// Fails with `base-distilled` where that draws without guidance already, with `base-mismatch`
/// where the folder's encoders are others', and with `config-unsupported` where the schedule cannot be one of few steps.
pub fn train(options: &Options, log: &mut dyn FnMut(Event)) -> Result<()> {
    let Options { setup, source, base, drops } = options;
    let run = &setup.run;
    let base = CheckedFolder::new(base.clone());
    let taught = defaults(&base)?;
    if taught.sampler.distilled_for().is_some() || taught.guidance_scale <= 1.0 {
        let message = format!("{} draws without guidance already", base.path().display());
        return Err(Error::input("base-distilled", message, "name the model that it was distilled from"));
    }
    let own = |folder: &Path| std::fs::canonicalize(folder).ok();
    if own(base.path()).is_some_and(|base| own(&setup.out) == Some(base)) {
        let message = "the model folder is the base: its UNet would be lost";
        return Err(Error::input("base-mismatch", message, "copy the base, and name the copy with --out"));
    }
    if fingerprint(base.path())? != fingerprint(&setup.out)? {
        let message =
            format!("the encoders or the autoencoder of {} are not the base's", setup.out.display());
        return Err(Error::input("base-mismatch", message, "copy the base, and name the copy with --out"));
    }
    let device = run.device()?;
    let dtype = run.backend.dtype();
    let folder = DenoiserConfig::folder_of(&base)?;
    let [denoiser_files, guidance_files, scheduler_files] =
        [folder, "guidance", "scheduler"].map(|folder| Component::new(&base, folder));
    let denoiser_json: serde_json::Value = denoiser_files.json("config.json")?;
    let denoiser_config = DenoiserConfig::read(folder, &denoiser_json)?;
    let fusion_config: FusionConfig = guidance_files.json("config.json")?;
    let vae_config =
        VaeConfig::from_component(&Component::new(&CheckedFolder::new(setup.out.clone()), "vae"))?;
    let scheduler = SchedulerConfig::from_component(&scheduler_files)?;
    let prediction = scheduler.prediction_type.unwrap_or_default();
    let mut scheduler_json: serde_json::Value = scheduler_files.json("scheduler_config.json")?;
    scheduler_json["_class_name"] = Sampler::Lcm.scheduler_class().into();
    scheduler_json["original_inference_steps"] = SOLVER_STEPS.into();
    scheduler_json["timestep_scaling"] = TIMESTEP_SCALING.into();
    let distilled = SchedulerConfig::from_json(scheduler_json.to_string().as_bytes())?;
    let alphas_cumprod = distilled.alphas_cumprod()?;
    let stride = alphas_cumprod.len() / SOLVER_STEPS;
    if stride == 0 {
        return Err(Error::weights(
            "config-unsupported",
            format!("a schedule of {} training steps is too short to be distilled", alphas_cumprod.len()),
            format!("use a base of {SOLVER_STEPS} training steps at least"),
        ));
    }
    // A last step of noise alone has a share of 0 or of 2⁻²⁴ of the picture, by the sampler.
    let differs = |(a, b): (&f64, &f64)| (a - b).abs() > NO_SIGNAL;
    if scheduler.alphas_cumprod()?.iter().zip(&alphas_cumprod).any(differs) {
        return Err(Error::weights(
            "config-unsupported",
            "the noise of the base's training steps is not what LCMScheduler makes of its scheduler_config.json",
            "write num_train_timesteps and the β into it",
        ));
    }
    if prediction == Prediction::Epsilon && alphas_cumprod.last().is_some_and(|share| *share <= NO_SIGNAL) {
        return Err(Error::weights(
            "config-unsupported",
            "prediction_type is epsilon, and the last training step has nothing of the picture",
            "use a base that predicts v_prediction, or one without rescale_betas_zero_snr",
        ));
    }
    let schedule = distilled.schedule(Sampler::Lcm, SHEET_STEPS, None)?;
    let pictures = portraits::portraits(setup, source, picture_side(&denoiser_config, &vae_config)?, log)?;
    let encoded = encode_all(setup, &pictures, log)?;
    check_fits(setup, &denoiser_config, &fusion_config, &encoded)?;
    let trained = trained(encoded.len, HELD_OUT)?;

    let student = denoiser_config.init(&device)?.with(denoiser_files.tensors()?.as_ref())?;
    let teacher = student.clone().no_grad();
    let fusion = apply(fusion_config.init(&device)?, guidance_files.tensors()?.as_ref(), "")?.no_grad();
    log(Event::Note(format!("{} parameters, {trained} pictures", student.num_params())));

    let batches = BatchSampler::new(*drops, &pictures, &encoded, trained)?;
    let n = run.batch;
    let null = fusion.forward(
        Tensor::zeros([n, fusion_config.image_embed_dim], &device),
        Tensor::zeros([n, fusion_config.id_embed_dim], &device),
    );
    let adds_style = student.adds_style();
    let null = Condition::single(null.cast(dtype)).adding(
        adds_style.then(|| Added::ClassLabels(Tensor::zeros([n, fusion_config.image_embed_dim], &device))),
    );
    let run_denoiser = |denoiser: &Denoiser,
                        latents: &Tensor<4>,
                        timesteps: &[usize],
                        condition: &Condition| {
        let timesteps: Vec<f32> = timesteps.iter().map(|t| *t as f32).collect();
        let timesteps = Tensor::<1>::from_floats(timesteps.as_slice(), &device);
        Ok::<_, Error>(denoiser.forward(latents.clone().cast(dtype), timesteps, condition)?.cast(DType::F32))
    };
    let distillation = Distillation {
        prediction,
        guidance_scale: taught.guidance_scale,
        stride,
        alphas_cumprod: &alphas_cumprod,
    };
    let objective = |student: &Denoiser, step: &Step| {
        let mut rng = step.rng();
        let TrainingBatch { latents, condition, weight } =
            batches.draw(n, &fusion, adds_style, dtype, &device, &mut rng)?;
        let timesteps: Vec<usize> = (0..n).map(|_| (1 + rng.below(SOLVER_STEPS)) * stride - 1).collect();
        let noise = rng.normals(latents.shape().num_elements());
        let noise = Tensor::<4>::from_data(TensorData::new(noise, latents.dims()), &device);
        let noised = noised(latents, noise, &timesteps, &alphas_cumprod);
        let still = student.clone().no_grad();
        let ask = |who, latents: &Tensor<4>, timesteps: &[usize]| match who {
            Asked::Unguided => run_denoiser(&teacher, latents, timesteps, &null),
            Asked::Guided => run_denoiser(&teacher, latents, timesteps, &condition),
            Asked::Still => run_denoiser(&still, latents, timesteps, &condition),
            Asked::Student => run_denoiser(student, latents, timesteps, &condition),
        };
        Ok(weighted(distillation.errors(&noised, &timesteps, ask)?, &weight))
    };
    let sheet = Sheet::new(setup, &pictures, &encoded, trained)?;
    let show = |student: &Denoiser, folder: &Path| {
        sheet.draw(student, &fusion, &schedule, 1.0, &folder.join("samples.png"))?;
        Ok("sample sheet written".to_owned())
    };
    let finished = run::train(run, student, objective, show, log)?;

    export(&setup.out, |export| {
        finished.averaged.export(export, &denoiser_json)?;
        export.json("guidance/config.json", &fusion_config)?;
        export.weights("guidance/model.safetensors", &fusion)?;
        export.json("scheduler/scheduler_config.json", &scheduler_json)?;
        // Those of the base's many steps.
        export.remove(pipeline::DEFAULTS);
        Ok(())
    })
}

/// Who is asked about noised latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The teacher, told nothing.
    Unguided,
    /// The teacher, told all.
    Guided,
    /// The student, without gradient.
    Still,
    /// The student.
    Student,
}

/// What is distilled (paper, algorithm 1).
struct Distillation<'a> {
    prediction: Prediction,
    /// The teacher's.
    guidance_scale: f32,
    /// Training steps of a step of the solver.
    stride: usize,
    alphas_cumprod: &'a [f64],
}

impl Distillation<'_> {
    /// How far the student's consistency function at `timesteps` is from its own a step of the solver earlier, where the guided
    /// teacher says that the sample was: pseudo-Huber, in the shape of `noised`, `[n, channels, height, width]`.
    fn errors(
        &self,
        noised: &Tensor<4>,
        timesteps: &[usize],
        ask: impl Fn(Asked, &Tensor<4>, &[usize]) -> Result<Tensor<4>>,
    ) -> Result<Tensor<4>> {
        let Self { prediction, guidance_scale, stride, alphas_cumprod } = *self;
        let earlier: Vec<usize> = timesteps.iter().map(|t| t.saturating_sub(stride)).collect();
        let unguided = ask(Asked::Unguided, noised, timesteps)?;
        let guided = ask(Asked::Guided, noised, timesteps)?;
        let guided = unguided.clone() + (guided - unguided) * guidance_scale;
        let solved = solve(prediction, noised, &guided, [timesteps, &earlier], alphas_cumprod);
        let output = ask(Asked::Still, &solved, &earlier)?;
        let target = consistent(prediction, &solved, &output, &earlier, alphas_cumprod);

        let output = ask(Asked::Student, noised, timesteps)?;
        let errors = consistent(prediction, noised, &output, timesteps, alphas_cumprod) - target;
        Ok((errors.square() + HUBER * HUBER).sqrt() - HUBER)
    }
}

/// One step of DDIM (Song et al. 2021, equation 12, without noise) of each sample, `[n, channels, height, width]`, from its own
/// timestep to an earlier one.
pub fn solve(
    prediction: Prediction,
    sample: &Tensor<4>,
    output: &Tensor<4>,
    [from, to]: [&[usize]; 2],
    alphas_cumprod: &[f64],
) -> Tensor<4> {
    let [original, noise] = split(prediction, sample, output, from, alphas_cumprod);
    noised(original, noise, to, alphas_cumprod)
}

/// The consistency function's value, `c_skip z + c_out x₀`, of samples `[n, channels, height, width]` at a timestep each, from the
/// network's output.
pub fn consistent(
    prediction: Prediction,
    sample: &Tensor<4>,
    output: &Tensor<4>,
    timesteps: &[usize],
    alphas_cumprod: &[f64],
) -> Tensor<4> {
    let [original, _] = split(prediction, sample, output, timesteps, alphas_cumprod);
    let factors: Vec<[f64; 2]> = timesteps.iter().map(|t| boundary(*t as f64 * TIMESTEP_SCALING)).collect();
    let [skip, out] = [0, 1].map(|k| {
        let values: Vec<f32> = factors.iter().map(|factors| factors[k] as f32).collect();
        Tensor::<4>::from_data(TensorData::new(values, [timesteps.len(), 1, 1, 1]), &sample.device())
    });
    sample.clone() * skip + original * out
}

/// x₀ and ε of samples at a timestep each, from the network's output.
fn split(
    prediction: Prediction,
    sample: &Tensor<4>,
    output: &Tensor<4>,
    timesteps: &[usize],
    alphas_cumprod: &[f64],
) -> [Tensor<4>; 2] {
    let [alpha, sigma] = levels(timesteps, alphas_cumprod, &sample.device());
    let (sample, output) = (sample.clone(), output.clone());
    match prediction {
        Prediction::Epsilon => [(sample - output.clone() * sigma) / alpha, output],
        Prediction::VPrediction => {
            [sample.clone() * alpha.clone() - output.clone() * sigma.clone(), output * alpha + sample * sigma]
        }
        Prediction::Sample => [output.clone(), (sample - output * alpha) / sigma],
        Prediction::Flow => {
            let sum = alpha.clone() + sigma.clone();
            [(sample.clone() - output.clone() * sigma) / sum.clone(), (sample + output * alpha) / sum]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// Networks that say a number times what they see, at levels of 0.6 and 0.8, then 0.8 and 0.6; predicting noise.
    #[test]
    fn the_student_is_to_say_what_it_says_where_the_guided_teacher_leads() {
        let device = Device::flex();
        let tensor = |value: f32| Tensor::<4>::full([1, 1, 1, 1], value, &device);
        let (alphas_cumprod, stride) = ([0.64, 0.5, 0.36], 2);
        let asked = std::cell::RefCell::new(Vec::new());
        let ask = |who, latents: &Tensor<4>, timesteps: &[usize]| {
            asked.borrow_mut().push((who, timesteps.to_vec()));
            let factor = match who {
                Asked::Unguided => 0.1,
                Asked::Guided => 0.3,
                Asked::Still => 0.5,
                Asked::Student => -0.7,
            };
            Ok(latents.clone() * factor)
        };
        let distillation = Distillation {
            prediction: Prediction::Epsilon,
            guidance_scale: 2.5,
            stride,
            alphas_cumprod: &alphas_cumprod,
        };
        let found = distillation.errors(&tensor(1.5), &[2], ask).unwrap().into_scalar::<f32>();

        // 0.1 + 2.5 (0.3 − 0.1) of the sample is the guided noise.
        let noise = 0.6 * 1.5;
        let original = (1.5 - 0.8 * noise) / 0.6;
        let solved = 0.8 * original + 0.6 * noise;
        // c_skip and c_out of Luo et al. 2023, appendix: σ = 0.5, timesteps times 10.
        let consistency = |timestep: f64, sample: f64, original: f64| {
            let scaled = 10.0 * timestep;
            0.25 / (scaled * scaled + 0.25) * sample + scaled / (scaled * scaled + 0.25).sqrt() * original
        };
        let target = consistency(0.0, solved, (solved - 0.6 * 0.5 * solved) / 0.8);
        let error = consistency(2.0, 1.5, (1.5 + 0.8 * 0.7 * 1.5) / 0.6) - target;
        let expected = (error * error + 1e-6).sqrt() - 1e-3;
        assert!((f64::from(found) - expected).abs() < 1e-5, "{found}, not {expected}");
        let told = [Asked::Unguided, Asked::Guided, Asked::Still, Asked::Student].into_iter();
        assert_eq!(*asked.borrow(), told.zip([vec![2], vec![2], vec![0], vec![2]]).collect::<Vec<_>>());
    }

    #[test]
    fn a_flow_says_picture_and_noise_as_the_others_do() {
        let device = Device::flex();
        let tensor = |values: [f32; 4]| Tensor::<1>::from_floats(values, &device).reshape([2, 2, 1, 1]);
        let (picture, noise) = (tensor([0.5, -1.0, 2.0, 0.25]), tensor([1.0, 0.5, -0.75, -2.0]));
        let alphas_cumprod = [0.9, 0.3];
        let sample = noised(picture.clone(), noise.clone(), &[0, 1], &alphas_cumprod);
        let output =
            super::super::diffusion::target(Prediction::Flow, &picture, &noise, &[0, 1], &alphas_cumprod);
        let [found, rest] = split(Prediction::Flow, &sample, &output, &[0, 1], &alphas_cumprod);
        for (found, expected) in [(found, picture), (rest, noise)] {
            let off = (found - expected).abs().max().into_scalar::<f32>();
            assert!(off < 1e-5, "{off}");
        }
    }
}
