//! Boots, and what is measured from outside: time, work, agreement, sizes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::record;
use crate::cli::BenchArguments;
use crate::error::{Context, Result};
use crate::experiment;
use crate::fault::catalogue::{Fault, HostFault};
use crate::fault::plan::{Plan, Strike};
use crate::guest::cells;
use crate::images::workspace_root;
use crate::interrupt;
use crate::latency::Latencies;
use crate::output::Progress;
use crate::qemu::process::Launch;
use crate::session::Session;
use crate::units::{float, milliseconds};
use crate::watch::Detail;

/// Cells with which agreement is measured.
const AGREEMENT_CELLS: std::ops::RangeInclusive<usize> = 2..=8;
/// Where the monitor's source lies.
const MONITOR_SOURCES: [&str; 2] = ["boot/src", "firewall/src"];

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Costs {
    /// Cycles per operation, over all runs, by name; in the order in which the kernel measured them.
    pub operations: Vec<(String, Vec<f64>)>,
    /// The rate of the guest's time-stamp counter.
    pub cycles_per_second: u64,
    /// Milliseconds from the start of QEMU until every cell served.
    pub boot_ms: Vec<f64>,
    /// Operations per second of all cells together, by back end.
    pub work_per_second: BTreeMap<&'static str, Vec<f64>>,
    /// Milliseconds from the first epoch's begin to the last survivor's decision, by cells.
    pub agreement_ms: BTreeMap<usize, Vec<f64>>,
    /// Bytes of the two images.
    pub image_bytes: [(&'static str, u64); 2],
    /// Lines of the monitor that are neither empty nor comments nor tests.
    pub monitor_lines: usize,
}

/// Measures everything.
///
/// # Errors
/// Whatever keeps the runner from measuring.
pub fn measure(
    launch: &Launch,
    arguments: &BenchArguments,
    progress: &mut Progress,
) -> Result<Costs> {
    let mut costs = Costs::default();
    let size = |path: &Path| fs::metadata(path).map(|data| data.len());
    let size = |path: &Path| size(path).context(|| format!("looking at {}", path.display()));
    costs.image_bytes = [
        ("monitor", size(&launch.images.monitor)?),
        ("kernel", size(&launch.images.kernel)?),
    ];
    costs.monitor_lines = monitor_lines()?;
    for run in 1..=arguments.runs {
        progress.step(&format!(
            "bench run {run} of {}: operations",
            arguments.runs
        ));
        operations(launch, &mut costs, progress)?;
        // Taken in turns, so that a change of the host's load meets both.
        for back_end in ["npt", "paging"] {
            progress.step(&format!(
                "bench run {run} of {}: work, {back_end}",
                arguments.runs
            ));
            work(launch, back_end, arguments.work, &mut costs, progress)?;
        }
        for cells in AGREEMENT_CELLS.filter(|&cells| cells <= launch.machine.cpus) {
            progress.step(&format!(
                "bench run {run} of {}: {cells} cells agree",
                arguments.runs
            ));
            agreement(launch, cells, &mut costs, progress)?;
        }
    }
    Ok(costs)
}

fn operations(launch: &Launch, costs: &mut Costs, progress: &mut Progress) -> Result<()> {
    let mut launch = launch.clone();
    if !launch.machine.append.contains("workers=") {
        launch.machine.append.push_str(" workers=0");
    }
    let (session, _qmp) = Session::boot(&launch, progress)?;
    costs.boot_ms.push(milliseconds(session.boot_time));
    costs.cycles_per_second = session.machine.clock.cycles_per_second;
    for result in record::run(session.qemu.memory(), session.machine.public(0))? {
        let samples = result.cycles.iter().map(|&cycles| float(cycles));
        match costs
            .operations
            .iter_mut()
            .find(|(name, _)| *name == result.name)
        {
            Some((_, all)) => all.extend(samples),
            None => costs.operations.push((result.name, samples.collect())),
        }
    }
    Ok(())
}

fn work(
    launch: &Launch,
    back_end: &'static str,
    span: Duration,
    costs: &mut Costs,
    progress: &mut Progress,
) -> Result<()> {
    let mut launch = launch.clone();
    launch.machine.firewall = back_end.into();
    let (session, _qmp) = Session::boot(&launch, progress)?;
    costs.boot_ms.push(milliseconds(session.boot_time));
    let verified = || -> Result<u64> {
        (0..session.machine.cells())
            .map(|cell| {
                let public = session.machine.public(cell);
                Ok(cells::verified(&cells::account(
                    session.qemu.memory(),
                    public,
                )?))
            })
            .sum()
    };
    let (before, started) = (verified()?, Instant::now());
    while started.elapsed() < span {
        interrupt::check()?;
        thread::sleep(Duration::from_millis(20));
    }
    let done = float(verified()?.saturating_sub(before)) / started.elapsed().as_secs_f64();
    costs
        .work_per_second
        .entry(back_end)
        .or_default()
        .push(done);
    Ok(())
}

fn agreement(
    launch: &Launch,
    cells: usize,
    costs: &mut Costs,
    progress: &mut Progress,
) -> Result<()> {
    let mut launch = launch.clone();
    launch.machine.cells = cells;
    let plan = Plan::single(Strike::new(Fault::Host(HostFault::CpuHalt), cells - 1));
    let run = experiment::run(&launch, &plan, Detail::Events, progress)?;
    let latencies = Latencies::of(&run);
    if let Some((begun, decided)) = latencies.epoch_begun.zip(latencies.decided) {
        costs
            .agreement_ms
            .entry(cells)
            .or_default()
            .push(decided - begun);
    }
    Ok(())
}

fn monitor_lines() -> Result<usize> {
    let mut lines = 0;
    for folder in MONITOR_SOURCES {
        lines += count_folder(&workspace_root().join(folder))?;
    }
    Ok(lines)
}

fn count_folder(folder: &Path) -> Result<usize> {
    let reading = || format!("reading {}", folder.display());
    let mut lines = 0;
    for entry in fs::read_dir(folder).context(reading)? {
        let path = entry.context(reading)?.path();
        if path.is_dir() {
            lines += count_folder(&path)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "rs" || extension == "s")
        {
            let text = fs::read_to_string(&path);
            lines += count_lines(&text.context(|| format!("reading {}", path.display()))?);
        }
    }
    Ok(lines)
}

/// Lines that are neither empty nor comments, up to the file's unit tests.
fn count_lines(text: &str) -> usize {
    let code = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let counts = |line: &&str| !line.is_empty() && !line.starts_with("//");
    code.lines().map(str::trim).filter(counts).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_tests_are_no_lines_of_the_monitor() {
        let text =
            "//! Header.\n\n/// Doc.\nfn one() {}\n#[cfg(test)]\nmod tests {\n fn two() {}\n}\n";
        assert_eq!(count_lines(text), 1);
    }
}
