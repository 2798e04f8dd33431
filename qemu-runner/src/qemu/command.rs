//! A machine as QEMU's command line.

use std::ffi::OsString;
use std::path::Path;

use super::install::Accelerator;
use crate::launch::Serial;
use crate::machine::Machine;

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

/// QEMU's arguments. `directory` holds the images, the sockets and the logs; `ram` backs the
/// guest's memory.
pub fn arguments(
    machine: &Machine,
    accelerator: Accelerator,
    directory: &Path,
    ram: &Path,
    serial: Serial,
    afterwards: Afterwards,
) -> Vec<OsString> {
    let (accelerate, model) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Tcg => ("tcg,thread=multi", "qemu64,+svm,+npt"),
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
    add(
        "kernel",
        directory.join("hive-monitor").display().to_string(),
    );
    add("initrd", option_value(&directory.join("hive-kernel")));
    add("append", machine.boot_line());
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
    words.into_iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_paths_are_doubled_where_they_would_divide() {
        let words = arguments(
            &Machine::default(),
            Accelerator::Tcg,
            Path::new("/a,b"),
            Path::new("/c,d"),
            Serial::Log,
            Afterwards::Pause,
        );
        let has = |word: &str| words.iter().any(|other| other == word);
        assert!(has("unix:/a,,b/qmp,server=on,wait=off"));
        assert!(has("file:/a,b/serial.log"));
        assert!(has("/a,b/hive-monitor"));
        assert!(has("/a,,b/hive-kernel"));
        assert!(
            words
                .iter()
                .any(|word| word.to_string_lossy().contains("mem-path=/c,,d,"))
        );
    }
}
