//! The paging back end: page tables only, for machines without virtualization.
//!
//! The cell kernel runs in ring 0 as on a bare machine. Its view of physical memory is a window
//! whose tables are the cell's nested table, in monitor memory that the window shows to nobody: a
//! stray store in the window takes a page fault. A hypercall is a call of the code in [`entry`],
//! which switches to the monitor's own tables.
//!
//! **Weaker than nested paging**, because the kernel is trusted with its own root, descriptor
//! tables and registers. Not stopped are: a kernel that loads another CR3 or rewrites its own upper
//! tables; ports, model-specific registers and reset; a triple fault, which resets the machine; a
//! CPU that loops with interrupts off (a kick is an ordinary interrupt here), which stays unfenced
//! until INIT restarts it, and for good if it is the boot CPU. Dirty bits are kept, for the
//! processor walks the same tables. The monitor sees no bus error; the kernel reports it.
//!
//! # Invariants
//! 1. In the monitor interrupts are off, except inside `entry::wait`.
//! 2. SYSENTER_ESP holds the address of the CPU's [`crate::monitor::PerCpu`], SYSENTER_EIP the
//!    monitor's root table.
//!
//! # References
//! AMD64 Architecture Programmer's Manual, volume 2, rev. 3.41, chapter 5.

mod back_end;
mod entry;

pub use back_end::{PagingArea, PagingBackEnd};
pub use entry::{host_interrupt, mapped_code};
