//! Latencies: what share was over after a time, and how many took how long.

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::combinators::{IntoLogRange, LogCoord};
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::IntoDrawingArea;
use plotters::element::{PathElement, Rectangle};
use plotters::prelude::{Cartesian2d, LineSeries, SVGBackend};
use plotters::style::{Color, RGBColor, TRANSPARENT};

use super::{FONT, LATENCIES, WIDTH, drawn};
use crate::campaign::statistics::{Sample, survival};
use crate::campaign::summary::ClassSummary;
use crate::error::Result;
use crate::units::float;

/// Buckets of the histogram in a factor of ten.
const BUCKETS: f64 = 10.0;
/// Half the height of the tick of a censored time, in percent.
const TICK: f64 = 2.5;
/// Enough that every digit of every power of ten has its line; few are numbered.
const TICKS: usize = 60;
/// Height of a histogram.
const ROW: u32 = 92;
const NAMES: u32 = 60;

/// One latency and what was measured of it.
struct Curve<'a> {
    name: &'static str,
    colour: RGBColor,
    samples: &'a [Sample],
}

fn curves(class: &ClassSummary) -> [Curve<'_>; 4] {
    LATENCIES.map(|(name, colour)| {
        let samples = class.samples.iter().find(|(of, _)| *of == name);
        let samples = samples.map_or(&[] as &[Sample], |(_, samples)| samples);
        Curve {
            name,
            colour,
            samples,
        }
    })
}

const fn measured(sample: &Sample) -> Option<f64> {
    match *sample {
        Sample::Measured(time) if time > 0.0 => Some(time),
        _ => None,
    }
}

/// The span of times that were measured, with some room; `None` if none was.
fn span(curves: &[Curve<'_>]) -> Option<(f64, f64)> {
    let times = || {
        let samples = curves.iter().flat_map(|curve| curve.samples);
        samples.filter_map(measured)
    };
    let least = times().min_by(f64::total_cmp)?;
    Some((least * 0.8, times().fold(least, f64::max) * 1.25))
}

/// Between powers of ten only 2 and 5 have room for their number.
fn tick(time: f64) -> String {
    let power = 10_f64.powf(time.log10().floor());
    let digit = (time / power).round();
    let shown = [1.0, 2.0, 5.0, 10.0]
        .iter()
        .any(|one| (digit - one).abs() < 0.1);
    match shown {
        true if time < 1.0 => format!("{time:.1}"),
        true => format!("{time:.0}"),
        false => String::new(),
    }
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<LogCoord<f64>, RangedCoordf64>>;

/// The share of runs in which each step was over after a time, with a tick for each run that ended
/// before it was; `None` if nothing was measured.
///
/// # Errors
/// [`crate::error::Error::Host`].
pub fn over_after(class: &ClassSummary) -> Result<Option<String>> {
    let curves = curves(class);
    let Some((from, to)) = span(&curves) else {
        return Ok(None);
    };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, 340)).into_drawing_area();
        let mut builder = ChartBuilder::on(&area);
        builder
            .margin(8)
            .margin_right(28)
            .x_label_area_size(44)
            .y_label_area_size(NAMES);
        let built = builder.build_cartesian_2d((from..to).log_scale(), 0.0..100.0);
        let mut chart = drawn(built)?;
        let mut mesh = chart.configure_mesh();
        let mesh = mesh
            .light_line_style(TRANSPARENT)
            .label_style(FONT)
            .y_labels(6)
            .x_labels(TICKS)
            .x_label_formatter(&|time| tick(*time))
            .y_label_formatter(&|share| format!("{share:.0}"))
            .x_desc("ms since the fault")
            .y_desc("% of runs");
        drawn(mesh.draw())?;
        for curve in &curves {
            draw_curve(&mut chart, curve, (from, to))?;
        }
        drawn(area.present())?;
    }
    Ok(Some(svg))
}

fn draw_curve(chart: &mut Chart<'_, '_>, curve: &Curve<'_>, (from, to): (f64, f64)) -> Result<()> {
    let left = survival(curve.samples);
    let steps = steps(&left, from, to);
    let style = curve.colour.stroke_width(2);
    drawn(chart.draw_series(LineSeries::new(steps, style)))?;
    let censored = curve.samples.iter().filter_map(|sample| match *sample {
        Sample::Censored(at) => Some(at.clamp(from, to)),
        Sample::Measured(_) => None,
    });
    let ticks = censored.map(|at| {
        let over = left.iter().rfind(|(time, _)| *time <= at);
        let over = over.map_or(0.0, |(_, above)| 100.0 * (1.0 - above));
        let ends = [(over - TICK).max(0.0), (over + TICK).min(100.0)];
        PathElement::new(ends.map(|end| (at, end)).to_vec(), style)
    });
    drawn(chart.draw_series(ticks)).map(drop)
}

/// A curve of what is left, as the corners of the steps of what is over, in percent.
fn steps(curve: &[(f64, f64)], from: f64, to: f64) -> Vec<(f64, f64)> {
    let mut over = 0.0;
    let mut corners = vec![(from, over)];
    for &(time, above) in curve {
        let time = time.max(from);
        corners.push((time, over));
        over = 100.0 * (1.0 - above);
        corners.push((time, over));
    }
    corners.push((to, over));
    corners
}

/// How many of the measured times lie in each bucket, one latency below the other; `None` if
/// nothing was measured.
///
/// # Errors
/// [`crate::error::Error::Host`].
pub fn histograms(class: &ClassSummary) -> Result<Option<String>> {
    let curves = curves(class);
    let Some((from, to)) = span(&curves) else {
        return Ok(None);
    };
    let buckets = curves.each_ref().map(|curve| buckets(curve.samples));
    let most = buckets.iter().flatten().map(|&(_, _, count)| count).max();
    let most = float(most.unwrap_or(1)) * 1.1;
    let mut svg = String::new();
    {
        let rows = curves.len();
        let height = ROW * rows as u32 + 48;
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let (above, axis_area) = area.split_vertically(ROW * (rows as u32 - 1));
        let mut panels = above.split_evenly((rows - 1, 1));
        panels.push(axis_area);
        for (position, (panel, curve)) in panels.iter().zip(&curves).enumerate() {
            let last = position + 1 == rows;
            let mut builder = ChartBuilder::on(panel);
            builder
                .margin(4)
                .margin_right(28)
                .x_label_area_size(if last { 44 } else { 0 })
                .y_label_area_size(NAMES);
            let built = builder.build_cartesian_2d((from..to).log_scale(), 0.0..most);
            let mut chart = drawn(built)?;
            let mut mesh = chart.configure_mesh();
            mesh.light_line_style(TRANSPARENT)
                .label_style(FONT)
                .y_labels(3)
                .x_labels(TICKS)
                .x_label_formatter(&|time| tick(*time))
                .y_label_formatter(&|count| format!("{count:.0}"));
            if last {
                mesh.x_desc("ms since the fault");
            }
            drawn(mesh.draw())?;
            let bars = buckets[position].iter().map(|&(left, right, count)| {
                let corners = [(left.max(from), 0.0), (right.min(to), float(count))];
                Rectangle::new(corners, curve.colour.filled())
            });
            drawn(chart.draw_series(bars))?;
        }
        drawn(area.present())?;
    }
    Ok(Some(svg))
}

/// The buckets that hold anything: from, to, how many.
fn buckets(samples: &[Sample]) -> Vec<(f64, f64, u64)> {
    let mut counts = std::collections::BTreeMap::new();
    for time in samples.iter().filter_map(measured) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "logarithms of times are small"
        )]
        let bucket = (time.log10() * BUCKETS).floor() as i32;
        *counts.entry(bucket).or_insert(0) += 1;
    }
    let edge = |bucket: i32| 10_f64.powf(f64::from(bucket) / BUCKETS);
    let counts = counts.into_iter();
    counts
        .map(|(bucket, count)| (edge(bucket), edge(bucket + 1), count))
        .collect()
}

/// The names of the histograms, in order, with what they show beyond the axis.
pub fn names(class: &ClassSummary) -> Vec<(&'static str, RGBColor, usize)> {
    let curves = curves(class);
    let censored = |curve: &Curve<'_>| {
        let samples = curve.samples.iter();
        samples.filter(|sample| measured(sample).is_none()).count()
    };
    let named = curves.iter();
    named
        .map(|curve| (curve.name, curve.colour, censored(curve)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_every_measured_time_once() {
        let mut samples = [1.0, 1.1, 9.9, 10.0, 99.0].map(Sample::Measured).to_vec();
        samples.push(Sample::Censored(50.0));
        let found = buckets(&samples);
        assert_eq!(found.iter().map(|&(_, _, count)| count).sum::<u64>(), 5);
        assert!(found.iter().all(|(left, right, _)| left < right));
        assert!((found[0].0 - 1.0).abs() < 1e-9 && found[0].2 == 2);
    }

    #[test]
    fn only_some_ticks_are_numbered() {
        let shown = [1.0, 2.0, 3.0, 5.0, 9.0, 10.0, 20.0, 0.5].map(tick);
        assert_eq!(shown, ["1", "2", "", "5", "", "10", "20", "0.5"]);
    }
}
