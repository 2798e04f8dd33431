//! The commands of the shell.

use core::fmt::Write;
use core::mem::{offset_of, size_of};
use core::sync::atomic::Ordering;

use cell::fault::InnerFault;
use cell::machine::CellState;
use cell::public::WORKLOAD_OFFSET;
use cell::standing::CpuState;
use cell::trace::{Event, TraceRecord};
use cell::workload::{Operation, OperationAccount, WorkloadRecord};
use cell::{CellId, CpuId, PAGE_SIZE};

use crate::console::output::Console;
use crate::console::remote;
use crate::console::shell::Command;
use crate::cpu::per_cpu;
use crate::faults;
use crate::memory::frames::USES;
use crate::memory::{careful, heap, pool};
use crate::own::own;
use crate::thread::scheduler;
use crate::{clock, trace};

/// Records that `trace` shows where no number is given, and at most.
const TRACE_DEFAULT: u64 = 20;
const TRACE_MAX: u64 = 1000;

/// Every command.
pub(super) const ALL: &[Command] = &[
    Command {
        name: "help",
        arguments: "",
        purpose: "this list",
        run: help,
    },
    Command {
        name: "cells",
        arguments: "",
        purpose: "state of every cell",
        run: cells,
    },
    Command {
        name: "cpus",
        arguments: "",
        purpose: "state of every CPU",
        run: cpus,
    },
    Command {
        name: "work",
        arguments: "",
        purpose: "what every cell's workers did",
        run: work,
    },
    Command {
        name: "threads",
        arguments: "",
        purpose: "threads of this cell",
        run: threads,
    },
    Command {
        name: "memory",
        arguments: "",
        purpose: "memory of this cell",
        run: memory,
    },
    Command {
        name: "trace",
        arguments: "[count]",
        purpose: "what happened here",
        run: show_trace,
    },
    Command {
        name: "time",
        arguments: "",
        purpose: "time since the machine started",
        run: time,
    },
    Command {
        name: "inject",
        arguments: "fault [argument]",
        purpose: "inject a fault into this cell; without a fault: a list",
        run: inject,
    },
];

macro_rules! say {
    ($($text:tt)*) => {{
        // The console takes every byte or drops it; it never fails.
        let _ = writeln!(Console, $($text)*);
    }};
}

fn help(_: &str) {
    for Command {
        name,
        arguments,
        purpose,
        ..
    } in ALL
    {
        say!("  {name:8} {arguments:18} {purpose}");
    }
}

fn time(_: &str) {
    let nanoseconds = clock::now().0;
    say!(
        "{}.{:06} s",
        nanoseconds / 1_000_000_000,
        nanoseconds / 1000 % 1_000_000
    );
}

const fn state_name(state: CellState) -> &'static str {
    match state {
        CellState::Absent => "absent",
        CellState::Booting => "booting",
        CellState::Live => "live",
        CellState::Stopped => "stopped",
        CellState::Expelled => "expelled",
    }
}

fn cells(_: &str) {
    let machine = own().machine;
    let (epoch, live) = machine.membership.current();
    say!("epoch {}, live set {live}", epoch.0);
    say!("cell  state     life  CPUs  memory    evidence");
    for cell in machine.all_cells().iter() {
        let entry = machine.cell(cell);
        let is_running = |cpu: &CpuId| machine.cpu(*cpu).standing.state() == CpuState::Running;
        let all = machine.cpus_of(cell).count();
        let running = machine.cpus_of(cell).filter(is_running).count();
        let mebibytes = (entry.region.len() * PAGE_SIZE) >> 20;
        let state = state_name(entry.state());
        let life = entry.incarnation().0;
        let mark = if cell == own().cell { '*' } else { ' ' };
        let _ = write!(
            Console,
            "{cell:3}{mark}  {state:8} {life:5} {running:2}/{all:<2}  {mebibytes:4} MiB  "
        );
        match entry.evidence() {
            None => say!("none"),
            Some((count, last)) => {
                say!(
                    "{count}, last: {:?} at {:#x} in life {}",
                    last.kind,
                    last.address,
                    last.incarnation.0
                );
            }
        }
    }
}

fn cpus(_: &str) {
    let machine = own().machine;
    say!("CPU  cell  state     exits      ticks     idle  switches  bus errors  stray NMIs");
    for cell in machine.all_cells().iter() {
        for (index, cpu) in machine.cpus_of(cell).enumerate() {
            let entry = machine.cpu(cpu);
            let state = match entry.standing.state() {
                CpuState::Absent => "absent",
                CpuState::Parked => "parked",
                CpuState::Running => "running",
                CpuState::Restarting => "restart",
            };
            let exits = entry.exits.load(Ordering::Relaxed);
            let _ = write!(Console, "{cpu:3}  {cell:4}  {state:7} {exits:7}");
            match per_cpu::block(index).filter(|block| cell == own().cell && block.is_up()) {
                Some(block) => show_counters(block),
                None => say!(""),
            }
        }
    }
}

fn show_counters(block: &per_cpu::PerCpu) {
    let [ticks, idle, switches, bus_errors, nmis] = [
        &block.ticks,
        &block.idle_ticks,
        &block.switches,
        &block.bus_errors,
        &block.stray_nmis,
    ]
    .map(|counter| counter.load(Ordering::Relaxed));
    let idle = idle * 100 / ticks.max(1);
    say!("  {ticks:9}  {idle:5} %  {switches:8}  {bus_errors:10}  {nmis:10}");
}

fn work(_: &str) {
    say!("cell  operation  attempted   verified       lost    refused      wrong    suspect");
    for cell in own().machine.all_cells().iter() {
        for operation in Operation::ALL {
            match account(cell, operation) {
                Ok([attempted, verified, lost, refused, wrong, suspect]) => say!(
                    "{cell:4}  {:9} {attempted:10} {verified:10} {lost:10} {refused:10} \
                     {wrong:10} {suspect:10}",
                    operation.name()
                ),
                Err(error) => say!("{cell:4}  {:9} {:?}", operation.name(), error.failure),
            }
        }
    }
}

/// The account of one kind of operation of another cell, copied with care.
fn account(cell: CellId, operation: Operation) -> Result<[u64; 6], cell::careful::CarefulError> {
    const { assert!(size_of::<OperationAccount>() == 6 * 8) };
    let offset =
        offset_of!(WorkloadRecord, operations) + operation as usize * size_of::<OperationAccount>();
    let reader = careful::reader_of_current(cell);
    let mut words = [0; 6];
    reader.copy(reader.public(WORKLOAD_OFFSET + offset as u64), &mut words)?;
    Ok(words)
}

fn threads(_: &str) {
    say!("thread      priority    state");
    scheduler::list(|name, priority, state| {
        say!("{name:10}  {:10}  {state:?}", format_args!("{priority:?}"));
    });
}

fn memory(_: &str) {
    let region = own().region;
    say!("frames {:#x} to {:#x}", region.start.0, region.end.0);
    for (serves, count) in USES.iter().zip(pool::counts()) {
        say!("  {:10} {count:8}", format_args!("{serves:?}"));
    }
    let (used, size) = heap::usage();
    say!("heap: {used} of {size} bytes");
    say!("console text that nobody took: {} bytes", remote::dropped());
}

/// The number that `text` says, or `default` if it says nothing; `None`, with a message, if it is
/// none.
fn number(command: &str, text: &str, default: u64) -> Option<u64> {
    let text = text.trim();
    if text.is_empty() {
        return Some(default);
    }
    let parsed = text.parse().ok();
    if parsed.is_none() {
        say!("{command}: {text} is not a number");
    }
    parsed
}

fn show_trace(arguments: &str) {
    let Some(count) = number("trace", arguments, TRACE_DEFAULT) else {
        return;
    };
    let count = count.min(TRACE_MAX);
    let Some(ring) = trace::ring() else { return };
    let end = ring.written();
    for record in (end.saturating_sub(count)..end).filter_map(|number| ring.get(number)) {
        let TraceRecord {
            at,
            cpu,
            arguments: [first, second],
            event,
            ..
        } = record;
        let name = Event::from_raw(event).map_or("?", Event::name);
        let (seconds, microseconds) = (at.0 / 1_000_000_000, at.0 / 1000 % 1_000_000);
        say!("{seconds:4}.{microseconds:06}  CPU {cpu:3}  {name:24} {first:#x} {second:#x}");
    }
}

fn inject(arguments: &str) {
    let (name, rest) = arguments.split_once(' ').unwrap_or((arguments, ""));
    let Some(&fault) = InnerFault::ALL.iter().find(|fault| fault.name() == name) else {
        say!(
            "inject a fault into this cell, cell {}; known are",
            own().cell
        );
        for fault in InnerFault::ALL {
            say!("  {}", fault.name());
        }
        say!("A cell never writes another one's memory; the host injects the others' faults.");
        return;
    };
    let Some(argument) = number("inject", rest, fault.default_argument()) else {
        return;
    };
    faults::ask(fault, argument, own().settings.seed);
}
