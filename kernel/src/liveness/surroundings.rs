//! What the state machine of recovery sees of the machine, and how it acts on it.
//!
//! Called at interrupt level, under the lock of the machine: nothing here waits.

use cell::careful::CarefulFailure;
use cell::machine::{CellState, Evidence};
use cell::parameters::Discard;
use cell::public::RECOVERY_OFFSET;
use cell::standing::CpuState;
use cell::trace::Event;
use cell::{CELLS_MAX, CellId, CellSet, CpuId, Epoch, Incarnation, Instant};
use recovery::{
    DiscardCounts, Hint, Part, ReadFailure, RebootAnswer, RecordCopy, RecordError, RecoveryRecord,
    Surroundings, VoteAnswer,
};

use super::agent;
use crate::hypercall::{self, HypercallError};
use crate::memory::{careful, window};
use crate::own::own;
use crate::sharing::Peer;
use crate::{calls, clock, hints, pages, panic, trace};

/// This kernel, as the state machine sees it.
#[derive(Debug)]
pub struct KernelSurroundings;

fn read_failure(failure: CarefulFailure) -> ReadFailure {
    match failure {
        CarefulFailure::BusError(_) => ReadFailure::BusError,
        _ => ReadFailure::CheckFailed,
    }
}

impl Surroundings<CELLS_MAX> for KernelSurroundings {
    fn now(&self) -> Instant {
        clock::now()
    }

    fn membership(&self) -> (Epoch, CellSet) {
        own().machine.membership.current()
    }

    fn sealed(&self, epoch: Epoch) -> Option<CellSet> {
        own().machine.membership.sealed(epoch)
    }

    fn incarnation(&self, cell: CellId) -> Incarnation {
        own().machine.cell(cell).incarnation()
    }

    fn cell_state(&self, cell: CellId) -> CellState {
        own().machine.cell(cell).state()
    }

    fn evidence(&self, cell: CellId) -> Option<(u64, Evidence)> {
        own().machine.cell(cell).evidence()
    }

    fn clock_words(
        &mut self,
        cell: CellId,
        show: &mut dyn FnMut(CpuId, u64),
    ) -> Result<(), ReadFailure> {
        let machine = own().machine;
        let reader = careful::reader_of_current(cell);
        for (index, cpu) in machine.cpus_of(cell).enumerate() {
            let word = reader
                .clock_word(index)
                .map_err(|error| read_failure(error.failure))?;
            // A CPU that does not take part in this life has a clock word of 0.
            if machine.cpu(cpu).standing.state() == CpuState::Running && word != 0 {
                show(cpu, word);
            }
        }
        Ok(())
    }

    fn read_record(
        &mut self,
        cell: CellId,
        part: Part,
        into: &mut RecordCopy<CELLS_MAX>,
    ) -> Result<(), RecordError> {
        let reader = careful::reader_of_current(cell);
        let record = reader.public(RECOVERY_OFFSET);
        into.read(part, |first, words| {
            let from = record.plus(first as u64 * size_of::<u64>() as u64);
            reader
                .copy(from, words)
                .map_err(|error| read_failure(error.failure))
        })
    }

    fn progress(&mut self) -> u64 {
        agent::pulse_count()
    }

    fn take_hint(&mut self) -> Option<Hint> {
        hints::take()
    }

    fn publish(&mut self, record: &RecordCopy<CELLS_MAX>) {
        // SAFETY: the record is a page of the own public area, mapped for as long as the cell
        // lives, and made of atomics that any bit pattern fits.
        let place = unsafe { &*window::pointer::<RecoveryRecord>(own().public(RECOVERY_OFFSET)) };
        place.store(record);
    }

    fn doorbell(&mut self, cells: CellSet) {
        for cell in cells.iter() {
            // Whoever cannot be rung steps at its next tick.
            let _ = hypercall::doorbell(cell);
        }
    }

    fn vote(&mut self, epoch: Epoch, proposal: CellSet) -> VoteAnswer {
        match hypercall::vote(epoch, proposal) {
            Ok(_) => VoteAnswer::Sealed,
            Err(HypercallError::Busy) => VoteAnswer::Missing,
            Err(_) => VoteAnswer::Refused,
        }
    }

    fn withdraw_vote(&mut self, epoch: Epoch) {
        let _ = hypercall::vote(epoch, CellSet::EMPTY);
    }

    fn quarantine(&mut self, suspect: CellId) {
        let _ = hypercall::quarantine(suspect);
    }

    fn unquarantine(&mut self, cell: CellId) {
        let _ = hypercall::unquarantine(cell);
    }

    fn hold_work(&mut self) {
        pages::GATE.close();
    }

    fn resume_work(&mut self) {
        pages::GATE.open();
    }

    fn discard(&mut self, dead: CellSet, policy: Discard) -> Option<DiscardCounts> {
        let nobody = Peer {
            cell: own().cell,
            incarnation: Incarnation(0),
        };
        let mut lives = [nobody; CELLS_MAX];
        let mut count = 0;
        for cell in dead.iter() {
            let incarnation = self.incarnation(cell);
            lives[count] = Peer { cell, incarnation };
            count += 1;
        }
        let report = pages::discard(dead, &lives[..count], policy)?;
        Some(DiscardCounts {
            writable: report.pages.writable + report.frames_recalled,
            written: report.pages.written,
            discarded: report.pages.discarded,
        })
    }

    fn is_drained(&mut self, dead: CellId) -> bool {
        hypercall::drained(dead).is_ok()
    }

    fn abandon_frames(&mut self, dead: CellId) {
        // The tables keep what waits for the fence out of use until the monitor says that it holds.
        log::warn!("the fence around cell {dead} does not hold; its frames stay out of use");
    }

    fn reboot(&mut self, cell: CellId, ended: Incarnation) -> RebootAnswer {
        match hypercall::reboot(cell, ended) {
            Ok(()) | Err(HypercallError::Stale) => RebootAnswer::Asked,
            Err(_) => RebootAnswer::Busy,
        }
    }

    fn admit(&mut self, cell: CellId, incarnation: Incarnation) {
        calls::rings::forget(cell);
        calls::rings::admit(cell, incarnation);
    }

    fn stop_self(&mut self) {
        panic::voted_out();
    }

    fn trace(&mut self, event: Event, arguments: [u64; 2]) {
        trace::record(event, arguments[0], arguments[1]);
    }
}
