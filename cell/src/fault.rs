//! Faults that a cell injects into itself when the host asks for it.
//!
//! The host writes a [`FaultRequest`] into the victim's public area; the victim's kernel looks at
//! each timer tick. Faults that come from outside (halted CPUs, flipped bits) need nothing of the
//! guest and are not listed here.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal;)+) => {
        /// A fault from inside.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum InnerFault { $($(#[doc = $doc])+ $name = $number,)+ }

        impl InnerFault {
            /// Every fault.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Decodes a stored fault.
            pub const fn from_raw(raw: u32) -> Option<Self> {
                match raw { $($number => Some(Self::$name),)+ _ => None }
            }

            /// The fault's name on the command line and in campaign files.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

faults! {
    /// The kernel panics.
    Panic = 1, "sw.panic";
    /// A kernel thread per CPU loops for ever at the highest priority; interrupts stay on.
    Loop = 2, "sw.loop";
    /// One CPU loops for ever with interrupts off.
    InterruptsOff = 3, "sw.interrupts_off";
    /// `argument` random stores (seed in `seed`) over all of physical memory.
    WildWrite = 4, "sw.wild_write";
    /// Endless recursion on a kernel stack.
    StackOverflow = 5, "sw.stack_overflow";
    /// The cell's clock runs `argument` times too fast.
    FastClock = 6, "sw.fast_clock";
    /// The cell accuses healthy cells `argument` times.
    CryWolf = 7, "sw.cry_wolf";
    /// The next `argument` outgoing messages are dropped.
    RpcDrop = 10, "rpc.drop";
    /// The next `argument` outgoing messages are sent twice.
    RpcDuplicate = 11, "rpc.duplicate";
    /// A bit of each of the next `argument` outgoing messages is flipped.
    RpcCorrupt = 12, "rpc.corrupt";
    /// The next `argument` outgoing messages wait until their deadline is half over.
    RpcDelay = 13, "rpc.delay";
    /// The cell tries to send `argument` interrupts, NMIs and INITs to CPUs of other cells.
    IpiStorm = 14, "ipi.storm";
    /// The cell tries every way to reset the machine: ports 64h, 92h, CF9h.
    PortReset = 15, "port.reset";
    /// The next `argument` outgoing messages are overtaken by those that follow.
    RpcReorder = 16, "rpc.reorder";
    /// The cell's clock runs `argument` times too slowly.
    SlowClock = 17, "clock.slow";
    /// The cell's clock stands still for `argument` milliseconds; 0 for ever.
    ClockStall = 18, "clock.stall";
    /// The cell's clock jumps ahead by `argument` microseconds.
    ClockSkew = 19, "clock.skew";
    /// The next `argument` interrupts of the cell are acknowledged and not served.
    InterruptLost = 20, "irq.lost";
    /// The next `argument` threads of a name are ended where they are, with nothing cleaned up.
    ProgramKill = 21, "program.kill";
}

impl InnerFault {
    /// The argument where none is given; 0 for a fault that takes none.
    pub const fn default_argument(self) -> u64 {
        match self {
            Self::WildWrite => 256,
            Self::FastClock | Self::SlowClock => 4,
            Self::IpiStorm | Self::InterruptLost | Self::CryWolf => 64,
            Self::ClockStall => 500,
            Self::ClockSkew => 100_000,
            Self::ProgramKill => 1,
            Self::RpcDrop
            | Self::RpcDuplicate
            | Self::RpcCorrupt
            | Self::RpcDelay
            | Self::RpcReorder => 8,
            _ => 0,
        }
    }

    /// Whether it treats outgoing messages.
    pub const fn is_of_messages(self) -> bool {
        matches!(
            self,
            Self::RpcDrop
                | Self::RpcDuplicate
                | Self::RpcCorrupt
                | Self::RpcDelay
                | Self::RpcReorder
        )
    }

    /// Whether it waits at a point of the kernel and strikes some of what passes there, as
    /// [`Attributes`] say.
    pub const fn is_hook(self) -> bool {
        self.is_of_messages() || matches!(self, Self::InterruptLost | Self::ProgramKill)
    }
}

/// One in a million: the unit of probabilities.
pub const MILLION: u32 = 1_000_000;

/// Which of what passes a hook are struck: the four numbers of Linux's fault injection, which are
/// looked at in the order space, interval, probability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// In millionths; 0 stands for certainty.
    pub probability: u32,
    /// Only every so manieth that passes can be struck; 0 and 1 mean every one.
    pub interval: u32,
    /// How many are struck at most.
    pub times: u64,
    /// So much passes first, in bytes of messages, or in number where there are no bytes.
    pub space: u64,
    /// How many passed since the space was used up.
    pub passed: u64,
}

impl Attributes {
    /// Nothing is struck.
    pub const NONE: Self = Self::new(0);

    /// The next `times` that pass are struck.
    pub const fn new(times: u64) -> Self {
        Self {
            probability: 0,
            interval: 0,
            times,
            space: 0,
            passed: 0,
        }
    }

    /// Whether nothing will be struck any more.
    pub const fn is_over(&self) -> bool {
        self.times == 0
    }

    /// Decides on something of `size` that passes, by a word drawn at random.
    pub const fn strikes(&mut self, size: u64, random: u64) -> bool {
        if self.times == 0 {
            return false;
        }
        if self.space > 0 {
            self.space = self.space.saturating_sub(size);
            return false;
        }
        self.passed = self.passed.wrapping_add(1);
        if self.interval > 1 && !self.passed.is_multiple_of(self.interval as u64) {
            return false;
        }
        let drawn = ((random as u128 * MILLION as u128) >> 64) as u32;
        if self.probability > 0 && drawn >= self.probability {
            return false;
        }
        self.times -= 1;
        true
    }
}

/// Bytes of the name of a thread in a [`FaultRequest`].
pub const PROGRAM_BYTES: usize = 16;

/// The name of a thread as a request holds it: cut off, and filled up with zeros.
pub const fn program_words(name: &str) -> [u64; 2] {
    let (bytes, mut words, mut at) = (name.as_bytes(), [0; 2], 0);
    while at < bytes.len() && at < PROGRAM_BYTES {
        words[at / 8] |= (bytes[at] as u64) << (at % 8 * 8);
        at += 1;
    }
    words
}

/// What the host asks for. Only the host writes it; the kernel remembers which `sequence` it
/// carried out last.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct FaultRequest {
    /// Raised last, by one, for each request.
    pub sequence: AtomicU32,
    /// An [`InnerFault`].
    pub fault: AtomicU32,
    /// See [`InnerFault`].
    pub argument: AtomicU64,
    /// For everything that is drawn at random.
    pub seed: AtomicU64,
    /// When, in nanoseconds of [`crate::Instant`]; 0 for at once.
    pub at: AtomicU64,
    /// Wait for this [`crate::trace::Event`] in the victim's own trace after the request; 0 for
    /// none.
    pub after_event: AtomicU32,
    /// Which occurrence of it, from 1.
    pub after_count: AtomicU32,
    /// [`Attributes::probability`] of a hook; its `times` are the argument.
    pub probability: AtomicU32,
    /// [`Attributes::interval`] of a hook.
    pub interval: AtomicU32,
    /// [`Attributes::space`] of a hook.
    pub space: AtomicU64,
    /// For messages: the cells that they go to, as a set; 0 for all.
    pub to: AtomicU64,
    /// For messages: the number of their operation; 0 for all.
    pub operation: AtomicU32,
    /// Explicit padding.
    pub reserved: u32,
    /// For threads: the first [`PROGRAM_BYTES`] bytes of their name, filled up with zeros; all
    /// zeros for the workers.
    pub program: [AtomicU64; 2],
    /// For threads: so long they run first, in nanoseconds.
    pub run_time: AtomicU64,
}

impl FaultRequest {
    /// The request of sequence number `sequence`, if there is one newer than `done` and it names a
    /// fault.
    pub fn pending(&self, done: u32) -> Option<(u32, InnerFault)> {
        let sequence = self.sequence.load(Ordering::Acquire);
        if sequence == done {
            return None;
        }
        InnerFault::from_raw(self.fault.load(Ordering::Relaxed)).map(|fault| (sequence, fault))
    }
}

const _: () = {
    assert!(core::mem::offset_of!(FaultRequest, argument) == 8);
    assert!(core::mem::offset_of!(FaultRequest, after_count) == 36);
    assert!(core::mem::offset_of!(FaultRequest, run_time) == 88);
    assert!(size_of::<FaultRequest>() == 4096);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_decodes_to_itself_and_names_are_unique() {
        for &fault in InnerFault::ALL {
            assert_eq!(InnerFault::from_raw(fault as u32), Some(fault));
            assert_eq!(
                InnerFault::ALL
                    .iter()
                    .filter(|other| other.name() == fault.name())
                    .count(),
                1
            );
        }
        assert_eq!(InnerFault::from_raw(0), None);
    }

    fn struck(mut attributes: Attributes, sizes: &[u64], random: u64) -> usize {
        let strikes = |size: &&u64| attributes.strikes(**size, random);
        sizes.iter().filter(strikes).count()
    }

    #[test]
    fn times_space_interval_and_probability_are_kept() {
        let ten = [100; 10];
        let plain = Attributes::new(3);
        assert_eq!(struck(plain, &ten, 0), 3);
        let late = Attributes {
            space: 250,
            ..Attributes::new(100)
        };
        assert_eq!(struck(late, &ten, 0), 7, "three go by first");
        let third = Attributes {
            interval: 3,
            ..Attributes::new(100)
        };
        assert_eq!(struck(third, &ten, 0), 3);
        let half = Attributes {
            probability: MILLION / 2,
            ..Attributes::new(100)
        };
        assert_eq!(struck(half, &ten, (1 << 63) - 1), 10, "just below a half");
        assert_eq!(struck(half, &ten, 1 << 63), 0);
        assert_eq!(struck(Attributes::NONE, &ten, 0), 0);
    }

    #[test]
    fn names_are_cut_off_and_filled_up() {
        assert_eq!(program_words("ab"), [0x6261, 0]);
        assert_eq!(
            program_words("a name that is long")[1],
            u64::from_le_bytes(*b"hat is l"),
        );
    }
}
