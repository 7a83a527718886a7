//! What the pictures of an evaluation are made of: numbers that say which photo, which style image and which prompt, so
//! that two experiments that need one picture share it, and a picture made yesterday is found again.

use ::image::RgbImage;
use serde::{Deserialize, Serialize};

use facestudio::request::{self, GenerateRequest, InitImage, Layout, RelativeBox};
use facestudio::sampling::Sampler;
use facestudio_synth::{
    Creature, Identity, IdentitySplit, Rendered, Scene, SceneOptions, Style, Subject, render,
};

use super::options::{EvalOptions, is_usual};
use crate::train::dreambooth;

/// Side of photos and style images in pixels.
pub const PHOTO: u32 = 256;
/// Seed of the scenes that style images and inputs of image-to-image show.
const SCENES: u64 = 0x57E1;
/// Seed of the first picture of a class; far from those of trials.
const CLASS_SEED: u64 = 0xC1A5_5000_0000;
/// The photo that conditions where there is one reference.
pub const REFERENCE: u64 = 1;
/// The two photos that pictures are compared with; they never condition.
pub const TARGETS: [u64; 2] = [2, 3];
/// The paper's number of references beside one (table 1).
pub const REFERENCES: usize = 11;
/// Where the numbers of people begin that style images and inputs show: nobody is drawn and shown in one evaluation.
pub const STYLE_PEOPLE: u64 = 100_000;

/// Where the numbers of animals begin, held-out as the people before them.
pub const CREATURES: u64 = 1 << 40;

/// Makes the person of a scene the one of that number.
fn cast(shown: &mut facestudio_synth::Person, who: u64) {
    match who.checked_sub(CREATURES) {
        Some(n) => shown.become_creature(Creature::from_pool(IdentitySplit::HeldOut, n)),
        None => shown.identity = person(who),
    }
}

/// A held-out person.
pub fn person(number: u64) -> Identity {
    Identity::from_pool(IdentitySplit::HeldOut, number)
}

/// An identity photo of a held-out person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Photo {
    /// The person's number.
    pub who: u64,
    /// Which of the person's photos.
    pub shot: u64,
    /// Turns the face by so many degrees, instead of the few that the photo chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yaw: Option<f32>,
}

impl Photo {
    /// Photo `shot` of a person.
    pub fn new(who: u64, shot: u64) -> Self {
        Self { who, shot, yaw: None }
    }

    /// The photo.
    pub fn render(&self) -> Rendered {
        let mut scene = Scene::photo_of(person(self.who), self.shot);
        if let Some(person) = scene.people.first_mut() {
            cast(person, self.who);
            person.yaw = self.yaw.unwrap_or(person.yaw);
        }
        render(&scene, PHOTO)
    }
}

/// A rendered scene of held-out people, or of a thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Staged {
    /// Number of the scene.
    pub scene: u64,
    /// Who it shows, nearest last; nobody for a thing.
    pub shows: Vec<u64>,
    /// How it is drawn.
    pub style: Style,
    /// Turns the faces by so many degrees, instead of those that the scene chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yaw: Option<f32>,
    /// The thing, where nobody is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
}

impl Staged {
    /// Scene number `scene` in a style, of a person of its own.
    pub fn one(scene: u64, style: Style) -> Self {
        Self { scene, shows: vec![STYLE_PEOPLE + scene], style, yaw: None, subject: None }
    }

    /// What it shows, before it is drawn.
    pub fn scene(&self) -> Scene {
        let mut people = [0.0; 4];
        people[self.shows.len().min(3)] = 1.0;
        let options = SceneOptions {
            people,
            identities: IdentitySplit::HeldOut,
            non_human_fraction: 0.0,
            styles: vec![self.style],
            ..SceneOptions::default()
        };
        let mut scene = Scene::random(SCENES, self.scene, &options);
        for (shown, who) in scene.people.iter_mut().zip(&self.shows) {
            cast(shown, *who);
            shown.yaw = self.yaw.unwrap_or(shown.yaw);
        }
        scene.subject = self.subject.or(scene.subject);
        scene
    }

    /// The picture at `size × size`.
    pub fn render(&self, size: u32) -> Rendered {
        render(&self.scene(), size)
    }
}

/// One identity of a person: photos and weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sitter {
    /// Photos of one person.
    pub photos: Vec<Photo>,
    /// Mixing weight.
    pub beta: f32,
}

impl Sitter {
    /// One person from `references` photos, none of which is compared with.
    pub fn new(who: u64, references: usize) -> Self {
        let shots = std::iter::once(REFERENCE).chain(10..);
        Self { photos: shots.take(references).map(|shot| Photo::new(who, shot)).collect(), beta: 1.0 }
    }
}

/// Which model makes a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelRole {
    /// The one that is evaluated.
    Model,
    /// The one that it is compared with.
    Against,
}

/// How a model is tuned for one person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A new word for the person.
    TextualInversion,
    /// New weights that know the person by a rare word.
    DreamBooth,
}

/// A copy of the model, tuned for one person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// How.
    pub method: Method,
    /// What the person is learnt from.
    pub photos: Vec<Photo>,
    /// What the person is, in a word.
    pub class: String,
    /// Updates.
    pub steps: usize,
}

/// Everything that decides one generated picture of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drawing {
    /// The people from left to right, each a mix of one identity or more.
    pub people: Vec<Vec<Sitter>>,
    /// The style image.
    pub style: Option<Staged>,
    /// The prompt.
    pub prompt: String,
    /// Balance of hybrid guidance.
    pub alpha: f32,
    /// Image-to-image: the picture to start from, and how far to go.
    pub init: Option<(Staged, f32)>,
    /// Seed of the noise.
    pub seed: u64,
    /// The sampler.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub sampler: Sampler,
    /// Denoising steps.
    pub steps: usize,
    /// Classifier-free guidance scale.
    pub guidance_scale: f32,
    /// The model.
    pub model: ModelRole,
    /// The copy of it that draws, where one is tuned first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned: Option<Tuned>,
}

impl Drawing {
    /// Trial `trial`: the person of that number from one photo, in a picture of someone else; styles take turns.
    pub fn trial(options: &EvalOptions, trial: usize) -> Self {
        Self {
            people: vec![vec![Sitter::new(trial as u64, 1)]],
            style: Some(Staged::one(trial as u64, in_turn(trial))),
            prompt: String::new(),
            alpha: 1.0,
            init: None,
            seed: options.seed.wrapping_add(trial as u64),
            sampler: options.sampler,
            steps: options.steps,
            guidance_scale: options.guidance_scale,
            model: ModelRole::Model,
            tuned: None,
        }
    }

    /// The same without an identity.
    pub fn nobody(self) -> Self {
        Self { people: Vec::new(), ..self }
    }

    /// The same of `who`.
    pub fn with_person(self, who: Vec<Sitter>) -> Self {
        Self { people: vec![who], ..self }
    }

    /// What has to be drawn before the copy can be tuned that draws this: pictures of the person's class by the model itself,
    /// which DreamBooth holds it to; no more than there are steps to see them in.
    pub fn class_pictures(&self) -> Vec<Self> {
        let Some(tuned) = self.tuned.as_ref().filter(|tuned| tuned.method == Method::DreamBooth) else {
            return Vec::new();
        };
        let plain = Self { tuned: None, ..self.clone() }.nobody();
        let plain = plain.by_prompt(dreambooth::class_prompt(&tuned.class));
        let seeds = (CLASS_SEED..).take(dreambooth::CLASS_PICTURES.min(tuned.steps));
        seeds.map(|seed| Self { seed, ..plain.clone() }).collect()
    }

    /// The same from a prompt, with no style image.
    pub fn by_prompt(self, prompt: String) -> Self {
        Self { style: None, prompt, alpha: 0.0, ..self }
    }

    /// The same between prompt (0) and style image (1); what has no weight is left out, so that the ends are the pictures
    /// of other experiments.
    pub fn between(self, prompt: &str, alpha: f32) -> Self {
        if alpha <= 0.0 {
            self.by_prompt(prompt.to_owned())
        } else if alpha >= 1.0 {
            Self { prompt: String::new(), alpha: 1.0, ..self }
        } else {
            Self { prompt: prompt.to_owned(), alpha, ..self }
        }
    }

    /// The request; several people get equal columns from left to right.
    pub fn request(&self) -> GenerateRequest {
        let photos = |sitter: &Sitter| -> Vec<RgbImage> {
            sitter.photos.iter().map(|photo| photo.render().image).collect()
        };
        let people: Vec<request::Person> = self
            .people
            .iter()
            .map(|sitters| {
                let identity = |sitter| request::Identity::new(photos(sitter), sitter.beta);
                request::Person::of(sitters.iter().map(identity).collect())
            })
            .collect();
        let layout = if people.len() > 1 { Layout::Boxes(columns(people.len())) } else { Layout::Whole };
        GenerateRequest {
            people,
            style: self.style.as_ref().map(|style| style.render(PHOTO).image),
            prompt: self.prompt.clone(),
            alpha: self.alpha,
            layout,
            init: self.init.as_ref().map(|(staged, strength)| InitImage {
                image: staged.render(PHOTO).image,
                strength: *strength,
                mask: None,
            }),
            seed: self.seed,
            sampler: self.sampler,
            steps: self.steps,
            guidance_scale: self.guidance_scale,
            ..GenerateRequest::default()
        }
    }
}

/// `count` columns of equal width, from left to right.
pub fn columns(count: usize) -> Vec<RelativeBox> {
    let width = 1.0 / count as f32;
    (0..count).map(|i| RelativeBox { x: i as f32 * width, y: 0.0, width, height: 1.0 }).collect()
}

/// Style number `i`, round and round.
pub fn in_turn(i: usize) -> Style {
    Style::ALL[i % Style::ALL.len()]
}

/// A style as prompts name it.
pub fn style_words(style: Style) -> &'static str {
    match style {
        Style::Photo => "a photo",
        Style::FlatCartoon => "a cartoon",
        Style::InkSketch => "an ink sketch",
        Style::Watercolor => "a watercolor painting",
        Style::Oil => "an oil painting",
        Style::PopArt => "a pop art print",
        Style::PixelArt => "a pixel art picture",
        Style::Neon => "a neon picture",
    }
}

/// "a woman" or "a man" as captions call a person.
pub fn noun(who: u64) -> &'static str {
    match person(who).presentation {
        p if p > 0.6 => "a woman",
        p if p < 0.4 => "a man",
        _ => "a person",
    }
}

/// The same without its article.
pub fn class(who: u64) -> &'static str {
    noun(who).trim_start_matches("a ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_alpha_are_other_experiments_pictures() {
        let trial = Drawing::trial(&EvalOptions::default(), 3);
        let prompt = "an oil painting of a man";
        assert_eq!(trial.clone().between(prompt, 1.0), trial);
        assert_eq!(trial.clone().between(prompt, 0.0), trial.clone().by_prompt(prompt.to_owned()));
        assert_eq!(trial.clone().between(prompt, 0.5).request().effective_alpha(), 0.5);
    }

    #[test]
    fn references_are_never_compared_with() {
        let shots: Vec<u64> = Sitter::new(1, REFERENCES).photos.iter().map(|photo| photo.shot).collect();
        assert_eq!(shots.len(), REFERENCES);
        assert!(shots.iter().all(|shot| !TARGETS.contains(shot)), "{shots:?}");
        assert_eq!(shots[0], REFERENCE);
    }

    #[test]
    fn a_staged_scene_shows_whom_it_says() {
        let staged =
            Staged { scene: 7, shows: vec![4, 5], style: Style::Oil, yaw: Some(30.0), subject: None };
        let scene = staged.scene();
        assert_eq!(scene.people.len(), 2);
        assert_eq!(scene.people[1].identity, person(5));
        assert!(scene.people.iter().all(|p| p.yaw == 30.0));
        let thing = Staged { shows: Vec::new(), subject: Some(Subject::Boat), ..staged };
        assert_eq!((thing.scene().people.len(), thing.scene().subject), (0, Some(Subject::Boat)));
    }
}
