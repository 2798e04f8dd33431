//! Faults that a cell injects into itself, on a request in its public area.

use std::mem::offset_of;

use cell::fault::{FaultRequest, InnerFault};
use cell::public::{FAULT_OFFSET, part};

use super::plan::{Strike, Trigger};
use crate::error::Result;
use crate::guest::machine::MachineView;
use crate::guest::memory::{GuestMemory, field};

/// Asks a cell to injure itself, at once or after an event in its own trace. Says what was asked.
///
/// # Errors
/// See [`GuestMemory::read`].
pub fn request(
    memory: &GuestMemory,
    machine: &MachineView,
    strike: &Strike,
    fault: InnerFault,
    trigger: Option<Trigger>,
) -> Result<String> {
    let base = part(machine.public(strike.cell), FAULT_OFFSET);
    let at = |offset| field(base, offset);
    let (event, count) = trigger.map_or((0, 0), |trigger| (trigger.event as u32, trigger.count));
    memory.write_u32(at(offset_of!(FaultRequest, fault)), fault as u32)?;
    memory.write_u64(at(offset_of!(FaultRequest, argument)), strike.argument)?;
    memory.write_u64(at(offset_of!(FaultRequest, seed)), strike.seed)?;
    memory.write_u64(at(offset_of!(FaultRequest, at)), 0)?;
    memory.write_u32(at(offset_of!(FaultRequest, after_event)), event)?;
    memory.write_u32(at(offset_of!(FaultRequest, after_count)), count)?;
    // Last, because the kernel looks at the rest once it sees a new number.
    let sequence = at(offset_of!(FaultRequest, sequence));
    memory.write_u32(sequence, memory.read_u32(sequence)?.wrapping_add(1))?;
    Ok(match trigger {
        Some(trigger) => format!(
            "asked of cell {}, to be done at its {} number {count}",
            strike.cell,
            trigger.event.name()
        ),
        None => format!("asked of cell {}", strike.cell),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::fault::catalogue::Fault;
    use crate::guest::machine::tests::synthetic;
    use cell::trace::Event;
    use std::time::Duration;

    #[test]
    fn a_request_is_numbered_and_whole() {
        let (memory, base) = synthetic();
        let machine = MachineView::read(&memory, base).unwrap().unwrap();
        let strike = Strike::new(Fault::Inner(InnerFault::WildWrite), 1);
        let trigger = Trigger {
            event: Event::Barrier1,
            count: 1,
            delay: Duration::ZERO,
        };
        request(&memory, &machine, &strike, InnerFault::WildWrite, None).unwrap();
        request(
            &memory,
            &machine,
            &strike,
            InnerFault::WildWrite,
            Some(trigger),
        )
        .unwrap();
        let at = part(machine.public(1), FAULT_OFFSET);
        assert_eq!(memory.read_u32(at).unwrap(), 2);
        assert_eq!(
            memory.read_u32(field(at, 4)).unwrap(),
            InnerFault::WildWrite as u32
        );
        assert_eq!(memory.read_u64(field(at, 8)).unwrap(), 256);
        let event = field(at, offset_of!(FaultRequest, after_event));
        assert_eq!(memory.read_u32(event).unwrap(), Event::Barrier1 as u32);
    }
}
