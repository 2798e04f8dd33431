//! What the monitor costs in instructions, counted one by one under Bochs.
//!
//! Bochs's time-stamp counter goes on at the mean pace of all CPUs, busy or not, so it says little
//! of what one CPU did. Its debugger shows every instruction of a CPU: here it does so for some
//! samples of the kernel's own measurements, and while a kernel stores where it must not.
//!
//! What is counted is the way from the instruction that exits to the guest's next one; for a
//! revocation, from the exit that revokes to the end of the one that finds the writer's CPUs
//! drained. A tick that comes in between is a part of a single sample, not of the median.

use std::mem::offset_of;
use std::time::Duration;

use cell::PhysicalAddress;
use cell::fault::InnerFault;
use cell::public::{BENCH_OFFSET, BENCH_RESULTS_MAX, BenchRecord, BenchResult, part};

use super::record;
use crate::bochs::debugger::Stop;
use crate::bochs::exits::{Exit, exits};
use crate::bochs::machine::watch;
use crate::bochs::process::Bochs;
use crate::error::{Error, Result};
use crate::fault::catalogue::Fault;
use crate::fault::inner;
use crate::fault::plan::Strike;
use crate::guest::memory::field;
use crate::guest::symbols::physical_address;
use crate::session::Session;
use crate::units::float;

/// The cell that measures, and the one that stores where it must not.
const MEASURING: usize = 0;
const STORING: usize = 1;
/// Samples of a measurement in which instructions are counted, and denied stores that are.
const SAMPLES: usize = 3;
const STORES_COUNTED: usize = 16;
/// How long the machine may take, by its own time, until all is counted.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the machine runs, on the host, before it is looked at.
const SLICE: Duration = Duration::from_millis(500);
/// Where the kernel's stores to other cells' memory begin and end.
const STORES: [&str; 2] = ["kernel_copy_start", "kernel_copy_end"];

/// An operation of the kernel's measurements, and what of the exits of one sample is its cost.
struct Operation {
    name: &'static str,
    cost: fn(&[Exit]) -> Vec<usize>,
}

const OPERATIONS: [Operation; 6] = [
    Operation {
        name: "hypercall null",
        cost: each,
    },
    Operation {
        name: "hypercall local APIC write",
        cost: each,
    },
    Operation {
        name: "grant 1 page",
        cost: first,
    },
    Operation {
        name: "revoke 1 page, drained",
        cost: behind_first,
    },
    Operation {
        name: "grant 64 pages",
        cost: first,
    },
    Operation {
        name: "revoke 64 pages, drained",
        cost: behind_first,
    },
];

/// The sample is the same hypercall, many times.
fn each(exits: &[Exit]) -> Vec<usize> {
    exits.iter().map(Exit::instructions).collect()
}

/// The sample begins with the hypercall.
fn first(exits: &[Exit]) -> Vec<usize> {
    exits.first().map(Exit::instructions).into_iter().collect()
}

/// The sample begins with a grant; what follows takes it back, up to the end of the last exit.
fn behind_first(exits: &[Exit]) -> Vec<usize> {
    match exits {
        [_, begin, .., end] => vec![end.end - begin.first],
        _ => Vec::new(),
    }
}

/// Instructions by operation, one number for each that was counted.
pub type Counts = Vec<(String, Vec<f64>)>;

/// Counts on a machine that runs under Bochs and does no work beside.
///
/// # Errors
/// [`Error::Guest`] if the kernels do not do what is to be counted.
pub fn count(session: &mut Session) -> Result<Counts> {
    let mut counts = operations(session)?;
    counts.push(violation(session)?);
    Ok(counts)
}

fn operations(session: &mut Session) -> Result<Counts> {
    let base = part(session.machine.public(MEASURING), BENCH_OFFSET);
    let results = field(base, offset_of!(BenchRecord, results));
    let mut counts = OPERATIONS.map(|operation| (operation.name.to_string(), Vec::new()));
    let mut samples = [0; OPERATIONS.len()];
    let bochs = session.emulator.bochs()?;
    watch(
        bochs,
        results.0,
        (BENCH_RESULTS_MAX * size_of::<BenchResult>()) as u64,
    )?;
    record::request(&session.memory, base)?;
    let until = bochs.elapsed() + LIMIT;
    while bochs.elapsed() < until {
        let (stop, _) = bochs.debugger.go_on("c", SLICE)?;
        let Some((cpu, result)) = end_of_sample(&stop, results) else {
            continue;
        };
        if record::samples(&session.memory, result)? == 0 {
            continue;
        }
        let name = record::name(&session.memory, result)?;
        let Some(number) = OPERATIONS.iter().position(|it| it.name == name) else {
            if samples.iter().all(|&count| count == SAMPLES) {
                return Ok(counts.into());
            }
            continue;
        };
        if samples[number] < SAMPLES {
            samples[number] += 1;
            let trace = trace_sample(bochs, cpu, results)?;
            let mut exits = exits(&trace, cpu);
            exits.retain(|exit| exit.is_hypercall);
            let costs = (OPERATIONS[number].cost)(&exits);
            counts[number]
                .1
                .extend(costs.into_iter().map(|cost| float(cost as u64)));
        }
    }
    let missing = "the kernel does not finish what it is asked to measure";
    Err(Error::Guest(missing.into()))
}

/// The CPU that finished a sample, and the result that the sample is of.
fn end_of_sample(stop: &Stop, results: PhysicalAddress) -> Option<(usize, PhysicalAddress)> {
    let &Stop::Written { cpu, address } = stop else {
        return None;
    };
    let offset = address.checked_sub(results.0)? as usize;
    let (index, inside) = (
        offset / size_of::<BenchResult>(),
        offset % size_of::<BenchResult>(),
    );
    let is_end = index < BENCH_RESULTS_MAX && inside == offset_of!(BenchResult, samples_count);
    is_end.then(|| (cpu, field(results, index * size_of::<BenchResult>())))
}

/// Every instruction of `cpu` up to the end of its next sample.
fn trace_sample(bochs: &mut Bochs, cpu: usize, results: PhysicalAddress) -> Result<String> {
    set_trace(bochs, cpu, "on")?;
    let mut trace = String::new();
    let until = bochs.elapsed() + LIMIT;
    while bochs.elapsed() < until {
        let (stop, said) = bochs.debugger.go_on("c", SLICE)?;
        trace.push_str(&said);
        if end_of_sample(&stop, results).is_some() {
            set_trace(bochs, cpu, "off")?;
            return Ok(trace);
        }
    }
    Err(Error::Guest("a sample of the kernel's does not end".into()))
}

fn set_trace(bochs: &mut Bochs, cpu: usize, word: &str) -> Result<()> {
    bochs.debugger.command(&format!("set $cpu = {cpu}"))?;
    bochs.debugger.command(&format!("trace {word}")).map(drop)
}

/// A store that the firewall denies, up to the first instruction of the handler of the bus error.
fn violation(session: &mut Session) -> Result<(String, Vec<f64>)> {
    let kernel = &session.images.kernel;
    let [start, end] = STORES;
    let stores = physical_address(kernel, start)?.0..physical_address(kernel, end)?.0;
    let cpus = session.machine.cpus_of(&session.memory, STORING)?;
    let strike = Strike::new(Fault::Inner(InnerFault::WildWrite), STORING);
    inner::request(
        &session.memory,
        &session.machine,
        &strike,
        InnerFault::WildWrite,
        None,
    )?;
    let bochs = session.emulator.bochs()?;
    for cpu in &cpus {
        set_trace(bochs, cpu.apic_id.into(), "on")?;
    }
    let mut trace = String::new();
    let until = bochs.elapsed() + LIMIT;
    while bochs.elapsed() < until {
        trace.push_str(&bochs.debugger.go_on("c", SLICE)?.1);
        let exits = cpus
            .iter()
            .flat_map(|cpu| exits(&trace, cpu.apic_id.into()));
        let denied = exits.filter(|exit| !exit.is_hypercall && stores.contains(&exit.address));
        let costs: Vec<f64> = denied
            .map(|exit| float(exit.instructions() as u64))
            .collect();
        if costs.len() >= STORES_COUNTED {
            return Ok(("violation".into(), costs));
        }
    }
    let missing = format!("cell {STORING} stores nothing that is denied");
    Err(Error::Guest(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(first: usize, end: usize) -> Exit {
        Exit {
            address: 0,
            is_hypercall: true,
            first,
            end,
        }
    }

    #[test]
    fn a_revocation_is_what_follows_the_grant() {
        let sample = [exit(5, 15), exit(20, 40), exit(45, 50), exit(60, 64)];
        assert_eq!(first(&sample), [10]);
        assert_eq!(behind_first(&sample), [44]);
        assert_eq!(each(&sample), [10, 20, 5, 4]);
        assert!(
            behind_first(&sample[..2]).is_empty(),
            "nobody asked whether it is drained"
        );
    }

    #[test]
    fn samples_end_where_they_are_counted() {
        let results = PhysicalAddress(0x8000);
        let counter = 0x8000 + size_of::<BenchResult>() + offset_of!(BenchResult, samples_count);
        let at = |address| end_of_sample(&Stop::Written { cpu: 3, address }, results);
        let second = field(results, size_of::<BenchResult>());
        assert_eq!(at(counter as u64), Some((3, second)));
        assert_eq!(at(counter as u64 + 8), None);
        assert_eq!(at(0x7ff8), None);
        assert_eq!(end_of_sample(&Stop::Other, results), None);
    }
}
