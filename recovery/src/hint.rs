//! Hints: the sources of suspicion, and the box into which the kernel drops them.
//!
//! A hint only starts a probe. What the accuser thinks of the suspect counts as one opinion among
//! those of all live cells, because the accuser may be the sick one (Hive, SOSP'95, 4.3).
//!
//! # Invariants
//! 1. [`HintBox`] never blocks and never loses the *first* hint about a cell; later ones about the
//!    same cell that were not yet taken are dropped, because one probe answers them all.

use core::hash::{Hash, Hasher};
use core::sync::atomic::{AtomicU8, Ordering};

use cell::machine::EvidenceKind;
use cell::{CELLS_MAX, CellId};

/// Codes from here on stand for the monitor's evidence of kind `code - EVIDENCE_BASE`.
const EVIDENCE_BASE: u8 = 32;

/// Why somebody suspects a cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HintReason {
    /// A call to it timed out.
    RpcTimedOut,
    /// Reading its memory ended in a bus error.
    BusError,
    /// One of its clock words did not move.
    ClockStill,
    /// One of its clock words ran backward, or far faster than its ticks.
    ClockNonsense,
    /// A careful reference to it failed: tag, alignment, range, loop or value.
    CarefulCheck,
    /// A message from it failed validation.
    MessageInvalid,
    /// The monitor published evidence against it.
    Evidence(EvidenceKind),
    /// Raised by a cell about itself: one of its own CPUs does not tick.
    OwnCpuStalled,
    /// It did not reach a barrier.
    BarrierMissed,
    /// It was rebooted again and again and did not stay.
    ReintegrationFailed,
    /// It raised an alert again that nobody could confirm.
    CriedWolf,
    /// The pulse in its record stands still, though its clock words move.
    PulseStill,
}

impl HintReason {
    /// The reasons that are not evidence, by their code less one.
    const PLAIN: [Self; 11] = [
        Self::RpcTimedOut,
        Self::BusError,
        Self::ClockStill,
        Self::ClockNonsense,
        Self::CarefulCheck,
        Self::MessageInvalid,
        Self::OwnCpuStalled,
        Self::BarrierMissed,
        Self::ReintegrationFailed,
        Self::CriedWolf,
        Self::PulseStill,
    ];

    /// The number for it in records and traces; never 0.
    pub fn code(self) -> u8 {
        match self {
            Self::Evidence(kind) => EVIDENCE_BASE + kind as u8,
            plain => {
                1 + Self::PLAIN
                    .iter()
                    .position(|&other| other == plain)
                    .unwrap_or(0) as u8
            }
        }
    }

    /// Decodes a number that another cell may have written.
    pub fn from_code(code: u8) -> Option<Self> {
        if code <= EVIDENCE_BASE {
            return Self::PLAIN.get(usize::from(code).checked_sub(1)?).copied();
        }
        match EvidenceKind::from_raw(u32::from(code - EVIDENCE_BASE)) {
            EvidenceKind::None => None,
            kind => Some(Self::Evidence(kind)),
        }
    }

    /// The position in sets of reasons; all evidence counts as one.
    pub(crate) fn bit(self) -> u16 {
        1 << self.code().min(15)
    }

    /// Whether it settles the matter: the monitor saw the cell stop.
    pub const fn is_proof(self) -> bool {
        matches!(self, Self::Evidence(kind) if kind.is_fatal())
    }
}

impl Hash for HintReason {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.code().hash(state);
    }
}

/// A suspicion.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hint {
    /// About whom.
    pub suspect: CellId,
    /// Why.
    pub reason: HintReason,
}

/// Where every part of a kernel, on any CPU, drops its hints; one per kernel, in a static.
#[derive(Debug)]
pub struct HintBox {
    /// The code of the first untaken hint about each cell; 0 for none.
    codes: [AtomicU8; CELLS_MAX],
}

impl HintBox {
    /// An empty box.
    pub const fn new() -> Self {
        Self {
            codes: [const { AtomicU8::new(0) }; CELLS_MAX],
        }
    }

    /// Drops a hint; it is acted on at the next step.
    pub fn raise(&self, suspect: CellId, reason: HintReason) {
        let code = &self.codes[suspect.index()];
        // An older hint that was not yet taken stays: the probe that it starts answers this one
        // too.
        let _ = code.compare_exchange(0, reason.code(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Takes a hint out; `None` if there is none.
    pub fn take(&self) -> Option<Hint> {
        (0..CELLS_MAX).filter_map(CellId::new).find_map(|suspect| {
            let code = &self.codes[suspect.index()];
            if code.load(Ordering::Relaxed) == 0 {
                return None;
            }
            let reason = HintReason::from_code(code.swap(0, Ordering::Relaxed))?;
            Some(Hint { suspect, reason })
        })
    }
}

impl Default for HintBox {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a broken assumption")]
mod tests {
    use super::*;

    #[test]
    fn every_code_decodes_to_its_reason() {
        let reasons: Vec<_> = (0..=u8::MAX).filter_map(HintReason::from_code).collect();
        let kinds = EvidenceKind::MonitorFault as usize; // the last one
        assert_eq!(reasons.len(), HintReason::PLAIN.len() + kinds);
        for reason in reasons {
            assert_eq!(HintReason::from_code(reason.code()), Some(reason));
        }
    }

    #[test]
    fn the_first_hint_about_a_cell_is_kept() {
        let hints = HintBox::new();
        let suspect = CellId::new(3).unwrap();
        hints.raise(suspect, HintReason::RpcTimedOut);
        hints.raise(suspect, HintReason::BusError);
        assert_eq!(
            hints.take(),
            Some(Hint {
                suspect,
                reason: HintReason::RpcTimedOut
            })
        );
        assert_eq!(hints.take(), None);
    }
}
