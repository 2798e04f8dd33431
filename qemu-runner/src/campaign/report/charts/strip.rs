//! One run: what each cell was doing, as a lane for each.

use plotters::chart::ChartBuilder;
use plotters::drawing::IntoDrawingArea;
use plotters::element::Rectangle;
use plotters::prelude::SVGBackend;
use plotters::style::{Color, TRANSPARENT};

use super::{FONT, Rows, WIDTH, drawn, name_of_row, phase_colour};
use crate::campaign::lanes::slices;
use crate::campaign::record::Measured;
use crate::error::Result;
use crate::units::float;

/// Height of a lane, and of what lies around them.
const LANE: u32 = 36;
const FRAME: u32 = 64;
const NAMES: u32 = 60;

/// The lanes until everything has settled; `None` if the run kept none.
///
/// # Errors
/// [`crate::error::Error::Host`].
pub fn strip(one: &Measured) -> Result<Option<String>> {
    let cells = one.lanes.len();
    if cells == 0 || one.followed_ms <= 0.0 {
        return Ok(None);
    }
    let until = until(one);
    let mut svg = String::new();
    {
        let height = LANE * cells as u32 + FRAME;
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let mut builder = ChartBuilder::on(&area);
        builder
            .margin(8)
            .margin_right(28)
            .x_label_area_size(FRAME - 18)
            .y_label_area_size(NAMES);
        let mut chart = drawn(builder.build_cartesian_2d(0.0..until, Rows(cells)))?;
        // The first cell is on top; the vertical axis begins below.
        let row = |cell: usize| cells - 1 - cell;
        let names: Vec<String> = (0..cells).map(|at| format!("cell {}", row(at))).collect();
        let name = |at: &f64| name_of_row(&names, *at);
        let mut mesh = chart.configure_mesh();
        let mesh = mesh
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(cells + 1)
            .y_label_formatter(&name)
            .x_label_formatter(&|time| format!("{time:.0}"))
            .label_style(FONT)
            .x_desc("ms since the fault");
        drawn(mesh.draw())?;
        for (cell, lane) in one.lanes.iter().enumerate() {
            let areas = slices(lane, until).map(|(from, to, phase)| {
                let corners = [
                    (from, float(row(cell) as u64)),
                    (to, float(row(cell) as u64 + 1)),
                ];
                let mut area = Rectangle::new(corners, phase_colour(phase).filled());
                area.set_margin(6, 6, 0, 0);
                area
            });
            drawn(chart.draw_series(areas))?;
        }
        drawn(area.present())?;
    }
    Ok(Some(svg))
}

/// Somewhat after the last change, and not after the end of the run.
fn until(one: &Measured) -> f64 {
    let last = one.lanes.iter().filter_map(|lane| lane.last());
    let last = last.map(|&(at, _)| at).fold(0.0, f64::max);
    let room = (last * 1.15).max(1.0);
    if last > 0.0 {
        room.min(one.followed_ms.max(last))
    } else {
        one.followed_ms
    }
}
