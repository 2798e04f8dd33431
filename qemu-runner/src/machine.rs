//! The machine that is asked for, checked.

use cell::CPUS_MAX;
use cell::parameters::Parameters;
use cell::partition::{CELL_BYTES_MIN, check_cpus};

use crate::error::{Error, Result};
use crate::output::counted;
use crate::qemu::install::Accelerator;

/// Memory that the monitor and the firmware take, for the check before booting; the monitor checks
/// exactly.
const MONITOR_BYTES: u64 = 16 << 20;
/// What the processors that are emulated can address: 40 bits.
const MEMORY_MAX: u64 = 1 << 40;

/// The machine that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Cells.
    pub cells: usize,
    /// CPUs.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// `auto`, `npt`, `ept`, `paging` or `off`.
    pub firewall: String,
    /// More boot parameters.
    pub append: String,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            cells: 4,
            cpus: 8,
            memory: 512 << 20,
            firewall: "auto".into(),
            append: String::new(),
        }
    }
}

impl Machine {
    /// The boot parameters as one line.
    pub fn boot_line(&self) -> String {
        let line = format!(
            "cells={} firewall={} {}",
            self.cells, self.firewall, self.append
        );
        line.trim_end().to_string()
    }

    /// Refuses a firewall that QEMU's machines cannot have.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn check_firewall(&self, accelerator: Accelerator) -> Result<()> {
        if self.firewall == "ept" && accelerator == Accelerator::Tcg {
            return Err(Error::Usage(
                "--firewall ept: QEMU without KVM has no VMX; use --emulator bochs, or an Intel \
                 host with nested KVM"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Refuses what cannot boot, in the words of the `cell` crate.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn check(&self) -> Result<Parameters> {
        let line = self.boot_line();
        let parameters = Parameters::parse(&line).map_err(|e| Error::Usage(e.to_string()))?;
        if self.cpus > CPUS_MAX {
            let cpus = self.cpus;
            return Err(Error::Usage(format!("--cpus {cpus}: at most {CPUS_MAX}")));
        }
        check_cpus(self.cells, self.cpus).map_err(|error| Error::Usage(error.to_string()))?;
        let needed = MONITOR_BYTES + CELL_BYTES_MIN * self.cells as u64;
        if self.memory < needed {
            let (cells, needed) = (counted(self.cells as u64, "cell"), needed >> 20);
            return Err(Error::Usage(format!(
                "a machine of {cells} needs at least {needed} MiB of memory"
            )));
        }
        if self.memory > MEMORY_MAX {
            let (asked, most) = (self.memory >> 30, MEMORY_MAX >> 30);
            return Err(Error::Usage(format!(
                "--memory: {asked} GiB are more than the {most} GiB that these processors address"
            )));
        }
        if !self.memory.is_multiple_of(1 << 20) {
            return Err(Error::Usage("memory must be whole MiB".into()));
        }
        Ok(parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ept_needs_more_than_a_translator() {
        let machine = Machine {
            firewall: "ept".into(),
            ..Machine::default()
        };
        assert!(machine.check_firewall(Accelerator::Tcg).is_err());
        assert!(machine.check_firewall(Accelerator::Kvm).is_ok());
        assert!(Machine::default().check_firewall(Accelerator::Tcg).is_ok());
    }

    #[test]
    fn impossible_machines_are_refused_before_anything_boots() {
        let refused = |machine: Machine| machine.check().is_err_and(|error| error.exit_code() == 2);
        assert!(Machine::default().check().is_ok());
        assert!(refused(Machine {
            cells: 9,
            ..Machine::default()
        }));
        assert!(refused(Machine {
            cells: 0,
            ..Machine::default()
        }));
        assert!(refused(Machine {
            cpus: 256,
            ..Machine::default()
        }));
        assert!(refused(Machine {
            memory: 64 << 20,
            ..Machine::default()
        }));
        assert!(refused(Machine {
            memory: 99_999 << 30,
            ..Machine::default()
        }));
        assert!(refused(Machine {
            append: "tick=1".into(),
            ..Machine::default()
        }));
        assert!(refused(Machine {
            append: "cells=4".into(),
            ..Machine::default()
        }));
    }
}
