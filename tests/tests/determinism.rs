//! The deterministic mode: the same seed gives the same runs, to the last bit of memory.
//!
//! Beside that: what can be asserted only where no host stalls a CPU.
//!
//! # Invariants
//! 1. A difference is a fault of the runner or of the guest, never of the host: no run is tried
//!    again.

use std::collections::BTreeMap;

use cell::CellId;
use cell::fault::InnerFault;
use qemu_runner::campaign::directory::{Beginning, Journal, Manifest};
use qemu_runner::campaign::file::Campaign;
use qemu_runner::campaign::jobs::Job;
use qemu_runner::campaign::outcome::Containment;
use qemu_runner::campaign::record::Record;
use qemu_runner::campaign::run::Machines;
use qemu_runner::commands::Setup;
use qemu_runner::experiment::Comparison;
use qemu_runner::fault::catalogue::{Fault, HostFault};
use qemu_runner::fault::plan::{Area, Kind, Plan, Strike};
use qemu_runner::guest::difference::Difference;
use qemu_runner::launch::Mode;
use qemu_runner::machine::Machine;
use qemu_runner::observation::Observation;
use qemu_runner::output::Progress;
use qemu_runner::watch::Detail;
use tests::harness::{carry_out_in, inner, launch, take_turn};

const FILE: &str = r#"
schema = "hive-campaign/1"
[campaign]
name = "the-same-again"
purpose = "The same seed gives the same runs"
mode = "deterministic"
[[fault]]
id = "halt"
model = "cpu.halt"
target = { cell = "random", cpu = "random" }
when = { work_ms = { uniform = [1, 300] } }
[[fault]]
id = "wild"
model = "sw.wild_write"
target = { cell = "random" }
when = { work_ms = { uniform = [1, 300] } }
[[fault]]
id = "bit"
model = "mem.bitflip"
area = "region"
target = { cell = "random" }
when = { work_ms = { uniform = [1, 300] } }
"#;

/// A golden run, a null injection and a fault.
const RUNS: u32 = 3;

fn run(campaign: &Campaign, seed: u64) -> BTreeMap<u32, Record> {
    let machine = campaign.machine.get_ref().machine();
    let launch = launch(machine, Mode::Deterministic);
    let on = (Setup::of(&launch), &launch.images);
    let manifest = Manifest::new(FILE, campaign, seed, RUNS, on).expect("the images can be read");
    let path = tempfile::tempdir().expect("a directory can be made");
    let mut journal = Journal::open(path.path(), &manifest, Beginning::New).expect("it is empty");
    let job = Job {
        campaign,
        seed,
        runs: RUNS,
        at_once: 2,
        only: None,
        stop_on: None,
    };
    let comparison = campaign.header.comparison();
    let engine = Machines { launch, comparison };
    job.carry_out(&engine, &mut journal, &mut Progress::silent())
        .expect("the runs can be carried out");
    journal.records
}

/// A record without what the host's clock says.
fn without_host_times(mut record: Record) -> Record {
    record.wall_ms = 0.0;
    if let Some(measured) = &mut record.measured {
        measured.boot_ms = 0.0;
    }
    record
}

#[test]
fn the_same_seed_gives_the_same_runs() {
    let _turn = take_turn();
    let campaign = Campaign::parse(FILE).expect("the file is good");
    let mut hashes = Vec::new();
    for seed in [1, 2, 3] {
        let [first, second] = [(); 2].map(|()| run(&campaign, seed));
        for (one, other) in first.into_values().zip(second.into_values()) {
            assert_eq!(one.infra, None);
            assert_ne!(one.containment, Containment::Infra);
            assert!(one.ram_sha256.is_some(), "{one:#?}");
            assert_eq!(
                one.difference.is_some(),
                one.kind() == Kind::Fault,
                "{one:#?}"
            );
            hashes.extend(one.ram_sha256.clone());
            assert_eq!(without_host_times(one), without_host_times(other));
        }
    }
    // The hash tells runs apart: none of these is like another.
    let count = hashes.len();
    hashes.sort();
    hashes.dedup();
    assert_eq!((count, hashes.len()), (9, 9));
}

#[test]
fn a_cell_that_keeps_crying_wolf_is_voted_out_and_taken_back() {
    let liar = inner(InnerFault::CryWolf, 1);
    let outcome = carry_out_in(Mode::Deterministic, &Plan::single(liar));
    outcome.assert_recovered(&[1]);
}

#[test]
fn one_false_alarm_expels_nobody() {
    let mut liar = inner(InnerFault::CryWolf, 1);
    liar.argument = 1;
    let outcome = carry_out_in(Mode::Deterministic, &Plan::single(liar));
    outcome.assert_held();
    assert!(outcome.run.false_alarms() > 0, "{:#?}", outcome.verdict);
    assert!(outcome.run.dead().is_empty(), "{:#?}", outcome.verdict);
}

/// A run with a fault, and what of memory is not its control's.
fn beside_control(strike: Strike) -> (Observation, Difference) {
    let _turn = take_turn();
    let launch = launch(Machine::default(), Mode::Deterministic);
    let plan = Plan::single(strike);
    let run = Comparison::Control.run(&launch, &plan, Detail::Events, &mut Progress::silent());
    let mut run = run.expect("the runner works");
    let found = run.difference.take();
    let found = found.expect("the machine stood still in the end");
    assert_eq!(found.foreign, []);
    let memory = launch.machine.memory;
    assert!(found.unwritten > memory / 2, "{found:?} of {memory}");
    (run, found)
}

/// Most of a cell's memory is never used, and a run beside its control differs in nothing else.
#[test]
fn of_a_bit_in_unused_memory_all_that_is_left_is_the_bit() {
    let flip = Strike {
        area: Area::Region,
        seed: 3,
        ..Strike::new(Fault::Host(HostFault::MemBitflip), 1)
    };
    let (_, found) = beside_control(flip);
    assert_eq!(found.cells, BTreeMap::from([(1, 1)]), "{found:?}");
}

/// A whole recovery lies between the two ends, and still nobody wrote who must not.
#[test]
fn a_cell_that_dies_and_comes_back_leaves_nothing_that_nobody_wrote() {
    let (run, found) = beside_control(Strike::new(Fault::Host(HostFault::CpuHalt), 1));
    let dead: Vec<usize> = run.dead().iter().map(CellId::index).collect();
    assert_eq!(dead, [1]);
    assert!(found.cells.contains_key(&1), "{found:?}");
}
