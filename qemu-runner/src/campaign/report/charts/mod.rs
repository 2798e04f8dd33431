//! The charts of the report, as SVG to be put into a page.
//!
//! | module | what it draws |
//! |---|---|
//! | [`bars`] | outcomes and intervals, class by class |
//! | [`curves`] | latencies: what share was over after a time, and how many took how long |
//! | [`strip`] | one run: what each cell was doing |
//!
//! # Invariants
//! Lines and words are drawn in black, which the page's style replaces by the colour of its text;
//! every other colour can be told from a light and from a dark ground.

pub mod bars;
pub mod curves;
pub mod strip;

use std::fmt::Display;
use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::style::RGBColor;

use crate::campaign::lanes::Phase;
use crate::campaign::outcome::Containment;
use crate::error::{Context, Result};
use crate::units::float;

/// Every chart is as wide as the page.
const WIDTH: u32 = 980;
const FONT: (&str, u32) = ("sans-serif", 14);

/// The latencies that charts show, and their colours.
pub const LATENCIES: [(&str, RGBColor); 4] = [
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

/// The colour of what a cell is doing.
pub const fn phase_colour(phase: Phase) -> RGBColor {
    match phase {
        Phase::Up => RGBColor(0x7f, 0xb8, 0xa4),
        Phase::Agreeing => RGBColor(0x4a, 0x86, 0xb8),
        Phase::Suspected => RGBColor(0xe0, 0xa0, 0x20),
        Phase::Barrier1 => RGBColor(0xb4, 0x8e, 0xd6),
        Phase::Discard => RGBColor(0x9b, 0x5f, 0xc0),
        Phase::Barrier2 => RGBColor(0x6f, 0x3f, 0x9a),
        Phase::Down => RGBColor(0xb0, 0x1e, 0x2e),
        Phase::Rebooting => RGBColor(0xe0, 0x7a, 0x5f),
    }
}

/// A vertical axis of so many rows, each 1 high and named in its middle. The library's own axis of
/// rows has no height for one alone.
struct Rows(usize);

impl Ranged for Rows {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    #[expect(clippy::cast_possible_truncation, reason = "a place on the page")]
    fn map(&self, at: &f64, (from, to): (i32, i32)) -> i32 {
        let share = at / float(self.0 as u64);
        from + (f64::from(to - from) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        (0..self.0).map(row_middle).collect()
    }

    fn range(&self) -> Range<f64> {
        0.0..float(self.0 as u64)
    }
}

/// Where the name of a row stands.
fn row_middle(row: usize) -> f64 {
    float(row as u64) + 0.5
}

/// The name of the row in whose middle an axis has a name.
fn name_of_row(names: &[String], at: f64) -> String {
    let rows = names.iter().enumerate();
    let mut here = rows.filter(|(row, _)| (row_middle(*row) - at).abs() < 0.25);
    here.next()
        .map_or_else(String::new, |(_, name)| name.clone())
}

/// A problem of drawing, as one of the host: the page could not be written.
fn drawn<T, E: Display>(result: std::result::Result<T, E>) -> Result<T> {
    let result = result.map_err(|error| std::io::Error::other(error.to_string()));
    result.context(|| "drawing a chart".into())
}
