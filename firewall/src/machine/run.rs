//! One life on a hardware back end, exit by exit.
//!
//! # Invariants
//! 1. A kick that this CPU says it has seen is followed by the loss of its translations before the
//!    next guest instruction. Asserted at every entry, for no run under Bochs (2.7) would notice:
//!    it drops all translations at every entry and exit.

use core::sync::atomic::Ordering;

use cell::standing::Arrival;

use super::permissions::PortMap;
use crate::monitor::exits::{self, Exit, Verdict};
use crate::monitor::hypercalls::Reply;
use crate::monitor::{Monitor, PerCpu, Start, fence, life};

static CLOSED_PORTS: PortMap = PortMap::CLOSED;
static UART_OPEN: PortMap = PortMap::with_uart();

/// What becomes of the translations that the processor holds when a guest is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Translations {
    /// They stay.
    Keep,
    /// They go: some of them may be outdated.
    Drop,
}

/// A virtual CPU that is ready to be entered.
pub(crate) trait Guest {
    /// Frees the ports that `map` frees, and no others.
    fn open_ports(&mut self, map: &'static PortMap);

    /// Runs the guest until it exits, and says why it did.
    fn enter(&mut self, translations: Translations) -> Exit;

    /// Leaves the guest as it is. An event whose delivery the exit interrupted is delivered again.
    fn resume(&mut self);

    /// Answers the hypercall.
    fn give_answer(&mut self, reply: Reply);

    /// Delivers the exception of a bus error at the instruction that did not complete.
    fn give_bus_error(&mut self);

    /// Delivers an NMI.
    fn give_nmi(&mut self);
}

/// Runs the life `start` on the executing CPU until it is over, and says how the CPU then arrives.
pub(crate) fn run(
    monitor: &Monitor,
    cpu: &PerCpu,
    start: Start,
    guest: &mut impl Guest,
) -> Arrival {
    // A new life has other tables: whatever is held from the one before is outdated.
    let mut translations = Translations::Drop;
    let kicks_seen = &monitor.machine.cpu(cpu.id).kicks_seen;
    let mut served = Served::default();
    loop {
        if fence::answer_kicks(monitor, cpu) {
            translations = Translations::Drop;
        }
        if !life::is_alive(monitor, cpu, start.incarnation) {
            return Arrival::Return;
        }
        guest.open_ports(port_map(monitor, cpu));
        served.note(kicks_seen.load(Ordering::SeqCst), translations);
        let exit = guest.enter(translations);
        if fence::stop_by_machine_check(monitor, cpu) {
            return Arrival::Return;
        }
        let verdict = exits::judge(monitor, cpu, exit);
        // Whatever was not an answered hypercall may have been a kick, or met an outdated
        // translation.
        translations = match verdict {
            Verdict::Answer(_) => Translations::Keep,
            _ => Translations::Drop,
        };
        match verdict {
            Verdict::Resume => guest.resume(),
            Verdict::Answer(reply) => guest.give_answer(reply),
            Verdict::BusError(error) => {
                monitor.store_bus_error(cpu, error);
                guest.give_bus_error();
            }
            Verdict::Nmi => guest.give_nmi(),
            Verdict::Leave(arrival) => return arrival,
        }
    }
}

/// How many kicks of this CPU were followed by the loss of its translations.
#[derive(Debug, Default)]
struct Served(u64);

impl Served {
    /// Notes an entry of a CPU that says it has seen `kicks`.
    ///
    /// # Panics
    /// If there is one among them that was not served (invariant 1).
    fn note(&mut self, kicks: u64, translations: Translations) {
        if translations == Translations::Drop {
            self.0 = kicks;
        }
        assert!(self.0 == kicks, "a kick was seen and not served");
    }
}

/// The serial port may have changed hands since the last entry.
fn port_map(monitor: &Monitor, cpu: &PerCpu) -> &'static PortMap {
    let owner = monitor.machine.uart_owner.load(Ordering::SeqCst);
    let is_owner = owner == cpu.cell.index() as u32;
    cpu.had_uart.store(is_owner, Ordering::Relaxed);
    if is_owner { &UART_OPEN } else { &CLOSED_PORTS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translations_may_stay_until_a_kick_is_seen() {
        let mut served = Served::default();
        served.note(3, Translations::Drop);
        served.note(3, Translations::Keep);
        served.note(4, Translations::Drop);
        served.note(4, Translations::Keep);
    }

    #[test]
    #[should_panic(expected = "a kick was seen and not served")]
    fn a_kick_that_was_seen_and_not_served_stops_the_cpu() {
        let mut served = Served::default();
        served.note(3, Translations::Drop);
        served.note(4, Translations::Keep);
    }
}
