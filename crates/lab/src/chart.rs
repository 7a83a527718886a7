//! The only writer of charts, as SVG without a look: the report's plots and the loss curve of a run.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::json;

use facestudio::error::{Error, Result};

/// Margins around the axes: left, right, top and bottom.
const MARGINS: [f64; 4] = [44.0, 12.0, 10.0, 40.0];
/// Units of a strip across; its height is the row's.
const STRIP: f64 = 1000.0;

/// Values along an axis.
pub struct Lines<'a> {
    /// Width and height in SVG's units, which are pixels on a narrow screen.
    pub size: [f64; 2],
    /// What the axis is.
    pub axis: &'a str,
    /// What is written at which places of the axis, from its beginning to its end.
    pub places: Vec<(f64, String)>,
    /// What is written at which values, from the bottom to the top.
    pub ticks: Vec<(f64, String)>,
    /// The lines.
    pub lines: Vec<Line<'a>>,
    /// Whether each point has a dot.
    pub dots: bool,
}

/// A line of a chart.
pub struct Line<'a> {
    /// What it shows.
    pub name: &'a str,
    /// Its first value and its last as text, for who cannot see it.
    pub ends: [String; 2],
    /// The points, along the axis.
    pub points: Vec<Point>,
}

/// A point of a line.
#[derive(Clone, Copy)]
pub struct Point {
    /// Its place on the axis.
    pub place: f64,
    /// Its value.
    pub value: f64,
    /// The ends of the value's interval, where it has one.
    pub interval: Option<[f64; 2]>,
}

/// A figure between its interval's ends, on a strip that stretches with the page.
#[derive(Serialize)]
pub struct Strip {
    low: String,
    high: String,
    value: String,
}

/// One place, as SVG writes it.
fn at(value: f64) -> String {
    format!("{value:.1}")
}

/// A linear map of `from` onto `to`.
fn scale(from: [f64; 2], to: [f64; 2]) -> impl Fn(f64) -> f64 {
    move |value| to[0] + (to[1] - to[0]) * (value - from[0]) / (from[1] - from[0]).max(1e-9)
}

fn ends(labels: &[(f64, String)]) -> [f64; 2] {
    [labels.first().map_or(0.0, |label| label.0), labels.last().map_or(1.0, |label| label.0)]
}

impl Lines<'_> {
    /// An `<svg>` element; with a `style`, a file that stands alone.
    pub fn svg(&self, style: Option<&str>) -> Result<String> {
        let ([width, height], [left, right, top, bottom]) = (self.size, MARGINS);
        let x = scale(ends(&self.places), [left, width - right]);
        let y = scale(ends(&self.ticks), [height - bottom, top]);
        let corner = |point: &Point, value: f64| format!("{} {}", at(x(point.place)), at(y(value)));
        let line = |line: &Line| {
            let points: Vec<&Point> = line.points.iter().filter(|point| point.value.is_finite()).collect();
            let side = |point: &Point, k: usize| point.interval.map(|interval| corner(point, interval[k]));
            let upper = points.iter().filter_map(|point| side(point, 1));
            let band: Vec<String> =
                upper.chain(points.iter().rev().filter_map(|point| side(point, 0))).collect();
            let middle: Vec<String> = points.iter().map(|point| corner(point, point.value)).collect();
            let dots: Vec<[String; 2]> = match self.dots {
                true => points.iter().map(|point| [at(x(point.place)), at(y(point.value))]).collect(),
                false => Vec::new(),
            };
            json!({
                "name": line.name,
                "ends": line.ends,
                "band": band.join(" "),
                "points": middle.join(" "),
                "dots": dots,
            })
        };
        let labels = |labels: &[(f64, String)], map: &dyn Fn(f64) -> f64| -> Vec<(f64, String)> {
            labels.iter().map(|(value, text)| ((map(*value) * 10.0).round() / 10.0, text.clone())).collect()
        };
        let context = json!({
            "width": width,
            "height": height,
            "left": left,
            "right": width - right,
            "bottom": height - bottom,
            "style": style,
            "axis": self.axis,
            "ticks": labels(&self.ticks, &y),
            "places": labels(&self.places, &x),
            "lines": self.lines.iter().map(line).collect::<Vec<_>>(),
        });
        render("chart.html", include_str!("chart.html"), &context)
    }
}

/// Strips on one axis from `low` to `high`, none where there is no figure, and where its marks are.
pub fn strips(
    [low, high]: [f64; 2],
    figures: impl Iterator<Item = [f64; 3]>,
    marks: impl Iterator<Item = f64>,
) -> (Vec<Option<Strip>>, Vec<String>) {
    let x = scale([low, high], [0.0, STRIP]);
    let strip = |[low, value, high]: [f64; 3]| {
        value.is_finite().then(|| Strip { low: at(x(low)), value: at(x(value)), high: at(x(high)) })
    };
    (figures.map(strip).collect(), marks.map(|mark| at(x(mark))).collect())
}

/// Of all templates: blocks leave no lines behind, and a name that there is not is an error.
pub fn environment() -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    Ok(environment)
}

/// The text of one template, escaped as its name's ending asks.
pub fn render(name: &str, template: &str, context: &impl Serialize) -> Result<String> {
    let written = environment()
        .and_then(|environment| environment.render_named_str(name, template, Value::from(Serde(context))));
    written.map_err(|e| Error::internal("template", format!("{name}: {e:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_between_the_ends_of_the_axes() {
        let point = |place, value| Point { place, value, interval: Some([value - 0.5, value + 0.5]) };
        let none = Point { place: 1.0, value: f64::NAN, interval: None };
        let chart = Lines {
            size: [156.0, 150.0],
            axis: "a < b",
            places: vec![(0.0, "0".to_owned()), (2.0, "2".to_owned())],
            ticks: vec![(0.0, "none".to_owned()), (4.0, "all".to_owned())],
            lines: vec![Line {
                name: "one",
                ends: ["0".to_owned(), "4".to_owned()],
                points: vec![point(0.0, 0.0), none, point(2.0, 4.0)],
            }],
            dots: true,
        };
        let svg = chart.svg(None).unwrap();
        assert!(svg.contains("points=\"44.0 110.0 144.0 10.0\""), "{svg}");
        assert!(svg.contains("44.0 97.5 144.0 -2.5 144.0 22.5 44.0 122.5"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("a &lt; b") && svg.contains("one: 0 to 4") && !svg.contains("xmlns"), "{svg}");
        let alone = Lines { dots: false, ..chart }.svg(Some("path { fill: none }")).unwrap();
        assert!(
            alone.contains("xmlns") && alone.contains("fill: none") && !alone.contains("<circle"),
            "{alone}"
        );
    }
}
