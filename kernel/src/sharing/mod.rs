//! Memory between cells: who holds which page or frame of whom, and what a death does to it.
//!
//! Pages are shared on the logical level (the *data home* exports, the *client* imports and
//! releases), frames on the physical level (the *memory home* lends, the *borrower* returns); Hive,
//! SOSP'95, section 5. All of it is tables and decisions without memory accesses, so that it is
//! tested on the host; the kernel brings the hypercalls ([`Firewall`]), the calls between cells,
//! and the lock around [`Tables`].
//!
//! | module | side | what it settles |
//! |---|---|---|
//! | [`exports`] | data home | which page is exported to which cell; grants, revokes, generations |
//! | [`imports`] | client | what was imported from whom, at which generation |
//! | [`loans`] | memory home | which frame is lent to whom, and when it may be used again |
//! | [`borrowings`] | borrower | which frames are whose; keeps kernel data out of them |
//! | [`discard`] | all | the step of a recovery that drops what a dead cell could have damaged |
//! | [`gate`] | all | stops accesses to other cells' memory before barrier 1 |
//! | [`claim`] | all | what a peer says, checked |
//! | [`firewall`] | home | the hypercalls that the tables need |
//! | [`lives`] | all | which life of each cell may ask, and which is over |
//! | [`service`] | home | requests as they arrive, and the replies to them |
//! | [`error`] | all | what went wrong, and whose fault it was |

pub mod borrowings;
pub mod claim;
pub mod discard;
pub mod error;
pub mod exports;
pub mod firewall;
pub mod gate;
pub mod imports;
pub mod lives;
pub mod loans;
pub mod service;
#[cfg(test)]
mod trials;

pub use borrowings::{Borrowed, BorrowedFrame, Borrowings};
pub use claim::{Generation, PageIndex, Peer};
pub use discard::{RecoveryReport, Tables};
pub use error::{Blame, SharingError};
pub use exports::{Export, Exports};
pub use firewall::{Firewall, Refusal};
pub use gate::{Gate, Pass};
pub use imports::{Ask, Begin, Import, Imports, ReleaseRequest, Use};
pub use lives::Lives;
pub use loans::{LOAN_FRAMES_MAX, Loans};
