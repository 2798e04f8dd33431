//! The cell's own public area: what it tells the others.
//!
//! # Invariants
//! 1. The tag is stored last at the start of a life and removed first at its end; in between the
//!    header is valid.
//! 2. The clock word of a CPU that does not take part in this life is 0; the others start at 1.

use core::sync::atomic::Ordering;

use cell::public::{HEADER_TAG, PublicState};

use crate::cpu::timer;
use crate::own::own;

/// Starts this life's header. Boot CPU, before any other is started.
pub fn begin() {
    let own = own();
    let header = own.header();
    header.tag.store(0, Ordering::SeqCst);
    for word in &header.clock_words {
        word.store(0, Ordering::Relaxed);
    }
    header
        .incarnation
        .store(own.incarnation.0, Ordering::Relaxed);
    header
        .cell
        .store(own.cell.index() as u32, Ordering::Relaxed);
    header
        .state
        .store(PublicState::Booting as u32, Ordering::Relaxed);
    header.cpus_up.store(0, Ordering::Relaxed);
    header.asleep.store(1, Ordering::Relaxed);
    header
        .ticks_per_second
        .store(timer::ticks_per_second(), Ordering::Relaxed);
    header.tag.store(HEADER_TAG, Ordering::SeqCst);
}

/// A CPU takes part from now on: its clock word counts.
pub fn cpu_up(index: usize) {
    let header = own().header();
    header.clock_words[index].store(1, Ordering::Release);
    header.cpus_up.fetch_max(index as u32 + 1, Ordering::AcqRel);
}

/// The cell answers calls from now on.
pub fn serving() {
    own()
        .header()
        .state
        .store(PublicState::Serving as u32, Ordering::Release);
}

/// This life is over.
pub fn panicked() {
    let header = own().header();
    header.tag.store(0, Ordering::SeqCst);
    header
        .state
        .store(PublicState::Panicked as u32, Ordering::SeqCst);
}
