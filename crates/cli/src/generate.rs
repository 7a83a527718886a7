//! `facestudio generate`: faces, a style and a prompt in, PNG files out.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use clap::builder::PossibleValue;
use facestudio::Error;
use facestudio::error::Fault;
use facestudio::image::codec;
use facestudio::pipeline::{FaceStudio, Phase, Precision};
use facestudio::request::{
    Background, Defaults, Embedding, GenerateRequest, Identity, Layout, Person, RedrawFaces, RelativeBox,
    Roles,
};
use facestudio::sampling::Sampler;
use facestudio::weights::{Files, check_output, write_file};
use facestudio_convert::embedding;
use indicatif::{ProgressBar, ProgressStyle};

use crate::backend::Backend;
use crate::model::Model;
use crate::picture::{open, open_mask};
use crate::{again, interrupt, into, jobs, output, photos};

/// Flags of `facestudio generate`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: Model,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,
    /// What the denoiser computes in: auto (f16 where the graphics card computes it; with --recipe what it says), f16 or f32.
    #[arg(long, default_value = "auto", value_name = "PRECISION")]
    precision: String,
    /// Makes many pictures: a file with one JSON object a line, whose keys are the flags of one picture, as in
    /// {"face": ["a.png:0.7", "b.png"], "style": "s.png", "seed": 7, "out": "1.png"}. A picture that is there already is left
    /// alone.
    #[arg(long, value_name = "FILE", conflicts_with = "Job")]
    jobs: Option<PathBuf>,
    /// Of the jobs only every Nth, from the Ith on, counted from 0: so that N machines share a file.
    #[arg(long, value_name = "I/N", requires = "jobs", value_parser = jobs::parse_shard)]
    shard: Option<jobs::Shard>,
    #[command(flatten)]
    job: Job,
}

/// One picture, or several of one request.
#[derive(clap::Args)]
pub struct Job {
    /// Makes a picture again: a PNG that FaceStudio wrote, whose recipe takes the place of the other flags. With --photo for each
    /// picture that it was made from, and with --prompt and --negative-prompt where they were left out of it.
    #[arg(long, value_name = "PNG", conflicts_with_all = [
        "face", "person", "identity_strength", "identity_start", "identity_end", "style", "role", "clip_skip", "alpha", "layout", "content",
        "background", "init", "into", "replace", "redraw_faces", "redraw_from", "strength", "mask", "seed", "count", "candidates", "steps",
        "guidance_scale", "sampler", "size", "no_watermark",
    ])]
    recipe: Option<PathBuf>,
    /// A picture that the one of --recipe was made from: a photo, the style image, a mask and so on. In any order; repeat.
    #[arg(long, value_name = "PICTURE", requires = "recipe")]
    photo: Vec<PathBuf>,
    /// A face photo, with its mixing weight after a colon; repeat to mix several identities into one person. Where the whole
    /// names a file it is that file, whatever stands in its name.
    #[arg(long, value_name = "PHOTO[:WEIGHT]", conflicts_with = "person")]
    face: Vec<String>,
    /// One person of several: identities separated by commas, photos of one identity by `+`, as in
    /// `a1.png+a2.png:0.7,b.png:0.3`. Repeat once per person, and give --layout or --content. Where a longer part names a file,
    /// its commas and `+` belong to the name.
    #[arg(long, value_name = "PHOTO[+PHOTO..][:WEIGHT][,..]")]
    person: Vec<String>,
    /// How strongly each person acts, 0 to 2, in the order of --person; one for all, or one for each.
    #[arg(long, value_name = "STRENGTH")]
    identity_strength: Vec<f32>,
    /// The part of the steps from which on each person acts, 0 to 1; likewise.
    #[arg(long, value_name = "PART")]
    identity_start: Vec<f32>,
    /// The part of the steps up to which each person acts; likewise.
    #[arg(long, value_name = "PART")]
    identity_end: Vec<f32>,
    /// The style image.
    #[arg(long)]
    style: Option<PathBuf>,
    /// What the picture shows.
    #[arg(long)]
    prompt: Option<String>,
    /// What a model that sees reference pictures (FLUX.2 klein) is told of them before the prompt, in place of its own words for that
    /// role: `start`, `person` or `style`, and a sentence in which `{images}` becomes "image 1" or "images 2 and 3"; repeat.
    #[arg(long, value_name = "ROLE=SENTENCE")]
    role: Vec<String>,
    /// What it should not show.
    #[arg(long)]
    negative_prompt: Option<String>,
    /// A file of Textual Inversion (.pt, .bin, .safetensors), for words that were learnt: its word, where it stands in a prompt. That is
    /// the one before the equals sign, or the one that diffusers wrote into the file, or the file's name without its ending; repeat.
    #[arg(long, value_name = "[WORD=]FILE")]
    embedding: Vec<String>,
    /// Which layer of a CLIP's text encoder is read, counted from the last: 2 skips one, as "clip skip 2" does elsewhere.
    #[arg(long, default_value_t = 1, value_name = "N")]
    clip_skip: usize,
    /// From the prompt alone (0) to the style image alone (1).
    #[arg(long, default_value_t = 0.5)]
    alpha: f32,
    /// Where each person goes: a box `x,y,width,height` in fractions of the picture, or a mask PNG. Once per person.
    #[arg(long, value_name = "BOX|MASK", conflicts_with = "content")]
    layout: Vec<String>,
    /// A picture whose people, found from left to right, give the layout.
    #[arg(long)]
    content: Option<PathBuf>,
    /// What fills the rest: a person's number (from 1), or `hold` to keep the init image there.
    #[arg(long, default_value = "1")]
    background: String,
    /// Start from this picture instead of noise.
    #[arg(long, group = "start")]
    pub init: Option<PathBuf>,
    /// Puts people into this photo, in the place of faces that it shows: with --replace for each. Outside of the heads the picture is
    /// the photo, byte for byte; that a face was replaced is always said in the file.
    #[arg(long, value_name = "PHOTO", group = "start", requires = "replace", conflicts_with_all = [
        "face", "person", "layout", "content", "background",
    ])]
    pub into: Option<PathBuf>,
    /// A face of --into, and who takes its place: its number in what `facestudio faces` lists (1 is the largest) or its box
    /// `x,y,width,height` in fractions of the photo, and a person as --person takes it, as in `1=anna.png` or
    /// `0.4,0.2,0.1,0.15=ben1.png+ben2.png`. Repeat for several faces.
    #[arg(long, value_name = "FACE=PERSON", requires = "into")]
    pub replace: Vec<String>,
    /// How far to move from the init image (0.6 if not given), or from the faces of --into (0.8 if not given): 0 to 1.
    #[arg(long, requires = "start")]
    pub strength: Option<f32>,
    /// Where the init image, or the photo, may change (white); of --into once for each --replace, in their order, or not at all: then
    /// each head's oval may.
    #[arg(long, requires = "start")]
    pub mask: Vec<PathBuf>,
    /// Draws faces of the finished picture that are small once more, larger: how far to move from them, 0 to 1.
    #[arg(long, value_name = "STRENGTH")]
    redraw_faces: Option<f32>,
    /// Faces below so many pixels are drawn once more; three tenths of the model's own size if not given.
    #[arg(long, value_name = "PIXELS", requires = "redraw_faces")]
    redraw_from: Option<f32>,
    /// Seed; picture i of --count uses seed + i.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of pictures.
    #[arg(long, default_value_t = 1)]
    pub count: usize,
    /// Draws so many pictures, of following seeds, and puts the one most like its people first; beside each picture's file stands its
    /// likeness, from -1 to 1, or `-` where no face was found.
    #[arg(long, default_value_t = 1, conflicts_with = "count", value_name = "N")]
    pub candidates: usize,
    /// Denoising steps; as many as the model is made for if not given.
    #[arg(long)]
    steps: Option<usize>,
    /// Classifier-free guidance scale, 1 turns guidance off; what the model is made for if not given.
    #[arg(long)]
    guidance_scale: Option<f32>,
    /// The sampler; that of the model's scheduler if not given.
    #[arg(long, value_enum)]
    sampler: Option<SamplerName>,
    /// Size as WIDTHxHEIGHT; the model's own if not given.
    #[arg(long, value_name = "WxH")]
    size: Option<String>,
    /// Leave out the invisible mark that says that the pictures were generated.
    #[arg(long)]
    no_watermark: bool,
    /// Leave --prompt and --negative-prompt out of the PNG's metadata; the other settings are written there all the same.
    #[arg(long)]
    no_prompt_in_metadata: bool,
    /// Output PNG; with --count, a number is added before the extension.
    #[arg(long, default_value = "out.png")]
    out: PathBuf,
}

impl Job {
    /// The files that it writes.
    pub fn outputs(&self) -> Vec<PathBuf> {
        match self.pictures() {
            1 => vec![self.out.clone()],
            count => (0..count).map(|i| numbered(&self.out, i)).collect(),
        }
    }
}

impl Job {
    /// How many pictures it makes.
    pub fn pictures(&self) -> usize {
        self.count.max(self.candidates)
    }
}

/// A sampler on the command line, where names have hyphens.
#[derive(Clone, Copy)]
pub struct SamplerName(pub Sampler);

/// Every sampler, and its name with hyphens.
static SAMPLERS: LazyLock<(Vec<SamplerName>, Vec<String>)> = LazyLock::new(|| {
    Sampler::ALL.iter().map(|sampler| (SamplerName(*sampler), sampler.name().replace('_', "-"))).unzip()
});

impl clap::ValueEnum for SamplerName {
    fn value_variants<'a>() -> &'a [Self] {
        &SAMPLERS.0
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (samplers, names) = &*SAMPLERS;
        let place = samplers.iter().position(|other| other.0 == self.0)?;
        Some(PossibleValue::new(names[place].as_str()).help(self.0.label()))
    }
}

/// Makes the pictures; Ctrl-C stops within a step and leaves no file.
pub fn run(args: Args) -> Result<()> {
    let model = args.model.files()?;
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{msg:>10} {wide_bar} {pos}/{len}  {eta} left")?);
    bar.set_message("load");
    let cancelled = interrupt::stop();
    let precision = match (&args.job.recipe, args.precision.as_str()) {
        (Some(path), "auto") => again::read(path)?.precision.parse()?,
        (_, precision) => precision.parse::<Precision>()?,
    };
    let load = || -> Result<FaceStudio> {
        let device = args.backend.device()?;
        precision.check(&device)?;
        Ok(FaceStudio::load(model.as_ref(), &device)?.with_precision(precision)?)
    };
    let make = |studio: &FaceStudio, job: &Job| make(studio, model.as_ref(), job, &bar, &cancelled);
    let Some(file) = &args.jobs else {
        // What is wrong with the request is told before the weights are read.
        request(&args.job, facestudio::pipeline::defaults(model.as_ref())?)?.validate()?;
        args.job.outputs().iter().try_for_each(|path| check_output(path))?;
        return make(&load()?, &args.job);
    };

    let jobs = jobs::read(file, args.shard.unwrap_or_default())?;
    let studio = load()?;
    let (mut failed, mut first) = (0, None);
    let mut written = jobs::Written::default();
    for (line, job) in &jobs {
        let made = written.is_made(file, *line, job).map_err(anyhow::Error::from);
        let made =
            made.and_then(
                |made| if made { Ok(()) } else { make(&studio, job).map(|()| written.note(*line, job)) },
            );
        if let Err(error) = made {
            let error = crate::to_error(error);
            if error.fault == Fault::Cancelled {
                return Err(error.into());
            }
            // The others are worth making all the same.
            bar.suspend(|| output::complain(&format!("{}: ", jobs::place(file, *line)), &error));
            failed += 1;
            first.get_or_insert(error);
        }
    }
    match first {
        None => Ok(()),
        Some(first) => {
            Err(first.context(format!("{failed} of {} jobs failed; the first one", jobs.len())).into())
        }
    }
}

/// Makes the pictures of one request and writes them.
fn make(
    studio: &FaceStudio,
    files: &dyn Files,
    job: &Job,
    bar: &ProgressBar,
    cancelled: &AtomicBool,
) -> Result<()> {
    if let Some(path) = &job.recipe {
        again::read(path)?.check(studio.model(), studio.precision())?;
    }
    let request = request(job, studio.defaults())?;
    let mut phase = None;
    let progress = async |p: facestudio::pipeline::Progress| {
        if phase != Some((p.phase, p.picture)) {
            phase = Some((p.phase, p.picture));
            bar.reset();
        }
        bar.set_length(p.steps as u64);
        bar.set_position(p.step as u64);
        bar.set_message(match p.phase {
            Phase::Encode => "encode".to_owned(),
            Phase::Denoise => format!("picture {}", p.picture + 1),
            Phase::Decode => "decode".to_owned(),
        });
        if cancelled.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let bring = async |name: &str| studio.load_component(name, files);
    let pictures = pollster::block_on(studio.generate_with(&request, progress, bring))?;
    bar.finish_and_clear();
    // All pictures of a request are made from the same texts.
    for notice in pictures.first().iter().flat_map(|picture| &picture.notices) {
        output::warn(notice);
    }

    for (path, picture) in job.outputs().iter().zip(&pictures) {
        write_file(path, &codec::encode_generated_png(&picture.image, &picture.recipe)?)?;
        let likeness = match picture.likeness {
            Some(likeness) => format!("  {likeness:.3}"),
            None if request.candidates > 1 => "  -".to_owned(),
            None => String::new(),
        };
        output::print(&format!("{}{likeness}\n", path.display()))?;
    }
    Ok(())
}

fn request(args: &Job, defaults: Defaults) -> Result<GenerateRequest> {
    if let Some(path) = &args.recipe {
        let recipe = path.canonicalize().ok();
        if recipe.is_some() && args.outputs().iter().any(|out| out.canonicalize().ok() == recipe) {
            return Err(Error::input(
                "output-name",
                format!(
                    "{} is the picture whose recipe is used; the new one would take its place",
                    path.display()
                ),
                "name another file with --out",
            )
            .into());
        }
        let words = [args.prompt.as_deref(), args.negative_prompt.as_deref()];
        let mut request = again::request(path, &args.photo, &embeddings(&args.embedding)?, words)?;
        request.prompt_in_metadata &= !args.no_prompt_in_metadata;
        return Ok(request);
    }
    let start = into::start(args)?;
    let mut people = if let Some(people) = start.people {
        people
    } else if args.person.is_empty() {
        let identities =
            args.face.iter().map(|face| identity(&photos::identity(face))).collect::<Result<Vec<_>>>()?;
        if identities.is_empty() { Vec::new() } else { vec![Person::of(identities)] }
    } else {
        args.person.iter().map(|group| person(group)).collect::<Result<Vec<_>>>()?
    };
    each(&mut people, "--identity-strength", &args.identity_strength, |person| &mut person.strength)?;
    each(&mut people, "--identity-start", &args.identity_start, |person| &mut person.start)?;
    each(&mut people, "--identity-end", &args.identity_end, |person| &mut person.end)?;
    let size = args.size.as_deref().map(parse_size).transpose()?;
    Ok(GenerateRequest {
        people,
        style: args.style.as_deref().map(open).transpose()?,
        prompt: args.prompt.clone().unwrap_or_default(),
        roles: roles(&args.role)?,
        negative_prompt: args.negative_prompt.clone().unwrap_or_default(),
        embeddings: embeddings(&args.embedding)?,
        clip_skip: args.clip_skip,
        alpha: args.alpha,
        layout: layout(args)?,
        background: background(&args.background)?,
        init: start.init,
        into: start.into,
        redraw_faces: args.redraw_faces.map(|strength| RedrawFaces { strength, from: args.redraw_from }),
        seed: args.seed,
        count: args.count,
        candidates: args.candidates,
        steps: args.steps.unwrap_or(defaults.steps),
        guidance_scale: args.guidance_scale.unwrap_or(defaults.guidance_scale),
        sampler: args.sampler.map_or(defaults.sampler, |name| name.0),
        width: size.map(|s| s.0),
        height: size.map(|s| s.1),
        preview_every: None,
        watermark: !args.no_watermark,
        prompt_in_metadata: !args.no_prompt_in_metadata,
    })
}

/// Gives each person a value: one for all, or one for each.
fn each(people: &mut [Person], flag: &str, values: &[f32], of: fn(&mut Person) -> &mut f32) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    if values.len() > 1 && values.len() != people.len() || people.is_empty() {
        return Err(Error::input(
            "identity-values",
            format!("{flag} is given {} times, for {} people", values.len(), people.len()),
            "give one for all, or one for each of --person",
        )
        .into());
    }
    for (person, value) in people.iter_mut().zip(values.iter().cycle()) {
        *of(person) = *value;
    }
    Ok(())
}

/// What a model is told of its reference pictures; `None` where nothing is given.
fn roles(given: &[String]) -> Result<Option<Roles>> {
    let mut roles = Roles::default();
    for text in given {
        let (role, sentence) = text.split_once('=').unwrap_or((text, ""));
        let place = match role {
            "start" => &mut roles.start,
            "person" => &mut roles.person,
            "style" => &mut roles.style,
            _ => {
                return Err(Error::input(
                    "role-name",
                    format!("--role {text}: there is no role '{role}'"),
                    "write start, person or style, an equals sign and a sentence: --role \"person={images} shows Ann.\"",
                )
                .into());
            }
        };
        *place = sentence.to_owned();
    }
    Ok((!given.is_empty()).then_some(roles))
}

/// Words that were learnt, from their files. Where the whole names a file it is that file, whatever stands in its name.
fn embeddings(given: &[String]) -> Result<Vec<Embedding>> {
    let read = |text: &String| {
        let named = text.split_once('=').filter(|_| !Path::new(text).is_file());
        let (word, file) = named.map_or((None, text.as_str()), |(word, file)| (Some(word), file));
        Ok(embedding::read(Path::new(file), word)?)
    };
    given.iter().map(read).collect()
}

/// A person as `--person` names them.
pub fn person(group: &str) -> Result<Person> {
    let identities = photos::identities(group).iter().map(identity).collect::<Result<Vec<_>>>()?;
    Ok(Person::of(identities))
}

/// The photos of one identity, and its weight.
fn identity(named: &photos::Named) -> Result<Identity> {
    let photos = named.photos.iter().map(|path| open(Path::new(path))).collect::<facestudio::Result<_>>()?;
    Ok(Identity::new(photos, named.weight))
}

fn layout(args: &Job) -> Result<Layout> {
    if let Some(content) = &args.content {
        return Ok(Layout::Content(open(content)?));
    }
    if args.layout.is_empty() {
        return Ok(Layout::Whole);
    }
    let boxes: Vec<Option<RelativeBox>> = args.layout.iter().map(|text| parse_box(text)).collect();
    if boxes.iter().all(Option::is_some) {
        return Ok(Layout::Boxes(boxes.into_iter().flatten().collect()));
    }
    if boxes.iter().any(Option::is_some) {
        let message = "--layout mixes boxes and masks";
        return Err(Error::input("layout-mixed", message, "give either boxes or masks for all people").into());
    }
    let masks = args.layout.iter().map(|path| open_mask(Path::new(path)));
    Ok(Layout::Masks(masks.collect::<facestudio::Result<_>>()?))
}

/// `x,y,width,height`.
pub fn parse_box(text: &str) -> Option<RelativeBox> {
    let numbers: Vec<f32> = text.split(',').map(|n| n.trim().parse().ok()).collect::<Option<_>>()?;
    let [x, y, width, height] = numbers[..] else { return None };
    Some(RelativeBox { x, y, width, height })
}

fn parse_size(text: &str) -> Result<(usize, usize)> {
    let parsed = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    parsed.ok_or_else(|| {
        Error::input("size-format", format!("--size is '{text}'"), "write it as 128x128").into()
    })
}

fn background(text: &str) -> Result<Background> {
    match (text, text.parse::<usize>()) {
        ("hold", _) => Ok(Background::Hold),
        (_, Ok(number)) if number >= 1 => Ok(Background::Person(number - 1)),
        _ => Err(Error::input(
            "background-format",
            format!("--background is '{text}'"),
            "give a person's number or `hold`",
        )
        .into()),
    }
}

fn numbered(path: &Path, i: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{i:03}.png"))
}
