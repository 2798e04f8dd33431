//! The guest's memory, addressed by physical address.
//!
//! QEMU maps a file shared, so plain file reads and writes see and change what the guest sees. Of
//! Bochs's guest they go to Bochs's own memory. No unsafe code and no mapping is needed for that.
//!
//! # Not guaranteed
//! A read of more than one word may see half of a change. Code that the guest has executed and that
//! is changed here stays translated: changes to code go over the memory bus
//! ([`crate::qemu::qtest::BusAccess`]).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use cell::{Frame, PAGE_SIZE, PhysicalAddress};
use sha2::{Digest, Sha256};

use crate::bochs::memory::ProcessMemory;
use crate::error::{Context, Error, Result};

/// The q35 machine splits memory of this size or more.
const SPLIT_FROM: u64 = 0xb000_0000;
/// Bytes below the hole when it is split.
const SPLIT_LOW: u64 = 0x8000_0000;
/// Where the rest begins.
const SPLIT_HIGH_START: u64 = 1 << 32;
/// Bytes that are read at once where all memory is.
const CHUNK: usize = 1 << 20;

/// What holds the guest's memory.
#[derive(Clone, Debug)]
enum Backing {
    File(Arc<File>),
    Process(Arc<ProcessMemory>),
}

impl Backing {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(buffer, offset),
            Self::Process(process) => process.read(buffer, offset),
        }
    }
}

/// Whether a frame holds nothing.
pub fn is_zero(content: &[u8]) -> bool {
    content.iter().all(|&byte| byte == 0)
}

/// The guest's memory; a clone is the same memory.
#[derive(Clone, Debug)]
pub struct GuestMemory {
    backing: Backing,
    bytes: u64,
}

impl GuestMemory {
    /// Gives an existing file its size and opens it.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn create(path: &Path, bytes: u64) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.context(|| format!("opening {}", path.display()))?;
        file.set_len(bytes)
            .context(|| format!("sizing {}", path.display()))?;
        Ok(Self {
            backing: Backing::File(Arc::new(file)),
            bytes,
        })
    }

    /// The memory of a guest inside its emulator's.
    pub const fn inside(process: Arc<ProcessMemory>, bytes: u64) -> Self {
        Self {
            backing: Backing::Process(process),
            bytes,
        }
    }

    /// The SHA-256 of all memory: of the number and the content of every frame that is not all
    /// zero, in ascending order. Means something only while the machine stands still.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn sha256(&self) -> Result<String> {
        let mut hash = Sha256::new();
        self.each_frame(|frame, content| {
            if !is_zero(content) {
                hash.update(frame.0.to_le_bytes());
                hash.update(content);
            }
        })?;
        let hex = |byte: &u8| format!("{byte:02x}");
        Ok(hash.finalize().iter().map(hex).collect())
    }

    /// Goes through every frame and its content, in ascending order.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn each_frame(&self, mut each: impl FnMut(Frame, &[u8])) -> Result<()> {
        let mut chunk = vec![0; CHUNK];
        for offset in (0..self.bytes).step_by(CHUNK) {
            let length = (self.bytes - offset).min(CHUNK as u64) as usize;
            let read = self.backing.read(&mut chunk[..length], offset);
            read.context(|| "reading the guest's memory".into())?;
            let contents = chunk[..length].chunks(PAGE_SIZE as usize);
            for (content, offset) in contents.zip((offset..).step_by(PAGE_SIZE as usize)) {
                each(self.address(offset).frame(), content);
            }
        }
        Ok(())
    }

    /// Bytes of memory.
    pub const fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether there is no memory.
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether `length` bytes from `at` are memory.
    pub fn contains(&self, at: PhysicalAddress, length: u64) -> bool {
        self.offset(at, length).is_some()
    }

    /// The offset in the file of `length` bytes that lie together.
    fn offset(&self, at: PhysicalAddress, length: u64) -> Option<u64> {
        let end = at.0.checked_add(length)?;
        let low = self.low_bytes();
        if end <= low {
            return Some(at.0);
        }
        let offset = at.0.checked_sub(SPLIT_HIGH_START)?.checked_add(low)?;
        (offset + length <= self.bytes).then_some(offset)
    }

    /// What lies at an offset in the file.
    const fn address(&self, offset: u64) -> PhysicalAddress {
        let low = self.low_bytes();
        PhysicalAddress(if offset < low {
            offset
        } else {
            SPLIT_HIGH_START + (offset - low)
        })
    }

    /// Bytes below the hole, or of all memory if there is none.
    const fn low_bytes(&self) -> u64 {
        if self.bytes >= SPLIT_FROM {
            SPLIT_LOW
        } else {
            self.bytes
        }
    }

    fn checked(&self, at: PhysicalAddress, length: usize) -> Result<u64> {
        let outside = || Error::Guest(format!("{length} bytes at {at:?} are not memory"));
        self.offset(at, length as u64).ok_or_else(outside)
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// [`Error::Guest`] if they are not memory, [`Error::Host`] if the file cannot be read.
    pub fn read(&self, at: PhysicalAddress, buffer: &mut [u8]) -> Result<()> {
        let offset = self.checked(at, buffer.len())?;
        let read = self.backing.read(buffer, offset);
        read.context(|| format!("reading memory at {at:?}"))
    }

    /// Reads a 32-bit word.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn read_u32(&self, at: PhysicalAddress) -> Result<u32> {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads a 64-bit word.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn read_u64(&self, at: PhysicalAddress) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn write(&self, at: PhysicalAddress, bytes: &[u8]) -> Result<()> {
        let offset = self.checked(at, bytes.len())?;
        match &self.backing {
            Backing::File(file) => file.write_all_at(bytes, offset),
            Backing::Process(process) => process.write(bytes, offset),
        }
        .context(|| format!("writing memory at {at:?}"))
    }

    /// Writes a 32-bit word.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn write_u32(&self, at: PhysicalAddress, value: u32) -> Result<()> {
        self.write(at, &value.to_le_bytes())
    }

    /// Writes a 64-bit word.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn write_u64(&self, at: PhysicalAddress, value: u64) -> Result<()> {
        self.write(at, &value.to_le_bytes())
    }
}

/// The address `offset` bytes after `base`, for offsets of fields.
pub const fn field(base: PhysicalAddress, offset: usize) -> PhysicalAddress {
    PhysicalAddress(base.0.saturating_add(offset as u64))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    /// Memory of its own, not known to any QEMU.
    pub(crate) fn memory(bytes: u64) -> GuestMemory {
        let file = tempfile::NamedTempFile::new().unwrap();
        GuestMemory::create(file.path(), bytes).unwrap()
    }

    #[test]
    fn words_are_read_back() {
        let memory = memory(1 << 20);
        memory.write_u64(PhysicalAddress(0x1000), 0x1234).unwrap();
        assert_eq!(memory.read_u64(PhysicalAddress(0x1000)).unwrap(), 0x1234);
        assert!(memory.read_u64(PhysicalAddress((1 << 20) - 7)).is_err());
        assert!(memory.read_u64(PhysicalAddress(u64::MAX - 3)).is_err());
    }

    #[test]
    fn every_byte_and_its_place_count_for_the_hash() {
        let memory = memory((1 << 20) + 8192);
        let empty = memory.sha256().unwrap();
        let last = PhysicalAddress((1 << 20) + 8184);
        memory.write_u64(last, 1).unwrap();
        let changed = memory.sha256().unwrap();
        memory.write_u64(last, 0).unwrap();
        assert_eq!(memory.sha256().unwrap(), empty);
        memory.write_u64(PhysicalAddress(last.0 - 4096), 1).unwrap();
        let elsewhere = memory.sha256().unwrap();
        assert!(empty != changed && changed != elsewhere && elsewhere != empty);
    }

    #[test]
    fn large_memory_goes_on_above_the_hole() {
        let memory = memory(4 << 30);
        assert_eq!(
            memory.offset(PhysicalAddress(0x7fff_f000), 4096),
            Some(0x7fff_f000)
        );
        assert_eq!(memory.offset(PhysicalAddress(0x8000_0000), 1), None);
        assert_eq!(
            memory.offset(PhysicalAddress(1 << 32), 8),
            Some(0x8000_0000)
        );
        assert_eq!(
            memory.offset(PhysicalAddress((1 << 32) + (2 << 30)), 1),
            None
        );
    }
}
