//! Does the face come from the photo and not from the style image? Both show people; only one of them conditions.

use super::drawing::{Drawing, TARGETS};
use super::lab::Lab;
use super::likeness::cosine;
use super::options::EvalOptions;
use super::section::{Cell, Grid, Plot, PlotKind, Section, Shown, Table, Target, Unit};
use super::statistics::{share, share_of};
use super::table_1::{with_image, without_identity};
use facestudio::error::Result;

/// Rows of the grid.
const SHOWN: usize = 6;

pub fn plan(options: &EvalOptions) -> Vec<Drawing> {
    (0..options.trials).flat_map(|i| [with_image(options, i), without_identity(options, i)]).collect()
}

pub fn measure(lab: &Lab) -> Result<Section> {
    let options = &lab.options;
    let n = options.trials;
    let levels = lab.levels(n)?;
    let mut section = Section::new([
        "The style image shows another person than the photo does. The margin is the picture's similarity to the photo's \
         person less its similarity to the style image's person, in units of the encoder's scale between two people (0) \
         and one (1); each similarity is the mean over two photos that conditioned nothing. A picture without a face \
         has margin 0. The same pictures without an identity input are the control: there the margin should be 0 or \
         less, since whatever leaks comes from the style image's person.",
    ]);
    let (mut margins, mut wins) = ([Vec::new(), Vec::new()], [0, 0]);
    let (mut closer, mut nearest, mut missing) = (0, 0, 0);
    for i in 0..n {
        let pair = [with_image(options, i), without_identity(options, i)];
        for (k, drawing) in pair.iter().enumerate() {
            let stranger = drawing.style.as_ref().and_then(|style| style.shows.first().copied());
            let margin = match (lab.likeness(drawing, i as u64)?, stranger) {
                (Some(own), Some(stranger)) => own - lab.likeness(drawing, stranger)?.unwrap_or(own),
                _ => 0.0,
            };
            margins[k].push(margin);
            wins[k] += usize::from(margin > 0.0);
        }
        let Some(face) = lab.faces(&pair[0])?.first().cloned() else {
            missing += 1;
            continue;
        };
        let to: Vec<f64> = (0..n as u64)
            .map(|who| Ok(cosine(&face.embedding, &lab.photo(who, TARGETS[0])?)))
            .collect::<Result<_>>()?;
        closer += usize::from(to[i] > to[(i + 1) % n]);
        nearest += usize::from((0..n).all(|j| j == i || to[j] < to[i]));
    }
    let margin = levels.difference(&margins[0]);
    let control = levels.difference(&margins[1]);
    section.aimed("margin", "style-swap margin", margin, Unit::Plain, Target::AtLeast(0.4));
    section.figure("control", "margin without identity input", control, Unit::Plain);
    section.figure(
        "wins",
        "closer to the photo's person than to the style's",
        share(wins[0], n),
        Unit::Share,
    );
    section.figure("control-wins", "the same without identity input", share(wins[1], n), Unit::Share);
    let label = "closer to the photo's person than to a third, chosen beforehand";
    section.figure("closer", label, share(closer, n), Unit::Share);
    let label = format!("nearest of all {n} people is the photo's");
    section.figure("nearest", &label, share(nearest, n), Unit::Share);
    section.figure("no-face", "pictures without a face", share(missing, n), Unit::Share);
    section.plots.push(Plot {
        caption: "Margin: similarity to the photo's person less that to the style image's".to_owned(),
        unit: Unit::Plain,
        kind: PlotKind::Rows(vec![
            ("with the photo".to_owned(), margin),
            ("without identity input".to_owned(), control),
        ]),
        marks: vec![("neither".to_owned(), 0.0), ("target".to_owned(), 0.4)],
    });
    let positive = |margins: &[f64]| Cell::Estimate(share_of(margins.iter().map(|m| *m > 0.0)), Unit::Share);
    section.tables.push(Table {
        caption: "Pictures closer to the photo's person than to the style image's, by style".to_owned(),
        head: ["style", "with the photo"].map(str::to_owned).to_vec(),
        rows: super::styles::by_style(&margins[0])
            .into_iter()
            .map(|(style, margins)| (style, vec![positive(&margins)]))
            .collect(),
    });
    section.grids.push(Grid {
        caption: "The photo's person in the style image of someone else".to_owned(),
        head: ["photo", "style image", "picture", "without photo"].map(str::to_owned).to_vec(),
        labels: Vec::new(),
        rows: (0..n.min(SHOWN))
            .map(|i| {
                let drawing = with_image(options, i);
                let photo = drawing.people[0][0].photos[0].clone();
                let style = drawing.style.clone().map(Shown::Staged);
                let control = Shown::drawing(without_identity(options, i));
                vec![Some(Shown::Photo(photo)), style, Shown::drawing(drawing), control]
            })
            .collect(),
    });
    Ok(section)
}
