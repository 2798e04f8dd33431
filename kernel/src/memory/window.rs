//! The physical window: every physical address at a fixed distance in the virtual address space.
//!
//! The monitor maps all RAM and the first 4 GiB there, read-write and never executable; what a cell
//! may do with a frame is decided below, by the firewall.
//!
//! # Not guaranteed
//! That an access through the window succeeds: memory of others may answer with a bus error. Such
//! accesses go through `careful` or `guarded`.

use cell::PhysicalAddress;

/// Where physical address 0 appears. Checked against the `BootInfo` at entry.
pub const START: u64 = 0xffff_8000_0000_0000;

/// Bytes of physical address space that the window can show: 46 bits, half of the upper half of the
/// address space. The stacks and the image lie in the other half.
const SPAN: u64 = 1 << 46;

/// The pointer through which `address` is reached.
pub const fn pointer<T>(address: PhysicalAddress) -> *mut T {
    (START + (address.0 & (SPAN - 1))) as *mut T
}

/// The physical address that a virtual one in the window shows.
pub const fn physical(address: u64) -> Option<PhysicalAddress> {
    if address >= START && address - START < SPAN {
        Some(PhysicalAddress(address - START))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_there_and_back() {
        for address in [0, 0xfee0_0000, (1 << 40) + 5] {
            let pointer = pointer::<u8>(PhysicalAddress(address)) as u64;
            assert_eq!(physical(pointer), Some(PhysicalAddress(address)));
        }
        assert_eq!(
            physical(0xffff_ffff_8000_0000),
            None,
            "the image is not in the window"
        );
        assert_eq!(physical(0x1000), None);
    }
}
