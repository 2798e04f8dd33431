//! Every call gets exactly one outcome, whatever happens to messages.

use super::*;
use crate::call::{Call, CallTable, Completion, Outcome, Waiter};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The caller begins a call and sends it.
    Call,
    /// The server serves one message.
    Serve,
    /// The caller takes one message.
    Poll,
    /// So many nanoseconds go by, with a tick at the end.
    Wait(u64),
    /// One side does mischief.
    Mischief(usize, InnerFault, u64),
    /// A word of a slot of one side changes.
    Damage(usize, Queue, usize, usize, u64),
    /// The caller hears that the server is gone, and a moment later that it is not.
    Gone,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop::sample::select(vec![
        InnerFault::RpcDrop,
        InnerFault::RpcDuplicate,
        InnerFault::RpcCorrupt,
        InnerFault::RpcDelay,
    ]);
    let queue = prop::sample::select(Queue::ALL.to_vec());
    prop_oneof![
        6 => Just(Step::Call),
        6 => Just(Step::Serve),
        6 => Just(Step::Poll),
        2 => (1u64..40).prop_map(Step::Wait),
        2 => (0usize..2, fault, 1u64..4)
            .prop_map(|(side, fault, count)| Step::Mischief(side, fault, count)),
        1 => (0usize..2, queue, 0..SLOTS as usize, 0usize..16, any::<u64>())
            .prop_map(|(side, queue, slot, word, value)| {
                Step::Damage(side, queue, slot, word, value)
            }),
        1 => Just(Step::Gone),
    ]
}

const SPAN: u64 = 100;

/// A caller (cell 0) and a server (cell 1), and what the caller got.
struct World<'a> {
    endpoints: [Endpoint<'a, HostLocking>; 2],
    memory: &'a [CellMemory; 2],
    table: CallTable,
    outstanding: BTreeMap<u64, Call>,
    /// Ends that were reported, by waiter.
    reported: BTreeMap<u64, u32>,
    outcomes: BTreeMap<u64, Outcome>,
    now: Instant,
}

impl World<'_> {
    fn call(&mut self) {
        let waiter = self.outstanding.len() as u64 + self.outcomes.len() as u64;
        let deadline = Instant(self.now.0 + SPAN);
        let Ok(call) = self
            .table
            .begin(cell(1), Operation::Compute, deadline, Waiter(waiter))
        else {
            return;
        };
        let request = (Operation::Compute, Payload::from_words([waiter, 1]));
        let remote = self.memory[1].lane_for(0);
        let sent =
            self.endpoints[0].send_request(cell(1), call.number(), request, self.now, &remote);
        if sent.is_ok() {
            self.table.mark_sent(&call);
        }
        self.outstanding.insert(waiter, call);
    }

    fn serve(&self) {
        let remote = self.memory[0].lane_for(1);
        let Some(Ok(Message::Request(request))) = self.endpoints[1].poll(cell(0), &remote) else {
            return;
        };
        let [waiter, _] = request.payload.to_words().unwrap();
        let answer = (ReplyStatus::Done, Payload::from_words([!waiter]));
        let _ = self.endpoints[1].send_reply(&request, answer, self.now, &remote);
    }

    fn poll(&mut self) -> bool {
        let remote = self.memory[1].lane_for(0);
        let Some(result) = self.endpoints[0].poll(cell(1), &remote) else {
            return false;
        };
        if let Ok(Message::Reply(reply)) = result {
            match self.table.complete(&reply) {
                Completion::Ended(waiter) => *self.reported.entry(waiter.0).or_default() += 1,
                Completion::Late => {}
                Completion::Mismatched => panic!("a damaged reply was believed"),
            }
        }
        true
    }

    fn wait(&mut self, span: u64) {
        self.now = Instant(self.now.0 + span);
        for own in 0..2 {
            let remote = self.memory[1 - own].lane_for(own);
            let _ = self.endpoints[own].tend(cell(1 - own), self.now, &remote);
        }
        let reported = &mut self.reported;
        self.table.expire(self.now, |end| {
            *reported.entry(end.waiter.0).or_default() += 1;
        });
        self.collect();
    }

    fn gone(&mut self) {
        let reported = &mut self.reported;
        self.table.peer_gone(cell(1), |end| {
            *reported.entry(end.waiter.0).or_default() += 1;
        });
        self.endpoints[0].forget(cell(1));
        self.endpoints[0].admit(cell(1), Incarnation(1));
    }

    /// Takes the outcomes of calls that ended.
    fn collect(&mut self) {
        for (waiter, call) in core::mem::take(&mut self.outstanding) {
            match self.table.take(call) {
                Ok(outcome) => assert_eq!(self.outcomes.insert(waiter, outcome), None),
                Err(call) => _ = self.outstanding.insert(waiter, call),
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Call => self.call(),
            Step::Serve => self.serve(),
            Step::Poll => _ = self.poll(),
            Step::Wait(span) => self.wait(span),
            Step::Gone => self.gone(),
            Step::Mischief(side, fault, count) => {
                let span = Duration::from_nanos(SPAN / 2);
                let order = MischiefOrder {
                    fault,
                    attributes: Attributes::new(count),
                    to: CellSet::EMPTY,
                    operation: None,
                    span,
                    seed: self.now.0,
                };
                self.endpoints[side].order_mischief(order);
            }
            Step::Damage(side, queue, slot, word, value) => {
                let lane = &self.memory[side].lanes[1 - side];
                let mut words = [0; 16];
                lane.copy_slot(queue, slot, 0, &mut words);
                words[word] = value;
                lane.fill(queue, slot, &words);
            }
        }
    }
}

proptest! {
    #[test]
    fn every_call_gets_exactly_one_outcome(steps in prop::collection::vec(step(), 0..300)) {
        let memory = [CellMemory::new(2), CellMemory::new(2)];
        let endpoints = [memory[0].endpoint(0, 1), memory[1].endpoint(1, 1)];
        admit_each_other([&endpoints[0], &endpoints[1]]);
        let mut world = World {
            endpoints,
            memory: &memory,
            table: CallTable::new(),
            outstanding: BTreeMap::new(),
            reported: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            now: Instant(1),
        };
        for step in steps {
            world.step(step);
        }
        world.wait(SPAN);
        prop_assert!(world.outstanding.is_empty(), "a call without outcome");
        let begun = world.table.statistics().begun;
        prop_assert_eq!(world.outcomes.len() as u64, begun);
        prop_assert!(world.outcomes.keys().all(|waiter| world.reported.get(waiter) == Some(&1)));
        for (waiter, outcome) in &world.outcomes {
            if let Outcome::Reply(status, payload) = outcome {
                prop_assert_eq!(*status, ReplyStatus::Done);
                prop_assert_eq!(payload.to_words(), Some([!waiter]));
            }
        }
        for _ in 0..=2 * SLOTS {
            world.serve();
            world.poll();
        }
        prop_assert!(!world.poll(), "the rings are not empty after a bounded number of polls");
    }
}
