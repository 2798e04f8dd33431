//! What each command does.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::{
    Cli, Command, EmulatorArgument, ImageArguments, InjectArguments, IsoArguments, MachineArguments,
};
use crate::error::{Ending, Error, Result};
use crate::fault::catalogue::{CATALOGUE, Expectation};
use crate::fault::names;
use crate::fault::plan::Plan;
use crate::images::{self, Images};
use crate::latency::Latencies;
use crate::launch::{Keep, Launch, Mode, Program, Serial};
use crate::machine::Machine;
use crate::observation::Observation;
use crate::output::{Format, Progress, counted, print_json, print_text, table};
use crate::perfetto::TraceFile;
use crate::qemu::install::{self, Accelerator};
use crate::verdict::Verdict;
use crate::watch::Detail;
use crate::{bench, bochs, campaign, doctor, interrupt, iso, report, run, timeline};

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
        None => run::command(&cli.run, format),
        Some(Command::Run(arguments)) => run::command(&arguments, format),
        Some(Command::Inject(arguments)) if arguments.fault == "list" => list(format),
        Some(Command::Inject(arguments)) => inject(&arguments, format),
        Some(Command::Campaign(command)) => campaign::command(&command, format),
        Some(Command::Replay(arguments)) => campaign::replay::command(&arguments, format),
        Some(Command::Bench(arguments)) => bench::command(&arguments, format),
        Some(Command::Doctor(arguments)) => doctor::command(arguments, format),
        Some(Command::Build(arguments)) => build(&arguments, format),
        Some(Command::Iso(arguments)) => make_iso(&arguments, format),
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

/// An emulator, found or installed, for a machine that it can be.
///
/// # Errors
/// [`Error::Usage`], and what to install.
pub fn program(emulator: EmulatorArgument, machine: &Machine, mode: Mode) -> Result<Program> {
    match (emulator, mode) {
        (EmulatorArgument::Qemu, _) => {
            let accelerator = Accelerator::for_mode(mode);
            machine.check_firewall(accelerator)?;
            machine.check()?;
            Ok(Program::Qemu {
                installation: install::ensure()?,
                accelerator,
                mode,
            })
        }
        (EmulatorArgument::Bochs, Mode::Deterministic) => Err(Error::Usage(
            "the deterministic mode is QEMU's: Bochs counts instructions anyway".into(),
        )),
        (EmulatorArgument::Bochs, Mode::Realtime) => {
            machine.check()?;
            bochs::configuration::check(machine)?;
            Ok(Program::Bochs(bochs::install::ensure()?))
        }
    }
}

/// Everything that a boot needs: the machine checked, its emulator found or installed, the images
/// built.
///
/// # Errors
/// [`Error::Usage`], [`Error::Build`], and what to install.
pub fn launch(
    arguments: &MachineArguments,
    mode: Mode,
    serial: Serial,
    progress: &mut Progress,
) -> Result<Launch> {
    let (machine, keep) = (arguments.machine(), arguments.keep());
    let program = program(arguments.emulator, &machine, mode)?;
    prepare(program, machine, &arguments.images, serial, keep, progress)
}

/// As [`launch`], for a machine that does not come from the command line.
///
/// # Errors
/// [`Error::Build`].
pub fn prepare(
    program: Program,
    machine: Machine,
    arguments: &ImageArguments,
    serial: Serial,
    keep: Keep,
    progress: &mut Progress,
) -> Result<Launch> {
    Ok(Launch {
        machine,
        program,
        images: images(arguments, progress)?,
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
    /// What executes the guest's instructions; under Bochs, the model of the processor.
    accelerator: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    qemu: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bochs: Option<String>,
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
        let (accelerator, qemu, bochs) = match &launch.program {
            Program::Qemu {
                installation,
                accelerator,
                mode,
            } => {
                let version = installation.version.to_string();
                let accelerator = match mode {
                    Mode::Realtime => accelerator.name(),
                    Mode::Deterministic => "tcg, deterministic",
                };
                (accelerator, Some(version), None)
            }
            Program::Bochs(installation) => {
                let model = bochs::configuration::model(&launch.machine);
                (model, None, Some(installation.version.to_string()))
            }
        };
        Self {
            cells,
            cpus,
            memory,
            boot_parameters: launch.machine.boot_line(),
            accelerator: accelerator.into(),
            qemu,
            bochs,
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
            ..
        } = self;
        let qemu = self.qemu.as_ref().map(|version| format!("QEMU {version}"));
        let bochs = self.bochs.as_ref();
        let bochs = bochs.map(|version| format!("Bochs {version}"));
        let emulator = qemu.or(bochs).unwrap_or_default();
        let (cells, cpus) = (counted(*cells as u64, "cell"), counted(*cpus as u64, "CPU"));
        format!("{cells}, {cpus} ({boot_parameters}), {emulator}, {accelerator}")
    }
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
    let launch = launch(
        &arguments.machine,
        arguments.mode(),
        Serial::Log,
        &mut progress,
    )?;
    launch.program.check(&plan)?;
    names::check(&plan, &launch.images)?;
    let detail = if trace.is_some() {
        Detail::All
    } else {
        Detail::Events
    };
    let comparison = arguments.comparison();
    let observed = comparison.run(&launch, &plan, detail, &mut progress)?;
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

fn make_iso(arguments: &IsoArguments, format: Format) -> Result<Ending> {
    let machine = arguments.machine();
    machine.check()?;
    iso::check_place(&arguments.file)?;
    let tools = iso::ensure()?;
    let images = images(&arguments.images, &mut Progress::new())?;
    let line = machine.boot_line();
    tools.make(&arguments.file, &images, &line)?;
    let file = arguments.file.display();
    match format {
        Format::Json => print_json(&json!({
            "schema": "hive-iso/1", "file": file.to_string(), "boot_parameters": line,
        }))?,
        Format::Text => print_text(&format!("{file}: boots {line}\n"))?,
    }
    Ok(Ending::Held)
}
