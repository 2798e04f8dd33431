//! Writing pages that other cells granted.
//!
//! A store to another cell's page can be refused at any moment: the grant was revoked, or the home
//! suspects this cell and keeps it in quarantine until the cells have voted. The first is an error
//! of the caller's; the second passes.
//!
//! # Not guaranteed
//! That an error means that nothing was stored: the bytes before the refused one are.

use core::time::Duration;

use cell::{Instant, PhysicalAddress};
use firewall::hypercall::{BusError, BusErrorKind};

use crate::memory::{copy, window};
use crate::{clock, thread};

/// How long a quarantined writer waits before it tries again.
const RETRY: Duration = Duration::from_millis(1);

/// Why a store did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteError {
    /// This cell may not write there (any more).
    Denied(PhysicalAddress),
    /// The memory is cut off, or gone.
    Unreachable(PhysicalAddress),
    /// The home still keeps this cell in quarantine.
    Quarantined(PhysicalAddress),
}

impl From<BusError> for WriteError {
    fn from(error: BusError) -> Self {
        let address = PhysicalAddress(error.address);
        match copy::kind(error) {
            BusErrorKind::Quarantined => Self::Quarantined(address),
            BusErrorKind::Read => Self::Unreachable(address),
            BusErrorKind::Write | BusErrorKind::Port | BusErrorKind::Msr => Self::Denied(address),
        }
    }
}

/// Writes `bytes` at `to`, once. Fit for interrupt level.
///
/// # Errors
/// [`WriteError`].
///
/// # Safety
/// No Rust code of this cell holds a reference into the bytes written.
pub unsafe fn try_write(to: PhysicalAddress, bytes: &[u8]) -> Result<(), WriteError> {
    // SAFETY: `window::pointer` keeps the address in the window, and the caller vouches that nobody
    // holds a reference.
    unsafe { copy::store(window::pointer(to), bytes) }.map_err(WriteError::from)
}

/// Writes `bytes` at `to`; while the home keeps this cell in quarantine, sleeps and tries again
/// until `deadline`.
///
/// # Errors
/// [`WriteError`]; `Quarantined` only at the deadline.
///
/// # Safety
/// As for [`try_write`].
pub unsafe fn write(
    to: PhysicalAddress,
    bytes: &[u8],
    deadline: Instant,
) -> Result<(), WriteError> {
    loop {
        // SAFETY: the same contract.
        match unsafe { try_write(to, bytes) } {
            Err(WriteError::Quarantined(_)) if clock::now() < deadline => thread::sleep(RETRY),
            outcome => return outcome,
        }
    }
}

/// Reads `bytes.len()` bytes of another cell's page, once. Fit for interrupt level.
///
/// # Errors
/// [`WriteError::Unreachable`], or what else the monitor says.
pub fn read(from: PhysicalAddress, bytes: &mut [u8]) -> Result<(), WriteError> {
    // SAFETY: `window::pointer` keeps the address in the window.
    unsafe { copy::load(bytes, window::pointer(from)) }.map_err(WriteError::from)
}
