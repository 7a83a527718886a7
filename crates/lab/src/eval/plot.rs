//! Plots as HTML and inline SVG.

use std::fmt::Write;

use super::html::escape;
use super::section::{Plot, PlotKind, Unit, number};
use super::statistics::Estimate;

/// Units of a strip's SVG across; its height is the row's.
const STRIP: f64 = 1000.0;
/// Size of a line plot in SVG units, which are pixels on a narrow screen, and the margins around its axes.
const LINES: [f64; 2] = [360.0, 240.0];
const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;

/// A figure element.
pub fn plot(plot: &Plot) -> String {
    let (class, inner) = match &plot.kind {
        PlotKind::Rows(rows) => ("rows", self::rows(rows, &plot.marks, plot.unit)),
        PlotKind::Lines { axis, places, lines } => ("lines", self::lines(axis, places, lines, plot.unit)),
    };
    format!(
        "<figure class=\"{class}\"><figcaption>{}</figcaption>\n{inner}</figure>\n",
        escape(&plot.caption)
    )
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

/// One row a figure: label, strip and number. The strip alone stretches with the page.
fn rows(rows: &[(String, Estimate)], marks: &[(String, f64)], unit: Unit) -> String {
    let values =
        rows.iter().flat_map(|(_, e)| [e.value, e.low, e.high]).chain(marks.iter().map(|mark| mark.1));
    let (low, high, _) = axis(values, unit);
    let x = |value: f64| STRIP * (value - low) / (high - low);
    let mut out = String::from("<div class=\"strips\">\n");
    let lines: String = marks
        .iter()
        .map(|(_, value)| format!("<path class=\"mark\" d=\"M{:.1} 0V28\"/>", x(*value)))
        .collect();
    let strip = |inner: &str| {
        format!(
            "<svg viewBox=\"0 0 {STRIP} 28\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
             <path class=\"base\" d=\"M0 14H{STRIP}\"/>{lines}{inner}</svg>"
        )
    };
    for (label, estimate) in rows {
        let mut inner = String::new();
        if estimate.value.is_finite() {
            let _ = write!(
                inner,
                "<path class=\"interval\" d=\"M{:.1} 14H{:.1}\"/><path class=\"dot\" d=\"M{:.1} 14h0\"/>",
                x(estimate.low),
                x(estimate.high),
                x(estimate.value)
            );
        }
        let _ = writeln!(
            out,
            "<span class=\"label\">{}</span>{}<span class=\"value\">{}</span>",
            escape(label),
            strip(&inner),
            number(estimate.value, unit)
        );
    }
    let ends = format!("<span>{}</span><span>{}</span>", number(low, unit), number(high, unit));
    let _ = writeln!(out, "<span></span><span class=\"ends\">{ends}</span><span></span>\n</div>");
    if !marks.is_empty() {
        let marks: Vec<String> = marks
            .iter()
            .map(|(label, value)| format!("{} {}", escape(label), number(*value, unit)))
            .collect();
        let _ = writeln!(out, "<p class=\"key\">Dashed: {}</p>", marks.join(", "));
    }
    out
}

/// Values along an axis with their intervals.
fn lines(axis_name: &str, places: &[f64], lines: &[(String, Vec<Estimate>)], unit: Unit) -> String {
    let values = lines.iter().flat_map(|(_, values)| values).flat_map(|e| [e.value, e.low, e.high]);
    let (low, high, tick) = axis(values, unit);
    let (first, last) = (places.first().copied().unwrap_or(0.0), places.last().copied().unwrap_or(1.0));
    let [width, height] = LINES;
    let x = |place: f64| LEFT + (width - LEFT - RIGHT) * (place - first) / (last - first).max(1e-9);
    let y = |value: f64| height - BOTTOM - (height - TOP - BOTTOM) * (value - low) / (high - low);
    let mut out = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n", {
        let ends = lines.iter().map(|(name, values)| {
            let end = |e: Option<&Estimate>| e.map_or_else(String::new, |e| number(e.value, unit));
            format!("{}: {} to {}", escape(name), end(values.first()), end(values.last()))
        });
        ends.collect::<Vec<_>>().join("; ")
    });
    let ticks = ((high - low) / tick).round() as usize;
    for k in 0..=ticks {
        let value = low + tick * k as f64;
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {0:.1}H{1}\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>",
            y(value),
            width - RIGHT,
            LEFT - 6.0,
            y(value) + 4.0,
            number(value, unit)
        );
    }
    for place in places {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(*place),
            height - BOTTOM + 16.0,
            place_label(*place)
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        (LEFT + width - RIGHT) / 2.0,
        height - 6.0,
        escape(axis_name)
    );
    for (k, (_, values)) in lines.iter().enumerate() {
        let points: Vec<(f64, &Estimate)> =
            places.iter().copied().zip(values).filter(|(_, e)| e.value.is_finite()).collect();
        let band = |value: fn(&Estimate) -> f64, (place, e): &(f64, &Estimate)| {
            format!("{:.1} {:.1}", x(*place), y(value(e)))
        };
        let upper = points.iter().map(|point| band(|e| e.high, point));
        let lower = points.iter().rev().map(|point| band(|e| e.low, point));
        let outline: Vec<String> = upper.chain(lower).collect();
        let middle: Vec<String> = points.iter().map(|point| band(|e| e.value, point)).collect();
        let _ = writeln!(
            out,
            "<polygon class=\"band s{k}\" points=\"{}\"/><polyline class=\"line s{k}\" points=\"{}\"/>",
            outline.join(" "),
            middle.join(" ")
        );
        for (place, estimate) in points {
            let _ = write!(
                out,
                "<circle class=\"point s{k}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"/>",
                x(place),
                y(estimate.value)
            );
        }
    }
    out += "</svg>\n<p class=\"key\">";
    for (k, (name, _)) in lines.iter().enumerate() {
        let _ = write!(
            out,
            "<span><svg class=\"swatch\" viewBox=\"0 0 24 10\" aria-hidden=\"true\"><path class=\"line s{k}\" d=\"M0 5H24\"/>\
             </svg> {}</span> ",
            escape(name)
        );
    }
    out += "</p>\n";
    out
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
        let plot = Plot {
            caption: "a < b".to_owned(),
            unit: Unit::Plain,
            kind: PlotKind::Rows(vec![("none".to_owned(), none), ("some".to_owned(), some)]),
            marks: vec![("half".to_owned(), 0.5)],
        };
        let html = self::plot(&plot);
        assert_eq!(html.matches("class=\"dot\"").count(), 1);
        assert!(html.contains("a &lt; b") && !html.contains("NaN"), "{html}");
        let lines = PlotKind::Lines {
            axis: "x".to_owned(),
            places: vec![0.0, 1.0],
            lines: vec![("one".to_owned(), vec![none, some])],
        };
        let html = self::plot(&Plot { kind: lines, ..plot });
        assert_eq!(html.matches("<circle").count(), 1);
        assert!(!html.contains("NaN"), "{html}");
    }
}
