//! Physical addresses, page frames and ranges of frames.
//!
//! Cells run with guest-physical equal to host-physical, so one type serves the monitor and the
//! kernels.
//!
//! # Invariants
//! 1. A [`Frame`] is an address divided by [`PAGE_SIZE`]; it fits in 40 bits of a 52-bit physical
//!    address.
//! 2. A [`FrameRange`] never wraps: `start <= end`.

use core::fmt;

/// Bytes of a page frame, the granule of the firewall.
pub const PAGE_SIZE: u64 = 4096;

/// Bytes of a large page.
pub const LARGE_PAGE_SIZE: u64 = 2 << 20;

/// Physical address bits of x86-64 (AMD64 Architecture Programmer's Manual, volume 2, 5.1).
const PHYSICAL_BITS: u32 = 52;

/// A physical address.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PhysicalAddress(pub u64);

impl PhysicalAddress {
    /// The frame that holds the address.
    pub const fn frame(self) -> Frame {
        Frame(self.0 / PAGE_SIZE)
    }

    /// The address `bytes` further on; `None` past the end of physical memory.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) if sum >> PHYSICAL_BITS == 0 => Some(Self(sum)),
            _ => None,
        }
    }

    /// Whether the address is a multiple of `alignment`, a power of two.
    pub const fn is_aligned(self, alignment: u64) -> bool {
        self.0 & (alignment - 1) == 0
    }
}

impl fmt::Debug for PhysicalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The number of a 4 KiB page frame.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Frame(pub u64);

impl Frame {
    /// The first address of the frame.
    pub const fn start(self) -> PhysicalAddress {
        PhysicalAddress(self.0 * PAGE_SIZE)
    }

    /// The number, for indexing tables with one entry per frame.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {:#x}", self.0)
    }
}

/// Frames from `start` up to, and without, `end`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct FrameRange {
    /// The first frame.
    pub start: Frame,
    /// The frame after the last.
    pub end: Frame,
}

impl FrameRange {
    /// The range of `count` frames from `start`; `None` if it leaves the physical address space.
    pub const fn new(start: Frame, count: u64) -> Option<Self> {
        match start.0.checked_add(count) {
            Some(end) if end <= 1 << (PHYSICAL_BITS - 12) => Some(Self {
                start,
                end: Frame(end),
            }),
            _ => None,
        }
    }

    /// The range of one frame, which is known to lie in physical memory.
    pub const fn single(frame: Frame) -> Self {
        Self {
            start: frame,
            end: Frame(frame.0 + 1),
        }
    }

    /// How many frames.
    pub const fn len(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether there is no frame in the range.
    pub const fn is_empty(self) -> bool {
        self.start.0 >= self.end.0
    }

    /// Whether `frame` is in the range.
    pub const fn contains(self, frame: Frame) -> bool {
        self.start.0 <= frame.0 && frame.0 < self.end.0
    }

    /// Whether all of `other` is in the range.
    pub const fn contains_range(self, other: Self) -> bool {
        self.start.0 <= other.start.0 && other.end.0 <= self.end.0
    }

    /// Whether `bytes` bytes from `address` all lie in the range.
    pub const fn contains_bytes(self, address: PhysicalAddress, bytes: u64) -> bool {
        match address.checked_add(bytes) {
            Some(end) => {
                address.0 >= self.start.start().0 && end.0 <= self.end.0 * PAGE_SIZE && bytes > 0
            }
            None => false,
        }
    }

    /// The frames in ascending order.
    pub fn iter(self) -> impl Iterator<Item = Frame> {
        (self.start.0..self.end.0).map(Frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_wrap() {
        assert!(FrameRange::new(Frame(u64::MAX), 2).is_none());
        assert!(FrameRange::new(Frame((1 << 40) - 1), 2).is_none());
        assert_eq!(FrameRange::new(Frame(3), 4).map(FrameRange::len), Some(4));
    }

    #[test]
    fn bytes_that_straddle_the_end_are_outside() {
        let range = FrameRange {
            start: Frame(1),
            end: Frame(2),
        };
        assert!(range.contains_bytes(PhysicalAddress(0x1ff8), 8));
        assert!(!range.contains_bytes(PhysicalAddress(0x1ff9), 8));
        assert!(!range.contains_bytes(PhysicalAddress(0xfff), 1));
        assert!(!range.contains_bytes(PhysicalAddress(u64::MAX - 3), 8));
        assert!(!range.contains_bytes(PhysicalAddress(0x1000), 0));
    }
}
