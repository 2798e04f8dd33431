//! What a seed becomes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use crate::fault::catalogue::{Fault, HostFault};

const FILE: &str = r#"
schema = "hive-campaign/1"
[campaign]
name = "resolved"
purpose = "To be resolved"
controls = { golden = 0.1, null = 0.25 }
[[fault]]
id = "common"
weight = 9
model = "cpu.halt"
target = { cell = "random", cpu = "random" }
when = { work_ms = { uniform = [500, 2000] } }
[[fault]]
id = "pair"
model = "mem.bitflip"
target = { cell = [1, 3] }
when = { work_ms = 300 }
[fault.then]
model = "cpu.halt"
target = { cell = "random_survivor" }
when = { event = "hint", delay_us = { log_uniform = [1, 50_000] } }
"#;

fn campaign() -> Campaign {
    Campaign::parse(FILE).unwrap()
}

fn all(seed: u64, runs: u32) -> Vec<Resolved> {
    let campaign = campaign();
    let resolve = |run| Resolved::of(&campaign, seed, run);
    (0..runs).map(resolve).collect()
}

#[test]
fn a_run_depends_on_seed_and_number_only() {
    let runs = all(7, 50);
    assert_eq!(runs, all(7, 50));
    assert_ne!(runs, all(8, 50));
    let alone = Resolved::of(&campaign(), 7, 33);
    assert_eq!(alone, runs[33]);
}

#[test]
fn another_draw_leaves_the_others_alone() {
    let more = FILE.replace("cpu = \"random\"", "cpu = [0, 1]");
    let more = Campaign::parse(&more).unwrap();
    for run in all(7, 50) {
        let other = Resolved::of(&more, 7, run.run);
        assert_eq!(
            (run.work_ms, run.first.cell),
            (other.work_ms, other.first.cell)
        );
    }
}

#[test]
fn controls_come_first_and_as_often_as_asked_for() {
    let runs = all(7, 1000);
    let count = |kind| runs.iter().filter(|run| run.kind == kind).count();
    assert_eq!((runs[0].kind, runs[1].kind), (Kind::Golden, Kind::Null));
    assert_eq!(count(Kind::Golden), 100);
    assert_eq!(count(Kind::Null), 250);
}

#[test]
fn classes_are_drawn_by_weight() {
    let runs = all(7, 1000);
    let pairs = runs.iter().filter(|run| run.class == "pair").count();
    assert!(
        (60..150).contains(&pairs),
        "{pairs} of 1000 at a weight of 1 in 10"
    );
}

#[test]
fn what_is_drawn_exists() {
    for run in all(7, 1000) {
        assert!(run.first.cell < 4 && run.first.cpu_index < 2);
        assert!(run.first.seed < SEEDS);
        match run.then.first() {
            None => assert!((500..=2000).contains(&run.work_ms)),
            Some((strike, trigger)) => {
                assert_eq!(run.first.fault, Fault::Host(HostFault::MemBitflip));
                assert!([1, 3].contains(&run.first.cell));
                assert!(strike.cell < 4 && strike.cell != run.first.cell);
                assert!((1..=50_000).contains(&(trigger.delay.as_micros() as u64)));
                assert_eq!(trigger.count, 1);
            }
        }
    }
}

#[test]
fn what_is_resolved_survives_its_file() {
    for run in all(7, 50) {
        let line = serde_json::to_string(&run).unwrap();
        assert_eq!(serde_json::from_str::<Resolved>(&line).unwrap(), run);
    }
}

const SERIES: &str = r#"
schema = "hive-campaign/1"
[campaign]
name = "series"
purpose = "To be resolved"
[[fault]]
id = "bits"
model = "mem.burst"
area = "heap"
target = { cell = "random" }
when = { rate_per_s = 2.0 }
repeat = { faults = 10, rate_per_s = 5.0, until = "death" }
[[fault]]
id = "mixed"
model = "rpc.drop"
target = { cell = "random", to = "random_survivor", operation = "work" }
when = { work_ms = 300, probability = 0.5, times = 3 }
repeat = { faults = 10, rate_per_s = 5.0, until = "bound", anew = "class" }
"#;

#[test]
fn a_series_keeps_its_cell_or_draws_everything_anew() {
    let campaign = Campaign::parse(SERIES).unwrap();
    let runs = (0..200).map(|run| Resolved::of(&campaign, 1, run));
    for run in runs {
        assert_eq!(run.then.len(), 9);
        let strikes = || run.then.iter().map(|(strike, _)| strike);
        let is_class = |strike: &&Strike| strike.fault == run.first.fault;
        if run.class == "bits" {
            assert_eq!(run.series, Series::UntilDeath);
            assert!(run.is_of_one_cell() && strikes().filter(is_class).count() == 9);
            let seeds: std::collections::BTreeSet<u64> = strikes().map(|it| it.seed).collect();
            assert_eq!(seeds.len(), 9, "another bit each time");
        } else {
            let hook = &run.first.hook;
            assert_eq!((hook.probability, run.first.argument), (500_000, 3));
            assert_ne!(hook.to, Some(run.first.cell));
            assert_eq!(run.series, Series::UntilBound);
            assert!(!run.is_of_one_cell(), "one in a quarter of a million");
            assert!(run.then.iter().all(|(_, it)| it.cause == Cause::Settled));
        }
    }
}

#[test]
fn a_cell_is_never_asked_to_spoil_its_messages_to_itself() {
    for to in ["\"random\"", "\"random_survivor\"", "[0, 2]"] {
        let file = SERIES.replacen("\"random_survivor\"", to, 1);
        let file = file.replace("mem.burst\"\narea = \"heap", "rpc.corrupt");
        let file = file.replacen(
            "cell = \"random\" }",
            &format!("cell = \"random\", to = {to} }}"),
            1,
        );
        let campaign = Campaign::parse(&file).unwrap();
        let mut seen = [false; 4];
        for run in (0..200).map(|run| Resolved::of(&campaign, 1, run)) {
            let later = run.then.iter().map(|(strike, _)| strike);
            for strike in iter::once(&run.first).chain(later) {
                let to = strike.hook.to.unwrap();
                assert_ne!(to, strike.cell, "{to}");
                seen[to] = true;
            }
        }
        let others = !to.starts_with('[');
        assert_eq!(seen, [true, others, true, others], "{to}");
    }
}
