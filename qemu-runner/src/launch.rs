//! What to start.
//!
//! Every emulator that is started has a private directory, and ends with the runner.
//!
//! # Invariants
//! 1. If the runner is killed, the kernel kills the emulator: it is started through `setpriv
//!    --pdeathsig`, where that is installed. The thread that starts it must therefore live as long
//!    as the run.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::bochs;
use crate::error::{Context, Result};
use crate::images::Images;
use crate::machine::Machine;
use crate::packages::on_path;
use crate::qemu::install::{Accelerator, Installation};

/// A Unix socket's address has 108 bytes; the longest name in the directory takes fewer than 16.
const DIRECTORY_LENGTH_MAX: usize = 90;

/// Where the guest's serial port goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serial {
    /// The terminal. Ctrl-A X leaves; under QEMU, Ctrl-A C switches to its monitor.
    Console,
    /// The file `serial.log` in the run directory.
    Log,
}

/// What becomes of the run directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// It is removed at the end.
    Nothing,
    /// It stays, with the serial log.
    Directory,
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

/// Which emulator.
#[derive(Clone, Debug)]
pub enum Program {
    /// QEMU.
    Qemu {
        /// Which one.
        installation: Installation,
        /// How it executes the guest.
        accelerator: Accelerator,
        /// How time goes on.
        mode: Mode,
    },
    /// Bochs.
    Bochs(bochs::install::Installation),
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The machine.
    pub machine: Machine,
    /// The images.
    pub images: Images,
    /// On what.
    pub program: Program,
    /// Where the serial port goes.
    pub serial: Serial,
    /// What becomes of the files.
    pub keep: Keep,
}

/// A program, under a wrapper that ties its life to the runner's where there is one.
pub fn tied(program: &Path) -> Command {
    // It is started in another directory.
    let program = &std::path::absolute(program).unwrap_or_else(|_| program.into());
    match on_path("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// The private directory of a run, which only this user can enter. It is removed at the end unless
/// the user wants to keep it.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    keep: Keep,
    /// Removes the directory when dropped; taken out to keep it.
    temporary: Option<TempDir>,
}

impl RunDirectory {
    /// Makes one, with a path short enough for sockets.
    ///
    /// # Errors
    /// [`crate::error::Error::Host`].
    pub fn create(keep: Keep) -> Result<Self> {
        let wanted = std::env::temp_dir();
        let wanted = std::path::absolute(&wanted).unwrap_or(wanted);
        let base = if wanted.as_os_str().len() + 16 <= DIRECTORY_LENGTH_MAX {
            wanted
        } else {
            PathBuf::from("/tmp")
        };
        let temporary = tempfile::Builder::new()
            .prefix("hive-")
            .tempdir_in(&base)
            .context(|| format!("making a directory in {}", base.display()))?;
        Ok(Self {
            path: temporary.path().to_path_buf(),
            keep,
            temporary: Some(temporary),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What becomes of it.
    pub const fn keep(&self) -> Keep {
        self.keep
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if let (Keep::Directory, Some(temporary)) = (self.keep, self.temporary.take()) {
            eprintln!("kept: {}", temporary.keep().display());
        }
    }
}
