//! `facestudio faces`: which faces a model finds in photos, and how alike they are to it.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use facestudio::guidance::mixing::cosine;
use facestudio::pipeline::FaceStudio;
use serde::Serialize;

use crate::backend::Backend;
use crate::model::Model;
use crate::output::{line, print, print_json};
use crate::picture::open;

#[derive(clap::Args)]
pub struct Args {
    /// The photos.
    #[arg(required = true, value_name = "PHOTO")]
    photos: Vec<PathBuf>,
    #[command(flatten)]
    model: Model,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    photos: Vec<Photo>,
    /// How alike the largest face of the row's photo is to that of the column's photo which is most like it: the cosine of the
    /// identity encoder's embeddings, −1 to 1. None where one of the two shows no face.
    similarity: Vec<Vec<Option<f32>>>,
}

#[derive(Serialize)]
struct Photo {
    path: PathBuf,
    /// Left, top, right and bottom edge of each face in pixels, the largest first.
    faces: Vec<[f32; 4]>,
}

pub fn run(args: Args) -> Result<()> {
    let report = pollster::block_on(report(&args))?;
    Ok(if args.json { print_json(&report, true) } else { print(&table(&report)) }?)
}

async fn report(args: &Args) -> Result<Report> {
    let pictures = args.photos.iter().map(|path| open(path)).collect::<facestudio::Result<Vec<_>>>()?;
    let studio = FaceStudio::load(args.model.files()?.as_ref(), &args.backend.device()?)?;
    let (mut photos, mut embeddings) = (Vec::new(), Vec::new());
    for (path, picture) in args.photos.iter().zip(&pictures) {
        let mut found = studio.identities(picture).await?;
        found.sort_by(|(a, _), (b, _)| b.area().total_cmp(&a.area()));
        photos
            .push(Photo { path: path.clone(), faces: found.iter().map(|(face, _)| face.face_box).collect() });
        embeddings.push(found.into_iter().map(|(_, embedding)| embedding).collect::<Vec<_>>());
    }
    let most_alike = |person: &[Vec<f32>], others: &[Vec<f32>]| {
        let largest = person.first()?;
        others.iter().map(|other| cosine(largest, other)).max_by(f32::total_cmp)
    };
    let row = |person: &Vec<Vec<f32>>| embeddings.iter().map(|others| most_alike(person, others)).collect();
    let similarity = embeddings.iter().map(row).collect();
    Ok(Report { photos, similarity })
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    for (i, photo) in report.photos.iter().enumerate() {
        let faces = match photo.faces.len() {
            0 => "no face".to_owned(),
            1 => "1 face".to_owned(),
            n => format!("{n} faces"),
        };
        let _ = write!(text, "{:>3}  {}: {faces}", i + 1, line(&photo.path.display().to_string()));
        for [left, top, right, bottom] in &photo.faces {
            let _ = write!(text, ", {left:.0},{top:.0} to {right:.0},{bottom:.0}");
        }
        text += "\n";
    }
    if report.photos.len() > 1 {
        text += "\nHow alike they are to the identity encoder, from −1 to 1:\n     ";
        (1..=report.photos.len()).for_each(|i| text += &format!("{i:>6}"));
        for (i, row) in report.similarity.iter().enumerate() {
            let _ = write!(text, "\n{:>3}  ", i + 1);
            row.iter().for_each(|cell| text += &cell.map_or("     –".to_owned(), |v| format!("{v:>6.2}")));
        }
        text += "\n";
    }
    text
}
