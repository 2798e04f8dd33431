//! Starts the worker threads, and answers the calls of other cells' workers.

use alloc::boxed::Box;
use core::time::Duration;

use cell::public::WORKLOAD_OFFSET;
use cell::trace::Event;
use cell::workload::WorkloadRecord;
use rpc::Payload;
use rpc::message::{ReplyStatus, Request};
use userland::{CALL_WORDS, Worker, WorkerSettings, account};

use super::services::KernelServices;
use crate::memory::window;
use crate::own::own;
use crate::thread::{self, Priority};
use crate::{clock, trace};

/// The account of this cell's workers.
pub(super) fn record() -> &'static WorkloadRecord {
    // SAFETY: a part of the own public area, mapped for as long as the cell lives, made of atomics
    // that any bit pattern fits.
    unsafe { &*window::pointer::<WorkloadRecord>(own().public(WORKLOAD_OFFSET)) }
}

/// Starts the workers that the boot parameters ask for.
pub fn start() {
    let own = own();
    let workers = own.settings.workers as usize;
    account::open(record(), own.incarnation, workers, clock::now());
    for worker in 0..workers {
        let settings = WorkerSettings {
            seed: own.settings.seed,
            cell: own.cell,
            life: own.incarnation,
            worker,
            doubt: WorkerSettings::DOUBT,
        };
        let body = move || work(settings);
        if let Err(error) = thread::spawn("worker", Priority::Worker, body) {
            log::warn!("worker {worker} not started: {error:?}");
        }
    }
    trace::record(Event::WorkBegin, workers as u64, 0);
}

fn work(settings: WorkerSettings) {
    let rest = Duration::from_micros(own().settings.rest_microseconds.into());
    let mut services = KernelServices;
    let mut worker = Box::new(Worker::new(settings));
    loop {
        worker.step(&mut services);
        if rest.is_zero() {
            thread::yield_now();
        } else {
            thread::sleep(rest);
        }
    }
}

/// Answers the call of another cell's worker. Fit for interrupt level.
pub fn answer(request: &Request) -> (ReplyStatus, Payload) {
    let own = own();
    let words: Option<[u64; CALL_WORDS]> = request.payload.to_words();
    let answer =
        words.and_then(|words| userland::answer(own.settings.seed, own.cell, request.from, &words));
    match answer {
        Some(words) => (ReplyStatus::Done, Payload::from_words(words)),
        None => (ReplyStatus::BadArgument, Payload::EMPTY),
    }
}
