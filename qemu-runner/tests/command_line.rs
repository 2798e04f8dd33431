//! The program as a user meets it: exit codes, and JSON where it is asked for.
//!
//! Nothing here boots a machine.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::process::{Command, Output};

use serde_json::Value;

fn hive(words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qemu-runner"));
    command.args(words.split_whitespace()).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn usage_errors_exit_with_2() {
    for words in [
        "runn",
        "inject cpu.smoke",
        "inject cpu.halt --cell 4",
        "run --cells 9",
        "run --memory 1T1",
        "run --append tick=1",
        "run --memory 99999G",
        "inject cpu.halt --then sw.panic",
        "campaign check /nonexistent.toml",
        "campaign run /nonexistent.toml --runs 0",
        "campaign report /nonexistent",
        "campaign compare /nonexistent /nonexistent",
        "replay /nonexistent 0",
        "iso /",
        "iso /nonexistent/x.iso",
        "inject cpu.halt --trace /nonexistent/x.json",
        "inject cpu.halt --trace /",
        "inject rpc.drop --cell 1 --to 1",
        "campaign check /",
        "campaign report / --mttf 3m",
    ] {
        let output = hive(words);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(!output.stderr.is_empty(), "{words} is explained");
    }
}

#[test]
fn missing_images_exit_with_3() {
    let output = hive("inject cpu.halt --images /nonexistent --json");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(json(&output)["kind"], "build");
}

#[test]
fn a_campaign_is_checked_without_a_machine() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/campaigns/hive-1995.toml"
    );
    let text = hive(&format!("campaign check {file}"));
    assert_eq!(text.status.code(), Some(0));
    let checked = json(&hive(&format!("campaign check {file} --json")));
    assert_eq!(checked["name"], "hive-1995");
    assert_eq!(checked["classes"].as_array().unwrap().len(), 5);
}

#[test]
fn the_catalogue_is_printed_as_text_and_as_json() {
    let list = json(&hive("inject list --json"));
    let faults = list["faults"].as_array().unwrap().len();
    let text = hive("inject list");
    assert_eq!(text.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&text.stdout).lines().count(),
        faults + 1
    );
}

#[test]
fn a_campaign_needs_a_directory_and_says_so_before_anything_is_built() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/campaigns/hive-1995.toml"
    );
    let output = hive(&format!("campaign run {file} --out {file}"));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is no directory"));
    let output = hive(&format!(
        "campaign check {file} --states /nonexistent/x.svg"
    ));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_a_campaign_file_lacks_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("campaign.toml");
    let shown = path.display();
    let said = |words: &str| {
        let output = hive(words);
        assert_eq!(output.status.code(), Some(2), "{words}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let check = format!("campaign check {shown}");
    assert!(said(&check).contains("does not exist"));
    let head = "schema = \"hive-campaign/1\"\n[campaign]\nname = \"a\"\npurpose = \"b\"\n";
    std::fs::write(&path, head).unwrap();
    assert!(said(&check).contains("expected at least one [[fault]]"));
    let fault = |model: &str, object: &str| {
        let target = "target = { cell = 1 }\nwhen = { work_ms = 1 }";
        format!("[[fault]]\nid = \"f\"\nmodel = \"{model}\"\n{target}\n{object}")
    };
    let object = fault("mem.burst", "object = \"no::SUCH\"\n");
    std::fs::write(&path, format!("{head}{object}")).unwrap();
    let output = hive(&check);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("only when the campaign is run: no::SUCH"),
        "{text}"
    );
    let own = directory.path().display();
    let refused = said(&format!("campaign run {shown} --out {own}"));
    assert!(refused.contains("campaign.toml"), "{refused}");
    let mode = "[machine]\nfirewall = \"ept\"\n";
    let head = head.replace("purpose", "mode = \"deterministic\"\npurpose");
    std::fs::write(&path, format!("{head}{mode}{}", fault("sw.panic", ""))).unwrap();
    assert!(said(&check).contains("line 7: firewall: "));
}
