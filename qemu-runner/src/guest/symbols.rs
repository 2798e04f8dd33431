//! What the ELF files say: symbols of the monitor, segments of the kernel.
//!
//! The monitor is linked at its physical addresses, so a symbol's value is a physical address.

use std::fs;
use std::ops::Range;
use std::path::Path;

use cell::PhysicalAddress;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SymbolKind};
use rustc_demangle::demangle;

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

/// Where the monitor's code and constants lie, which nobody changes once it runs.
///
/// # Errors
/// [`Error::Guest`] if the file is no ELF file or has no such sections.
pub fn constant_part(monitor: &Path) -> Result<Range<u64>> {
    let data = read(monitor)?;
    let elf = parse(monitor, &data)?;
    let constant = elf.sections().filter(|section| {
        let name = section.name().unwrap_or_default();
        name == ".text" || name == ".rodata"
    });
    let ranges: Vec<Range<u64>> = constant
        .map(|section| section.address()..section.address() + section.size())
        .collect();
    let start = ranges.iter().map(|range| range.start).min();
    let end = ranges.iter().map(|range| range.end).max();
    let missing = || Error::Guest(format!("{} has no code", monitor.display()));
    start
        .zip(end)
        .map(|(start, end)| start..end)
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

/// The code and the constants of an ELF file: what nobody changes once it is loaded.
///
/// # Errors
/// [`Error::Guest`] if the file is no ELF file.
pub fn constants(image: &Path) -> Result<Vec<Segment>> {
    let data = read(image)?;
    let elf = parse(image, &data)?;
    let is_constant = |name: &str| matches!(name, ".text" | ".rodata");
    let sections = elf
        .sections()
        .filter(|section| section.name().is_ok_and(is_constant));
    let parts = sections.filter_map(|section| {
        Some(Segment {
            address: section.address(),
            size: section.size(),
            content: section.data().ok()?.to_vec(),
        })
    });
    Ok(parts.collect())
}

/// The functions of an ELF file, by address.
#[derive(Debug, Default)]
pub struct Functions {
    /// Start, end, name; in ascending order.
    ranges: Vec<(u64, u64, String)>,
}

impl Functions {
    /// Reads them.
    ///
    /// # Errors
    /// [`Error::Guest`] if the file is no ELF file.
    pub fn read(image: &Path) -> Result<Self> {
        let data = read(image)?;
        let elf = parse(image, &data)?;
        let functions = elf
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text);
        let mut ranges: Vec<(u64, u64, String)> = functions
            .filter_map(|symbol| {
                let name = format!("{:#}", demangle(symbol.name().ok()?));
                Some((symbol.address(), symbol.address() + symbol.size(), name))
            })
            .collect();
        ranges.sort();
        Ok(Self { ranges })
    }

    /// The function that holds an address.
    pub fn name(&self, address: u64) -> Option<&str> {
        let after = self
            .ranges
            .partition_point(|(start, _, _)| *start <= address);
        let (_, end, name) = self.ranges.get(after.checked_sub(1)?)?;
        (address < *end).then_some(name)
    }

    /// As [`Functions::address`].
    ///
    /// # Errors
    /// [`Error::Guest`] if there is none, or more than one.
    pub fn find(&self, name: &str) -> Result<u64> {
        let missing = || Error::Guest(format!("the kernel has no function {name} of its own"));
        self.address(name).ok_or_else(missing)
    }

    /// The first address of a function: of that name, or of the only one whose name ends so.
    pub fn address(&self, name: &str) -> Option<u64> {
        let exact = self.ranges.iter().find(|(_, _, known)| known == name);
        if let Some((start, _, _)) = exact {
            return Some(*start);
        }
        let suffix = format!("::{name}");
        let mut fitting = self.ranges.iter().filter(|it| it.2.ends_with(&suffix));
        match (fitting.next(), fitting.next()) {
            (Some((start, _, _)), None) => Some(*start),
            _ => None,
        }
    }

    /// A text with names in place of the addresses of functions.
    pub fn explain(&self, text: &str) -> String {
        let explain = |word: &str| {
            let address = word
                .strip_prefix("0x")
                .and_then(|hex| u64::from_str_radix(hex, 16).ok());
            address
                .and_then(|address| self.name(address))
                .unwrap_or(word)
                .to_string()
        };
        text.split(' ').map(explain).collect::<Vec<_>>().join(" ")
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(|| format!("reading {}", path.display()))
}

fn parse<'a>(path: &Path, data: &'a [u8]) -> Result<object::File<'a>> {
    let bad = |error| Error::Guest(format!("{}: {error}", path.display()));
    object::File::parse(data).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_inside_functions_get_names() {
        let ranges = vec![(0x10, 0x20, "one".into()), (0x20, 0x28, "two".into())];
        let functions = Functions { ranges };
        let text = functions.explain("stack: 0x1f 0x20 0x28 0xzz 5");
        assert_eq!(text, "stack: one two 0x28 0xzz 5");
    }

    #[test]
    fn functions_are_found_by_name_if_only_one_is_meant() {
        let ranges = [(1, "a::x"), (2, "b::x"), (3, "b::y"), (4, "y")];
        let ranges = ranges.map(|(at, name)| (at, at + 1, name.into())).to_vec();
        let functions = Functions { ranges };
        assert_eq!(functions.address("b::x"), Some(2));
        assert_eq!(functions.address("y"), Some(4), "the whole name goes first");
        assert_eq!(functions.address("x"), None, "two are called so");
        assert_eq!(functions.address("z"), None);
    }
}
