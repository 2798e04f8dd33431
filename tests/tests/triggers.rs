//! Faults that wait for a function, an access, a load or an event strike when it is there.

use cell::trace::Event;
use qemu_runner::fault::catalogue::HostFault;
use qemu_runner::fault::plan::{Cause, Plan, Trigger};
use tests::harness::{carry_out, host};

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
    carry_out(&plan).assert_recovered(&[2]);
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
    let outcome = carry_out(&plan);
    assert!(outcome.run.injected.is_empty() && outcome.verdict.dead.is_empty());
    assert_eq!(outcome.run.not_triggered.len(), 1);
}
