//! The suspicions of this kernel, on their way to the recovery machine.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use cell::careful::{CarefulError, CarefulFailure};
use cell::{CellId, CellSet, Instant};
use recovery::{Hint, HintBox, HintReason};

use crate::own::own;

static BOX: HintBox = HintBox::new();

/// How many more alerts without a reason this cell raises (`sw.cry_wolf`).
static FALSE_ALARMS: AtomicU64 = AtomicU64::new(0);

/// When the next of them is due.
static NEXT_FALSE_ALARM: AtomicU64 = AtomicU64::new(0);

/// Between two of them: longer than it takes to find one unfounded, or all would count as one.
const FALSE_ALARM_SPAN: Duration = Duration::from_millis(20);

/// Raises a hint. Fit for every context but the panic path.
pub fn raise(suspect: CellId, reason: HintReason) {
    BOX.raise(suspect, reason);
}

/// Raises a hint about a careful reference that failed, if that speaks against the cell that was
/// read.
pub fn raise_about(error: &CarefulError) {
    if error.blames_cell() {
        let reason = match error.failure {
            CarefulFailure::BusError(_) => HintReason::BusError,
            _ => HintReason::CarefulCheck,
        };
        raise(error.cell, reason);
    }
}

/// The next hint that nobody took yet.
pub fn take() -> Option<Hint> {
    BOX.take()
}

/// Orders `count` alerts without a reason (`sw.cry_wolf`).
pub fn order_false_alarms(count: u64) {
    FALSE_ALARMS.store(count, Ordering::Relaxed);
}

/// The cell that this one is to accuse without a reason now, if that was ordered.
pub fn next_false_alarm(live: CellSet, now: Instant) -> Option<CellId> {
    let others = live.without(own().cell);
    let suspect = others.lowest()?;
    if now.0 < NEXT_FALSE_ALARM.load(Ordering::Relaxed) {
        return None;
    }
    NEXT_FALSE_ALARM.store((now + FALSE_ALARM_SPAN).0, Ordering::Relaxed);
    FALSE_ALARMS
        .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        })
        .ok()
        .map(|_| suspect)
}
