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

/// The fixed part of the structure.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    flags: u32,
    memory_lower: u32,
    memory_upper: u32,
    boot_device: u32,
    command_line: u32,
    modules_count: u32,
    modules: u32,
    symbols: [u32; 4],
    memory_map_bytes: u32,
    memory_map: u32,
}

/// An entry of the memory map; `size` does not count itself.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct MapEntry {
    size: u32,
    base: u64,
    length: u64,
    kind: u32,
}

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
        // SAFETY: the magic number promises a structure at `address`, in identity-mapped memory.
        let header: Header = unsafe { read_at(address) };
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
        if header.flags & HAS_COMMAND_LINE != 0 {
            // SAFETY: the flag promises a string at that address.
            unsafe { information.copy_command_line(header.command_line) }?;
        }
        if header.flags & HAS_MEMORY_MAP == 0 {
            return Err(MultibootError::NoMemoryMap);
        }
        // SAFETY: the flag promises a map at that address.
        unsafe { information.copy_map(header.memory_map, header.memory_map_bytes) };
        let modules = if header.flags & HAS_MODULES == 0 {
            0
        } else {
            header.modules_count
        };
        if modules != 1 {
            return Err(MultibootError::Modules(modules));
        }
        // SAFETY: the flag and the count promise one module entry, which starts with its two
        // addresses.
        let [start, end]: [u32; 2] = unsafe { read_at(header.modules) };
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

    /// # Safety
    /// A zero-terminated string lies at `address`.
    unsafe fn copy_command_line(&mut self, address: u32) -> Result<(), MultibootError> {
        for index in 0..COMMAND_LINE_MAX {
            // SAFETY: no zero was found before, so the string goes on here.
            let byte: u8 = unsafe { read_at(address + index as u32) };
            if byte == 0 {
                self.command_line_length = index;
                let text = core::str::from_utf8(&self.command_line[..index]);
                return text.map(|_| ()).map_err(|_| MultibootError::CommandLine);
            }
            self.command_line[index] = byte;
        }
        Err(MultibootError::CommandLine)
    }

    /// # Safety
    /// A memory map of `bytes` bytes lies at `address`.
    unsafe fn copy_map(&mut self, address: u32, bytes: u32) {
        let mut offset = 0;
        while offset + size_of::<MapEntry>() as u32 <= bytes && self.stretches_count < STRETCHES_MAX
        {
            // SAFETY: the entry lies inside the map.
            let entry: MapEntry = unsafe { read_at(address + offset) };
            self.stretches[self.stretches_count] = stretch(entry.base, entry.length, entry.kind);
            self.stretches_count += 1;
            offset += entry.size.saturating_add(4);
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

/// # Safety
/// A `T` lies at the physical address, identity-mapped; any bytes are a valid `T`.
unsafe fn read_at<T: Copy>(address: u32) -> T {
    // SAFETY: passed on to the caller; no alignment is asked for.
    unsafe { (address as *const T).read_unaligned() }
}

const _: () = {
    assert!(core::mem::offset_of!(Header, memory_map) == 48);
    assert!(size_of::<MapEntry>() == 24);
};

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
}
