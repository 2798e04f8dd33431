//! The run for people: what happened, in milliseconds since the fault.
//!
//! The same event with the same arguments in several cells is one line, with the time of the first
//! and of the last.

use cell::fault::InnerFault;
use cell::machine::EvidenceKind;
use cell::trace::Event;
use cell::{CellSet, id::CellId};
use recovery::HintReason;
use serde::Serialize;

use crate::fault::catalogue::Fault;
use crate::guest::trace::{Observed, Source};
use crate::observation::{Observation, SUSPICIONS, matters};
use crate::output::{counted, push_line};
use crate::units::milliseconds_between;

/// Records that lie further apart are not one line.
const GROUP_NANOSECONDS: u64 = 20_000_000;
/// Lines that are shown; a cell that cries wolf can make any number.
const LINES_MAX: usize = 120;

/// One line.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Line {
    /// Milliseconds since the first fault; negative before it.
    pub at_ms: f64,
    /// When the last of the group saw it, if that is another time.
    pub until_ms: Option<f64>,
    /// Who saw it.
    pub who: String,
    /// The event's name.
    pub event: &'static str,
    /// What happened.
    pub text: String,
}

struct Group {
    first: u64,
    last: u64,
    cells: CellSet,
    by: Source,
    event: Event,
    arguments: [u64; 2],
    count: usize,
}

/// The time line of a run, from the first fault on.
pub fn lines(run: &Observation) -> Vec<Line> {
    let start = run.start();
    let since = |at: u64| milliseconds_between(start, at);
    let host = |at: u64, event: &'static str, text: String| Line {
        at_ms: since(at),
        until_ms: None,
        who: "host".into(),
        event,
        text,
    };
    let injected = run.injected.iter().map(|one| {
        host(
            one.at,
            Event::HostInjected.name(),
            format!("{}: {}", one.fault.name(), one.detail),
        )
    });
    let notes = run
        .notes
        .iter()
        .map(|note| host(note.at, "host.note", note.text.clone()));
    let groups = groups(run).into_iter().map(|group| Line {
        at_ms: since(group.first),
        until_ms: (group.last != group.first).then(|| since(group.last)),
        who: who(&group),
        event: group.event.name(),
        text: repeated(
            describe(group.event, group.arguments),
            group.count,
            group.cells.len(),
        ),
    });
    let mut lines: Vec<Line> = injected.chain(notes).chain(groups).collect();
    lines.sort_by(|one, other| one.at_ms.total_cmp(&other.at_ms));
    lines
}

/// The lines as text. Suspicions and rounds of agreement are shown until work goes on; those that
/// come later are counted, unless something comes of them.
pub fn text(lines: &[Line]) -> String {
    let resumed = lines.iter().find(|line| line.event == Event::Resume.name());
    let quiet_from = resumed.map_or(f64::INFINITY, |line| line.until_ms.unwrap_or(line.at_ms));
    let shown = |line: &&Line| line.at_ms <= quiet_from || !is_suspicion(line.event);
    let mut text = String::new();
    for line in lines.iter().filter(shown).take(LINES_MAX) {
        let until = line
            .until_ms
            .map_or_else(String::new, |until| format!(" .. {until:.1}"));
        let time = format!("{:+.1}{until}", line.at_ms);
        push_line(
            &mut text,
            format_args!("  {time:>16} ms  {:<14} {}", line.who, line.text),
        );
    }
    let wanted = lines.iter().filter(shown).count();
    let suspicions = lines.len() - wanted;
    let others = wanted.saturating_sub(LINES_MAX);
    if others > 0 {
        let what = "more lines; --json has them all";
        push_line(&mut text, format_args!("  ... and {others} {what}"));
    }
    if suspicions > 0 {
        let what = "more about suspicions that came to nothing; --json has them all";
        push_line(&mut text, format_args!("  ... and {suspicions} {what}"));
    }
    text
}

fn is_suspicion(name: &str) -> bool {
    SUSPICIONS.iter().any(|event| event.name() == name)
}

fn groups(run: &Observation) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for record in run.since_start().filter(|record| matters(record.event)) {
        let same = |group: &&mut Group| belongs(group, record);
        let found = groups.iter_mut().rev().take(64).find(same);
        let cell = match record.source {
            Source::Cell(cell) => CellId::new(cell).map_or(CellSet::EMPTY, CellSet::only),
            _ => CellSet::EMPTY,
        };
        if let Some(group) = found {
            group.last = record.at;
            group.cells = group.cells.union(cell);
            group.count += 1;
        } else {
            groups.push(Group {
                first: record.at,
                last: record.at,
                cells: cell,
                by: record.source,
                event: record.event,
                arguments: grouping(record),
                count: 1,
            });
        }
    }
    groups
}

fn belongs(group: &Group, record: &Observed) -> bool {
    let monitor = |source| source == Source::Monitor;
    group.event == record.event
        && group.arguments == grouping(record)
        && monitor(group.by) == monitor(record.source)
        && record.at.saturating_sub(group.last) <= GROUP_NANOSECONDS
}

/// The arguments by which records are grouped: addresses and CPUs of a kind make one line.
fn grouping(record: &Observed) -> [u64; 2] {
    let [first, second] = record.arguments;
    match record.event {
        Event::Evidence => [first, 0],
        Event::BusError | Event::Parked | Event::Entered | Event::Restarted => [0, second],
        Event::CpuUp => [0, 0],
        _ => [first, second],
    }
}

fn who(group: &Group) -> String {
    match (group.by, group.cells.len()) {
        (Source::Host, _) => "host".into(),
        (Source::Monitor, _) => "monitor".into(),
        (Source::Cell(cell), 0 | 1) => format!("cell {cell}"),
        (Source::Cell(_), _) => {
            let cells = group.cells.to_string();
            format!("cells {}", cells.trim_matches(['{', '}']))
        }
    }
}

fn repeated(text: String, count: usize, cells: usize) -> String {
    if count > cells.max(1) {
        format!("{text} (x{count})")
    } else {
        text
    }
}

/// An event in words.
pub fn describe(event: Event, arguments: [u64; 2]) -> String {
    let [first, second] = arguments;
    let (high, low) = (first >> 32, first & 0xffff_ffff);
    let set = |bits: u64| CellSet(bits).to_string();
    match event {
        Event::Boot => format!("kernel entered, life {first}, {}", counted(second, "CPU")),
        Event::CpuUp => "CPU takes part".into(),
        Event::Serving => format!("serves calls, life {first}"),
        Event::Panic if first == 0 => "panics".into(),
        Event::Panic => format!("panics at {first:#x}"),
        Event::Injected => format!("does {}", inner(first)),
        Event::Struck => format!("{} strikes, seen {}", inner(first), counted(second, "time")),
        Event::BusError => "takes a bus error".into(),
        Event::Hint => format!("suspects cell {first}: {}", reason(second)),
        Event::EpochBegin => format!("epoch {first} begins, suspects {}", set(second)),
        Event::Opinion => format!("epoch {first}: thinks {} alive", set(second)),
        Event::Round => format!("epoch {first}: round {second} of flooding ends"),
        Event::Vote => format!("epoch {first}: votes for {}", set(second)),
        Event::Decided => format!("epoch {first}: the live set is {}", set(second)),
        Event::FalseAlarm => format!("epoch {first}: false alarm about {}", set(second)),
        Event::RecoveryBegin => format!("recovery begins with {}", set(second)),
        Event::Barrier1 => "passes barrier 1".into(),
        Event::Discard => {
            format!(
                "discards; the dead could write {}, wrote {}",
                second >> 32,
                second as u32
            )
        }
        Event::Barrier2 => "passes barrier 2".into(),
        Event::Resume => "work goes on".into(),
        Event::Reboot => format!("asks for the reboot of cell {first} into life {second}"),
        Event::Reintegrated => format!("takes cell {first} back, life {second}"),
        Event::Strike => format!("strikes cell {first} for crying wolf ({second})"),
        Event::Quarantine => format!("closes its frames to cell {first}"),
        Event::QuarantineEnd => format!("opens its frames to cell {first} again"),
        Event::ConsoleAdopted => format!("adopts the console from cell {second}"),
        Event::WrongByte => format!("a wrong byte, with cell {first} at {second:#x}"),
        Event::WorkBegin => format!("{} at work", counted(first, "worker")),
        Event::Evidence => format!("evidence against cell {low}: {}", evidence(high)),
        Event::Sealed => format!("epoch {first} is sealed with {}", set(second)),
        Event::Expelled => format!("cell {first} is expelled, life {second}"),
        Event::Parked => format!("a CPU of cell {second} is parked"),
        Event::Loaded => format!("image of cell {first} loaded afresh, life {second}"),
        Event::Entered => format!("a CPU enters the kernel of cell {second}"),
        Event::Joined => format!("cell {first} joins the live set, life {second}"),
        Event::Restarted => format!("a CPU of cell {second} is restarted by INIT"),
        Event::StrayNmi => format!("a stray NMI is given to CPU {first} of cell {second}"),
        _ => format!("{} {first:#x} {second:#x}", event.name()),
    }
}

fn evidence(kind: u64) -> &'static str {
    match EvidenceKind::from_raw(kind as u32) {
        EvidenceKind::None => "of an unknown kind",
        EvidenceKind::WriteDenied => "a store to a frame that it may not write",
        EvidenceKind::ReadDenied => "an access to absent memory",
        EvidenceKind::PortDenied => "an access to a port that is not its own",
        EvidenceKind::MsrDenied => "an access to a register that is not its own",
        EvidenceKind::InstructionDenied => "an instruction of the monitor's",
        EvidenceKind::HypercallDenied => "a hypercall that it had no right to",
        EvidenceKind::Shutdown => "triple fault",
        EvidenceKind::EntryRefused => "a state that the processor refused",
        EvidenceKind::MachineCheck => "uncorrected machine check",
        EvidenceKind::Panic => "its kernel stopped it",
        EvidenceKind::Reset => "a CPU left its life by INIT",
        EvidenceKind::MonitorFault => "a table of the monitor's is broken",
    }
}

/// The name of a fault from inside.
fn inner(code: u64) -> &'static str {
    let fault = InnerFault::from_raw(code as u32);
    fault.map_or("an unknown fault", |fault| Fault::Inner(fault).name())
}

fn reason(code: u64) -> &'static str {
    match u8::try_from(code).ok().and_then(HintReason::from_code) {
        None => "for an unknown reason",
        Some(HintReason::RpcTimedOut) => "a call timed out",
        Some(HintReason::BusError) => "reading its memory ended in a bus error",
        Some(HintReason::ClockStill) => "its clock stands still",
        Some(HintReason::ClockNonsense) => "its clock makes no sense",
        Some(HintReason::CarefulCheck) => "a careful reference failed",
        Some(HintReason::MessageInvalid) => "an invalid message",
        Some(HintReason::Evidence(kind)) => evidence(kind as u64),
        Some(HintReason::OwnCpuStalled) => "one of its own CPUs does not tick",
        Some(HintReason::BarrierMissed) => "it missed a barrier",
        Some(HintReason::ReintegrationFailed) => "it was rebooted again and again and did not stay",
        Some(HintReason::CriedWolf) => "it cried wolf",
        Some(HintReason::PulseStill) => "the pulse of its threads stands still",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_left_out_are_counted_by_what_they_are() {
        let line = |event: Event| Line {
            at_ms: 1.0,
            until_ms: None,
            who: "cell 1".into(),
            event: event.name(),
            text: String::new(),
        };
        let late = |event: Event| Line {
            at_ms: 2.0,
            ..line(event)
        };
        let mut lines = vec![line(Event::Resume); LINES_MAX + 3];
        lines.extend(vec![late(Event::Hint); 2]);
        let text = text(&lines);
        assert!(text.contains("and 3 more lines"), "{text}");
        assert!(text.contains("and 2 more about suspicions"), "{text}");
        assert_eq!(text.lines().count(), LINES_MAX + 2);
    }

    #[test]
    fn every_event_and_reason_has_words() {
        for &event in Event::ALL {
            assert!(!describe(event, [u64::MAX, u64::MAX]).is_empty());
        }
        for code in 0..=u64::from(u8::MAX) {
            assert!(!reason(code).is_empty());
        }
    }
}
