//! The hypercalls: what a cell kernel may ask of the monitor, and what it is answered.
//!
//! # Calling convention
//! Behind NPT the kernel executes `VMMCALL`, behind EPT `VMCALL`; behind page tables it calls the
//! entry that the handover block names. Either way: RAX holds the number, RDI, RSI, RDX, RCX up to
//! four arguments. On return RAX holds a [`Status`], RDX the value; every other register is kept. A
//! hypercall never blocks, and takes time bounded by its arguments ([`FRAMES_PER_CALL_MAX`]).
//!
//! # Rights
//! The monitor knows the calling cell; no argument names it. A call that the cell had no right to
//! make is answered [`Status::Denied`] and recorded as evidence.

/// Frames that one [`Hypercall::Grant`], [`Hypercall::Revoke`] or [`Hypercall::Written`] may name.
/// One bit each in the answer of `Written`.
pub const FRAMES_PER_CALL_MAX: u64 = 64;

/// Vector of the doorbell: somebody put a message into a ring for this cell.
pub const VECTOR_DOORBELL: u8 = 0xf0;
/// Vector by which a kernel wakes another CPU of its own cell.
pub const VECTOR_WAKE: u8 = 0xf1;
/// Vector of the LAPIC timer.
pub const VECTOR_TIMER: u8 = 0xf2;
/// Vector of a bus error: a denied access. A general protection exception at the faulting
/// instruction, with error code [`BUS_ERROR_CODE`] and a [`BusError`] in the CPU's bus error slot.
///
/// Not a vector of its own: QEMU's TCG (7.2) delivers an event that is injected with type
/// "interrupt" a second time when the CPU happens to leave its inner loop next, and other types
/// must name an exception.
pub const VECTOR_BUS_ERROR: u8 = 13;
/// The error code of a bus error. No selector that a kernel here uses gives it. Below 8000h:
/// manuals of VMX up to 2022 forbid bit 15 in an error code that an entry delivers.
pub const BUS_ERROR_CODE: u32 = 0x305e;
/// Vector of a kick behind page tables, where an NMI is the kernel's. Its handler ends it by
/// `LapicWrite`, and thereby enters the monitor, which is all that a kick asks for.
pub const VECTOR_KICK: u8 = 0xf6;
/// Vector of the LAPIC's spurious interrupts.
pub const VECTOR_SPURIOUS: u8 = 0xff;

macro_rules! hypercalls {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal;)+) => {
        /// What a kernel may ask.
        #[repr(u64)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Hypercall { $($(#[doc = $doc])+ $name = $number,)+ }

        impl Hypercall {
            /// Decodes a number from a cell.
            pub const fn from_raw(raw: u64) -> Option<Self> {
                match raw { $($number => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

hypercalls! {
    /// Nothing; for measuring.
    Null = 0;
    /// Writes a local APIC register. Arguments: register offset, value. Allowed: TPR 80h, EOI B0h,
    /// spurious F0h, ESR 280h, LVTs 320h to 370h (fixed delivery of vectors 20h and up, or masked),
    /// initial count 380h, divide 3E0h. The interrupt command register is not: see `Wake` and
    /// `Doorbell`.
    LapicWrite = 1;
    /// Sends [`VECTOR_WAKE`] to a CPU of the calling cell. Arguments: index within the cell.
    Wake = 2;
    /// Sends [`VECTOR_DOORBELL`] to the first running CPU of another live cell. Arguments: cell.
    Doorbell = 3;
    /// Adds a cell to the writer sets of frames. Only by their home. Arguments: first frame, count,
    /// cell, cell's incarnation.
    Grant = 4;
    /// Removes a cell from the writer sets of frames and kicks its CPUs. Only by their home.
    /// Arguments: first frame, count, cell. Value: see `Drained`; the frames are protected once
    /// that answers `Ok`.
    Revoke = 5;
    /// Asks whether every CPU of a cell has been in the monitor since a revoke, quarantine or
    /// expulsion, or never will run its old life again. Arguments: cell. `Ok`, or `Busy` if not
    /// yet.
    Drained = 6;
    /// Asks which frames a cell wrote, by the dirty bits of its nested tables. Only by their home.
    /// Arguments: first frame, count, cell. Value: one bit per frame. Where the back end keeps no
    /// dirty bits, every frame that the cell may write counts as written.
    Written = 7;
    /// Makes the caller's own memory, but for its public area, unreachable for the others. No
    /// arguments.
    CutOff = 8;
    /// Closes the caller's frames to the writes of a suspect, writer sets unchanged; kicks the
    /// suspect's CPUs and notes the accusation. A store there then ends in a
    /// [`BusErrorKind::Quarantined`]. Arguments: suspect.
    Quarantine = 9;
    /// Ends the caller's quarantine of a cell. Arguments: cell.
    Unquarantine = 10;
    /// Starts another CPU of the calling cell in this life. Arguments: index within the cell, entry
    /// point, stack pointer, value for RDI. `Busy` if the CPU is not in the monitor (yet); one that
    /// was restarted and did not come is then sent its start-up again.
    StartCpu = 11;
    /// Casts the cell's vote, in place of an earlier one in the epoch. Arguments: epoch, proposed
    /// live set; an empty one takes the vote back. `Ok`: sealed, value is the live set (perhaps not
    /// the proposed one). `Busy`: votes are missing. Enforces the seal: cells outside it are
    /// expelled and fenced.
    Vote = 12;
    /// Asks for the reboot of an expelled cell from the pristine image. Only by a live cell.
    /// Arguments: cell, the incarnation that was expelled. `Ok` also if that reboot was already
    /// asked for.
    Reboot = 13;
    /// Declares that this life of the cell serves and joins the live set. No arguments. Value: the
    /// epoch of the join.
    Join = 14;
    /// Stops the calling cell: evidence is published, all its CPUs park. Arguments: instruction
    /// pointer for the record. Does not return.
    Stop = 15;
    /// Takes the serial port over from an owner that is not live. No arguments.
    AdoptConsole = 16;
    /// Reports a bus error that the kernel itself took, for back ends in which the monitor does not
    /// see it. Arguments: address, instruction pointer, [`BusErrorKind`]. Value: the kind that it
    /// really is; 0 if the tables allow the access by now, and it is to be tried again.
    ReportBusError = 17;
}

/// How a hypercall ended.
#[repr(u64)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Not now; ask again later.
    Busy = 1,
    /// The cell has no right to it. Recorded as evidence.
    Denied = 2,
    /// An argument is out of range.
    BadArgument = 3,
    /// The cell named is not live, or not in the incarnation named.
    Stale = 4,
    /// The epoch named is not the next one; value: the newest sealed epoch.
    NotNext = 5,
    /// Tables, epochs or another bounded supply of the monitor ran out.
    Exhausted = 6,
    /// No such hypercall.
    Unknown = 7,
}

impl Status {
    /// Decodes a status; anything unknown reads as [`Status::Unknown`].
    pub const fn from_raw(raw: u64) -> Self {
        match raw {
            0 => Self::Ok,
            1 => Self::Busy,
            2 => Self::Denied,
            3 => Self::BadArgument,
            4 => Self::Stale,
            5 => Self::NotNext,
            6 => Self::Exhausted,
            _ => Self::Unknown,
        }
    }
}

/// What kind of access was denied.
#[repr(u64)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusErrorKind {
    /// A store to a frame that the cell may not write.
    Write = 1,
    /// A load from, or fetch of, memory that is absent for the cell; any access to memory that its
    /// home cut off.
    Read = 2,
    /// A store to a frame that the cell may write, but whose home keeps the cell in quarantine: try
    /// again later.
    Quarantined = 3,
    /// An I/O port.
    Port = 4,
    /// A model-specific register.
    Msr = 5,
}

impl BusErrorKind {
    /// Decodes a stored kind.
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match raw {
            1 => Some(Self::Write),
            2 => Some(Self::Read),
            3 => Some(Self::Quarantined),
            4 => Some(Self::Port),
            5 => Some(Self::Msr),
            _ => None,
        }
    }
}

/// What the monitor says with a bus error. No register is touched; the values lie in the CPU's slot
/// of [`BusErrorSlots`], in the last page of what the cell used at entry (`Handover::used`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusError {
    /// The physical address (or port, or register).
    pub address: u64,
    /// A [`BusErrorKind`].
    pub kind: u64,
}

/// CPUs of one cell that can take bus errors.
pub const BUS_ERROR_SLOTS: usize = 256;

/// Bus error slots of a cell's CPUs, by index within the cell; in the cell's own memory, written by
/// the monitor.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct BusErrorSlots {
    /// One slot per CPU.
    pub slots: [BusError; BUS_ERROR_SLOTS],
}

const _: () = assert!(size_of::<BusErrorSlots>() == 4096);
