//! Bars for each class: how runs came out, and intervals.

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::drawing::IntoDrawingArea;
use plotters::element::{Circle, PathElement, Rectangle};
use plotters::prelude::{Cartesian2d, RGBColor, Ranged, SVGBackend};
use plotters::style::{BLACK, Color, TRANSPARENT};

use super::{FONT, Rows, WIDTH, colour, drawn, name_of_row, row_middle};
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
        let mut chart = drawn(builder.build_cartesian_2d(0.0..most, Rows(rows.len())))?;
        let name = |class: &&ClassSummary| format!("{} ({})", class.class, class.runs);
        let names: Vec<String> = rows.iter().map(name).collect();
        let digits = digits(most);
        let name = |at: &f64| name_of_row(&names, *at);
        let number = |share: &f64| format!("{share:.digits$}");
        let mut mesh = chart.configure_mesh();
        let mesh = mesh
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(rows.len() + 1)
            .x_label_formatter(&number)
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

/// How many digits after the point tell about ten numbers up to `most` apart.
fn digits(most: f64) -> usize {
    let enough = |digits: &u8| 10_f64.powi(1 - i32::from(*digits)) <= most;
    (0..6).find(enough).unwrap_or(6).into()
}

type Chart<'a, 'b, X> = ChartContext<'a, SVGBackend<'b>, X>;

fn draw_bar<X, Y>(chart: &mut Chart<'_, '_, Cartesian2d<X, Y>>, row: usize, bar: &Bar) -> Result<()>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    let areas = bar.areas.iter().map(|&(left, right, colour)| {
        let corners = [(left, float(row as u64)), (right, float(row as u64 + 1))];
        let mut area = Rectangle::new(corners, colour.filled());
        area.set_margin(5, 5, 0, 1);
        area
    });
    drawn(chart.draw_series(areas))?;
    if let Some([low, middle, high]) = bar.whisker {
        let at = |value: f64| (value, row_middle(row));
        let line = PathElement::new(vec![at(low), at(high)], BLACK.stroke_width(2));
        drawn(chart.draw_series([line]))?;
        let point = Circle::new(at(middle), 5, colour(Containment::Propagated).filled());
        drawn(chart.draw_series([point]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::campaign::summary::tests::{contained, summary};

    /// The values of an attribute of every element of a kind.
    fn numbers(svg: &str, element: &str, attribute: &str) -> Vec<f64> {
        let begins = format!("<{element} ");
        let elements = svg.split(&begins).skip(1);
        let value = |text: &str| {
            let (_, rest) = text.split_once(&format!("{attribute}=\""))?;
            rest.split_once('"')?.0.parse().ok()
        };
        elements.map(|text| value(text).unwrap()).collect()
    }

    #[test]
    fn one_class_alone_has_a_bar_and_a_name() {
        let alone = summary(&[contained("halt"), contained("halt")]);
        let svg = outcomes(&alone).unwrap();
        assert!(svg.contains("halt (2)"), "{svg}");
        let heights = numbers(&svg, "rect", "height");
        assert!(heights.len() == 1 && heights[0] > 10.0, "{svg}");
        assert!(escapes(&alone).unwrap().contains("halt (2)"));
    }

    #[test]
    fn several_classes_stand_one_below_the_other() {
        let several = summary(&[contained("halt"), contained("panic")]);
        let svg = outcomes(&several).unwrap();
        let tops = numbers(&svg, "rect", "y");
        let heights = numbers(&svg, "rect", "height");
        let mut bars: Vec<(f64, f64)> = tops.into_iter().zip(heights).collect();
        bars.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!(bars.len(), 3, "both and all: {svg}");
        assert!(bars.windows(2).all(|two| two[0].0 + two[0].1 < two[1].0));
        let names = ["halt (1)", "panic (1)", "all (2)"];
        let places = names.map(|name| svg.find(name).unwrap());
        assert!(places[0] > places[1] && places[1] > places[2], "from below");
    }

    #[test]
    fn ten_numbers_on_an_axis_differ() {
        for most in [0.03, 1.05, 1.7, 5.0, 9.9, 12.0, 100.0] {
            let digits = digits(most);
            let shown = |tick: i32| format!("{:.digits$}", f64::from(tick) * most / 10.0);
            let different: std::collections::BTreeSet<String> = (0..=10).map(shown).collect();
            assert_eq!(different.len(), 11, "{most}: {different:?}");
        }
    }
}
