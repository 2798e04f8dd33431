//! Bochs: finding it, starting it, and its debugger, by which everything is done to it.
//!
//! Bochs is slow and exact: its processors take turns on one thread, its time is counted in
//! instructions, and two runs are the same to the bit. It has what QEMU's translator lacks (VMX
//! with EPT), a second opinion on what it has (SVM), and a watch on every store.
//!
//! | module | what it holds |
//! |---|---|
//! | [`install`] | finding Bochs, its version, installing it |
//! | [`configuration`] | the machine that is asked for, as a configuration file |
//! | [`process`] | a running Bochs, which never outlives the runner |
//! | [`debugger`] | the dialogue with its debugger |
//! | [`memory`] | the guest's memory inside Bochs's own |
//! | [`machine`] | a machine under Bochs, with the ways into it |
//! | [`standstill`] | CPUs that are made to stand still |
//! | [`write_watch`] | an eye on stores that must not happen |
//! | [`exits`] | exits from the guest, in a trace of instructions |
//! | [`console`] | its serial port on the terminal |

pub mod configuration;
pub mod console;
pub mod debugger;
pub mod exits;
pub mod install;
pub mod machine;
pub mod memory;
pub mod process;
pub mod standstill;
pub mod write_watch;
