//! The operations whose costs `bench` measures.

mod calls;

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use alloc::boxed::Box;
use alloc::sync::Arc;
use cell::trace::Event;
use cell::{CellId, FrameRange, Instant};

use crate::bench::Recorder;
use crate::memory::frames::FrameUse;
use crate::memory::{careful, guarded, pool};
use crate::own::own;
use crate::thread::wait::WaitQueue;
use crate::{clock, hypercall, thread, trace};

/// A task priority register that is written as it is: the cheapest register write.
const TASK_PRIORITY: u32 = 0x80;

/// How long a measurement waits for another thread or for the monitor.
const PATIENCE: Duration = Duration::from_millis(200);

/// Every measurement, in the order of the results.
pub(crate) const ALL: &[fn(&mut Recorder)] = &[
    small_things,
    hypercalls,
    remote_memory,
    firewall,
    threads,
    wake_up,
    calls::ping_pong,
    calls::null_calls,
];

fn small_things(recorder: &mut Recorder) {
    recorder.measure("clock read", 1000, || {
        black_box(clock::now());
    });
    recorder.measure("trace record", 200, || trace::record(Event::Injected, 0, 0));
    recorder.measure("heap allocate and free 64 bytes", 200, || {
        black_box(Box::new([0u64; 8]));
    });
    recorder.measure("frame allocate and free", 200, || {
        if let Some(frame) = pool::allocate(FrameUse::Kernel) {
            let _ = pool::release(frame, FrameUse::Kernel);
        }
    });
}

fn hypercalls(recorder: &mut Recorder) {
    recorder.measure("hypercall null", 32, || {
        let _ = hypercall::null();
    });
    recorder.measure("hypercall local APIC write", 32, || {
        let _ = hypercall::lapic_write(TASK_PRIORITY, 0);
    });
}

/// A live cell other than this one.
fn neighbour() -> Option<CellId> {
    let own = own();
    own.machine
        .membership
        .current()
        .1
        .without(own.cell)
        .lowest()
}

fn remote_memory(recorder: &mut Recorder) {
    let Some(neighbour) = neighbour() else { return };
    let reader = careful::reader_of_current(neighbour);
    recorder.measure("careful read of a word", 200, || {
        let _ = black_box(reader.clock_word(0));
    });
    recorder.measure("careful read of a header", 200, || {
        let _ = black_box(reader.header());
    });
    let mut page = Box::new([0u64; 512]);
    recorder.measure("careful read of a page", 20, || {
        let _ = black_box(reader.copy(reader.public(0), &mut *page));
    });
}

fn firewall(recorder: &mut Recorder) {
    let Some(row) = pool::allocate_row(64, 1, FrameUse::Page) else {
        return;
    };
    if let Some(neighbour) = neighbour() {
        let one = FrameRange::single(row.start);
        grant_and_revoke(
            recorder,
            neighbour,
            one,
            ["grant 1 page", "revoke 1 page, drained"],
        );
        grant_and_revoke(
            recorder,
            neighbour,
            row,
            ["grant 64 pages", "revoke 64 pages, drained"],
        );
    }
    let word = [0u8; 8];
    recorder.measure("guarded write of a word", 200, || {
        // SAFETY: the frame was just allocated and nobody holds a reference into it.
        let _ = unsafe { guarded::try_write(row.start.start(), &word) };
    });
    for frame in row.iter() {
        let _ = pool::release(frame, FrameUse::Page);
    }
}

fn grant_and_revoke(
    recorder: &mut Recorder,
    neighbour: CellId,
    frames: FrameRange,
    [grant, revoke]: [&str; 2],
) {
    let incarnation = own().machine.cell(neighbour).incarnation();
    recorder.sample(grant, || {
        let start = clock::cycles();
        let granted = hypercall::grant(frames, neighbour, incarnation);
        let end = clock::cycles();
        close(frames, neighbour);
        if let Err(error) = granted {
            log::warn!("bench: {neighbour:?} was granted nothing: {error:?}");
        }
        granted.ok().map(|()| end.wrapping_sub(start))
    });
    recorder.sample(revoke, || {
        hypercall::grant(frames, neighbour, incarnation).ok()?;
        let start = clock::cycles();
        close(frames, neighbour).then(|| clock::cycles().wrapping_sub(start))
    });
}

/// Revokes, and waits until no CPU of the neighbour can write by an older right. Whether that came
/// in time.
fn close(frames: FrameRange, neighbour: CellId) -> bool {
    let deadline = clock::now() + PATIENCE;
    if hypercall::revoke(frames, neighbour).is_err() {
        return false;
    }
    while hypercall::drained(neighbour).is_err() {
        if clock::now() > deadline {
            return false;
        }
    }
    true
}

fn threads(recorder: &mut Recorder) {
    recorder.measure("software interrupt, same thread", 100, thread::yield_now);
    recorder.measure("sleep of nothing", 100, || {
        let _ = thread::block(Some(Instant(0)));
    });
    recorder.sample("spawn and exit", || {
        let done = Arc::new((AtomicU64::new(0), WaitQueue::new()));
        let theirs = Arc::clone(&done);
        let start = clock::cycles();
        let body = move || {
            theirs.0.store(1, Ordering::Release);
            theirs.1.wake_all();
        };
        thread::spawn("measured", thread::Priority::Background, body).ok()?;
        let deadline = Some(clock::now() + PATIENCE);
        done.1
            .wait(deadline, || {
                (done.0.load(Ordering::Acquire) == 1).then_some(())
            })
            .ok()?;
        Some(clock::cycles().wrapping_sub(start))
    });
}

/// A thread that answers every number with the cycle count at which it saw it.
struct Partner {
    asked: AtomicU64,
    answered: AtomicU64,
    seen_at: AtomicU64,
    asked_one: WaitQueue,
    asking_one: WaitQueue,
}

fn wake_up(recorder: &mut Recorder) {
    let partner = Arc::new(Partner {
        asked: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        seen_at: AtomicU64::new(0),
        asked_one: WaitQueue::new(),
        asking_one: WaitQueue::new(),
    });
    let theirs = Arc::clone(&partner);
    let body = move || answer(&theirs);
    if thread::spawn("partner", thread::Priority::Background, body).is_err() {
        return;
    }
    let mut number = 0;
    recorder.sample("wake-up of a sleeping thread", || {
        number += 1;
        ask(&partner, number)
    });
    partner.asked.store(u64::MAX, Ordering::Release);
    partner.asked_one.wake_all();
}

fn answer(partner: &Partner) {
    let mut last = 0;
    while let Ok(asked) = partner.asked_one.wait(Some(clock::now() + PATIENCE), || {
        let asked = partner.asked.load(Ordering::Acquire);
        (asked != last).then_some(asked)
    }) {
        partner.seen_at.store(clock::cycles(), Ordering::Relaxed);
        partner.answered.store(asked, Ordering::Release);
        partner.asking_one.wake_all();
        if asked == u64::MAX {
            return;
        }
        last = asked;
    }
}

/// Wakes the partner when it surely sleeps; the cycles until it ran.
fn ask(partner: &Partner, number: u64) -> Option<u64> {
    thread::sleep(Duration::from_millis(3));
    let start = clock::cycles();
    partner.asked.store(number, Ordering::Release);
    partner.asked_one.wake_all();
    let deadline = Some(clock::now() + PATIENCE);
    let has_answered = || (partner.answered.load(Ordering::Acquire) == number).then_some(());
    partner.asking_one.wait(deadline, has_answered).ok()?;
    Some(
        partner
            .seen_at
            .load(Ordering::Relaxed)
            .saturating_sub(start),
    )
}
