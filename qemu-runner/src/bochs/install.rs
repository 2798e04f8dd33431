//! Finding Bochs and its firmware, or installing them where that is possible, or saying how.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bounded::{self, PROBE_LIMIT};
use crate::error::{Error, Result};
use crate::iso;
use crate::packages::{Packages, on_path};
use crate::qemu::install::{Version, parse_version};

/// The packages that have it. What it draws a screen with comes along, though nothing is shown: it
/// does not start without one.
pub const PACKAGES: Packages = Packages {
    what: "Bochs",
    debian: &["bochs", "bochs-term", "bochsbios", "vgabios", "bximage"],
    others: &[],
    otherwise: "install Bochs 2.7 with its debugger, SMP and the term display, as Debian has it",
    error: Error::Bochs,
};

/// The one version whose debugger and whose memory were looked at.
pub const TRIED: Version = Version { major: 2, minor: 7 };

/// Debian's `bochs` is a script that asks questions; this is the program.
const PROGRAMS: [&str; 2] = ["bochs-bin", "bochs"];
/// Where the firmware is.
const SHARE: &str = "/usr/share/bochs";

/// A Bochs that can be started, and what makes ISOs for it.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Where it is.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
    /// The machine's firmware.
    pub bios: PathBuf,
    /// The display's firmware.
    pub vga_bios: PathBuf,
    /// What makes ISOs.
    pub iso: iso::Tools,
}

/// Bochs without the tools that make ISOs.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
    bios: PathBuf,
    vga_bios: PathBuf,
}

/// Finds Bochs and asks for its version; `None` if there is no such program or no firmware.
///
/// # Errors
/// [`Error::Bochs`] says what it did instead, [`Error::Interrupted`].
pub fn find() -> Result<Option<Found>> {
    let share = std::env::var_os("BXSHARE").map_or_else(|| SHARE.into(), PathBuf::from);
    let file = |name: &str| Some(share.join(name)).filter(|path| path.is_file());
    let firmware = file("BIOS-bochs-latest").zip(file("VGABIOS-lgpl-latest"));
    let Some((path, (bios, vga_bios))) = PROGRAMS.into_iter().find_map(on_path).zip(firmware)
    else {
        return Ok(None);
    };
    let version = version_of(&path)?;
    Ok(Some(Found {
        path,
        version,
        bios,
        vga_bios,
    }))
}

fn version_of(path: &Path) -> Result<Version> {
    let mut command = Command::new(path);
    let answer = bounded::ask(command.arg("--help").env("TERM", "dumb"), PROBE_LIMIT)?;
    let said = format!("{}{}", answer.stdout, answer.stderr);
    parse_version(&said, "Emulator ").ok_or_else(|| {
        let (name, said) = (path.display(), answer.describe(PROBE_LIMIT));
        Error::Bochs(format!("{name} --help names no version: {said}"))
    })
}

/// Finds Bochs and what makes ISOs for it, installing first what is missing and can be installed.
///
/// # Errors
/// [`Error::Bochs`] and [`Error::Iso`] say what to install, or that the version is another.
pub fn ensure() -> Result<Installation> {
    let found = match find()? {
        Some(found) => found,
        None => PACKAGES.install(find)?,
    };
    if found.version != TRIED {
        let problem = format!("version {} is not {TRIED}, the one tried", found.version);
        return Err(Error::Bochs(problem));
    }
    let Found {
        path,
        version,
        bios,
        vga_bios,
    } = found;
    Ok(Installation {
        path,
        version,
        bios,
        vga_bios,
        iso: iso::ensure()?,
    })
}
