//! What of the emulators and of this host works, and what to do about the rest.
//!
//! Nothing is assumed that can be tried: a machine that stands still is started and each channel is
//! used once.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::available_parallelism;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::bochs;
use crate::bounded::{self, PROBE_LIMIT};
use crate::cli::DoctorArguments;
use crate::error::{Context, Ending, Error, Result};
use crate::images::{BARE_TARGET, HOST_TARGET};
use crate::interrupt::{self, wait_for};
use crate::iso;
use crate::output::{Format, print_json, print_text, table};
use crate::packages::on_path;
use crate::qemu::gdb::Gdb;
use crate::qemu::install::{
    Accelerator, Installation, OLDEST, PACKAGES, ensure, find, kvm_opens, processor_virtualizes,
};
use crate::qemu::line::ANSWER_LIMIT;
use crate::qemu::process::shared_memory_room;
use crate::qemu::qmp::Qmp;
use crate::qemu::qtest::{BusAccess, Qtest};
use crate::units::float;

/// Free bytes in `/dev/shm` that the default machine wants.
const ROOM: u64 = 640 << 20;
/// CPUs of the host below which eight virtual ones wait for each other.
const CPUS: usize = 2;

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// It works.
    Good,
    /// It is there, and less than it might be.
    Poor,
    /// It does not, and everything else works without it.
    Missing,
    /// It does not, and it is needed.
    Bad,
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    found: String,
    remedy: Option<String>,
}

impl Check {
    fn new(name: &'static str, status: Status, found: impl Into<String>, remedy: &str) -> Self {
        let remedy = (status != Status::Good).then(|| remedy.to_string());
        Self {
            name,
            status,
            found: found.into(),
            remedy,
        }
    }

    /// Good, or else `otherwise`.
    fn good_if(
        good: bool,
        otherwise: Status,
        name: &'static str,
        found: impl Into<String>,
        remedy: &str,
    ) -> Self {
        Self::new(
            name,
            if good { Status::Good } else { otherwise },
            found,
            remedy,
        )
    }
}

/// Checks everything and prints what it found.
///
/// # Errors
/// [`Error::Qemu`] if QEMU had to be installed and could not be.
pub fn command(arguments: DoctorArguments, format: Format) -> Result<Ending> {
    if arguments.install {
        ensure()?;
        // Shown as missing below, if it is: everything but what is asked of Bochs works without.
        if let Err(error) = bochs::install::ensure() {
            interrupt::check()?;
            eprintln!("{error}");
        }
    }
    let mut checks = Vec::new();
    let installation = match find() {
        Err(Error::Qemu(problem)) => Err(problem),
        found => Ok(found?),
    };
    checks.push(qemu_check(&installation));
    checks.push(accelerator_check());
    if let Ok(Some(installation)) = &installation {
        probe(installation, &mut checks);
        interrupt::check()?;
    }
    checks.extend([
        bochs_check(),
        iso_check(),
        wrapper_check(),
        room_check(),
        target_check(),
        load_check(),
    ]);
    let bad = checks.iter().any(|check| check.status == Status::Bad);
    match format {
        Format::Json => {
            print_json(&json!({ "schema": "hive-doctor/1", "held": !bad, "checks": checks }))?;
        }
        Format::Text => print_text(&text(&checks))?,
    }
    Ok(if bad { Ending::Unable } else { Ending::Held })
}

fn text(checks: &[Check]) -> String {
    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|check| {
            let mark = match check.status {
                Status::Good => "good",
                Status::Poor => "poor",
                Status::Missing => "missing",
                Status::Bad => "BAD",
            };
            let remedy = check.remedy.as_ref().map(|remedy| format!(" -> {remedy}"));
            let found = format!("{}{}", check.found, remedy.unwrap_or_default());
            vec![mark.into(), check.name.into(), found]
        })
        .collect();
    table(&rows)
}

fn qemu_check(installation: &std::result::Result<Option<Installation>, String>) -> Check {
    match installation {
        Err(problem) => Check::new("QEMU", Status::Bad, problem, "repair or reinstall it"),
        Ok(None) => Check::new("QEMU", Status::Bad, "not found", &PACKAGES.remedy()),
        Ok(Some(Installation { path, version })) => {
            let found = format!("{version} at {}", path.display());
            let old = format!("at least {OLDEST} is needed");
            Check::good_if(*version >= OLDEST, Status::Bad, "QEMU", found, &old)
        }
    }
}

fn accelerator_check() -> Check {
    let found = match (processor_virtualizes(), kvm_opens()) {
        (true, true) => "KVM",
        (true, false) => "TCG: /dev/kvm does not open",
        (false, true) => "TCG: /dev/kvm opens, but the CPU shows neither svm nor vmx",
        (false, false) => "TCG: no KVM here",
    };
    let good = Accelerator::choose() == Accelerator::Kvm;
    let remedy = "everything runs under TCG, only slower";
    Check::good_if(good, Status::Poor, "accelerator", found, remedy)
}

/// Starts a machine that stands still and tries its channels.
fn probe(installation: &Installation, checks: &mut Vec<Check>) {
    const NAMES: [&str; 4] = ["SVM under TCG", "QMP", "qtest", "gdb stub"];
    const REMEDY: &str = "use QEMU as Debian and Ubuntu package it";
    match try_channels(installation) {
        Ok(results) => {
            for (name, result) in NAMES.into_iter().zip(results) {
                let needed = if name == "qtest" {
                    Status::Missing
                } else {
                    Status::Bad
                };
                let found = result.clone().unwrap_or_else(|problem| problem);
                checks.push(Check::good_if(result.is_ok(), needed, name, found, REMEDY));
            }
        }
        Err(error) => {
            checks.push(Check::new(
                "a machine",
                Status::Bad,
                error.to_string(),
                REMEDY,
            ));
        }
    }
}

type Tried = std::result::Result<String, String>;

fn try_channels(installation: &Installation) -> Result<[Tried; 4]> {
    let directory = tempfile::Builder::new().prefix("hive-").tempdir_in("/tmp");
    let directory = directory.context(|| "making a directory in /tmp".into())?;
    let socket = |name: &str| {
        let path = directory.path().join(name);
        (format!("unix:{},server=on,wait=off", path.display()), path)
    };
    let ((qmp, qmp_path), (qtest, qtest_path), (gdb, gdb_path)) =
        (socket("qmp"), socket("qtest"), socket("gdb"));
    let mut child = Command::new(&installation.path)
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg",
            "-cpu",
            "qemu64,+svm,+npt,+pdpe1gb",
            "-m",
            "32",
        ])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args([
            "-qmp",
            &qmp,
            "-qtest",
            &qtest,
            "-qtest-log",
            "none",
            "-gdb",
            &gdb,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context(|| "starting QEMU".into())?;
    await_start(&mut child, &gdb_path)?;
    let said = |result: Result<String>| result.map_err(|error| error.to_string());
    let mut answers = [
        Ok(String::new()),
        said(try_qmp(&qmp_path)),
        said(try_qtest(&qtest_path)),
        said(try_gdb(&gdb_path)),
    ];
    let _ = child.kill();
    let ended = wait_for(Duration::from_secs(5), Duration::from_millis(5), || {
        child.try_wait().context(|| "waiting for QEMU".into())
    });
    ended?;
    let mut warnings = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // Warnings are for the user only.
        let _ = stderr.read_to_string(&mut warnings);
    }
    answers[0] = match (
        &answers[1],
        warnings.lines().find(|line| line.contains("svm")),
    ) {
        (Ok(_), None) => Ok("nested paging is emulated".into()),
        (_, Some(line)) => Err(line.to_string()),
        (Err(_), None) => Err("QEMU did not start".into()),
    };
    Ok(answers)
}

/// Waits until QEMU has made the last of its sockets.
fn await_start(child: &mut Child, path: &Path) -> Result<()> {
    let up = wait_for(ANSWER_LIMIT, Duration::from_millis(5), || {
        let ended = child.try_wait().context(|| "waiting for QEMU".into())?;
        Ok((ended.is_some() || path.exists()).then_some(ended))
    });
    if let Ok(Some(Some(status))) = up {
        let mut words = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            // Without its words the status has to do.
            let _ = stderr.read_to_string(&mut words);
        }
        let words = words.trim();
        return Err(Error::Qemu(format!("ended with {status}: {words}")));
    }
    if up.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    up.map(drop)
}

fn try_qmp(path: &Path) -> Result<String> {
    let mut qmp = Qmp::connect(path)?;
    let version = qmp.execute("query-version", &json!({}))?;
    Ok(format!("answers, version {}", version["qemu"]["major"]))
}

fn try_qtest(path: &Path) -> Result<String> {
    let mut qtest = Qtest::connect(path)?;
    let mut bytes = [0; 8];
    qtest.write_bus(0x1_0000, &0x0123_4567_89ab_cdefu64.to_le_bytes())?;
    qtest.read_bus(0x1_0000, &mut bytes)?;
    if u64::from_le_bytes(bytes) == 0x0123_4567_89ab_cdef {
        Ok("reads and writes memory".into())
    } else {
        Err(Error::Channel {
            channel: "qtest",
            problem: "memory does not hold".into(),
        })
    }
}

fn try_gdb(path: &Path) -> Result<String> {
    let mut gdb = Gdb::connect(path, 1)?;
    let mut byte = [0];
    gdb.read_bus(0x1_0000, &mut byte)?;
    Ok("stops, reads and resumes".into())
}

fn bochs_check() -> Check {
    let tried = bochs::install::TRIED;
    let (status, found) = match bochs::install::find() {
        Ok(Some(found)) => {
            let text = format!("{} at {}", found.version, found.path.display());
            let status = if found.version == tried {
                Status::Good
            } else {
                Status::Poor
            };
            (status, text)
        }
        Ok(None) => (Status::Missing, "not found".into()),
        Err(error) => (Status::Missing, error.to_string()),
    };
    let packages = bochs::install::PACKAGES.remedy();
    let remedy = format!("for --emulator bochs, version {tried}: {packages}");
    Check::new("Bochs", status, found, &remedy)
}

fn iso_check() -> Check {
    let found = matches!(iso::find(), Ok(Some(_)));
    let text = if found {
        "grub-mkrescue, GRUB's BIOS modules, xorriso"
    } else {
        "not found, or not all of it"
    };
    let remedy = format!("for iso and --emulator bochs: {}", iso::PACKAGES.remedy());
    Check::good_if(found, Status::Missing, "ISO tools", text, &remedy)
}

fn wrapper_check() -> Check {
    let found = on_path("setpriv");
    let text = found
        .as_ref()
        .map_or("not found".into(), |path| path.display().to_string());
    let remedy = "install util-linux; without it a killed runner leaves its QEMU behind";
    Check::good_if(found.is_some(), Status::Missing, "setpriv", text, remedy)
}

fn room_check() -> Check {
    let room = shared_memory_room().unwrap_or(0);
    let found = format!("{} MiB free", room >> 20);
    let remedy = "the guest's memory is put into the temporary directory instead";
    Check::good_if(room >= ROOM, Status::Poor, "/dev/shm", found, remedy)
}

fn target_check() -> Check {
    let mut rustc = Command::new("rustc");
    let sysroot = bounded::ask(rustc.args(["--print", "sysroot"]), PROBE_LIMIT);
    let sysroot = sysroot.map(|answer| answer.stdout.trim().to_string());
    let has = |target: &str| {
        let sysroot = sysroot.as_deref().unwrap_or_default();
        Path::new(sysroot)
            .join("lib/rustlib")
            .join(target)
            .join("lib")
            .is_dir()
    };
    let found: Vec<&str> = [HOST_TARGET, BARE_TARGET]
        .into_iter()
        .filter(|target| has(target))
        .collect();
    let remedy = format!("rustup target add {HOST_TARGET}, or {BARE_TARGET} and --target");
    Check::good_if(
        !found.is_empty(),
        Status::Bad,
        "targets",
        found.join(", "),
        &remedy,
    )
}

fn load_check() -> Check {
    let cpus = available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_default();
    let found = format!("{cpus} CPUs, load {load:.1}");
    let good = cpus >= CPUS && load < float(cpus as u64);
    let remedy = "times will be worse than they need be, and false alarms more frequent";
    Check::good_if(good, Status::Poor, "host", found, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_host_is_not_missing() {
        for check in [accelerator_check(), load_check(), room_check()] {
            assert_ne!(check.status, Status::Missing, "{}", check.name);
        }
    }
}
