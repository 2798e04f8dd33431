//! Where the monitor meets the processor: assembly, model-specific registers, MMIO.
//!
//! | module | island |
//! |---|---|
//! | [`cpu`] | single instructions |
//! | [`lapic`] | the local APIC |
//! | [`paging`] | the paging back end |
//! | [`svm`] | the NPT back end: AMD's Secure Virtual Machine |
//! | [`vmx`] | the EPT back end: Intel's Virtual Machine Extensions |
//! | [`run`] | what the two of them do alike: one life, exit by exit |
//! | [`permissions`] | what a cell may touch by itself: ports and model-specific registers |
//! | [`registers`] | the registers that the processor leaves to the monitor to switch |

pub mod cpu;
pub mod lapic;
pub mod paging;
pub(crate) mod permissions;
pub(crate) mod registers;
pub(crate) mod run;
pub mod svm;
pub mod vmx;
