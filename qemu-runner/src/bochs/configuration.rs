//! A machine as Bochs's configuration file.
//!
//! # References
//! Bochs 2.7 user manual, "The configuration file bochsrc".

use super::install::Installation;
use crate::error::{Error, Result};
use crate::fault::catalogue::{Fault, HostFault};
use crate::machine::Machine;

/// Instructions of one CPU that make a second of the machine's time. It is what the machine takes
/// for the rate of its processors. A larger number makes every second, those that the firmware
/// waits too, so much longer on the host; with a much smaller one the cells have no time left
/// between two ticks.
pub const INSTRUCTIONS_PER_SECOND: u64 = 10_000_000;
/// Instructions of one CPU before the next has its turn.
const TURN: u32 = 16;
/// With one more, Bochs runs out of timers.
const CPUS_MAX: usize = 15;
/// More would lie above a hole that is not modelled here.
const MEMORY_MAX: u64 = 2 << 30;
/// What the clock says at first, so that two runs are the same: the first second of 2000.
const EPOCH: u32 = 946_684_800;

/// The name of the processor that a machine needs: one with SVM where that is asked for, and else
/// one with VMX, which QEMU's translator lacks.
pub fn model(machine: &Machine) -> &'static str {
    match machine.firewall.as_str() {
        "npt" => "ryzen",
        _ => "corei7_skylake_x",
    }
}

/// Why a fault cannot be injected under Bochs, if it cannot.
pub const fn refuses(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::Host(HostFault::CpuNmi) => Some("Bochs has no way to send an NMI from outside"),
        Fault::Host(HostFault::CpuMce | HostFault::CpuMceCorrected) => {
            Some("Bochs has no machine checks")
        }
        Fault::Host(HostFault::MemFail) => {
            Some("Bochs has no machine checks, and without one nobody learns of the failure")
        }
        Fault::Host(HostFault::RegBitflip) => Some("Bochs's debugger changes some registers only"),
        Fault::Host(HostFault::IrqSpurious) => {
            Some("Bochs has no way to send an interrupt from outside")
        }
        _ => None,
    }
}

/// Refuses machines that Bochs cannot be.
///
/// # Errors
/// [`Error::Usage`].
pub fn check(machine: &Machine) -> Result<()> {
    if machine.cpus > CPUS_MAX {
        let cpus = machine.cpus;
        return Err(Error::Usage(format!(
            "--cpus {cpus}: Bochs has timers for {CPUS_MAX}"
        )));
    }
    if machine.memory > MEMORY_MAX {
        return Err(Error::Usage("--memory: at most 2G under Bochs".into()));
    }
    Ok(())
}

/// The file. Names in it are relative to the run directory, where Bochs is started; `serial` says
/// what the serial port is.
pub fn text(machine: &Machine, installation: &Installation, serial: &str) -> String {
    let (bios, vga) = (installation.bios.display(), installation.vga_bios.display());
    let (mib, cpus, model) = (machine.memory >> 20, machine.cpus, model(machine));
    // The firmware does not wait for a key that nobody presses (three seconds of the machine's).
    // A panic is the guest's in most cases (a triple fault): the machine stays, so that its records
    // can be read. Resets are logged as information of the system.
    // Registers that it does not know read as zero: it shows CPUID bits of registers that it lacks
    // (machine checks: MCA is there, MCG_CAP is not). Violations of nested tables are logged as
    // errors, one by one, and are daily work here.
    format!(
        "plugin_ctrl: unmapped=1, biosdev=1, speaker=0, extfpuirq=1, parallel=0, serial=1, \
         iodebug=1\n\
         config_interface: textconfig\n\
         display_library: term\n\
         memory: guest={mib}, host={mib}\n\
         romimage: file=\"{bios}\", options=fastboot\n\
         vgaromimage: file=\"{vga}\"\n\
         cpu: model={model}, count={cpus}, quantum={TURN}, ips={INSTRUCTIONS_PER_SECOND}, \
         reset_on_triple_fault=0, ignore_bad_msrs=1\n\
         clock: sync=none, time0={EPOCH}\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata0-master: type=cdrom, path=hive.iso, status=inserted\n\
         boot: cdrom\n\
         com1: enabled=1, {serial}\n\
         log: bochs.log\n\
         panic: action=report\n\
         info: action=ignore, pc_system=report\n\
         error: action=ignore\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bochs_cannot_be_is_refused() {
        let with = |cpus, memory| Machine {
            cpus,
            memory,
            ..Machine::default()
        };
        assert!(check(&Machine::default()).is_ok());
        assert!(check(&with(16, 1 << 30)).is_err());
        assert!(check(&with(8, 3 << 30)).is_err());
    }

    #[test]
    fn the_processor_follows_the_firewall() {
        let with = |firewall: &str| Machine {
            firewall: firewall.into(),
            ..Machine::default()
        };
        assert_eq!(model(&with("npt")), "ryzen");
        assert_eq!(model(&with("ept")), "corei7_skylake_x");
        assert_eq!(model(&with("auto")), "corei7_skylake_x");
    }
}
