//! Where the parts of a cell's kernel lie in physical memory.
//!
//! A cell's copy of the image is found by looking for the image's own pages, so that the runner
//! needs to know nothing of the monitor's layout but one thing: the page tables begin where the
//! image ends. From there the tables are walked, and they say where the stacks are.
//!
//! # Invariants
//! 1. Every range that is given lies in the region of the cell.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use cell::address::FrameRange;
use cell::public::PUBLIC_SIZE;
use cell::{PAGE_SIZE, PhysicalAddress};
use object::{Object, ObjectSection};
use rand::Rng;

use super::host::Target;
use super::objects::find;
use super::plan::Area;
use crate::error::{Context, Error, Result};
use crate::guest::memory::GuestMemory;
use crate::guest::symbols::{Segment, segments};

/// Where physical memory appears in a kernel's address space.
const WINDOW: u64 = 0xffff_8000_0000_0000;
/// Bytes of physical memory that the window can show.
const WINDOW_BYTES: u64 = 1 << 46;
/// The entry of the topmost page table that maps the stacks.
const STACKS_ENTRY: u64 = 510;
/// Bits of a page table's entry: present, large page, the address.
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Levels of page tables.
const LEVELS: u32 = 4;
/// The heap keeps its bounds there.
const HEAP: &str = "kernel::memory::heap::HEAP";

/// A cell's copy of the kernel image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImagePlace {
    /// Its first physical address.
    pub physical: u64,
    /// The virtual address at which that appears.
    pub virtual_start: u64,
    /// Bytes, those beyond the file included.
    pub bytes: u64,
}

impl ImagePlace {
    /// Finds the copy of a cell.
    ///
    /// # Errors
    /// [`Error::Guest`] if it is not there.
    pub fn find(target: &Target<'_>, cell: usize) -> Result<Self> {
        let segments = segments(&target.images.kernel)?;
        find_image(target.memory, target.machine.regions[cell], &segments)
    }

    /// The physical address of a virtual one in the image.
    pub fn physical(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.virtual_start)?;
        (offset < self.bytes).then(|| self.physical + offset)
    }
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
    let place = ImagePlace::find(target, cell)?;
    let segments = segments(&target.images.kernel)?;
    let bytes = segments.first().map_or(0, |code| code.size);
    let address = (place.virtual_start + bytes).next_multiple_of(ALIGNMENT);
    Ok(CodeEnd {
        first: place.virtual_start,
        address,
        physical: place.physical + (address - place.virtual_start),
        room: address.next_multiple_of(PAGE_SIZE) - address,
    })
}

/// Ranges of physical memory, not empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranges(Vec<Range<u64>>);

impl Ranges {
    fn new(ranges: Vec<Range<u64>>, what: &str, cell: usize) -> Result<Self> {
        if ranges.iter().all(Range::is_empty) {
            let problem = format!("cell {cell} has no {what} that could be found");
            return Err(Error::Guest(problem));
        }
        Ok(Self(ranges))
    }

    /// Bytes of all.
    fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// One of their addresses, every one as likely.
    pub fn choose(&self, random: &mut impl Rng) -> u64 {
        let mut left = random.random_range(0..self.bytes());
        for range in &self.0 {
            let bytes = range.end - range.start;
            if left < bytes {
                return range.start + left;
            }
            left -= bytes;
        }
        self.0[0].start
    }

    /// Whether an address is in one of them.
    pub fn contains(&self, address: u64) -> bool {
        self.0.iter().any(|range| range.contains(&address))
    }
}

/// Where an area of a cell is.
///
/// # Errors
/// [`Error::Guest`] if there is no such thing in the cell now.
pub fn ranges(target: &Target<'_>, cell: usize, area: Area) -> Result<Ranges> {
    let region = target.machine.regions[cell];
    let found = match area {
        Area::Region => {
            let start = region.start.start().0;
            one(start..start + region.len() * PAGE_SIZE)
        }
        Area::Image => {
            let place = ImagePlace::find(target, cell)?;
            one(place.physical..place.physical + place.bytes)
        }
        Area::Text => sections(target, cell, &[".text"])?,
        Area::Rodata => sections(target, cell, &[".rodata", ".data.rel.ro", ".got"])?,
        Area::Data => sections(target, cell, &[".data"])?,
        Area::Bss => sections(target, cell, &[".bss"])?,
        Area::Heap => one(heap(target, cell)?),
        Area::Stack => pages(&walk(target, cell)?.stacks),
        Area::PageTables => pages(&walk(target, cell)?.tables),
    };
    Ranges::new(found, area.name(), cell)
}

fn one(range: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(range).collect()
}

/// The physical ranges of sections of the image.
fn sections(target: &Target<'_>, cell: usize, names: &[&str]) -> Result<Vec<Range<u64>>> {
    let place = ImagePlace::find(target, cell)?;
    let path = &target.images.kernel;
    let data = std::fs::read(path).context(|| format!("reading {}", path.display()))?;
    let bad = |error| Error::Guest(format!("{}: {error}", path.display()));
    let elf = object::File::parse(&*data).map_err(bad)?;
    let wanted = elf.sections().filter(|section| {
        let name = section.name().unwrap_or_default();
        names.contains(&name)
    });
    let range = |section: object::Section<'_, '_>| {
        let start = place.physical(section.address())?;
        Some(start..start + section.size())
    };
    Ok(wanted.filter_map(range).collect())
}

/// The heap of a cell, as its own words for it say: as many bytes from its bottom as are in use.
/// The allocator takes the first fit, so nearly all that is in use lies there; a bit that flips in
/// the rest could do no harm.
fn heap(target: &Target<'_>, cell: usize) -> Result<Range<u64>> {
    let place = ImagePlace::find(target, cell)?;
    let word = |field: &str| {
        let object = find(target.images, &format!("{HEAP}.{field}"), &mut |_| 0)?;
        let at = place.physical(object.address).unwrap_or_default();
        target.memory.read_u64(PhysicalAddress(at))
    };
    let bound = |field| word(field).map(|pointer| pointer.wrapping_sub(WINDOW));
    let (bottom, top, used) = (bound("bottom")?, bound("top")?, word("used")?);
    let inside = bottom < top
        && used > 0
        && target.machine.regions[cell].contains_bytes(PhysicalAddress(bottom), top - bottom);
    let missing = || Error::Guest(format!("cell {cell} has no heap yet"));
    let end = top.min(bottom.saturating_add(used));
    inside.then_some(bottom..end).ok_or_else(missing)
}

/// What the page tables of a cell's kernel show.
#[derive(Debug, Default)]
struct Walked {
    /// The frames of the tables themselves.
    tables: BTreeSet<u64>,
    /// The frames of the stacks.
    stacks: BTreeSet<u64>,
}

fn walk(target: &Target<'_>, cell: usize) -> Result<Walked> {
    let place = ImagePlace::find(target, cell)?;
    let root = (place.physical + place.bytes).next_multiple_of(PAGE_SIZE);
    walk_from(target.memory, target.machine.regions[cell], root)
}

fn walk_from(memory: &GuestMemory, region: FrameRange, root: u64) -> Result<Walked> {
    let mut walked = Walked::default();
    // Table, its level, whether it belongs to the stacks.
    let mut left = vec![(root, LEVELS, false)];
    while let Some((table, level, of_stacks)) = left.pop() {
        let is_own = region.contains_bytes(PhysicalAddress(table), PAGE_SIZE);
        if !is_own || !walked.tables.insert(table) {
            continue;
        }
        let mut page = [0; PAGE_SIZE as usize];
        memory.read(PhysicalAddress(table), &mut page)?;
        for (number, entry) in (0..).zip(page.chunks_exact(8)) {
            let entry = entry
                .first_chunk()
                .map_or(0, |bytes| u64::from_le_bytes(*bytes));
            if entry & PRESENT == 0 {
                continue;
            }
            let next = entry & ADDRESS;
            let of_stacks = of_stacks || (level == LEVELS && number == STACKS_ENTRY);
            if level > 1 && entry & LARGE == 0 {
                left.push((next, level - 1, of_stacks));
            } else if of_stacks && region.contains_bytes(PhysicalAddress(next), PAGE_SIZE) {
                walked.stacks.insert(next);
            }
        }
    }
    Ok(walked)
}

fn pages(frames: &BTreeSet<u64>) -> Vec<Range<u64>> {
    frames
        .iter()
        .map(|&start| start..start + PAGE_SIZE)
        .collect()
}

/// The virtual address at which a kernel sees a physical one in its window.
pub const fn in_window(physical: u64) -> u64 {
    WINDOW + (physical & (WINDOW_BYTES - 1))
}

/// So many pages that agree on where the image begins leave no doubt.
const PAGES_ENOUGH: usize = 16;

/// Looks for the pages of the image's first segment, which no kernel changes.
///
/// # Errors
/// [`Error::Guest`] if it is not there.
pub(crate) fn find_image(
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
            let start = frame.start().0.wrapping_sub(offset);
            let agreeing = starts.entry(start).or_default();
            *agreeing += 1;
            if *agreeing == PAGES_ENOUGH {
                break;
            }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::guest::memory::tests::memory;
    use cell::Frame;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

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
    fn tables_are_walked_and_show_the_stacks() {
        let memory = memory(16 << 20);
        let put = |table: u64, number: u64, entry: u64| {
            let at = PhysicalAddress(table + number * 8);
            memory.write_u64(at, entry).unwrap();
        };
        let [root, upper, directory, leaves] = [0x80_0000, 0x80_1000, 0x80_2000, 0x80_3000];
        put(root, STACKS_ENTRY, upper | PRESENT);
        put(upper, 0, directory | PRESENT);
        put(directory, 0, leaves | PRESENT);
        put(directory, 1, 0x90_0000 | PRESENT | LARGE);
        put(leaves, 1, 0xa0_0000 | PRESENT | 1 << 63);
        put(leaves, 2, 0x10_0000 | PRESENT);
        put(leaves, 3, 0xa0_2000);
        // A table that another cell could have, and one that leads back.
        put(root, 3, 0x10_0000 | PRESENT);
        put(root, 4, root | PRESENT);
        let walked = walk_from(&memory, REGION, root).unwrap();
        assert_eq!(
            walked.tables,
            BTreeSet::from([root, upper, directory, leaves])
        );
        assert_eq!(walked.stacks, BTreeSet::from([0x90_0000, 0xa0_0000]));
    }

    #[test]
    fn every_address_of_several_ranges_can_be_drawn() {
        let ranges = Ranges::new(vec![10..12, 20..20, 30..31], "test", 0).unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let drawn: BTreeSet<u64> = (0..100).map(|_| ranges.choose(&mut random)).collect();
        assert_eq!(drawn, BTreeSet::from([10, 11, 30]));
        assert!(ranges.contains(30) && !ranges.contains(12));
        assert!(Ranges::new(vec![], "test", 0).is_err());
    }
}
