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
}

impl InnerFault {
    /// The argument where none is given; 0 for a fault that takes none.
    pub const fn default_argument(self) -> u64 {
        match self {
            Self::WildWrite => 256,
            Self::FastClock => 4,
            Self::IpiStorm | Self::CryWolf => 64,
            Self::RpcDrop | Self::RpcDuplicate | Self::RpcCorrupt | Self::RpcDelay => 8,
            _ => 0,
        }
    }
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
}
