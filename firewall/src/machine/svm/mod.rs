//! The NPT back end: AMD's Secure Virtual Machine with nested paging.
//!
//! What it stops: stores to, and loads from, memory that the nested table does not give (15.25);
//! every port, every model-specific register and every privileged virtualization instruction that
//! the maps do not free; reset by triple fault (`SHUTDOWN` exits). Interrupts go straight to the
//! cell.
//!
//! What it does **not** stop: a cell that never returns from `SMI`; microarchitectural side
//! channels; on QEMU's TCG an INIT from outside (it has no exit: the CPU simply stops, which the
//! other cells notice), and a machine check, which goes to the cell's own kernel.
//!
//! QEMU's TCG has no next-RIP save and no decode assists: the length of `VMMCALL` (3 bytes) is
//! known, and no other intercepted instruction is ever completed.
//!
//! # References
//! AMD64 Architecture Programmer's Manual (APM), volume 2, rev. 3.41, chapter 15.

mod back_end;
mod enter;
mod vmcb;

pub use back_end::{SvmArea, SvmBackEnd, host_nmi, is_supported};
