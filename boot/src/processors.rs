//! Finds the CPUs by the firmware's MADT and starts all but the one that runs.
//!
//! # References
//! ACPI 6.5, 5.2.12; AMD64 Architecture Programmer's Manual, volume 2, rev. 3.41, 16.5.

use core::ptr::NonNull;

use acpi::madt::{Madt, MadtEntry};
use acpi::rsdp::Rsdp;
use acpi::{AcpiHandler, AcpiTables, PhysicalMapping};
use cell::CPUS_MAX;
use cell::standing::CpuState;
use firewall::machine::cpu;
use firewall::machine::lapic::{self, Command};
use firewall::monitor::Monitor;

/// How long the CPUs may take to come up.
const START_NANOSECONDS_MAX: u64 = 1_000_000_000;
const INIT_NANOSECONDS: u64 = 1_000_000;

/// The APIC identifiers of the machine's CPUs, the running one first.
#[derive(Debug)]
pub struct Processors {
    apic_ids: [u8; CPUS_MAX],
    count: usize,
}

impl Processors {
    /// The APIC identifiers.
    pub fn apic_ids(&self) -> &[u8] {
        &self.apic_ids[..self.count]
    }
}

/// Why the CPUs cannot be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcessorsError {
    /// The firmware has no (valid) ACPI tables.
    NoAcpi,
    /// The ACPI tables have no (valid) MADT.
    NoMadt,
}

impl core::fmt::Display for ProcessorsError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoAcpi => "the firmware has no valid ACPI tables",
            Self::NoMadt => "the ACPI tables have no valid MADT, so the CPUs are unknown",
        })
    }
}

/// Where the firmware's tables are and which CPUs they list.
///
/// # Errors
/// See [`ProcessorsError`].
pub fn find() -> Result<(Processors, u64), ProcessorsError> {
    // SAFETY: memory is identity-mapped and the BIOS area is readable on every PC.
    let rsdp =
        unsafe { Rsdp::search_for_on_bios(Identity) }.map_err(|_| ProcessorsError::NoAcpi)?;
    let rsdp_address = rsdp.physical_start();
    // SAFETY: the address was just found, with signature and checksum verified.
    let tables = unsafe { AcpiTables::from_rsdp(Identity, rsdp_address) }
        .map_err(|_| ProcessorsError::NoAcpi)?;
    let madt = tables
        .find_table::<Madt>()
        .map_err(|_| ProcessorsError::NoMadt)?;
    let mut processors = Processors {
        apic_ids: [0; CPUS_MAX],
        count: 1,
    };
    processors.apic_ids[0] = lapic::id();
    for entry in madt.get().entries() {
        let MadtEntry::LocalApic(local) = entry else {
            continue;
        };
        let (apic_id, flags) = (local.apic_id, local.flags);
        let is_enabled = flags & 1 != 0;
        let is_new = !processors.apic_ids().contains(&apic_id);
        if is_enabled && is_new && processors.count < CPUS_MAX {
            processors.apic_ids[processors.count] = apic_id;
            processors.count += 1;
        }
    }
    Ok((processors, rsdp_address as u64))
}

/// Starts every CPU but the running one at `monitor.startup_page`, and waits until they are in the
/// monitor.
///
/// Returns how many did not come; their cells go on without them.
pub fn start_others(monitor: &Monitor) -> usize {
    let clock = monitor.machine.clock;
    let cycles = |nanoseconds: u64| clock.cycles_per_second / 1_000_000 * nanoseconds / 1000;
    let others = || monitor.cpus.iter().filter(|cpu| !cpu.is_boot_cpu);
    for other in others() {
        lapic::send(other.apic_id, Command::Init);
    }
    cpu::spin(cycles(INIT_NANOSECONDS));
    for other in others() {
        lapic::send(other.apic_id, Command::StartUp(monitor.startup_page));
    }
    let absent = || {
        others()
            .filter(|cpu| monitor.machine.cpu(cpu.id).standing.state() == CpuState::Absent)
            .count()
    };
    let start = monitor.now();
    while absent() > 0 && monitor.now().0 - start.0 < START_NANOSECONDS_MAX {
        core::hint::spin_loop();
    }
    absent()
}

/// Physical memory is identity-mapped.
#[derive(Clone, Copy)]
struct Identity;

impl AcpiHandler for Identity {
    unsafe fn map_physical_region<T>(
        &self,
        physical_address: usize,
        size: usize,
    ) -> PhysicalMapping<Self, T> {
        let start = NonNull::new(physical_address as *mut T).unwrap_or(NonNull::dangling());
        // SAFETY: the monitor's tables map all of physical memory at its own address, for good.
        unsafe { PhysicalMapping::new(physical_address, start, size, size, *self) }
    }

    fn unmap_physical_region<T>(_region: &PhysicalMapping<Self, T>) {}
}
