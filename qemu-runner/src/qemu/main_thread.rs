//! QEMU's main thread, held where only counted instructions may move time.
//!
//! With counted time QEMU executes all CPUs in a thread of their own, but wakes its main thread
//! whenever a timer of the machine is due. Both then run the timers that are due, and whoever comes
//! second finds none; the CPU whose turn it is goes on or is passed over accordingly. Who comes
//! first is up to the host's scheduler: on a busy host some runs in a hundred went another way. So
//! from the first standstill on the main thread is stopped, as a debugger stops one. Nothing misses
//! it: the CPUs' thread runs the timers, the guest carries out what is ordered, and one CPU of each
//! cell stays awake (`idle=awake`), because time is moved by the main thread when all sleep.
//!
//! # Invariants
//! 1. The main thread is stopped only during a standstill, when the CPUs' thread holds QEMU's one
//!    lock: so it is not stopped with a lock of its own.
//! 2. It is stopped and let go by the one thread of the runner that carries out the run.
//!
//! # Not guaranteed
//! A machine that goes down, or sleeps, comes to no standstill any more. Then the main thread has
//! to go on for QEMU to say so, and what the machine does from there on is the host's business too.
//!
//! # References
//! QEMU 7.2: `main_loop_wait` in `util/main-loop.c`, `icount_prepare_for_run` in
//! `accel/tcg/tcg-accel-ops-icount.c`; `ptrace(2)`, on `PTRACE_SEIZE` and `PTRACE_INTERRUPT`.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::interrupt;

/// How long a thread that waits takes to stop, at most.
const STOP_LIMIT: Duration = Duration::from_secs(5);
const STOP_LOOK: Duration = Duration::from_micros(200);

/// The main thread of a QEMU that this process started.
#[derive(Debug)]
pub struct MainThread {
    thread: Pid,
    is_held: bool,
}

impl MainThread {
    /// That of the process with this number, whose main thread has the same.
    pub const fn of(process: u32) -> Self {
        Self {
            thread: Pid::from_raw(process.cast_signed()),
            is_held: false,
        }
    }

    /// Stops it, if it is not yet. Only during a standstill.
    ///
    /// # Errors
    /// [`Error::Qemu`] if it cannot be had.
    pub fn hold(&mut self) -> Result<()> {
        if self.is_held {
            return Ok(());
        }
        ptrace::seize(self.thread, Options::empty()).map_err(explain)?;
        self.is_held = true;
        ptrace::interrupt(self.thread).map_err(explain)?;
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
        let stopped = || match waitid(Id::Pid(self.thread), flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => Ok(None),
            Ok(_) => Ok(Some(())),
            Err(errno) => Err(explain(errno)),
        };
        interrupt::wait_for(STOP_LIMIT, STOP_LOOK, stopped)?
            .ok_or_else(|| explain(Errno::ETIMEDOUT))
    }

    /// Lets it go on, if it is held.
    ///
    /// # Errors
    /// [`Error::Qemu`].
    pub fn release(&mut self) -> Result<()> {
        if !self.is_held {
            return Ok(());
        }
        self.is_held = false;
        match ptrace::detach(self.thread, None) {
            // It has ended.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(explain(errno)),
        }
    }
}

fn explain(errno: Errno) -> Error {
    Error::Qemu(format!(
        "its main thread cannot be held, which the deterministic mode needs (ptrace): {errno}"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use std::fs;
    use std::process::{Child, Command};

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    /// The letter for the state of the main thread, as `proc(5)` has it.
    fn state(process: u32) -> char {
        let line = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let after_name = line.rsplit(')').next().unwrap();
        after_name.trim_start().chars().next().unwrap()
    }

    #[test]
    fn a_thread_is_held_and_let_go_and_its_process_ends_as_ever() {
        let mut child = sleeper();
        let mut thread = MainThread::of(child.id());
        for _ in 0..2 {
            thread.hold().unwrap();
            thread.hold().unwrap();
            assert_eq!(state(child.id()), 't');
            assert_eq!(child.try_wait().unwrap(), None);
            thread.release().unwrap();
            thread.release().unwrap();
            assert_ne!(state(child.id()), 't');
        }
        thread.hold().unwrap();
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        thread.release().unwrap();
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut child = sleeper();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(MainThread::of(child.id()).hold().is_err());
    }
}
