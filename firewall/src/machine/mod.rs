//! Where the monitor meets the processor: assembly, model-specific registers, MMIO.
//!
//! | module | island |
//! |---|---|
//! | [`cpu`] | single instructions |
//! | [`lapic`] | the local APIC |
//! | [`paging`] | the paging back end |
//! | [`svm`] | the NPT back end: AMD's Secure Virtual Machine |

pub mod cpu;
pub mod lapic;
pub mod paging;
pub mod svm;
