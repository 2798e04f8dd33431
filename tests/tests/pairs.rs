//! A second cell dies while the first death is being dealt with.

use std::time::Duration;

use cell::fault::InnerFault;
use cell::trace::Event;
use qemu_runner::fault::catalogue::HostFault;
use qemu_runner::fault::plan::{Plan, Strike, Trigger};
use qemu_runner::machine::Machine;
use tests::harness::{experiment, host, inner};

/// Halts a CPU of cell 1 and strikes again at the first `event` after it.
fn pair(second: Strike, event: Event) {
    let trigger = Trigger {
        event,
        count: 1,
        delay: Duration::ZERO,
    };
    let cell = second.cell;
    let plan = Plan {
        second: Some((second, trigger)),
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
