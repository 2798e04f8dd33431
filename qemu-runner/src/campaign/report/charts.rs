//! The charts of the report, as SVG to be put into a page.
//!
//! # Invariants
//! Lines and words are drawn in black, which the page's style replaces by the colour of its text;
//! every other colour can be told from a light and from a dark ground.

use std::fmt::Display;

use plotters::chart::{ChartBuilder, ChartContext, SeriesLabelPosition};
use plotters::coord::combinators::IntoLogRange;
use plotters::coord::ranged1d::{IntoSegmentedCoord, SegmentValue};
use plotters::drawing::IntoDrawingArea;
use plotters::element::{Circle, PathElement, Rectangle};
use plotters::prelude::{Cartesian2d, LineSeries, RGBColor, Ranged, SVGBackend};
use plotters::style::{BLACK, Color, ShapeStyle, TRANSPARENT};

use crate::campaign::outcome::Containment;
use crate::campaign::statistics::{Sample, survival};
use crate::campaign::summary::{ClassSummary, Summary};
use crate::error::{Context, Result};
use crate::units::float;

const WIDTH: u32 = 860;
/// Height of a bar with its margins, and of what lies around the bars.
const ROW: u32 = 34;
const FRAME: u32 = 60;
const NAMES: u32 = 170;
const FONT: (&str, u32) = ("sans-serif", 14);

/// The latencies of the chart of them, and their colours.
const SHOWN: [(&str, RGBColor); 4] = [
    ("fault to first hint", RGBColor(0x2f, 0x80, 0xc3)),
    (
        "fault to last survivor in recovery",
        RGBColor(0xc9, 0x8a, 0x1b),
    ),
    ("fault to last survivor resumed", RGBColor(0x2e, 0x9e, 0x6b)),
    ("fault to reintegrated", RGBColor(0x9b, 0x5f, 0xc0)),
];

/// The colour of an outcome: green for what held, grey for what was not judged, warm for the rest.
pub const fn colour(label: Containment) -> RGBColor {
    match label {
        Containment::Infra => RGBColor(0x88, 0x88, 0x88),
        Containment::NotInjected => RGBColor(0xb0, 0xb0, 0xb0),
        Containment::SystemFailure => RGBColor(0xb0, 0x1e, 0x2e),
        Containment::FsvExternal => RGBColor(0xd6, 0x27, 0x6b),
        Containment::Propagated => RGBColor(0xe0, 0x4f, 0x2b),
        Containment::WrongAccusation => RGBColor(0xe8, 0x7d, 0x2a),
        Containment::SplitView => RGBColor(0xc0, 0x56, 0x9a),
        Containment::Missed => RGBColor(0xe0, 0xa0, 0x20),
        Containment::RecoveryFailed => RGBColor(0xc8, 0xb0, 0x30),
        Containment::Degraded => RGBColor(0x9a, 0xb0, 0x3a),
        Containment::Contained => RGBColor(0x4f, 0xa8, 0x5a),
        Containment::ContainedReintegrated => RGBColor(0x2e, 0x8b, 0x74),
        Containment::NotManifested => RGBColor(0x4a, 0x86, 0xb8),
    }
}

/// A problem of drawing, as one of the host: the page could not be written.
fn drawn<T, E: Display>(result: std::result::Result<T, E>) -> Result<T> {
    let result = result.map_err(|error| std::io::Error::other(error.to_string()));
    result.context(|| "drawing a chart".into())
}

/// The classes, and all of them together where that is not the same. Never empty.
fn rows(summary: &Summary) -> Vec<&ClassSummary> {
    let overall = (summary.classes.len() != 1).then_some(&summary.overall);
    summary.classes.iter().chain(overall).collect()
}

/// How often each outcome, class by class, as bars of 100 %.
///
/// # Errors
/// [`crate::error::Error::Host`].
pub fn outcomes(summary: &Summary) -> Result<String> {
    bars(summary, 100.0, "share of the runs, %", |class, bar| {
        let mut left = 0.0;
        for (label, &count) in &class.containment {
            let right = left + 100.0 * float(count) / float(class.runs as u64);
            bar.area(left, right, colour(*label));
            left = right;
        }
    })
}

/// The share that did not stay in its cell, with its interval, class by class.
///
/// # Errors
/// [`crate::error::Error::Host`].
pub fn escapes(summary: &Summary) -> Result<String> {
    let highs = rows(summary).into_iter();
    let highs = highs.filter_map(|class| class.escaped.interval().map(|found| found.high));
    let most = 100.0 * highs.fold(0.01, f64::max) * 1.05;
    let axis = "not contained, % of those that had an effect, with 95 % interval";
    bars(summary, most.min(100.0), axis, |class, bar| {
        if let Some((share, interval)) = class.escaped.share().zip(class.escaped.interval()) {
            bar.whisker(100.0 * interval.low, 100.0 * share, 100.0 * interval.high);
        }
    })
}

/// What is drawn into the row of a class.
#[derive(Default)]
struct Bar {
    areas: Vec<(f64, f64, RGBColor)>,
    whisker: Option<[f64; 3]>,
}

impl Bar {
    fn area(&mut self, left: f64, right: f64, colour: RGBColor) {
        self.areas.push((left, right, colour));
    }

    fn whisker(&mut self, low: f64, middle: f64, high: f64) {
        self.whisker = Some([low, middle, high]);
    }
}

fn bars(
    summary: &Summary,
    most: f64,
    axis: &str,
    fill: impl Fn(&ClassSummary, &mut Bar),
) -> Result<String> {
    let mut rows = rows(summary);
    // The vertical axis begins below.
    rows.reverse();
    let mut svg = String::new();
    {
        let height = ROW * rows.len() as u32 + FRAME;
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let mut builder = ChartBuilder::on(&area);
        builder
            .margin(8)
            .margin_right(28)
            .x_label_area_size(FRAME - 16)
            .y_label_area_size(NAMES);
        let vertical = (0..rows.len() - 1).into_segmented();
        let mut chart = drawn(builder.build_cartesian_2d(0.0..most, vertical))?;
        let name = |value: &SegmentValue<usize>| match value {
            SegmentValue::CenterOf(row) if *row < rows.len() => {
                let class = rows[*row];
                format!("{} ({})", class.class, class.runs)
            }
            _ => String::new(),
        };
        let mut mesh = chart.configure_mesh();
        let mesh = mesh
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(rows.len() + 1)
            .y_label_formatter(&name)
            .label_style(FONT)
            .x_desc(axis);
        drawn(mesh.draw())?;
        for (row, class) in rows.iter().enumerate() {
            let mut bar = Bar::default();
            fill(class, &mut bar);
            draw_bar(&mut chart, row, &bar)?;
        }
        drawn(area.present())?;
    }
    Ok(svg)
}

type Chart<'a, 'b, X> = ChartContext<'a, SVGBackend<'b>, X>;

fn draw_bar<X, Y>(chart: &mut Chart<'_, '_, Cartesian2d<X, Y>>, row: usize, bar: &Bar) -> Result<()>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = SegmentValue<usize>>,
{
    let areas = bar.areas.iter().map(|&(left, right, colour)| {
        let corners = [
            (left, SegmentValue::Exact(row)),
            (right, SegmentValue::Exact(row + 1)),
        ];
        let mut area = Rectangle::new(corners, colour.filled());
        area.set_margin(5, 5, 0, 1);
        area
    });
    drawn(chart.draw_series(areas))?;
    if let Some([low, middle, high]) = bar.whisker {
        let at = |value: f64| (value, SegmentValue::CenterOf(row));
        let line = PathElement::new(vec![at(low), at(high)], BLACK.stroke_width(2));
        drawn(chart.draw_series([line]))?;
        let point = Circle::new(at(middle), 5, colour(Containment::Propagated).filled());
        drawn(chart.draw_series([point]))?;
    }
    Ok(())
}

/// The share of runs in which each step was over after a time; `None` if nothing was measured.
///
/// # Errors
/// [`crate::error::Error::Host`].
pub fn latencies(class: &ClassSummary) -> Result<Option<String>> {
    let curves = SHOWN.map(|(name, colour)| {
        let samples = class.samples.iter().find(|(of, _)| *of == name);
        let samples = samples.map_or(&[] as &[Sample], |(_, samples)| samples);
        (name, colour, survival(samples))
    });
    let times = || {
        curves
            .iter()
            .flat_map(|(_, _, curve)| curve.iter().map(|&(time, _)| time))
    };
    let positive = || times().filter(|&time| time > 0.0);
    let Some(least) = positive().min_by(f64::total_cmp) else {
        return Ok(None);
    };
    let (from, to) = (least * 0.8, positive().fold(least, f64::max) * 1.25);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, 340)).into_drawing_area();
        let mut builder = ChartBuilder::on(&area);
        builder
            .margin(8)
            .margin_right(28)
            .x_label_area_size(44)
            .y_label_area_size(56);
        let built = builder.build_cartesian_2d((from..to).log_scale(), 0.0..100.0);
        let mut chart = drawn(built)?;
        let mut mesh = chart.configure_mesh();
        let mesh = mesh
            .light_line_style(TRANSPARENT)
            .label_style(FONT)
            .x_label_formatter(&|time| format!("{time:.0}"))
            .x_desc("ms since the fault")
            .y_desc("% of runs");
        drawn(mesh.draw())?;
        for (name, colour, curve) in &curves {
            let style: ShapeStyle = colour.stroke_width(2);
            let series = drawn(chart.draw_series(LineSeries::new(steps(curve, from, to), style)))?;
            series
                .label(*name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], style));
        }
        let mut legend = chart.configure_series_labels();
        let legend = legend
            .position(SeriesLabelPosition::LowerRight)
            .label_font(FONT);
        drawn(legend.draw())?;
        drawn(area.present())?;
    }
    Ok(Some(svg))
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
