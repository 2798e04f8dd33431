//! Registers, objects, memory, clocks, interrupts and programs: what strikes them stays.
//!
//! Each model is injected into one cell of four, and nothing may speak against the run.

use cell::fault::InnerFault;
use qemu_runner::fault::catalogue::HostFault;
use qemu_runner::fault::plan::{Area, Hook, Registers, Strike};
use tests::harness::{host, inject, inner};

#[test]
fn a_bit_of_a_register() {
    for &registers in Registers::ALL {
        let strike = Strike {
            registers,
            ..host(HostFault::RegBitflip, 2)
        };
        inject(strike).assert_held();
    }
}

#[test]
fn a_bit_of_every_part_of_memory() {
    for &area in &[Area::Text, Area::Heap, Area::Stack, Area::PageTables] {
        let strike = Strike {
            area,
            ..host(HostFault::MemBitflip, 1)
        };
        inject(strike).assert_held();
    }
}

#[test]
fn a_stuck_bit_and_a_burst_in_an_object() {
    for fault in [
        HostFault::MemStuck,
        HostFault::MemBurst,
        HostFault::MemPointer,
    ] {
        let strike = Strike {
            object: Some("kernel::memory::heap::HEAP.bottom".into()),
            ..host(fault, 3)
        };
        let outcome = inject(strike);
        outcome.assert_held();
        let detail = &outcome.run.injected[0].detail;
        assert!(detail.contains("HEAP.bottom"), "{detail}");
    }
}

#[test]
fn a_memory_that_fails_kills_its_cell() {
    inject(host(HostFault::MemFail, 1)).assert_recovered(&[1]);
}

#[test]
fn clocks_that_are_wrong_convince_nobody() {
    for fault in [
        InnerFault::SlowClock,
        InnerFault::ClockSkew,
        InnerFault::ClockStall,
    ] {
        inject(inner(fault, 2)).assert_held();
    }
}

#[test]
fn interrupts_that_are_lost_or_that_nobody_sent() {
    inject(inner(InnerFault::InterruptLost, 1)).assert_held();
    inject(host(HostFault::IrqSpurious, 1)).assert_held();
}

#[test]
fn a_cell_without_its_pulse_is_recovered() {
    let hook = Hook {
        program: "pulse".into(),
        ..Hook::default()
    };
    let strike = Strike {
        hook,
        ..inner(InnerFault::ProgramKill, 2)
    };
    inject(strike).assert_recovered(&[2]);
}
