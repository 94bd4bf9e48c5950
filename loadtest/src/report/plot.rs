//! Lines over time as SVG, inline in a page whose style sheet has the colours.
//!
//! Invariants: everything that comes from outside is escaped; the lower end of every scale is 0. Lines differ in colour
//! and in dashes, so that they are told apart without colours.
#![deny(clippy::disallowed_methods)]

use super::series::{Axis, Chart, Line};
use std::fmt::{self, Write};

/// Of the drawing, in its own units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

/// Text as it stands in HTML, also in quoted attributes.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Round steps of a scale from 0 that holds `max`: their width and how many.
fn scale(max: f64) -> (f64, u32) {
    if max <= 0.0 || !max.is_finite() {
        return (1.0, 1);
    }
    let raw = max / 5.0;
    let magnitude = 10_f64.powf(raw.log10().floor());
    let width = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|round| round * magnitude)
        .find(|width| *width >= raw * 0.999_999)
        .unwrap_or(10.0 * magnitude);
    (width, (max / width * 0.999_999).ceil().max(1.0) as u32)
}

/// A number with no more digits than are needed beside steps of `width`.
fn label(value: f64, width: f64) -> String {
    let digits = (0..6).find(|digits| {
        let shifted = width * 10_f64.powi(*digits);
        (shifted - shifted.round()).abs() < 1e-6 * shifted.max(1.0)
    });
    let text = format!("{value:.*}", digits.unwrap_or(6) as usize);
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    rest.map_or(grouped.clone(), |rest| format!("{grouped}.{rest}"))
}

/// Seconds between the labels of the time axis: about ten of them, whatever a file says that somebody wrote by hand.
fn time_step(seconds: u64) -> u64 {
    const ROUND: [u64; 15] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400];
    let longer = || (seconds / 10).next_multiple_of(43_200);
    ROUND.into_iter().find(|step| seconds / step <= 10).unwrap_or_else(longer)
}

fn clock(seconds: u64, step: u64) -> String {
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (step.is_multiple_of(60), h) {
        _ if seconds < 60 && step < 60 => format!("{s}"),
        (_, 0) => format!("{m}:{s:02}"),
        _ => format!("{h}:{m:02}:{s:02}"),
    }
}

/// One chart in a time.
pub(super) struct Plot<'a> {
    pub(super) axis: Axis,
    /// Seconds at the left that are not in the figures.
    pub(super) ramp: f64,
    pub(super) chart: &'a Chart,
}

impl Plot<'_> {
    fn x(&self, at: f64) -> f64 {
        // A step stands for its time, so its value stands in its middle.
        LEFT + (WIDTH - LEFT - RIGHT) * at / (self.axis.count.max(1) as f64)
    }

    fn grid(&self, out: &mut String, (width, count): (f64, u32)) -> fmt::Result {
        let seconds = (self.axis.count as u64).saturating_mul(self.axis.step);
        let bottom = HEIGHT - BOTTOM;
        let ramp = (self.ramp / self.axis.step as f64).min(self.axis.count as f64);
        if ramp > 0.0 {
            let x = self.x(ramp);
            write!(
                out,
                "<rect class=\"ramp\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"><title>before the measured \
                 time</title></rect>",
                x - LEFT,
                bottom - TOP
            )?;
        }
        for index in 0..=count {
            let y = bottom - (bottom - TOP) * f64::from(index) / f64::from(count);
            let text = label(width * f64::from(index), width);
            write!(out, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/>", WIDTH - RIGHT)?;
            write!(
                out,
                "<text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{text}</text>",
                LEFT - 6.0,
                y + 4.0
            )?;
        }
        let step = time_step(seconds);
        for at in (0..=seconds).step_by(step as usize) {
            let x = self.x(at as f64 / self.axis.step as f64);
            write!(out, "<path class=\"tickmark\" d=\"M{x:.1} {bottom:.1}v4\"/>")?;
            write!(
                out,
                "<text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                bottom + 17.0,
                clock(at, step)
            )?;
        }
        write!(
            out,
            "<text class=\"unit\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">time since the first viewer ({})</text>",
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 5.0,
            if seconds <= 60 { "s" } else { "min:s" }
        )?;
        let middle = f64::midpoint(TOP, bottom);
        write!(
            out,
            "<text class=\"unit\" text-anchor=\"middle\" transform=\"translate(13 {middle:.1}) rotate(-90)\">{}</text>",
            Escaped(self.chart.unit)
        )
    }

    fn line(&self, out: &mut String, (index, line): (usize, &Line), top: f64) -> fmt::Result {
        let bottom = HEIGHT - BOTTOM;
        let at = |index: usize, value: f64| {
            (self.x(index as f64 + 0.5), bottom - (bottom - TOP) * (value / top).clamp(0.0, 1.0))
        };
        let mut path = String::new();
        let mut alone = String::new();
        for (place, value) in line.values.iter().enumerate() {
            let Some(value) = value else { continue };
            let (x, y) = at(place, *value);
            let before = place > 0 && line.values[place - 1].is_some();
            let after = line.values.get(place + 1).is_some_and(Option::is_some);
            write!(path, "{}{x:.1} {y:.1}", if before { 'L' } else { 'M' })?;
            if !before && !after {
                write!(alone, "<circle class=\"dot c{index}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>")?;
            }
        }
        write!(out, "<path class=\"line c{index}\" d=\"{path}\"/>{alone}")
    }

    /// Values for the reader under the pointer, as JSON in an attribute.
    fn values(&self) -> String {
        let lines: Vec<_> = self
            .chart
            .lines
            .iter()
            .map(|line| {
                let short = |value: &f64| (value * 100.0).round() / 100.0;
                let values: Vec<Option<f64>> =
                    line.values.iter().map(|value| value.as_ref().map(short)).collect();
                serde_json::json!({ "n": line.name, "v": values })
            })
            .collect();
        let values = serde_json::json!({
            "unit": self.chart.unit,
            "begin": self.axis.begin,
            "step": self.axis.step,
            "left": LEFT / WIDTH,
            "right": (WIDTH - RIGHT) / WIDTH,
            "lines": lines,
        });
        values.to_string()
    }

    /// The figure: heading, drawing, legend.
    pub(super) fn draw(&self, out: &mut String) -> fmt::Result {
        let chart = self.chart;
        let max =
            chart.lines.iter().flat_map(|line| line.values.iter().flatten()).copied().fold(0.0, f64::max);
        let steps = scale(max);
        write!(
            out,
            "<figure class=\"plot\" data-values=\"{}\"><figcaption><h3>{}</h3><p>{}</p></figcaption>\
             <div class=\"canvas\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            Escaped(&self.values()),
            Escaped(chart.title),
            Escaped(chart.caption),
            Escaped(chart.title)
        )?;
        self.grid(out, steps)?;
        for line in chart.lines.iter().enumerate() {
            self.line(out, line, steps.0 * f64::from(steps.1))?;
        }
        write!(out, "<path class=\"pointer\" d=\"\"/></svg></div><ul class=\"legend\">")?;
        for (index, line) in chart.lines.iter().enumerate() {
            write!(
                out,
                "<li><svg viewBox=\"0 0 28 8\" aria-hidden=\"true\"><path class=\"line c{index}\" d=\"M1 4H27\"/></svg>{}</li>",
                Escaped(&line.name)
            )?;
        }
        write!(out, "</ul></figure>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_hold_the_greatest() {
        for (max, width, count) in [
            (0.0, 1.0, 1),
            (f64::NAN, 1.0, 1),
            (1.0, 0.2, 5),
            (7.0, 2.0, 4),
            (10.0, 2.0, 5),
            (11.0, 2.5, 5),
            (99.0, 20.0, 5),
            (3001.0, 1000.0, 4),
        ] {
            let (found, steps) = scale(max);
            assert!((found - width).abs() < 1e-9 && steps == count, "{max}: {found} {steps}");
        }
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(label(12_500.0, 2500.0), "12\u{202f}500");
        assert_eq!(label(0.4, 0.2), "0.4");
        assert_eq!(label(7.5, 2.5), "7.5");
        assert_eq!(label(100.0, 50.0), "100");
        assert_eq!((time_step(12), time_step(100), time_step(86_400)), (2, 10, 14_400));
        assert_eq!((time_step(10 * 86_400), time_step(u64::MAX) / (u64::MAX / 10)), (86_400, 1));
        assert_eq!(
            (clock(50, 10), clock(70, 10), clock(3660, 600)),
            ("50".into(), "1:10".into(), "1:01:00".into())
        );
    }

    #[test]
    fn a_gap_is_no_line_and_text_is_escaped() {
        let line = Line {
            name: "<b>&\"".into(),
            values: vec![Some(1.0), Some(2.0), None, Some(3.0), None, Some(1.0), Some(1.0)],
        };
        let chart = Chart { title: "T", unit: "ms", caption: "C", lines: vec![line] };
        let axis = Axis { begin: 100, step: 1, count: 7 };
        let mut out = String::new();
        Plot { axis, ramp: 2.0, chart: &chart }.draw(&mut out).unwrap();
        let path = out.split("class=\"line c0\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (3, 2));
        assert_eq!(out.matches("<circle").count(), 1, "a value between gaps is a dot");
        assert!(!out.contains("<b>") && out.contains("&lt;b&gt;&amp;"));
        assert!(out.contains("class=\"ramp\""));
    }
}
