//! Chooses the cells' memory and hands out the monitor's own.
//!
//! ```text
//! 0          1 MiB       image end     module end       next 2 MiB   end of the largest stretch
//! | firmware | monitor    | kernel image | structures     | cells ...                |
//! ```
//! The monitor's structures come right after its image and the module; the cells get what is left
//! of the largest stretch of usable RAM. Where that is a stretch above 4 GiB, the monitor keeps the
//! one it was loaded into.
//!
//! # Not guaranteed
//! Usable RAM outside the largest stretch is not used.

use core::mem::{align_of, size_of};
use core::slice;

use cell::address::{LARGE_PAGE_SIZE, PAGE_SIZE};
use cell::{Frame, FrameRange, PhysicalAddress};

use crate::multiboot::Stretch;

/// Hands out the monitor's memory, once and for all.
#[derive(Debug)]
pub struct MonitorMemory {
    next: u64,
    end: u64,
}

/// The monitor's memory is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

impl MonitorMemory {
    /// The memory from `start` to the end of its stretch.
    ///
    /// # Safety
    /// Nothing else uses that memory, now or later, and it is identity-mapped RAM.
    pub unsafe fn new(start: PhysicalAddress, stretches: &[Stretch]) -> Self {
        let inside =
            |stretch: &&Stretch| stretch.is_usable && stretch.frames.contains(start.frame());
        let end = stretches
            .iter()
            .find(inside)
            .map_or(start.0, |it| it.frames.end.start().0);
        Self { next: start.0, end }
    }

    /// A slice of `count` values, value `index` being `make(index)`.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn slice<T>(
        &mut self,
        count: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Result<&'static mut [T], OutOfMemory> {
        let start = self.next.next_multiple_of(align_of::<T>() as u64);
        let bytes = (size_of::<T>() as u64)
            .checked_mul(count as u64)
            .ok_or(OutOfMemory)?;
        let end = start
            .checked_add(bytes)
            .filter(|&end| end <= self.end)
            .ok_or(OutOfMemory)?;
        self.next = end;
        let first = start as *mut T;
        for index in 0..count {
            // SAFETY: the element lies in memory that `new`'s caller gave away and that was not
            // handed out before; aligned.
            unsafe { first.add(index).write(make(index)) };
        }
        // SAFETY: all elements are initialized, and nobody else will get this memory.
        Ok(unsafe { slice::from_raw_parts_mut(first, count) })
    }

    /// `count` stacks of `bytes` bytes each, whose tops are 16-byte aligned; returns the first
    /// byte.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn stacks(&mut self, count: usize, bytes: usize) -> Result<PhysicalAddress, OutOfMemory> {
        let start = self.next.next_multiple_of(PAGE_SIZE);
        let end = (bytes as u64)
            .checked_mul(count as u64)
            .and_then(|all| start.checked_add(all));
        self.next = end.filter(|&end| end <= self.end).ok_or(OutOfMemory)?;
        Ok(PhysicalAddress(start))
    }

    /// What is used so far, as whole large pages from `start`.
    pub fn used(&self, start: Frame) -> FrameRange {
        let end = self.next.next_multiple_of(LARGE_PAGE_SIZE) / PAGE_SIZE;
        FrameRange {
            start,
            end: Frame(end.max(start.0)),
        }
    }
}

/// The end of the memory that the monitor's and the nested tables can map: one entry of their
/// roots.
pub const REACH_MAX: PhysicalAddress = PhysicalAddress(512 << 30);

/// The largest stretch of usable RAM from 1 MiB to [`REACH_MAX`].
pub fn largest(stretches: &[Stretch]) -> FrameRange {
    const FIRST: u64 = (1 << 20) / PAGE_SIZE;
    stretches
        .iter()
        .filter(|stretch| stretch.is_usable && stretch.frames.start.0 >= FIRST)
        .filter(|stretch| stretch.frames.start < REACH_MAX.frame())
        .map(|stretch| FrameRange {
            start: stretch.frames.start,
            end: stretch.frames.end.min(REACH_MAX.frame()),
        })
        .max_by_key(|frames| frames.len())
        .unwrap_or_default()
}

/// The whole frames that hold the bytes from `start` up to, and without, `end`, rounded outwards.
pub fn frames_between(start: PhysicalAddress, end: PhysicalAddress) -> FrameRange {
    FrameRange {
        start: start.frame(),
        end: Frame(end.0.div_ceil(PAGE_SIZE)),
    }
}

/// The cells' part of `stretch`: what lies behind everything in it that is `taken`.
pub fn cells_part(stretch: FrameRange, taken: &[FrameRange]) -> FrameRange {
    let start = taken
        .iter()
        .filter(|range| range.start < stretch.end && stretch.start < range.end)
        .map(|range| range.end.min(stretch.end))
        .fold(stretch.start, Frame::max);
    FrameRange {
        start,
        end: stretch.end,
    }
}

/// Firmware memory that cells may read: reserved stretches below the devices' range, small enough
/// to be tables.
pub fn firmware_tables(stretches: &[Stretch]) -> impl Iterator<Item = FrameRange> + '_ {
    const DEVICES: u64 = 0xe000_0000 / PAGE_SIZE;
    const TABLES_MAX: u64 = (4 << 20) / PAGE_SIZE;
    const ONE_MIB: u64 = (1 << 20) / PAGE_SIZE;
    stretches
        .iter()
        .filter(|stretch| !stretch.is_usable && stretch.frames.end.0 <= DEVICES)
        .filter(|stretch| stretch.frames.len() <= TABLES_MAX && stretch.frames.start.0 >= ONE_MIB)
        .map(|stretch| stretch.frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(start: u64, end: u64) -> FrameRange {
        FrameRange {
            start: Frame(start),
            end: Frame(end),
        }
    }

    fn stretch(start: u64, end: u64, is_usable: bool) -> Stretch {
        Stretch {
            frames: frames(start, end),
            is_usable,
        }
    }

    #[test]
    fn cells_get_what_the_monitor_leaves_of_the_largest_stretch() {
        let map = [
            stretch(0, 0x9f, true),
            stretch(0x100, 0x2_0000, true),
            stretch(0x2_0000, 0x2_0020, false),
            stretch(0x10_0000, 0x11_0000, true),
        ];
        let low = largest(&map[..3]);
        assert_eq!(low.len(), 0x2_0000 - 0x100);
        let monitor = frames(0, 0x1000);
        assert_eq!(cells_part(low, &[monitor]).start, Frame(0x1000));
        let high = largest(&map[2..]);
        assert_eq!(cells_part(high, &[monitor]), high);
        assert_eq!(firmware_tables(&map).count(), 1);
    }

    #[test]
    fn memory_that_no_table_can_map_is_not_the_largest_stretch() {
        let far = REACH_MAX.frame().0;
        let map = [
            stretch(0x100, 0x2_0000, true),
            stretch(far + 1, far + 0x100_0000, true),
        ];
        assert_eq!(largest(&map), map[0].frames);
        assert!(largest(&map[1..]).is_empty());
    }

    #[test]
    fn no_cell_gets_what_the_monitor_uses() {
        let low = frames(0x100, 0x8000);
        assert!(cells_part(low, &[frames(0, 0x8200)]).is_empty());
        // The structures lie behind a module in another stretch, the image in this one.
        let taken = [frames(0x100, 0x280), frames(0x9000, 0x9400)];
        assert_eq!(cells_part(low, &taken), frames(0x280, 0x8000));
    }
}
