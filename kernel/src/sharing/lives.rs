//! Which life of each cell may ask for shared memory, and which lives are over.
//!
//! # Invariants
//! 1. For each cell, at most one life is admitted at a time; the next one only after
//!    [`Lives::depart`] of the one before.
//! 2. A life that departed is never admitted again.

use cell::{CELLS_MAX, CellId, Incarnation};

use super::claim::Peer;
use super::error::SharingError;

/// The newest life of every cell that a table has dealt with, and whether it is over.
#[derive(Debug)]
pub struct Lives {
    newest: [Incarnation; CELLS_MAX],
    departed: [Incarnation; CELLS_MAX],
}

impl Lives {
    /// No cell has asked for anything.
    pub const fn new() -> Self {
        Self {
            newest: [Incarnation(0); CELLS_MAX],
            departed: [Incarnation(0); CELLS_MAX],
        }
    }

    /// Admits a request in the name of `peer`.
    ///
    /// # Errors
    /// `StaleLife` if that life is over; `OldLifeHolds` if the life before has not departed yet.
    pub fn admit(&mut self, peer: Peer) -> Result<(), SharingError> {
        let newest = &mut self.newest[peer.cell.index()];
        let departed = self.departed[peer.cell.index()];
        if peer.incarnation <= departed || peer.incarnation < *newest {
            return Err(SharingError::StaleLife);
        }
        if peer.incarnation > *newest && *newest > departed {
            return Err(SharingError::OldLifeHolds);
        }
        *newest = peer.incarnation;
        Ok(())
    }

    /// Admits a request *to* `home`: as [`Self::admit`], but a life that is over is the home's
    /// loss, not its fault.
    ///
    /// # Errors
    /// `PeerGone` or `OldLifeHolds`.
    pub fn admit_home(&mut self, home: Peer) -> Result<(), SharingError> {
        self.admit(home).map_err(|error| match error {
            SharingError::StaleLife => SharingError::PeerGone(home.cell),
            other => other,
        })
    }

    /// Ends the life `peer`, and every one before it.
    pub fn depart(&mut self, peer: Peer) {
        let departed = &mut self.departed[peer.cell.index()];
        *departed = (*departed).max(peer.incarnation);
    }

    /// Whether the life `peer` is over.
    pub const fn is_over(&self, peer: Peer) -> bool {
        peer.incarnation.0 <= self.departed[peer.cell.index()].0
    }

    /// The newest life of `cell` that was admitted, if it is not over.
    pub fn current(&self, cell: CellId) -> Option<Incarnation> {
        let newest = self.newest[cell.index()];
        (newest > self.departed[cell.index()]).then_some(newest)
    }
}

impl Default for Lives {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(number: u32) -> Peer {
        Peer {
            cell: CellId::new(3).expect("below the limit"),
            incarnation: Incarnation(number),
        }
    }

    #[test]
    fn a_new_life_waits_for_the_departure_of_the_old_one() {
        let mut lives = Lives::new();
        assert_eq!(lives.admit(life(1)), Ok(()));
        assert_eq!(lives.admit(life(2)), Err(SharingError::OldLifeHolds));
        lives.depart(life(1));
        assert_eq!(lives.admit(life(1)), Err(SharingError::StaleLife));
        assert_eq!(lives.admit(life(2)), Ok(()));
        assert_eq!(lives.current(life(2).cell), Some(Incarnation(2)));
    }

    #[test]
    fn a_life_that_never_asked_can_depart_too() {
        let mut lives = Lives::new();
        lives.depart(life(1));
        assert_eq!(lives.admit(life(1)), Err(SharingError::StaleLife));
        lives.depart(life(1));
        assert!(lives.is_over(life(1)) && !lives.is_over(life(2)));
    }

    #[test]
    fn life_0_never_ran() {
        assert_eq!(Lives::new().admit(life(0)), Err(SharingError::StaleLife));
    }
}
