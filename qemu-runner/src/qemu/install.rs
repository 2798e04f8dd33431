//! Finding QEMU, or installing it where that is possible, or saying how.

use std::env;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::bounded::{self, PROBE_LIMIT};
use crate::error::{Context, Error, Result};

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// The oldest version on which this was seen to work.
pub const OLDEST: Version = Version { major: 7, minor: 2 };

/// How long apt-get may take for each of its two steps.
const APT_LIMIT: Duration = Duration::from_mins(10);

/// A version of QEMU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A QEMU that can be started.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Where it is.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
}

/// Searches the path.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    let executable = |data: fs::Metadata| data.is_file() && data.permissions().mode() & 0o111 != 0;
    fs::metadata(file).is_ok_and(executable)
}

/// Finds QEMU and asks for its version; `None` if there is no such program.
///
/// # Errors
/// [`Error::Qemu`] says what it did instead, [`Error::Interrupted`].
pub fn find() -> Result<Option<Installation>> {
    on_path(PROGRAM).map(version_of).transpose()
}

fn version_of(path: PathBuf) -> Result<Installation> {
    let name = format!("{} --version", path.display());
    let answer = match bounded::ask(Command::new(&path).arg("--version"), PROBE_LIMIT) {
        Err(Error::Host { context, source }) => {
            return Err(Error::Qemu(format!("{context}: {source}")));
        }
        answer => answer?,
    };
    if !answer.is_success() {
        return Err(bounded::broken(&name, &answer, PROBE_LIMIT));
    }
    let version = parse_version(&answer.stdout).ok_or_else(|| {
        let said = answer.stdout.lines().next().unwrap_or_default();
        Error::Qemu(format!("{name} names no version: \"{said}\""))
    })?;
    Ok(Installation { path, version })
}

fn parse_version(text: &str) -> Option<Version> {
    let numbers = text.split_once("version ")?.1;
    let mut parts = numbers.split(|c: char| !c.is_ascii_digit());
    let mut next = || parts.next()?.parse().ok();
    Some(Version {
        major: next()?,
        minor: next()?,
    })
}

/// Finds QEMU, installing it first where it is missing and that is possible.
///
/// # Errors
/// [`Error::Qemu`] says what to install, what is wrong with the QEMU that there is, or that the
/// version is too old.
pub fn ensure() -> Result<Installation> {
    let found = match find()? {
        Some(found) => found,
        None => install()?,
    };
    if found.version < OLDEST {
        let problem = format!("version {} is too old, {OLDEST} is needed", found.version);
        return Err(Error::Qemu(problem));
    }
    Ok(found)
}

/// How to get QEMU by hand on this host.
pub fn remedy() -> String {
    let line = match distribution().as_deref() {
        Some("debian" | "ubuntu") => "apt-get install --no-install-recommends qemu-system-x86",
        Some("fedora") => "dnf install qemu-system-x86-core",
        Some("arch") => "pacman -S qemu-system-x86",
        Some("alpine") => "apk add qemu-system-x86_64",
        Some(suse) if suse.starts_with("opensuse") => "zypper install qemu-x86",
        _ => "install the package that has qemu-system-x86_64 (QEMU 7.2 or later)",
    };
    line.into()
}

fn distribution() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let word = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_matches('"').to_string())
    };
    let known = |id: &String| {
        matches!(
            id.as_str(),
            "debian" | "ubuntu" | "fedora" | "arch" | "alpine"
        )
    };
    let like = || {
        let likes = word("ID_LIKE=")?;
        likes.split(' ').map(String::from).find(known)
    };
    word("ID=")
        .filter(known)
        .or_else(like)
        .or_else(|| word("ID="))
}

/// Installs QEMU by apt-get, on Debian and Ubuntu, as root or through a sudo that asks for no
/// password.
///
/// # Errors
/// [`Error::Qemu`] says what to do by hand.
pub fn install() -> Result<Installation> {
    let by_hand = |why: &str| Error::Qemu(format!("{why}; install it by hand: {}", remedy()));
    if !matches!(distribution().as_deref(), Some("debian" | "ubuntu")) {
        return Err(by_hand("not found"));
    }
    let prefix: &[&str] = if rustix::process::geteuid().is_root() {
        &[]
    } else if sudo_without_password() {
        &["sudo", "-n"]
    } else {
        return Err(by_hand(
            "not found, and neither root nor sudo without a password is available",
        ));
    };
    eprintln!("QEMU is missing: installing the package qemu-system-x86 by apt-get");
    let update = apt(prefix, &["update", "-q"])?;
    let install = apt(
        prefix,
        &[
            "install",
            "-y",
            "-q",
            "--no-install-recommends",
            "qemu-system-x86",
        ],
    )?;
    match (install, find()?) {
        (true, Some(found)) => Ok(found),
        _ if !update => Err(by_hand("apt-get update failed")),
        _ => Err(by_hand("apt-get install failed")),
    }
}

fn sudo_without_password() -> bool {
    let mut sudo = Command::new("sudo");
    let answer = bounded::ask(sudo.args(["-n", "true"]), PROBE_LIMIT);
    answer.is_ok_and(|answer| answer.is_success())
}

fn apt(prefix: &[&str], arguments: &[&str]) -> Result<bool> {
    let mut words = prefix
        .iter()
        .chain(&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    let program = words.next().copied().unwrap_or("apt-get");
    let mut child = Command::new(program)
        .args(words)
        .args(arguments)
        .stdin(Stdio::null())
        // stdout belongs to the result, perhaps JSON.
        .stdout(std::io::stderr())
        .spawn()
        .context(|| "starting apt-get".into())?;
    match bounded::wait(&mut child, "apt-get", APT_LIMIT)? {
        Some(status) => Ok(status.success()),
        None => Err(Error::Qemu(format!(
            "apt-get {} did not end within {} s; install it by hand: {}",
            arguments.first().copied().unwrap_or_default(),
            APT_LIMIT.as_secs(),
            remedy()
        ))),
    }
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accelerator {
    /// The host's own virtualization.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Accelerator {
    /// The word for it in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// KVM where it can run this, else TCG. A `/dev/kvm` that opens is not enough: without `vmx` or
    /// `svm` it may be an instruction emulator that stops at the first SSE instruction.
    pub fn choose() -> Self {
        if processor_virtualizes() && kvm_opens() {
            Self::Kvm
        } else {
            Self::Tcg
        }
    }
}

/// Whether the host's CPU flags show hardware virtualization.
pub fn processor_virtualizes() -> bool {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| {
        line.split_whitespace()
            .any(|flag| flag == "svm" || flag == "vmx")
    })
}

/// Whether `/dev/kvm` opens.
pub fn kvm_opens() -> bool {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(Path::new("/dev/kvm"))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_that_fails_is_not_a_missing_one() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let path = directory.path().join(PROGRAM);
        fs::write(&path, "#!/bin/sh\necho no library >&2\nexit 127\n").expect("it is written");
        assert!(!is_executable(&path));
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&path, mode).expect("it is made executable");
        assert!(is_executable(&path));
        let said = version_of(path).map_err(|error| error.to_string());
        assert!(said.is_err_and(|said| said.contains("no library")));
    }

    #[test]
    fn versions_are_read_and_ordered() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright";
        assert_eq!(parse_version(debian), Some(Version { major: 7, minor: 2 }));
        assert!(
            Version {
                major: 10,
                minor: 0
            } > OLDEST
        );
        assert!(Version { major: 6, minor: 9 } < OLDEST);
        assert_eq!(parse_version("qemu"), None);
    }
}
