//! Where the monitor meets the processor: thin islands of assembly, model-specific registers and
//! MMIO.
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
