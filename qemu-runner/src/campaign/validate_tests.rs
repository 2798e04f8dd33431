//! Campaign files that are refused, and what is said of them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use crate::fault::plan::Registers;
use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

/// A file with everything in it, one key to a line.
const GOOD: &str = r#"schema = "hive-campaign/1"
[campaign]
name = "test"
purpose = "To be tested"
seed = 0x5EED_1995                  # hex and comments
precision = { half_width = 0.1 }
controls = { golden = 0.1, null = 0.2 }
rehearsals = 2
[machine]
cells = 4
cpus = 8
memory_mib = 512
[invariants]
survivors_progress_ms = 50
[[fault]]
id = "halt"
weight = 3
model = "cpu.halt"
target = { cell = "random", cpu = [0, 1] }
when = { work_ms = { uniform = [500, 2000] } }
[[fault]]
id = "write"
model = "sw.wild_write"
target = { cell = 2 }
argument = { log_uniform = [1, 1000] }
when = { work_ms = 500 }
[[fault.then]]
model = "cpu.freeze"
target = { cell = "random_survivor" }
thaw_ms = { choice = [10, 20] }
when = { event = "recovery.barrier1", count = 2, delay_us = 100 }
[[fault.then]]
model = "mem.burst"
target = { cell = 0 }
object = "scheduler::TABLE"
when = { load = 3 }
[[fault]]
id = "messages"
model = "rpc.drop"
target = { cell = 1, to = "random_survivor", operation = "work" }
when = { rate_per_s = 2.0, probability = 0.5, times = { geometric = 0.2 }, space = 100 }
repeat = { faults = 5, rate_per_s = 10.0, until = "death" }
[[fault]]
id = "threads"
model = "program.kill"
target = { cell = 1, program = "server" }
when = { work_ms = 1, symbol = "scheduler::wake", run_ms = 4 }
[[fault]]
id = "register"
model = "reg.bitflip"
registers = "control"
target = { cell = 1 }
when = { work_ms = 1, access = "scheduler::TABLE" }
"#;

#[test]
fn a_good_file_is_read_as_written() {
    let campaign = Campaign::parse(GOOD).unwrap();
    assert_eq!(campaign.name(), "test");
    assert_eq!(campaign.header.seed, 0x5EED_1995);
    assert_eq!(campaign.invariants.survivors_progress_ms, Some(50));
    let [halt, write, messages, _, register] = campaign.classes.as_slice() else {
        panic!("not five classes")
    };
    assert_eq!(messages.target.get_ref().to, Some(Choice::RandomSurvivor));
    let registers = register.registers.as_ref().unwrap();
    assert_eq!(*registers.get_ref(), Registers::Control);
    assert_eq!(
        (halt.id.get_ref().as_str(), *halt.weight.get_ref()),
        ("halt", 3)
    );
    assert_eq!(halt.target.get_ref().cpu, Choice::Of(vec![0, 1]));
    let work = halt.when.get_ref().work_ms.as_ref().unwrap();
    assert_eq!(work.get_ref(), &Number::Uniform(500, 2000));
    assert_eq!(*write.weight.get_ref(), 1);
    let [then, third] = write.then.0.as_slice() else {
        panic!("not two more faults")
    };
    let event = then.when.get_ref().event.unwrap();
    assert_eq!(event.name(), "recovery.barrier1");
    assert_eq!(third.when.get_ref().load, Some(3));
    assert_eq!(then.target.get_ref().cell, Choice::RandomSurvivor);
}

/// Replaces `old` in the good file and says what it is refused with.
fn refused(old: &str, new: &str) -> Problem {
    assert!(GOOD.contains(old), "{old}");
    match Campaign::parse(&GOOD.replacen(old, new, 1)) {
        Err(problem) => problem,
        Ok(_) => panic!("{new} is not refused"),
    }
}

/// What stands in the good file, what takes its place; line, key, and a part of what is said.
const REFUSED: &[(&str, &str, usize, &str, &str)] = &[
    ("campaign/1", "campaign/9", 1, "schema", "hive-campaign/1"),
    (
        "name = \"test\"",
        "nam = \"test\"",
        3,
        "nam",
        "expected one of",
    ),
    ("\"test\"", "\"a test\"", 3, "name", "letters, digits"),
    ("\"To be tested\"", "\" \"", 4, "purpose", "a sentence"),
    (
        "work_ms = 500",
        "work_ms = { exponential = 0 }",
        26,
        "work_ms",
        "a mean of 0",
    ),
    (
        "seed = 0x5EED_1995",
        "seed = \"x\"",
        5,
        "seed",
        "expected u64",
    ),
    (
        "half_width = 0.1",
        "half_width = 2",
        6,
        "half_width",
        "a share above 0",
    ),
    ("golden = 0.1", "golden = 0.8", 7, "controls", "at most 0.9"),
    (
        "golden = 0.1",
        "golden = 0.0",
        7,
        "golden",
        "a share above 0",
    ),
    (
        "rehearsals = 2",
        "rehearsals = 200",
        8,
        "rehearsals",
        "at most 100",
    ),
    ("cells = 4", "cells = 40", 9, "[machine]", "cells"),
    (
        "memory_mib = 512",
        "memory_mib = 16",
        9,
        "[machine]",
        "MiB of memory",
    ),
    (
        "memory_mib = 512",
        "memory = 512",
        12,
        "memory",
        "expected one of",
    ),
    ("\"halt\"", "\"write\"", 22, "id", "no other fault has"),
    ("weight = 3", "weight = 0", 17, "weight", "expected 1 to"),
    (
        "\"cpu.halt\"",
        "\"cpu.smoke\"",
        18,
        "model",
        "no fault \"cpu.smoke\"",
    ),
    ("\"random\",", "\"any\",", 19, "cell", "\"random_survivor\""),
    (
        "\"random\",",
        "\"random_survivor\",",
        19,
        "target",
        "only a second fault",
    ),
    ("\"random\",", "[],", 19, "cell", "a list of numbers"),
    (
        "[0, 1]",
        "[0, 2]",
        19,
        "target",
        "there is no CPU 2; expected 0 to 1",
    ),
    (
        "cell = 2",
        "cell = 4",
        24,
        "target",
        "there is no cell 4; expected 0 to 3",
    ),
    (
        "cell = 2",
        "cell = 2, cpu = 1",
        24,
        "target",
        "no fault of one CPU",
    ),
    (
        "uniform = [500, 2000]",
        "uniform = [5, 2]",
        20,
        "work_ms",
        "[least, greatest]",
    ),
    (
        "uniform = [500, 2000]",
        "normal = [5, 9]",
        20,
        "work_ms",
        "no draw \"normal\"",
    ),
    (
        "uniform = [500, 2000]",
        "uniform = 5",
        20,
        "uniform",
        "a sequence",
    ),
    ("work_ms = 500", "work_ms = -5", 26, "work_ms", "below 0"),
    (
        "work_ms = 500",
        "work_ms = 9_000_000",
        26,
        "work_ms",
        "expected 0 to 3600000",
    ),
    (
        "log_uniform = [1,",
        "log_uniform = [0,",
        25,
        "argument",
        "both above 0",
    ),
    (
        "sw.wild_write",
        "sw.panic",
        25,
        "argument",
        "sw.panic takes no number",
    ),
    ("cpu.freeze", "cpu.halt", 30, "thaw_ms", "does not thaw"),
    ("recovery.barrier1", "recovery.tea", 31, "event", "no event"),
    ("count = 2", "count = 0", 31, "count", "expected 1 to"),
    (
        "load = 3",
        "work_ms = 3",
        36,
        "when",
        "only a first fault has work_ms",
    ),
    (
        "load = 3",
        "count = 3",
        36,
        "when",
        "expected event, symbol, write, access or load",
    ),
    (
        "load = 3",
        "load = 3, symbol = \"x\"",
        36,
        "when",
        "expected one of event",
    ),
    (
        "\"mem.burst\"",
        "\"cpu.nmi\"",
        35,
        "object",
        "no fault of memory",
    ),
    (
        "object = ",
        "area = \"heap\"\nobject = ",
        36,
        "object",
        "only one of area and object",
    ),
    (
        "rate_per_s = 2.0, ",
        "rate_per_s = 2.0, work_ms = 1, ",
        41,
        "when",
        "one of work_ms and rate_per_s",
    ),
    ("rate_per_s = 2.0, ", "", 41, "when", "one of work_ms and"),
    (
        "rate_per_s = 2.0",
        "rate_per_s = 0.0",
        41,
        "rate_per_s",
        "faults per second",
    ),
    (
        "probability = 0.5",
        "probability = 1.5",
        41,
        "probability",
        "a probability above 0",
    ),
    (
        "geometric = 0.2",
        "geometric = 2.0",
        41,
        "geometric",
        "a share above 0",
    ),
    (
        "space = 100",
        "run_ms = 100",
        41,
        "run_ms",
        "ends no thread",
    ),
    (
        "\"rpc.drop\"",
        "\"sw.panic\"",
        41,
        "when",
        "waits at no hook",
    ),
    (
        "operation = \"work\"",
        "operation = \"tea\"",
        40,
        "target",
        "no operation \"tea\"",
    ),
    (
        "\"random_survivor\", operation = \"work\"",
        "[1]",
        40,
        "target",
        "cell 1 sends itself nothing",
    ),
    (
        "operation = \"work\"",
        "program = \"work\"",
        40,
        "target",
        "ends no thread",
    ),
    ("faults = 5", "faults = 0", 42, "faults", "expected 1 to"),
    (
        "\"death\"",
        "\"tea\"",
        42,
        "until",
        "expected `death` or `bound`",
    ),
    (
        "\"death\"",
        "\"bound\", anew = \"class\"",
        42,
        "repeat",
        "waits for something",
    ),
    (
        "\"reg.bitflip\"",
        "\"cpu.nmi\"",
        51,
        "registers",
        "no fault of registers",
    ),
    (
        "\"control\"",
        "\"colour\"",
        51,
        "registers",
        "unknown variant",
    ),
    (
        "weight = 3",
        "area = \"image\"",
        17,
        "area",
        "no fault of memory",
    ),
    ("weight = 3", "weight 3", 17, "\"weight 3\"", "expected"),
];

#[test]
fn mistakes_are_refused_with_line_key_and_what_was_expected() {
    for &(old, new, line, key, says) in REFUSED {
        let problem = refused(old, new);
        assert_eq!(
            (problem.line, problem.key.as_str()),
            (line, key),
            "{new}: {problem}"
        );
        assert!(problem.problem.contains(says), "{new}: {problem}");
    }
}

#[test]
fn a_campaign_needs_a_fault() {
    let (head, _) = GOOD.split_once("[[fault]]").unwrap();
    let problem = Campaign::parse(head).unwrap_err();
    assert_eq!(problem.problem, "expected at least one [[fault]]");
    let empty = head.replace("[campaign]", "fault = []\n[campaign]");
    let problem = Campaign::parse(&empty).unwrap_err();
    assert_eq!(problem.problem, "expected at least one [[fault]]");
}

#[test]
fn a_firewall_that_the_emulator_lacks_is_refused_where_it_stands() {
    let text = GOOD.replacen("cells = 4", "firewall = \"ept\"\ncells = 4", 1);
    let campaign = Campaign::parse(&text).unwrap();
    let problem = check_accelerator(&text, &campaign, Accelerator::Tcg).unwrap_err();
    assert_eq!((problem.line, problem.key.as_str()), (10, "firewall"));
    check_accelerator(&text, &campaign, Accelerator::Kvm).unwrap();
}

#[test]
fn what_of_the_kernel_is_named_is_known_beforehand() {
    let campaign = Campaign::parse(GOOD).unwrap();
    let names = names_of(&campaign).map(|name| match name {
        Name::Object(name, _) => ("object", name),
        Name::Function(name, _) => ("function", name),
    });
    let table = ("object", "scheduler::TABLE");
    let wake = ("function", "scheduler::wake");
    assert_eq!(names.collect::<Vec<_>>(), [table, wake, table]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Campaign::parse(&String::from_utf8_lossy(&bytes));
    }

    /// Most bytes are no TOML at all; a good file with a hole in it goes deeper.
    #[test]
    fn no_damage_makes_it_panic(at in 0..GOOD.len(), cut in 0..40_usize, put in "\\PC{0,8}") {
        let end = (at + cut).min(GOOD.len());
        let damaged = format!("{}{put}{}", &GOOD[..at], &GOOD[end..]);
        if let Err(problem) = Campaign::parse(&damaged) {
            prop_assert!(problem.line >= 1 && !problem.key.is_empty());
        }
    }
}

#[test]
fn a_name_that_the_kernel_lacks_is_the_files_mistake() {
    let text = "a = 1\nobject = \"TABLE.nothing\"\n";
    let error = misnamed(
        (Path::new("x.toml"), text),
        15,
        Error::Guest("no field".into()),
    );
    assert_eq!(error.to_string(), "x.toml: line 2: object: no field");
    assert_eq!(error.exit_code(), 2);
    let error = misnamed((Path::new("x.toml"), text), 15, Error::Interrupted);
    assert!(matches!(error, Error::Interrupted));
}

/// A fault with one line changed; what is said of it, and of which key.
#[test]
fn numbers_that_mean_nothing_or_never_end_are_refused() {
    const FILE: &str = r#"
schema = "hive-campaign/1"
[campaign]
name = "numbers"
purpose = "To be refused"
runs = 5
[[fault]]
id = "one"
model = "irq.spurious"
target = { cell = 1 }
when = { work_ms = 300 }
"#;
    assert!(Campaign::parse(FILE).is_ok());
    for (old, new, key, said) in [
        ("runs = 5", "runs = 0", "runs", "1 to 1000000"),
        ("runs = 5", "runs = 4294967295", "runs", "1 to 1000000"),
        (
            "\ntarget",
            "\nargument = 0\ntarget",
            "argument",
            "1 to 10000",
        ),
        (
            "\ntarget",
            "\nargument = 1_000_000_000_000\ntarget",
            "argument",
            "1 to 10000",
        ),
        (
            "irq.spurious\"\ntarget = { cell = 1",
            "program.kill\"\ntarget = { cell = 1, program = \"a name that is too long\"",
            "target",
            "1 to 16 bytes",
        ),
    ] {
        assert!(FILE.contains(old), "{old}");
        let problem = Campaign::parse(&FILE.replacen(old, new, 1)).unwrap_err();
        assert_eq!(problem.key, key, "{new}: {problem}");
        assert!(problem.problem.contains(said), "{new}: {problem}");
    }
}
