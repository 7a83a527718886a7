//! What a picture shows, said by CLIP: by the nearest words (zero-shot, Radford et al. 2021, section 3.1) and by a linear
//! probe on its embeddings (section 3.2). How often each is right on renders, where the truth is known, is the ceiling of
//! what it can say of generated pictures.
//!
//! An embedding begins with CLIP's; what follows it, the probe alone reads.

use ::image::RgbImage;
use rayon::prelude::*;

use super::clip::Clip;
use super::drawing::style_words;
use super::likeness::cosine;
use super::statistics::{Estimate, share_of};
use crate::matrix::solve;
use facestudio::error::{Error, Result};
use facestudio_synth::{
    Background, COLORS, ClothingKind, Glasses, HairColor, HairStyle, IdentitySplit, Rng, Scene, SceneOptions,
    Style, Subject, render,
};

/// Ridges to choose from, relative to the mean eigenvalue of the embeddings' second moments.
const RIDGES: [f64; 6] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3];
/// One render in so many chooses the ridge.
const CHOOSES: usize = 5;
/// Seed of the judge's renders.
const SEED: u64 = 0x10D6;
/// Renders that probes learn from, of people of their own pool.
const LEARNT: usize = 800;
/// Renders of held-out people that judges are tested on.
const TESTED: usize = 200;

/// A question with a few answers, and both ways to answer it.
#[derive(Debug)]
pub struct Question {
    /// The answers as prompts say them.
    pub words: Vec<String>,
    texts: Vec<Vec<f32>>,
    probe: Probe,
    /// How often the nearest words are right on renders of held-out people.
    pub words_on_renders: Estimate,
    /// How often the probe is.
    pub probe_on_renders: Estimate,
    /// How often it is on the same renders after the model's autoencoder: what a perfect denoiser's pictures would get. Of none
    /// where that is not asked.
    pub probe_on_decoded: Estimate,
}

/// What both ways answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// By the nearest words.
    pub words: usize,
    /// By the probe.
    pub probe: usize,
}

impl Question {
    fn new(
        clip: &Clip,
        words: Vec<String>,
        prompt: impl Fn(&str) -> String,
        learnt: (&[Vec<f32>], &[usize]),
        tested: &Tested,
        truth: &[usize],
    ) -> Result<Self> {
        let texts = words.iter().map(|words| clip.text(&prompt(words))).collect::<Result<_>>()?;
        let probe = Probe::chosen(learnt.0, learnt.1, words.len())?;
        let nothing = share_of([]);
        let mut question = Self {
            words,
            texts,
            probe,
            words_on_renders: nothing,
            probe_on_renders: nothing,
            probe_on_decoded: nothing,
        };
        let answers = |embeddings: &[Vec<f32>]| -> Vec<Answer> {
            embeddings.iter().map(|embedding| question.answer(embedding)).collect()
        };
        let (renders, decoded) = (answers(&tested.renders), answers(&tested.decoded));
        let right = |answers: &[Answer], way: fn(&Answer) -> usize| {
            share_of(answers.iter().zip(truth).map(|(answer, truth)| way(answer) == *truth))
        };
        question.words_on_renders = right(&renders, |answer| answer.words);
        question.probe_on_renders = right(&renders, |answer| answer.probe);
        question.probe_on_decoded = right(&decoded, |answer| answer.probe);
        Ok(question)
    }

    /// The answers for a picture's embedding.
    pub fn answer(&self, embedding: &[f32]) -> Answer {
        let words: Vec<f64> = self.texts.iter().map(|text| cosine(text, embedding)).collect();
        Answer { words: greatest(&words), probe: greatest(&self.probe.scores(embedding)) }
    }
}

fn greatest(values: &[f64]) -> usize {
    (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap_or(0)
}

/// A linear classifier on embeddings: least squares onto one-hot answers, with a ridge.
#[derive(Debug)]
struct Probe {
    /// `(width + 1) × classes`; the last row is the bias.
    weights: Vec<f64>,
    classes: usize,
}

impl Probe {
    /// With the ridge that does best on a part that is left out, then on all.
    fn chosen(embeddings: &[Vec<f32>], labels: &[usize], classes: usize) -> Result<Self> {
        let cut = embeddings.len() - embeddings.len() / CHOOSES;
        let mut best = (0, RIDGES[0]);
        for ridge in RIDGES {
            let probe = Self::fit(&embeddings[..cut], &labels[..cut], classes, ridge)?;
            let answers = embeddings[cut..].iter().map(|embedding| greatest(&probe.scores(embedding)));
            let right = answers.zip(&labels[cut..]).filter(|(answer, label)| answer == *label).count();
            if right >= best.0 {
                best = (right, ridge);
            }
        }
        Self::fit(embeddings, labels, classes, best.1)
    }

    fn fit(embeddings: &[Vec<f32>], labels: &[usize], classes: usize, ridge: f64) -> Result<Self> {
        let width = embeddings.first().map_or(0, Vec::len) + 1;
        let (mut moments, mut targets) = (vec![0.0; width * width], vec![0.0; width * classes]);
        for (embedding, label) in embeddings.iter().zip(labels) {
            let row: Vec<f64> = embedding.iter().map(|v| f64::from(*v)).chain([1.0]).collect();
            for (i, x) in row.iter().enumerate() {
                moments[i * width..(i + 1) * width].iter_mut().zip(&row).for_each(|(m, y)| *m += x * y);
                targets[i * classes + label] += x;
            }
        }
        let trace: f64 = (0..width - 1).map(|i| moments[i * width + i]).sum();
        let ridge = ridge * trace / (width - 1).max(1) as f64;
        (0..width - 1).for_each(|i| moments[i * width + i] += ridge);
        let weights = solve(&moments, &targets, width, classes).ok_or_else(|| {
            Error::weights(
                "embedding-not-finite",
                "the vision encoders gave embeddings that no probe can be fitted to",
                "fetch or convert the model again",
            )
        })?;
        Ok(Self { weights, classes })
    }

    fn scores(&self, embedding: &[f32]) -> Vec<f64> {
        let mut scores = self.weights[embedding.len() * self.classes..].to_vec();
        for (value, row) in embedding.iter().zip(self.weights.chunks_exact(self.classes)) {
            scores.iter_mut().zip(row).for_each(|(score, weight)| *score += f64::from(*value) * weight);
        }
        scores
    }
}

/// What prompts can ask of a person's picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// The colour of the hair.
    Hair,
    /// Glasses or none.
    Glasses,
    /// The colour of a t-shirt.
    Clothing,
    /// What is behind.
    Background,
}

impl Attribute {
    /// All, in the order of a prompt.
    pub const ALL: [Self; 4] = [Self::Hair, Self::Glasses, Self::Clothing, Self::Background];

    /// The values that can be asked for.
    pub fn values(self) -> &'static [&'static str] {
        match self {
            Self::Hair => &["black", "brown", "red", "blonde", "grey", "blue"],
            Self::Glasses => &["no glasses", "glasses"],
            Self::Clothing => &["red", "yellow", "green", "blue", "white", "black"],
            Self::Background => {
                &["in a forest", "in a city", "on a beach", "in a room", "starry night sky", "at sunset"]
            }
        }
    }

    /// A prompt that says this value and nothing else.
    fn prompt(self, value: &str) -> String {
        match self {
            Self::Hair => format!("a photo of a person with {value} hair"),
            Self::Glasses if value == "no glasses" => "a photo of a person".to_owned(),
            Self::Glasses => "a photo of a person with glasses".to_owned(),
            Self::Clothing => format!("a photo of a person in a {value} t-shirt"),
            Self::Background => format!("a photo of a person, {value}"),
        }
    }

    /// Makes the only person of `scene` show this value.
    fn put(self, scene: &mut Scene, value: usize) {
        const HAIR: [HairColor; 6] = [
            HairColor::Black,
            HairColor::Brown,
            HairColor::Red,
            HairColor::Blonde,
            HairColor::Grey,
            HairColor::Blue,
        ];
        const BACKGROUNDS: [Background; 6] = [
            Background::Forest,
            Background::City,
            Background::Beach,
            Background::Room,
            Background::Stars,
            Background::Sunset,
        ];
        let Some(person) = scene.people.first_mut() else { return };
        match self {
            Self::Hair => {
                let identity = &mut person.identity;
                identity.hair_color = HAIR[value];
                [identity.hair_red, identity.hair_green, identity.hair_blue] = HAIR[value].rgb();
                if identity.hair_style == HairStyle::Bald {
                    identity.hair_style = HairStyle::Short;
                }
                person.hat = None;
            }
            Self::Glasses => person.identity.glasses = (value == 1).then_some(Glasses::Round),
            Self::Clothing => {
                person.clothing.kind = ClothingKind::TShirt;
                let named = COLORS.iter().find(|color| color.name == self.values()[value]);
                person.clothing.color = named.copied().unwrap_or(person.clothing.color);
            }
            Self::Background => scene.background = BACKGROUNDS[value],
        }
    }
}

/// Scenes with known values of every attribute, drawn at random.
fn attribute_scenes(split: IdentitySplit, count: usize) -> (Vec<Scene>, Vec<[usize; 4]>) {
    let options = one_person(split, vec![Style::Photo]);
    let scene = |i: usize| {
        let mut rng = Rng::new(SEED ^ 0xA7, i as u64);
        let mut scene = Scene::random(SEED ^ 0xA7, i as u64, &options);
        let drawn = Attribute::ALL.map(|attribute| rng.below(attribute.values().len()));
        Attribute::ALL.iter().zip(drawn).for_each(|(attribute, value)| attribute.put(&mut scene, value));
        (scene, drawn)
    };
    (0..count).map(scene).unzip()
}

fn one_person(identities: IdentitySplit, styles: Vec<Style>) -> SceneOptions {
    SceneOptions {
        people: [0.0, 1.0, 0.0, 0.0],
        identities,
        non_human_fraction: 0.0,
        styles,
        ..SceneOptions::default()
    }
}

/// A picture's embedding.
pub type Describe<'a> = dyn Fn(&RgbImage) -> Result<Vec<f32>> + 'a;

/// A picture after the model's autoencoder.
pub type Decode<'a> = dyn Fn(&RgbImage) -> Result<RgbImage> + 'a;

/// The model's own pictures: their side in pixels, and what its autoencoder makes of one.
#[derive(Clone, Copy)]
pub struct Pictures<'a> {
    /// Side of the renders.
    pub side: u32,
    /// What comes back from the latents.
    pub decode: &'a Decode<'a>,
}

impl Pictures<'_> {
    fn render(&self, scenes: &[Scene]) -> Vec<RgbImage> {
        let side = self.side;
        scenes.par_iter().map(|scene| render(scene, side).image).collect()
    }

    fn embed(&self, describe: &Describe, scenes: &[Scene]) -> Result<Vec<Vec<f32>>> {
        self.render(scenes).iter().map(describe).collect()
    }
}

/// Embeddings of renders that judges are tested on.
struct Tested {
    renders: Vec<Vec<f32>>,
    /// None where nobody asks.
    decoded: Vec<Vec<f32>>,
}

impl Tested {
    fn new(describe: &Describe, pictures: Pictures, decoded: bool, scenes: &[Scene]) -> Result<Self> {
        let renders = pictures.render(scenes);
        let decoded = if decoded { renders.as_slice() } else { &[] };
        Ok(Self {
            decoded: decoded
                .iter()
                .map(|picture| describe(&(pictures.decode)(picture)?))
                .collect::<Result<_>>()?,
            renders: renders.iter().map(describe).collect::<Result<_>>()?,
        })
    }
}

/// The question of each attribute, in the order of [`Attribute::ALL`].
pub fn attributes(clip: &Clip, describe: &Describe, pictures: Pictures) -> Result<Vec<Question>> {
    let (learnt, learnt_values) = attribute_scenes(IdentitySplit::EvalEncoder, LEARNT);
    let (tested, tested_values) = attribute_scenes(IdentitySplit::HeldOut, TESTED);
    let (learnt, tested) =
        (pictures.embed(describe, &learnt)?, Tested::new(describe, pictures, true, &tested)?);
    let question = |(k, attribute): (usize, &Attribute)| {
        let of = |values: &[[usize; 4]]| -> Vec<usize> { values.iter().map(|values| values[k]).collect() };
        Question::new(
            clip,
            attribute.values().iter().map(|value| (*value).to_owned()).collect(),
            |value| attribute.prompt(value),
            (&learnt, &of(&learnt_values)),
            &tested,
            &of(&tested_values),
        )
    };
    Attribute::ALL.iter().enumerate().map(question).collect()
}

/// Which of the eight styles a picture of one person is drawn in.
pub fn styles(clip: &Clip, pictures: Pictures) -> Result<Question> {
    let scene = |split, seed: u64, i: usize| {
        Scene::random(SEED ^ seed, i as u64, &one_person(split, vec![Style::ALL[i % Style::ALL.len()]]))
    };
    let words = Style::ALL.iter().map(|style| style_words(*style).to_owned()).collect();
    of_series(clip, pictures, true, words, |words| format!("{words} of a person"), scene)
}

/// Which of the renderer's things a picture shows.
pub fn subjects(clip: &Clip, pictures: Pictures) -> Result<Question> {
    let options = SceneOptions { people: [1.0, 0.0, 0.0, 0.0], ..SceneOptions::default() };
    let scene = |_, seed: u64, i: usize| {
        let mut scene = Scene::random(SEED ^ seed, i as u64, &options);
        scene.subject = Some(Subject::ALL[i % Subject::ALL.len()]);
        scene
    };
    let words = Subject::ALL.iter().map(|subject| subject_words(*subject).to_owned()).collect();
    of_series(clip, pictures, false, words, |words| format!("a picture of {words}"), scene)
}

/// A thing as prompts name it.
pub fn subject_words(subject: Subject) -> &'static str {
    match subject {
        Subject::Landscape => "a landscape",
        Subject::Fruit => "fruit in a bowl",
        Subject::House => "a house",
        Subject::Car => "a red car in the city",
        Subject::Tree => "a tree",
        Subject::Ball => "a blue ball",
        Subject::Boat => "a sailing boat",
        Subject::Flower => "a pink flower",
    }
}

/// A question whose renders take the answers in turn; `scene` is given the pool of people, a seed and the number.
fn of_series(
    clip: &Clip,
    pictures: Pictures,
    decoded: bool,
    words: Vec<String>,
    prompt: impl Fn(&str) -> String,
    scene: impl Fn(IdentitySplit, u64, usize) -> Scene,
) -> Result<Question> {
    let labels = |count: usize| -> Vec<usize> { (0..count).map(|i| i % words.len()).collect() };
    let scenes =
        |split, seed, count: usize| -> Vec<Scene> { (0..count).map(|i| scene(split, seed, i)).collect() };
    let describe = |picture: &RgbImage| clip.picture(picture);
    let learnt = pictures.embed(&describe, &scenes(IdentitySplit::EvalEncoder, 1, LEARNT))?;
    let tested = Tested::new(&describe, pictures, decoded, &scenes(IdentitySplit::HeldOut, 2, TESTED))?;
    let (learnt_labels, tested_labels) = (labels(LEARNT), labels(TESTED));
    Question::new(clip, words, prompt, (&learnt, &learnt_labels), &tested, &tested_labels)
}

/// A prompt that asks for one value of each attribute.
pub fn attribute_prompt(noun: &str, values: [usize; 4]) -> String {
    let [hair, glasses, clothing, background] =
        [0, 1, 2, 3].map(|k: usize| Attribute::ALL[k].values()[values[k]]);
    let glasses = if glasses == "glasses" { " and glasses" } else { "" };
    format!("a photo of {noun} with {hair} hair{glasses} in a {clothing} t-shirt, {background}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_separates_what_a_plane_separates() {
        let mut rng = Rng::new(3, 3);
        let mut draw = |count: usize| -> (Vec<Vec<f32>>, Vec<usize>) {
            let points = (0..count).map(|_| vec![rng.normal(), rng.normal(), rng.normal()]);
            let points: Vec<Vec<f32>> = points.filter(|p| (p[0] + p[1]).abs() > 0.3).collect();
            let labels = points.iter().map(|p| usize::from(p[0] + p[1] > 0.0)).collect();
            (points, labels)
        };
        let (learnt, labels) = draw(300);
        let probe = Probe::chosen(&learnt, &labels, 2).unwrap();
        let (tested, truth) = draw(200);
        let right = tested.iter().zip(&truth).filter(|(p, t)| greatest(&probe.scores(p)) == **t).count();
        assert!(right * 100 >= tested.len() * 97, "{right} of {}", tested.len());
        assert!(Probe::chosen(&vec![vec![f32::NAN; 3]; 10], &[0; 10], 2).is_err());
    }

    #[test]
    fn a_prompt_asks_for_each_value() {
        let prompt = attribute_prompt("a woman", [3, 1, 0, 2]);
        assert_eq!(prompt, "a photo of a woman with blonde hair and glasses in a red t-shirt, on a beach");
        assert!(!attribute_prompt("a man", [0, 0, 0, 0]).contains("glasses"));
    }

    #[test]
    fn values_are_put_into_scenes() {
        let mut scene = Scene::random(1, 1, &one_person(IdentitySplit::HeldOut, vec![Style::Photo]));
        for (attribute, value) in [
            (Attribute::Hair, 5),
            (Attribute::Glasses, 1),
            (Attribute::Clothing, 1),
            (Attribute::Background, 4),
        ] {
            attribute.put(&mut scene, value);
        }
        let person = &scene.people[0];
        assert_eq!(person.identity.hair_color, HairColor::Blue);
        assert_eq!(person.identity.hair_rgb(), HairColor::Blue.rgb());
        assert_eq!(person.identity.glasses, Some(Glasses::Round));
        assert_eq!(person.clothing.color.name, "yellow");
        assert_eq!(scene.background, Background::Stars);
        // Every colour that can be asked for is one of the renderer's.
        for name in Attribute::Clothing.values() {
            assert!(COLORS.iter().any(|color| color.name == *name), "{name}");
        }
    }
}
