//! A run beside its control: the same machine to the same moment, without the fault.
//!
//! In the deterministic mode two runs are the same, bit for bit, for as long as the runner does the
//! same. So after the fault the control lets the machine stand still exactly when the run did, and
//! has it write as many words as the run did, to no effect: even carrying an order out takes time,
//! and a moment more or less changes everything that comes after. Every byte that differs in the
//! end came of the fault.
//!
//! # Invariants
//! 1. Nothing but the fault is left out: what it waits for is waited for in the control too.

use std::time::Duration;

use cell::CellSet;

use super::{Run, carry_out};
use crate::error::{Error, Result};
use crate::fault::plan::{Kind, Plan};
use crate::guest::difference::{Difference, Snapshot};
use crate::launch::Launch;
use crate::observation::{End, Note, Observation};
use crate::output::Progress;
use crate::session::{Passed, Session};
use crate::watch::Detail;

/// Whether all memory is compared with a control's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// Yes, after a second run. Only in the deterministic mode.
    Control,
    /// Not at all.
    None,
}

impl Comparison {
    /// As [`super::run`], with this.
    ///
    /// # Errors
    /// See there; [`Error::Guest`] if the control did not go the same way.
    pub fn run(
        self,
        launch: &Launch,
        plan: &Plan,
        detail: Detail,
        progress: &mut Progress,
    ) -> Result<Observation> {
        match self {
            Self::Control => run_beside_control(launch, plan, detail, progress),
            Self::None => super::run(launch, plan, detail, progress),
        }
    }
}

/// How the machine went on from one standstill to the next.
#[derive(Debug)]
struct Step {
    /// The sizes of the words that it was ordered to write, in bytes.
    orders: Vec<usize>,
    span: Duration,
}

/// When the machine stood still after its fault, and what its memory was in the end.
#[derive(Debug, Default)]
pub(super) struct Course {
    steps: Vec<Step>,
    end: Option<Snapshot>,
}

impl Course {
    /// Begins anew: the fault strikes now.
    pub(super) fn restart(&mut self) {
        self.steps.clear();
    }

    /// The machine goes on for `span`.
    pub(super) fn add(&mut self, session: &Session, span: Duration) -> Result<()> {
        let orders = session.emulator.ordered()?;
        self.steps.push(Step { orders, span });
        Ok(())
    }

    /// Keeps memory as it is, unless the machine does not stand still.
    pub(super) fn close(&mut self, session: &Session, end: &End, untouched: CellSet) -> Result<()> {
        if matches!(end, End::Settled | End::Quiet | End::Bound) {
            let Session {
                memory, machine, ..
            } = session;
            self.end = Some(Snapshot::take(memory, machine, untouched)?);
        }
        Ok(())
    }
}

/// Compares only if a fault struck; if the machine did not stand still in the end, a note says so.
fn run_beside_control(
    launch: &Launch,
    plan: &Plan,
    detail: Detail,
    progress: &mut Progress,
) -> Result<Observation> {
    let course = Some(Course::default());
    let (mut observed, course) = carry_out(launch, plan, (detail, course), progress)?;
    if plan.kind != Kind::Fault || observed.injected.is_empty() {
        return Ok(observed);
    }
    let compared = match course {
        Some(Course {
            steps,
            end: Some(end),
        }) => {
            progress.begin("the control, without the fault");
            compare(launch, plan, (&steps, &end), progress)
        }
        _ => Err(Error::Guest(
            "the machine did not stand still in the end".into(),
        )),
    };
    match compared {
        Ok(difference) => observed.difference = Some(difference),
        // What the run itself showed is not lost with it.
        Err(Error::Guest(why) | Error::Down(why)) => observed.notes.push(Note {
            at: observed.ended_at,
            text: format!("memory is not compared: {why}"),
        }),
        Err(other) => return Err(other),
    }
    Ok(observed)
}

fn compare(
    launch: &Launch,
    plan: &Plan,
    (steps, end): (&[Step], &Snapshot),
    progress: &mut Progress,
) -> Result<Difference> {
    let control = Plan {
        kind: Kind::Null,
        ..plan.clone()
    };
    let strayed = || Error::Guest("the control did not go the same way as the run".into());
    let mut run = Run::boot(launch, &control, (Detail::Events, None), progress)?;
    if run.begin(progress)?.is_some() {
        return Err(strayed());
    }
    for step in steps {
        progress.step("to where the run ended");
        run.session.emulator.order_nothing(&step.orders)?;
        match run.session.pass(step.span)? {
            Passed::Span => {}
            Passed::Down(_) | Passed::Silence => return Err(strayed()),
        }
    }
    end.beside(&run.session.memory)
}
