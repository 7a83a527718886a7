//! What the report's plots show, as charts.

use serde::Serialize;

use super::section::{Plot, PlotKind, Unit, number};
use super::statistics::Estimate;
use crate::chart::{self, Line, Lines, Point, Strip};
use facestudio::error::Result;

/// Size of a line plot in pixels on a narrow screen.
const SIZE: [f64; 2] = [360.0, 240.0];

/// A plot as `page.html` writes it: bars, or lines.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Drawn {
    /// One figure with its interval a line.
    Bars {
        /// Label, strip and figure of each.
        bars: Vec<(String, Option<Strip>, String)>,
        /// Where the marks are on every strip.
        places: Vec<String>,
        /// What they mark.
        marks: Vec<(String, String)>,
        /// The ends of the axis.
        ends: [String; 2],
    },
    /// Values along an axis.
    Lines {
        /// The chart.
        svg: String,
        /// What its lines are.
        names: Vec<String>,
    },
}

/// Draws a plot.
pub fn draw(plot: &Plot) -> Result<Drawn> {
    let unit = plot.unit;
    Ok(match &plot.kind {
        PlotKind::Bars { bars, marks } => {
            let figures = || bars.iter().map(|(_, e)| [e.low, e.value, e.high]);
            let (low, high, _) = axis(figures().flatten().chain(marks.iter().map(|mark| mark.1)), unit);
            let (strips, places) = chart::strips([low, high], figures(), marks.iter().map(|mark| mark.1));
            let bars = bars.iter().zip(strips);
            Drawn::Bars {
                bars: bars.map(|((label, e), strip)| (label.clone(), strip, number(e.value, unit))).collect(),
                places,
                marks: marks.iter().map(|(label, value)| (label.clone(), number(*value, unit))).collect(),
                ends: [low, high].map(|end| number(end, unit)),
            }
        }
        PlotKind::Lines { axis: name, places, lines } => {
            let values = lines.iter().flat_map(|(_, values)| values).flat_map(|e| [e.value, e.low, e.high]);
            let (low, high, tick) = axis(values, unit);
            let ticks = (0..=((high - low) / tick).round() as usize).map(|k| low + tick * k as f64);
            let chart = Lines {
                size: SIZE,
                axis: name,
                places: places.iter().map(|place| (*place, place_label(*place))).collect(),
                ticks: ticks.map(|value| (value, number(value, unit))).collect(),
                lines: lines.iter().map(|(name, values)| line(name, places, values, unit)).collect(),
                dots: true,
            };
            Drawn::Lines { svg: chart.svg(None)?, names: lines.iter().map(|line| line.0.clone()).collect() }
        }
    })
}

fn line<'a>(name: &'a str, places: &[f64], values: &[Estimate], unit: Unit) -> Line<'a> {
    let end = |e: Option<&Estimate>| e.map_or_else(String::new, |e| number(e.value, unit));
    let points = places.iter().zip(values);
    let point = |(place, e): (&f64, &Estimate)| Point {
        place: *place,
        value: e.value,
        interval: Some([e.low, e.high]),
    };
    Line { name, ends: [end(values.first()), end(values.last())], points: points.map(point).collect() }
}

/// Ends of an axis that shows all values, in round numbers, and the distance of its ticks.
fn axis(values: impl Iterator<Item = f64>, unit: Unit) -> (f64, f64, f64) {
    let (mut low, mut high) = match unit {
        Unit::Share => (0.0, 1.0),
        _ => (f64::INFINITY, f64::NEG_INFINITY),
    };
    for value in values.filter(|value| value.is_finite()) {
        low = low.min(value);
        high = high.max(value);
    }
    if !(low.is_finite() && high > low) {
        (low, high) = if low.is_finite() { (low - 0.5, low + 0.5) } else { (0.0, 1.0) };
    }
    let rough = (high - low) / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let tick = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|tick| *tick >= rough * 0.999);
    let tick = tick.unwrap_or(10.0 * power);
    ((low / tick + 1e-9).floor() * tick, (high / tick - 1e-9).ceil() * tick, tick)
}

/// At most two decimals, and none that say nothing.
fn place_label(place: f64) -> String {
    let text = format!("{place:.2}");
    text.trim_end_matches('0').trim_end_matches('.').replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_all_values_in_round_numbers() {
        assert_eq!(axis([0.3, 0.4].into_iter(), Unit::Share), (0.0, 1.0, 0.25));
        let (low, high, tick) = axis([-0.13, 0.92, f64::NAN].into_iter(), Unit::Plain);
        assert!(low <= -0.13 && high >= 0.92 && (low / tick).fract().abs() < 1e-9, "{low} {high} {tick}");
        let (low, high, _) = axis([2.0].into_iter(), Unit::Plain);
        assert!(low < 2.0 && high > 2.0);
        assert_eq!(axis([f64::NAN].into_iter(), Unit::Plain).0, 0.0);
    }

    #[test]
    fn places_are_short() {
        let labels = [f64::from(0.4f32), 25.0, -50.0, 0.25, 0.0, 1.0].map(place_label);
        assert_eq!(labels, ["0.4", "25", "−50", "0.25", "0", "1"]);
    }

    #[test]
    fn a_figure_that_there_is_not_is_not_drawn() {
        let none = Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN, n: 0 };
        let some = Estimate { value: 0.5, low: 0.4, high: 0.6, n: 9 };
        let bars = vec![("none".to_owned(), none), ("some".to_owned(), some)];
        let kind = PlotKind::Bars { bars, marks: vec![("half".to_owned(), 0.5)] };
        let plot = Plot { caption: String::new(), unit: Unit::Plain, kind };
        let Drawn::Bars { bars, places, .. } = draw(&plot).unwrap() else { panic!() };
        assert!(bars[0].1.is_none() && bars[1].1.is_some());
        assert_eq!((bars[0].2.as_str(), places.as_slice()), ("–", ["500.0".to_owned()].as_slice()));
        let kind = PlotKind::Lines {
            axis: "x".to_owned(),
            places: vec![0.0, 1.0],
            lines: vec![("one".to_owned(), vec![none, some])],
        };
        let Drawn::Lines { svg, names } = draw(&Plot { kind, ..plot }).unwrap() else { panic!() };
        assert_eq!((svg.matches("<circle").count(), names), (1, vec!["one".to_owned()]));
        assert!(!svg.contains("NaN"), "{svg}");
    }
}
