//! Whether code and constants in memory are still what the images hold.
//!
//! Nobody but the runner ever changes them, so a byte that differs was written by somebody who must
//! not: an oracle that needs neither the firewall's nor the cells' own word, and no other run to
//! compare with.
//!
//! # Not guaranteed
//! Data that changes as a kernel works is not looked at: a difference there means a foreign write
//! only as long as nobody has reacted to the fault. The monitor's tables and stacks are such data
//! too.

use std::path::Path;

use cell::{CellSet, PhysicalAddress};
use serde::Serialize;

use super::memory::GuestMemory;
use super::symbols::{Segment, constants, segments};
use crate::error::Result;
use crate::fault::place::find_image;
use crate::guest::machine::MachineView;
use crate::images::Images;
use crate::output::counted;

/// Bytes of somebody's code or constants that are not what they were.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
pub struct Spoilt {
    /// Whose: a cell's, or the monitor's.
    pub cell: Option<usize>,
    /// How many.
    pub bytes: u64,
    /// The physical address of the first.
    pub first: u64,
}

impl Spoilt {
    /// As a sentence.
    pub fn text(&self) -> String {
        let Self { cell, bytes, first } = self;
        let whose = cell.map_or_else(|| "the monitor's".into(), |cell| format!("cell {cell}'s"));
        format!(
            "{} of {whose} code or constants changed, from {first:#x} on",
            counted(*bytes, "byte")
        )
    }
}

/// Compares the monitor, and the kernels of `cells`, with their images.
///
/// # Errors
/// [`crate::error::Error::Guest`] if an image is no ELF file, or a kernel is not found at all.
pub fn check(
    memory: &GuestMemory,
    machine: &MachineView,
    images: &Images,
    cells: CellSet,
) -> Result<Vec<Spoilt>> {
    let mut spoilt = Vec::new();
    let own = compare(memory, &constants(&images.monitor)?, |address| address)?;
    spoilt.extend(own.map(|own| own.of(None)));
    let kernel = constants_of(&images.kernel)?;
    for cell in cells.iter() {
        let region = machine.regions[cell.index()];
        let place = find_image(memory, region, &kernel.segments)?;
        let at = |address: u64| place.physical + (address - place.virtual_start);
        let found = compare(memory, &kernel.constants, at)?;
        spoilt.extend(found.map(|found| found.of(Some(cell.index()))));
    }
    Ok(spoilt)
}

/// A kernel's image.
struct Kernel {
    segments: Vec<Segment>,
    constants: Vec<Segment>,
}

fn constants_of(kernel: &Path) -> Result<Kernel> {
    Ok(Kernel {
        segments: segments(kernel)?,
        constants: constants(kernel)?,
    })
}

/// What differs in one image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Difference {
    bytes: u64,
    first: u64,
}

impl Difference {
    const fn of(self, cell: Option<usize>) -> Spoilt {
        Spoilt {
            cell,
            bytes: self.bytes,
            first: self.first,
        }
    }
}

/// Compares parts of an image with memory; `at` says where an address of the image lies.
fn compare(
    memory: &GuestMemory,
    parts: &[Segment],
    at: impl Fn(u64) -> u64,
) -> Result<Option<Difference>> {
    let mut difference: Option<Difference> = None;
    for part in parts {
        let start = at(part.address);
        let mut found = vec![0; part.content.len()];
        memory.read(PhysicalAddress(start), &mut found)?;
        let pairs = found.iter().zip(&part.content).zip(start..);
        for (_, address) in pairs.filter(|((found, right), _)| found != right) {
            let first = difference.map_or(address, |other| other.first.min(address));
            let bytes = difference.map_or(0, |other| other.bytes) + 1;
            difference = Some(Difference { bytes, first });
        }
    }
    Ok(difference)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::guest::memory::tests::memory;

    fn part(address: u64, content: &[u8]) -> Segment {
        Segment {
            address,
            size: content.len() as u64,
            content: content.to_vec(),
        }
    }

    #[test]
    fn every_byte_that_differs_counts_and_the_first_is_named() {
        let memory = memory(1 << 20);
        let parts = [part(0x8000, &[1; 64]), part(0x9000, &[2; 64])];
        let at = |address: u64| address - 0x7000;
        let put = |address, bytes: &[u8]| memory.write(PhysicalAddress(address), bytes).unwrap();
        put(0x1000, &[1; 64]);
        put(0x2000, &[2; 64]);
        assert_eq!(compare(&memory, &parts, at).unwrap(), None);
        put(0x2003, &[0]);
        put(0x103f, &[7, 7]);
        let difference = Difference {
            bytes: 2,
            first: 0x103f,
        };
        assert_eq!(compare(&memory, &parts, at).unwrap(), Some(difference));
    }
}
