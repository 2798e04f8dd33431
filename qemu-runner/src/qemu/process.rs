//! A running QEMU and its private directory. Neither outlives the runner.
//!
//! # Invariants
//! 1. Dropping [`Qemu`] kills the process and removes the directory, unless the user wants to keep
//!    it.
//! 2. The file that backs the guest's memory has no name once QEMU has opened it, so that nothing
//!    is left in memory.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use cell::machine;
use serde_json::json;

use super::command::{Afterwards, arguments};
use super::gdb::Gdb;
use super::install::{Accelerator, Installation};
use super::line::ANSWER_LIMIT;
use super::qmp::Qmp;
use super::qtest::Qtest;
use super::standstill::Standstills;
use crate::error::{Context, Error, Result};
use crate::guest::memory::GuestMemory;
use crate::guest::symbols::physical_address;
use crate::interrupt;
use crate::launch::{Keep, Launch, Mode, RunDirectory, Serial, tied};

/// Memory left over beside the guest's when its file is put into `/dev/shm`.
const SHARED_MEMORY_SPARE: u64 = 64 << 20;

/// A running QEMU.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    files: Files,
    memory: GuestMemory,
    cpus: u32,
    standstills: Option<Standstills>,
}

impl Qemu {
    /// Starts QEMU and waits until it answers on QMP.
    ///
    /// # Errors
    /// [`Error::Qemu`] with QEMU's own words if it ends, [`Error::Host`] if files cannot be made.
    pub fn start(
        launch: &Launch,
        installation: &Installation,
        (accelerator, mode): (Accelerator, Mode),
    ) -> Result<(Self, Qmp)> {
        let files = Files::create(launch)?;
        let memory = GuestMemory::create(&files.ram, launch.machine.memory)?;
        let standstills = match mode {
            Mode::Realtime => None,
            Mode::Deterministic => {
                let record = physical_address(&launch.images.monitor, machine::SYMBOL)?;
                Some(Standstills::create(files.directory.path(), record)?)
            }
        };
        let mut command = tied(&installation.path);
        command.current_dir(files.directory.path()).args(arguments(
            &launch.machine,
            (accelerator, mode),
            files.directory.path(),
            &files.ram,
            launch.serial,
            match launch.serial {
                Serial::Console => Afterwards::Leave,
                Serial::Log => Afterwards::Pause,
            },
        ));
        if launch.serial == Serial::Log {
            // A group of its own keeps the terminal's Ctrl-C for the runner; the console needs the
            // terminal itself.
            command
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            let log = File::create(files.directory.path().join("qemu.log"));
            command.stderr(log.context(|| "creating qemu.log".into())?);
        }
        let child = command.spawn().context(|| "starting QEMU".into())?;
        let cpus = launch.machine.cpus as u32;
        let mut qemu = Self {
            child,
            files,
            memory,
            cpus,
            standstills,
        };
        let qmp = qemu.await_socket("qmp").and_then(|()| qemu.qmp());
        let mut qmp = qmp.map_err(|error| qemu.explain(error))?;
        if mode == Mode::Deterministic {
            qmp.execute("cont", &json!({}))?;
        }
        qemu.files.forget_memory();
        Ok((qemu, qmp))
    }

    /// Waits until QEMU has made a socket, or has ended.
    fn await_socket(&mut self, name: &str) -> Result<()> {
        let path = self.files.directory.path().join(name);
        let up = interrupt::wait_for(ANSWER_LIMIT, Duration::from_millis(2), || {
            Ok((self.ended()?.is_some() || path.exists()).then_some(()))
        });
        match (up?, self.ended()?) {
            (_, Some(status)) => Err(Error::Qemu(format!("ended with {status}"))),
            (None, None) => Err(Error::Qemu(format!("no socket \"{name}\" was made"))),
            (Some(()), None) => Ok(()),
        }
    }

    /// The guest's memory.
    pub const fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// What the machine goes by, in the deterministic mode; to be had once.
    pub const fn take_standstills(&mut self) -> Option<Standstills> {
        self.standstills.take()
    }

    /// The run directory.
    pub fn directory(&self) -> &Path {
        self.files.directory.path()
    }

    /// The process number, for people.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// A QMP connection; there can be one at a time.
    ///
    /// # Errors
    /// [`Error::Channel`].
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(&self.files.directory.path().join("qmp"))
    }

    /// A qtest connection; there can be one at a time.
    ///
    /// # Errors
    /// [`Error::Channel`].
    pub fn qtest(&self) -> Result<Qtest> {
        Qtest::connect(&self.files.directory.path().join("qtest"))
    }

    /// A connection to the gdb stub; it stops the machine for a moment.
    ///
    /// # Errors
    /// [`Error::Channel`].
    pub fn gdb(&self) -> Result<Gdb> {
        Gdb::connect(&self.files.directory.path().join("gdb"), self.cpus)
    }

    /// What the guest wrote to its serial port, for people.
    pub fn serial_text(&self) -> String {
        let text = fs::read(self.files.directory.path().join("serial.log")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Whether QEMU ended, and how.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context(|| "waiting for QEMU".into())
    }

    /// Kills QEMU and waits for its end.
    pub fn kill(&mut self) {
        // An error means that it ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Puts what QEMU said before it ended in place of the channel's error.
    fn explain(&mut self, error: Error) -> Error {
        std::thread::sleep(Duration::from_millis(20));
        let log =
            fs::read_to_string(self.files.directory.path().join("qemu.log")).unwrap_or_default();
        match self.ended() {
            Ok(Some(status)) => Error::Qemu(format!("ended with {status}\n{}", log.trim_end())),
            _ => error,
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The private directory of a run, and the file that backs the guest's memory.
#[derive(Debug)]
struct Files {
    directory: RunDirectory,
    ram: PathBuf,
}

impl Files {
    fn create(launch: &Launch) -> Result<Self> {
        let directory = RunDirectory::create(launch.keep)?;
        // Short names without spaces, whatever the path of the workspace looks like.
        for (image, name) in [
            (&launch.images.monitor, "hive-monitor"),
            (&launch.images.kernel, "hive-kernel"),
        ] {
            symlink(image, directory.path().join(name)).context(|| format!("linking {name}"))?;
        }
        let ram = memory_path(directory.path(), launch)?;
        Ok(Self { directory, ram })
    }

    /// Takes the name away from the guest's memory, which stays while somebody has it open.
    fn forget_memory(&self) {
        if self.directory.keep() == Keep::Nothing {
            let _ = fs::remove_file(&self.ram);
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.forget_memory();
        if self.directory.keep() == Keep::Directory {
            eprintln!("memory: {}", self.ram.display());
        }
    }
}

/// Where the guest's memory goes: `/dev/shm` if it has room, else the run directory.
fn memory_path(directory: &Path, launch: &Launch) -> Result<PathBuf> {
    let shared = Path::new("/dev/shm");
    let room = shared_memory_room().unwrap_or(0);
    let name = directory.file_name().unwrap_or_default();
    let ram = if launch.keep == Keep::Nothing
        && room >= launch.machine.memory.saturating_add(SHARED_MEMORY_SPARE)
    {
        shared.join(name)
    } else {
        directory.join("ram")
    };
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&ram)
        .context(|| format!("creating {}", ram.display()))?;
    Ok(ram)
}

/// Free bytes in `/dev/shm`.
pub fn shared_memory_room() -> Option<u64> {
    let status = rustix::fs::statvfs("/dev/shm").ok()?;
    Some(status.f_bavail.saturating_mul(status.f_frsize))
}
