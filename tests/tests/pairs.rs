//! A second cell dies while the first death is being dealt with.

use cell::fault::InnerFault;
use cell::trace::Event;
use qemu_runner::fault::catalogue::HostFault;
use qemu_runner::fault::plan::{Plan, Strike, Trigger};
use qemu_runner::qemu::command::Machine;
use tests::harness::{experiment, host, inner};

/// Halts a CPU of cell 1 and strikes again at the first `event` after it.
fn pair(second: Strike, event: Event) {
    let trigger = Trigger::at(event);
    let cell = second.cell;
    let plan = Plan {
        then: vec![(second, trigger)],
        ..Plan::single(host(HostFault::CpuHalt, 1))
    };
    experiment(Machine::default(), &plan).assert_recovered(&[1, cell]);
}

#[test]
fn a_halt_during_agreement() {
    pair(host(HostFault::CpuHalt, 3), Event::EpochBegin);
}

#[test]
fn a_panic_after_barrier_1() {
    pair(inner(InnerFault::Panic, 2), Event::Barrier1);
}

#[test]
fn a_panic_during_the_discard() {
    pair(inner(InnerFault::Panic, 3), Event::Discard);
}

#[test]
fn a_halt_while_the_first_is_rebooted() {
    pair(host(HostFault::CpuHalt, 2), Event::Reboot);
}

#[test]
fn a_third_dies_when_the_second_is_dealt_with() {
    let then = vec![
        (inner(InnerFault::Panic, 2), Trigger::at(Event::Barrier1)),
        (host(HostFault::CpuHalt, 3), Trigger::at(Event::Resume)),
    ];
    let plan = Plan {
        then,
        ..Plan::single(inner(InnerFault::Panic, 1))
    };
    experiment(Machine::default(), &plan).assert_recovered(&[1, 2, 3]);
}
