//! Hints, agreement, barriers, discard and reintegration: what happens when a cell fails.
//!
//! One state machine per cell, [`Recovery`], stepped at every timer tick and doorbell. It reaches
//! the world only through [`Surroundings`], so that the model checker runs the code that the kernel
//! runs. It holds no lock, no heap and no unsafe code.
//!
//! ```text
//!  clock words, records,
//!  kernel, evidence ───► hint ──► probe ──► flooding ──► decide ──► vote ──► seal (the monitor)
//!                          │                                                   │
//!                     quarantine        unchanged: a false alarm, work never paused
//!                                                                   smaller:  hold work
//!                                                                              │
//!  reintegrated ◄── reboot by the master ◄── resume ◄── barrier 2 ◄── discard ◄── barrier 1
//! ```
//!
//! | module | what it settles |
//! |---|---|
//! | [`timing`] | how long to wait, in time and in own ticks |
//! | [`hint`] | the sources of suspicion, and the box into which the kernel drops hints |
//! | [`clock_monitor`] | which clocks stand still, run backward or run too fast |
//! | [`pulse_monitor`] | in which cells no threads run |
//! | `motion` | whether a clock or a pulse moves |
//! | [`opinion`] | what a cell testifies in agreement |
//! | [`record`] | the published record: layout, copying, validation |
//! | [`flooding`] | rounds in which all cells come to hold the same opinions |
//! | [`decide`] | the pure function from opinions to a proposed live set |
//! | [`strike`] | who cried wolf |
//! | [`agreement`] | probe, flooding and vote of one attempt |
//! | [`watch`] | what becomes a hint, and what is held back |
//! | [`barrier`] | the recovery after a seal: the double barrier |
//! | [`discard`] | which frames are discarded, as a pure function |
//! | [`reintegration`] | reboot of expelled cells by the recovery master |
//! | [`patience`] | how long to wait on a host that is busy |
//! | [`machine`] | the driver: one step |
//! | [`surroundings`] | what the kernel has to provide |

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod agreement;
pub mod barrier;
pub mod clock_monitor;
pub mod decide;
pub mod discard;
pub mod flooding;
pub mod hint;
pub mod machine;
mod motion;
pub mod opinion;
pub mod patience;
pub mod pulse_monitor;
pub mod record;
pub mod reintegration;
pub mod strike;
pub mod surroundings;
pub mod timing;
pub mod watch;

pub use discard::{DiscardCounts, FrameFacts, Verdict};
pub use hint::{Hint, HintBox, HintReason};
pub use machine::{CellRecovery, Pace, Recovery, Start};
pub use patience::Patience;
pub use record::{CellRecordCopy, Part, RecordCopy, RecordError, RecoveryRecord};
pub use surroundings::{ReadFailure, RebootAnswer, Surroundings, VoteAnswer};
pub use timing::Timing;
