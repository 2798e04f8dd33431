//! A machine as QEMU's command line.

use std::ffi::OsString;
use std::path::Path;

use cell::standstill::PORTS;

use super::install::Accelerator;
use super::standstill::pipe_names;
use crate::launch::{Mode, Serial};
use crate::machine::Machine;

/// One instruction takes 2 to the power of this nanoseconds, shared by all CPUs: about as many as
/// TCG executes on two host cores.
const INSTRUCTION_SHIFT: u32 = 2;
/// The processor, where QEMU emulates it: with SVM, nested paging, and pages of 1 GiB.
const MODEL: &str = "qemu64,+svm,+npt,+pdpe1gb";
/// When the machine first stands still, in microseconds since the monitor started.
const FIRST_STANDSTILL: u64 = 1000;

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
        Mode::Deterministic => format!("{line} standstill={FIRST_STANDSTILL} idle=awake"),
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
}
