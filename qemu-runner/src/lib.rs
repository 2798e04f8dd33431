//! The host side: builds, boots, injects faults, measures, reports.
//!
//! The `qemu-runner` binary is a command line over this library; the on-target tests use it
//! directly. What the runner knows of the guest it reads from the file that backs the guest's
//! memory, by the layouts of the `cell` crate. Serial text is for people and is never parsed.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cli`], [`commands`] | the command line, and what each command does |
//! | [`error`], [`interrupt`], [`output`] | exit codes, Ctrl-C, progress and JSON |
//! | [`images`], [`iso`] | building the monitor and the cell kernel; a bootable ISO of them |
//! | [`packages`], [`bounded`] | programs of the host: installed, and run with a limit |
//! | [`machine`], [`launch`] | the machine that is asked for, and what to start |
//! | [`emulator`] | what runs a machine, as everything above sees it |
//! | [`qemu`], [`bochs`] | finding, installing, starting and controlling each of the two |
//! | [`guest`] | the guest's records, read from its memory |
//! | [`fault`] | the catalogue of faults and how each is injected |
//! | [`run`] | a machine with its console on the terminal |
//! | [`session`], [`pace`], [`watch`] | a machine that boots, the clock it goes by, a watch on it |
//! | [`experiment`], [`observation`] | one run: boot, work, inject, follow to the end |
//! | [`verdict`], [`latency`] | what the run showed |
//! | [`report`], [`timeline`], [`perfetto`] | the run for people, for programs, and for Perfetto |
//! | [`campaign`] | many runs drawn from a seed, and what they show together |
//! | [`bench`] | the table of costs |
//! | [`doctor`] | what of QEMU and of this host works |

#![forbid(unsafe_code)]

pub mod bench;
pub mod bochs;
pub mod bounded;
pub mod campaign;
pub mod cli;
pub mod commands;
pub mod doctor;
pub mod emulator;
pub mod error;
pub mod experiment;
pub mod fault;
pub mod guest;
pub mod images;
pub mod interrupt;
pub mod iso;
pub mod latency;
pub mod launch;
pub mod machine;
pub mod observation;
pub mod output;
pub mod pace;
pub mod packages;
pub mod perfetto;
pub mod qemu;
pub mod report;
pub mod run;
pub mod session;
pub mod timeline;
pub mod units;
pub mod verdict;
pub mod watch;
