//! Boot parameters that make no sense stop the boot, with a message.
//!
//! The one place where serial text is looked at: the message is for a person, and this is the
//! person.

use std::thread;
use std::time::{Duration, Instant};

use qemu_runner::emulator;
use qemu_runner::launch::Mode;
use qemu_runner::machine::Machine;
use tests::harness::{launch, take_turn};

const LIMIT: Duration = Duration::from_mins(1);

/// Boots with one more word on the command line and waits for a message that contains `expected`.
fn is_refused(word: &str, expected: &str) {
    let _turn = take_turn();
    let machine = Machine {
        append: word.into(),
        ..Machine::default()
    };
    let launch = launch(machine, Mode::Realtime);
    let emulator = emulator::start(&launch).expect("QEMU starts");
    let deadline = Instant::now() + LIMIT;
    while !emulator.serial_text().contains(expected) {
        assert!(
            Instant::now() < deadline,
            "\"{expected}\" is not in the serial log:\n{}",
            emulator.serial_text()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_unknown_key_is_refused() {
    is_refused("cels=4", "boot parameter \"cels=4\": unknown");
}

#[test]
fn an_impossible_value_is_refused() {
    is_refused("tick=1", "boot parameter \"tick=1\": expected 250 to 10000");
}

#[test]
fn a_repeated_key_is_refused() {
    is_refused("cells=2", "boot parameter \"cells=2\": given twice");
}
