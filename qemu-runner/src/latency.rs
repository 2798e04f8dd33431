//! How long each step took, from the records of the guest.

use cell::CellSet;
use cell::id::CellId;
use cell::trace::Event;
use serde::{Deserialize, Serialize};

use crate::guest::trace::{Observed, Source};
use crate::observation::Observation;
use crate::units::milliseconds_between;

/// Times since the first fault, in milliseconds; `None` for what did not happen.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, Debug)]
pub struct Latencies {
    /// Somebody other than the target suspected it, or the monitor held something against it.
    pub first_hint: Option<f64>,
    /// The first epoch since that hint began somewhere.
    pub epoch_begun: Option<f64>,
    /// How long the agreement itself took, from the forming of opinions to the decision, in the
    /// slowest survivor.
    pub agreement: Option<f64>,
    /// A live set was decided, by the last survivor.
    pub decided: Option<f64>,
    /// The last survivor began to recover.
    pub last_in_recovery: Option<f64>,
    /// How long programs stood still: from the first survivor's recovery until the last survivor's
    /// programs went on.
    #[serde(default)]
    pub held: Option<f64>,
    /// The last survivor's programs went on.
    pub resumed: Option<f64>,
    /// The last dead cell was taken back, by the last survivor.
    pub reintegrated: Option<f64>,
}

impl Latencies {
    /// Reads them off a run.
    pub fn of(run: &Observation) -> Self {
        let (targets, survivors) = (run.targets(), run.survivors());
        let start = run.start();
        let span = |at: u64| milliseconds_between(start, at);
        let hint = run.since_start().find(|record| is_hint(record, targets));
        // An epoch that began before was about somebody else.
        let epoch = hint.and_then(|hint| {
            let begins = |record: &&Observed| {
                record.event == Event::EpochBegin
                    && record.at >= hint.at
                    && survivor(record, survivors)
            };
            run.since_start().find(begins)
        });
        Self {
            first_hint: hint.map(|record| span(record.at)),
            epoch_begun: epoch.map(|record| span(record.at)),
            agreement: agreement(run, survivors),
            decided: last_of_first(run, survivors, Event::Decided).map(span),
            last_in_recovery: last_of_first(run, survivors, Event::RecoveryBegin).map(span),
            held: held(run, survivors),
            resumed: last_of_first(run, survivors, Event::Resume).map(span),
            reintegrated: reintegrated(run, survivors).map(span),
        }
    }

    /// With names, in order, for output.
    pub fn named(&self) -> [(&'static str, Option<f64>); 8] {
        [
            ("fault to first hint", self.first_hint),
            ("fault to first epoch", self.epoch_begun),
            ("fault to last survivor decided", self.decided),
            ("fault to last survivor in recovery", self.last_in_recovery),
            ("fault to last survivor resumed", self.resumed),
            ("fault to reintegrated", self.reintegrated),
            ("agreement alone", self.agreement),
            ("recovery alone", self.held),
        ]
    }
}

fn survivor(record: &Observed, survivors: CellSet) -> bool {
    match record.source {
        Source::Cell(cell) => CellId::new(cell).is_some_and(|cell| survivors.contains(cell)),
        _ => false,
    }
}

fn is_hint(record: &Observed, targets: CellSet) -> bool {
    let among = |number: u64| CellId::new(number as usize).is_some_and(|id| targets.contains(id));
    match (record.source, record.event) {
        (Source::Cell(by), Event::Hint) => !among(by as u64) && among(record.arguments[0]),
        (Source::Monitor, Event::Evidence) => among(record.arguments[0] & 0xffff_ffff),
        _ => false,
    }
}

/// When the last survivor recorded its first `event`; `None` if one of them never did.
fn last_of_first(run: &Observation, survivors: CellSet, event: Event) -> Option<u64> {
    let first = |cell: CellId| {
        let own = |record: &&Observed| {
            record.source == Source::Cell(cell.index()) && record.event == event
        };
        run.since_start().find(own).map(|record| record.at)
    };
    let times: Option<Vec<u64>> = survivors.iter().map(first).collect();
    times?.into_iter().max()
}

/// From the first survivor's recovery until the last survivor's work went on.
fn held(run: &Observation, survivors: CellSet) -> Option<f64> {
    let begins =
        |record: &&Observed| record.event == Event::RecoveryBegin && survivor(record, survivors);
    let begun = run.since_start().find(begins)?;
    let resumed = last_of_first(run, survivors, Event::Resume)?;
    Some(milliseconds_between(begun.at, resumed))
}

/// The longest time from a survivor's last opinion to its first decision; `None` if one never
/// decided.
fn agreement(run: &Observation, survivors: CellSet) -> Option<f64> {
    let span = |cell: CellId| {
        let own = |record: &&Observed| record.source == Source::Cell(cell.index());
        let decided = run
            .since_start()
            .filter(own)
            .find(|record| record.event == Event::Decided)?;
        let opinions = run
            .since_start()
            .filter(own)
            .take_while(|record| record.at <= decided.at);
        let opinion = opinions
            .filter(|record| record.event == Event::Opinion)
            .last()?;
        Some(milliseconds_between(opinion.at, decided.at))
    };
    let spans: Option<Vec<f64>> = survivors.iter().map(span).collect();
    spans?.into_iter().max_by(f64::total_cmp)
}

fn reintegrated(run: &Observation, survivors: CellSet) -> Option<u64> {
    let dead = run.dead();
    let back = |event: Event| {
        let about_dead = |record: &&Observed| {
            let subject = CellId::new(record.arguments[0] as usize);
            let seen = record.source == Source::Monitor || survivor(record, survivors);
            record.event == event && seen && subject.is_some_and(|id| dead.contains(id))
        };
        run.since_start()
            .filter(about_dead)
            .map(|record| record.at)
            .max()
    };
    back(Event::Reintegrated).or_else(|| back(Event::Joined))
}
