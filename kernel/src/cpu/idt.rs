//! Which vector enters through which stub, on which stack.
//!
//! One table for all CPUs of the cell. Every vector has a gate: an interrupt that somebody outside
//! sent on a vector that nothing uses is counted, not fatal.

use spin::Once;
use x86_64::VirtAddr;
use x86_64::structures::idt::{Entry, InterruptDescriptorTable};

use firewall::hypercall::{
    VECTOR_DOORBELL, VECTOR_KICK, VECTOR_SPURIOUS, VECTOR_TIMER, VECTOR_WAKE,
};

use crate::cpu::gdt::EntryStack;
use crate::cpu::interrupts::VECTOR_SWITCH;
use crate::cpu::stubs;

static TABLE: Once<InterruptDescriptorTable> = Once::new();

/// Loads the table on the running CPU, whose own descriptor table is loaded.
pub fn load() {
    TABLE.call_once(build).load();
}

fn gate<F>(entry: &mut Entry<F>, stub: extern "C" fn(), stack: EntryStack) {
    let address = VirtAddr::new(stub as usize as u64);
    // SAFETY: the stub is one of `stubs`, made for the vector that it is put in; it ends in IRETQ.
    // The stack index names an entry of the interrupt stack table that `gdt::load` filled.
    unsafe {
        entry
            .set_handler_addr(address)
            .set_stack_index(stack as u16)
    };
}

fn build() -> InterruptDescriptorTable {
    let mut table = InterruptDescriptorTable::new();
    for vector in 32..=u8::MAX {
        gate(&mut table[vector], stubs::unexpected, EntryStack::Interrupt);
    }
    for (vector, stub) in [
        (VECTOR_DOORBELL, stubs::doorbell as extern "C" fn()),
        (VECTOR_WAKE, stubs::wake),
        (VECTOR_KICK, stubs::kick),
        (VECTOR_TIMER, stubs::timer),
        (VECTOR_SWITCH, stubs::switch),
        (VECTOR_SPURIOUS, stubs::spurious),
    ] {
        gate(&mut table[vector], stub, EntryStack::Interrupt);
    }
    build_exceptions(&mut table);
    table
}

fn build_exceptions(table: &mut InterruptDescriptorTable) {
    use EntryStack::{DoubleFault, Exception, MachineCheck, Nmi};
    gate(&mut table.divide_error, stubs::divide_error, Exception);
    gate(&mut table.debug, stubs::debug, Exception);
    gate(&mut table.non_maskable_interrupt, stubs::nmi, Nmi);
    gate(&mut table.breakpoint, stubs::breakpoint, Exception);
    gate(&mut table.overflow, stubs::overflow, Exception);
    gate(
        &mut table.bound_range_exceeded,
        stubs::bound_range,
        Exception,
    );
    gate(&mut table.invalid_opcode, stubs::invalid_opcode, Exception);
    gate(
        &mut table.device_not_available,
        stubs::device_not_available,
        Exception,
    );
    gate(&mut table.double_fault, stubs::double_fault, DoubleFault);
    gate(&mut table.invalid_tss, stubs::invalid_tss, Exception);
    gate(
        &mut table.segment_not_present,
        stubs::segment_not_present,
        Exception,
    );
    gate(
        &mut table.stack_segment_fault,
        stubs::stack_segment,
        Exception,
    );
    gate(
        &mut table.general_protection_fault,
        stubs::general_protection,
        Exception,
    );
    gate(&mut table.page_fault, stubs::page_fault, Exception);
    gate(&mut table.x87_floating_point, stubs::x87_error, Exception);
    gate(
        &mut table.alignment_check,
        stubs::alignment_check,
        Exception,
    );
    gate(&mut table.machine_check, stubs::machine_check, MachineCheck);
    gate(&mut table.simd_floating_point, stubs::simd_error, Exception);
}
