//! Faults of memory, injected from outside: bits, bursts, stuck bits, pointers, a whole module.
//!
//! # Not guaranteed
//! Reading and writing back a byte is not one step: a store of the guest in between is lost. That
//! is a fault too. A stuck bit is put back each time the runner looks, so the guest may see it
//! right for a moment after it wrote it. A module that fails answers all ones once and can be
//! written again, because QEMU has no memory that keeps failing; and code of it that QEMU has
//! translated runs on until the machine check, as if from a cache.

use std::collections::HashMap;

use cell::address::FrameRange;
use cell::public::PUBLIC_SIZE;
use cell::{PAGE_SIZE, PhysicalAddress};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::catalogue::BURST_MAX;
use super::host::Target;
use super::objects::find;
use super::place::{ImagePlace, in_window, ranges};
use super::plan::Strike;
use crate::error::{Error, Result};
use crate::guest::memory::GuestMemory;
use crate::qemu::qtest::BusAccess;

/// Virtual addresses from here on are the kernel's.
const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;
/// Words from here on are small negative numbers, not pointers.
const SMALL_NEGATIVE: u64 = 0xffff_ffff_ffff_0000;
/// One entry of the top-level page table: the window on physical memory starts at a multiple of it.
const TOP_ENTRY: u64 = 1 << 39;
/// Most candidates that are kept.
const CANDIDATES_MAX: usize = 1 << 20;

/// Bytes that are written at once when a module fails.
const FILL_BYTES: usize = 1 << 20;

/// A byte that a fault chose, and what it belongs to.
struct Spot {
    address: u64,
    what: String,
}

impl Spot {
    /// A byte of the object that the strike names, or of its area.
    fn choose(target: &Target<'_>, strike: &Strike, random: &mut ChaCha8Rng) -> Result<Self> {
        let cell = strike.cell;
        if let Some((address, bytes, name)) = object(target, strike, random)? {
            let address = address + random.random_range(0..bytes);
            let what = format!("{name} at {address:#x} in cell {cell}");
            return Ok(Self { address, what });
        }
        let address = ranges(target, cell, strike.area)?.choose(random);
        let what = format!("the byte at {address:#x}, {}, in cell {cell}", strike.area);
        Ok(Self { address, what })
    }
}

/// Physical address, bytes and name of the object that a strike names.
fn object(
    target: &Target<'_>,
    strike: &Strike,
    random: &mut ChaCha8Rng,
) -> Result<Option<(u64, u64, String)>> {
    let Some(name) = &strike.object else {
        return Ok(None);
    };
    let mut pick = |count| random.random_range(0..count);
    let object = find(target.images, name, &mut pick)?;
    let place = ImagePlace::find(target, strike.cell)?;
    let physical = place.physical(object.address);
    let missing = || Error::Guest(format!("{name} does not lie in the image"));
    Ok(Some((
        physical.ok_or_else(missing)?,
        object.bytes,
        object.name,
    )))
}

/// Flips `count` neighbouring bits, from 1 on.
///
/// # Errors
/// [`Error::Guest`] if the place is not there, [`Error::Channel`].
pub fn flip_bits(
    target: &Target<'_>,
    bus: &mut dyn BusAccess,
    strike: &Strike,
    count: u64,
) -> Result<String> {
    let mut random = ChaCha8Rng::seed_from_u64(strike.seed);
    let Spot { address, what } = Spot::choose(target, strike, &mut random)?;
    let bit = random.random_range(0..8);
    let region = target.machine.regions[strike.cell];
    Ok(match flip_from(bus, region, (address, bit), count)? {
        1 => format!("bit {bit} of {what}"),
        flipped => format!("{flipped} bits from bit {bit} of {what}"),
    })
}

/// Flips neighbouring bits from a bit of a byte on, none beyond the memory of the cell: its
/// neighbour is another cell. Gives how many.
fn flip_from(
    bus: &mut dyn BusAccess,
    region: FrameRange,
    (address, bit): (u64, u64),
    count: u64,
) -> Result<u64> {
    let mut flipped = 0;
    for number in bit..bit + count.clamp(1, BURST_MAX) {
        let at = address + number / 8;
        if !region.contains_bytes(PhysicalAddress(at), 1) {
            break;
        }
        let mut byte = [0];
        bus.read_bus(at, &mut byte)?;
        bus.write_bus(at, &[byte[0] ^ 1 << (number % 8)])?;
        flipped += 1;
    }
    Ok(flipped)
}

/// A bit that keeps its value, whatever is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stuck {
    address: u64,
    mask: u8,
    value: u8,
}

impl Stuck {
    /// Puts the bit back if the guest changed it.
    ///
    /// # Errors
    /// [`Error::Channel`], [`Error::Host`].
    pub fn assert(&self, memory: &GuestMemory, bus: &mut dyn BusAccess) -> Result<()> {
        let mut byte = [0];
        memory.read(PhysicalAddress(self.address), &mut byte)?;
        if byte[0] & self.mask != self.value {
            bus.write_bus(self.address, &[byte[0] & !self.mask | self.value])?;
        }
        Ok(())
    }
}

/// Makes a bit stick at the value that it does not have.
///
/// # Errors
/// [`Error::Guest`] if the place is not there, [`Error::Channel`].
pub fn stick_bit(
    target: &Target<'_>,
    bus: &mut dyn BusAccess,
    strike: &Strike,
) -> Result<(String, Stuck)> {
    let mut random = ChaCha8Rng::seed_from_u64(strike.seed);
    let Spot { address, what } = Spot::choose(target, strike, &mut random)?;
    let bit = random.random_range(0..8);
    let (mut byte, mask) = ([0], 1 << bit);
    bus.read_bus(address, &mut byte)?;
    let value = !byte[0] & mask;
    let stuck = Stuck {
        address,
        mask,
        value,
    };
    stuck.assert(target.memory, bus)?;
    let level = u8::from(value != 0);
    Ok((format!("bit {bit} of {what} stuck at {level}"), stuck))
}

/// Makes all memory of a cell answer as a module does that is no longer there: with ones.
///
/// # Errors
/// [`Error::Host`].
pub fn fail_memory(target: &Target<'_>, strike: &Strike) -> Result<String> {
    let region = target.machine.regions[strike.cell];
    let (start, bytes) = (region.start.start().0, region.len() * PAGE_SIZE);
    let ones = vec![0xff; FILL_BYTES];
    for at in (0..bytes).step_by(FILL_BYTES) {
        let part = (bytes - at).min(FILL_BYTES as u64) as usize;
        target
            .memory
            .write(PhysicalAddress(start + at), &ones[..part])?;
    }
    let mebibytes = bytes >> 20;
    Ok(format!("{mebibytes} MiB of ones from {start:#x}"))
}

/// Changes one pointer: that which the strike names, or any.
///
/// # Errors
/// [`Error::Guest`] if the image or no pointer is found, [`Error::Channel`].
pub fn change_pointer(
    target: &Target<'_>,
    bus: &mut dyn BusAccess,
    strike: &Strike,
) -> Result<String> {
    let region = target.machine.regions[strike.cell];
    let place = ImagePlace::find(target, strike.cell)?;
    let mut random = ChaCha8Rng::seed_from_u64(strike.seed);
    let named = object(target, strike, &mut random)?;
    let (address, old, name) = if let Some((address, _, name)) = named {
        let old = target.memory.read_u64(PhysicalAddress(address))?;
        (address, old, format!("{name} at {address:#x}"))
    } else {
        let (_, pointers) = find_pointers(target.memory, region, place)?;
        let missing = || Error::Guest(format!("no pointer found in cell {}", strike.cell));
        let &(address, old) = pointers.choose(&mut random).ok_or_else(missing)?;
        (address, old, format!("pointer at {address:#x}"))
    };
    let own_address = match address.checked_sub(place.physical) {
        Some(offset) if offset < place.bytes => place.virtual_start + offset,
        _ => in_window(address),
    };
    let (new, kind) = match random.random_range(0..6) {
        0 | 1 => (
            in_window(random.random_range(0..target.memory.len())),
            "a random address",
        ),
        2 => (old.wrapping_add(8), "one word further"),
        3 => (old.wrapping_sub(8), "one word before"),
        4 => (old.wrapping_add(16), "two words further"),
        _ => (own_address, "itself"),
    };
    bus.write_bus(address, &new.to_le_bytes())?;
    let cell = strike.cell;
    Ok(format!(
        "{name} in cell {cell}: {old:#x} becomes {new:#x}, {kind}"
    ))
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
    use crate::fault::catalogue::{Fault, HostFault};
    use crate::fault::plan::Area;
    use crate::guest::machine::MachineView;
    use crate::guest::machine::tests::synthetic;
    use crate::guest::memory::tests::memory;
    use crate::images::Images;
    use cell::Frame;

    const REGION: FrameRange = FrameRange {
        start: Frame(0x400),
        end: Frame(0xc00),
    };
    const IMAGE: u64 = 0x70_0000;

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

    /// Memory as a bus.
    struct Bus<'a>(&'a GuestMemory);

    impl BusAccess for Bus<'_> {
        fn read_bus(&mut self, address: u64, buffer: &mut [u8]) -> Result<()> {
            self.0.read(PhysicalAddress(address), buffer)
        }

        fn write_bus(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
            self.0.write(PhysicalAddress(address), bytes)
        }
    }

    #[test]
    fn a_stuck_bit_comes_back_and_its_neighbours_do_not() {
        let memory = memory(1 << 20);
        let stuck = Stuck {
            address: 0x1000,
            mask: 4,
            value: 4,
        };
        for (written, seen) in [(0u8, 4u8), (0xff, 0xff), (0x83, 0x87)] {
            memory.write(PhysicalAddress(0x1000), &[written]).unwrap();
            stuck.assert(&memory, &mut Bus(&memory)).unwrap();
            let mut byte = [0];
            memory.read(PhysicalAddress(0x1000), &mut byte).unwrap();
            assert_eq!(byte[0], seen);
        }
    }

    #[test]
    fn a_burst_ends_with_the_memory_of_its_cell() {
        let memory = memory(16 << 20);
        let last = REGION.end.start().0 - 1;
        let flipped = flip_from(&mut Bus(&memory), REGION, (last, 5), 8).unwrap();
        let mut bytes = [0; 2];
        memory.read(PhysicalAddress(last), &mut bytes).unwrap();
        assert_eq!((flipped, bytes), (3, [0xe0, 0]));
    }

    #[test]
    fn a_burst_flips_neighbours_and_a_failed_module_answers_ones() {
        let (memory, base) = synthetic();
        let machine = MachineView::read(&memory, base).unwrap().unwrap();
        let images = Images::none();
        let target = Target {
            memory: &memory,
            machine: &machine,
            images: &images,
        };
        let strike = Strike {
            area: Area::Region,
            ..Strike::new(Fault::Host(HostFault::MemBurst), 1)
        };
        let mut content = vec![0; (machine.regions[1].len() * PAGE_SIZE) as usize];
        let start = machine.public(1);
        let text = flip_bits(&target, &mut Bus(&memory), &strike, 12).unwrap();
        assert!(text.starts_with("12 bits"), "{text}");
        memory.read(start, &mut content).unwrap();
        let ones: u32 = content.iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(ones, 12);
        let spoilt = content.iter().filter(|&&byte| byte != 0).count();
        assert!((2..=3).contains(&spoilt), "neighbours");
        fail_memory(&target, &strike).unwrap();
        memory.read(start, &mut content).unwrap();
        assert!(content.iter().all(|&byte| byte == 0xff));
        let other = memory.read_u64(machine.public(0)).unwrap();
        assert_eq!(other, 0, "the other cell's");
    }
}
