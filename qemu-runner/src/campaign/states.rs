//! A campaign as a state machine: what a run does, when it goes on, and how it ends.
//!
//! # Invariants
//! 1. One state is the first, every state is reached from it, and from every state a final one is.
//! 2. Every state but the final ones has a bound. What goes wrong before the fault ends in a state
//!    named `err_...`, and such a run counts for nothing.
//!
//! # References
//! Campaigns as state machines: Stott et al., NFTAPE, IPDS 2000.

use layout::backends::svg::SVGWriter;
use layout::gv::{DotParser, GraphBuilder};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::output::{push_line, table};
use crate::qemu::machine::BOOT_LIMIT;

/// A state of a run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct State {
    /// Its name.
    pub name: String,
    /// What the run does on entering it.
    pub enter: String,
    /// When it is left for certain, in words; `None` if it is a final state.
    pub bound: Option<String>,
    /// What leads out of it: upon what, and where to.
    pub on: Vec<(String, String)>,
}

/// The states of a campaign's runs; the first is where they begin.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Graph(Vec<State>);

/// A class of faults: its name, and for each of its faults when it strikes and what it does.
#[derive(Clone, Debug)]
pub struct Path {
    /// The name.
    pub class: String,
    /// Its share of the faults, in words.
    pub share: String,
    /// When, and what.
    pub faults: Vec<(String, String)>,
}

/// What the graph is made of.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Recoveries before the fault.
    pub rehearsals: u32,
    /// How long a run may take after its fault, in milliseconds.
    pub bound_ms: u64,
    /// The share of golden runs and of null injections, in words.
    pub controls: [String; 2],
    /// The classes.
    pub classes: Vec<Path>,
}

/// The length of a line in a picture.
const LINE: usize = 24;
const ERROR: &str = "err_boot";
const FOLLOW: &str = "follow";
const COLLECT: &str = "collect";

fn state(name: &str, enter: &str, bound: &str) -> State {
    State {
        name: name.into(),
        enter: enter.into(),
        bound: Some(bound.into()),
        on: Vec::new(),
    }
}

impl State {
    fn on(mut self, event: &str, next: &str) -> Self {
        self.on.push((event.into(), next.into()));
        self
    }

    fn last(mut self) -> Self {
        self.bound = None;
        self
    }
}

impl Graph {
    /// The states of a campaign's runs.
    pub fn of(outline: &Outline) -> Self {
        let boot = format!("{} s", BOOT_LIMIT.as_secs());
        let bound = format!("{} ms", outline.bound_ms);
        let mut states = Vec::new();
        let ready = if outline.rehearsals > 0 {
            "rehearse"
        } else {
            "work"
        };
        let booting = state("boot", "start the machine", &boot);
        states.push(
            booting
                .on("every cell serves", ready)
                .on("bound, or QEMU ends", ERROR),
        );
        if outline.rehearsals > 0 {
            let enter = format!(
                "let another cell panic and come back, times {}",
                outline.rehearsals
            );
            let rehearsing = state("rehearse", &enter, &bound);
            states.push(
                rehearsing
                    .on("it came back", "work")
                    .on("bound, or it did not", ERROR),
            );
        }
        states.push(Self::working(outline));
        states.extend(
            outline
                .classes
                .iter()
                .flat_map(|path| injections(path, &bound)),
        );
        let following = state(FOLLOW, "watch every cell", &bound);
        states.push(
            following
                .on("all serve and work, or the machine is down", COLLECT)
                .on("bound", COLLECT),
        );
        states.push(
            state(
                COLLECT,
                "read accounts and traces, judge, write the record",
                "",
            )
            .last(),
        );
        states.push(state(ERROR, "record the run as not carried out", "").last());
        Self(states)
    }

    fn working(outline: &Outline) -> State {
        let mut working = state("work", "let the cells work", "the time that was drawn");
        let [golden, null] = &outline.controls;
        let control = format!("golden run ({golden}) or null injection ({null})");
        working = working.on(&control, FOLLOW);
        for path in &outline.classes {
            if let Some((when, _)) = path.faults.first() {
                let event = format!("{when} ({} of the faults)", path.share);
                working = working.on(&event, &name(path, 0));
            }
        }
        working
    }

    /// As a table.
    pub fn text(&self) -> String {
        let mut rows = vec![
            ["state", "does", "bound", "on", "next"]
                .map(String::from)
                .to_vec(),
        ];
        for state in &self.0 {
            let bound = state.bound.clone().unwrap_or_else(|| "final".into());
            let mut row = vec![state.name.clone(), state.enter.clone(), bound];
            for (event, next) in &state.on {
                row.resize(3, String::new());
                row.extend([event.clone(), next.clone()]);
                rows.push(std::mem::take(&mut row));
            }
            if !row.is_empty() {
                rows.push(row);
            }
        }
        table(&rows)
    }

    /// As a graph in the language of Graphviz.
    pub fn dot(&self) -> String {
        let mut dot = String::from("digraph {\n  rankdir=LR;\n");
        for state in &self.0 {
            let shape = if state.bound.is_some() {
                "box"
            } else {
                "ellipse"
            };
            let (name, label) = (&state.name, wrapped(&state.enter));
            push_line(
                &mut dot,
                format_args!("  {name} [label=\"{name}\\n{label}\", shape={shape}];"),
            );
        }
        for State { name, on, .. } in &self.0 {
            for (event, next) in on {
                let event = wrapped(event);
                push_line(
                    &mut dot,
                    format_args!("  {name} -> {next} [label=\"{event}\"];"),
                );
            }
        }
        dot.push_str("}\n");
        dot
    }

    /// As a picture.
    ///
    /// # Errors
    /// [`Error::Campaign`] if it cannot be drawn.
    pub fn svg(&self) -> Result<String> {
        let dot = self.dot();
        let parsed = DotParser::new(&dot).process();
        let graph = parsed
            .map_err(|error| Error::Campaign(format!("the states cannot be drawn: {error}")))?;
        let mut builder = GraphBuilder::new();
        builder.visit_graph(&graph);
        let mut writer = SVGWriter::new();
        builder.get().do_it(false, false, false, &mut writer);
        Ok(writer.finalize())
    }
}

/// Words in lines that are not too long for a box. A campaign file may have any words; those that
/// mean something in the language are replaced.
fn wrapped(text: &str) -> String {
    let text = text.replace(['"', '\\'], "'");
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < LINE => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines.join("\\n")
}

fn name(path: &Path, position: usize) -> String {
    let class: String = path
        .class
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '_'
            }
        })
        .collect();
    format!("inject_{class}_{}", position + 1)
}

/// A state for each fault of a class, each going on to the next.
fn injections(path: &Path, bound: &str) -> Vec<State> {
    let faults = path.faults.iter().enumerate();
    faults
        .map(|(position, (_, what))| {
            let injecting = state(&name(path, position), what, bound);
            match path.faults.get(position + 1) {
                Some((when, _)) => injecting
                    .on(when, &name(path, position + 1))
                    .on("all settled before, or bound", FOLLOW),
                None => injecting.on("done", FOLLOW),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn outline(rehearsals: u32) -> Outline {
        let fault = |when: &str| (when.to_owned(), "sw.\"panic\" in cell: random".to_owned());
        let path = |class: &str, faults: &[&str]| Path {
            class: class.into(),
            share: "50.0 %".into(),
            faults: faults.iter().map(|when| fault(when)).collect(),
        };
        Outline {
            rehearsals,
            bound_ms: 30_000,
            controls: ["5 %", "10 %"].map(String::from),
            classes: vec![
                path("one", &["after 3 ms"]),
                path("a-pair", &["after 3 ms", "at \\recovery"]),
            ],
        }
    }

    #[test]
    fn every_state_is_reached_bounded_and_left() {
        for rehearsals in [0, 2] {
            let Graph(states) = Graph::of(&outline(rehearsals));
            let names: BTreeSet<&str> = states.iter().map(|state| state.name.as_str()).collect();
            assert_eq!(names.len(), states.len(), "names are unique");
            let mut reached = BTreeSet::from(["boot"]);
            for _ in &states {
                for state in &states {
                    if reached.contains(state.name.as_str()) {
                        reached.extend(state.on.iter().map(|(_, next)| next.as_str()));
                    }
                }
            }
            assert_eq!(reached, names);
            assert!(
                states
                    .iter()
                    .all(|state| state.bound.is_some() != state.on.is_empty())
            );
        }
    }

    #[test]
    fn it_is_drawn_whatever_the_words() {
        let graph = Graph::of(&outline(1));
        let svg = graph.svg().expect("the graph is in order");
        assert!(
            svg.contains("<svg") && svg.contains("inject_a_pair_2"),
            "{svg}"
        );
        let text = graph.text();
        assert!(
            text.contains("err_boot") && text.contains("at \\recovery"),
            "{text}"
        );
    }
}
