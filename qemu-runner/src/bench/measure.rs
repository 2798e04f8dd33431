//! Boots, and what is measured from outside: time, work, agreement, sizes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::instructions::{self, Counts};
use super::record;
use crate::cli::BenchArguments;
use crate::error::{Context, Error, Result};
use crate::experiment;
use crate::fault::catalogue::{Fault, HostFault};
use crate::fault::plan::{Plan, Strike};
use crate::guest::cells;
use crate::images::workspace_root;
use crate::interrupt;
use crate::latency::Latencies;
use crate::launch::{Launch, Program};
use crate::output::Progress;
use crate::session::Session;
use crate::units::{float, milliseconds};
use crate::watch::Detail;

/// Cells with which agreement is measured.
const AGREEMENT_CELLS: std::ops::RangeInclusive<usize> = 2..=8;
/// Boots for one measurement before it is given up.
const ATTEMPTS: usize = 3;
/// Boot parameters with which operations are measured: no work beside them, and no alarm because of
/// them.
const QUIET: [(&str, &str); 2] = [("workers=", " workers=0"), ("hint=", " hint=1000")];
/// Boot parameters with which work is counted: workers that never rest, and a patience that lets
/// them have every CPU.
const BUSY: [(&str, &str); 4] = [
    ("rest=", " rest=0"),
    ("hint=", " hint=500"),
    ("probe=", " probe=2000"),
    ("call=", " call=2000"),
];
/// Where the monitor's source lies.
const MONITOR_SOURCES: [&str; 2] = ["boot/src", "firewall/src"];
/// How the firewall is enforced while work is counted.
const WORK_BACK_ENDS: [&str; 3] = ["npt", "paging", "off"];

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Costs {
    /// Cycles per operation, over all runs, by name; in the order in which the kernel measured
    /// them.
    pub operations: Vec<(String, Vec<f64>)>,
    /// Instructions of operations, where they were counted instead.
    pub instructions: Counts,
    /// The rate of the guest's time-stamp counter.
    pub cycles_per_second: u64,
    /// Milliseconds from the start of QEMU until every cell served.
    pub boot_ms: Vec<f64>,
    /// Measurements that were thrown away because a cell was restarted in the middle.
    pub disturbed: usize,
    /// Measurements that the guest did not finish, and why.
    pub failed: Vec<String>,
    /// Operations per second of all cells together, by back end.
    pub work_per_second: BTreeMap<&'static str, Vec<f64>>,
    /// Milliseconds that agreement took, by cells (see `Latencies::agreement`).
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
    if let Program::Bochs(_) = launch.program {
        // Two runs under Bochs are the same, and what its machines do in a second means nothing.
        let mut session = Session::boot(&with_parameters(launch, &QUIET), progress)?;
        progress.step("counting instructions");
        costs.instructions = instructions::count(&mut session)?;
        return Ok(costs);
    }
    for run in 1..=arguments.runs {
        let mut step = |what: &str, costs: &mut Costs, measure: Measure<'_>| {
            progress.step(&format!("bench run {run} of {}: {what}", arguments.runs));
            let outcome = measure(costs, &mut Progress::silent());
            tolerate(what, outcome, costs)
        };
        step("operations", &mut costs, &|costs, progress| {
            operations(launch, costs, progress)
        })?;
        // Taken in turns, so that a change of the host's load meets all.
        for back_end in WORK_BACK_ENDS {
            step(
                &format!("work, {back_end}"),
                &mut costs,
                &|costs, progress| work(launch, back_end, arguments.work, costs, progress),
            )?;
        }
        for cells in AGREEMENT_CELLS.filter(|&cells| cells <= launch.machine.cpus) {
            step(
                &format!("agreement of {cells} cells"),
                &mut costs,
                &|costs, progress| agreement(launch, cells, costs, progress),
            )?;
        }
    }
    Ok(costs)
}

type Measure<'a> = &'a dyn Fn(&mut Costs, &mut Progress) -> Result<()>;

/// Notes what the guest did not do, so that the other measurements are not lost with it.
fn tolerate(what: &str, outcome: Result<()>, costs: &mut Costs) -> Result<()> {
    match outcome {
        Err(Error::Guest(problem)) => {
            let first = problem.lines().next().unwrap_or_default();
            costs.failed.push(format!("{what}: {first}"));
            Ok(())
        }
        outcome => outcome,
    }
}

/// Boots until a measurement is done in which no cell was restarted; a busy host can cause false
/// alarms.
fn undisturbed<T>(
    launch: &Launch,
    costs: &mut Costs,
    progress: &mut Progress,
    measurement: impl Fn(&Session) -> Result<Option<T>>,
) -> Result<T> {
    for _ in 0..ATTEMPTS {
        let session = Session::boot(launch, progress)?;
        costs.boot_ms.push(milliseconds(session.boot_time));
        costs.cycles_per_second = session.machine.clock.cycles_per_second;
        let before = lives(&session)?;
        let measured = measurement(&session)?;
        if let Some(measured) = measured
            && lives(&session)? == before
        {
            return Ok(measured);
        }
        costs.disturbed += 1;
    }
    let problem = format!("cells were restarted in each of {ATTEMPTS} measurements");
    Err(Error::Guest(format!("{problem}: is the host busy?")))
}

fn lives(session: &Session) -> Result<Vec<u32>> {
    let memory = &session.memory;
    let life = |cell| Ok(session.machine.cell(memory, cell)?.incarnation);
    (0..session.machine.cells()).map(life).collect()
}

fn operations(launch: &Launch, costs: &mut Costs, progress: &mut Progress) -> Result<()> {
    let launch = with_parameters(launch, &QUIET);
    let results = undisturbed(&launch, costs, progress, |session| {
        record::run(&session.memory, session.machine.public(0))
    })?;
    for result in results {
        let samples = result.cycles.iter().map(|&cycles| float(cycles));
        let known = costs
            .operations
            .iter_mut()
            .find(|(name, _)| *name == result.name);
        match known {
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
    let mut launch = with_parameters(launch, &BUSY);
    launch.machine.firewall = back_end.into();
    let rate = undisturbed(&launch, costs, progress, |session| {
        let (before, started) = (verified(session)?, Instant::now());
        while started.elapsed() < span {
            interrupt::check()?;
            thread::sleep(Duration::from_millis(20));
        }
        let done = verified(session)?.saturating_sub(before);
        Ok(Some(float(done) / started.elapsed().as_secs_f64()))
    })?;
    costs
        .work_per_second
        .entry(back_end)
        .or_default()
        .push(rate);
    Ok(())
}

/// A launch with more boot parameters, where the user gave none of the kind.
fn with_parameters(launch: &Launch, parameters: &[(&str, &str)]) -> Launch {
    let mut launch = launch.clone();
    for (key, word) in parameters {
        if !launch.machine.append.contains(key) {
            launch.machine.append.push_str(word);
        }
    }
    launch
}

/// Operations that the workers of all cells have finished.
fn verified(session: &Session) -> Result<u64> {
    let memory = &session.memory;
    let of = |cell| {
        let account = cells::account(memory, session.machine.public(cell))?;
        Ok(cells::verified(&account))
    };
    (0..session.machine.cells()).map(of).sum()
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
    let spans = costs.agreement_ms.entry(cells).or_default();
    spans.extend(Latencies::of(&run).agreement);
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
        if is_check(&path) {
            continue;
        }
        if path.is_dir() {
            lines += count_folder(&path)?;
        } else if is_source(&path) {
            let text = fs::read_to_string(&path);
            lines += count_lines(&text.context(|| format!("reading {}", path.display()))?);
        }
    }
    Ok(lines)
}

/// Whether the file or folder holds tests or model checks, and nothing of the monitor.
fn is_check(path: &Path) -> bool {
    path.file_stem()
        .is_some_and(|name| name == "interleavings" || name == "tests")
}

/// Whether the file is code.
fn is_source(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "rs" || extension == "s")
}

/// Lines that are neither empty nor comments, up to the file's unit tests.
fn count_lines(text: &str) -> usize {
    let code = text.split("\nmod tests {").next().unwrap_or_default();
    let skipped = ["//", "#[cfg(test)]", "#[cfg(all(test"];
    let counts = |line: &&str| !line.is_empty() && !skipped.iter().any(|it| line.starts_with(it));
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
        assert_eq!(
            count_lines(&text.replace("(test)", "(all(test, not(loom)))")),
            1
        );
        assert!(is_source(Path::new("firewall/src/grants.rs")));
        assert!(!is_check(Path::new("firewall/src/nested")));
        assert!(is_check(Path::new("firewall/src/nested/tests.rs")));
        assert!(is_check(Path::new("firewall/src/interleavings")));
    }
}
