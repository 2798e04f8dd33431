//! Ports, written with a landing pad: a denied port is an error, not the end of the cell.
//!
//! # Protocol
//! As in `memory::copy`: a bus error at the instruction between the two symbols lands behind it,
//! with its kind in RAX and the port in RDX.

use core::arch::naked_asm;

use firewall::hypercall::BusError;

#[repr(C)]
struct Outcome {
    kind: u64,
    port: u64,
}

unsafe extern "C" {
    static kernel_port_start: u8;
    static kernel_port_landing: u8;
}

/// Writes a byte to a port.
///
/// # Safety
/// Whatever the device does with the byte is the caller's responsibility, if the monitor lets it
/// through.
#[unsafe(naked)]
unsafe extern "C" fn write(port: u64, value: u64) -> Outcome {
    naked_asm!(
        "mov edx, edi",
        "mov eax, esi",
        ".globl kernel_port_start",
        "kernel_port_start:",
        "out dx, al",
        "xor eax, eax",
        ".globl kernel_port_landing",
        "kernel_port_landing:",
        "ret",
    );
}

/// Where an exception at `instruction` resumes, if it is the port write.
pub fn landing_pad(instruction: u64) -> Option<u64> {
    let is_write = instruction == (&raw const kernel_port_start).addr() as u64;
    is_write.then(|| (&raw const kernel_port_landing).addr() as u64)
}

/// Writes a byte to a port.
///
/// # Errors
/// The bus error, if the monitor denied it.
///
/// # Safety
/// Whatever the device does with the byte is the caller's responsibility, if the monitor lets it
/// through.
pub unsafe fn try_write(port: u16, value: u8) -> Result<(), BusError> {
    // SAFETY: the same contract.
    match unsafe { write(port.into(), value.into()) } {
        Outcome { kind: 0, .. } => Ok(()),
        Outcome { kind, port } => Err(BusError {
            address: port,
            kind,
        }),
    }
}
