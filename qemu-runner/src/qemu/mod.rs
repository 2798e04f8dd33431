//! QEMU: finding it, starting it, and its control channels.
//!
//! | module | what it holds |
//! |---|---|
//! | [`install`] | finding QEMU, its version, installing it |
//! | [`command`] | a machine as a command line |
//! | [`machine`] | a machine under QEMU, with the ways into it |
//! | [`main_thread`] | its main thread, held where only counted instructions may move time |
//! | [`channels`] | the ways into a running machine |
//! | [`pace`] | the clock that a machine goes by |
//! | [`process`] | a running QEMU, which never outlives the runner |
//! | [`line`] | lines over a Unix socket, for the two line protocols |
//! | [`qmp`] | QMP: commands and events |
//! | [`qtest`] | qtest: accesses to the guest's memory bus |
//! | [`standstill`] | the machine waits for the runner at points of its own time |
//! | [`gdb`] | the gdb stub: CPUs frozen one by one |

pub mod channels;
pub mod command;
pub mod gdb;
pub mod install;
pub mod line;
pub mod machine;
pub mod main_thread;
pub mod pace;
pub mod process;
pub mod qmp;
pub mod qtest;
pub mod standstill;
