//! Arguments that say what a fault waits for, and what of all that passes by it strikes.

use std::time::Duration;

use cell::fault::InnerFault;
use cell::trace::Event;
use clap::{Args, value_parser};

use crate::fault::catalogue::Fault;
use crate::fault::plan::{
    Cause, Hook, Trigger, parse_event, parse_operation, parse_probability, parse_program,
};
use crate::units::parse_duration;

/// What a first fault waits for.
#[derive(Clone, Debug, Args)]
pub struct WhenArguments {
    /// An event, in the trace of any cell.
    #[arg(long, value_name = "EVENT", value_parser = parse_event, group = "cause")]
    pub at_event: Option<Event>,
    /// The first instruction of a function of the kernel, executed in the cell.
    #[arg(long, value_name = "FUNCTION", group = "cause")]
    pub at_symbol: Option<String>,
    /// A store of the cell to a static of its kernel or a field of it.
    #[arg(long, value_name = "OBJECT", group = "cause")]
    pub at_write: Option<String>,
    /// A load or store of the cell from or to a static of its kernel or a field of it.
    #[arg(long, value_name = "OBJECT", group = "cause")]
    pub at_access: Option<String>,
    /// So many threads of the cell that wait for a CPU.
    #[arg(long, value_name = "THREADS", group = "cause")]
    pub at_load: Option<u64>,
    /// Which occurrence of it, from 1.
    #[arg(
        long, default_value_t = 1, value_name = "COUNT",
        value_parser = value_parser!(u32).range(1..), requires = "cause"
    )]
    pub at_count: u32,
    /// How long after it.
    #[arg(
        long, default_value = "0ms", value_name = "TIME", value_parser = parse_duration,
        requires = "cause"
    )]
    pub at_delay: Duration,
}

impl WhenArguments {
    pub(super) fn trigger(&self) -> Trigger {
        let causes = [
            self.at_event.map(Cause::Event),
            self.at_symbol.clone().map(Cause::Symbol),
            self.at_write.clone().map(Cause::Write),
            self.at_access.clone().map(Cause::Access),
            self.at_load.map(Cause::Load),
        ];
        Trigger {
            cause: causes.into_iter().flatten().next().unwrap_or(Cause::Now),
            count: self.at_count,
            delay: self.at_delay,
        }
    }
}

/// What of all that passes a hook of the kernel is struck.
#[derive(Clone, Debug, Args)]
pub struct HookArguments {
    /// With what probability, above 0 and up to 1.
    #[arg(long, value_parser = parse_probability, value_name = "SHARE")]
    pub probability: Option<u32>,
    /// Only every so manieth.
    #[arg(long, value_name = "COUNT")]
    pub interval: Option<u32>,
    /// So much goes by first: bytes of messages, else a number.
    #[arg(long, value_name = "COUNT")]
    pub space: Option<u64>,
    /// For messages: the cell that they go to.
    #[arg(long, value_name = "CELL")]
    pub to: Option<usize>,
    /// For messages: what they ask for or answer, such as "import page".
    #[arg(long, value_name = "OPERATION", value_parser = parse_operation)]
    pub operation: Option<u16>,
    /// For program.kill: the name of the threads, such as worker, server, pages or pulse.
    #[arg(long, value_name = "NAME", value_parser = parse_program)]
    pub program: Option<String>,
    /// For program.kill: so long they run first.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub run_time: Option<Duration>,
}

impl HookArguments {
    pub(super) fn hook(&self) -> Hook {
        Hook {
            probability: self.probability.unwrap_or(0),
            interval: self.interval.unwrap_or(0),
            space: self.space.unwrap_or(0),
            to: self.to,
            operation: self.operation.unwrap_or(0),
            program: self.program.clone().unwrap_or_default(),
            run_time: self.run_time.unwrap_or_default(),
        }
    }

    /// Options that a fault has no use for.
    pub(super) fn refused(&self, fault: Fault) -> [(bool, &'static str, &'static str); 3] {
        let (hook, kills) = (
            fault.is_hook(),
            fault == Fault::Inner(InnerFault::ProgramKill),
        );
        let of_hook = self.probability.is_some() || self.interval.is_some() || self.space.is_some();
        let of_messages = self.to.is_some() || self.operation.is_some();
        let of_programs = self.program.is_some() || self.run_time.is_some();
        [
            (
                of_hook && !hook,
                "--probability, --interval and --space",
                "are for faults of messages, irq.lost and program.kill",
            ),
            (
                of_messages && !fault.is_of_messages(),
                "--to and --operation",
                "are for faults of messages",
            ),
            (
                of_programs && !kills,
                "--program and --run-time",
                "are for program.kill",
            ),
        ]
    }
}
