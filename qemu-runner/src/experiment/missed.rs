//! What of a plan did not come about.

use super::Run;
use crate::fault::catalogue::Fault;
use crate::fault::plan::{Kind, Series, Trigger};
use crate::guest::trace::{Observed, Source};
use crate::observation::{Injected, Missed, Note, Reached};

impl Run<'_> {
    /// The faults whose cause did not come, and those that their cell, asked for them, did not do.
    /// A note tells of the latter.
    pub(super) fn missed(&mut self) -> (Vec<Fault>, Vec<Missed>) {
        if self.reached == Reached::Work {
            let faults = self.plan.strikes().map(|strike| strike.fault);
            let asked_for = self.plan.kind == Kind::Fault;
            return (faults.filter(|_| asked_for).collect(), Vec::new());
        }
        let waiting = self.armed.take().map(|armed| armed.strike);
        let later = self.later.drain(..).map(|(strike, _)| strike);
        let mut not_triggered: Vec<Fault> = waiting
            .into_iter()
            .chain(later)
            .map(|strike| strike.fault)
            .collect();
        let mut not_carried_out = Vec::new();
        for (asked, trigger) in std::mem::take(&mut self.asked) {
            let text = format!("{}, {}: not done", asked.fault.name(), asked.detail);
            self.notes.push(Note { at: asked.at, text });
            if self.had_its_event(&asked, trigger.as_ref()) {
                let (fault, cell) = (asked.fault, asked.cell);
                not_carried_out.push(Missed { fault, cell });
            } else {
                not_triggered.push(asked.fault);
            }
        }
        // A series ends where it ends.
        if self.plan.series != Series::Whole && !self.injected.is_empty() {
            return (Vec::new(), Vec::new());
        }
        (not_triggered, not_carried_out)
    }

    /// Whether the event that a fault was to be done at came in its cell.
    fn had_its_event(&self, asked: &Injected, trigger: Option<&Trigger>) -> bool {
        let awaited = trigger.and_then(|trigger| Some((trigger.inner_event()?, trigger.count)));
        let start = self.injected.first().map_or(0, |injected| injected.at);
        awaited.is_none_or(|(event, count)| {
            let own = |record: &&Observed| {
                record.source == Source::Cell(asked.cell)
                    && record.event == event
                    && record.at >= start
            };
            self.watch.records.iter().filter(own).count() >= count as usize
        })
    }
}
