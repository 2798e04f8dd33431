//! Campaigns on an engine that boots nothing.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use crate::campaign::arguments::ReportArguments;
use crate::campaign::directory::Beginning;
use crate::campaign::directory::tests::manifest;
use crate::campaign::report;
use crate::campaign::summary::Summary;
use crate::error::Ending;
use crate::fault::plan::Kind;
use crate::verdict::tests::{cell, good_run};

/// Gives a run that is made up, and fails where it is told to.
struct Fake {
    carried_out: Mutex<Vec<u32>>,
    interrupt_at: Option<u32>,
    dead_at: Vec<u32>,
    down_at: Vec<u32>,
    escapes_at: Option<u32>,
}

/// Carries out everything well.
fn fake() -> Fake {
    Fake {
        carried_out: Mutex::default(),
        interrupt_at: None,
        dead_at: Vec::new(),
        down_at: Vec::new(),
        escapes_at: None,
    }
}

impl Engine for Fake {
    fn carry_out(&self, run: &Resolved, _: &mut Progress) -> Result<Observation> {
        if self.interrupt_at == Some(run.run) {
            return Err(Error::Interrupted);
        }
        self.carried_out.lock().unwrap().push(run.run);
        if self.dead_at.contains(&run.run) {
            return Err(Error::Qemu("ended with signal 9".into()));
        }
        if self.down_at.contains(&run.run) {
            let words = "the machine went down while booting: RESET\nits last words";
            return Err(Error::Down(words.into()));
        }
        let mut observed = good_run();
        if self.escapes_at == Some(run.run) {
            observed.after[2] = cell(2, 5);
        }
        Ok(observed)
    }
}

struct Bench {
    directory: tempfile::TempDir,
    campaign: Campaign,
    at_once: usize,
}

impl Bench {
    fn new() -> Self {
        Self {
            at_once: 1,
            directory: tempfile::tempdir().unwrap(),
            campaign: manifest().campaign().unwrap(),
        }
    }

    fn run(
        &self,
        engine: &Fake,
        beginning: Beginning,
        stop_on: Option<StopOn>,
    ) -> (Result<()>, Journal) {
        let path = self.directory.path();
        let mut journal = Journal::open(path, &manifest(), beginning).unwrap();
        let job = Job {
            campaign: &self.campaign,
            seed: 7,
            runs: 10,
            at_once: self.at_once,
            only: None,
            stop_on,
        };
        let ended = job.carry_out(engine, &mut journal, &mut Progress::silent());
        (ended, journal)
    }
}

#[test]
fn an_interrupted_campaign_goes_on_where_it_stopped() {
    let bench = Bench::new();
    let engine = Fake {
        interrupt_at: Some(4),
        ..fake()
    };
    let (ended, journal) = bench.run(&engine, Beginning::New, None);
    assert!(matches!(ended, Err(Error::Interrupted)));
    assert_eq!(journal.records.len(), 4);
    drop(journal);
    let engine = fake();
    let (ended, journal) = bench.run(&engine, Beginning::Resumed, None);
    ended.unwrap();
    assert_eq!(*engine.carried_out.lock().unwrap(), [4, 5, 6, 7, 8, 9]);
    assert_eq!(journal.records.len(), 10);
}

#[test]
fn a_dead_qemu_costs_its_run_only() {
    let bench = Bench::new();
    let engine = Fake {
        dead_at: vec![3],
        ..fake()
    };
    let (ended, journal) = bench.run(&engine, Beginning::New, None);
    ended.unwrap();
    let dead = &journal.records[&3];
    assert_eq!(dead.containment, Containment::Infra);
    assert!(!dead.is_violation() && dead.infra.as_ref().unwrap().contains("signal 9"));
    let summary = Summary::of(&manifest(), journal.records.values());
    assert_eq!((summary.totals.runs, summary.totals.infra), (10, 1));
    let all = &summary.overall;
    assert_eq!(all.runs as u64, all.manifested.of + 1, "it is no success");
    assert_eq!(all.contained_at_worst.of, all.contained.of + 1);
}

#[test]
fn a_machine_that_does_not_boot_is_no_failure_of_the_host() {
    let bench = Bench::new();
    let engine = Fake {
        down_at: (0..10).collect(),
        ..fake()
    };
    let (ended, journal) = bench.run(&engine, Beginning::New, None);
    ended.unwrap();
    let records = &journal.records;
    assert!(records.values().all(Record::is_violation));
    assert_eq!(records[&0].containment, Containment::SystemFailure);
    let fault = records.values().find(|run| run.kind() == Kind::Fault);
    let fault = fault.unwrap();
    assert_eq!(fault.containment, Containment::NotInjected);
    assert_eq!(fault.also, [Containment::SystemFailure]);
    assert!(!fault.reasons().contains("last words"));
    let summary = Summary::of(&manifest(), records.values());
    assert_eq!(summary.totals.infra, 0);
    assert_eq!(summary.ended().unwrap(), Ending::Violated);
}

#[test]
fn a_report_that_cannot_be_written_is_shown_all_the_same() {
    let bench = Bench::new();
    let (_, journal) = bench.run(&fake(), Beginning::New, None);
    let mut arguments = ReportArguments {
        directory: journal.path().into(),
        out: None,
        mttf: None,
    };
    // In the way of the first file, for root too.
    std::fs::create_dir(journal.path().join(".summary.json")).unwrap();
    let (summary, written) = report::make(&arguments).unwrap();
    assert!(written.is_err() && summary.totals.runs > 0);
    arguments.out = Some(journal.path().join("else where"));
    let (_, written) = report::make(&arguments).unwrap();
    written.unwrap();
    let page = std::fs::read_to_string(journal.path().join("else where/report.html"));
    assert!(!page.unwrap().contains("else where"));
    arguments.out = Some(journal.path().join("runs.jsonl"));
    let refused = report::make(&arguments).unwrap_err();
    assert_eq!(refused.exit_code(), 2);
}

#[test]
fn a_report_overwrites_only_reports() {
    let bench = Bench::new();
    let (_, journal) = bench.run(&fake(), Beginning::New, None);
    let elsewhere = tempfile::tempdir().unwrap();
    let own = |name: &str| elsewhere.path().join(name);
    let arguments = ReportArguments {
        directory: journal.path().into(),
        out: Some(elsewhere.path().into()),
        mttf: None,
    };
    let make = || report::make(&arguments).map(|(_, written)| written.unwrap());
    std::fs::write(own("report.html"), "mine").unwrap();
    let error = make().unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(
        error.to_string().contains("report.html is there"),
        "{error}"
    );
    std::fs::write(own("summary.json"), "{\"schema\":\"mine/1\"}").unwrap();
    assert!(make().is_err());
    assert_eq!(std::fs::read_to_string(own("report.html")).unwrap(), "mine");
    for name in ["report.html", "summary.json"] {
        std::fs::remove_file(own(name)).unwrap();
    }
    std::fs::write(own("notes.txt"), "mine").unwrap();
    make().unwrap();
    make().unwrap();
    std::fs::remove_file(own("report.html")).unwrap();
    make().unwrap();
    assert!(own("report.html").is_file() && own("notes.txt").is_file());
}

#[test]
fn a_host_on_which_nothing_works_ends_the_campaign() {
    let bench = Bench::new();
    let engine = Fake {
        dead_at: (0..10).collect(),
        ..fake()
    };
    let (ended, journal) = bench.run(&engine, Beginning::New, None);
    assert_eq!(ended.unwrap_err().exit_code(), 3);
    assert_eq!(journal.records.len(), 3);
}

#[test]
fn an_escape_can_end_the_campaign_and_is_reported() {
    let bench = Bench::new();
    let engine = Fake {
        escapes_at: Some(5),
        ..fake()
    };
    let (ended, journal) = bench.run(&engine, Beginning::New, Some(StopOn::Violation));
    ended.unwrap();
    assert_eq!(journal.records.len(), 6);
    let summary = Summary::of(&manifest(), journal.records.values());
    assert_eq!(summary.ending(), Ending::Violated);
    let [violation] = summary.violations.as_slice() else {
        panic!("not one violation")
    };
    assert_eq!(violation.run, 5);
    let text = report::text(&summary, journal.path());
    assert!(
        text.contains("cell 2 died") && text.contains("replay"),
        "{text}"
    );
}

#[test]
fn a_report_never_says_all_or_nothing_without_a_bound() {
    let bench = Bench::new();
    let (_, journal) = bench.run(&fake(), Beginning::New, None);
    let summary = Summary::of(&manifest(), journal.records.values());
    let text = report::text(&summary, journal.path());
    assert!(
        !text.contains("100.0 %") && text.contains("at most"),
        "{text}"
    );
    report::write(journal.path(), &manifest(), &journal.records, &summary).unwrap();
    for name in ["report.html", "summary.json", "runs.csv", "junit.xml"] {
        assert!(journal.path().join(name).is_file(), "{name}");
    }
}

#[test]
fn a_campaign_that_has_hardly_begun_is_reported_too() {
    let bench = Bench::new();
    let engine = Fake {
        interrupt_at: Some(1),
        ..fake()
    };
    let (_, journal) = bench.run(&engine, Beginning::New, None);
    assert_eq!(journal.records.len(), 1);
    let summary = Summary::of(&manifest(), journal.records.values());
    report::write(journal.path(), &manifest(), &journal.records, &summary).unwrap();
    assert!(
        summary.verdict().contains("no fault was injected"),
        "{}",
        summary.verdict()
    );
}

#[test]
fn several_at_a_time_finish_the_same_runs() {
    let bench = Bench {
        at_once: 3,
        ..Bench::new()
    };
    let engine = Fake {
        dead_at: vec![3],
        ..fake()
    };
    let (ended, journal) = bench.run(&engine, Beginning::New, None);
    ended.unwrap();
    let numbers: Vec<u32> = journal.records.keys().copied().collect();
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    assert_eq!(engine.carried_out.lock().unwrap().len(), 10);
    assert_eq!(journal.records[&3].containment, Containment::Infra);
}

#[test]
fn an_interrupt_ends_all_that_run_and_keeps_what_is_finished() {
    let bench = Bench {
        at_once: 3,
        ..Bench::new()
    };
    let engine = Fake {
        interrupt_at: Some(2),
        ..fake()
    };
    let (ended, journal) = bench.run(&engine, Beginning::New, None);
    assert!(matches!(ended, Err(Error::Interrupted)));
    assert_eq!(
        journal.records.len(),
        engine.carried_out.lock().unwrap().len()
    );
    assert!(!journal.records.contains_key(&2));
    drop(journal);
    let (ended, journal) = bench.run(&fake(), Beginning::Resumed, None);
    ended.unwrap();
    assert_eq!(journal.records.len(), 10);
}
