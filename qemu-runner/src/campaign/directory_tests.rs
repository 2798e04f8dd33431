//! Directories: whole lines, and nothing mixed.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use serde_json::json;
use std::time::Duration;

const FILE: &str = r#"
schema = "hive-campaign/1"
[campaign]
name = "kept"
purpose = "To be kept"
[[fault]]
id = "halt"
model = "cpu.halt"
target = { cell = 1 }
when = { work_ms = 300 }
"#;

pub(crate) fn manifest() -> Manifest {
    let setup = json!({
        "cells": 3, "cpus": 6, "memory": 1 << 29, "boot_parameters": "cells=3",
        "accelerator": "tcg", "qemu": "7.2",
    });
    Manifest {
        schema: SCHEMA.into(),
        name: "kept".into(),
        purpose: "To be kept".into(),
        seed: 7,
        runs: 10,
        mode: Mode::Realtime,
        setup: serde_json::from_value(setup).unwrap(),
        monitor_sha256: "a".into(),
        kernel_sha256: "b".into(),
        runner: "0".into(),
        file: FILE.into(),
    }
}

fn record(run: u32) -> Record {
    let campaign = manifest().campaign().unwrap();
    let resolved = Resolved::of(&campaign, 7, run);
    Record::failed(resolved, &Error::Guest("no".into()), Duration::ZERO)
}

#[test]
fn what_is_written_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path(), &manifest(), Beginning::New).unwrap();
    journal.add(record(0)).unwrap();
    journal.add(record(2)).unwrap();
    let finished = read(directory.path()).unwrap();
    assert_eq!(finished.manifest, manifest());
    assert_eq!(finished.records, journal.records);
    assert_eq!(finished.records.keys().collect::<Vec<_>>(), [&0, &2]);
}

#[test]
fn a_line_that_was_cut_off_is_dropped_and_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path(), &manifest(), Beginning::New).unwrap();
    journal.add(record(0)).unwrap();
    journal
        .runs
        .write_all(b"{\"resolved\":{\"run\":1,")
        .unwrap();
    drop(journal);
    let finished = read(directory.path()).unwrap();
    assert_eq!((finished.records.len(), finished.cut_off), (1, 21));
    let text = finished.cut_off_text(directory.path()).unwrap();
    assert!(
        text.contains("cut off") && text.contains("--resume"),
        "{text}"
    );
    let mut journal = Journal::open(directory.path(), &manifest(), Beginning::Resumed).unwrap();
    journal.add(record(1)).unwrap();
    let finished = read(directory.path()).unwrap();
    assert_eq!(finished.records.len(), 2);
    assert_eq!(finished.cut_off_text(directory.path()), None);
}

#[test]
fn nothing_is_mixed() {
    let directory = tempfile::tempdir().unwrap();
    let open =
        |manifest: &Manifest, beginning| Journal::open(directory.path(), manifest, beginning);
    let refused = |manifest: &Manifest, beginning, why: &str| {
        let error = open(manifest, beginning).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    };
    refused(&manifest(), Beginning::Resumed, "no campaign to go on with");
    open(&manifest(), Beginning::New).unwrap();
    refused(&manifest(), Beginning::New, "--resume");
    let seed = Manifest {
        seed: 8,
        ..manifest()
    };
    refused(&seed, Beginning::Resumed, "another seed");
    let kernel = Manifest {
        kernel_sha256: "c".into(),
        ..manifest()
    };
    refused(&kernel, Beginning::Resumed, "another kernel image");
    let file = Manifest {
        file: format!("{FILE}#"),
        ..manifest()
    };
    refused(&file, Beginning::Resumed, "another campaign file");
    let more = Manifest {
        runs: 20,
        ..manifest()
    };
    open(&more, Beginning::Resumed).unwrap();
    assert_eq!(read(directory.path()).unwrap().manifest.runs, 20);
}

#[test]
fn a_directory_without_a_campaign_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(read(directory.path()).unwrap_err().exit_code(), 2);
    fs::write(directory.path().join(MANIFEST), "{}").unwrap();
    assert_eq!(read(directory.path()).unwrap_err().exit_code(), 2);
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Journal::open(directory.path(), &manifest(), Beginning::New);
    let page = directory.path().join("report.html");
    fs::write(&page, "mine").unwrap();
    let error = open().unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let words = error.to_string();
    assert!(
        words.contains("report.html") && words.contains("not empty"),
        "{words}"
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    fs::remove_file(&page).unwrap();
    // As a runner leaves it that was stopped before its first run.
    fs::write(directory.path().join(RUNS), "").unwrap();
    fs::write(directory.path().join(".manifest.json"), "{").unwrap();
    open().unwrap();
}

#[test]
fn what_a_failed_write_left_does_not_spoil_the_next_line() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path(), &manifest(), Beginning::New).unwrap();
    journal.add(record(0)).unwrap();
    journal.runs.write_all(b"{\"resolved\"").unwrap();
    journal.add(record(1)).unwrap();
    assert_eq!(read(directory.path()).unwrap().records, journal.records);
}

#[test]
fn a_directory_has_one_runner_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let open = |beginning| Journal::open(directory.path(), &manifest(), beginning);
    let first = open(Beginning::New).unwrap();
    for beginning in [Beginning::New, Beginning::Resumed] {
        let error = open(beginning).unwrap_err();
        assert!(error.to_string().contains("another runner"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    assert_eq!(
        read(directory.path()).unwrap().records.len(),
        0,
        "to read is free"
    );
    drop(first);
    open(Beginning::Resumed).unwrap();
}

#[test]
fn runs_of_nobody_knows_what_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(RUNS);
    fs::write(&file, "1\n2").unwrap();
    let error = Journal::open(directory.path(), &manifest(), Beginning::New).unwrap_err();
    assert!(error.to_string().contains(MANIFEST), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "1\n2");
}

#[test]
fn runs_that_would_be_drawn_otherwise_are_not_gone_on_with() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path(), &manifest(), Beginning::New).unwrap();
    let mut other = record(2);
    other.resolved.first.seed += 1;
    journal.add(other).unwrap();
    drop(journal);
    let error = Journal::open(directory.path(), &manifest(), Beginning::Resumed).unwrap_err();
    assert!(error.to_string().contains("run 2 was drawn"), "{error}");
    assert_eq!(
        read(directory.path()).unwrap().records.len(),
        1,
        "a report is still made"
    );
}

#[test]
fn a_damaged_line_is_named_with_what_helps() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path(), &manifest(), Beginning::New).unwrap();
    journal.add(record(0)).unwrap();
    journal.runs.write_all(b"{\"resolved\":7}\n").unwrap();
    let error = read(directory.path()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let words = error.to_string();
    assert!(
        words.contains("line 2 is damaged") && words.contains("--resume"),
        "{words}"
    );
}

#[test]
fn a_file_is_no_directory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Journal::open(file.path(), &manifest(), Beginning::New).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
}
