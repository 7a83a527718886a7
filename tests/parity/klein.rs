//! From prompt, noise and pictures to latents as diffusers' pipelines of FLUX.2 klein go, on tiny networks: text alone, base and
//! distilled, one to four reference pictures, their keys and values kept, and inside a mask.

use burn::tensor::{DType, Device, Tensor, TensorData};
use facestudio::encoders::qwen3::Qwen3Encoder;
use facestudio::encoders::tokenizer::Qwen2Tokenizer;
use facestudio::sampling::{Sampler, Scheduler, SchedulerConfig};
use facestudio::transformer::{Flux2Condition, Flux2Transformer2DModel, Reference};
use facestudio::vae::Vae;
use facestudio::weights::{Component, Files};
use serde::Deserialize;

use crate::{assert_close, fixture, io};

/// Every network and step in f32, sums in another order.
const TOLERANCE: f32 = 1e-4;
const LAYERS: [usize; 3] = [1, 2, 3];
const LENGTH: usize = 48;

#[derive(Deserialize)]
struct Case {
    name: String,
    prompt: String,
    width: usize,
    height: usize,
    steps: usize,
    /// Of base models; `None` with distilled ones.
    guidance: Option<f32>,
    #[serde(default)]
    references: Vec<[usize; 2]>,
    /// Whether the references' keys and values are.
    #[serde(default)]
    kept: bool,
    /// Of inpainting.
    strength: Option<f32>,
    /// From which column of latents on they change, in inpainting.
    #[serde(default)]
    mask: usize,
}

/// Pictures that are seen as the model was trained, in that order.
fn numbered(latents: Vec<Tensor<4>>) -> Vec<Reference> {
    latents.into_iter().enumerate().map(|(i, latents)| Reference::new(latents, i + 1)).collect()
}

struct Klein {
    tokenizer: Qwen2Tokenizer,
    text_encoder: Qwen3Encoder,
    transformer: Flux2Transformer2DModel,
    vae: Vae,
    scheduler: SchedulerConfig,
    device: Device,
}

impl Klein {
    fn load() -> Self {
        let (folder, device) = (fixture("klein"), Device::flex());
        let component = |name| Component::new(&folder, name);
        Self {
            tokenizer: Qwen2Tokenizer::load(&Component::new(&fixture("qwen2_tokenizer/json"), "")).unwrap(),
            text_encoder: Qwen3Encoder::load(&component("text_encoder"), &LAYERS, &device).unwrap(),
            transformer: Flux2Transformer2DModel::load(&component("transformer"), &device).unwrap(),
            vae: Vae::load(&component("vae"), &device).unwrap(),
            scheduler: SchedulerConfig::from_component(&component("scheduler")).unwrap(),
            device,
        }
    }

    fn prompt(&self, prompt: &str) -> Tensor<3> {
        let chat = self.tokenizer.encode_chat(prompt, LENGTH);
        self.text_encoder.forward(&[chat.ids], &[chat.real], DType::F32).unwrap()
    }

    /// Latents of the picture that reference.py draws by the same formula.
    fn picture(&self, [width, height]: [usize; 2], number: usize) -> Tensor<4> {
        let value = |c, y, x| (x * 7 + y * 13 + c * 29 + number * 50 + x * y / 9) % 256;
        let values: Vec<f32> = (0..3 * height * width)
            .map(|i| value(i / (height * width), i / width % height, i % width) as f32 / 127.5 - 1.0)
            .collect();
        let pixels = Tensor::from_data(TensorData::new(values, [1, 3, height, width]), &self.device);
        self.vae.encode_latents(pixels).unwrap()
    }

    /// Latents after every step.
    fn run(&self, case: &Case, noise: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = noise.dims();
        let mut references: Vec<_> =
            case.references.iter().enumerate().map(|(i, size)| self.picture(*size, i)).collect();
        let config = self.scheduler.clone().for_image_tokens(height * width);
        let schedule = config.schedule(Sampler::FlowMatchEuler, case.steps, case.strength).unwrap();
        let mut scheduler = Scheduler::new(schedule);
        let mut latents = noise.clone();
        let init = case.strength.map(|_| self.picture([case.width, case.height], 9));
        if let Some(init) = &init {
            latents = scheduler.add_noise(0, init.clone(), noise.clone()).unwrap();
            // The picture itself is the first reference.
            references.insert(0, init.clone());
        }
        let changing: Vec<f32> =
            (0..height * width).map(|i| f32::from(u8::from(i % width >= case.mask))).collect();
        let changing = Tensor::<4>::from_data(TensorData::new(changing, [1, 1, height, width]), &self.device);
        let condition = |prompt| {
            let references = numbered(references.clone());
            let condition = Flux2Condition { text: self.prompt(prompt), references, guidance: None };
            self.transformer.prepare(&condition, &latents).unwrap()
        };
        let (condition, empty) = (condition(&case.prompt), condition(""));
        let mut cache = None;
        let mut steps = Vec::new();
        for (i, timestep) in scheduler.schedule().timesteps().into_iter().enumerate() {
            let velocity =
                |condition| self.transformer.velocity(latents.clone(), timestep, condition).unwrap();
            let output = match (&cache, case.guidance) {
                (Some(cache), _) => {
                    self.transformer.velocity_with(latents.clone(), timestep, &condition, cache).unwrap()
                }
                (None, _) if case.kept => {
                    let kept = self.transformer.velocity_keeping(latents.clone(), timestep, &condition);
                    let (velocity, found) = kept.unwrap();
                    cache = Some(found);
                    velocity
                }
                (None, None) => velocity(&condition),
                (None, Some(scale)) => {
                    let (with, without) = (velocity(&condition), velocity(&empty));
                    without.clone() + (with - without) * scale
                }
            };
            latents = scheduler.step(i, output, latents, None).unwrap().sample;
            if let Some(init) = &init {
                let held = if i + 1 < scheduler.schedule().len() {
                    scheduler.add_noise(i + 1, init.clone(), noise.clone()).unwrap()
                } else {
                    init.clone()
                };
                latents = latents * changing.clone() + held * (changing.ones_like() - changing.clone());
            }
            steps.push(latents.clone());
        }
        Tensor::cat(steps, 0)
    }
}

#[test]
fn latents_of_every_step_are_the_pipelines() {
    let klein = Klein::load();
    let folder = fixture("klein");
    let cases: Vec<Case> = serde_json::from_slice(&folder.read("cases.json").unwrap()).unwrap();
    let io = io(&folder);
    assert_eq!(cases.len(), 8);
    for case in cases {
        println!("{}", case.name);
        let tensor = |name: &str| io.tensor::<4>(&format!("{}.{name}", case.name), &klein.device).unwrap();
        assert_close(klein.run(&case, tensor("noise")), tensor("steps"), TOLERANCE);
    }
}

/// A person with a region, seen by half of the picture.
fn person(klein: &Klein, size: [usize; 2], number: usize, right: bool) -> Reference {
    let region = (0..16).map(|i| f32::from(u8::from((i % 4 >= 2) == right))).collect();
    Reference { region: Some(region), ..Reference::new(klein.picture(size, number), number) }
}

#[test]
fn references_are_seen_by_their_strength_in_their_region() {
    let klein = Klein::load();
    let latents = facestudio::sampling::NoiseSource::new(3).tensor::<4>(0, [1, 8, 4, 4], &klein.device);
    let text = klein.prompt("image 1 and image 2");
    let prepared = |references| {
        let condition = Flux2Condition { text: text.clone(), references, guidance: None };
        klein.transformer.prepare(&condition, &latents)
    };
    let of = |references: Vec<Reference>| {
        klein.transformer.velocity(latents.clone(), 700.0, &prepared(references).unwrap()).unwrap()
    };
    let off = |a: &Tensor<4>, b: &Tensor<4>| (a.clone() - b.clone()).abs().max().into_scalar::<f32>();
    let style = |strength| Reference { strength, ..Reference::new(klein.picture([64, 64], 1), 1) };
    let [left, right] = [false, true].map(|right| person(&klein, [64, 72], 2 + usize::from(right), right));

    // Strength 1 is the model as it is, what is nearly 1 is nearly that, and 0 is as if it were not there.
    let (whole, without) = (of(vec![style(1.0)]), of(vec![]));
    assert!(off(&whole, &without) > 1e-3);
    assert!(off(&of(vec![style(1.0 - 1e-6)]), &whole) < 1e-5);
    assert_eq!(off(&of(vec![style(0.0)]), &without), 0.0);
    assert!(off(&of(vec![style(1e-6)]), &without) < 1e-3);
    assert!(off(&of(vec![style(0.5)]), &whole) > 1e-4 && off(&of(vec![style(0.5)]), &without) > 1e-4);

    // The order of people changes nothing, their regions do; whoever has none is not there.
    let both = of(vec![style(1.0), left.clone(), right.clone()]);
    assert!(off(&both, &of(vec![right.clone(), left.clone(), style(1.0)])) < 1e-5);
    let swapped = |a: &Reference, b: &Reference| Reference { region: b.region.clone(), ..a.clone() };
    assert!(off(&both, &of(vec![style(1.0), swapped(&left, &right), swapped(&right, &left)])) > 1e-4);
    let nowhere = Reference { region: Some(vec![0.0; 16]), ..right.clone() };
    assert_eq!(off(&of(vec![left.clone(), nowhere]), &of(vec![left.clone()])), 0.0);
    // Seen by nobody is what a bias makes of it, too: with a strength that rounds to none.
    let hardly = Reference { strength: 1e-38, ..right.clone() };
    assert!(off(&of(vec![left.clone(), hardly]), &of(vec![left.clone()])) < 1e-6);

    for wrong in [
        Reference { strength: -1.0, ..left.clone() },
        Reference { strength: f32::NAN, ..left.clone() },
        Reference { region: Some(vec![1.0; 15]), ..left.clone() },
        Reference { region: Some(vec![2.0; 16]), ..left.clone() },
        Reference { number: 0, ..left.clone() },
        Reference { number: usize::MAX, ..left.clone() },
        Reference { latents: left.latents.clone().narrow(1, 0, 7), ..left.clone() },
    ] {
        assert_eq!(prepared(vec![wrong]).unwrap_err().code, "condition-shape");
    }
    let people = prepared(vec![left]).unwrap();
    let kept = klein.transformer.velocity_keeping(latents.clone(), 700.0, &people);
    assert_eq!(kept.unwrap_err().code, "condition-shape");
    let smaller = latents.clone().narrow(3, 0, 3);
    let error = klein.transformer.velocity(smaller, 700.0, &people).unwrap_err();
    assert_eq!(error.code, "condition-shape");
}

/// The whole of what is kept must matter, or the test above would say nothing.
#[test]
fn every_part_of_a_request_is_seen() {
    let klein = Klein::load();
    let case = |references: &[[usize; 2]], prompt: &str| Case {
        name: String::new(),
        prompt: prompt.to_owned(),
        width: 32,
        height: 32,
        steps: 2,
        guidance: None,
        references: references.to_vec(),
        kept: false,
        strength: None,
        mask: 0,
    };
    let noise = Tensor::<4>::ones([1, 8, 4, 4], &klein.device);
    let of = |case: Case| klein.run(&case, noise.clone());
    let differ = |a: &Tensor<4>, b: Tensor<4>| {
        let off: f32 = (a.clone() - b).abs().max().into_scalar();
        assert!(off > 1e-3, "{off}");
    };
    let base = of(case(&[[64, 64]], "a man"));
    differ(&base, of(case(&[[64, 64]], "a woman")));
    differ(&base, of(case(&[[64, 72]], "a man")));
    differ(&base, of(case(&[[64, 64], [64, 64]], "a man")));
    differ(&base, of(case(&[], "a man")));
    differ(&base, of(Case { kept: true, ..case(&[[64, 64]], "a man") }));
}
