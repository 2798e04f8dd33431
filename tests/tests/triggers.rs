//! Faults that wait for a function, an access, a load or an event strike when it is there.

use cell::trace::Event;
use qemu_runner::fault::catalogue::HostFault;
use qemu_runner::fault::plan::{Cause, Plan, Trigger};
use qemu_runner::qemu::command::Machine;
use tests::harness::{experiment, host};

/// Halts cell 2 at the third time of a cause.
fn halt_at(cause: Cause) {
    let plan = Plan {
        trigger: Trigger {
            cause,
            count: 3,
            ..Trigger::NOW
        },
        ..Plan::single(host(HostFault::CpuHalt, 2))
    };
    experiment(Machine::default(), &plan).assert_recovered(&[2]);
}

#[test]
fn a_function() {
    halt_at(Cause::Symbol(
        "kernel::thread::scheduler::switch_from".into(),
    ));
}

#[test]
fn a_store() {
    halt_at(Cause::Write("scheduler::TABLE.ready_count".into()));
}

#[test]
fn a_load() {
    halt_at(Cause::Load(1));
}

#[test]
fn an_event_of_daily_work() {
    halt_at(Cause::Event(Event::RpcSend));
}

#[test]
fn what_never_happens_strikes_nobody() {
    let plan = Plan {
        trigger: Trigger::at(Event::Panic),
        bound: std::time::Duration::from_secs(3),
        ..Plan::single(host(HostFault::CpuHalt, 2))
    };
    let outcome = experiment(Machine::default(), &plan);
    assert!(outcome.run.injected.is_empty() && outcome.verdict.dead.is_empty());
    assert_eq!(outcome.run.not_triggered.len(), 1);
}
