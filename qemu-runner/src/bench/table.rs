//! The table of costs, as text and as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::measure::Costs;
use super::statistics::Summary;
use crate::commands::Setup;
use crate::output;
use crate::units::float;

/// What other operations are compared with: a bare cache line that goes to and fro between the same
/// two CPUs.
const BASELINE: &str = "ping-pong";

struct Row {
    name: String,
    cycles: Summary,
    nanoseconds: f64,
    ratio: Option<f64>,
}

fn rows(costs: &Costs) -> Vec<Row> {
    let summary = |samples: &Vec<f64>| Summary::of(samples.iter().copied());
    let baseline = costs
        .operations
        .iter()
        .find(|(name, _)| name.contains(BASELINE));
    let baseline = baseline
        .and_then(|(_, samples)| summary(samples))
        .map(|all| all.median);
    let nanoseconds = 1e9 / float(costs.cycles_per_second.max(1));
    let row = |(name, samples): &(String, Vec<f64>)| {
        let cycles = summary(samples)?;
        Some(Row {
            name: name.clone(),
            cycles,
            nanoseconds: cycles.median * nanoseconds,
            ratio: baseline
                .filter(|&base| base > 0.0)
                .map(|base| cycles.median / base),
        })
    };
    costs.operations.iter().filter_map(row).collect()
}

/// Work with one back end as a share of that with the other.
/// The work done behind `firewall` as a ratio to the work done without one, pass by pass: what the
/// host does meanwhile changes from pass to pass more than the firewall costs.
fn work_ratio(costs: &Costs, firewall: &str) -> Option<Summary> {
    let walled = costs.work_per_second.get(firewall)?;
    let open = costs.work_per_second.get("off")?;
    let pairs = walled.iter().zip(open).filter(|&(_, &open)| open > 0.0);
    Summary::of(pairs.map(|(walled, open)| walled / open))
}

/// The table as one JSON object.
pub fn json(setup: &Setup, costs: &Costs) -> Value {
    let operations: Vec<Value> = rows(costs)
        .into_iter()
        .map(|row| {
            json!({ "name": row.name, "cycles": row.cycles, "nanoseconds": row.nanoseconds,
                    "ratio_to_ping_pong": row.ratio })
        })
        .collect();
    let summary = |samples: &Vec<f64>| Summary::of(samples.iter().copied());
    let instructions: Vec<Value> = costs
        .instructions
        .iter()
        .map(|(name, counts)| json!({ "name": name, "instructions": summary(counts) }))
        .collect();
    let agreement: Vec<Value> = costs
        .agreement_ms
        .iter()
        .map(|(cells, samples)| json!({ "cells": cells, "ms": summary(samples) }))
        .collect();
    let work: Vec<Value> = costs
        .work_per_second
        .iter()
        .map(|(firewall, samples)| {
            json!({ "firewall": firewall, "operations_per_second": summary(samples) })
        })
        .collect();
    json!({
        "schema": "hive-bench/1",
        "setup": setup,
        "cycles_per_second": costs.cycles_per_second,
        "operations": operations,
        "instructions": instructions,
        "disturbed": costs.disturbed,
        "failed": costs.failed,
        "boot_ms": summary(&costs.boot_ms),
        "work": work,
        "work_npt_to_off": work_ratio(costs, "npt"),
        "work_paging_to_off": work_ratio(costs, "paging"),
        "agreement": agreement,
        "image_bytes": BTreeMap::from(costs.image_bytes),
        "monitor_lines": costs.monitor_lines,
    })
}

/// The table as text.
pub fn text(setup: &Setup, costs: &Costs) -> String {
    let mut text = format!("{}\n\n", setup.text());
    if !costs.instructions.is_empty() {
        text.push_str(&output::table(&counted(costs)));
        text.push('\n');
        text.push_str(&output::table(&others(costs)));
        return text;
    }
    let headings = ["operation", "median", "quartiles", "time", "to ping-pong"];
    let mut operations = vec![headings.map(String::from).to_vec()];
    operations.extend(rows(costs).into_iter().map(|row| {
        vec![
            row.name,
            format!("{:.0} cycles", row.cycles.median),
            format!(
                "{:.0} .. {:.0}",
                row.cycles.lower_quartile, row.cycles.upper_quartile
            ),
            time_text(row.nanoseconds),
            row.ratio
                .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        ]
    }));
    text.push_str(&output::table(&operations));
    text.push('\n');
    text.push_str(&output::table(&others(costs)));
    text
}

fn counted(costs: &Costs) -> Vec<Vec<String>> {
    let headings = ["operation", "median", "quartiles"];
    let mut rows = vec![headings.map(String::from).to_vec()];
    for (name, counts) in &costs.instructions {
        if let Some(all) = Summary::of(counts.iter().copied()) {
            rows.push(vec![
                name.clone(),
                format!("{:.0} instructions", all.median),
                format!("{:.0} .. {:.0}", all.lower_quartile, all.upper_quartile),
            ]);
        }
    }
    rows
}

fn others(costs: &Costs) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut add = |name: String, samples: &[f64], unit: &str| {
        if let Some(all) = Summary::of(samples.iter().copied()) {
            let spread = format!("{:.1} .. {:.1}", all.least, all.greatest);
            let count = format!("{} samples", all.samples);
            rows.push(vec![
                name,
                format!("{:.1} {unit}", all.median),
                spread,
                count,
            ]);
        }
    };
    add("boot until every cell serves".into(), &costs.boot_ms, "ms");
    for (cells, samples) in &costs.agreement_ms {
        add(format!("agreement, {cells} cells"), samples, "ms");
    }
    for (firewall, samples) in &costs.work_per_second {
        add(
            format!("work, firewall {firewall}"),
            samples,
            "operations/s",
        );
    }
    for firewall in ["npt", "paging"] {
        if let Some(ratio) = work_ratio(costs, firewall) {
            rows.push(vec![
                format!("work, {firewall} to off"),
                format!("{:.3}", ratio.median),
                format!("{:.3} .. {:.3}", ratio.lower_quartile, ratio.upper_quartile),
                format!("{} passes", ratio.samples),
            ]);
        }
    }
    for (image, bytes) in costs.image_bytes {
        rows.push(vec![
            format!("image of the {image}"),
            format!("{} KiB", bytes >> 10),
        ]);
    }
    rows.push(vec![
        "lines of the monitor".into(),
        costs.monitor_lines.to_string(),
    ]);
    rows
}

fn time_text(nanoseconds: f64) -> String {
    match nanoseconds {
        small if small < 1e3 => format!("{small:.0} ns"),
        middle if middle < 1e6 => format!("{:.2} us", middle / 1e3),
        large => format!("{:.2} ms", large / 1e6),
    }
}
