//! What the ELF files say: symbols of the monitor, segments of the kernel.
//!
//! The monitor is linked at its physical addresses, so a symbol's value is a physical address.

use std::fs;
use std::path::Path;

use cell::PhysicalAddress;
use object::{Object, ObjectSegment, ObjectSymbol};

use crate::error::{Context, Error, Result};

/// The physical address of a symbol of the monitor.
///
/// # Errors
/// [`Error::Guest`] if the file is no ELF file or has no such symbol.
pub fn physical_address(monitor: &Path, symbol: &str) -> Result<PhysicalAddress> {
    let data = read(monitor)?;
    let elf = parse(monitor, &data)?;
    let found = elf
        .symbols()
        .find(|candidate| candidate.name() == Ok(symbol));
    let missing = || Error::Guest(format!("{} has no symbol {symbol}", monitor.display()));
    found
        .map(|symbol| PhysicalAddress(symbol.address()))
        .ok_or_else(missing)
}

/// A loaded part of the cell kernel's image, as the ELF file has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Its virtual address.
    pub address: u64,
    /// Its bytes in memory; those beyond `content` are zero at first.
    pub size: u64,
    /// Its bytes in the file.
    pub content: Vec<u8>,
}

/// The loaded parts of an ELF file, by address.
///
/// # Errors
/// [`Error::Guest`] if the file is no ELF file.
pub fn segments(image: &Path) -> Result<Vec<Segment>> {
    let data = read(image)?;
    let elf = parse(image, &data)?;
    let mut segments: Vec<Segment> = elf
        .segments()
        .filter_map(|segment| {
            let content = segment.data().ok()?.to_vec();
            Some(Segment {
                address: segment.address(),
                size: segment.size(),
                content,
            })
        })
        .collect();
    segments.sort_by_key(|segment| segment.address);
    Ok(segments)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(|| format!("reading {}", path.display()))
}

fn parse<'a>(path: &Path, data: &'a [u8]) -> Result<object::File<'a>> {
    let bad = |error| Error::Guest(format!("{}: {error}", path.display()));
    object::File::parse(data).map_err(bad)
}
