//! The run as a trace file that Perfetto opens.
//!
//! Cells are processes, CPUs are threads. Calls are slices with flows from the caller to the
//! server; recovery phases are slices on a track of their own; everything else is an instant.
//!
//! # References
//! Trace Event Format, JSON Object Format.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cell::trace::Event;
use serde_json::{Value, json};

use crate::error::{Context, Result};
use crate::guest::trace::{Observed, Source};
use crate::observation::{Observation, matters};
use crate::timeline::describe;
use crate::units::float;

/// The track of recovery phases, beside the CPUs.
const PHASES: u64 = 1000;
const HOST: u64 = 2000;
const MONITOR: u64 = 1999;
/// How long a slice is that stands for a moment, in microseconds.
const MOMENT: f64 = 1.0;

/// The phases, and the event that begins each.
const PHASE_NAMES: [(Event, &str); 6] = [
    (Event::EpochBegin, "probe and agreement"),
    (Event::RecoveryBegin, "barrier 1"),
    (Event::Barrier1, "discard"),
    (Event::Discard, "barrier 2"),
    (Event::Resume, ""),
    (Event::FalseAlarm, ""),
];

/// A trace file that can be written.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    file: File,
}

impl TraceFile {
    /// Opens it, before the run that it is to show; what it holds stays until then.
    ///
    /// # Errors
    /// [`crate::error::Error::Usage`] if it cannot be a file, [`crate::error::Error::Host`].
    pub fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(path);
        let file = file.argument(|| format!("--trace: opening {}", path.display()))?;
        let path = path.to_path_buf();
        Ok(Self { path, file })
    }

    /// Writes the run.
    ///
    /// # Errors
    /// [`crate::error::Error::Host`].
    pub fn write(mut self, run: &Observation) -> Result<()> {
        let document = json!({ "displayTimeUnit": "ms", "traceEvents": events(run) });
        let is_file = self.file.metadata().is_ok_and(|data| data.is_file());
        let cut = if is_file {
            self.file.set_len(0)
        } else {
            Ok(())
        };
        let written = cut.and_then(|()| self.file.write_all(document.to_string().as_bytes()));
        written.context(|| format!("writing {}", self.path.display()))
    }
}

fn events(run: &Observation) -> Vec<Value> {
    let mut events = names(run.before.len());
    for one in &run.injected {
        let name = format!("{} in cell {}: {}", one.fault.name(), one.cell, one.detail);
        events.push(instant(HOST, 0, one.at, &name, "g"));
    }
    events.extend(
        run.notes
            .iter()
            .map(|note| instant(HOST, 0, note.at, &note.text, "g")),
    );
    events.extend(
        run.records
            .iter()
            .filter(|record| matters(record.event))
            .map(|record| {
                let name = describe(record.event, record.arguments);
                instant(
                    process(record.source),
                    u64::from(record.cpu),
                    record.at,
                    &name,
                    "t",
                )
            }),
    );
    phases(run, &mut events);
    calls(run, &mut events);
    events
}

fn names(cells: usize) -> Vec<Value> {
    let name = |process: u64, name: &str| {
        let arguments = json!({ "name": name });
        json!({ "ph": "M", "name": "process_name", "pid": process, "args": arguments })
    };
    let mut events = vec![name(HOST, "host"), name(MONITOR, "monitor")];
    for cell in 0..cells {
        let process = process(Source::Cell(cell));
        events.push(name(process, &format!("cell {cell}")));
        events.push(json!({
            "ph": "M", "name": "thread_name", "pid": process, "tid": PHASES,
            "args": { "name": "recovery" },
        }));
    }
    events
}

const fn process(source: Source) -> u64 {
    match source {
        Source::Host => HOST,
        Source::Monitor => MONITOR,
        Source::Cell(cell) => 1 + cell as u64,
    }
}

fn microseconds(at: u64) -> f64 {
    float(at) / 1e3
}

fn instant(process: u64, thread: u64, at: u64, name: &str, scope: &str) -> Value {
    let at = microseconds(at);
    json!({ "ph": "i", "pid": process, "tid": thread, "ts": at, "name": name, "s": scope })
}

fn slice(process: u64, thread: u64, at: f64, length: f64, name: &str) -> Value {
    json!({ "ph": "X", "pid": process, "tid": thread, "ts": at, "dur": length, "name": name })
}

fn phases(run: &Observation, events: &mut Vec<Value>) {
    let mut open: HashMap<Source, (u64, &str)> = HashMap::new();
    for record in &run.records {
        let phase = PHASE_NAMES.iter().find(|(event, _)| *event == record.event);
        let Some(&(_, name)) = phase else { continue };
        if let Some((since, name)) = open.remove(&record.source) {
            let length = microseconds(record.at.saturating_sub(since));
            let process = process(record.source);
            events.push(slice(process, PHASES, microseconds(since), length, name));
        }
        if !name.is_empty() {
            open.insert(record.source, (record.at, name));
        }
    }
}

/// Calls are named by caller, server and number; the caller's records name the server and the other
/// way round.
fn calls(run: &Observation, events: &mut Vec<Value>) {
    let mut sent: HashMap<(u64, u64, u64), &Observed> = HashMap::new();
    for record in &run.records {
        let Source::Cell(own) = record.source else {
            continue;
        };
        let (peer, detail) = (record.arguments[0] >> 32, record.arguments[0] & 0xffff_ffff);
        let number = record.arguments[1];
        let (own_process, thread) = (process(record.source), u64::from(record.cpu));
        let at = microseconds(record.at);
        match record.event {
            Event::RpcSend => {
                sent.insert((own as u64, peer, number), record);
            }
            Event::RpcReceive => {
                events.push(slice(
                    own_process,
                    thread,
                    at,
                    MOMENT,
                    &format!("serve {detail}"),
                ));
                if let Some(request) = sent.get(&(peer, own as u64, number)) {
                    let id = format!("{peer}-{own}-{number}");
                    events.extend(flow(&id, request, record));
                }
            }
            Event::RpcDone => {
                if let Some(request) = sent.remove(&(own as u64, peer, number)) {
                    let since = microseconds(request.at);
                    let name = format!("call {} at cell {peer}", request.arguments[0] as u32);
                    let length = (at - since).max(MOMENT);
                    let thread = u64::from(request.cpu);
                    events.push(slice(own_process, thread, since, length, &name));
                }
            }
            _ => {}
        }
    }
}

fn flow(id: &str, from: &Observed, to: &Observed) -> [Value; 2] {
    let end = |record: &Observed, phase: &str| {
        let at = microseconds(record.at);
        let (process, thread) = (process(record.source), record.cpu);
        json!({ "ph": phase, "bp": "e", "id": id, "name": "rpc", "cat": "rpc",
                "pid": process, "tid": thread, "ts": at })
    };
    [end(from, "s"), end(to, "f")]
}
