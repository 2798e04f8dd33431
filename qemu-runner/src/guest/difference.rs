//! How all memory differs from that of another run.
//!
//! The other run is the control: the same machine to the same moment, without the fault. Nobody
//! need know what the memory holds; whose it is says what a difference means.
//!
//! | whose | a difference means |
//! |---|---|
//! | the struck cell's | the fault left traces there |
//! | another cell's, in a stretch that it wrote | it had to do with the fault, if only in time |
//! | another cell's, in a stretch that it never wrote | somebody else wrote there |
//! | the monitor's | it had to do with the fault |
//! | nobody's | somebody wrote there who must not |
//!
//! # Not guaranteed
//! What is foreign in a stretch that its owner wrote too is not seen here. Frames that were ever
//! granted lie in such stretches: a cell writes what it grants. Behind page tables nobody knows who
//! wrote where, and only what is nobody's is judged; with `firewall=off` nothing is foreign.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use cell::machine::BackEnd;
use cell::{CellSet, Frame, PAGE_SIZE};
use serde::{Deserialize, Serialize};

use super::machine::MachineView;
use super::memory::{GuestMemory, is_zero};
use super::written::written;
use crate::error::Result;
use crate::output::counted;

/// Where a CPU that was reset saves its place when an NMI comes: its stack begins at 0, in the mode
/// that processors start in, so these are the last six bytes of the first 64 KiB. QEMU wakes a CPU
/// that waits to be started in that way; no cell runs there.
const RESET_STACK: Range<u64> = 0xfffa..0x1_0000;
/// A frame of nothing.
const ZERO: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];

/// All memory at the end of a run, and whose it is.
#[derive(Debug)]
pub struct Snapshot {
    /// Frames that are not all zero.
    frames: BTreeMap<Frame, Box<[u8]>>,
    owners: Owners,
}

/// Whose memory is whose, and who wrote where.
#[derive(Debug)]
struct Owners {
    machine: MachineView,
    /// Of the cells that lived through the run with nothing injected: what they wrote.
    written: BTreeMap<usize, Vec<Range<u64>>>,
}

/// Who owns memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// A cell, by number.
    Cell(usize),
    /// The monitor.
    Monitor,
    /// Nobody: the firmware's, and what is left over.
    Nobody,
}

/// How memory differs.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Difference {
    /// Bytes that differ in the memory of each cell in which any do.
    pub cells: BTreeMap<usize, u64>,
    /// Bytes that differ in the monitor's memory. It carries faults of memory out, so some do.
    pub monitor: u64,
    /// Bytes in which every difference would be foreign: of cells that lived through the run with
    /// nothing injected, and never wrote there.
    pub unwritten: u64,
    /// What nobody who may write there wrote.
    pub foreign: Vec<Foreign>,
}

/// Memory that differs though nobody wrote it who may.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Foreign {
    /// Whose it is.
    pub owner: Owner,
    /// How many bytes.
    pub bytes: u64,
    /// The physical address of the first.
    pub first: u64,
}

impl Foreign {
    /// The cell, if it is one's.
    pub const fn cell(&self) -> Option<usize> {
        match self.owner {
            Owner::Cell(cell) => Some(cell),
            Owner::Monitor | Owner::Nobody => None,
        }
    }

    /// As a sentence.
    pub fn text(&self) -> String {
        let Self {
            owner,
            bytes,
            first,
        } = self;
        let whose = match owner {
            Owner::Cell(cell) => format!("cell {cell}'s memory, where it never wrote,"),
            Owner::Monitor => "the monitor's memory".into(),
            Owner::Nobody => "memory that is nobody's".into(),
        };
        format!(
            "{} of {whose} not as in the control, from {first:#x} on",
            counted(*bytes, "byte")
        )
    }
}

impl Difference {
    /// Whether the memory of every cell is the same, and what is nobody's.
    pub fn is_none(&self) -> bool {
        self.cells.is_empty() && self.foreign.is_empty()
    }

    /// The cells other than `targets` in whose memory bytes differ.
    pub fn others(&self, targets: CellSet) -> BTreeSet<usize> {
        let is_target = |cell: usize| targets.iter().any(|target| target.index() == cell);
        let cells = self.cells.keys().copied();
        cells.filter(|&cell| !is_target(cell)).collect()
    }

    /// In words.
    pub fn text(&self) -> String {
        let cells = self.cells.iter();
        let mut parts: Vec<String> = cells
            .map(|(cell, bytes)| format!("{bytes} of cell {cell}"))
            .collect();
        if self.monitor > 0 {
            let bytes = self.monitor;
            parts.push(format!("{bytes} of the monitor (which carries faults out)"));
        }
        let what = if parts.is_empty() {
            "none".into()
        } else {
            parts.join(", ")
        };
        let foreign: u64 = self.foreign.iter().map(|one| one.bytes).sum();
        let seen = match (self.unwritten >> 20, foreign) {
            (0, 0) => "who wrote what is not seen behind this firewall".into(),
            (mib, 0) => format!("no foreign store in {mib} MiB that their cells never wrote"),
            (mib, bytes) => {
                let bytes = counted(bytes, "byte");
                format!("{bytes} by foreign stores, {mib} MiB were never written by their cells")
            }
        };
        format!("bytes that are not as in the control, without the fault: {what}; {seen}")
    }

    fn add(&mut self, owner: Owner, bytes: u64, first: u64, is_foreign: bool) {
        match owner {
            Owner::Cell(cell) => *self.cells.entry(cell).or_default() += bytes,
            Owner::Monitor => self.monitor += bytes,
            Owner::Nobody => {}
        }
        if !is_foreign {
            return;
        }
        match self.foreign.iter_mut().find(|one| one.owner == owner) {
            Some(one) => one.bytes += bytes,
            None => self.foreign.push(Foreign {
                owner,
                bytes,
                first,
            }),
        }
    }
}

impl Snapshot {
    /// Keeps all memory of a machine that stands still. `untouched` are the cells that lived
    /// through the run with nothing injected.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn take(memory: &GuestMemory, machine: &MachineView, untouched: CellSet) -> Result<Self> {
        let mut frames = BTreeMap::new();
        memory.each_frame(|frame, content| {
            if !is_zero(content) {
                frames.insert(frame, content.into());
            }
        })?;
        // Only NPT shows all stores: without it a cell also stores by tables of its own.
        let is_seen = machine.back_end == BackEnd::Npt;
        let cells = untouched.iter().filter(|_| is_seen);
        let written: Result<_> = cells
            .map(|cell| {
                let cell = cell.index();
                Ok((cell, written(memory, machine, cell)?))
            })
            .collect();
        let machine = machine.clone();
        let written = written?;
        Ok(Self {
            frames,
            owners: Owners { machine, written },
        })
    }

    /// How what was kept differs from the memory of the control.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn beside(&self, control: &GuestMemory) -> Result<Difference> {
        let mut difference = Difference {
            unwritten: self.owners.unwritten(),
            ..Difference::default()
        };
        control.each_frame(|frame, there| {
            let here = self.frames.get(&frame).map_or(&ZERO[..], |frame| frame);
            let [here, there] = [here, there].map(|content| judged(frame, content));
            if here == there {
                return;
            }
            let differs = |(one, other): (&u8, &u8)| one != other;
            let bytes = here.iter().zip(there).filter(|&(a, b)| differs((a, b)));
            let offset = here.iter().zip(there).position(differs).unwrap_or(0) as u64;
            let (owner, is_foreign) = self.owners.judge(frame);
            let first = frame.start().0 + offset;
            difference.add(owner, bytes.count() as u64, first, is_foreign);
        })?;
        Ok(difference)
    }
}

/// What of a frame is compared.
fn judged(frame: Frame, content: &[u8]) -> &[u8] {
    let start = frame.start().0;
    if RESET_STACK.contains(&(start + PAGE_SIZE - 1)) {
        &content[..(RESET_STACK.start - start) as usize]
    } else {
        content
    }
}

impl Owners {
    /// How much memory of untouched cells they never wrote.
    fn unwritten(&self) -> u64 {
        let of = |(&cell, stretches): (&usize, &Vec<Range<u64>>)| {
            let region = self.machine.regions[cell];
            let own = region.start.start().0..region.end.start().0;
            let inside = |one: &Range<u64>| {
                let (start, end) = (one.start.max(own.start), one.end.min(own.end));
                end.saturating_sub(start)
            };
            let wrote: u64 = stretches.iter().map(inside).sum();
            (own.end - own.start).saturating_sub(wrote)
        };
        self.written.iter().map(of).sum()
    }

    /// Whose a frame is, and whether a difference there is foreign.
    fn judge(&self, frame: Frame) -> (Owner, bool) {
        let mut regions = self.machine.regions.iter();
        if let Some(cell) = regions.position(|region| region.contains(frame)) {
            let address = frame.start().0;
            let wrote = |stretches: &Vec<Range<u64>>| {
                stretches.iter().any(|stretch| stretch.contains(&address))
            };
            let is_foreign = self.written.get(&cell).is_some_and(|own| !wrote(own));
            return (Owner::Cell(cell), is_foreign);
        }
        if self.machine.monitor.contains(frame) {
            return (Owner::Monitor, false);
        }
        (Owner::Nobody, self.machine.back_end != BackEnd::Off)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::guest::machine::tests::synthetic;
    use cell::{CellId, PhysicalAddress};

    const MIB: u64 = 1 << 20;
    /// A root, and three levels below it, in the monitor's memory.
    const ROOT: u64 = 0x20_0000;

    /// The machine of [`synthetic`], in which cell 1 wrote the first 2 MiB of its 8.
    fn machine() -> (GuestMemory, MachineView) {
        let (memory, base) = synthetic();
        let put = |at: u64, value: u64| memory.write_u64(PhysicalAddress(at), value).unwrap();
        put(ROOT, ROOT + 0x1001);
        put(ROOT + 0x1000, ROOT + 0x2001);
        // Present, large; the first of them written.
        put(ROOT + 0x2000 + 12 * 8, (24 * MIB) | 0xc1);
        put(ROOT + 0x2000 + 13 * 8, (26 * MIB) | 0x81);
        let view = MachineView::read(&memory, base).unwrap().unwrap();
        view.set_nested_root(&memory, 1, PhysicalAddress(ROOT));
        (memory, view)
    }

    /// The run's memory, in which `change` was made, beside that of a control.
    fn difference(change: impl Fn(&GuestMemory)) -> Difference {
        let ((run, view), (control, _)) = (machine(), machine());
        change(&run);
        let untouched = CellSet::only(CellId::new(1).unwrap());
        let snapshot = Snapshot::take(&run, &view, untouched).unwrap();
        snapshot.beside(&control).unwrap()
    }

    fn byte_at(address: u64) -> impl Fn(&GuestMemory) {
        move |memory| memory.write(PhysicalAddress(address), &[1]).unwrap()
    }

    #[test]
    fn equal_memories_do_not_differ() {
        let found = difference(|_| ());
        assert!(found.is_none());
        assert_eq!((found.monitor, found.unwritten), (0, 6 * MIB));
    }

    #[test]
    fn a_difference_is_foreign_where_its_cell_never_wrote() {
        let target = difference(byte_at(17 * MIB));
        assert_eq!((target.cells[&0], target.foreign.len()), (1, 0));
        let own = difference(byte_at(25 * MIB));
        assert_eq!((own.cells[&1], own.foreign.len()), (1, 0));
        let foreign = difference(|memory| {
            byte_at(26 * MIB + 5)(memory);
            byte_at(31 * MIB)(memory);
        });
        assert_eq!(foreign.cells[&1], 2);
        let seen = Foreign {
            owner: Owner::Cell(1),
            bytes: 2,
            first: 26 * MIB + 5,
        };
        assert_eq!(foreign.foreign, [seen]);
        assert_eq!(
            foreign.others(CellSet::only(CellId::new(0).unwrap())),
            BTreeSet::from([1])
        );
    }

    #[test]
    fn what_is_nobodys_must_not_change_and_the_monitors_may() {
        let nobodys = difference(byte_at(40 * MIB));
        assert_eq!(nobodys.foreign[0].owner, Owner::Nobody);
        assert!(!nobodys.is_none());
        let monitors = difference(byte_at(ROOT + 0x3000));
        assert_eq!((monitors.monitor, monitors.is_none()), (1, true));
    }

    #[test]
    fn what_a_reset_cpu_saves_is_no_difference_and_what_lies_before_is() {
        assert!(difference(byte_at(0xfffa)).is_none());
        assert!(difference(byte_at(0xffff)).is_none());
        assert_eq!(difference(byte_at(0xfff9)).foreign[0].first, 0xfff9);
        assert_eq!(difference(byte_at(0x1_0000)).foreign[0].first, 0x1_0000);
    }

    #[test]
    fn a_byte_that_became_zero_differs_too() {
        let ((run, view), (control, _)) = (machine(), machine());
        byte_at(16 * MIB)(&control);
        let snapshot = Snapshot::take(&run, &view, CellSet::EMPTY).unwrap();
        assert_eq!(snapshot.beside(&control).unwrap().cells[&0], 1);
    }
}
