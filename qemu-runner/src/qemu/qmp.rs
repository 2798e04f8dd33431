//! QMP: one JSON object per line, answers in order, events in between.
//!
//! # References
//! QEMU 7.2, QEMU Machine Protocol Specification.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::line::{ANSWER_LIMIT, Lines, connect};
use crate::error::Result;

const CHANNEL: &str = "QMP";
/// Events kept for a caller that does not ask; older ones are dropped.
const EVENTS_MAX: usize = 1024;

/// Raises machine checks. The one implementation is QMP's way to the human monitor.
pub trait MachineCheckInjector {
    /// Raises a machine check on one CPU, as `status` and `mcg_status` say.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`], also if QEMU refuses it.
    fn machine_check(&mut self, check: MachineCheck) -> Result<()>;
}

/// A machine check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MachineCheck {
    /// QEMU's number of the CPU.
    pub cpu: u32,
    /// The bank.
    pub bank: u32,
    /// `MCi_STATUS`.
    pub status: u64,
    /// `MCG_STATUS`.
    pub mcg_status: u64,
    /// `MCi_ADDR`.
    pub address: u64,
}

/// A connection to QMP, past its greeting.
#[derive(Debug)]
pub struct Qmp {
    lines: Lines,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects and negotiates.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`].
    pub fn connect(path: &Path) -> Result<Self> {
        let mut qmp = Self {
            lines: Lines::new(CHANNEL, connect(CHANNEL, path)?),
            events: VecDeque::new(),
        };
        let greeting = qmp.lines.receive(ANSWER_LIMIT)?;
        if !greeting.is_some_and(|line| line.contains("\"QMP\"")) {
            return Err(qmp.lines.error("no greeting"));
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Executes a command and returns its answer.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`], also if QEMU answers with an error.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.lines.send(&request.to_string())?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(line) = self.lines.receive(left)? else {
                return Err(self.lines.error(format!("no answer to {command}")));
            };
            let mut message = self.parse(&line)?;
            if message.get("event").is_some() {
                self.keep(message);
            } else if let Some(error) = message.get("error") {
                return Err(self.lines.error(format!("{command}: {error}")));
            } else if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Executes a command of the human monitor and returns its text.
    ///
    /// # Errors
    /// See [`Self::execute`].
    pub fn human(&mut self, line: &str) -> Result<String> {
        let answer = self.execute("human-monitor-command", &json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().trim().to_string())
    }

    /// The events that arrived since the last call.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`] if QEMU is gone.
    pub fn events(&mut self) -> Result<Vec<Value>> {
        while let Some(line) = self.lines.receive(Duration::ZERO)? {
            let message = self.parse(&line)?;
            self.keep(message);
        }
        Ok(self.events.drain(..).collect())
    }

    fn parse(&self, line: &str) -> Result<Value> {
        serde_json::from_str(line).map_err(|error| self.lines.error(error.to_string()))
    }

    fn keep(&mut self, message: Value) {
        if message.get("event").is_some() {
            if self.events.len() == EVENTS_MAX {
                self.events.pop_front();
            }
            self.events.push_back(message);
        }
    }
}

impl MachineCheckInjector for Qmp {
    fn machine_check(&mut self, check: MachineCheck) -> Result<()> {
        let MachineCheck {
            cpu,
            bank,
            status,
            mcg_status,
            address,
        } = check;
        let line = format!("mce {cpu} {bank} {status:#x} {mcg_status:#x} {address:#x} 0x8c");
        let complaint = self.human(&line)?;
        if complaint.is_empty() {
            Ok(())
        } else {
            Err(self.lines.error(complaint))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    #[test]
    fn events_between_request_and_answer_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            stream.write_all(b"{\"QMP\": {}}\r\n").unwrap();
            for answer in [
                "{\"return\": {}}\n",
                "{\"event\": \"STOP\"}\n{\"return\": \"hi\\r\\n\"}\n",
            ] {
                reader.read_line(&mut line).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
            reader.read_line(&mut line).unwrap();
            stream
                .write_all(b"{\"error\": {\"desc\": \"no\"}}\n")
                .unwrap();
        });
        let mut qmp = Qmp::connect(&path).unwrap();
        assert_eq!(qmp.human("info").unwrap(), "hi");
        assert_eq!(qmp.events().unwrap(), [json!({ "event": "STOP" })]);
        assert!(qmp.execute("quit", &json!({})).is_err());
        server.join().unwrap();
    }
}
