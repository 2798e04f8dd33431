//! A running QEMU and its private directory. Neither outlives the runner.
//!
//! # Invariants
//! 1. Dropping [`Qemu`] kills the process and removes the directory, unless the user wants to keep
//!    it.
//! 2. If the runner is killed, the kernel kills QEMU: it is started through `setpriv --pdeathsig`,
//!    where that is installed. The thread that starts QEMU must therefore live as long as the run.
//! 3. The file that backs the guest's memory has no name once QEMU has opened it, so that nothing
//!    is left in memory.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use cell::machine;
use serde_json::json;
use tempfile::TempDir;

use super::command::{Afterwards, Machine, Mode, Serial, arguments};
use super::gdb::Gdb;
use super::install::{Accelerator, Installation, on_path};
use super::line::ANSWER_LIMIT;
use super::qmp::Qmp;
use super::qtest::Qtest;
use super::standstill::Standstills;
use crate::error::{Context, Error, Result};
use crate::guest::memory::GuestMemory;
use crate::guest::symbols::physical_address;
use crate::images::Images;
use crate::interrupt;

/// A Unix socket's address has 108 bytes; the longest name in the directory takes fewer than 16.
const DIRECTORY_LENGTH_MAX: usize = 90;
/// Memory left over beside the guest's when its file is put into `/dev/shm`.
const SHARED_MEMORY_SPARE: u64 = 64 << 20;

/// What becomes of the run directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// It is removed at the end.
    Nothing,
    /// It stays, with the serial log and the guest's memory.
    Directory,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The machine.
    pub machine: Machine,
    /// The images.
    pub images: Images,
    /// Which QEMU.
    pub installation: Installation,
    /// How it executes the guest.
    pub accelerator: Accelerator,
    /// How time goes on.
    pub mode: Mode,
    /// Where the serial port goes.
    pub serial: Serial,
    /// What becomes of the files.
    pub keep: Keep,
}

/// A running QEMU.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    directory: Directory,
    memory: GuestMemory,
    cpus: u32,
    standstills: Option<Standstills>,
}

impl Qemu {
    /// Starts QEMU and waits until it answers on QMP.
    ///
    /// # Errors
    /// [`Error::Qemu`] with QEMU's own words if it ends, [`Error::Host`] if files cannot be made.
    pub fn start(launch: &Launch) -> Result<(Self, Qmp)> {
        let directory = Directory::create(launch)?;
        let memory = GuestMemory::create(&directory.ram, launch.machine.memory)?;
        let standstills = match launch.mode {
            Mode::Realtime => None,
            Mode::Deterministic => {
                let record = physical_address(&launch.images.monitor, machine::SYMBOL)?;
                Some(Standstills::create(&directory.path, record)?)
            }
        };
        let mut command = wrapped(&launch.installation.path);
        command.current_dir(&directory.path).args(arguments(
            &launch.machine,
            (launch.accelerator, launch.mode),
            &directory.path,
            &directory.ram,
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
            let log = File::create(directory.path.join("qemu.log"));
            command.stderr(log.context(|| "creating qemu.log".into())?);
        }
        let child = command.spawn().context(|| "starting QEMU".into())?;
        let cpus = launch.machine.cpus as u32;
        let mut qemu = Self {
            child,
            directory,
            memory,
            cpus,
            standstills,
        };
        let qmp = qemu.await_socket("qmp").and_then(|()| qemu.qmp());
        let mut qmp = qmp.map_err(|error| qemu.explain(error))?;
        if launch.mode == Mode::Deterministic {
            qmp.execute("cont", &json!({}))?;
        }
        qemu.directory.forget_memory();
        Ok((qemu, qmp))
    }

    /// Waits until QEMU has made a socket, or has ended.
    fn await_socket(&mut self, name: &str) -> Result<()> {
        let path = self.directory.path.join(name);
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
        &self.directory.path
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
        Qmp::connect(&self.directory.path.join("qmp"))
    }

    /// A qtest connection; there can be one at a time.
    ///
    /// # Errors
    /// [`Error::Channel`].
    pub fn qtest(&self) -> Result<Qtest> {
        Qtest::connect(&self.directory.path.join("qtest"))
    }

    /// A connection to the gdb stub; it stops the machine for a moment.
    ///
    /// # Errors
    /// [`Error::Channel`].
    pub fn gdb(&self) -> Result<Gdb> {
        Gdb::connect(&self.directory.path.join("gdb"), self.cpus)
    }

    /// What the guest wrote to its serial port, for people.
    pub fn serial_text(&self) -> String {
        let text = fs::read(self.directory.path.join("serial.log")).unwrap_or_default();
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
        let log = fs::read_to_string(self.directory.path.join("qemu.log")).unwrap_or_default();
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

/// QEMU's program, under a wrapper that ties its life to the runner's where there is one.
fn wrapped(program: &Path) -> Command {
    // QEMU is started in another directory.
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

/// The private directory of a run.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    ram: PathBuf,
    keep: Keep,
    /// Removes the directory when dropped; taken out to keep it.
    temporary: Option<TempDir>,
}

impl Directory {
    fn create(launch: &Launch) -> Result<Self> {
        let temporary = short_temporary_directory()?;
        let path = temporary.path().to_path_buf();
        // Short names without spaces, whatever the path of the workspace looks like.
        for (image, name) in [
            (&launch.images.monitor, "hive-monitor"),
            (&launch.images.kernel, "hive-kernel"),
        ] {
            symlink(image, path.join(name)).context(|| format!("linking {name}"))?;
        }
        let ram = memory_path(&path, launch)?;
        Ok(Self {
            path,
            ram,
            keep: launch.keep,
            temporary: Some(temporary),
        })
    }

    /// Takes the name away from the guest's memory, which stays while somebody has it open.
    fn forget_memory(&self) {
        if self.keep == Keep::Nothing {
            let _ = fs::remove_file(&self.ram);
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.forget_memory();
        if let (Keep::Directory, Some(temporary)) = (self.keep, self.temporary.take()) {
            eprintln!(
                "kept: {} (memory: {})",
                temporary.keep().display(),
                self.ram.display()
            );
        }
    }
}

/// A directory that only this user can enter, with a path short enough for sockets.
fn short_temporary_directory() -> Result<TempDir> {
    let wanted = std::env::temp_dir();
    let wanted = std::path::absolute(&wanted).unwrap_or(wanted);
    let base = if wanted.as_os_str().len() + 16 <= DIRECTORY_LENGTH_MAX {
        wanted
    } else {
        PathBuf::from("/tmp")
    };
    tempfile::Builder::new()
        .prefix("hive-")
        .tempdir_in(&base)
        .context(|| format!("making a directory in {}", base.display()))
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
