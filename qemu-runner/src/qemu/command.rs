//! The machine that is asked for, checked, and as QEMU's command line.

use std::ffi::OsString;
use std::path::Path;

use cell::CPUS_MAX;
use cell::parameters::Parameters;
use cell::partition::{CELL_BYTES_MIN, check_cpus};
use cell::standstill::PORTS;
use serde::{Deserialize, Serialize};

use super::install::Accelerator;
use super::standstill::pipe_names;
use crate::error::{Error, Result};

/// Memory that the monitor and the firmware take, for the check before booting; the monitor checks
/// exactly.
const MONITOR_BYTES: u64 = 16 << 20;

/// The machine that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Cells.
    pub cells: usize,
    /// CPUs.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// `auto`, `npt` or `paging`.
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
            let (cells, needed) = (self.cells, needed >> 20);
            return Err(Error::Usage(format!(
                "{cells} cells need at least {needed} MiB of memory"
            )));
        }
        if !self.memory.is_multiple_of(1 << 20) {
            return Err(Error::Usage("memory must be whole MiB".into()));
        }
        Ok(parameters)
    }
}

/// How CPUs and time go on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All CPUs at once, as fast as the host goes.
    #[default]
    Realtime,
    /// One CPU after the other, by instructions counted: the same run each time.
    Deterministic,
}

impl Mode {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
            Self::Deterministic => "deterministic",
        }
    }
}

/// One instruction takes 2 to the power of this nanoseconds, shared by all CPUs: about as many as
/// TCG executes on two host cores.
const INSTRUCTION_SHIFT: u32 = 2;
/// The processor, where QEMU emulates it.
const MODEL: &str = "qemu64,+svm,+npt";
/// When the machine first stands still, in microseconds since the monitor started.
const FIRST_STANDSTILL: u64 = 1000;

/// Where the guest's serial port goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serial {
    /// The terminal, shared with QEMU's monitor: Ctrl-A C switches, Ctrl-A X leaves.
    Console,
    /// The file `serial.log` in the run directory.
    Log,
}

/// What QEMU does when the guest resets or shuts the machine down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Afterwards {
    /// It ends.
    Leave,
    /// It pauses, so that the records can be read.
    Pause,
}

/// A path inside an option that commas divide: there a comma is written twice. `-kernel` and
/// `file:` take a path as it is.
fn option_value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The boot parameters, with what the mode asks for.
fn boot_line(machine: &Machine, mode: Mode) -> String {
    let line = machine.boot_line();
    match mode {
        Mode::Realtime => line,
        Mode::Deterministic => format!("{line} standstill={FIRST_STANDSTILL}"),
    }
}

/// Time by instructions counted, and the ports at which the machine stands still.
fn counted_time(directory: &Path) -> Vec<(&'static str, String)> {
    let shift = format!("shift={INSTRUCTION_SHIFT},sleep=off");
    let clock = "base=2000-01-01,clock=vm".to_string();
    let mut options = vec![("icount", shift), ("rtc", clock)];
    for (number, port) in PORTS.into_iter().enumerate() {
        let [still, gate] = pipe_names(number).map(|name| option_value(&directory.join(name)));
        options.extend([
            (
                "chardev",
                format!("file,id=port{number},path={still},logfile={gate},logappend=on"),
            ),
            (
                "device",
                format!("isa-debugcon,iobase={port:#x},chardev=port{number}"),
            ),
        ]);
    }
    options
}

/// QEMU's arguments. `directory`, in which QEMU must be started, holds the images, the sockets and
/// the logs; `ram` backs the guest's memory.
///
/// The guest is told the names of the images, so they are the same each time.
pub fn arguments(
    machine: &Machine,
    (accelerator, mode): (Accelerator, Mode),
    directory: &Path,
    ram: &Path,
    serial: Serial,
    afterwards: Afterwards,
) -> Vec<OsString> {
    let (accelerate, model) = match (mode, accelerator) {
        (Mode::Deterministic, _) => ("tcg,thread=single", MODEL),
        (Mode::Realtime, Accelerator::Kvm) => ("kvm", "host"),
        (Mode::Realtime, Accelerator::Tcg) => ("tcg,thread=multi", MODEL),
    };
    let mib = machine.memory >> 20;
    let socket = |name: &str| {
        let path = option_value(&directory.join(name));
        format!("unix:{path},server=on,wait=off")
    };
    let is_interactive = serial == Serial::Console;
    let serial = match serial {
        Serial::Console => "mon:stdio".to_string(),
        Serial::Log => format!("file:{}", directory.join("serial.log").display()),
    };
    let shutdown = match afterwards {
        Afterwards::Leave => "poweroff",
        Afterwards::Pause => "pause",
    };
    let mut words: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| words.extend([format!("-{option}"), value]);
    add("machine", "q35,memory-backend=ram".into());
    add("accel", accelerate.into());
    add("cpu", model.into());
    add("smp", machine.cpus.to_string());
    add("m", format!("{mib}M"));
    let backend = format!(
        "memory-backend-file,id=ram,size={mib}M,mem-path={}",
        option_value(ram)
    );
    add("object", format!("{backend},share=on"));
    add("kernel", "hive-monitor".into());
    add("initrd", "hive-kernel".into());
    add("append", boot_line(machine, mode));
    if mode == Mode::Deterministic {
        let options = counted_time(directory);
        for (option, value) in options {
            add(option, value);
        }
    }
    add("display", "none".into());
    add("serial", serial);
    add("device", "isa-debug-exit,iobase=0xf4,iosize=4".into());
    add(
        "action",
        format!("reboot=shutdown,shutdown={shutdown},panic=none,watchdog=none"),
    );
    add("qmp", socket("qmp"));
    add("qtest", socket("qtest"));
    add("qtest-log", "none".into());
    // There is one gdb server; on the console it is the user's to open.
    if !is_interactive {
        add("gdb", socket("gdb"));
    }
    words.extend(["-nodefaults".to_string(), "-no-user-config".to_string()]);
    if mode == Mode::Deterministic {
        // Nothing runs until QMP is connected, which has QEMU look at its clocks at a time of the
        // host's.
        words.push("-S".into());
    }
    words.into_iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_paths_are_doubled_where_they_would_divide() {
        let words = arguments(
            &Machine::default(),
            (Accelerator::Tcg, Mode::Deterministic),
            Path::new("/a,b"),
            Path::new("/c,d"),
            Serial::Log,
            Afterwards::Pause,
        );
        let has = |word: &str| words.iter().any(|other| other == word);
        assert!(has("unix:/a,,b/qmp,server=on,wait=off"));
        assert!(has("file:/a,b/serial.log"));
        assert!(has(
            "file,id=port1,path=/a,,b/still1,logfile=/a,,b/gate1,logappend=on"
        ));
        assert!(
            words
                .iter()
                .any(|word| word.to_string_lossy().contains("mem-path=/c,,d,"))
        );
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
            append: "tick=1".into(),
            ..Machine::default()
        }));
        assert!(refused(Machine {
            append: "cells=4".into(),
            ..Machine::default()
        }));
    }
}
