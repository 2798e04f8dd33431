//! Faults of registers, injected from outside by the gdb stub.

use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::plan::{Registers, Strike};
use crate::error::{Error, Result};
use crate::qemu::gdb::Gdb;
use crate::qemu::gdb::registers::Register;

/// Virtual addresses from here on are a kernel's; below them runs the monitor.
const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;
/// How often a CPU is stopped until it is found in its kernel.
const TRIES_MAX: u32 = 200;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(1);

/// Whether a register belongs to a class.
fn belongs(register: &Register, class: Registers) -> bool {
    let name = register.name.as_str();
    match class {
        Registers::General => {
            let numbered = name
                .strip_prefix('r')
                .is_some_and(|rest| rest.parse::<u8>().is_ok());
            numbered
                || matches!(
                    name,
                    "rax" | "rbx" | "rcx" | "rdx" | "rsi" | "rdi" | "rbp" | "rsp" | "rip"
                )
        }
        Registers::Flags => name == "eflags",
        Registers::Segment => matches!(
            name,
            "cs" | "ss" | "ds" | "es" | "fs" | "gs" | "fs_base" | "gs_base" | "k_gs_base"
        ),
        Registers::Control => matches!(name, "cr0" | "cr2" | "cr3" | "cr4" | "cr8" | "efer"),
        Registers::Fp => name.starts_with("st") || name.starts_with("xmm") || name == "mxcsr",
    }
}

/// Flips a bit of a register of a CPU, by QEMU's number of it, while that executes its kernel: the
/// monitor is no part of what a fault may strike. Says what was done.
///
/// # Errors
/// [`Error::Guest`] if the CPU is never found in its kernel, [`Error::Channel`].
pub fn flip_bit(gdb: &mut Gdb, cpu: u8, who: &str, strike: &Strike) -> Result<String> {
    let mut random = ChaCha8Rng::seed_from_u64(strike.seed);
    let all = gdb.registers()?;
    let of_class: Vec<&Register> = all
        .iter()
        .filter(|register| belongs(register, strike.registers))
        .collect();
    let class = strike.registers;
    let none = || Error::Guest(format!("QEMU shows no {class} registers"));
    let register = *of_class.choose(&mut random).ok_or_else(none)?;
    let bit = random.random_range(0..register.bits) as usize;
    let place = all
        .iter()
        .find(|register| register.name == "rip")
        .ok_or_else(none)?;
    for _ in 0..TRIES_MAX {
        let done = gdb.with_registers(u32::from(cpu), |registers| {
            let rip = registers.read(place)?;
            if word(&rip) < KERNEL_HALF {
                return Ok(None);
            }
            let old = registers.read(register)?;
            let mut new = old.clone();
            let Some(byte) = new.get_mut(bit / 8) else {
                return Err(none());
            };
            *byte ^= 1 << (bit % 8);
            registers.write(register, &new)?;
            Ok(Some((old, new, registers.read(register)?)))
        })?;
        if let Some((old, new, kept)) = done {
            let name = &register.name;
            let (old, shown) = (hex(&old), hex(&new));
            let kept = if kept == new {
                ""
            } else {
                ", which the CPU did not take as it is"
            };
            let what = format!("bit {bit} of {name} of {who}: {old} becomes {shown}{kept}");
            return Ok(what);
        }
        std::thread::sleep(PAUSE);
    }
    Err(Error::Guest(format!("{who} was never found in its kernel")))
}

fn word(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The highest digit first.
fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().rev().map(|byte| format!("{byte:02x}"));
    format!("0x{}", digits.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_belongs_to_one_class_at_most() {
        let classes = |name: &str| {
            let register = Register {
                name: name.into(),
                number: 0,
                bits: 64,
            };
            let fits = |class: &&Registers| belongs(&register, **class);
            Registers::ALL
                .iter()
                .filter(fits)
                .copied()
                .collect::<Vec<_>>()
        };
        for (name, class) in [
            ("r8", Registers::General),
            ("rip", Registers::General),
            ("eflags", Registers::Flags),
            ("gs_base", Registers::Segment),
            ("cr3", Registers::Control),
            ("efer", Registers::Control),
            ("xmm15", Registers::Fp),
            ("st7", Registers::Fp),
        ] {
            assert_eq!(classes(name), [class], "{name}");
        }
        assert!(classes("ftag").is_empty());
    }

    #[test]
    fn bytes_are_shown_as_a_number() {
        assert_eq!(hex(&[0x34, 0x12]), "0x1234");
        assert_eq!(word(&[1, 0, 0, 0, 0, 0, 0, 0x80]), 1 | 1 << 63);
    }
}
