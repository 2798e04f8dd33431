//! Faults of memory, injected from outside: flipped bits and changed pointers.
//!
//! Where a cell's copy of the kernel image lies is found by looking for the image's own pages, so
//! that the runner needs to know nothing of the monitor's layout.
//!
//! # Not guaranteed
//! Reading and writing back a byte is not one step: a store of the guest in between is lost. That
//! is a fault too.

use std::collections::HashMap;

use cell::address::FrameRange;
use cell::public::PUBLIC_SIZE;
use cell::{PAGE_SIZE, PhysicalAddress};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::host::Target;
use super::plan::{Area, Strike};
use crate::error::{Error, Result};
use crate::guest::memory::GuestMemory;
use crate::guest::symbols::{Segment, segments};
use crate::qemu::qtest::BusAccess;

/// Virtual addresses from here on are the kernel's.
const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;
/// Words from here on are small negative numbers, not pointers.
const SMALL_NEGATIVE: u64 = 0xffff_ffff_ffff_0000;
/// One entry of the top-level page table: the window on physical memory starts at a multiple of it.
const TOP_ENTRY: u64 = 1 << 39;
/// Most candidates that are kept.
const CANDIDATES_MAX: usize = 1 << 20;

/// A cell's copy of the kernel image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ImagePlace {
    physical: u64,
    virtual_start: u64,
    bytes: u64,
}

/// Where the code of a cell's kernel ends, and what is left over of its last page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodeEnd {
    /// The first address of the code.
    pub first: u64,
    /// The address after the code, rounded up for code to follow.
    pub address: u64,
    /// The same as a physical address.
    pub physical: u64,
    /// Bytes from there to the end of the page.
    pub room: u64,
}

/// Where the code of a cell's kernel ends.
///
/// # Errors
/// [`Error::Guest`] if the image is not found.
pub fn code_end(target: &Target<'_>, cell: usize) -> Result<CodeEnd> {
    const ALIGNMENT: u64 = 16;
    let segments = segments(&target.images.kernel)?;
    let place = find_image(target.memory, target.machine.regions[cell], &segments)?;
    let bytes = segments.first().map_or(0, |code| code.size);
    let address = (place.virtual_start + bytes).next_multiple_of(ALIGNMENT);
    Ok(CodeEnd {
        first: place.virtual_start,
        address,
        physical: place.physical + (address - place.virtual_start),
        room: address.next_multiple_of(PAGE_SIZE) - address,
    })
}

/// Flips one bit.
///
/// # Errors
/// [`Error::Guest`] if the image is not found, [`Error::Channel`].
pub fn flip_bit(target: &Target<'_>, bus: &mut dyn BusAccess, strike: &Strike) -> Result<String> {
    let region = target.machine.regions[strike.cell];
    let mut random = ChaCha8Rng::seed_from_u64(strike.seed);
    let address = match strike.area {
        Area::Region => region.start.start().0 + random.random_range(0..region.len() * PAGE_SIZE),
        Area::Image => {
            let place = find_image(target.memory, region, &segments(&target.images.kernel)?)?;
            place.physical + random.random_range(0..place.bytes)
        }
    };
    let bit = random.random_range(0..8);
    let mut byte = [0];
    bus.read_bus(address, &mut byte)?;
    bus.write_bus(address, &[byte[0] ^ 1 << bit])?;
    Ok(format!(
        "bit {bit} of the byte at {address:#x} in cell {}",
        strike.cell
    ))
}

/// Changes one pointer.
///
/// # Errors
/// [`Error::Guest`] if the image or no pointer is found, [`Error::Channel`].
pub fn change_pointer(
    target: &Target<'_>,
    bus: &mut dyn BusAccess,
    strike: &Strike,
) -> Result<String> {
    let region = target.machine.regions[strike.cell];
    let place = find_image(target.memory, region, &segments(&target.images.kernel)?)?;
    let (window, pointers) = find_pointers(target.memory, region, place)?;
    let mut random = ChaCha8Rng::seed_from_u64(strike.seed);
    let Some(&(address, old)) = pointers.choose(&mut random) else {
        return Err(Error::Guest(format!(
            "no pointer found in cell {}",
            strike.cell
        )));
    };
    let in_image = (place.physical..place.physical + place.bytes).contains(&address);
    let (new, kind) = match random.random_range(0..6) {
        0 | 1 => (
            window + random.random_range(0..target.memory.len()),
            "a random address",
        ),
        2 => (old.wrapping_add(8), "one word further"),
        3 => (old.wrapping_sub(8), "one word before"),
        4 => (old.wrapping_add(16), "two words further"),
        _ if in_image => (place.virtual_start + (address - place.physical), "itself"),
        _ => (window + address, "itself"),
    };
    bus.write_bus(address, &new.to_le_bytes())?;
    let cell = strike.cell;
    Ok(format!(
        "pointer at {address:#x} in cell {cell}: {old:#x} becomes {new:#x}, {kind}"
    ))
}

/// Looks for the pages of the image's first segment, which no kernel changes.
fn find_image(
    memory: &GuestMemory,
    region: FrameRange,
    segments: &[Segment],
) -> Result<ImagePlace> {
    let missing = || Error::Guest("the cell's kernel image is not found in its memory".into());
    let (first, last) = segments.first().zip(segments.last()).ok_or_else(missing)?;
    let pages: HashMap<&[u8], u64> = first
        .content
        .chunks_exact(PAGE_SIZE as usize)
        .zip((0..).step_by(PAGE_SIZE as usize))
        .filter(|(page, _)| page.iter().any(|&byte| byte != 0))
        .collect();
    let mut starts: HashMap<u64, usize> = HashMap::new();
    let mut page = [0; PAGE_SIZE as usize];
    for frame in region.iter().skip((PUBLIC_SIZE / PAGE_SIZE) as usize) {
        memory.read(frame.start(), &mut page)?;
        if let Some(&offset) = pages.get(&page[..]) {
            *starts
                .entry(frame.start().0.wrapping_sub(offset))
                .or_default() += 1;
        }
    }
    let physical = starts
        .into_iter()
        .max_by_key(|&(_, count)| count)
        .ok_or_else(missing)?
        .0;
    // A segment may begin inside its first page; the image begins at the page.
    let virtual_start = first.address;
    Ok(ImagePlace {
        physical,
        virtual_start,
        bytes: last.address + last.size - virtual_start,
    })
}

/// The start of the kernel's window on physical memory, and every word that looks like a pointer
/// into it or into the image, with its address.
fn find_pointers(
    memory: &GuestMemory,
    region: FrameRange,
    place: ImagePlace,
) -> Result<(u64, Vec<(u64, u64)>)> {
    let image = place.virtual_start..place.virtual_start + place.bytes;
    let mut candidates = Vec::new();
    let mut windows: HashMap<u64, usize> = HashMap::new();
    let mut page = [0; PAGE_SIZE as usize];
    for frame in region.iter().skip((PUBLIC_SIZE / PAGE_SIZE) as usize) {
        memory.read(frame.start(), &mut page)?;
        for (position, word) in page.chunks_exact(8).enumerate() {
            let value = word
                .first_chunk()
                .map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let pointer = (KERNEL_HALF..SMALL_NEGATIVE).contains(&value);
            if pointer && value.is_multiple_of(8) && candidates.len() < CANDIDATES_MAX {
                candidates.push((frame.start().0 + position as u64 * 8, value));
                let physical = PhysicalAddress(value & (TOP_ENTRY - 1));
                if !image.contains(&value) && region.contains_bytes(physical, 8) {
                    *windows.entry(value - physical.0).or_default() += 1;
                }
            }
        }
    }
    let window = windows.into_iter().max_by_key(|&(_, count)| count);
    let window = window.map_or(KERNEL_HALF, |(window, _)| window);
    let inside = |value: u64| {
        let physical = PhysicalAddress(value.wrapping_sub(window));
        image.contains(&value) || region.contains_bytes(physical, 8)
    };
    candidates.retain(|&(_, value)| inside(value));
    Ok((window, candidates))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::guest::memory::tests::memory;
    use cell::Frame;

    const REGION: FrameRange = FrameRange {
        start: Frame(0x400),
        end: Frame(0xc00),
    };
    const IMAGE: u64 = 0x70_0000;

    fn image() -> Vec<Segment> {
        let text = (0..2 * PAGE_SIZE).map(|at| (at / 7) as u8).collect();
        vec![
            Segment {
                address: 0xffff_ffff_8000_0000,
                size: 2 * PAGE_SIZE,
                content: text,
            },
            Segment {
                address: 0xffff_ffff_8000_4000,
                size: 0x1234,
                content: vec![],
            },
        ]
    }

    #[test]
    fn the_image_is_found_by_its_pages() {
        let memory = memory(16 << 20);
        let segments = image();
        assert!(find_image(&memory, REGION, &segments).is_err());
        memory
            .write(PhysicalAddress(IMAGE), &segments[0].content)
            .unwrap();
        let place = find_image(&memory, REGION, &segments).unwrap();
        let expected = ImagePlace {
            physical: IMAGE,
            virtual_start: 0xffff_ffff_8000_0000,
            bytes: 0x5234,
        };
        assert_eq!(place, expected);
    }

    #[test]
    fn pointers_are_told_from_numbers() {
        let memory = memory(16 << 20);
        let place = ImagePlace {
            physical: IMAGE,
            virtual_start: 0xffff_ffff_8000_0000,
            bytes: 0x5000,
        };
        let window = 0xffff_9000_0000_0000;
        let words = [
            place.virtual_start + 0x100,
            window + 0x80_0000,
            window + 0x80_0010,
            u64::MAX,
            7,
        ];
        for (position, word) in words.into_iter().enumerate() {
            memory
                .write_u64(PhysicalAddress(0x90_0000 + position as u64 * 8), word)
                .unwrap();
        }
        let (found, pointers) = find_pointers(&memory, REGION, place).unwrap();
        assert_eq!(found, window);
        assert_eq!(
            pointers.iter().map(|&(_, value)| value).collect::<Vec<_>>(),
            words[..3]
        );
    }
}
