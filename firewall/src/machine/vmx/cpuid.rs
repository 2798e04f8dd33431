//! What a cell is told of the processor.
//!
//! `CPUID` exits, always (25.1.2). The answer is the processor's own, less what does not work in a
//! cell here: features whose registers the monitor denies, or whose instructions it leaves off.

use core::arch::x86_64::CpuidResult;

/// CR4.OSXSAVE, and the bit of `CPUID` 1 that repeats it.
const OSXSAVE: u32 = 1 << 27;
const CR4_OSXSAVE: u64 = 1 << 18;

/// Bits of a leaf and subleaf that are hidden, for EAX, EBX, ECX and EDX.
const fn hidden(leaf: u32, subleaf: u32) -> [u32; 4] {
    match (leaf, subleaf) {
        // VMX, SMX; x2APIC and the TSC deadline, whose registers are denied. OSXSAVE is put in
        // afterwards.
        (1, _) => [0, 0, 1 << 5 | 1 << 6 | 1 << 21 | 1 << 24 | OSXSAVE, 0],
        // INVPCID (EBX), WAITPKG (ECX): off among the secondary controls.
        (7, 0) => [0, 1 << 10, 1 << 5, 0],
        // XSAVES: likewise.
        (0xd, 1) => [1 << 3, 0, 0, 0],
        // RDTSCP: likewise.
        (0x8000_0001, _) => [0, 0, 0, 1 << 27],
        _ => [0; 4],
    }
}

/// The answer to a cell, out of the processor's.
pub(super) const fn answer(
    leaf: u32,
    subleaf: u32,
    processor: CpuidResult,
    guest_cr4: u64,
) -> CpuidResult {
    let [eax, ebx, ecx, edx] = hidden(leaf, subleaf);
    let mut told = CpuidResult {
        eax: processor.eax & !eax,
        ebx: processor.ebx & !ebx,
        ecx: processor.ecx & !ecx,
        edx: processor.edx & !edx,
    };
    if leaf == 1 && guest_cr4 & CR4_OSXSAVE != 0 {
        told.ecx |= OSXSAVE;
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: CpuidResult = CpuidResult {
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
    };

    #[test]
    fn a_cell_does_not_see_what_it_cannot_use() {
        let features = answer(1, 0, ALL, 0);
        assert_eq!(features.ecx & (1 << 5), 0, "VMX");
        assert_eq!(features.ecx & OSXSAVE, 0, "its own CR4 has it off");
        assert_ne!(answer(1, 0, ALL, CR4_OSXSAVE).ecx & OSXSAVE, 0);
        assert_eq!(features.edx, u32::MAX);
        assert_eq!(answer(0x8000_0001, 0, ALL, 0).edx & (1 << 27), 0);
        assert_eq!(answer(0, 0, ALL, 0), ALL);
    }
}
