//! The gdb stub: CPUs frozen one by one, memory where qtest is missing.
//!
//! # Protocol
//! A stop stops every CPU; resuming names those that may run, so a CPU that is left out stays
//! frozen. The connection is kept for the whole run: QEMU's own `cont` would thaw everybody.
//!
//! # Invariants
//! 1. The CPUs run whenever no method of [`Gdb`] is executing, but for the frozen ones, and but for
//!    what a breakpoint stops until it is looked for ([`breakpoints`]).
//!
//! # References
//! GDB Remote Serial Protocol; QEMU 7.2 `gdbstub.c` behaviour as measured.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::line::{ANSWER_LIMIT, connect};
use super::qtest::{BusAccess, decode_hex, encode_hex};
use crate::error::{Error, Result};

pub mod breakpoints;
pub mod registers;

const CHANNEL: &str = "gdb stub";
/// Bytes of memory per packet; the stub takes packets of 4096 bytes, two digits per byte.
const MEMORY_MAX: usize = 1024;
const INTERRUPT: u8 = 3;
/// Replies that can be left over from a stop which raced with an interrupt.
const STALE_REPLIES_MAX: usize = 4;

/// Stops single CPUs, and lets them go on.
pub trait CpuFreezer {
    /// Freezes a CPU, by QEMU's number of it, from 0.
    ///
    /// # Errors
    /// [`Error::Channel`].
    fn freeze(&mut self, cpu: u32) -> Result<()>;

    /// Lets a frozen CPU go on.
    ///
    /// # Errors
    /// [`Error::Channel`].
    fn thaw(&mut self, cpu: u32) -> Result<()>;
}

/// A connection to the gdb stub.
#[derive(Debug)]
pub struct Gdb {
    stream: UnixStream,
    buffer: Vec<u8>,
    cpus: u32,
    frozen: BTreeSet<u32>,
}

impl Gdb {
    /// Connects, which stops the machine for a moment, and lets it run again.
    ///
    /// # Errors
    /// [`Error::Channel`].
    pub fn connect(path: &Path, cpus: u32) -> Result<Self> {
        let stream = connect(CHANNEL, path)?;
        let mut gdb = Self {
            stream,
            buffer: Vec::new(),
            cpus,
            frozen: BTreeSet::new(),
        };
        // The stub reports the stop that the connection caused before it is asked anything.
        gdb.receive(ANSWER_LIMIT)?;
        gdb.request("qSupported:multiprocess+;vContSupported+")?;
        let modes = gdb.request("vCont?")?;
        if !modes.contains(";c") {
            return Err(error(format!("no vCont: {modes}")));
        }
        gdb.resume()?;
        Ok(gdb)
    }

    /// The CPUs that are frozen now.
    pub const fn frozen(&self) -> &BTreeSet<u32> {
        &self.frozen
    }

    fn all_frozen(&self) -> bool {
        self.frozen.len() as u32 >= self.cpus
    }

    fn resume(&mut self) -> Result<()> {
        if self.all_frozen() {
            return Ok(());
        }
        let command = continue_command(self.cpus, &self.frozen);
        self.send(&command)
    }

    fn stop(&mut self) -> Result<()> {
        if self.all_frozen() {
            return Ok(());
        }
        self.write(&[INTERRUPT])?;
        loop {
            let reply = self.receive(ANSWER_LIMIT)?;
            if reply.starts_with(['T', 'S']) {
                return Ok(());
            }
        }
    }

    fn request(&mut self, packet: &str) -> Result<String> {
        self.send(packet)?;
        self.receive(ANSWER_LIMIT)
    }

    /// A request whose reply is told from a stale stop report.
    fn request_past_stops(&mut self, packet: &str) -> Result<String> {
        self.send(packet)?;
        for _ in 0..STALE_REPLIES_MAX {
            let reply = self.receive(ANSWER_LIMIT)?;
            if !reply.starts_with('T') {
                return Ok(reply);
            }
        }
        Err(error(format!("no answer to {packet}")))
    }

    fn send(&mut self, packet: &str) -> Result<()> {
        let frame = format!("${packet}#{:02x}", checksum(packet.as_bytes()));
        self.write(frame.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream
            .write_all(bytes)
            .map_err(|source| error(source.to_string()))
    }

    fn receive(&mut self, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(packet) = take_packet(&mut self.buffer)? {
                self.write(b"+")?;
                return Ok(packet);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(error("no answer".into()));
            }
            self.fill(left)?;
        }
    }

    fn fill(&mut self, limit: Duration) -> Result<()> {
        let mut chunk = [0; 4096];
        let timed = self.stream.set_read_timeout(Some(limit));
        timed.map_err(|source| error(source.to_string()))?;
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(error("QEMU closed the connection".into())),
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(source) => match source.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(()),
                _ => Err(error(source.to_string())),
            },
        }
    }

    /// Stops the machine, does something in physical memory mode, and lets it run again.
    fn while_stopped<T>(&mut self, action: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.stop()?;
        self.request_past_stops("Qqemu.PhyMemMode:1")?;
        let outcome = action(self);
        self.resume()?;
        outcome
    }
}

impl CpuFreezer for Gdb {
    fn freeze(&mut self, cpu: u32) -> Result<()> {
        self.stop()?;
        self.frozen.insert(cpu);
        self.resume()
    }

    fn thaw(&mut self, cpu: u32) -> Result<()> {
        self.stop()?;
        self.frozen.remove(&cpu);
        self.resume()
    }
}

impl BusAccess for Gdb {
    fn read_bus(&mut self, address: u64, buffer: &mut [u8]) -> Result<()> {
        self.while_stopped(|gdb| {
            let mut at = address;
            for part in buffer.chunks_mut(MEMORY_MAX) {
                let reply = gdb.request_past_stops(&format!("m{at:x},{:x}", part.len()))?;
                let bytes = decode_hex(&reply).filter(|bytes| bytes.len() == part.len());
                part.copy_from_slice(&bytes.ok_or_else(|| error(format!("reading: {reply}")))?);
                at += part.len() as u64;
            }
            Ok(())
        })
    }

    fn write_bus(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.while_stopped(|gdb| {
            let mut at = address;
            for part in bytes.chunks(MEMORY_MAX) {
                let (length, hex) = (part.len(), encode_hex(part));
                let reply = gdb.request_past_stops(&format!("M{at:x},{length:x}:{hex}"))?;
                if reply != "OK" {
                    return Err(error(format!("writing: {reply}")));
                }
                at += length as u64;
            }
            Ok(())
        })
    }
}

fn error(problem: String) -> Error {
    Error::Channel {
        channel: CHANNEL,
        problem,
    }
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}

/// Everybody but the frozen. Thread numbers start at 1.
fn continue_command(cpus: u32, frozen: &BTreeSet<u32>) -> String {
    if frozen.is_empty() {
        return "vCont;c".into();
    }
    let running = (0..cpus).filter(|cpu| !frozen.contains(cpu));
    running.fold("vCont".to_string(), |line, cpu| {
        format!("{line};c:p1.{:x}", cpu + 1)
    })
}

/// Takes the first whole packet out of the buffer, past acknowledgements.
fn take_packet(buffer: &mut Vec<u8>) -> Result<Option<String>> {
    let Some(start) = buffer.iter().position(|&byte| byte == b'$') else {
        buffer.clear();
        return Ok(None);
    };
    let Some(hash) = buffer[start..].iter().position(|&byte| byte == b'#') else {
        return Ok(None);
    };
    let (body, end) = (start + 1..start + hash, start + hash + 3);
    if buffer.len() < end {
        return Ok(None);
    }
    let sum = decode_hex(&String::from_utf8_lossy(&buffer[start + hash + 1..end]));
    let body = buffer[body].to_vec();
    buffer.drain(..end);
    if sum != Some(vec![checksum(&body)]) {
        return Err(error("a packet with a wrong checksum".into()));
    }
    Ok(Some(String::from_utf8_lossy(&body).into_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn packets_are_taken_whole_and_checked() {
        let mut buffer = b"+$OK#9a$T02thr".to_vec();
        assert_eq!(take_packet(&mut buffer).unwrap().as_deref(), Some("OK"));
        assert_eq!(take_packet(&mut buffer).unwrap(), None);
        assert_eq!(buffer, b"$T02thr");
        let mut spoilt = b"$OK#00".to_vec();
        assert!(take_packet(&mut spoilt).is_err());
    }

    #[test]
    fn the_frozen_are_left_out() {
        assert_eq!(continue_command(4, &BTreeSet::new()), "vCont;c");
        let frozen = BTreeSet::from([0, 2]);
        assert_eq!(continue_command(4, &frozen), "vCont;c:p1.2;c:p1.4");
    }

    #[test]
    fn spoilt_packets_are_refused_or_taken_out_once() {
        let valid: [&[u8]; 3] = [
            b"+$OK#9a",
            b"$T02thread:p01.02;#2b+$#00",
            b"$m0,8#30$E01#a6",
        ];
        fuzz::cases(&valid, |bytes| {
            let mut buffer = bytes.to_vec();
            loop {
                let before = buffer.len();
                match take_packet(&mut buffer) {
                    Ok(None) => break,
                    Ok(Some(packet)) => {
                        assert!(decode_hex(&packet).is_none_or(|it| it.len() < before));
                    }
                    Err(_) => {}
                }
                assert!(buffer.len() < before, "taken, or thrown away");
            }
        });
    }
}
