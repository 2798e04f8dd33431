//! The operation that borrows frames: fill, check, keep for a while, check again, return.

use cell::CellId;

use crate::fate::{Mismatch, Source};
use crate::lane::PAGE_WORDS;
use crate::pattern::{Pattern, differing};
use crate::services::Services;
use crate::worker::{Failure, unless_differing};

/// Words copied at a time; the buffer is on the worker's stack.
const CHUNK_WORDS: usize = 64;

/// Frames that a worker has borrowed and filled.
#[derive(Debug)]
pub(crate) struct HeldLoan<L> {
    loan: L,
    home: CellId,
    count: usize,
    pattern: Pattern,
    round: u64,
}

/// Borrows `count` frames from `home` and fills them. Frames that could not be filled are returned.
pub(crate) fn hold_loan<S: Services>(
    home: CellId,
    count: usize,
    pattern: Pattern,
    services: &mut S,
) -> Result<HeldLoan<S::Loan>, Failure> {
    let loan = services.borrow(home, count)?;
    let held = HeldLoan {
        loan,
        home,
        count,
        pattern,
        round: 0,
    };
    match held.fill(services).and_then(|()| held.check(services)) {
        Ok(()) => Ok(held),
        Err(failure) => Err(held.give_up(failure, services)),
    }
}

impl<L> HeldLoan<L> {
    /// Checks the frames once more, and returns them, or rewrites them to keep them.
    pub(crate) fn step<S: Services<Loan = L>>(
        mut self,
        keep: bool,
        services: &mut S,
    ) -> Result<Option<Self>, Failure> {
        if let Err(failure) = self.check(services) {
            return Err(self.give_up(failure, services));
        }
        if !keep {
            services.give_back(self.loan)?;
            return Ok(None);
        }
        self.round += 1;
        match self.fill(services).and_then(|()| self.check(services)) {
            Ok(()) => Ok(Some(self)),
            Err(failure) => Err(self.give_up(failure, services)),
        }
    }

    fn fill<S: Services<Loan = L>>(&self, services: &mut S) -> Result<(), Failure> {
        for (frame, first) in self.chunks() {
            let words = self.content(frame, first);
            services.write_frame(&self.loan, frame, first, &words)?;
        }
        Ok(())
    }

    fn check<S: Services<Loan = L>>(&self, services: &mut S) -> Result<(), Failure> {
        let mut bytes = 0;
        for (frame, first) in self.chunks() {
            let mut words = [0; CHUNK_WORDS];
            services.read_frame(&self.loan, frame, first, &mut words)?;
            bytes += differing(&words, &self.content(frame, first));
        }
        unless_differing(bytes, Source::Cell(self.home))
    }

    /// Returns frames after `failure`, which is what the operation ends with whatever comes of the
    /// return.
    fn give_up<S: Services<Loan = L>>(self, failure: Failure, services: &mut S) -> Failure {
        match services.give_back(self.loan) {
            Err(error) if !matches!(failure, Failure::Mismatch(Mismatch { .. })) => error.into(),
            _ => failure,
        }
    }

    fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + use<L> {
        let firsts = || (0..PAGE_WORDS).step_by(CHUNK_WORDS);
        (0..self.count).flat_map(move |frame| firsts().map(move |first| (frame, first)))
    }

    fn content(&self, frame: usize, first: usize) -> [u64; CHUNK_WORDS] {
        self.pattern.of(self.round).of(frame as u64).words(first)
    }
}
