//! What the EPT back end keeps for the processor, spoilt from outside.
//!
//! That is the nested table and the control structures of a cell. No kernel can cause what is
//! caused here, so that nothing but such a test shows what the monitor makes of it: evidence of its
//! own kind, the end of that cell's life, and nothing for the others.
//!
//! # References
//! SDM 325384-070, 28.2.3.1 (EPT misconfigurations), 26.3.1.5 and 26.7 (a link pointer that ends an
//! entry), tables 28-3 and 28-6. The control structure is found by what it holds: its layout is the
//! processor's own.

use std::time::Duration;

use cell::address::PAGE_SIZE;
use cell::machine::EvidenceKind;
use cell::{Frame, FrameRange, PhysicalAddress};
use qemu_runner::fault::place::code_end;
use qemu_runner::guest::machine::CellStatus;
use qemu_runner::output::Progress;
use qemu_runner::session::{Session, is_serving};

use crate::harness::{launch_on, take_turn};
use crate::platform::Platform;

/// The cell that is struck.
const VICTIM: usize = 2;
/// How long it may take until it lives again, and the time between two looks at it.
const LIMIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);

/// An entry that gives ordinary memory with all rights, without its address; a large page; what the
/// processor marks.
const OWN: u64 = 0b111 | 6 << 3;
const LARGE: u64 = 1 << 7;
const MARKS: u64 = 0b11 << 8;
/// The right to load.
const LOADS: u64 = 1 << 0;
const LARGE_PAGE: u64 = 2 << 20;

/// The revision of Bochs's control structures, with which each begins, and the pointer to another
/// one where there is none.
const REVISION: u32 = 0x2b;
const NO_LINK: u64 = u64::MAX;
/// A pointer that no entry accepts: it is not of a page.
const BAD_LINK: u64 = 1;

/// Takes the right to load, but not the one to store, from what holds the code of a cell's kernel.
///
/// # Panics
/// If the cell's life does not end with evidence against the monitor, or another's does.
pub fn run_with_an_unusable_table() {
    strike(EvidenceKind::MonitorFault, |session| {
        let code = code_end(&session.target(), VICTIM)
            .expect("the kernel is found")
            .physical;
        let leaves = [
            code & !(LARGE_PAGE - 1) | OWN | LARGE,
            code & !(PAGE_SIZE - 1) | OWN,
        ];
        let is_leaf = |word: u64| leaves.contains(&(word & !MARKS));
        let mut found = Vec::new();
        for (address, page) in monitor_pages(session) {
            let words = page.chunks_exact(8).zip((address..).step_by(8));
            found.extend(words.filter_map(|(word, at)| {
                let word = u64::from_le_bytes(*word.first_chunk()?);
                is_leaf(word).then_some((at, word & !LOADS))
            }));
        }
        assert_eq!(found.len(), 1, "one table has the code with all rights");
        found
    });
}

/// Spoils the control structures of a cell, so that the processor refuses the next entry.
///
/// # Panics
/// If the cell's life does not end with evidence of that, or another's does.
pub fn run_with_an_unusable_guest() {
    strike(EvidenceKind::EntryRefused, |session| {
        let own = session.machine.regions[VICTIM];
        let mut found = Vec::new();
        for (address, page) in monitor_pages(session) {
            // Bochs keeps fields of eight bytes at multiples of four.
            let fields = || page.windows(8).zip(address..).step_by(4);
            let word = |bytes: &[u8]| bytes.first_chunk().map(|it| u64::from_le_bytes(*it));
            let is_root = |word: u64| {
                word.is_multiple_of(PAGE_SIZE) && own.contains(PhysicalAddress(word).frame())
            };
            let is_of_victim = page.starts_with(&REVISION.to_le_bytes())
                && fields().any(|(bytes, _)| word(bytes).is_some_and(is_root));
            let links = fields().filter(|(bytes, _)| word(bytes) == Some(NO_LINK));
            found.extend(links.filter(|_| is_of_victim).map(|(_, at)| (at, BAD_LINK)));
        }
        assert_eq!(
            found.len(),
            2,
            "each CPU of the cell has a structure with a link pointer"
        );
        found
    });
}

/// Every page that is no cell's, with its address.
fn monitor_pages(session: &Session) -> impl Iterator<Item = (u64, Vec<u8>)> {
    let frames = FrameRange {
        start: Frame(0),
        end: Frame(session.memory.len() / PAGE_SIZE),
    };
    let is_monitor = |frame: &Frame| {
        let mut regions = session.machine.regions.iter();
        !regions.any(|region| region.contains(*frame))
    };
    frames.iter().filter(is_monitor).map(|frame| {
        let mut page = vec![0; PAGE_SIZE as usize];
        let read = session.memory.read(frame.start(), &mut page);
        read.expect("the guest's memory can be read");
        (frame.start().0, page)
    })
}

/// Stores the words that `choose` names, and follows the machine until the cell lives again.
fn strike(expected: EvidenceKind, choose: impl FnOnce(&Session) -> Vec<(u64, u64)>) {
    let _turn = take_turn();
    let platform = Platform::EptBochs;
    let launch = launch_on(platform.program(), platform.ordinary_machine());
    let mut session = Session::boot(&launch, &mut Progress::silent()).expect("every cell serves");
    for (address, word) in choose(&session) {
        let stored = session.memory.write_u64(PhysicalAddress(address), word);
        stored.expect("the guest's memory can be written");
    }
    let until = session.emulator.now() + LIMIT;
    let mut seen = EvidenceKind::None;
    while session.emulator.now() < until {
        session.pass(LOOK).expect("Bochs goes on");
        let now = status(&session, VICTIM);
        if now.evidence == expected {
            seen = now.evidence;
        }
        let serves = is_serving(&session.memory, &session.machine, VICTIM);
        if now.incarnation == 2 && serves.expect("it can be looked at") {
            break;
        }
    }
    assert_eq!(seen, expected, "evidence about cell {VICTIM}");
    for cell in 0..session.machine.cells() {
        let life = if cell == VICTIM { 2 } else { 1 };
        assert_eq!(
            status(&session, cell).incarnation,
            life,
            "life of cell {cell}"
        );
    }
}

fn status(session: &Session, cell: usize) -> CellStatus {
    let status = session.machine.cell(&session.memory, cell);
    status.expect("the record can be read")
}
