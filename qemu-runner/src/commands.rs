//! What each command does.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::{Cli, Command, ImageArguments, InjectArguments, MachineArguments, RunArguments};
use crate::error::{Ending, Error, Result};
use crate::experiment;
use crate::fault::catalogue::{CATALOGUE, Expectation};
use crate::fault::plan::Plan;
use crate::images::{self, Images};
use crate::latency::Latencies;
use crate::observation::Observation;
use crate::output::{Format, Progress, print_json, print_text, table};
use crate::perfetto::TraceFile;
use crate::qemu::command::{Machine, Mode, Serial};
use crate::qemu::install::{self, Accelerator};
use crate::qemu::process::{Keep, Launch, Qemu};
use crate::session::LastCell;
use crate::verdict::Verdict;
use crate::watch::Detail;
use crate::{bench, campaign, doctor, interrupt, report, timeline};

/// The whole program.
pub fn main() -> ExitCode {
    let (cli, format) = Cli::parse_words(std::env::args_os());
    let cli = match cli {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, format),
    };
    interrupt::install();
    match dispatch(cli, format) {
        Ok(ending) => ending.into(),
        Err(error) => {
            complain(&error, format);
            error.exit_code().into()
        }
    }
}

fn dispatch(cli: Cli, format: Format) -> Result<Ending> {
    match cli.command {
        None => run(&cli.run, format),
        Some(Command::Run(arguments)) => run(&arguments, format),
        Some(Command::Inject(arguments)) if arguments.fault == "list" => list(format),
        Some(Command::Inject(arguments)) => inject(&arguments, format),
        Some(Command::Campaign(command)) => campaign::command(&command, format),
        Some(Command::Replay(arguments)) => campaign::replay::command(&arguments, format),
        Some(Command::Bench(arguments)) => bench::command(&arguments, format),
        Some(Command::Doctor(arguments)) => doctor::command(arguments, format),
        Some(Command::Build(arguments)) => build(&arguments, format),
    }
}

/// A command line that is not understood, or a question about it.
fn refuse(error: &clap::Error, format: Format) -> ExitCode {
    if format == Format::Text || !error.use_stderr() {
        error.exit();
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let error = Error::Usage(text.trim_end().into());
    complain(&error, format);
    error.exit_code().into()
}

fn complain(error: &Error, format: Format) {
    if format == Format::Json {
        let (kind, message) = (error.kind(), error.to_string());
        let object = json!({ "schema": "hive-error/1", "kind": kind, "message": message });
        // If stdout is gone there is nobody left to tell.
        let _ = print_json(&object);
    }
    eprintln!("error: {error}");
}

/// The images, built unless a directory was named.
///
/// # Errors
/// [`Error::Build`].
pub fn images(arguments: &ImageArguments, progress: &mut Progress) -> Result<Images> {
    if let Some(directory) = &arguments.images {
        return images::locate(directory);
    }
    progress.step("building the monitor and the cell kernel");
    let images = images::build(&arguments.options());
    progress.clear();
    images
}

/// Everything that a boot needs: the machine checked, QEMU found or installed, the images built.
///
/// # Errors
/// [`Error::Usage`], [`Error::Qemu`], [`Error::Build`].
pub fn launch(
    arguments: &MachineArguments,
    serial: Serial,
    progress: &mut Progress,
) -> Result<Launch> {
    let (machine, keep) = (arguments.machine(), arguments.keep());
    prepare(machine, &arguments.images, serial, keep, progress)
}

/// As [`launch`], for a machine that does not come from the command line.
///
/// # Errors
/// [`Error::Usage`], [`Error::Qemu`], [`Error::Build`].
pub fn prepare(
    machine: Machine,
    arguments: &ImageArguments,
    serial: Serial,
    keep: Keep,
    progress: &mut Progress,
) -> Result<Launch> {
    machine.check()?;
    Ok(Launch {
        machine,
        installation: install::ensure()?,
        images: images(arguments, progress)?,
        accelerator: Accelerator::choose(),
        mode: Mode::Realtime,
        serial,
        keep,
    })
}

/// What ran, for `--json`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Setup {
    cells: usize,
    cpus: usize,
    memory: u64,
    boot_parameters: String,
    accelerator: String,
    qemu: String,
}

impl Setup {
    /// Describes a launch.
    pub fn of(launch: &Launch) -> Self {
        let Machine {
            cells,
            cpus,
            memory,
            ..
        } = launch.machine;
        Self {
            cells,
            cpus,
            memory,
            boot_parameters: launch.machine.boot_line(),
            accelerator: match launch.mode {
                Mode::Realtime => launch.accelerator.name().into(),
                Mode::Deterministic => "tcg, deterministic".into(),
            },
            qemu: launch.installation.version.to_string(),
        }
    }

    /// How many cells.
    pub const fn cells(&self) -> usize {
        self.cells
    }

    /// In one line.
    pub fn text(&self) -> String {
        let Self {
            cells,
            cpus,
            boot_parameters,
            accelerator,
            qemu,
            ..
        } = self;
        format!("{cells} cells, {cpus} CPUs ({boot_parameters}), QEMU {qemu}, {accelerator}")
    }
}

fn run(arguments: &RunArguments, format: Format) -> Result<Ending> {
    let serial = match format {
        Format::Text => Serial::Console,
        Format::Json => Serial::Log,
    };
    let launch = launch(&arguments.machine, serial, &mut Progress::new())?;
    let setup = Setup::of(&launch);
    let terminal = TerminalState::save();
    let (mut qemu, qmp) = Qemu::start(&launch)?;
    // The user may want the one connection.
    drop(qmp);
    eprintln!("{}", setup.text());
    eprintln!("QMP and qtest sockets in {}", qemu.directory().display());
    if format == Format::Text {
        eprintln!("Ctrl-A X leaves, Ctrl-A C switches to QEMU's monitor and back");
    }
    let mut last_cell = LastCell::new(&launch.images)?;
    let started = Instant::now();
    let over = |started: Instant| {
        arguments
            .r#for
            .is_some_and(|limit| started.elapsed() >= limit)
    };
    let status = loop {
        interrupt::check()?;
        if let Some(status) = qemu.ended()? {
            break Some(status);
        }
        if over(started) {
            break None;
        }
        if last_cell.is_gone(qemu.memory()) {
            eprintln!("\nno cell is left; {}", way_out(format));
        }
        thread::sleep(Duration::from_millis(20));
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

fn inject(arguments: &InjectArguments, format: Format) -> Result<Ending> {
    let plan = arguments.plan().map_err(Error::Usage)?;
    plan.check(arguments.machine.cells)?;
    arguments.machine.machine().check()?;
    plan.check_cpus(arguments.machine.cells, arguments.machine.cpus)?;
    if arguments.deterministic {
        plan.check_deterministic()?;
    }
    let trace = arguments.trace.as_deref().map(TraceFile::open);
    let trace = trace.transpose()?;
    let mut progress = Progress::new();
    let launch = Launch {
        mode: arguments.mode(),
        ..launch(&arguments.machine, Serial::Log, &mut progress)?
    };
    let detail = if trace.is_some() {
        Detail::All
    } else {
        Detail::Events
    };
    let observed = experiment::run(&launch, &plan, detail, &mut progress)?;
    progress.clear();
    judge(&launch, &plan, &observed, trace, format)
}

/// Shows a run that was carried out, and whether it held.
///
/// # Errors
/// [`Error::Host`] if the result cannot be printed.
pub fn judge(
    launch: &Launch,
    plan: &Plan,
    run: &Observation,
    trace: Option<TraceFile>,
    format: Format,
) -> Result<Ending> {
    let (verdict, latencies) = (Verdict::of(run), Latencies::of(run));
    let (setup, lines) = (Setup::of(launch), timeline::lines(run));
    match format {
        Format::Json => print_json(&report::json(
            &setup, plan, run, &verdict, &latencies, &lines,
        ))?,
        Format::Text => print_text(&report::text(
            &setup, plan, run, &verdict, &latencies, &lines,
        ))?,
    }
    // Last, so that the report is not lost with it, and said on stderr only: stdout has its one
    // object.
    let written = trace.map_or(Ok(()), |trace| trace.write(run));
    if let Err(error) = written {
        eprintln!("error: {error}");
        return Ok(Ending::Unable);
    }
    Ok(if verdict.held {
        Ending::Held
    } else {
        Ending::Violated
    })
}

fn list(format: Format) -> Result<Ending> {
    if format == Format::Json {
        let faults: Vec<serde_json::Value> = CATALOGUE
            .iter()
            .map(|entry| {
                json!({
                    "fault": entry.fault, "summary": entry.summary, "channel": entry.channel,
                    "expectation": entry.expectation,
                    "argument": entry.argument.map(|(meaning, default)| {
                        json!({ "meaning": meaning, "default": default })
                    }),
                })
            })
            .collect();
        print_json(&json!({ "schema": "hive-faults/1", "faults": faults }))?;
        return Ok(Ending::Held);
    }
    let mut rows = vec![["fault", "cell", "what it does", "how it is injected"].map(String::from)];
    rows.extend(CATALOGUE.iter().map(|entry| {
        let expectation = match entry.expectation {
            Expectation::Dies => "dies",
            Expectation::MayDie => "may die",
            Expectation::Lives => "lives",
        };
        let argument = entry
            .argument
            .map_or_else(String::new, |(meaning, default)| {
                format!(" (--argument: {meaning}, {default})")
            });
        let summary = format!("{}{argument}", entry.summary);
        [
            entry.fault.name().into(),
            expectation.into(),
            summary,
            entry.channel.into(),
        ]
    }));
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    print_text(&table(&rows))?;
    Ok(Ending::Held)
}

fn build(arguments: &ImageArguments, format: Format) -> Result<Ending> {
    let images = images(arguments, &mut Progress::new())?;
    let (monitor, kernel) = (images.monitor.display(), images.kernel.display());
    match format {
        Format::Json => print_json(&json!({
            "schema": "hive-build/1",
            "monitor": monitor.to_string(), "kernel": kernel.to_string(),
        }))?,
        Format::Text => print_text(&format!("monitor: {monitor}\nkernel:  {kernel}\n"))?,
    }
    Ok(Ending::Held)
}
