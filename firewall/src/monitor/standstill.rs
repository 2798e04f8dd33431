//! Waits for the runner at points of the guest's time, and does what it orders.
//!
//! What a standstill is for is said in [`cell::standstill`]. A machine without a runner never has
//! one: the record is the monitor's, and no cell can write it.
//!
//! # Not guaranteed
//! A frozen CPU waits in the monitor: it takes an NMI while it waits, of which nothing comes. An
//! INIT restarts it, and it waits on before its next life.

use core::sync::atomic::Ordering;

use cell::standstill::{ORDERS_MAX, Order};
use x86_64::instructions::port::Port;

use super::fence;
use super::state::{Monitor, PerCpu};

/// Waits for the runner if that is due, and as long as this CPU is frozen.
pub(crate) fn observe(monitor: &Monitor, cpu: &PerCpu) {
    if monitor.machine.standstill.is_wanted() {
        stand_still(monitor, cpu);
    }
    wait_while_frozen(monitor, cpu);
}

/// Waits as long as this CPU is frozen.
pub(crate) fn wait_while_frozen(monitor: &Monitor, cpu: &PerCpu) {
    while monitor.machine.standstill.is_frozen(cpu.id) {
        monitor.back_end.park(cpu);
    }
}

fn stand_still(monitor: &Monitor, cpu: &PerCpu) {
    let record = &monitor.machine.standstill;
    let Some(port) = record.claim(monitor.now()) else {
        return;
    };
    let is_frozen = |other: &PerCpu| record.is_frozen(other.id);
    let mut frozen = [false; cell::CPUS_MAX];
    for (was, other) in frozen.iter_mut().zip(monitor.cpus) {
        *was = is_frozen(other);
    }
    // SAFETY: a port that no device of a PC has; the runner's QEMU keeps the CPU waiting there.
    unsafe { Port::<u8>::new(port).write(1) };
    let count = record.orders_count.swap(0, Ordering::SeqCst) as usize;
    for order in &record.orders[..count.min(ORDERS_MAX)] {
        carry_out(order);
    }
    // Who was frozen comes here to wait, who was thawed leaves its wait.
    for (was, other) in frozen.into_iter().zip(monitor.cpus) {
        if was != is_frozen(other) && other.id != cpu.id {
            fence::kick(monitor, other);
        }
    }
}

fn carry_out(order: &Order) {
    let address = order.address.load(Ordering::SeqCst);
    let value = order.value.load(Ordering::SeqCst);
    // SAFETY: the runner, which can write all memory anyway, injects a fault: an address that is
    // aligned memory outside of the monitor, identity-mapped, a local APIC's, or the atomic field
    // of the record that nobody reads. Harm to a cell is the purpose, and the monitor keeps no
    // reference into a cell's memory.
    unsafe {
        match order.bytes.load(Ordering::SeqCst) {
            1 => (address as *mut u8).write_volatile(value as u8),
            2 => (address as *mut u16).write_volatile(value as u16),
            4 => (address as *mut u32).write_volatile(value as u32),
            _ => (address as *mut u64).write_volatile(value),
        }
    }
}
