//! QEMU: finding it, starting it, and its control channels.
//!
//! | module | what it holds |
//! |---|---|
//! | [`install`] | finding QEMU, its version, installing it |
//! | [`command`] | the machine that is asked for, as a command line |
//! | [`machine`] | a machine under QEMU, with the ways into it |
//! | [`process`] | a running QEMU, which never outlives the runner |
//! | [`line`] | lines over a Unix socket, for the two line protocols |
//! | [`qmp`] | QMP: commands and events |
//! | [`qtest`] | qtest: accesses to the guest's memory bus |
//! | [`gdb`] | the gdb stub: CPUs frozen one by one |

pub mod command;
pub mod gdb;
pub mod install;
pub mod line;
pub mod machine;
pub mod process;
pub mod qmp;
pub mod qtest;
