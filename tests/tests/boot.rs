//! A machine comes up as cells that serve, in all the sizes of daily use.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use cell::PhysicalAddress;
use cell::machine::BackEnd;
use cell::standing::CpuState;
use qemu_runner::machine::Machine;
use qemu_runner::session::Session;
use tests::harness::with_machine;
use tests::platform::{GIBIBYTES, Platform};

const GIB: u64 = 1 << 30;
/// The monitor's tables lie below this.
const MONITOR_MAX: u64 = 128 << 20;

/// Boots `cells` cells on `cpus` CPUs and checks that all of them are whole and live.
fn boots(cells: usize, cpus: usize) {
    with_machine(
        Machine {
            cells,
            cpus,
            ..Machine::default()
        },
        |session| {
            let (memory, machine) = (&session.memory, &session.machine);
            assert_eq!((machine.cells(), machine.cpus), (cells, cpus));
            let (_, live) = machine.live_set(memory).unwrap();
            assert_eq!(live.len(), cells, "all cells are in the live set");
            let mut counted = 0;
            for cell in 0..cells {
                assert_eq!(machine.cell(memory, cell).unwrap().incarnation, 1);
                let own = machine.cpus_of(memory, cell).unwrap();
                assert!(
                    own.iter().all(|cpu| cpu.state == CpuState::Running),
                    "cell {cell}: {own:?}"
                );
                counted += own.len();
            }
            assert_eq!(counted, cpus, "every CPU belongs to one cell");
            for (one, two) in machine.regions.iter().zip(machine.regions.iter().skip(1)) {
                assert!(one.end <= two.start, "regions do not overlap");
            }
        },
    );
}

#[test]
fn eight_cpus_come_up_as_four_cells() {
    boots(4, 8);
}

#[test]
fn one_cell_has_the_machine_to_itself() {
    boots(1, 2);
}

#[test]
fn two_cells() {
    boots(2, 4);
}

#[test]
fn eight_cells_of_one_cpu_each() {
    boots(8, 8);
}

#[test]
fn memory_above_4_gib_is_used() {
    let machine = Machine {
        memory: 5 << 30,
        ..Machine::default()
    };
    with_machine(machine, |session| {
        let home = session.machine.cells() - 1;
        let start = session.machine.public(home).0;
        assert!(start >= 4 << 30, "the last cell lies at {start:#x}");
    });
}

/// At least each cell's own memory is, of which it grants nothing to itself.
#[test]
fn whole_gib_of_memory_are_mapped_by_one_entry_each() {
    for platform in [Platform::NptQemu, Platform::PagingQemu] {
        let machine = Machine {
            memory: GIBIBYTES,
            ..platform.ordinary_machine()
        };
        with_machine(machine, |session| {
            let found = gibibyte_entries(session);
            for region in &session.machine.regions {
                let start = region.start.start().0;
                assert!(start.is_multiple_of(GIB), "a region of whole GiB");
                assert!(found.contains(&start), "{start:#x} of {found:x?}");
            }
        });
    }
}

/// What the monitor's tables map by one entry for a GiB.
fn gibibyte_entries(session: &Session) -> Vec<u64> {
    const PRESENT_AND_LARGE: u64 = 1 << 7 | 1;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    let mut found = Vec::new();
    for page in (1 << 20..MONITOR_MAX).step_by(4096) {
        let mut bytes = vec![0; 4096];
        let read = session.memory.read(PhysicalAddress(page), &mut bytes);
        read.unwrap();
        let words = bytes
            .chunks_exact(8)
            .map(|word| word.first_chunk().unwrap());
        // In a page of another level, only the first entry can be for its number of GiB.
        for (index, word) in (0u64..).zip(words).skip(1) {
            let word = u64::from_le_bytes(*word);
            let is_large = word & PRESENT_AND_LARGE == PRESENT_AND_LARGE;
            if is_large && word & ADDRESS == index * GIB {
                found.push(index * GIB);
            }
        }
    }
    found
}

#[test]
fn cpus_that_do_not_divide_evenly_are_all_used() {
    boots(3, 7);
}

#[test]
fn the_best_back_end_is_chosen_and_another_can_be_asked_for() {
    let asked = [
        ("auto", BackEnd::Npt),
        ("paging", BackEnd::Paging),
        ("off", BackEnd::Off),
    ];
    for (firewall, expected) in asked {
        let machine = Machine {
            firewall: firewall.into(),
            ..Machine::default()
        };
        with_machine(machine, |session| {
            assert_eq!(session.machine.back_end, expected);
        });
    }
}
