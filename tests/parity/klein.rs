//! From prompt, noise and pictures to latents as diffusers' pipelines of FLUX.2 klein go, on tiny networks: text alone, base and
//! distilled, one to four reference pictures, their keys and values kept, and inside a mask.

use burn::tensor::{DType, Device, Tensor, TensorData};
use facestudio::condition::{Added, Condition, Places, Reference, Regions};
use facestudio::encoders::qwen3::Qwen3Encoder;
use facestudio::encoders::tokenizer::Qwen2Tokenizer;
use facestudio::internal::{Evidence, Family, Guided, KleinGuidance, PersonEvidence, Texts};
use facestudio::pipeline::{Canvas, Denoiser, InpaintMask, denoise, start};
use facestudio::request::{GenerateRequest, InitImage, Person, Roles};
use facestudio::sampling::{NoiseSource, Sampler, Scheduler, SchedulerConfig, StepOutput};
use facestudio::transformer::Flux2Transformer2DModel;
use facestudio::vae::Vae;
use facestudio::weights::{Component, Files};
use image::RgbImage;
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

/// A text beside pictures.
fn shown(text: Tensor<3>, pictures: Vec<Reference>) -> Condition {
    Condition::single(text).adding(Some(Added::References { pictures, guidance: None }))
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

    /// The case as a request: of its pictures the last of several is the style, the others are photos of one person.
    fn request(case: &Case) -> GenerateRequest {
        let photos = case.references.len() - usize::from(case.references.len() > 1);
        let blank = || RgbImage::new(64, 64);
        GenerateRequest {
            people: (photos > 0).then(|| Person::new(vec![blank(); photos])).into_iter().collect(),
            style: (case.references.len() > 1).then(blank),
            prompt: case.prompt.clone(),
            roles: Some(Roles::silent()),
            init: case.strength.map(|strength| InitImage { image: blank(), strength, mask: None }),
            guidance_scale: case.guidance.unwrap_or(1.0),
            ..GenerateRequest::default()
        }
    }

    /// What the family makes of the case.
    fn guided(&self, case: &Case, init: Option<Tensor<4>>) -> Guided {
        let (family, request) = (KleinGuidance::new(case.guidance.is_none()), Self::request(case));
        family.check(&request).unwrap();
        let Texts::Chats(texts) = family.needs(&request, None).texts else { panic!("it reads chats") };
        let pictures = case.references.iter().enumerate().map(|(i, size)| self.picture(*size, i));
        let mut pictures: Vec<Tensor<4>> = pictures.collect();
        let style_reference = request.style.is_some().then(|| pictures.pop().unwrap());
        let people = request.people.iter();
        let people =
            people.map(|_| PersonEvidence { references: pictures.clone(), ..PersonEvidence::default() });
        let evidence = Evidence {
            people: people.collect(),
            style_reference,
            start: init,
            tokens: texts.iter().map(|(_, text)| self.prompt(text)).collect(),
            ..Evidence::default()
        };
        family.condition(&evidence, &request, None, &self.device).unwrap().swap_remove(0)
    }

    /// Latents after every step, by the loop that draws.
    fn run(&self, case: &Case, noise: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = noise.dims();
        let config = self.scheduler.clone().for_image_tokens(height * width);
        let schedule = config.schedule(Sampler::FlowMatchEuler, case.steps, case.strength).unwrap();
        let scheduler = Scheduler::new(schedule);
        if case.kept {
            return self.run_keeping(case, scheduler, noise);
        }
        let init = case.strength.map(|_| self.picture([case.width, case.height], 9));
        let Guided { condition, guidance_scale } = self.guided(case, init.clone());
        let changing: Vec<f32> =
            (0..height * width).map(|i| f32::from(u8::from(i % width >= case.mask))).collect();
        let canvas = Canvas { width, height, latent_width: width, latent_height: height };
        let inpaint = init.as_ref().map(|init| InpaintMask::new(init, &changing, &noise, &canvas));
        let latents = start(&scheduler, &noise, init.as_ref().zip(case.strength), inpaint.as_ref()).unwrap();
        let network = &self.transformer;
        let denoiser = Denoiser { network, condition, guidance_scale, dtype: DType::F32 };
        let mut steps = Vec::new();
        let after = async |_, output: StepOutput| {
            steps.push(output.sample);
            Ok(())
        };
        pollster::block_on(denoise(&denoiser, scheduler, latents, |_| None, inpaint.as_ref(), after))
            .unwrap();
        Tensor::cat(steps, 0)
    }

    /// As [`run`](Self::run), with the references' keys and values kept.
    fn run_keeping(&self, case: &Case, mut scheduler: Scheduler, mut latents: Tensor<4>) -> Tensor<4> {
        let references = case.references.iter().enumerate().map(|(i, size)| self.picture(*size, i));
        let condition = shown(self.prompt(&case.prompt), numbered(references.collect()));
        let condition = self.transformer.prepare(&condition, &latents).unwrap();
        let mut cache = None;
        let mut steps = Vec::new();
        for (i, timestep) in scheduler.schedule().timesteps().into_iter().enumerate() {
            let velocity = match &cache {
                Some(cache) => {
                    self.transformer.velocity_with(latents.clone(), timestep, &condition, cache).unwrap()
                }
                None => {
                    let kept = self.transformer.velocity_keeping(latents.clone(), timestep, &condition);
                    let (velocity, found) = kept.unwrap();
                    cache = Some(found);
                    velocity
                }
            };
            latents = scheduler.step(i, velocity, latents, None).unwrap().sample;
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
    let latents = NoiseSource::new(3).tensor::<4>(0, [1, 8, 4, 4], &klein.device);
    let text = klein.prompt("image 1 and image 2");
    let prepared = |references| klein.transformer.prepare(&shown(text.clone(), references), &latents);
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

/// What the family makes of a request of so many people with a photo each, and perhaps of a style.
struct Shown<'a> {
    klein: &'a Klein,
    /// In the order of the request: whose photo, and where they are.
    people: Vec<(usize, Vec<f32>)>,
    background: usize,
    request: GenerateRequest,
}

impl Shown<'_> {
    fn velocity(&self) -> Tensor<4> {
        let klein = self.klein;
        let family = KleinGuidance::new(true);
        let masks = self.people.iter().map(|(_, mask)| mask.clone()).collect();
        let places = (!self.people.is_empty())
            .then(|| Places::Regions(Regions::new(4, 4, masks, self.background).unwrap()));
        let blank = || Person::new(vec![RgbImage::new(64, 64)]);
        let people = self.people.iter().map(|_| blank()).collect();
        let request = GenerateRequest { people, guidance_scale: 1.0, ..self.request.clone() };
        family.check(&request).unwrap();
        let needs = family.needs(&request, places.as_ref());
        let Texts::Chats(texts) = needs.texts else { panic!("it reads chats") };
        let photo = |who: usize| klein.picture([64, 64 + 8 * who], who);
        let people = self.people.iter();
        let people = people
            .map(|(who, _)| PersonEvidence { references: vec![photo(*who)], ..PersonEvidence::default() });
        let evidence = Evidence {
            people: people.collect(),
            style_reference: needs.style.map(|_| photo(7)),
            tokens: texts.iter().map(|(_, text)| klein.prompt(text)).collect(),
            ..Evidence::default()
        };
        let guided = family.condition(&evidence, &request, places.as_ref(), &klein.device).unwrap();
        let latents = NoiseSource::new(3).tensor::<4>(0, [1, 8, 4, 4], &klein.device);
        let prepared = klein.transformer.prepare(&guided[0].condition, &latents).unwrap();
        klein.transformer.velocity(latents, 700.0, &prepared).unwrap()
    }
}

#[test]
fn people_act_in_their_regions_in_whatever_order_they_are_given() {
    let klein = Klein::load();
    let columns = |from: usize, to: usize| -> Vec<f32> {
        (0..16).map(|i| f32::from(u8::from((from..to).contains(&(i % 4))))).collect()
    };
    // Short sentences: there are 48 tokens.
    let roles = Roles { person: "{images}.".to_owned(), ..Roles::silent() };
    let request = GenerateRequest { prompt: "a".to_owned(), roles: Some(roles), ..Default::default() };
    let of = |people: Vec<(usize, Vec<f32>)>, background| {
        Shown { klein: &klein, people, background, request: request.clone() }.velocity()
    };
    let off = |a: &Tensor<4>, b: &Tensor<4>| (a.clone() - b.clone()).abs().max().into_scalar::<f32>();
    let (ann, ben) = ((1, columns(0, 2)), (2, columns(3, 4)));
    let both = of(vec![ann.clone(), ben.clone()], 0);
    assert_eq!(off(&both, &of(vec![ben.clone(), ann.clone()], 1)), 0.0, "the same people, told otherwise");
    assert!(off(&both, &of(vec![(2, ann.1.clone()), (1, ben.1.clone())], 0)) > 1e-4, "in each other's place");
    assert!(off(&both, &of(vec![ann.clone(), ben.clone()], 1)) > 1e-5, "another background");

    // Whoever has no place alters nothing, and is not spoken of.
    let nowhere = |who: usize| (who, vec![0.0; 16]);
    let alone = of(vec![ann.clone(), nowhere(2)], 0);
    assert_eq!(off(&alone, &of(vec![ann.clone(), nowhere(3)], 0)), 0.0);
    assert_eq!(off(&alone, &of(vec![nowhere(4), ann.clone()], 1)), 0.0);
    assert!(off(&alone, &of(vec![(3, ann.1.clone()), nowhere(2)], 0)) > 1e-4);
}

#[test]
fn alpha_is_how_strongly_the_style_is_seen_against_the_prompt() {
    let klein = Klein::load();
    let of = |alpha: f32, style: bool, prompt: &str| {
        let request = GenerateRequest {
            style: style.then(|| RgbImage::new(64, 64)),
            prompt: prompt.to_owned(),
            alpha,
            roles: Some(Roles::silent()),
            ..Default::default()
        };
        Shown { klein: &klein, people: Vec::new(), background: 0, request }.velocity()
    };
    let off = |a: &Tensor<4>, b: &Tensor<4>| (a.clone() - b.clone()).abs().max().into_scalar::<f32>();
    let plain = |prompt: &str, style: bool| {
        let pictures = if style { vec![Reference::new(klein.picture([64, 120], 7), 1)] } else { Vec::new() };
        let latents = NoiseSource::new(3).tensor::<4>(0, [1, 8, 4, 4], &klein.device);
        let prepared = klein.transformer.prepare(&shown(klein.prompt(prompt), pictures), &latents).unwrap();
        klein.transformer.velocity(latents, 700.0, &prepared).unwrap()
    };
    // Alike, the model is as it is; of the prompt alone the style is not there; of the style alone nothing is said.
    assert_eq!(off(&of(0.5, true, "a man"), &plain("a man", true)), 0.0);
    assert_eq!(off(&of(0.0, true, "a man"), &plain("a man", false)), 0.0);
    assert_eq!(off(&of(1.0, true, "a man"), &plain("", true)), 0.0);
    assert_eq!(off(&of(0.2, true, ""), &plain("", true)), 0.0, "without a prompt the style is alone");
    let distances = [0.1, 0.3, 0.5].map(|alpha| off(&of(alpha, true, "a man"), &plain("a man", false)));
    assert!(distances[0] > 1e-5 && distances.is_sorted(), "{distances:?}");
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
