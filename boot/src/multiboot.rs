//! Reads what the boot loader left: command line, modules, memory map.
//!
//! # Not guaranteed
//! The information lies in memory that nobody reserves; [`Information::read`] copies all of it
//! before anything else is written. Kernel image and modules are where the loader says.
//!
//! # References
//! Multiboot Specification version 0.6.96, 3.3 "Boot information format".

use cell::Frame;
use cell::address::PAGE_SIZE;
use cell::{FrameRange, PhysicalAddress};

/// What a multiboot loader leaves in EAX.
pub const LOADER_MAGIC: u32 = 0x2bad_b002;

const HAS_COMMAND_LINE: u32 = 1 << 2;
const HAS_MODULES: u32 = 1 << 3;
const HAS_MEMORY_MAP: u32 = 1 << 6;

/// Stretches of memory that are kept; further ones are ignored, which loses memory and nothing
/// else.
pub const STRETCHES_MAX: usize = 64;
/// Bytes of command line that are kept; a longer one is refused.
pub const COMMAND_LINE_MAX: usize = 1024;

/// A stretch of the memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// Whole frames of it.
    pub frames: FrameRange,
    /// Whether it is RAM that nobody uses.
    pub is_usable: bool,
}

/// A module: bytes from `start` up to, and without, `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Module {
    /// First byte.
    pub start: PhysicalAddress,
    /// Byte after the last.
    pub end: PhysicalAddress,
}

/// What is wrong with the information.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MultibootError {
    /// Not entered by a multiboot-1 loader.
    NotMultiboot,
    /// No memory map.
    NoMemoryMap,
    /// The command line is longer than [`COMMAND_LINE_MAX`], or not UTF-8.
    CommandLine,
    /// Not exactly one module: the kernel image.
    Modules(u32),
}

impl core::fmt::Display for MultibootError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotMultiboot => f.write_str("not started by a multiboot-1 loader"),
            Self::NoMemoryMap => f.write_str("the boot loader gives no memory map"),
            Self::CommandLine => {
                write!(
                    f,
                    "the command line is not text, or longer than {COMMAND_LINE_MAX} bytes"
                )
            }
            Self::Modules(count) => {
                write!(
                    f,
                    "one boot module is needed, the kernel image; there are {count}"
                )
            }
        }
    }
}

/// What the loader left, copied.
#[derive(Debug)]
pub struct Information {
    command_line: [u8; COMMAND_LINE_MAX],
    command_line_length: usize,
    stretches: [Stretch; STRETCHES_MAX],
    stretches_count: usize,
    /// The kernel image.
    pub module: Module,
}

/// Words of the fixed part of the structure.
const HEADER_WORDS: usize = 13;
/// Positions in it, in words.
const FLAGS: usize = 0;
const COMMAND_LINE: usize = 4;
const MODULES_COUNT: usize = 5;
const MODULES: usize = 6;
const MEMORY_MAP_BYTES: usize = 11;
const MEMORY_MAP: usize = 12;

/// Bytes of an entry of the memory map: a size that does not count itself, base, length, kind.
const MAP_ENTRY_BYTES: u32 = 24;

const USABLE_RAM: u32 = 1;

impl Information {
    /// Copies the information.
    ///
    /// # Errors
    /// See [`MultibootError`].
    ///
    /// # Safety
    /// `magic` and `address` are EAX and EBX at the entry, memory is identity-mapped, and nothing
    /// was written to memory outside the image yet.
    pub unsafe fn read(magic: u32, address: u32) -> Result<Self, MultibootError> {
        if magic != LOADER_MAGIC {
            return Err(MultibootError::NotMultiboot);
        }
        // SAFETY: the magic number promises that the structure and all that it names lie where it
        // says, and the caller that memory is identity-mapped; any byte is a good one.
        let memory = |address: u32| unsafe { (address as *const u8).read_volatile() };
        Self::parse(address, &memory)
    }

    /// Copies the information at `address` out of `memory`, which gives the byte at any address.
    fn parse(address: u32, memory: &impl Fn(u32) -> u8) -> Result<Self, MultibootError> {
        let mut header = [0; HEADER_WORDS];
        for (index, word) in header.iter_mut().enumerate() {
            *word = word_at(memory, address.wrapping_add(index as u32 * 4));
        }
        let flags = header[FLAGS];
        let mut information = Self {
            command_line: [0; COMMAND_LINE_MAX],
            command_line_length: 0,
            stretches: [Stretch {
                frames: FrameRange::default(),
                is_usable: false,
            }; STRETCHES_MAX],
            stretches_count: 0,
            module: Module {
                start: PhysicalAddress(0),
                end: PhysicalAddress(0),
            },
        };
        if flags & HAS_COMMAND_LINE != 0 {
            information.copy_command_line(header[COMMAND_LINE], memory)?;
        }
        if flags & HAS_MEMORY_MAP == 0 {
            return Err(MultibootError::NoMemoryMap);
        }
        information.copy_map(header[MEMORY_MAP], header[MEMORY_MAP_BYTES], memory);
        let modules = if flags & HAS_MODULES == 0 {
            0
        } else {
            header[MODULES_COUNT]
        };
        if modules != 1 {
            return Err(MultibootError::Modules(modules));
        }
        let start = word_at(memory, header[MODULES]);
        let end = word_at(memory, header[MODULES].wrapping_add(4));
        information.module = Module {
            start: PhysicalAddress(u64::from(start)),
            end: PhysicalAddress(u64::from(end.max(start))),
        };
        Ok(information)
    }

    /// The command line.
    pub fn command_line(&self) -> &str {
        core::str::from_utf8(&self.command_line[..self.command_line_length]).unwrap_or("")
    }

    /// The memory map.
    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches[..self.stretches_count]
    }

    fn copy_command_line(
        &mut self,
        address: u32,
        memory: &impl Fn(u32) -> u8,
    ) -> Result<(), MultibootError> {
        for index in 0..COMMAND_LINE_MAX {
            let byte = memory(address.wrapping_add(index as u32));
            if byte == 0 {
                let text = core::str::from_utf8(&self.command_line[..index]);
                text.map_err(|_| MultibootError::CommandLine)?;
                self.command_line_length = index;
                return Ok(());
            }
            self.command_line[index] = byte;
        }
        Err(MultibootError::CommandLine)
    }

    /// Copies the map of `bytes` bytes at `address`, as far as there is room for stretches.
    fn copy_map(&mut self, address: u32, bytes: u32, memory: &impl Fn(u32) -> u8) {
        let mut offset = 0u32;
        while offset
            .checked_add(MAP_ENTRY_BYTES)
            .is_some_and(|end| end <= bytes)
            && self.stretches_count < STRETCHES_MAX
        {
            let word = |at: u32| word_at(memory, address.wrapping_add(offset).wrapping_add(at));
            let long = |at| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
            self.stretches[self.stretches_count] = stretch(long(4), long(12), word(20));
            self.stretches_count += 1;
            offset = offset.saturating_add(word(0).saturating_add(4));
        }
    }
}

/// The whole frames of an entry: usable RAM is rounded inwards, the rest outwards.
fn stretch(base: u64, length: u64, kind: u32) -> Stretch {
    let end = base.saturating_add(length);
    let is_usable = kind == USABLE_RAM;
    let (start, end) = if is_usable {
        (base.div_ceil(PAGE_SIZE), end / PAGE_SIZE)
    } else {
        (base / PAGE_SIZE, end.div_ceil(PAGE_SIZE))
    };
    let frames = FrameRange {
        start: Frame(start),
        end: Frame(end.max(start)),
    };
    Stretch { frames, is_usable }
}

fn word_at(memory: &impl Fn(u32) -> u8, address: u32) -> u32 {
    u32::from_le_bytes([0, 1, 2, 3].map(|offset| memory(address.wrapping_add(offset))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usable_memory_shrinks_to_whole_frames_and_the_rest_grows() {
        let usable = stretch(0x1800, 0x2000, 1);
        assert_eq!(
            usable.frames,
            FrameRange {
                start: Frame(2),
                end: Frame(3)
            }
        );
        let reserved = stretch(0x1800, 0x2000, 2);
        assert_eq!(
            reserved.frames,
            FrameRange {
                start: Frame(1),
                end: Frame(4)
            }
        );
        assert!(stretch(0x1800, 0x100, 1).frames.is_empty());
        assert!(stretch(u64::MAX - 5, u64::MAX, 1).frames.is_empty());
    }

    /// A structure at 0, a command line at 64, a map of two entries at 80, a module at 128.
    fn structure() -> Vec<u8> {
        let mut words = vec![0u32; HEADER_WORDS];
        words[FLAGS] = HAS_COMMAND_LINE | HAS_MODULES | HAS_MEMORY_MAP;
        words[COMMAND_LINE] = 64;
        words[MODULES_COUNT] = 1;
        words[MODULES] = 128;
        words[MEMORY_MAP_BYTES] = 48;
        words[MEMORY_MAP] = 80;
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        bytes.resize(64, 0);
        bytes.extend(b"image cells=4\0\0\0");
        for (base, length, kind) in [(0u64, 0x9_fc00u64, 1u32), (0x10_0000, 0x1000_0000, 2)] {
            bytes.extend(20u32.to_le_bytes());
            bytes.extend(base.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
        }
        bytes.extend(
            [0x20_0000u32, 0x30_0000]
                .into_iter()
                .flat_map(u32::to_le_bytes),
        );
        bytes
    }

    /// Zeros follow the bytes.
    fn parse(bytes: &[u8]) -> Result<Information, MultibootError> {
        Information::parse(0, &|address| {
            bytes.get(address as usize).copied().unwrap_or(0)
        })
    }

    #[test]
    fn a_good_structure_is_copied() {
        let information = parse(&structure()).expect("good");
        assert_eq!(information.command_line(), "image cells=4");
        let stretches = information.stretches();
        assert_eq!(stretches.len(), 2);
        assert_eq!(stretches[0].frames.end, Frame(0x9f));
        assert!(stretches[0].is_usable && !stretches[1].is_usable);
        assert_eq!(information.module.end, PhysicalAddress(0x30_0000));
    }

    #[test]
    fn entries_that_claim_any_size_end_the_map() {
        let mut huge = structure();
        huge[44..48].copy_from_slice(&u32::MAX.to_le_bytes());
        huge[80..84].copy_from_slice(&(u32::MAX - 10).to_le_bytes());
        assert_eq!(parse(&huge).expect("good").stretches().len(), 1);
    }

    #[test]
    fn spoilt_structures_are_refused_or_copied_in_bounds() {
        fuzz::cases(&[&structure()], |bytes| {
            let Ok(information) = parse(bytes) else {
                return;
            };
            assert!(information.command_line().len() < COMMAND_LINE_MAX);
            assert!(information.module.start <= information.module.end);
            for stretch in information.stretches() {
                assert!(stretch.frames.start <= stretch.frames.end);
            }
        });
    }
}
