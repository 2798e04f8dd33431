//! Where the kernel meets the processor.
//!
//! | module | what it holds |
//! |---|---|
//! | [`interrupts`] | the interrupt flag, and what every interrupt does |
//! | [`per_cpu`] | one block per CPU, found through the GS base |
//! | [`gdt`] | segments, the task state segment and its interrupt stacks |
//! | [`stubs`] | the way in and out of every interrupt and exception |
//! | [`idt`] | which vector enters through which stub, on which stack |
//! | [`exceptions`] | bus errors, page faults, NMIs, and what ends the cell |
//! | [`lapic`] | the local APIC: reads direct, writes by hypercall |
//! | [`port`] | a port write that survives being denied |
//! | [`timer`] | the timer tick |
//! | [`secondary`] | starting the cell's other CPUs |

pub mod exceptions;
pub mod gdt;
pub mod idt;
pub mod interrupts;
pub mod lapic;
pub mod per_cpu;
pub mod port;
pub mod secondary;
pub mod stubs;
pub mod timer;
