//! A watch on stores, which no back end of the firewall can mislead.
//!
//! The emulator stops at every store to what it watches, whatever let it through. From a fault on,
//! what the cell with the fault must not reach is watched: the monitor's code and constants, and
//! of every other cell the code of its kernel and the second half of its memory, which a short run
//! does not get to use. A store there is right if it is the home's own, or if the firewall's table
//! names the writer for that frame.
//!
//! # Not guaranteed
//! What the other cells use at the time is not watched: every store of theirs would stop the
//! machine. Stores of the monitor for a cell count as the cell's own.

use cell::address::{Frame, FrameRange};
use cell::{CellId, PAGE_SIZE, PhysicalAddress};

use crate::error::Result;
use crate::fault::host::Target;
use crate::fault::place::code_end;
use crate::guest::machine::MachineView;
use crate::guest::memory::GuestMemory;
use crate::guest::symbols::constant_part;
use crate::observation::{StrayStore, Watched};

/// Watches that the debugger has room for beside those for ticks.
const WATCHES_MAX: usize = 16;
/// Stray stores that are kept; the rest are counted.
const STRAYS_MAX: usize = 64;

/// A stretch of memory that is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// Its first byte.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
}

/// What is watched, and what was seen.
#[derive(Debug)]
pub struct WriteWatch {
    machine: MachineView,
    /// The cell of each CPU, by the identifier of its local APIC.
    owners: Vec<(u8, usize)>,
    stretches: Vec<Stretch>,
    /// What was seen.
    pub seen: Watched,
}

impl WriteWatch {
    /// Chooses what to watch while `cell` has a fault, beside `taken` watches.
    ///
    /// # Errors
    /// [`crate::error::Error::Guest`] if a kernel is not found in its cell.
    pub fn new(target: &Target<'_>, cell: usize, taken: usize) -> Result<Self> {
        let machine = target.machine.clone();
        let code = constant_part(&target.images.monitor)?;
        let mut stretches = vec![Stretch {
            start: code.start,
            length: code.end - code.start,
        }];
        for other in (0..machine.cells()).filter(|&other| other != cell) {
            let code = code_end(target, other)?;
            let length = code.address - code.first;
            stretches.push(Stretch {
                start: code.physical - length,
                length,
            });
            stretches.push(second_half(machine.regions[other]));
        }
        stretches.truncate(WATCHES_MAX.saturating_sub(taken));
        let mut owners = Vec::new();
        for cell in 0..machine.cells() {
            let cpus = machine.cpus_of(target.memory, cell)?;
            owners.extend(cpus.iter().map(|cpu| (cpu.apic_id, cell)));
        }
        let bytes = stretches.iter().map(|stretch| stretch.length).sum();
        let seen = Watched {
            stretches: stretches.len(),
            bytes,
            ..Watched::default()
        };
        Ok(Self {
            machine,
            owners,
            stretches,
            seen,
        })
    }

    /// What the debugger has to watch.
    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// Judges a store of a CPU, by its number, that stopped the machine.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn judge(&mut self, memory: &GuestMemory, cpu: usize, address: u64) -> Result<()> {
        let inside =
            |stretch: &Stretch| (stretch.start..stretch.start + stretch.length).contains(&address);
        if !self.stretches.iter().any(inside) {
            return Ok(());
        }
        let owner = self.owners.iter().find(|(id, _)| usize::from(*id) == cpu);
        let writer = owner.map(|&(_, cell)| cell);
        let frame = PhysicalAddress(address).frame();
        let home = |region: &FrameRange| region.contains(frame);
        let home = self.machine.regions.iter().position(home);
        let granted = self.machine.writers(memory, frame)?;
        let has_grant = |cell| CellId::new(cell).is_some_and(|cell| granted.contains(cell));
        match writer {
            Some(writer) if home == Some(writer) => self.seen.own += 1,
            Some(writer) if home.is_some() && has_grant(writer) => self.seen.granted += 1,
            _ => {
                self.seen.strays_count += 1;
                if self.seen.strays.len() < STRAYS_MAX {
                    self.seen.strays.push(StrayStore {
                        cpu,
                        cell: writer,
                        home,
                        address,
                    });
                }
            }
        }
        Ok(())
    }
}

fn second_half(region: FrameRange) -> Stretch {
    let half = region.len() / 2;
    let start = Frame(region.end.0 - half);
    Stretch {
        start: start.start().0,
        length: half * PAGE_SIZE,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::guest::machine::tests::synthetic;

    /// Two cells of two CPUs; the second half of cell 0's memory is watched, 12 to 16 MiB from the
    /// start of its region at 16 MiB, and the first MiB.
    fn watch() -> (GuestMemory, WriteWatch) {
        let (memory, base) = synthetic();
        let machine = MachineView::read(&memory, base).unwrap().unwrap();
        let code = Stretch {
            start: 0x10_0000,
            length: 0x1000,
        };
        let stretches = vec![code, second_half(machine.regions[0])];
        let watch = WriteWatch {
            machine,
            owners: vec![(0, 0), (1, 0), (2, 1), (3, 1)],
            stretches,
            seen: Watched::default(),
        };
        (memory, watch)
    }

    #[test]
    fn stores_of_the_home_are_right_and_those_of_others_are_not() {
        let (memory, mut watch) = watch();
        let free = watch.stretches[1].start + 0x2008;
        watch.judge(&memory, 1, free).unwrap();
        assert_eq!((watch.seen.own, watch.seen.strays_count), (1, 0));
        watch.judge(&memory, 2, free).unwrap();
        let stray = StrayStore {
            cpu: 2,
            cell: Some(1),
            home: Some(0),
            address: free,
        };
        assert_eq!(watch.seen.strays, [stray]);
    }

    #[test]
    fn nobody_may_change_the_monitor() {
        let (memory, mut watch) = watch();
        watch.judge(&memory, 0, 0x10_0010).unwrap();
        assert_eq!(watch.seen.strays_count, 1);
        assert_eq!(watch.seen.strays[0].home, None);
        watch.judge(&memory, 0, 0x20_0000).unwrap();
        assert_eq!(watch.seen.strays_count, 1, "not watched");
    }

    #[test]
    fn a_grant_makes_a_store_right() {
        let (memory, mut watch) = watch();
        let free = watch.stretches[1].start;
        let frame = PhysicalAddress(free).frame();
        watch.machine.firewall_table = PhysicalAddress(0x20_0000);
        let entry = PhysicalAddress(0x20_0000 + frame.0 * 8);
        memory.write_u64(entry, 1 << 1).unwrap();
        watch.judge(&memory, 3, free).unwrap();
        assert_eq!((watch.seen.granted, watch.seen.strays_count), (1, 0));
    }
}
