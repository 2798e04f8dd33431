//! Lines over a Unix socket, with a deadline on each.
//!
//! # Invariants
//! 1. A line that did not arrive whole by its deadline stays buffered and is completed by a later
//!    call.
//! 2. No more than [`LINE_MAX`] bytes are buffered.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::interrupt;

const LINE_MAX: usize = 1 << 20;

/// How long QEMU may take to listen on a socket, or to answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long a socket may exist on which nobody listens: QEMU is about to, or has ended.
const DEAF_LIMIT: Duration = Duration::from_millis(500);

/// Connects to a socket that QEMU is about to create.
///
/// # Errors
/// [`Error::Channel`] if it does not exist within [`ANSWER_LIMIT`], or if nobody listens there any
/// more.
pub fn connect(channel: &'static str, path: &Path) -> Result<UnixStream> {
    let mut refused = None;
    let attempt = || match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(Some(stream))),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            let since = *refused.get_or_insert_with(Instant::now);
            Ok((since.elapsed() >= DEAF_LIMIT).then_some(None))
        }
        Err(_) => Ok(None),
    };
    let stream = interrupt::wait_for(ANSWER_LIMIT, Duration::from_millis(5), attempt)?;
    stream.flatten().ok_or_else(|| Error::Channel {
        channel,
        problem: "QEMU does not listen".into(),
    })
}

/// A connection that carries lines.
#[derive(Debug)]
pub struct Lines {
    channel: &'static str,
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Lines {
    /// Takes a connected stream.
    pub const fn new(channel: &'static str, stream: UnixStream) -> Self {
        Self {
            channel,
            stream,
            buffer: Vec::new(),
        }
    }

    /// An error of this channel.
    pub fn error(&self, problem: impl Into<String>) -> Error {
        Error::Channel {
            channel: self.channel,
            problem: problem.into(),
        }
    }

    /// Sends a line.
    ///
    /// # Errors
    /// [`Error::Channel`] if QEMU is gone.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let sent = self.stream.write_all(format!("{line}\n").as_bytes());
        sent.map_err(|error| self.error(error.to_string()))
    }

    /// The next line, or `None` if there is no whole line within `limit`.
    ///
    /// # Errors
    /// [`Error::Channel`] if QEMU is gone or sends nonsense.
    pub fn receive(&mut self, limit: Duration) -> Result<Option<String>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim().to_string()));
            }
            if self.buffer.len() > LINE_MAX {
                return Err(self.error("a line without an end"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.fill(left.max(Duration::from_micros(1)))? && left.is_zero() {
                return Ok(None);
            }
        }
    }

    fn fill(&mut self, limit: Duration) -> Result<bool> {
        let mut chunk = [0; 4096];
        let timed = self.stream.set_read_timeout(Some(limit));
        timed.map_err(|error| self.error(error.to_string()))?;
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(self.error("QEMU closed the connection")),
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(false)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(self.error(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_socket_that_its_owner_left_behind_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let begun = Instant::now();
        assert!(connect("test", &path).is_err());
        assert!(begun.elapsed() < ANSWER_LIMIT / 2);
    }

    #[test]
    fn half_a_line_waits_for_the_other_half() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut lines = Lines::new("test", ours);
        theirs.write_all(b"first\nsec").unwrap();
        assert_eq!(
            lines.receive(Duration::from_secs(1)).unwrap().as_deref(),
            Some("first")
        );
        assert_eq!(lines.receive(Duration::from_millis(1)).unwrap(), None);
        theirs.write_all(b"ond\r\n").unwrap();
        assert_eq!(
            lines.receive(Duration::from_secs(1)).unwrap().as_deref(),
            Some("second")
        );
        drop(theirs);
        assert!(lines.receive(Duration::from_secs(1)).is_err());
    }
}
