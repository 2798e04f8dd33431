//! What a CPU does when nobody is ready: it sleeps until an interrupt.
//!
//! If the boot parameters say so, the first CPU of the cell stays awake instead ([`Idle`]).

use core::hint::{black_box, spin_loop};

use cell::parameters::Idle;

use crate::cpu::{interrupts, per_cpu};
use crate::own::own;
use crate::thread::run_queue::Intent;
use crate::thread::scheduler;

/// How often a CPU that stays awake goes round before it lets an emulator turn to another: so long
/// that time passes, so short that nobody waits long.
const TURNS: u32 = 1000;

/// Runs the idle thread of this CPU, which is what entered the kernel on it.
pub fn run() -> ! {
    let idle = idle_of_this_cpu();
    loop {
        interrupts::disable();
        if scheduler::is_somebody_ready() {
            scheduler::give_away(Intent::Continue);
        } else if idle == Idle::Awake {
            interrupts::enable();
            pass_time();
        } else {
            interrupts::enable_and_halt();
        }
    }
}

fn idle_of_this_cpu() -> Idle {
    let own = own();
    if per_cpu::this().index() == own.boot_cpu_index {
        Idle::from_raw(own.settings.idle)
    } else {
        Idle::Sleep
    }
}

fn pass_time() {
    for turn in 0..TURNS {
        black_box(turn);
    }
    spin_loop();
}
