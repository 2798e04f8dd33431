//! Text on its way to the cell that owns the serial port, and text that the owner got.
//!
//! A cell that does not own the port queues its bytes here; the thread of `calls::text` carries
//! them to the owner. The owner puts what arrives together to lines, per cell, so that two cells'
//! lines do not mix.
//!
//! # Invariants
//! 1. The queue never grows: text that does not fit is dropped, newest first, and [`dropped`]
//!    counts it.
//! 2. A line of another cell is shown as text: control characters are replaced.

use core::sync::atomic::{AtomicU64, Ordering};

use cell::{CELLS_MAX, CellId};

use crate::console::output;
use crate::lock::Lock;
use crate::thread::wait::WaitQueue;

const QUEUE_BYTES: usize = 8 << 10;
/// Longest line of another cell; a longer one is shown in pieces.
const LINE_BYTES: usize = 160;

/// Bytes in the order in which they came.
#[derive(Debug)]
struct Queue {
    bytes: [u8; QUEUE_BYTES],
    start: usize,
    length: usize,
}

impl Queue {
    const fn new() -> Self {
        Self {
            bytes: [0; QUEUE_BYTES],
            start: 0,
            length: 0,
        }
    }

    /// Appends all of `text`, or nothing.
    fn put(&mut self, text: &[u8]) -> Result<(), QueueFull> {
        if text.len() > QUEUE_BYTES - self.length {
            return Err(QueueFull);
        }
        for &byte in text {
            self.bytes[(self.start + self.length) % QUEUE_BYTES] = byte;
            self.length += 1;
        }
        Ok(())
    }

    fn take(&mut self, to: &mut [u8]) -> usize {
        let count = to.len().min(self.length);
        for byte in &mut to[..count] {
            *byte = self.bytes[self.start];
            self.start = (self.start + 1) % QUEUE_BYTES;
        }
        self.length -= count;
        count
    }
}

/// The text does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct QueueFull;

static QUEUE: Lock<Queue> = Lock::new(Queue::new());
static QUEUED: WaitQueue = WaitQueue::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Queues text for the owner.
pub fn send(text: &[u8]) {
    if QUEUE.lock().put(text).is_err() {
        DROPPED.fetch_add(text.len() as u64, Ordering::Relaxed);
    }
    QUEUED.wake_all();
}

/// Waits for queued text, and takes up to `to.len()` bytes; how many.
pub fn wait(to: &mut [u8]) -> usize {
    let take = || Some(QUEUE.lock().take(to)).filter(|&count| count > 0);
    QUEUED.wait(None, take).unwrap_or(0)
}

/// Bytes that were dropped because nobody took them.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// A line that is not complete yet.
#[derive(Clone, Copy, Debug)]
struct Line {
    bytes: [u8; LINE_BYTES],
    length: usize,
}

static LINES: Lock<[Line; CELLS_MAX]> = Lock::new(
    [Line {
        bytes: [0; LINE_BYTES],
        length: 0,
    }; CELLS_MAX],
);

/// Shows text that `from` sent, line by line. On the owner.
pub fn show(from: CellId, text: &[u8]) {
    for &byte in text {
        if let Some((line, length)) = collect(&mut LINES.lock()[from.index()], byte) {
            output::write(&line[..length]);
        }
    }
}

/// Adds a byte to a line; the line with its line feed if it is complete.
fn collect(line: &mut Line, byte: u8) -> Option<([u8; LINE_BYTES], usize)> {
    let is_end = byte == b'\n';
    if !is_end {
        let is_text = matches!(byte, b' '..=b'~' | 0x80..);
        line.bytes[line.length] = if is_text { byte } else { b'.' };
        line.length += 1;
    }
    // One byte is kept for the line feed.
    if !is_end && line.length < LINE_BYTES - 1 {
        return None;
    }
    line.bytes[line.length] = b'\n';
    let complete = (line.bytes, line.length + 1);
    line.length = 0;
    Some(complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_keeps_order_and_refuses_what_does_not_fit() {
        let mut queue = Queue::new();
        let mut out = [0; 4];
        for _ in 0..5000 {
            queue.put(b"abc").unwrap();
            assert_eq!(queue.take(&mut out), 3);
            assert_eq!(&out[..3], b"abc");
        }
        queue.put(&[1; QUEUE_BYTES]).unwrap();
        assert_eq!(queue.put(b"x"), Err(QueueFull));
        assert_eq!(queue.take(&mut out), 4);
        assert!(queue.put(b"x").is_ok());
    }

    #[test]
    fn lines_come_out_whole_and_harmless() {
        let mut line = Line {
            bytes: [0; LINE_BYTES],
            length: 0,
        };
        let mut shown = Vec::new();
        for &byte in b"a\x1b[2J\nbc\n" {
            if let Some((bytes, length)) = collect(&mut line, byte) {
                shown.push(bytes[..length].to_vec());
            }
        }
        assert_eq!(shown, [b"a.[2J\n".to_vec(), b"bc\n".to_vec()]);
        for _ in 0..LINE_BYTES - 2 {
            assert!(collect(&mut line, b'x').is_none());
        }
        assert_eq!(
            collect(&mut line, b'x').map(|(_, length)| length),
            Some(LINE_BYTES)
        );
    }

    #[test]
    fn whatever_another_cell_sends_is_shown_as_lines_of_text() {
        let long = [b'x'; 2 * LINE_BYTES];
        fuzz::cases(&[b"one\ntwo\n", b"\x1b[2J\r\n\x07", &long], |text| {
            let mut line = Line {
                bytes: [0; LINE_BYTES],
                length: 0,
            };
            for &byte in text {
                let Some((bytes, length)) = collect(&mut line, byte) else {
                    continue;
                };
                let (end, shown) = bytes[..length].split_last().expect("a line feed at least");
                assert_eq!(*end, b'\n');
                assert!(shown.iter().all(|&byte| byte >= b' ' && byte != 0x7f));
            }
        });
    }
}
