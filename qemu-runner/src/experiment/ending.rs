//! When a run is over, and what was seen of it.

use std::time::Duration;

use super::control::Course;
use super::settled::untouched;
use super::{Armed, Run};
use crate::error::Result;
use crate::fault::catalogue::Expectation;
use crate::guest::integrity;
use crate::guest::symbols::Functions;
use crate::observation::{End, Observation};
use crate::pace::Moment;
use crate::session::Session;
use crate::watch::snapshot;

/// How long a fault that may be survived is given to show an effect.
const PATIENCE: Duration = Duration::from_millis(1500);

impl Run<'_> {
    /// How the run ended, if it has.
    pub(super) fn ended(&mut self, begun: Moment) -> Result<Option<End>> {
        if let Some(how) = self.session.emulator.down()? {
            return Ok(Some(End::SystemDown(how)));
        }
        let now = self.now();
        if now.since(begun) >= self.plan.bound {
            return Ok(Some(End::Bound));
        }
        let cells = snapshot(&self.session)?;
        self.is_settled = self.settled.holds(&cells, now);
        if !self.is_settled || !self.thaws.is_empty() {
            return Ok(None);
        }
        let patient = now.since(self.acted) < PATIENCE;
        let open = self.armed.is_some() || !self.asked.is_empty();
        if self.armed.as_ref().is_some_and(Armed::is_sure) || open && patient {
            return Ok(None);
        }
        let pairs = || self.before.iter().zip(&cells);
        if pairs().any(|(before, now)| before.incarnation != now.incarnation) {
            return Ok(Some(End::Settled));
        }
        let must_die = self
            .injected
            .iter()
            .any(|one| one.expectation == Expectation::Dies);
        Ok((!must_die && !patient).then_some(End::Quiet))
    }

    /// Looks once more at everything, and at all memory for a comparison.
    pub(super) fn finish(mut self, end: End) -> Result<(Observation, Option<Course>)> {
        self.look()?;
        self.watch
            .read_accounts(&self.session.memory, &self.session.machine)?;
        let after = snapshot(&self.session)?;
        let progressing = self.settled.progressing(&after, self.now());
        let ram_sha256 = match (self.session.emulator.guest_time(), &end) {
            (Some(_), End::Settled | End::Quiet | End::Bound) => {
                Some(self.session.memory.sha256()?)
            }
            _ => None,
        };
        let untouched = untouched(&self.before, &after, self.plan);
        let Session {
            memory,
            machine,
            images,
            ..
        } = &self.session;
        let spoilt = integrity::check(memory, machine, images, untouched)?;
        if let Some(course) = &mut self.course {
            course.close(&self.session, &end, untouched)?;
        }
        let (not_triggered, not_carried_out) = self.missed();
        let ended_at = self.time();
        let (_, live_set) = self.session.machine.live_set(&self.session.memory)?;
        let mut records = std::mem::take(&mut self.watch.records);
        records.sort_by_key(|record| record.at);
        let functions = Functions::read(&self.session.images.kernel)?;
        let explained = |(life, text): (_, String)| (life, functions.explain(&text));
        let epitaphs = std::mem::take(&mut self.watch.epitaphs);
        let epitaphs = epitaphs.into_iter().map(explained).collect();
        let observed = Observation {
            boot_time: self.session.boot_time,
            injected: self.injected,
            control_from: self.control_from,
            ended_at,
            reached: self.reached,
            notes: self.notes,
            not_triggered,
            not_carried_out,
            left_out: self.left_out,
            records,
            records_lost: self.watch.lost(),
            before: self.before,
            progressing,
            after,
            lives: self.watch.lives,
            epitaphs,
            live_set,
            watched: self.session.emulator.watched(),
            works: self.works,
            spoilt,
            ram_sha256,
            difference: None,
            end,
        };
        Ok((observed, self.course))
    }
}
