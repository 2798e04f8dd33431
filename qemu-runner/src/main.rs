//! The command line of the runner.
//!
//! All of it is in the library, so that the on-target tests run the same code.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    qemu_runner::commands::main()
}
