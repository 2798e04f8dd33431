//! Booting a machine, injecting into it, and judging, in one call each.
//!
//! # Invariants
//! 1. One machine runs at a time on the host, also between test processes: eight virtual CPUs leave
//!    nothing over, and a machine that starves shows false alarms.
//! 2. Every run is bounded (`BOOT_LIMIT`, `Plan::bound`).

use std::fs::{self, File};
use std::sync::OnceLock;
use std::time::Duration;

use cell::fault::InnerFault;
use cell::trace::Event;
use qemu_runner::experiment;
use qemu_runner::fault::catalogue::{Fault, HostFault};
use qemu_runner::fault::plan::{Plan, Strike};
use qemu_runner::guest::trace::{Observed, Source};
use qemu_runner::images::{self, BuildOptions, Images};
use qemu_runner::launch::{Keep, Launch, Mode, Program, Serial};
use qemu_runner::machine::Machine;
use qemu_runner::observation::Observation;
use qemu_runner::output::Progress;
use qemu_runner::qemu::install::{self, Accelerator};
use qemu_runner::session::Session;
use qemu_runner::timeline;
use qemu_runner::verdict::{Verdict, Violation};
use qemu_runner::watch::Detail;

use crate::platform::Platform;
use crate::trials::Trial;

/// The right to run a machine; given back when dropped.
#[derive(Debug)]
pub struct Turn {
    _file: File,
}

/// Waits until no other test runs a machine.
///
/// # Panics
/// If the lock file cannot be made.
pub fn take_turn() -> Turn {
    let directory = images::target_directory();
    fs::create_dir_all(&directory).expect("the target directory can be made");
    let file = File::create(directory.join("machine.lock")).expect("the lock file can be made");
    file.lock().expect("the lock file can be locked");
    Turn { _file: file }
}

fn built_images() -> Images {
    static IMAGES: OnceLock<Images> = OnceLock::new();
    let build = || images::build(&BuildOptions::default()).expect("the images can be built");
    IMAGES.get_or_init(build).clone()
}

/// Everything that a boot of `machine` under QEMU needs. Call it with the turn taken.
///
/// # Panics
/// If QEMU or the images are not to be had.
pub fn launch(machine: Machine, mode: Mode) -> Launch {
    launch_on(
        Program::Qemu {
            installation: install::ensure().expect("QEMU can be had"),
            accelerator: Accelerator::choose(),
            mode,
        },
        machine,
    )
}

/// Everything that a boot of `machine` on `program` needs. Call it with the turn taken.
///
/// # Panics
/// If the images are not to be had.
pub fn launch_on(program: Program, machine: Machine) -> Launch {
    Launch {
        machine,
        images: built_images(),
        program,
        serial: Serial::Log,
        keep: Keep::Nothing,
    }
}

/// Boots a machine until every cell serves and works, and hands it to `check`.
///
/// # Panics
/// If it does not come up.
pub fn with_machine(machine: Machine, check: impl FnOnce(&mut Session)) {
    let _turn = take_turn();
    let launch = launch(machine, Mode::Realtime);
    let session = Session::boot(&launch, &mut Progress::silent());
    check(&mut session.expect("every cell serves"));
}

/// What a run showed.
#[derive(Debug)]
pub struct Outcome {
    /// What was seen.
    pub run: Observation,
    /// What follows from it.
    pub verdict: Verdict,
}

/// Injects a fault into one cell of a machine of four, under QEMU.
///
/// # Panics
/// If the machine does not come up or a channel fails.
pub fn inject(strike: Strike) -> Outcome {
    carry_out(&Plan::single(strike))
}

/// Carries out a plan on a machine of four cells, under QEMU.
///
/// # Panics
/// If the machine does not come up or a channel fails.
pub fn carry_out(plan: &Plan) -> Outcome {
    carry_out_in(Mode::Realtime, plan)
}

/// Carries out a plan on a machine of four cells, under QEMU in this mode.
///
/// # Panics
/// If the machine does not come up or a channel fails.
pub fn carry_out_in(mode: Mode, plan: &Plan) -> Outcome {
    let _turn = take_turn();
    experiment(&launch(Machine::default(), mode), plan)
}

/// Carries out a plan.
fn experiment(launch: &Launch, plan: &Plan) -> Outcome {
    let run = experiment::run(launch, plan, Detail::Events, &mut Progress::silent());
    let run = run.expect("the run can be carried out");
    Outcome {
        verdict: Verdict::of(&run),
        run,
    }
}

/// Runs a trial on a platform.
///
/// # Panics
/// If what must come of it does not, or it cannot be carried out.
pub fn run_trial(platform: Platform, trial: &Trial) {
    let _turn = take_turn();
    let launch = launch_on(platform.program(), platform.machine(trial));
    (trial.check)(&experiment(&launch, &(trial.plan)()));
}

/// What a run must do in which nothing is enforced, so that the emulator's watch on stores is known
/// to see any.
///
/// # Panics
/// If the watch saw nothing, or the run was not judged by it.
pub fn run_without_firewall() {
    let _turn = take_turn();
    let machine = Machine {
        firewall: "off".into(),
        ..Machine::default()
    };
    let launch = launch_on(Platform::NptBochs.program(), machine);
    let plan = Plan {
        bound: Duration::from_secs(2),
        ..Plan::single(inner(InnerFault::WildWrite, 1))
    };
    let outcome = experiment(&launch, &plan);
    let is_seen = |one: &Violation| matches!(one, Violation::StrayStores { .. });
    assert!(
        outcome.verdict.violations.iter().any(is_seen),
        "{:#?}",
        outcome.verdict
    );
}

/// A fault from outside, in a cell.
pub fn host(fault: HostFault, cell: usize) -> Strike {
    Strike::new(Fault::Host(fault), cell)
}

/// A fault from inside, in a cell.
pub fn inner(fault: InnerFault, cell: usize) -> Strike {
    Strike::new(Fault::Inner(fault), cell)
}

impl Outcome {
    /// Asserts that the fault, which waits at a hook of its cell, struck something there.
    ///
    /// # Panics
    /// If it did not.
    pub fn assert_struck(&self) {
        let [one] = &self.run.injected[..] else {
            panic!("one fault: {:?}", self.run.injected);
        };
        let strikes = |record: &Observed| {
            (record.source, record.event) == (Source::Cell(one.cell), Event::Struck)
        };
        assert!(self.run.since_start().any(strikes), "{:#?}", self.verdict);
    }

    /// Asserts that nothing speaks against the run, and shows it if something does.
    ///
    /// # Panics
    /// If something does.
    pub fn assert_held(&self) {
        assert!(
            self.verdict.held,
            "{:#?}\n{}",
            self.verdict,
            timeline::text(&timeline::lines(&self.run))
        );
    }

    /// Asserts that the fault made `cell` trace `event`, so that a run in which nothing happened
    /// does not pass for one that held.
    ///
    /// # Panics
    /// If it did not.
    pub fn assert_cell_traced(&self, cell: usize, event: Event) {
        let mut records = self.run.since_start();
        assert!(
            records.any(|it| it.event == event && it.source == Source::Cell(cell)),
            "cell {cell} traced no {event:?}\n{}",
            timeline::text(&timeline::lines(&self.run))
        );
    }

    /// Asserts that nothing speaks against the run and that exactly `cells` died and came back.
    ///
    /// # Panics
    /// If not.
    pub fn assert_recovered(&self, cells: &[usize]) {
        self.assert_held();
        assert_eq!(self.verdict.dead, cells, "who died");
        for &cell in cells {
            let [before, after] = self.verdict.cells[cell].incarnations;
            assert!(
                after > before,
                "cell {cell} lives life {after} after life {before}"
            );
        }
        assert_eq!(
            self.run.live_set.len(),
            self.run.before.len(),
            "everybody is in the live set"
        );
    }
}
