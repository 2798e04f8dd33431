//! Careful references to a cell that does its worst.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::address::Frame;
use core::cell::RefCell;
use proptest::prelude::*;

const BASE: u64 = 0x10_0000;
const REGION: FrameRange = FrameRange {
    start: Frame(0x100),
    end: Frame(0x101),
};

type Hook = Box<dyn FnMut(&mut [u64], usize)>;

/// One frame of a sick cell. The hook may change the memory before each load; loads outside the
/// frame panic.
struct FakeMemory {
    words: RefCell<Vec<u64>>,
    broken: Option<u64>,
    hook: RefCell<Hook>,
}

impl FakeMemory {
    fn new(words: &[u64]) -> Self {
        let mut memory = words.to_vec();
        memory.resize(512, 0);
        Self {
            words: memory.into(),
            broken: None,
            hook: RefCell::new(Box::new(|_, _| {})),
        }
    }

    fn with_hook(words: &[u64], hook: impl FnMut(&mut [u64], usize) + 'static) -> Self {
        Self {
            hook: RefCell::new(Box::new(hook)),
            ..Self::new(words)
        }
    }

    fn reader(&self) -> CarefulReader<'_, Self> {
        CarefulReader::new(self, REGION, CellId::new(3).unwrap(), Incarnation(7))
    }
}

impl RemoteMemory for FakeMemory {
    fn copy(&self, from: PhysicalAddress, to: &mut [u64]) -> Result<(), BusError> {
        for (position, word) in to.iter_mut().enumerate() {
            let address = from.0 + position as u64 * 8;
            if self.broken == Some(address) {
                return Err(BusError {
                    address: PhysicalAddress(address),
                });
            }
            let index = ((address - BASE) / 8) as usize;
            (self.hook.borrow_mut())(&mut self.words.borrow_mut(), index);
            *word = self.words.borrow()[index];
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq)]
struct Node {
    value: u64,
    next: u64,
}

impl Tagged for Node {
    const TAG: u64 = 0x4e4f_4445;
    const WORDS: usize = 3;

    fn from_words(words: &[u64]) -> Option<Self> {
        (words[1] < 100).then_some(Self {
            value: words[1],
            next: words[2],
        })
    }
}

impl Linked for Node {
    fn next(&self) -> Option<RemoteAddress> {
        (self.next != 0).then_some(RemoteAddress::claimed(self.next))
    }
}

fn at(word: u64) -> RemoteAddress {
    RemoteAddress::claimed(BASE + word * 8)
}

fn failure<T: fmt::Debug>(result: Result<T, CarefulError>) -> CarefulFailure {
    let error = result.unwrap_err();
    assert_eq!((error.cell.index(), error.incarnation), (3, Incarnation(7)));
    error.failure
}

#[test]
fn step_1_a_bus_error_in_the_middle_ends_the_copy() {
    let mut memory = FakeMemory::new(&[1, 2, 3]);
    memory.broken = Some(BASE + 16);
    let found = failure(memory.reader().copy(at(0), &mut [0; 4]));
    assert_eq!(found, CarefulFailure::BusError(PhysicalAddress(BASE + 16)));
    assert_eq!(memory.reader().word(at(1)), Ok(2));
}

#[test]
fn step_2_addresses_outside_the_cell_are_never_loaded() {
    let memory = FakeMemory::new(&[]);
    let reader = memory.reader();
    for raw in [0, BASE - 8, BASE + 4096, u64::MAX - 7] {
        let from = RemoteAddress::claimed(raw);
        assert_eq!(failure(reader.word(from)), CarefulFailure::OutOfRange(from));
    }
    assert_eq!(
        failure(reader.copy(at(511), &mut [0; 2])),
        CarefulFailure::OutOfRange(at(511))
    );
    let odd = RemoteAddress::claimed(BASE + 4);
    assert_eq!(failure(reader.word(odd)), CarefulFailure::Misaligned(odd));
    assert!(reader.half_word(odd).is_ok());
}

#[test]
fn half_words_are_told_apart() {
    let memory = FakeMemory::new(&[0x1111_2222_3333_4444]);
    assert_eq!(memory.reader().half_word(at(0)), Ok(0x3333_4444));
    assert_eq!(memory.reader().half_word(at(0).plus(4)), Ok(0x1111_2222));
}

#[test]
fn step_4_a_structure_without_its_tag_is_refused() {
    let memory = FakeMemory::new(&[Node::TAG, 5, 0, 99, 5, 0, Node::TAG, 100, 0]);
    let reader = memory.reader();
    assert_eq!(reader.structure(at(0)), Ok(Node { value: 5, next: 0 }));
    let untagged = CarefulFailure::Untagged {
        at: at(3),
        found: 99,
    };
    assert_eq!(failure(reader.structure::<Node>(at(3))), untagged);
    assert_eq!(
        failure(reader.structure::<Node>(at(6))),
        CarefulFailure::Nonsense(at(6))
    );
}

#[test]
fn step_4_a_structure_that_is_freed_during_the_copy_is_refused() {
    let memory = FakeMemory::with_hook(&[Node::TAG, 5, 0], |words, index| {
        if index == 2 {
            words[0] = 0;
        }
    });
    let untagged = CarefulFailure::Untagged {
        at: at(0),
        found: 0,
    };
    assert_eq!(failure(memory.reader().structure::<Node>(at(0))), untagged);
}

#[test]
fn a_list_is_followed_to_its_end() {
    let memory = FakeMemory::new(&[Node::TAG, 1, BASE + 24, Node::TAG, 2, 0]);
    let mut seen = vec![];
    let result = memory.reader().walk(Some(at(0)), 2, |node: Node| {
        seen.push(node.value);
        ControlFlow::<()>::Continue(())
    });
    assert_eq!((result, seen), (Ok(None), vec![1, 2]));
    let found = memory
        .reader()
        .walk(Some(at(0)), 2, |node: Node| ControlFlow::Break(node));
    assert_eq!(found.unwrap().unwrap().value, 1);
}

#[test]
fn a_cycle_is_left_after_the_hops_that_are_allowed() {
    let memory = FakeMemory::new(&[Node::TAG, 1, BASE]);
    let mut hops = 0;
    let result = memory.reader().walk(Some(at(0)), 9, |_: Node| {
        hops += 1;
        ControlFlow::<()>::Continue(())
    });
    assert_eq!((failure(result), hops), (CarefulFailure::Endless(at(0)), 9));
}

#[test]
fn a_block_is_copied_only_between_changes() {
    let mut loads = 0;
    let memory = FakeMemory::with_hook(&[2, 10, 11], move |words, index| {
        loads += 1;
        if (loads, index) == (3, 2) {
            words[..3].copy_from_slice(&[4, 20, 21]);
        }
    });
    let mut block = [0; 2];
    assert_eq!(
        memory.reader().consistent_block(at(0), at(1), &mut block),
        Ok(4)
    );
    assert_eq!(block, [20, 21]);
}

#[test]
fn a_block_that_never_stands_still_is_given_up() {
    let memory = FakeMemory::with_hook(&[2, 10], |words, _| words[0] += 2);
    let result = memory.reader().consistent_block(at(0), at(1), &mut [0]);
    assert_eq!(failure(result), CarefulFailure::Torn(at(1)));
    let memory = FakeMemory::new(&[3, 10]);
    let result = memory.reader().consistent_block(at(0), at(1), &mut [0]);
    assert_eq!(failure(result), CarefulFailure::Torn(at(1)));
}

#[test]
fn a_header_of_another_life_or_cell_is_told_apart() {
    let header = [HEADER_TAG, 2 << 32 | 7, 2 << 32 | 3, 500 << 32, 41];
    let memory = FakeMemory::new(&header);
    let copy = memory.reader().header().unwrap();
    assert_eq!((copy.state, copy.cpus_up), (PublicState::Serving, 2));
    assert_eq!(copy.ticks_per_second, 500);
    assert_eq!(memory.reader().clock_word(0), Ok(41));
    let changed = |index: usize, word: u64| {
        let mut words = header;
        words[index] = word;
        failure(FakeMemory::new(&words).reader().header())
    };
    assert_eq!(
        changed(1, 2 << 32 | 8),
        CarefulFailure::Stale(Incarnation(8))
    );
    assert_eq!(changed(1, 9 << 32 | 7), CarefulFailure::Nonsense(at(0)));
    assert_eq!(changed(2, 2 << 32 | 4), CarefulFailure::Nonsense(at(0)));
    assert_eq!(changed(2, 256 << 32 | 3), CarefulFailure::Nonsense(at(0)));
    assert_eq!(
        changed(0, 0),
        CarefulFailure::Untagged {
            at: at(0),
            found: 0
        }
    );
}

proptest! {
    /// The fake memory panics on a load outside of its frame.
    #[test]
    fn no_claimed_address_leads_outside_the_cell(
        words in prop::collection::vec(any::<u64>(), 512),
        raw in prop_oneof![any::<u64>(), BASE - 64..BASE + 4096 + 64],
        length in 1usize..40,
    ) {
        let memory = FakeMemory::new(&words);
        let from = RemoteAddress::claimed(raw);
        let mut buffer = vec![0; length];
        let inside = raw.is_multiple_of(8)
            && raw >= BASE
            && raw.checked_add(length as u64 * 8).is_some_and(|end| end <= BASE + 4096);
        prop_assert_eq!(memory.reader().copy(from, &mut buffer).is_ok(), inside);
        let _ = memory.reader().half_word(from);
    }

    #[test]
    fn no_memory_makes_a_walk_longer_than_its_hops(
        links in prop::collection::vec((0u64..100, 0u64..171), 170),
        hops in 0usize..50,
    ) {
        let words: Vec<u64> = links
            .iter()
            .flat_map(|&(value, next)| [Node::TAG, value, BASE + next * 24])
            .collect();
        let mut visited = 0;
        let _ = FakeMemory::new(&words).reader().walk(Some(at(0)), hops, |_: Node| {
            visited += 1;
            ControlFlow::<()>::Continue(())
        });
        prop_assert!(visited <= hops);
    }
}
