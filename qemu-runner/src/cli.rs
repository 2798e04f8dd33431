//! The command line. The comments below are its help.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use cell::CPUS_MAX;
use cell::trace::Event;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

use crate::campaign::arguments::{CampaignCommand, ReplayArguments};
use crate::experiment::Comparison;
use crate::fault::catalogue::{Fault, HostFault};
use crate::fault::plan::{
    Area, Cause, Kind, Plan, Registers, Series, Strike, Trigger, parse_event,
};
use crate::images::{BARE_TARGET, BuildOptions, HOST_TARGET};
use crate::launch::{Keep, Mode};
use crate::machine::Machine;
use crate::output::Format;
use crate::units::{parse_duration, parse_size};

mod when;

pub use when::{HookArguments, WhenArguments};

/// Hive: one machine, many kernels. A fault stays in the cell where it happened.
///
/// Exit codes: 0 held, 1 violated, 2 usage, 3 infrastructure, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "hive", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do; `run` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// For `run`.
    #[command(flatten)]
    pub run: RunArguments,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build, boot, and open the serial console. Ctrl-A X leaves, Ctrl-A C switches to QEMU's
    /// monitor.
    Run(Box<RunArguments>),
    /// Boot, let the cells work, inject a fault, follow it to the end, judge.
    Inject(Box<InjectArguments>),
    /// Many faults drawn from a seed, and what they show together.
    #[command(subcommand)]
    Campaign(CampaignCommand),
    /// Carry out one run of a campaign again.
    Replay(Box<ReplayArguments>),
    /// Measure what things cost; under Bochs, count the instructions of the monitor.
    Bench(Box<BenchArguments>),
    /// Show what of the emulators and of this host works, and what to do about the rest.
    Doctor(DoctorArguments),
    /// Build the two images and say where they are.
    Build(ImageArguments),
    /// Build a bootable ISO (GRUB for BIOS machines) of the two images.
    Iso(IsoArguments),
}

/// Memory with which the parameters of an ISO are checked: they are not of a certain machine.
const ISO_MEMORY: u64 = 1 << 40;

/// The back ends of the firewall.
const FIREWALLS: [&str; 5] = ["auto", "npt", "ept", "paging", "off"];

/// What runs a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum EmulatorArgument {
    /// QEMU, with KVM where that can be had.
    Qemu,
    /// Bochs.
    Bochs,
}

/// Which machine.
#[derive(Clone, Debug, Args)]
pub struct MachineArguments {
    /// How many cells.
    #[arg(long, default_value_t = 4)]
    pub cells: usize,
    /// How many CPUs.
    #[arg(long, default_value_t = 8)]
    pub cpus: usize,
    /// How much memory.
    #[arg(long, default_value = "512M", value_parser = parse_size)]
    pub memory: u64,
    /// How the firewall is enforced.
    #[arg(long, default_value = "auto", value_parser = FIREWALLS)]
    pub firewall: String,
    /// What runs the machine. Bochs is slow, exact, and has VMX.
    #[arg(long, default_value = "qemu")]
    pub emulator: EmulatorArgument,
    /// More boot parameters, such as "tick=1000 discard=writable".
    #[arg(long, default_value = "", hide_default_value = true)]
    pub append: String,
    /// Keep the directory of the run, with the serial log and the guest's memory.
    #[arg(long)]
    pub keep: bool,
    /// How the images are built.
    #[command(flatten)]
    pub images: ImageArguments,
}

/// How the images are built.
#[derive(Clone, Debug, Args)]
pub struct ImageArguments {
    /// The target for which the images are built.
    #[arg(long, default_value = HOST_TARGET, value_parser = [HOST_TARGET, BARE_TARGET])]
    pub target: String,
    /// The cargo profile with which the images are built.
    #[arg(long, default_value = "release")]
    pub profile: String,
    /// Use the images in this directory instead of building them.
    #[arg(long, value_name = "DIRECTORY")]
    pub images: Option<PathBuf>,
}

/// Arguments of `iso`.
#[derive(Clone, Debug, Args)]
pub struct IsoArguments {
    /// The file, which is replaced.
    pub file: PathBuf,
    /// How many cells.
    #[arg(long, default_value_t = 4)]
    pub cells: usize,
    /// How the firewall is enforced.
    #[arg(long, default_value = "auto", value_parser = FIREWALLS)]
    pub firewall: String,
    /// More boot parameters, such as "tick=1000 discard=writable".
    #[arg(long, default_value = "", hide_default_value = true)]
    pub append: String,
    /// How the images are built.
    #[command(flatten)]
    pub images: ImageArguments,
}

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArguments,
    /// Leave after this time instead of waiting for Ctrl-A X.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub r#for: Option<Duration>,
}

/// Arguments of `inject`.
#[derive(Clone, Debug, Args)]
pub struct InjectArguments {
    /// The fault, or `list` to see them all.
    pub fault: String,
    /// The cell.
    #[arg(long, default_value_t = 1)]
    pub cell: usize,
    /// Which of the cell's CPUs, for faults of one CPU.
    #[arg(long, value_name = "INDEX")]
    pub cpu: Option<usize>,
    /// How long the cells work before the fault.
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = parse_duration)]
    pub at: Duration,
    /// How many recoveries the machine goes through before the fault: panics of the other cells in
    /// turn. QEMU without KVM translates code when it first runs, which is most of what the first
    /// recovery takes.
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub rehearsals: u32,
    /// For faults that take a number; `list` shows which.
    #[arg(long, value_name = "NUMBER")]
    pub argument: Option<u64>,
    /// For everything that is drawn at random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// For faults of memory, where they strike: image, region, text, rodata, data, bss, heap,
    /// stack, page_tables.
    #[arg(long, default_value = "image", value_name = "AREA")]
    pub area: Area,
    /// For faults of memory: a static of the kernel and fields of it, such as
    /// scheduler::TABLE.ready_count, instead of an area.
    #[arg(long, value_name = "NAME", conflicts_with = "area")]
    pub object: Option<String>,
    /// For reg.bitflip: which registers: general, flags, segment, control, fp.
    #[arg(long, default_value = "general", value_name = "CLASS")]
    pub registers: Registers,
    /// What the fault waits for after that time.
    #[command(flatten)]
    pub when: WhenArguments,
    /// For faults that wait at a hook of the kernel.
    #[command(flatten)]
    pub hook: HookArguments,
    /// For cpu.freeze: when the CPU goes on.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub thaw: Option<Duration>,
    /// For cpu.mce: a corrected error instead of an uncorrected one.
    #[arg(long)]
    pub corrected: bool,
    /// A second fault, timed by an event of the first.
    #[arg(long, value_name = "FAULT", requires = "on")]
    pub then: Option<Fault>,
    /// The cell of the second fault.
    #[arg(long, default_value_t = 2, value_name = "CELL", requires = "then")]
    pub then_cell: usize,
    /// The event that the second fault waits for, such as hint, agreement.round, recovery.barrier1.
    #[arg(long, value_name = "EVENT", value_parser = parse_event, requires = "then")]
    pub on: Option<Event>,
    /// Which occurrence of the event, from 1.
    #[arg(
        long, default_value_t = 1, value_parser = value_parser!(u32).range(1..),
        requires = "then"
    )]
    pub count: u32,
    /// How long after the event.
    #[arg(
        long, default_value = "0ms", value_name = "TIME", value_parser = parse_duration,
        requires = "then"
    )]
    pub delay: Duration,
    /// How long the run may take after the fault.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_duration)]
    pub bound: Duration,
    /// Count instructions instead of the host's time: the same arguments give the same run, bit for
    /// bit. Times are the guest's then.
    #[arg(long)]
    pub deterministic: bool,
    /// Carry the run out once more, without the fault, and compare all memory.
    #[arg(long, requires = "deterministic")]
    pub compare_memory: bool,
    /// Write a trace file that ui.perfetto.dev opens.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArguments,
}

/// Arguments of `bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArguments {
    /// How many boots to measure; under Bochs, where all are the same, it is one.
    #[arg(
        long, default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub runs: usize,
    /// How long the work of the cells is counted, with each back end of the firewall.
    #[arg(long, default_value = "3s", value_name = "TIME", value_parser = parse_duration)]
    pub work: Duration,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArguments,
}

/// Arguments of `doctor`.
#[derive(Clone, Copy, Debug, Args)]
pub struct DoctorArguments {
    /// Install QEMU, Bochs and what makes ISOs, where they are missing and that is possible.
    #[arg(long)]
    pub install: bool,
}

impl Cli {
    /// Takes the words of the command line; `--json` may stand before or after the subcommand. The
    /// format holds for errors too.
    pub fn parse_words(
        words: impl IntoIterator<Item = OsString>,
    ) -> (Result<Self, clap::Error>, Format) {
        let (json, others): (Vec<OsString>, _) =
            words.into_iter().partition(|word| word == "--json");
        let cli = Self::try_parse_from::<Vec<OsString>, _>(others);
        let json = !json.is_empty();
        let format = if json { Format::Json } else { Format::Text };
        (cli.map(|cli| Self { json, ..cli }), format)
    }
}

impl IsoArguments {
    /// The machine that is asked for, on as many CPUs and as much memory as it takes.
    pub fn machine(&self) -> Machine {
        Machine {
            cells: self.cells,
            cpus: self.cells.clamp(1, CPUS_MAX),
            memory: ISO_MEMORY,
            firewall: self.firewall.clone(),
            append: self.append.clone(),
        }
    }
}

impl MachineArguments {
    /// The machine.
    pub fn machine(&self) -> Machine {
        Machine {
            cells: self.cells,
            cpus: self.cpus,
            memory: self.memory,
            firewall: self.firewall.clone(),
            append: self.append.clone(),
        }
    }

    /// What becomes of the run directory.
    pub const fn keep(&self) -> Keep {
        if self.keep {
            Keep::Directory
        } else {
            Keep::Nothing
        }
    }
}

impl ImageArguments {
    /// How to build.
    pub fn options(&self) -> BuildOptions {
        BuildOptions {
            target: self.target.clone(),
            profile: self.profile.clone(),
        }
    }
}

impl InjectArguments {
    /// Whether all memory is compared.
    pub const fn comparison(&self) -> Comparison {
        if self.compare_memory {
            Comparison::Control
        } else {
            Comparison::None
        }
    }

    /// How time goes on.
    pub const fn mode(&self) -> Mode {
        if self.deterministic {
            Mode::Deterministic
        } else {
            Mode::Realtime
        }
    }

    /// The plan.
    ///
    /// # Errors
    /// Says which fault does not exist, or which option has no meaning for it.
    pub fn plan(&self) -> Result<Plan, String> {
        let mut fault: Fault = self.fault.parse()?;
        self.check_options(fault)?;
        if self.corrected && fault == Fault::Host(HostFault::CpuMce) {
            fault = Fault::Host(HostFault::CpuMceCorrected);
        }
        let first = Strike::new(fault, self.cell);
        let first = Strike {
            cpu_index: self.cpu.unwrap_or(0),
            argument: self.argument.unwrap_or(first.argument),
            seed: self.seed,
            area: self.area,
            thaw: self.thaw,
            object: self.object.clone(),
            registers: self.registers,
            hook: self.hook.hook(),
            ..first
        };
        let second = self.then.zip(self.on).map(|(fault, event)| {
            let strike = Strike {
                seed: self.seed,
                area: self.area,
                ..Strike::new(fault, self.then_cell)
            };
            let trigger = Trigger {
                cause: Cause::Event(event),
                count: self.count,
                delay: self.delay,
            };
            (strike, trigger)
        });
        Ok(Plan {
            kind: Kind::Fault,
            at: self.at,
            first,
            trigger: self.when.trigger(),
            then: second.into_iter().collect(),
            series: Series::Whole,
            rehearsals: self.rehearsals,
            bound: self.bound,
        })
    }

    /// Refuses options that would be ignored.
    fn check_options(&self, fault: Fault) -> Result<(), String> {
        let only_for = |fault: HostFault| self.fault != Fault::Host(fault).name();
        let refused = [
            (
                self.thaw.is_some() && only_for(HostFault::CpuFreeze),
                "--thaw",
                "is for cpu.freeze",
            ),
            (
                self.corrected && only_for(HostFault::CpuMce),
                "--corrected",
                "is for cpu.mce",
            ),
            (
                self.argument.is_some() && fault.entry().argument.is_none(),
                "--argument",
                "is for faults that take a number; `inject list` shows which",
            ),
            (
                self.cpu.is_some() && !fault.is_of_one_cpu(),
                "--cpu",
                "is for faults of one CPU",
            ),
            (
                self.object.is_some() && !fault.has_object(),
                "--object",
                "is for faults of memory",
            ),
            (
                self.registers != Registers::General && only_for(HostFault::RegBitflip),
                "--registers",
                "is for reg.bitflip",
            ),
        ];
        let refused = refused.into_iter().chain(self.hook.refused(fault));
        let mut refused = refused;
        if let Some((_, option, meaning)) = refused.find(|(is_refused, ..)| *is_refused) {
            return Err(format!("{option} {meaning}, not for {fault}"));
        }
        if self.hook.to == Some(self.cell) {
            return Err(format!("--to {}: a cell sends itself nothing", self.cell));
        }
        let taken = fault.arguments();
        match self.argument.filter(|number| !taken.contains(number)) {
            Some(_) => {
                let (least, greatest) = (taken.start(), taken.end());
                Err(format!("--argument: {fault} takes {least} to {greatest}"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_pair_becomes_a_plan() {
        let words =
            "hive inject cpu.halt --cell 3 --then sw.panic --then-cell 2 --on hint --delay 1ms";
        let cli = Cli::try_parse_from(words.split(' ')).unwrap();
        let Some(Command::Inject(arguments)) = cli.command else {
            panic!("not inject")
        };
        let plan = arguments.plan().unwrap();
        assert_eq!((plan.first.cell, plan.first.fault.name()), (3, "cpu.halt"));
        let (second, trigger) = plan.then.first().cloned().unwrap();
        assert_eq!((second.cell, second.fault.name()), (2, "sw.panic"));
        assert_eq!(
            (trigger.cause, trigger.delay),
            (Cause::Event(Event::Hint), Duration::from_millis(1))
        );
    }

    #[test]
    fn options_that_would_be_ignored_are_refused_by_name() {
        let plan = |words: &str| {
            let cli = Cli::try_parse_from(words.split(' ')).map_err(|error| error.to_string())?;
            match cli.command {
                Some(Command::Inject(arguments)) => arguments.plan(),
                _ => panic!("not inject"),
            }
        };
        for (words, option) in [
            ("cpu.halt --thaw 1s", "--thaw"),
            ("cpu.halt --corrected", "--corrected"),
            ("sw.panic --argument 3", "--argument"),
            ("irq.spurious --argument 1000000000000", "1 to 10000"),
            ("mem.burst --argument 0", "1 to 255"),
            ("sw.panic --cpu 1", "--cpu"),
            ("cpu.halt --on hint", "--then"),
            ("cpu.halt --delay 1ms", "--then"),
            ("cpu.halt --probability 0.5", "--probability"),
            ("sw.panic --to 2", "--operation"),
            ("rpc.drop --program worker", "--program"),
            ("sw.panic --object TABLE", "--object"),
            ("cpu.halt --registers control", "--registers"),
            ("cpu.halt --at-delay 1ms", "--at-event"),
            ("rpc.drop --operation tea", "\"tea\""),
            ("rpc.drop --cell 2 --to 2", "--to 2"),
            ("rpc.drop --probability 2", "--probability"),
            ("program.kill --program a-name-that-is-too-long", "16 bytes"),
            ("cpu.halt --then sw.panic --on hint --count 0", "--count"),
        ] {
            let refusal = plan(&format!("hive inject {words}")).unwrap_err();
            assert!(refusal.contains(option), "{words}: {refusal}");
        }
        for words in [
            "cpu.freeze --cell 3 --cpu 1 --thaw 500ms",
            "cpu.mce --corrected",
            "rpc.drop --argument 3",
            "rpc.drop --probability 0.02 --interval 2 --space 100 --to 2 --operation work",
            "program.kill --program server --run-time 5ms",
            "mem.stuck --area page_tables",
            "mem.pointer --object HEAP.bottom",
            "reg.bitflip --registers fp --at-symbol scheduler::wake --at-count 30",
            "cpu.halt --at-event rpc.send --at-count 100",
        ] {
            assert!(plan(&format!("hive inject {words}")).is_ok(), "{words}");
        }
    }

    #[test]
    fn json_may_stand_anywhere() {
        for words in ["hive --json inject list", "hive inject list --json"] {
            let (cli, format) = Cli::parse_words(words.split(' ').map(OsString::from));
            assert!(matches!(cli.unwrap().command, Some(Command::Inject(_))));
            assert_eq!(format, Format::Json);
        }
        let (cli, format) = Cli::parse_words(["hive", "runn", "--json"].map(OsString::from));
        assert!(cli.is_err());
        assert_eq!(format, Format::Json);
    }

    #[test]
    fn mistakes_are_usage_errors() {
        let refused = |words: &str| Cli::try_parse_from(words.split(' ')).is_err();
        assert!(refused("hive inject cpu.halt --at 2"));
        assert!(refused("hive inject cpu.halt --then sw.panic"));
        assert!(refused("hive inject cpu.halt --then sw.smoke --on hint"));
        assert!(refused("hive run --firewall steel"));
        assert!(refused("hive runn"));
        assert!(refused("hive bench --runs 0"));
    }
}
