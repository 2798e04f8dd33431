//! The descriptors and stacks to which an exit and an NMI lead.
//!
//! An NMI can come at any instruction of the monitor, whose code keeps values below its stack
//! pointer. So NMIs and machine checks get stacks of their own, by a task state segment, and so the
//! CPU gets descriptor tables of its own: the monitor's, with that segment, and with the two gates
//! leading to those stacks.
//!
//! # Not guaranteed
//! A machine check inside the handler of an NMI lets the next NMI in early, onto the same stack.
//!
//! # References
//! SDM volume 3, 6.14.5 (interrupt stack table), 7.2.3 (task descriptor), 7.7 (64-bit task state
//! segment), 6.14.1 (gates).

use core::arch::asm;

use x86_64::VirtAddr;
use x86_64::instructions::tables::{lgdt, lidt, load_tss, sgdt, sidt};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::SegmentSelector;

use super::enter::{Switch, host_nmi};

/// Descriptors of the monitor's own table: none, code, data, 32-bit code.
const OWN_DESCRIPTORS: usize = 4;
pub(super) const CODE_SELECTOR: u16 = 0x08;
pub(super) const DATA_SELECTOR: u16 = 0x10;
/// The first descriptor after the monitor's own.
pub(super) const TASK_SELECTOR: u16 = 8 * OWN_DESCRIPTORS as u16;

/// Those of exceptions: the monitor takes no interrupts here.
const GATES: usize = 32;
const NMI: usize = 2;
const MACHINE_CHECK: usize = 18;
/// Several times what the handlers push.
const STACK_BYTES: usize = 512;
/// The last two words of a stack are not the processor's.
const STACK_FLOOR: usize = STACK_BYTES - 16;

/// A 64-bit task state segment: nothing but the interrupt stacks is used.
#[repr(C, packed(4))]
#[derive(Debug)]
struct TaskState {
    reserved_0: u32,
    stacks: [u64; 3],
    reserved_1: u64,
    interrupt_stacks: [u64; 7],
    reserved_2: u64,
    reserved_3: u16,
    port_map_offset: u16,
}

impl TaskState {
    const fn new(interrupt_stacks: [u64; 7]) -> Self {
        Self {
            reserved_0: 0,
            stacks: [0; 3],
            reserved_1: 0,
            interrupt_stacks,
            reserved_2: 0,
            reserved_3: 0,
            // No map: the limit ends before it.
            port_map_offset: size_of::<Self>() as u16,
        }
    }
}

/// A stack for one handler; the word above it leads the handler to what it notes.
#[repr(C, align(16))]
#[derive(Debug)]
struct Stack {
    bytes: [u8; STACK_FLOOR],
    switch: u64,
    unused: u64,
}

impl Stack {
    const fn new() -> Self {
        Self {
            bytes: [0; STACK_FLOOR],
            switch: 0,
            unused: 0,
        }
    }

    /// Where the processor starts to push.
    fn top(&self) -> u64 {
        &raw const self.switch as u64
    }
}

/// What one CPU has of its own in the monitor.
#[repr(C, align(16))]
#[derive(Debug)]
pub(super) struct HostTables {
    gates: [[u64; 2]; GATES],
    descriptors: [u64; OWN_DESCRIPTORS + 2],
    task: TaskState,
    nmi_stack: Stack,
    machine_check_stack: Stack,
}

/// Where the tables lie, for the host fields of a control structure (24.5).
#[derive(Clone, Copy, Debug)]
pub(super) struct HostAddresses {
    pub(super) gates: u64,
    pub(super) descriptors: u64,
    pub(super) task: u64,
}

impl HostTables {
    pub(super) const fn new() -> Self {
        Self {
            gates: [[0; 2]; GATES],
            descriptors: [0; OWN_DESCRIPTORS + 2],
            task: TaskState::new([0; 7]),
            nmi_stack: Stack::new(),
            machine_check_stack: Stack::new(),
        }
    }

    /// Fills the tables from those in use on the executing CPU, and loads them.
    ///
    /// # Safety
    /// `self` is the executing CPU's own and is never moved again; the tables in use are those of
    /// `boot`; `switch` is where the CPU's NMIs are noted.
    pub(super) unsafe fn load(&mut self, switch: *mut Switch) {
        self.nmi_stack.switch = switch as u64;
        self.machine_check_stack.switch = switch as u64;
        let stacks = [self.nmi_stack.top(), self.machine_check_stack.top()];
        self.task = TaskState::new([stacks[0], stacks[1], 0, 0, 0, 0, 0]);
        let (own, gates) = (sgdt().base.as_ptr::<u64>(), sidt().base.as_ptr::<u64>());
        // SAFETY: the caller vouches for the tables in use: `boot` has that many descriptors.
        let own: [u64; OWN_DESCRIPTORS] = unsafe { own.cast::<[u64; OWN_DESCRIPTORS]>().read() };
        self.descriptors[..OWN_DESCRIPTORS].copy_from_slice(&own);
        let task = task_descriptor(&raw const self.task as u64);
        self.descriptors[OWN_DESCRIPTORS..].copy_from_slice(&task);
        // SAFETY: as above: `boot` has a gate for every exception.
        self.gates = unsafe { gates.cast::<[[u64; 2]; GATES]>().read() };
        self.gates[NMI] = gate(host_nmi as *const () as u64, 1);
        self.gates[MACHINE_CHECK][0] |= on_stack(2);
        let pointer = |start: *const u8, bytes: usize| DescriptorTablePointer {
            limit: (bytes - 1) as u16,
            base: VirtAddr::new(start as u64),
        };
        let gates = pointer((&raw const self.gates).cast(), size_of_val(&self.gates));
        let descriptors = pointer(
            (&raw const self.descriptors).cast(),
            size_of_val(&self.descriptors),
        );
        // SAFETY: the descriptors are the ones in use and one more, and stay where they are.
        unsafe { lgdt(&descriptors) };
        // SAFETY: the descriptor just written is an available task state segment's.
        unsafe { load_tss(SegmentSelector(TASK_SELECTOR)) };
        // SAFETY: the gates are the ones in use, but that NMIs and machine checks have stacks now.
        unsafe { lidt(&gates) };
    }

    pub(super) fn addresses(&self) -> HostAddresses {
        HostAddresses {
            gates: (&raw const self.gates) as u64,
            descriptors: (&raw const self.descriptors) as u64,
            task: (&raw const self.task) as u64,
        }
    }
}

/// The part of a gate that names an interrupt stack.
const fn on_stack(stack: u64) -> u64 {
    stack << 32
}

/// An interrupt gate to `handler`, on an interrupt stack.
const fn gate(handler: u64, stack: u64) -> [u64; 2] {
    const PRESENT_INTERRUPT: u64 = 0x8e << 40;
    let low = handler & 0xffff
        | (CODE_SELECTOR as u64) << 16
        | on_stack(stack)
        | PRESENT_INTERRUPT
        | (handler & 0xffff_0000) << 32;
    [low, handler >> 32]
}

/// The descriptor of an available 64-bit task state segment at `base`.
const fn task_descriptor(base: u64) -> [u64; 2] {
    const PRESENT_AVAILABLE: u64 = 0x89 << 40;
    let limit = size_of::<TaskState>() as u64 - 1;
    let low = limit | (base & 0x00ff_ffff) << 16 | PRESENT_AVAILABLE | (base & 0xff00_0000) << 32;
    [low, base >> 32]
}

/// Lets NMIs in again, which an NMI exit blocks until the next `IRET` (SDM volume 3, 6.7.1 and
/// 27.5.5): one that leads to the instruction behind it.
pub(super) fn unblock_nmis() {
    // SAFETY: the frame on the stack is that of this very place: same stack, flags and segments.
    // Without `nostack`, the red zone is out of use.
    unsafe {
        asm!(
            "mov {old}, rsp",
            "push {data}",
            "push {old}",
            "pushfq",
            "push {code}",
            "lea {old}, [rip + 2f]",
            "push {old}",
            "iretq",
            "2:",
            old = out(reg) _,
            data = const DATA_SELECTOR,
            code = const CODE_SELECTOR,
        );
    }
}

// The processor reads these.
const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<TaskState>() == 104);
    assert!(offset_of!(TaskState, interrupt_stacks) == 36);
    assert!(size_of::<Stack>() == STACK_BYTES);
    assert!(offset_of!(Stack, switch) == STACK_FLOOR && STACK_FLOOR.is_multiple_of(16));
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_leads_where_it_should() {
        let [low, high] = gate(0x1_2345_6789_abcd, 1);
        assert_eq!(low, 0x6789_8e01_0008_abcd);
        assert_eq!(high, 0x1_2345);
    }

    #[test]
    fn a_task_descriptor_has_its_base_in_four_places() {
        let [low, high] = task_descriptor(0x1_1234_5678);
        assert_eq!(low, 0x1200_8934_5678_0067);
        assert_eq!(high, 1);
    }
}
