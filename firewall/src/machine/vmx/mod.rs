//! The EPT back end: Intel's Virtual Machine Extensions with extended page tables.
//!
//! | module | what it does |
//! |---|---|
//! | `capabilities` | which control bits this processor wants, allows, or makes impossible; pure |
//! | `fields` | the fields of a control structure, and the instructions that touch it |
//! | `detection` | reads the capability registers |
//! | `set_up` | the control structure of a new life |
//! | `host` | the descriptors and stacks to which an exit and an NMI lead |
//! | `enter` | into the guest and back, NMIs, waiting |
//! | `operation` | VMX operation of one CPU, for the time of a life |
//! | `guest` | a virtual CPU: enters, sees to small exits, carries verdicts out |
//! | `exit` | what an exit means; pure |
//! | `cpuid` | what a cell is told of the processor; pure |
//! | `back_end` | the back end as the monitor sees it |
//!
//! What it stops: stores to, and loads from, memory that the nested table does not give (28.2);
//! every port, every model-specific register and every instruction of the monitor's that the maps
//! do not free; a machine check and a triple fault of the cell; the end of long mode in a cell
//! (only 64-bit guests are run, so that no "unrestricted guest" is needed); INIT, which exits
//! (25.2). Interrupts go straight to the cell.
//!
//! What it does **not** stop: a cell that never returns from `SMI`; microarchitectural side
//! channels; a cell that makes its own caches cold (`WBINVD`, CR0.CD). Page-modification logging is
//! not used (why: `set_up`), nor is the preemption timer: kicks are NMIs, which no cell can mask.
//!
//! # NMIs
//! There is no global interrupt flag: an NMI reaches the monitor at any of its instructions. The
//! handler, on a stack of its own, only notes it, and turns a CPU back that is about to enter the
//! guest or to halt. A noted NMI is an NMI exit at the next attempt to enter. So a kick is never
//! lost between the last look at it and the entry. See `enter`.
//!
//! # INIT
//! VMX root operation blocks INIT; a guest that takes it exits, and nothing is reset (23.8, 25.2).
//! Above the seam, INIT is what brings a lost CPU back. So a CPU is in VMX operation only as long
//! as a life lasts: when an INIT exits, the life is over, and `VMXOFF` follows. Where the exit
//! consumed the INIT (hardware, Bochs 3.0), the CPU then goes on and parks; where it stayed pending
//! (Bochs 2.7), `VMXOFF` unblocks it, and the CPU waits for its start-up. Both are what
//! `monitor::life` expects of a CPU that it sent an INIT. A parked CPU, being outside VMX
//! operation, takes an INIT as it would without a monitor. A CPU that the monitor stops for good
//! leaves VMX operation first (`cpu::halt_forever`), so that INIT can bring it back.
//!
//! # References
//! Section numbers: Intel 64 and IA-32 Architectures Software Developer's Manual (SDM), volume 3,
//! order number 325384-070 (May 2019).

mod back_end;
mod capabilities;
mod cpuid;
mod detection;
mod enter;
mod exit;
mod fields;
mod guest;
mod host;
mod operation;
mod set_up;

pub use back_end::{VmxArea, VmxBackEnd, VmxPage};
pub use capabilities::Refusal;
pub use detection::is_supported;
