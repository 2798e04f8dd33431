//! Finding QEMU, or installing it where that is possible, or saying how.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bounded::{self, PROBE_LIMIT};
use crate::error::{Error, Result};
use crate::launch::Mode;
use crate::packages::{Packages, on_path};

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// The oldest version on which this was seen to work.
pub const OLDEST: Version = Version { major: 7, minor: 2 };

/// The package that has it.
pub const PACKAGES: Packages = Packages {
    what: "QEMU",
    debian: &["qemu-system-x86"],
    others: &[
        ("fedora", "dnf install qemu-system-x86-core"),
        ("arch", "pacman -S qemu-system-x86"),
        ("alpine", "apk add qemu-system-x86_64"),
        ("opensuse", "zypper install qemu-x86"),
    ],
    otherwise: "install the package that has qemu-system-x86_64 (QEMU 7.2 or later)",
    error: Error::Qemu,
};

/// A version of an emulator.
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

/// An emulator that can be started.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Where it is.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
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
        let said = answer.describe(PROBE_LIMIT);
        return Err(Error::Qemu(format!("{name} {said}")));
    }
    let version = parse_version(&answer.stdout, "version ").ok_or_else(|| {
        let said = answer.stdout.lines().next().unwrap_or_default();
        Error::Qemu(format!("{name} names no version: \"{said}\""))
    })?;
    Ok(Installation { path, version })
}

/// The version that stands after `word`.
pub(crate) fn parse_version(text: &str, word: &str) -> Option<Version> {
    let numbers = text.split_once(word)?.1;
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
        None => PACKAGES.install(find)?,
    };
    if found.version < OLDEST {
        let problem = format!("version {} is too old, {OLDEST} is needed", found.version);
        return Err(Error::Qemu(problem));
    }
    Ok(found)
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

    /// The best for a mode: only TCG counts instructions.
    pub fn for_mode(mode: Mode) -> Self {
        match mode {
            Mode::Realtime => Self::choose(),
            Mode::Deterministic => Self::Tcg,
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
    use crate::packages::is_executable;
    use std::os::unix::fs::PermissionsExt;

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
        assert_eq!(
            parse_version(debian, "version "),
            Some(Version { major: 7, minor: 2 })
        );
        assert!(
            Version {
                major: 10,
                minor: 0
            } > OLDEST
        );
        assert!(Version { major: 6, minor: 9 } < OLDEST);
        assert_eq!(parse_version("qemu", "version "), None);
    }
}
