//! What a cell wrote of its own memory, as the processor marked it.
//!
//! A processor that stores through an entry of a nested table sets that entry's dirty bit, and the
//! monitor never clears those of a cell's own memory during a life. So a stretch without the bit
//! was not written by the cell since its life began, whatever it may say itself.
//!
//! # Not guaranteed
//! A stretch is as large as its entry, 2 MiB as a rule and 1 GiB where a cell owns a whole one:
//! that one was written says little. What was put there before the cell ran, its image, leaves no
//! mark.
//!
//! # References
//! AMD64 Architecture Programmer's Manual, volume 2, rev. 3.41, 5.4.2 and 15.25.5.

use std::ops::Range;

use cell::address::FrameRange;
use cell::{PAGE_SIZE, PhysicalAddress};

use super::machine::MachineView;
use super::memory::GuestMemory;
use crate::error::Result;

/// Bits of an entry: in use, written, large, the address.
const PRESENT: u64 = 1 << 0;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Levels of a table, and the bits of an address that each of them decides.
const LEVELS: u32 = 4;
const LEVEL_BITS: u32 = 9;

/// The stretches of its own region that a cell may have written in this life, in ascending order.
///
/// # Errors
/// See [`GuestMemory::read`].
pub fn written(
    memory: &GuestMemory,
    machine: &MachineView,
    cell: usize,
) -> Result<Vec<Range<u64>>> {
    let root = machine.nested_root(memory, cell)?;
    stretches(memory, root, machine.regions[cell])
}

fn stretches(
    memory: &GuestMemory,
    root: PhysicalAddress,
    region: FrameRange,
) -> Result<Vec<Range<u64>>> {
    let start = region.start.start().0;
    let mut walk = Walk {
        memory,
        region: start..start + region.len() * PAGE_SIZE,
        found: Vec::new(),
    };
    walk.table(root, LEVELS, 0)?;
    Ok(walk.found)
}

struct Walk<'a> {
    memory: &'a GuestMemory,
    region: Range<u64>,
    found: Vec<Range<u64>>,
}

impl Walk<'_> {
    /// Goes through a table that maps addresses from `start` on.
    fn table(&mut self, table: PhysicalAddress, level: u32, start: u64) -> Result<()> {
        let mut page = [0; PAGE_SIZE as usize];
        self.memory.read(table, &mut page)?;
        let bytes = PAGE_SIZE << (LEVEL_BITS * (level - 1));
        for (entry, at) in page
            .as_chunks()
            .0
            .iter()
            .zip((start..).step_by(bytes as usize))
        {
            let entry = u64::from_le_bytes(*entry);
            let outside = at >= self.region.end || at + bytes <= self.region.start;
            if outside || entry & PRESENT == 0 {
                continue;
            }
            if level > 1 && entry & LARGE == 0 {
                self.table(PhysicalAddress(entry & ADDRESS), level - 1, at)?;
            } else if entry & DIRTY != 0 {
                self.found.push(at..at + bytes);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::guest::memory::tests::memory;
    use cell::Frame;

    const MIB: u64 = 1 << 20;

    #[test]
    fn marked_entries_of_the_region_are_found_at_every_level() {
        let memory = memory(64 * MIB);
        let put = |table: u64, index: u64, entry: u64| {
            let at = PhysicalAddress(table + index * 8);
            memory.write_u64(at, entry | PRESENT).unwrap();
        };
        let [root, upper, directory, leaf] = [0x1000, 0x2000, 0x3000, 0x4000];
        put(root, 0, upper);
        put(upper, 0, directory);
        put(upper, 1, LARGE | DIRTY);
        // 2 MiB each: outside the region, marked, unmarked, split, marked and beyond the region.
        put(directory, 7, LARGE | DIRTY);
        put(directory, 8, LARGE | DIRTY);
        put(directory, 9, LARGE);
        put(directory, 10, leaf);
        put(directory, 11, LARGE | DIRTY);
        put(leaf, 3, DIRTY);
        put(leaf, 4, 0);
        let region = FrameRange::new(Frame(16 * MIB / PAGE_SIZE), 6 * MIB / PAGE_SIZE).unwrap();
        let found = stretches(&memory, PhysicalAddress(root), region).unwrap();
        let page = 20 * MIB + 3 * PAGE_SIZE;
        assert_eq!(found, [16 * MIB..18 * MIB, page..page + PAGE_SIZE]);
    }

    #[test]
    fn a_table_outside_of_memory_is_an_error() {
        let memory = memory(4 * MIB);
        let region = FrameRange::new(Frame(0), 16).unwrap();
        assert!(stretches(&memory, PhysicalAddress(1 << 40), region).is_err());
    }
}
