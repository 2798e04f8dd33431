//! `run`: a machine with its console on the terminal.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bochs;
use crate::bochs::console::Console;
use crate::bochs::machine::BochsMachine;
use crate::bochs::process::Bochs;
use crate::cli::RunArguments;
use crate::commands::{Setup, launch};
use crate::error::{Ending, Error, Result};
use crate::interrupt;
use crate::launch::{Launch, Mode, Program, Serial};
use crate::output::{Format, Progress, is_unread, print_json};
use crate::qemu::install::{Accelerator, Installation};
use crate::qemu::process::Qemu;
use crate::session::LastCell;

/// Between two looks at a QEMU.
const LOOK: Duration = Duration::from_millis(20);
/// How long Bochs runs before it is stopped for a look.
const SLICE: Duration = Duration::from_millis(500);

/// Boots a machine and stays until the user leaves.
///
/// # Errors
/// Whatever keeps it from running.
pub fn command(arguments: &RunArguments, format: Format) -> Result<Ending> {
    let serial = match format {
        Format::Text => Serial::Console,
        Format::Json => Serial::Log,
    };
    let launch = launch(
        &arguments.machine,
        Mode::Realtime,
        serial,
        &mut Progress::new(),
    )?;
    match &launch.program {
        Program::Qemu {
            installation,
            accelerator,
            mode,
        } => {
            let how = (*accelerator, *mode);
            qemu(&launch, installation, how, arguments, format)
        }
        Program::Bochs(installation) => bochs(&launch, installation, arguments, format),
    }
}

fn qemu(
    launch: &Launch,
    installation: &Installation,
    how: (Accelerator, Mode),
    arguments: &RunArguments,
    format: Format,
) -> Result<Ending> {
    let setup = Setup::of(launch);
    let terminal = TerminalState::save();
    let (mut qemu, qmp) = Qemu::start(launch, installation, how)?;
    // The user may want the one connection.
    drop(qmp);
    eprintln!("{}", setup.text());
    eprintln!("QMP and qtest sockets in {}", qemu.directory().display());
    if format == Format::Text {
        eprintln!("Ctrl-A X leaves, Ctrl-A C switches to QEMU's monitor and back");
    }
    let mut last_cell = LastCell::new(&launch.images)?;
    let started = Instant::now();
    let status = loop {
        interrupt::check()?;
        if let Some(status) = qemu.ended()? {
            break Some(status);
        }
        if is_over(arguments, started) || nobody_is_left() {
            break None;
        }
        if last_cell.is_gone(qemu.memory()) {
            eprintln!("\nno cell is left; {}", way_out(format));
        }
        thread::sleep(LOOK);
    };
    qemu.kill();
    drop(terminal);
    if format == Format::Json {
        let (seconds, serial) = (started.elapsed().as_secs_f64(), qemu.serial_text());
        let code = status.and_then(|status| status.code());
        print_json(&json!({
            "schema": "hive-run/1", "setup": setup, "seconds": seconds,
            "exit_code": code, "serial": serial,
        }))?;
    }
    match status {
        Some(status) if !status.success() => Err(Error::Qemu(format!("ended with {status}"))),
        _ => Ok(Ending::Held),
    }
}

fn is_over(arguments: &RunArguments, started: Instant) -> bool {
    let limit = arguments.r#for;
    limit.is_some_and(|limit| started.elapsed() >= limit)
}

/// Whether nobody reads what is said: the other end of the pipe was closed.
fn nobody_is_left() -> bool {
    let is_unread = is_unread();
    if is_unread {
        eprintln!("nobody reads the output any more");
    }
    is_unread
}

/// Under Bochs; its machine stands still now and then for a look at it.
fn bochs(
    launch: &Launch,
    installation: &bochs::install::Installation,
    arguments: &RunArguments,
    format: Format,
) -> Result<Ending> {
    let setup = Setup::of(launch);
    let mut console = match format {
        Format::Text => Some(Console::new()?),
        Format::Json => None,
    };
    let serial = console
        .as_ref()
        .map_or_else(|| bochs::machine::SERIAL.into(), Console::serial);
    let started = Instant::now();
    let bochs = Bochs::start(launch, installation, &serial)?;
    let mut machine = BochsMachine::watched(bochs, launch)?;
    eprintln!("{}", setup.text());
    if let Some(console) = &mut console {
        eprintln!("firmware and GRUB take a while; Ctrl-A X leaves");
        console.begin()?;
    }
    let mut last_cell = LastCell::new(&launch.images)?;
    let down = loop {
        let leaves = console.as_ref().is_some_and(Console::leaves);
        if leaves || is_over(arguments, started) || nobody_is_left() {
            break None;
        }
        machine.step(SLICE)?;
        if let Some(how) = machine.bochs().down() {
            break Some(how);
        }
        if last_cell.is_gone(&machine.bochs().memory()) {
            eprint!("\r\nno cell is left; {}\r\n", way_out(format));
        }
    };
    drop(console);
    if format == Format::Json {
        let (seconds, serial) = (
            started.elapsed().as_secs_f64(),
            machine.bochs().serial_text(),
        );
        print_json(&json!({
            "schema": "hive-run/1", "setup": setup, "seconds": seconds, "serial": serial,
        }))?;
    }
    match down {
        Some(how) => Err(Error::Guest(format!("the machine went down: {how}"))),
        None => Ok(Ending::Held),
    }
}

/// How a user leaves a machine that does not end by itself.
const fn way_out(format: Format) -> &'static str {
    match format {
        Format::Text => "Ctrl-A X leaves",
        Format::Json => "Ctrl-C leaves",
    }
}

/// Puts the terminal back as it was, for a QEMU that was killed before it could.
struct TerminalState(Option<String>);

impl TerminalState {
    fn save() -> Self {
        Self(stty("-g"))
    }
}

impl Drop for TerminalState {
    fn drop(&mut self) {
        if let Some(state) = &self.0 {
            stty(state);
        }
    }
}

fn stty(argument: &str) -> Option<String> {
    use std::io::IsTerminal;
    if !std::io::stdin().is_terminal() {
        return None;
    }
    let mut command = std::process::Command::new("stty");
    let output = command
        .arg(argument)
        .stdin(std::process::Stdio::inherit())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}
