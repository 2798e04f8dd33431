//! Breakpoints and watchpoints: the machine stops when a CPU meets one, until [`Gdb::hit`] looks.
//!
//! # Protocol
//! A breakpoint holds on every CPU, and is met again by a CPU that goes on where it is. So the CPU
//! makes one step by itself before all go on. A watchpoint is met after the access.

use std::time::Duration;

use super::{Gdb, error};
use crate::error::Result;

/// Where a CPU is to be stopped, by virtual addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// Before it executes an instruction.
    Execution(u64),
    /// After it stores to so many bytes.
    Store(u64, u64),
    /// After it loads from or stores to so many bytes.
    Access(u64, u64),
}

impl Point {
    /// What stands behind `Z` and `z` in packets.
    fn text(self) -> String {
        match self {
            Self::Execution(address) => format!("1,{address:x},1"),
            Self::Store(address, bytes) => format!("2,{address:x},{bytes:x}"),
            Self::Access(address, bytes) => format!("4,{address:x},{bytes:x}"),
        }
    }
}

impl Gdb {
    /// Sets a point.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`].
    pub fn set(&mut self, point: Point) -> Result<()> {
        self.change('Z', point)
    }

    /// Removes a point.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`].
    pub fn clear(&mut self, point: Point) -> Result<()> {
        self.change('z', point)
    }

    fn change(&mut self, how: char, point: Point) -> Result<()> {
        self.while_stopped(|gdb| {
            match gdb
                .request_past_stops(&format!("{how}{}", point.text()))?
                .as_str()
            {
                "OK" => Ok(()),
                reply => Err(error(format!("{how} of {point:?}: {reply}"))),
            }
        })
    }

    /// The CPU, by QEMU's number of it, that has met a point since the last call, if one did; lets
    /// all CPUs go on then. Waits for `limit` at most.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`].
    pub fn hit(&mut self, point: Point, limit: Duration) -> Result<Option<u32>> {
        let Some(report) = self.report(limit)? else {
            return Ok(None);
        };
        let cpu = thread_of(&report).ok_or_else(|| error(format!("a stop of nobody: {report}")))?;
        if let Point::Execution(_) = point {
            self.send(&format!("vCont;s:p1.{:x}", cpu + 1))?;
            self.receive(super::ANSWER_LIMIT)?;
        }
        self.resume()?;
        Ok(Some(cpu))
    }

    /// A report of a stop that was not asked for.
    fn report(&mut self, limit: Duration) -> Result<Option<String>> {
        if let Some(packet) = super::take_packet(&mut self.buffer)? {
            self.write(b"+")?;
            return Ok(is_stop(&packet).then_some(packet));
        }
        // A socket takes no time-out of zero.
        self.fill(limit.max(Duration::from_micros(1)))?;
        let Some(packet) = super::take_packet(&mut self.buffer)? else {
            return Ok(None);
        };
        self.write(b"+")?;
        Ok(is_stop(&packet).then_some(packet))
    }
}

fn is_stop(packet: &str) -> bool {
    packet.starts_with("T05")
}

/// QEMU's number of the CPU that a report names.
fn thread_of(report: &str) -> Option<u32> {
    let (_, after) = report.split_once("thread:")?;
    let (thread, _) = after.split_once(';')?;
    let number = thread.rsplit('.').next()?;
    u32::from_str_radix(number, 16).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_name_a_cpu() {
        assert_eq!(thread_of("T05thread:p01.0a;"), Some(9));
        assert_eq!(thread_of("T05thread:03;watch:0000000000200080;"), Some(2));
        assert_eq!(thread_of("T05thread:p01.00;"), None);
        assert_eq!(thread_of("OK"), None);
        assert!(is_stop("T05thread:p01.03;") && !is_stop("T02thread:01;"));
    }

    #[test]
    fn points_are_packets() {
        assert_eq!(Point::Execution(0x10).text(), "1,10,1");
        assert_eq!(Point::Store(0xff, 16).text(), "2,ff,10");
    }
}
