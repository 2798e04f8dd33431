//! Other programs of the host, bounded: none of them can make the runner wait for ever.
//!
//! # Invariants
//! 1. A program that is still running at its limit, or at an interrupt, is ended.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::error::{Context, Result};
use crate::interrupt::wait_for;

/// How long a program may take that only says something about itself.
pub const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at a running program.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a program may take to end once it was asked to.
const FAREWELL: Duration = Duration::from_secs(5);
/// Bytes of output that are read.
const OUTPUT_MAX: u64 = 64 << 10;

/// What a program did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// How it ended; `None` if it did not and was killed.
    pub status: Option<ExitStatus>,
    /// What it wrote.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Answer {
    /// Whether it ended well.
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// What it did, for people.
    pub fn describe(&self, limit: Duration) -> String {
        let ended = match self.status {
            Some(status) => format!("ended with {status}"),
            None => format!("did not end within {} s", limit.as_secs()),
        };
        match self.stderr.trim() {
            "" => ended,
            complaint => format!("{ended}: {complaint}"),
        }
    }
}

/// Runs a program that needs no input, with all that it starts, to its end or to `limit`.
///
/// # Errors
/// [`Error::Host`] if it cannot be started, [`Error::Interrupted`].
pub fn ask(command: &mut Command, limit: Duration) -> Result<Answer> {
    let name = command.get_program().display().to_string();
    let starting = || format!("starting {name}");
    // Files, because a pipe stays open as long as anybody has it.
    let mut stdout = tempfile::tempfile().context(starting)?;
    let mut stderr = tempfile::tempfile().context(starting)?;
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().context(starting)?)
        .stderr(stderr.try_clone().context(starting)?)
        .spawn()
        .context(starting)?;
    let status = wait_for(limit, PAUSE, || child.try_wait().context(starting));
    if !matches!(status, Ok(Some(_))) {
        // An error means that it ended by itself.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        let _ = child.wait();
    }
    Ok(Answer {
        status: status?,
        stdout: text(&mut stdout).context(starting)?,
        stderr: text(&mut stderr).context(starting)?,
    })
}

fn text(file: &mut File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(OUTPUT_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits for a program that has the terminal, and asks it to end at `limit` or at an interrupt.
/// `None` if it did not end by itself.
///
/// # Errors
/// [`Error::Host`], [`Error::Interrupted`].
pub fn wait(child: &mut Child, name: &str, limit: Duration) -> Result<Option<ExitStatus>> {
    let waiting = || format!("waiting for {name}");
    let status = wait_for(limit, PAUSE, || child.try_wait().context(waiting));
    if !matches!(status, Ok(Some(_))) {
        // Asked, because it may be in the middle of changing files; a terminal's Ctrl-C reached it
        // already.
        let _ = kill_process(Pid::from_child(child), Signal::TERM);
        let farewell = std::time::Instant::now() + FAREWELL;
        while matches!(child.try_wait(), Ok(None)) && std::time::Instant::now() < farewell {
            std::thread::sleep(PAUSE);
        }
    }
    status
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn shell(line: &str, limit: Duration) -> Answer {
        ask(Command::new("sh").args(["-c", line]), limit).unwrap()
    }

    #[test]
    fn what_a_program_said_and_how_it_ended_is_kept() {
        let answer = shell("echo out; echo why >&2; exit 3", PROBE_LIMIT);
        assert_eq!(answer.stdout, "out\n");
        assert!(!answer.is_success());
        let described = answer.describe(PROBE_LIMIT);
        assert!(described.ends_with("3: why"), "{described}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_all_that_it_started() {
        let limit = Duration::from_millis(100);
        let answer = shell("sleep 60 & sleep 60", limit);
        assert_eq!(answer.status, None);
        assert_eq!(answer.describe(PROBE_LIMIT), "did not end within 10 s");
    }
}
