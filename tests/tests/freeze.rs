//! A CPU that stands still and goes on later harms nobody.

use std::time::Duration;

use qemu_runner::fault::catalogue::HostFault;
use qemu_runner::fault::plan::Strike;
use tests::harness::{host, inject};

#[test]
fn a_frozen_cpu_that_goes_on_finds_itself_expelled() {
    let thaw = Some(Duration::from_secs(1));
    let outcome = inject(Strike {
        thaw,
        ..host(HostFault::CpuFreeze, 2)
    });
    outcome.assert_recovered(&[2]);
    assert_eq!(outcome.run.notes.len(), 1, "it went on");
}

#[test]
fn a_cpu_that_stays_frozen_is_left_behind() {
    inject(host(HostFault::CpuFreeze, 1)).assert_recovered(&[1]);
}

#[test]
fn a_cpu_that_stands_still_for_a_moment_harms_nobody() {
    let thaw = Some(Duration::from_millis(2));
    inject(Strike {
        thaw,
        ..host(HostFault::CpuFreeze, 3)
    })
    .assert_held();
}
