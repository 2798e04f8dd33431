//! Faults that a cell injects into itself, on a request in its public area.

use std::mem::offset_of;

use cell::fault::{FaultRequest, InnerFault, program_words};
use cell::public::{FAULT_OFFSET, part};
use cell::{CellId, CellSet, PhysicalAddress};

use super::plan::{Hook, Strike, Trigger};
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
    trigger: Option<&Trigger>,
) -> Result<String> {
    let base = part(machine.public(strike.cell), FAULT_OFFSET);
    let at = |offset| field(base, offset);
    let awaited = trigger.and_then(|trigger| Some((trigger.inner_event()?, trigger.count)));
    let (event, count) = awaited.map_or((0, 0), |(event, count)| (event as u32, count));
    memory.write_u32(at(offset_of!(FaultRequest, fault)), fault as u32)?;
    memory.write_u64(at(offset_of!(FaultRequest, argument)), strike.argument)?;
    memory.write_u64(at(offset_of!(FaultRequest, seed)), strike.seed)?;
    memory.write_u64(at(offset_of!(FaultRequest, at)), 0)?;
    memory.write_u32(at(offset_of!(FaultRequest, after_event)), event)?;
    memory.write_u32(at(offset_of!(FaultRequest, after_count)), count)?;
    ask_of_hook(memory, base, &strike.hook)?;
    // Last, because the kernel looks at the rest once it sees a new number.
    let sequence = at(offset_of!(FaultRequest, sequence));
    memory.write_u32(sequence, memory.read_u32(sequence)?.wrapping_add(1))?;
    Ok(match awaited {
        Some((event, count)) => format!(
            "asked of cell {}, to be done at its {} number {count}",
            strike.cell,
            event.name()
        ),
        None => format!("asked of cell {}", strike.cell),
    })
}

/// Writes what of all that passes a hook is to be struck.
fn ask_of_hook(memory: &GuestMemory, base: PhysicalAddress, hook: &Hook) -> Result<()> {
    let at = |offset| field(base, offset);
    let to = hook
        .to
        .and_then(CellId::new)
        .map_or(0, |cell| CellSet::only(cell).0);
    let run_time = u64::try_from(hook.run_time.as_nanos()).unwrap_or(u64::MAX);
    memory.write_u32(at(offset_of!(FaultRequest, probability)), hook.probability)?;
    memory.write_u32(at(offset_of!(FaultRequest, interval)), hook.interval)?;
    memory.write_u64(at(offset_of!(FaultRequest, space)), hook.space)?;
    memory.write_u64(at(offset_of!(FaultRequest, to)), to)?;
    let operation = at(offset_of!(FaultRequest, operation));
    memory.write_u32(operation, hook.operation.into())?;
    let program = at(offset_of!(FaultRequest, program));
    for (number, word) in program_words(&hook.program).into_iter().enumerate() {
        memory.write_u64(field(program, number * size_of::<u64>()), word)?;
    }
    memory.write_u64(at(offset_of!(FaultRequest, run_time)), run_time)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::fault::catalogue::Fault;
    use crate::guest::machine::tests::synthetic;
    use cell::trace::Event;

    #[test]
    fn a_request_is_numbered_and_whole() {
        let (memory, base) = synthetic();
        let machine = MachineView::read(&memory, base).unwrap().unwrap();
        let strike = Strike::new(Fault::Inner(InnerFault::WildWrite), 1);
        let trigger = Trigger::at(Event::Barrier1);
        request(&memory, &machine, &strike, InnerFault::WildWrite, None).unwrap();
        request(
            &memory,
            &machine,
            &strike,
            InnerFault::WildWrite,
            Some(&trigger),
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

    #[test]
    fn what_is_said_of_a_hook_is_asked_for() {
        let (memory, base) = synthetic();
        let machine = MachineView::read(&memory, base).unwrap().unwrap();
        let strike = Strike {
            hook: Hook {
                probability: 500_000,
                to: Some(1),
                program: "server".into(),
                ..Hook::default()
            },
            ..Strike::new(Fault::Inner(InnerFault::ProgramKill), 0)
        };
        request(&memory, &machine, &strike, InnerFault::ProgramKill, None).unwrap();
        let at = |offset| field(part(machine.public(0), FAULT_OFFSET), offset);
        let probability = at(offset_of!(FaultRequest, probability));
        assert_eq!(memory.read_u32(probability).unwrap(), 500_000);
        assert_eq!(
            memory.read_u64(at(offset_of!(FaultRequest, to))).unwrap(),
            2
        );
        let program = memory.read_u64(at(offset_of!(FaultRequest, program)));
        assert_eq!(program.unwrap(), u64::from_le_bytes(*b"server\0\0"));
    }
}
