//! Registers of a CPU, by the names that QEMU's own description gives them.

use std::fmt::Write;

use super::{Gdb, error};
use crate::error::Result;
use crate::qemu::qtest::{decode_hex, encode_hex};

/// Characters of a description that are asked for at once.
const PART: usize = 0x800;
/// Longest description that is read.
const DESCRIPTION_MAX: usize = 1 << 20;
/// A register of a width that the one before it does not have.
const ODD_ONE: &str = "st0";
/// Registers that QEMU 7.2 describes and does not have, so that all after them have other numbers.
const DESCRIBED_ONLY: [&str; 3] = ["ss_base", "ds_base", "es_base"];
/// Where the description of a CPU begins.
const TARGET: &str = "target.xml";

/// A register.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Register {
    /// Its name.
    pub name: String,
    /// Its number in packets.
    pub number: u32,
    /// Its width.
    pub bits: u32,
}

/// The registers of one CPU, while the machine stands still.
#[derive(Debug)]
pub struct CpuRegisters<'a> {
    gdb: &'a mut Gdb,
}

impl CpuRegisters<'_> {
    /// Reads one, the lowest byte first.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`].
    pub fn read(&mut self, register: &Register) -> Result<Vec<u8>> {
        let reply = self
            .gdb
            .request_past_stops(&format!("p{:x}", register.number))?;
        let bytes = decode_hex(&reply).filter(|bytes| !bytes.is_empty());
        bytes.ok_or_else(|| error(format!("reading {}: {reply}", register.name)))
    }

    /// Writes one.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`].
    pub fn write(&mut self, register: &Register, bytes: &[u8]) -> Result<()> {
        let (number, hex) = (register.number, encode_hex(bytes));
        match self
            .gdb
            .request_past_stops(&format!("P{number:x}={hex}"))?
            .as_str()
        {
            "OK" => Ok(()),
            reply => Err(error(format!("writing {}: {reply}", register.name))),
        }
    }
}

impl Gdb {
    /// The registers that QEMU has.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`].
    pub fn registers(&mut self) -> Result<Vec<Register>> {
        self.while_stopped(|gdb| {
            let target = gdb.description(TARGET)?;
            // Without includes the registers are there themselves.
            let mut texts = vec![target.clone()];
            for name in includes(&target) {
                texts.push(gdb.description(name)?);
            }
            for left_out in [&[][..], &DESCRIBED_ONLY] {
                let mut registers = Vec::new();
                for text in &texts {
                    parse(text, &mut registers, left_out);
                }
                if gdb.agrees(&registers)? {
                    return Ok(registers);
                }
            }
            Err(error(
                "the registers are not those that are described".into(),
            ))
        })
    }

    /// Does something with the registers of a CPU, by QEMU's number of it, from 0.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`], and those of `action`.
    pub fn with_registers<T>(
        &mut self,
        cpu: u32,
        action: impl FnOnce(&mut CpuRegisters<'_>) -> Result<T>,
    ) -> Result<T> {
        self.while_stopped(|gdb| {
            match gdb
                .request_past_stops(&format!("Hgp1.{:x}", cpu + 1))?
                .as_str()
            {
                "OK" => action(&mut CpuRegisters { gdb }),
                reply => Err(error(format!("choosing CPU {cpu}: {reply}"))),
            }
        })
    }

    /// Whether the register of a width of its own is where the description has it.
    fn agrees(&mut self, registers: &[Register]) -> Result<bool> {
        let Some(odd) = registers.iter().find(|register| register.name == ODD_ONE) else {
            return Ok(true);
        };
        let reply = self.request_past_stops(&format!("p{:x}", odd.number))?;
        let bytes = decode_hex(&reply).map_or(0, |bytes| bytes.len());
        let others = registers
            .iter()
            .find(|register| register.number + 1 == odd.number);
        let before = match others {
            Some(other) => self.request_past_stops(&format!("p{:x}", other.number))?,
            None => String::new(),
        };
        let before = decode_hex(&before).map_or(0, |bytes| bytes.len());
        Ok(bytes * 8 == odd.bits as usize && before != bytes)
    }

    fn description(&mut self, name: &str) -> Result<String> {
        let mut text = String::new();
        while text.len() < DESCRIPTION_MAX {
            let mut packet = format!("qXfer:features:read:{name}:");
            // A string takes everything.
            let _ = write!(packet, "{:x},{PART:x}", text.len());
            let reply = self.request_past_stops(&packet)?;
            let (kind, part) = reply.split_at_checked(1).unwrap_or_default();
            text.push_str(part);
            match kind {
                "m" => {}
                "l" => return Ok(text),
                _ => return Err(error(format!("{packet}: {reply}"))),
            }
        }
        Err(error(format!("a description of {name} without end")))
    }
}

/// The value of an attribute in the text of an element.
fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = element.split_once(&format!(" {name}=\""))?;
    after.split_once('"').map(|(value, _)| value)
}

/// The elements of a name.
fn elements<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let parts = text.split('<');
    let start = format!("{name} ");
    parts.filter(move |part| part.starts_with(&start))
}

fn includes(text: &str) -> Vec<&str> {
    let found = elements(text, "xi:include");
    found
        .filter_map(|element| attribute(element, "href"))
        .collect()
}

/// Adds the registers of a description; those without a number of their own follow the one before.
fn parse(text: &str, registers: &mut Vec<Register>, left_out: &[&str]) {
    let there =
        |element: &&str| !attribute(element, "name").is_some_and(|it| left_out.contains(&it));
    for element in elements(text, "reg").filter(there) {
        let next = registers.last().map_or(0, |last| last.number + 1);
        let number = attribute(element, "regnum").and_then(|number| number.parse().ok());
        let bits = attribute(element, "bitsize").and_then(|bits| bits.parse().ok());
        if let (Some(name), Some(bits)) = (attribute(element, "name"), bits)
            && bits > 0
        {
            registers.push(Register {
                name: name.into(),
                number: number.unwrap_or(next),
                bits,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read() {
        let target = r#"<target><architecture>i386:x86-64</architecture>
            <xi:include href="i386-64bit.xml"/></target>"#;
        assert_eq!(includes(target), ["i386-64bit.xml"]);
        let text = r#"<feature name="core"><reg name="rax" bitsize="64" type="int64"/>
            <reg name="rbx" bitsize="64"/><reg name="cr0" bitsize="64" regnum="27"/>
            <reg name="odd" bitsize="64"/><reg name="cr2" bitsize="64"/>
            <reg name="bad" bitsize="x"/></feature>"#;
        let mut registers = Vec::new();
        parse(text, &mut registers, &["odd"]);
        let found: Vec<(&str, u32)> = registers
            .iter()
            .map(|register| (register.name.as_str(), register.number))
            .collect();
        assert_eq!(found, [("rax", 0), ("rbx", 1), ("cr0", 27), ("cr2", 28)]);
    }

    #[test]
    fn spoilt_descriptions_are_survived() {
        let valid: &[u8] = br#"<xi:include href="a"/><reg name="rax" bitsize="64" regnum="4"/>"#;
        fuzz::cases(&[valid], |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let mut registers = Vec::new();
            parse(&text, &mut registers, &[]);
            assert!(registers.len() <= text.len() && includes(&text).len() <= text.len());
        });
    }
}
