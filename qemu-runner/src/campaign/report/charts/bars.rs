//! Bars for each class: how runs came out, and intervals.

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::ranged1d::{IntoSegmentedCoord, SegmentValue};
use plotters::drawing::IntoDrawingArea;
use plotters::element::{Circle, PathElement, Rectangle};
use plotters::prelude::{Cartesian2d, RGBColor, Ranged, SVGBackend};
use plotters::style::{BLACK, Color, TRANSPARENT};

use super::{FONT, WIDTH, colour, drawn};
use crate::campaign::outcome::Containment;
use crate::campaign::summary::{ClassSummary, Summary};
use crate::error::Result;
use crate::units::float;

/// Height of a bar with its margins, and of what lies around the bars.
const ROW: u32 = 34;
const FRAME: u32 = 60;
const NAMES: u32 = 190;

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
            .x_label_formatter(&|share| format!("{share:.0}"))
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
