//! Interrupts and errors of the hardware stay in the cell that they strike.

use qemu_runner::fault::catalogue::HostFault;
use qemu_runner::fault::plan::{Area, Strike};
use tests::harness::{host, inject};

#[test]
fn an_uncorrected_machine_check_kills_one_cell() {
    inject(host(HostFault::CpuMce, 1)).assert_recovered(&[1]);
}

#[test]
fn a_corrected_machine_check_kills_nobody() {
    let outcome = inject(host(HostFault::CpuMceCorrected, 1));
    outcome.assert_held();
    assert!(outcome.verdict.dead.is_empty());
}

#[test]
fn a_stray_nmi_is_contained() {
    inject(host(HostFault::CpuNmi, 3)).assert_held();
}

#[test]
fn flipped_bits_in_a_kernel_are_contained() {
    for seed in 1..=2 {
        inject(Strike {
            seed,
            ..host(HostFault::MemBitflip, 2)
        })
        .assert_held();
    }
}

#[test]
fn flipped_bits_anywhere_in_a_cell_are_contained() {
    let strike = Strike {
        area: Area::Region,
        ..host(HostFault::MemBitflip, 1)
    };
    inject(strike).assert_held();
}

#[test]
fn changed_pointers_are_contained() {
    for seed in 1..=2 {
        inject(Strike {
            seed,
            ..host(HostFault::MemPointer, 3)
        })
        .assert_held();
    }
}
