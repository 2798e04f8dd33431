//! Every way out of a cell is walled: stores, interrupts, ports, a triple fault.

use cell::fault::InnerFault;
use qemu_runner::fault::plan::Strike;
use tests::harness::{inject, inner};

#[test]
fn wild_stores_reach_no_other_cell() {
    for seed in 1..=2 {
        inject(Strike {
            seed,
            ..inner(InnerFault::WildWrite, 1)
        })
        .assert_held();
    }
}

#[test]
fn wild_stores_of_the_cell_with_the_boot_cpu_reach_no_other_cell() {
    inject(inner(InnerFault::WildWrite, 0)).assert_held();
}

#[test]
fn interrupts_at_other_cells_do_not_arrive() {
    inject(inner(InnerFault::IpiStorm, 2)).assert_held();
}

#[test]
fn no_cell_resets_the_machine() {
    inject(inner(InnerFault::PortReset, 3)).assert_held();
}
