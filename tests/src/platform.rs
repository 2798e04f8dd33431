//! Where trials run: a back end of the firewall on an emulator.
//!
//! What a platform cannot do is said with the reason, and so is what it could do and does not: no
//! trial counts as passed that did not run.

use std::env;
use std::sync::OnceLock;

use cell::fault::InnerFault;
use qemu_runner::bochs;
use qemu_runner::cli::EmulatorArgument;
use qemu_runner::fault::catalogue::{Fault, HostFault};
use qemu_runner::fault::plan::Plan;
use qemu_runner::launch::{Mode, Program};
use qemu_runner::machine::Machine;
use qemu_runner::qemu::install::{self, Accelerator};

use crate::trials::{Memory, Trial, Weight};

/// The variable that has slow platforms run every trial: `all`.
pub const ON_DEMAND: &str = "HIVE_TRIALS";

/// Memory of which each of four cells has a whole GiB: QEMU leaves the third and the fourth to
/// devices, and the cells lie above them.
pub const GIBIBYTES: u64 = 6 << 30;

/// A back end of the firewall on an emulator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Platform {
    /// Nested page tables (AMD SVM) under QEMU.
    NptQemu,
    /// Nested page tables (AMD SVM) under Bochs.
    NptBochs,
    /// Extended page tables (Intel VMX) under Bochs.
    EptBochs,
    /// Page tables only, under QEMU.
    PagingQemu,
}

/// Why a trial does not run on a platform.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Omission {
    /// The platform cannot do it, ever.
    Cannot(&'static str),
    /// It could, and does not here.
    NotRun(String),
}

impl Platform {
    /// Every platform, in the order of the table.
    pub const ALL: [Self; 4] = [
        Self::NptQemu,
        Self::NptBochs,
        Self::EptBochs,
        Self::PagingQemu,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NptQemu => "npt-qemu",
            Self::NptBochs => "npt-bochs",
            Self::EptBochs => "ept-bochs",
            Self::PagingQemu => "paging-qemu",
        }
    }

    /// What it runs of the trials when nobody asks for more.
    const fn share(self) -> Weight {
        match self {
            Self::NptQemu | Self::PagingQemu => Weight::Further,
            Self::EptBochs => Weight::Telling,
            Self::NptBochs => Weight::Essential,
        }
    }

    const fn firewall(self) -> &'static str {
        match self {
            Self::NptQemu | Self::NptBochs => "npt",
            Self::EptBochs => "ept",
            Self::PagingQemu => "paging",
        }
    }

    const fn emulator(self) -> EmulatorArgument {
        match self {
            Self::NptQemu | Self::PagingQemu => EmulatorArgument::Qemu,
            Self::NptBochs | Self::EptBochs => EmulatorArgument::Bochs,
        }
    }

    /// A machine of the usual size.
    pub fn ordinary_machine(self) -> Machine {
        Machine {
            firewall: self.firewall().into(),
            ..Machine::default()
        }
    }

    /// The machine of a trial.
    pub fn machine(self, trial: &Trial) -> Machine {
        let (cells, cpus) = trial.size;
        let ordinary = self.ordinary_machine();
        Machine {
            cells,
            cpus,
            memory: match trial.memory {
                Memory::Usual => ordinary.memory,
                Memory::Gibibytes => GIBIBYTES,
            },
            ..ordinary
        }
    }

    /// The emulator.
    ///
    /// # Panics
    /// If it is not to be had.
    pub fn program(self) -> Program {
        match self.emulator() {
            EmulatorArgument::Qemu => Program::Qemu {
                installation: install::ensure().expect("QEMU can be had"),
                accelerator: Accelerator::choose(),
                mode: Mode::Realtime,
            },
            EmulatorArgument::Bochs => {
                Program::Bochs(bochs().clone().expect("looked at before the trial"))
            }
        }
    }

    /// Why a trial does not run here, if it does not.
    pub fn omits(self, trial: &Trial) -> Option<Omission> {
        let plan = (trial.plan)();
        if let Some(reason) = self.cannot(&plan).or_else(|| self.lacks(trial.memory)) {
            return Some(Omission::Cannot(reason));
        }
        if self.emulator() == EmulatorArgument::Qemu {
            return None;
        }
        if trial.weight > self.share() && env::var_os(ON_DEMAND).is_none_or(|it| it != "all") {
            let reason = format!("left out here, for Bochs is slow; {ON_DEMAND}=all runs it");
            return Some(Omission::NotRun(reason));
        }
        match bochs() {
            Ok(_) => None,
            Err(problem) => Some(Omission::NotRun(problem.clone())),
        }
    }

    /// In 2 GiB, monitor and firmware leave no whole one to the cells.
    const fn lacks(self, memory: Memory) -> Option<&'static str> {
        match (self.emulator(), memory) {
            (EmulatorArgument::Bochs, Memory::Gibibytes) => Some("Bochs has 2 GiB at most"),
            _ => None,
        }
    }

    fn cannot(self, plan: &Plan) -> Option<&'static str> {
        let faults = plan.strikes().map(|strike| strike.fault);
        let cannot = |fault| match self {
            Self::PagingQemu => beyond_page_tables(fault),
            Self::NptQemu => None,
            Self::NptBochs | Self::EptBochs => beyond_bochs(fault),
        };
        faults.into_iter().find_map(cannot)
    }
}

const fn beyond_bochs(fault: Fault) -> Option<&'static str> {
    bochs::configuration::refuses(fault)
}

/// Without virtualization the kernel is trusted with its CPU.
const fn beyond_page_tables(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::Inner(InnerFault::PortReset) => Some("ports are the kernel's own"),
        Fault::Inner(InnerFault::IpiStorm) => Some("the local APIC is the kernel's own"),
        Fault::Inner(InnerFault::InterruptsOff) | Fault::Host(HostFault::CpuFreeze) => {
            Some("a CPU that takes no interrupts is not fenced")
        }
        Fault::Host(HostFault::MemBitflip | HostFault::MemPointer) => {
            Some("a triple fault resets the machine")
        }
        _ => None,
    }
}

/// Bochs, looked for once, or why it is not to be had.
pub fn bochs() -> &'static Result<bochs::install::Installation, String> {
    static FOUND: OnceLock<Result<bochs::install::Installation, String>> = OnceLock::new();
    FOUND.get_or_init(|| bochs::install::ensure().map_err(|error| error.to_string()))
}
