//! Exits from the guest, in a trace of every instruction that a CPU executed.
//!
//! Bochs's debugger shows an instruction before it is executed, so the one that exits is in the
//! trace, the monitor's follow, and then the guest's next. The kernel lies in the upper half of the
//! address space, the monitor in the lower.
//!
//! # Not guaranteed
//! A string instruction counts as one, however often it repeats.

/// An instruction that was executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Traced<'a> {
    address: u64,
    /// Its name.
    name: &'a str,
}

impl Traced<'_> {
    const fn is_guest(self) -> bool {
        self.address >> 63 == 1
    }
}

/// An exit, and the way back into the guest. The numbers are of instructions in the trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit {
    /// The address of the instruction that exited.
    pub address: u64,
    /// Whether it asked for it.
    pub is_hypercall: bool,
    /// The number of the instruction that exited.
    pub first: usize,
    /// The number of the guest's next one.
    pub end: usize,
}

impl Exit {
    /// Instructions from the one that exits, itself included, to the guest's next.
    pub const fn instructions(&self) -> usize {
        self.end - self.first
    }
}

/// The exits of `cpu` that are whole in `trace`.
pub fn exits(trace: &str, cpu: usize) -> Vec<Exit> {
    let prefix = format!("({cpu}).[");
    let lines = trace.lines().filter_map(|line| line.strip_prefix(&prefix));
    let mut exits = Vec::new();
    let mut last: Option<Traced<'_>> = None;
    let mut open: Option<Exit> = None;
    for (number, traced) in lines.map(parse).enumerate() {
        // Every line is an instruction, whether it is understood or not.
        let Some(traced) = traced else { continue };
        match (traced.is_guest(), last) {
            (false, Some(before)) if before.is_guest() => {
                open = Some(Exit {
                    address: before.address,
                    is_hypercall: matches!(before.name, "vmcall" | "vmmcall"),
                    first: number - 1,
                    end: number,
                });
            }
            (true, _) => exits.extend(open.take().map(|exit| Exit {
                end: number,
                ..exit
            })),
            _ => {}
        }
        last = Some(traced);
    }
    exits
}

/// A line `TICKS] [0xPHYSICAL] SEGMENT:ADDRESS (CONTEXT): NAME OPERANDS ; BYTES` behind the CPU.
fn parse(line: &str) -> Option<Traced<'_>> {
    let (place, instruction) = line.split_once("): ")?;
    let (_, address) = place.split_once(" (")?.0.rsplit_once(':')?;
    Some(Traced {
        address: u64::from_str_radix(address, 16).ok()?,
        name: instruction.split_whitespace().next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
(1).[900] [0x000000805000] 0008:ffffffff80001000 (unk. ctxt): mov eax, 0x00000001 ; b801000000
(1).[901] [0x000000805005] 0008:ffffffff80001005 (unk. ctxt): vmcall            ; 0f01c1
(0).[901] [0x000000105005] 0008:0000000000105005 (unk. ctxt): hlt               ; f4
(1).[902] [0x000000105000] 0008:0000000000105000 (unk. ctxt): xchg rdi, [rsp]   ; 48873c24
(1).[903] [0x000000105004] 0008:0000000000105004 (unk. ctxt): vmresume          ; 0f01c3
(1).[904] [0x000000805008] 0008:ffffffff80001008 (unk. ctxt): mov [rdi], rax    ; 488907
(1).[905] [0x000000105000] 0008:0000000000105000 (unk. ctxt): xchg rdi, [rsp]   ; 48873c24
(1) Caught write watch point at 0x000000136000
";

    #[test]
    fn an_exit_is_counted_from_its_instruction_to_the_next_of_the_guest() {
        let hypercall = Exit {
            address: 0xffff_ffff_8000_1005,
            is_hypercall: true,
            first: 1,
            end: 4,
        };
        assert_eq!(exits(TRACE, 1), [hypercall], "the second is not whole");
        assert_eq!(hypercall.instructions(), 3);
        assert_eq!(exits(TRACE, 0), []);
        let whole = format!("{TRACE}{}", TRACE.lines().next().unwrap_or_default());
        let exits = exits(&whole, 1);
        assert_eq!(exits.len(), 2);
        assert!(!exits[1].is_hypercall);
        assert_eq!(
            (exits[1].address, exits[1].instructions()),
            (0xffff_ffff_8000_1008, 2)
        );
    }

    #[test]
    fn spoilt_traces_are_survived() {
        fuzz::cases(&[TRACE.as_bytes()], |bytes| {
            let _ = exits(&String::from_utf8_lossy(bytes), 1);
        });
    }
}
