//! A running Bochs and its private directory. Neither outlives the runner.
//!
//! # Invariants
//! 1. Dropping [`Bochs`] kills the process, which swallows requests to end, and removes the
//!    directory, unless the user wants to keep it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::configuration::{self, INSTRUCTIONS_PER_SECOND};
use super::debugger::Debugger;
use super::install::Installation;
use super::memory::ProcessMemory;
use crate::error::{Context, Error, Result};
use crate::guest::memory::GuestMemory;
use crate::launch::{Launch, RunDirectory, tied};

/// What the log says before the reason why Bochs cannot go on as a machine would.
const PANIC: &str = ">>PANIC<<";
/// What the log says at every reset, the first of which is the start.
const RESET: &str = "bx_pc_system_c::Reset(";

/// A running Bochs.
#[derive(Debug)]
pub struct Bochs {
    child: Child,
    directory: RunDirectory,
    /// Its debugger.
    pub debugger: Debugger,
    /// Its memory.
    pub process: Arc<ProcessMemory>,
    bytes: u64,
}

impl Bochs {
    /// Makes the ISO, starts Bochs on it, and waits until the debugger has stopped it at its first
    /// instruction. `serial` is what the configuration says of the serial port.
    ///
    /// # Errors
    /// [`Error::Bochs`] with its own words if it does not start, [`Error::Iso`], [`Error::Host`].
    pub fn start(launch: &Launch, installation: &Installation, serial: &str) -> Result<Self> {
        configuration::check(&launch.machine)?;
        let directory = RunDirectory::create(launch.keep)?;
        let file = |name: &str| directory.path().join(name);
        let line = launch.machine.boot_line();
        installation
            .iso
            .make(&file("hive.iso"), &launch.images, &line)?;
        let text = configuration::text(&launch.machine, installation, serial);
        fs::write(file("bochsrc"), text).context(|| "writing bochsrc".into())?;
        let complaints = File::create(file("stderr.log"));
        let mut child = tied(&installation.path)
            .args(["-q", "-f", "bochsrc"])
            .current_dir(directory.path())
            // The display draws nothing that anybody sees, but wants to know on what.
            .env("TERM", "dumb")
            // A group of its own keeps the terminal's Ctrl-C for the runner.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints.context(|| "creating stderr.log".into())?)
            .spawn()
            .context(|| "starting Bochs".into())?;
        let bytes = launch.machine.memory;
        let parts = Debugger::attach(&mut child)
            .and_then(|debugger| Ok((debugger, ProcessMemory::open(child.id(), bytes)?)));
        match parts {
            Ok((debugger, process)) => Ok(Self {
                child,
                directory,
                debugger,
                process: Arc::new(process),
                bytes,
            }),
            Err(error) => {
                // An error means that it ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                Err(match (error, panics(&read(&directory, "bochs.log"))) {
                    (Error::Bochs(_), Some(panic)) => Error::Bochs(panic),
                    (error, _) => error,
                })
            }
        }
    }

    /// The guest's memory.
    pub fn memory(&self) -> GuestMemory {
        GuestMemory::inside(Arc::clone(&self.process), self.bytes)
    }

    /// How much of its own time has passed.
    pub fn elapsed(&self) -> Duration {
        let nanoseconds = u128::from(self.debugger.ticks()) * 1_000_000_000;
        Duration::from_nanos((nanoseconds / u128::from(INSTRUCTIONS_PER_SECOND)) as u64)
    }

    /// What the guest wrote to its serial port, for people.
    pub fn serial_text(&self) -> String {
        read(&self.directory, "serial.log")
    }

    /// Whether the guest reset the machine, or did what no machine goes on after. Says what.
    pub fn down(&self) -> Option<String> {
        let log = read(&self.directory, "bochs.log");
        let reset = log.matches(RESET).count() > 1;
        panics(&log).or_else(|| reset.then(|| "reset".into()))
    }

    /// Whether Bochs ended, and how.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context(|| "waiting for Bochs".into())
    }
}

impl Drop for Bochs {
    fn drop(&mut self) {
        // An error means that it ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(directory: &RunDirectory, name: &str) -> String {
    let text = fs::read(directory.path().join(name)).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

/// The first panic in a log.
fn panics(log: &str) -> Option<String> {
    let (_, after) = log.split_once(PANIC)?;
    after.lines().next().map(|line| line.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panic_of_a_log_is_found() {
        let log = "01i[SYS ] start\n02p[CPU0 ] >>PANIC<< exception(): 3rd\n03p[X] >>PANIC<< y\n";
        assert_eq!(panics(log).as_deref(), Some("exception(): 3rd"));
        assert_eq!(panics("01i[SYS ] start\n"), None);
    }
}
