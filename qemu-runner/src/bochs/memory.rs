//! The guest's memory inside Bochs's own.
//!
//! Bochs keeps memory in blocks that it gives out when they are first touched, and a table of them.
//! The table is found once, by a word that the guest is known to have at a known address: the one
//! list of block addresses in Bochs's memory through which that word is found there. After that,
//! memory is read and written through `/proc/PID/mem`, which a parent may open for its child.
//!
//! # Invariants
//! 1. A table counts only if every entry is empty or a block of its own inside one large mapping.
//!
//! # Not guaranteed
//! Code that the guest has executed and that is changed here stays decoded: changes to code go
//! through the debugger (`setpmem`).
//!
//! # References
//! Bochs 2.7 `memory/memory-bochs.h`, `memory/misc_mem.cc`: `BX_MEM_BLOCK_LEN`, `allocate_block`.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use cell::{PAGE_SIZE, PhysicalAddress};

use crate::error::{Context, Error, Result};

/// Bytes of a block.
const BLOCK: u64 = 128 << 10;
/// Bytes that are searched at once.
const CHUNK: u64 = 1 << 20;
const WORD: u64 = 8;

/// The memory of one Bochs.
#[derive(Debug)]
pub struct ProcessMemory {
    process: u32,
    file: File,
    bytes: u64,
    /// Where its table of blocks lies, once that is known.
    table: OnceLock<u64>,
}

impl ProcessMemory {
    /// Opens the memory of a child that has so many bytes for its guest.
    ///
    /// # Errors
    /// [`Error::Host`] if this host does not allow that.
    pub fn open(process: u32, bytes: u64) -> Result<Self> {
        let path = format!("/proc/{process}/mem");
        let file = OpenOptions::new().read(true).write(true).open(&path);
        Ok(Self {
            process,
            file: file.context(|| format!("opening {path}, the memory of Bochs"))?,
            bytes,
            table: OnceLock::new(),
        })
    }

    /// Whether the guest's memory was found.
    pub fn is_found(&self) -> bool {
        self.table.get().is_some()
    }

    /// Looks for the guest's memory, which holds `value` at `address`. The machine stands still.
    ///
    /// # Errors
    /// [`Error::Bochs`] if it is not found, or more than one that could be it.
    pub fn find(&self, address: PhysicalAddress, value: u64) -> Result<()> {
        let maps = format!("/proc/{}/maps", self.process);
        let text = fs::read_to_string(&maps).context(|| format!("reading {maps}"))?;
        let mut mappings: Vec<Range<u64>> = text.lines().filter_map(writable).collect();
        mappings.sort_by_key(|mapping| mapping.end - mapping.start);
        let large = |mapping: &&Range<u64>| mapping.end - mapping.start >= self.bytes;
        let blocks: Vec<Range<u64>> = mappings.iter().filter(large).cloned().collect();
        let mut found = BTreeSet::new();
        for mapping in &mappings {
            // The table may lie beside the blocks, but hardly ever does.
            if found.is_empty() {
                self.search(mapping, &blocks, (address, value), &mut found);
            }
        }
        match found.len() {
            1 => {
                // Set once: there is one search.
                let _ = self.table.set(found.into_iter().next().unwrap_or_default());
                Ok(())
            }
            count => Err(Error::Bochs(format!(
                "the guest's memory is not found in its process ({count} candidates)"
            ))),
        }
    }

    fn search(
        &self,
        mapping: &Range<u64>,
        blocks: &[Range<u64>],
        (address, value): (PhysicalAddress, u64),
        found: &mut BTreeSet<u64>,
    ) {
        let (index, offset) = (address.0 / BLOCK, address.0 % BLOCK);
        let mut start = mapping.start;
        let mut chunk = vec![0; CHUNK as usize];
        while start < mapping.end {
            let length = CHUNK.min(mapping.end - start);
            let bytes = &mut chunk[..length as usize];
            // What cannot be read, such as a guard page, is no table.
            let readable = self.file.read_exact_at(bytes, start).is_ok();
            let words = words(bytes).zip((start..).step_by(WORD as usize));
            for (block, at) in words.filter(|_| readable) {
                let holder = blocks.iter().find(|range| range.contains(&block));
                let Some(holder) = holder.filter(|_| block.is_multiple_of(PAGE_SIZE)) else {
                    continue;
                };
                let Some(table) = at.checked_sub(index * WORD) else {
                    continue;
                };
                if self.word(block + offset).ok() == Some(value) && self.is_table(table, holder) {
                    found.insert(table);
                }
            }
            start += length;
        }
    }

    /// Invariant 1.
    fn is_table(&self, table: u64, holder: &Range<u64>) -> bool {
        let mut bytes = vec![0; (self.bytes / BLOCK * WORD) as usize];
        if self.file.read_exact_at(&mut bytes, table).is_err() {
            return false;
        }
        let mut seen = BTreeSet::new();
        let first = words(&bytes).find(|&block| block != 0);
        words(&bytes).filter(|&block| block != 0).all(|block| {
            let apart = block.abs_diff(first.unwrap_or_default());
            holder.contains(&block) && apart.is_multiple_of(BLOCK) && seen.insert(block)
        })
    }

    fn word(&self, at: u64) -> io::Result<u64> {
        let mut bytes = [0; WORD as usize];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Where in the process the guest's byte at `offset` lies; `None` if nobody touched its block.
    fn place(&self, offset: u64) -> io::Result<Option<u64>> {
        let Some(table) = self.table.get() else {
            return Ok(None);
        };
        let block = self.word(table + offset / BLOCK * WORD)?;
        Ok((block != 0).then(|| block + offset % BLOCK))
    }

    /// Reads from `offset` on. What nobody touched is zero, and so is everything before the memory
    /// was found.
    ///
    /// # Errors
    /// If Bochs is gone.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let count = (BLOCK - at % BLOCK).min(rest.len() as u64);
            let (part, others) = rest.split_at_mut(count as usize);
            match self.place(at)? {
                Some(place) => self.file.read_exact_at(part, place)?,
                None => part.fill(0),
            }
            (at, rest) = (at + count, others);
        }
        Ok(())
    }

    /// Writes from `offset` on.
    ///
    /// # Errors
    /// If Bochs is gone, or nobody touched that memory yet.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = (BLOCK - at % BLOCK).min(rest.len() as u64);
            let (part, others) = rest.split_at(count as usize);
            let untouched = || io::Error::other("Bochs has no such block yet");
            let place = self.place(at)?.ok_or_else(untouched)?;
            self.file.write_all_at(part, place)?;
            (at, rest) = (at + count, others);
        }
        Ok(())
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let words = bytes.chunks_exact(WORD as usize);
    words.map(|word| {
        word.first_chunk()
            .map_or(0, |word| u64::from_le_bytes(*word))
    })
}

/// The range of a mapping that is private and writable, of a line of `/proc/PID/maps`.
fn writable(line: &str) -> Option<Range<u64>> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let range = number(start)?..number(end)?;
    (fields.next()? == "rw-p").then_some(range)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    /// The test's own process plays Bochs: a guest of 64 MiB, its blocks given out backwards. It
    /// cannot be searched: what the search reads of the table would be another one. Every run under
    /// Bochs does that.
    #[test]
    fn memory_is_read_and_written_through_a_table_that_makes_sense() {
        let bytes = 64 << 20;
        let count = (bytes / BLOCK) as usize;
        let backing = vec![0u8; bytes as usize + PAGE_SIZE as usize];
        let base = (backing.as_ptr() as u64).next_multiple_of(PAGE_SIZE);
        let mut table = vec![0u64; count];
        for (index, block) in table.iter_mut().enumerate().take(count / 2) {
            *block = base + (count - 1 - index) as u64 * BLOCK;
        }
        let memory = ProcessMemory::open(std::process::id(), bytes).unwrap();
        let (at, holder) = (table.as_ptr() as u64, base..base + bytes);
        assert!(memory.is_table(at, &holder));
        assert!(!memory.is_table(at, &(base..base + BLOCK)), "outside");
        let mut twice = table.clone();
        twice[1] = twice[0];
        let twice_at = std::hint::black_box(&twice).as_ptr() as u64;
        assert!(!memory.is_table(twice_at, &holder), "one block twice");
        memory.table.set(at).unwrap();
        // Across the border of two blocks.
        let offset = 5 * BLOCK - 3;
        memory.write(b"border", offset).unwrap();
        let mut read = [0; 8];
        memory.read(&mut read, offset - 1).unwrap();
        assert_eq!(&read, b"\0border\0");
        let untouched = bytes - 4;
        memory.read(&mut read[..4], untouched).unwrap();
        assert_eq!(read[..4], [0; 4]);
        assert!(memory.write(b"x", untouched).is_err());
        drop(std::hint::black_box((backing, table)));
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        let memory = ProcessMemory::open(std::process::id(), 1 << 40).unwrap();
        assert!(
            memory
                .find(PhysicalAddress(0x1000), 0x5eed_1234_dead_0001)
                .is_err()
        );
        assert!(!memory.is_found());
    }

    #[test]
    fn only_private_writable_mappings_count() {
        let line = "7f00-7fff rw-p 00000000 00:00 0  [heap]";
        assert_eq!(writable(line), Some(0x7f00..0x7fff));
        assert_eq!(writable("7f00-7fff r--p 00000000 00:00 0"), None);
        assert_eq!(writable("nonsense"), None);
    }
}
