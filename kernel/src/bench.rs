//! What the kernel's operations cost, measured when the host asks for it.
//!
//! The host raises `requested` in the bench record of the public area; a thread of the lowest
//! priority measures and answers in `done`. Each result is a name and samples; a sample is the
//! mean of one batch, or its median for exchanges between cells, in time-stamp counter cycles, so
//! that the runner can tell median and worst.
//!
//! # Not guaranteed
//! That nothing else ran meanwhile: measure on a machine without work.

use core::sync::atomic::{AtomicU32, Ordering};

use cell::public::{BENCH_OFFSET, BENCH_RESULTS_MAX, BENCH_SAMPLES, BenchRecord, BenchResult};

use crate::memory::window;
use crate::own::own;
use crate::{clock, measurements, thread};

/// The request that is being carried out, or was last.
static TAKEN: AtomicU32 = AtomicU32::new(0);

fn record() -> *mut BenchRecord {
    window::pointer(own().public(BENCH_OFFSET))
}

/// The counters of the record.
fn counters() -> (&'static AtomicU32, &'static AtomicU32, &'static AtomicU32) {
    let record = record();
    // SAFETY: the record is a part of the own public area, mapped for as long as the cell lives;
    // these fields are atomics.
    unsafe {
        (
            &(*record).requested,
            &(*record).done,
            &(*record).results_count,
        )
    }
}

/// Forgets what an earlier life was asked for. Boot CPU, once.
pub fn set_up() {
    let (requested, done, _) = counters();
    let past = if own().incarnation.0 > 1 {
        requested.load(Ordering::Acquire)
    } else {
        0
    };
    done.store(past, Ordering::Relaxed);
    TAKEN.store(past, Ordering::Relaxed);
}

/// Looks for a request. Interrupt level.
pub fn at_tick() {
    let (requested, done, _) = counters();
    let request = requested.load(Ordering::Acquire);
    let taken = TAKEN.load(Ordering::Acquire);
    // One at a time: the last one must be done.
    if request == taken || done.load(Ordering::Acquire) != taken {
        return;
    }
    if TAKEN
        .compare_exchange(taken, request, Ordering::AcqRel, Ordering::Relaxed)
        .is_err()
    {
        return;
    }
    if let Err(error) = thread::spawn("bench", thread::Priority::Background, move || run(request)) {
        log::warn!("bench: no thread: {error:?}");
        done.store(request, Ordering::Release);
    }
}

fn run(request: u32) {
    let (_, done, results_count) = counters();
    results_count.store(0, Ordering::Release);
    let mut recorder = Recorder { count: 0 };
    for measurement in measurements::ALL {
        measurement(&mut recorder);
    }
    results_count.store(recorder.count as u32, Ordering::Release);
    done.store(request, Ordering::Release);
}

/// Writes results into the record.
#[derive(Debug)]
pub struct Recorder {
    count: usize,
}

impl Recorder {
    /// Measures `operation`: one batch to warm up, then [`BENCH_SAMPLES`] batches of `batch` calls
    /// each.
    pub fn measure(&mut self, name: &str, batch: u64, mut operation: impl FnMut()) {
        self.sample(name, || {
            let start = clock::cycles();
            for _ in 0..batch {
                operation();
            }
            Some(clock::cycles().wrapping_sub(start) / batch.max(1))
        });
    }

    /// Records [`BENCH_SAMPLES`] samples that `sample` measures itself; `None` ends the measurement
    /// early.
    pub fn sample(&mut self, name: &str, mut sample: impl FnMut() -> Option<u64>) {
        let Some(result) = self.next_result(name) else {
            return;
        };
        if sample().is_none() {
            return;
        }
        for (number, slot) in result.samples.iter().enumerate() {
            let Some(cycles) = sample() else { return };
            slot.store(cycles, Ordering::Relaxed);
            result
                .samples_count
                .store(number as u64 + 1, Ordering::Release);
        }
    }

    /// The next result of the record, named and empty; `None` if the record is full.
    fn next_result(&mut self, name: &str) -> Option<&'static BenchResult> {
        const { assert!(BENCH_SAMPLES > 0) };
        if self.count == BENCH_RESULTS_MAX {
            return None;
        }
        // SAFETY: the index is in range, and only the one bench thread writes results. The name is
        // written through the raw pointer before any reference to the result is made; its other
        // fields are atomics.
        let result = unsafe {
            let result = &raw mut (*record()).results[self.count];
            let room = &raw mut (*result).name;
            let mut bytes = [0; 40];
            for (to, from) in bytes.iter_mut().zip(name.bytes()) {
                *to = from;
            }
            room.write_volatile(bytes);
            &*result
        };
        result.samples_count.store(0, Ordering::Relaxed);
        self.count += 1;
        Some(result)
    }
}
