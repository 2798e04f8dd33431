//! CPUs that stand still in the middle of their cell, as long as nobody lets them go on.
//!
//! Bochs runs all CPUs or none. So a CPU that is to stand still is led to an endless loop with its
//! interrupts off, which lies in what is left over of the last page of its kernel's code. An NMI
//! still takes it into the monitor: what a frozen CPU of a real machine does when it goes on, this
//! one does at once. A CPU that sleeps (HLT) is led there when its next interrupt ends.
//!
//! # Invariants
//! 1. The loop is put where the kernel's image has nothing.
//! 2. No register is changed but the instruction pointer, and the interrupt flag while it loops.

use super::machine::BochsMachine;
use super::process::Bochs;
use crate::error::{Error, Result};
use crate::fault::host::Target;
use crate::fault::place::code_end;
use crate::guest::machine::CpuStatus;
use crate::qemu::qtest::BusAccess;

/// `cli`, a jump to itself, `sti`, a jump to the address in the next eight bytes.
const LOOP: [u8; 10] = [0xfa, 0xeb, 0xfe, 0xfb, 0xff, 0x25, 0x00, 0x00, 0x00, 0x00];
/// From the start of the loop to its jump, and to what leads out of it with interrupts on.
const JUMP: u64 = 1;
const WAY_OUT: u64 = 3;
/// Bytes of a loop with its address, rounded up; each CPU of a cell has one of its own.
const LOOP_BYTES: u64 = 32;
/// Steps of all CPUs between two looks whether a CPU is out of the monitor, and how many looks.
const STEPS: u32 = 500;
const LOOKS: u32 = 20_000;

/// The interrupt flag as the debugger shows it.
const INTERRUPTS_ON: &str = " IF ";

/// A CPU that stands still.
#[derive(Debug)]
pub struct Standstill {
    apic_id: u8,
    start: u64,
    old: u64,
    interrupts: bool,
}

/// Makes a CPU stand still as soon as it executes its kernel.
///
/// # Errors
/// [`Error::Bochs`] if it does not within some milliseconds, [`Error::Guest`] if the loop has no
/// room.
pub fn stand_still(
    machine: &mut BochsMachine,
    target: &Target<'_>,
    cpu: CpuStatus,
) -> Result<Standstill> {
    let cpus = target.machine.cpus_of(target.memory, cpu.cell)?;
    let slot = cpus.iter().position(|other| other.cpu == cpu.cpu);
    let code = code_end(target, cpu.cell)?;
    let skip = slot.unwrap_or(0) as u64 * LOOP_BYTES;
    if skip + LOOP_BYTES > code.room {
        let problem = "the kernel's code fills its last page: there is no room for a loop";
        return Err(Error::Guest(problem.into()));
    }
    let (start, physical) = (code.address + skip, code.physical + skip);
    for _ in 0..LOOKS {
        let registers = registers(machine.bochs(), cpu.apic_id)?;
        if (code.first..code.address).contains(&registers.instruction) {
            let old = registers.instruction;
            machine.write_bus(physical, &LOOP)?;
            machine.write_bus(physical + LOOP.len() as u64, &old.to_le_bytes())?;
            lead(machine.bochs(), cpu.apic_id, start)?;
            return Ok(Standstill {
                apic_id: cpu.apic_id,
                start,
                old,
                interrupts: registers.interrupts,
            });
        }
        machine.run(&format!("s all {STEPS}"), super::machine::STALL)?;
    }
    let (cpu, cell) = (cpu.cpu, cpu.cell);
    Err(Error::Bochs(format!(
        "CPU {cpu} never executes cell {cell}"
    )))
}

impl Standstill {
    /// The address at which it stands still.
    pub const fn at(&self) -> u64 {
        self.start
    }

    /// Lets it go on where it was, if it still is where it was led.
    ///
    /// # Errors
    /// [`Error::Bochs`].
    pub fn end(&self, bochs: &mut Bochs) -> Result<String> {
        let now = registers(bochs, self.apic_id)?.instruction;
        if now == self.start {
            lead(bochs, self.apic_id, self.old)?;
        } else if now == self.start + JUMP {
            let way_out = if self.interrupts {
                self.start + WAY_OUT
            } else {
                self.old
            };
            lead(bochs, self.apic_id, way_out)?;
        } else {
            return Ok("had left its loop already: it was fenced".into());
        }
        Ok("goes on".into())
    }
}

struct Registers {
    instruction: u64,
    interrupts: bool,
}

fn select(bochs: &mut Bochs, apic_id: u8) -> Result<()> {
    let command = format!("set $cpu = {apic_id}");
    bochs.debugger.command(&command).map(drop)
}

fn registers(bochs: &mut Bochs, apic_id: u8) -> Result<Registers> {
    select(bochs, apic_id)?;
    let answer = bochs.debugger.command("r")?;
    let registers = parse(&answer);
    registers.ok_or_else(|| Error::Bochs(format!("r says \"{}\"", answer.trim())))
}

/// Lines such as `rip: ffffffff_80016f48` and `eflags 0x00000046: id ... IF tf ...`.
fn parse(answer: &str) -> Option<Registers> {
    let after = |word: &str| {
        let (_, rest) = answer.split_once(word)?;
        rest.lines().next()
    };
    let instruction = after("rip: ")?.trim().replace('_', "");
    Some(Registers {
        instruction: u64::from_str_radix(&instruction, 16).ok()?,
        interrupts: after("eflags ")?.contains(INTERRUPTS_ON),
    })
}

fn lead(bochs: &mut Bochs, apic_id: u8, address: u64) -> Result<()> {
    select(bochs, apic_id)?;
    let command = format!("set rip = {address:#x}");
    bochs.debugger.command(&command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_understood() {
        let answer = "CPU2:\nrax: 00000000_00800f11\nrip: ffffffff_80016f48\n\
                      eflags 0x00000206: id vip vif ac vm rf nt IOPL=0 of df IF tf sf zf\n";
        let registers = parse(answer);
        let expected = 0xffff_ffff_8001_6f48;
        assert!(registers.is_some_and(|it| it.interrupts && it.instruction == expected));
        let off = answer.replace("IF", "if");
        assert!(parse(&off).is_some_and(|it| !it.interrupts));
        assert!(parse("rip: x\neflags 0").is_none());
    }

    #[test]
    fn the_loop_is_what_its_offsets_say() {
        assert_eq!(LOOP[JUMP as usize..][..2], [0xeb, 0xfe]);
        assert_eq!(LOOP[WAY_OUT as usize], 0xfb);
        assert!((LOOP.len() + 8) as u64 <= LOOP_BYTES);
    }
}
