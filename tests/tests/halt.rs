//! A CPU that stops takes its cell with it, and no other; the cell comes back.

use cell::fault::InnerFault;
use qemu_runner::fault::catalogue::HostFault;
use qemu_runner::fault::plan::{Plan, Strike};
use qemu_runner::machine::Machine;
use tests::harness::{experiment, host, inject, inner};

#[test]
fn the_cell_with_the_boot_cpu_is_recovered() {
    inject(host(HostFault::CpuHalt, 0)).assert_recovered(&[0]);
}

#[test]
fn cell_1_is_recovered() {
    inject(host(HostFault::CpuHalt, 1)).assert_recovered(&[1]);
}

#[test]
fn cell_2_is_recovered() {
    inject(host(HostFault::CpuHalt, 2)).assert_recovered(&[2]);
}

#[test]
fn the_last_cell_is_recovered() {
    inject(host(HostFault::CpuHalt, 3)).assert_recovered(&[3]);
}

#[test]
fn a_second_cpu_takes_its_cell_along() {
    let strike = Strike {
        cpu_index: 1,
        ..host(HostFault::CpuHalt, 1)
    };
    inject(strike).assert_recovered(&[1]);
}

#[test]
fn of_two_cells_the_dead_one_goes() {
    let machine = Machine {
        cells: 2,
        cpus: 4,
        ..Machine::default()
    };
    let plan = Plan::single(host(HostFault::CpuHalt, 1));
    experiment(machine, &plan).assert_recovered(&[1]);
}

#[test]
fn of_eight_cells_seven_survive() {
    let machine = Machine {
        cells: 8,
        ..Machine::default()
    };
    let plan = Plan::single(host(HostFault::CpuHalt, 5));
    experiment(machine, &plan).assert_recovered(&[5]);
}

#[test]
fn behind_page_tables_a_panic_is_recovered_too() {
    let machine = Machine {
        firewall: "paging".into(),
        ..Machine::default()
    };
    let plan = Plan::single(inner(InnerFault::Panic, 2));
    experiment(machine, &plan).assert_recovered(&[2]);
}
