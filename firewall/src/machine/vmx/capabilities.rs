//! Which control bits this processor wants, allows, or makes impossible.
//!
//! A capability register names, for one group of controls, the bits that must be 1 (low half) and
//! those that may be 1 (high half) (A.3). Whatever the monitor needs and cannot have, or would get
//! without being able to handle it, is a [`Refusal`].

use core::fmt;

use crate::nested::LargestPage;

/// Pin-based controls (24.6.1).
pub(crate) mod pin {
    pub(crate) const NMI_EXITING: u32 = 1 << 3;
    pub(crate) const VIRTUAL_NMIS: u32 = 1 << 5;
}

/// Primary processor-based controls (24.6.2).
pub(crate) mod primary {
    pub(crate) const NMI_WINDOW_EXITING: u32 = 1 << 22;
    pub(crate) const IO_BITMAPS: u32 = 1 << 25;
    pub(crate) const MSR_BITMAPS: u32 = 1 << 28;
    pub(crate) const SECONDARY: u32 = 1 << 31;
}

/// Secondary processor-based controls (24.6.2).
pub(crate) mod secondary {
    pub(crate) const EPT: u32 = 1 << 1;
    pub(crate) const VPID: u32 = 1 << 5;
}

/// VM-exit controls (24.7.1).
pub(crate) mod exit {
    pub(crate) const SAVE_DEBUG: u32 = 1 << 2;
    pub(crate) const HOST_64_BIT: u32 = 1 << 9;
}

/// VM-entry controls (24.8.1).
pub(crate) mod entry {
    pub(crate) const LOAD_DEBUG: u32 = 1 << 2;
    pub(crate) const GUEST_64_BIT: u32 = 1 << 9;
}

/// Bits that a processor may insist on, because they meant nothing else in the first ones (A.3.1 to
/// A.3.5). Of the primary ones, exits on accesses to CR3 (15, 16) are no such bits here: no newer
/// processor insists on them, and the monitor does not handle them.
mod harmless {
    pub(super) const PIN: u32 = 0x0000_0016;
    pub(super) const PRIMARY: u32 = 0x0400_6172;
    pub(super) const EXIT: u32 = 0x0003_6dff;
    pub(super) const ENTRY: u32 = 0x0000_11ff;
}

/// What one processor says of itself: model-specific registers, as read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Registers {
    /// IA32_FEATURE_CONTROL.
    pub(crate) feature_control: u64,
    /// IA32_VMX_BASIC.
    pub(crate) basic: u64,
    /// Capabilities of each group of controls: the TRUE registers where there are some (A.2).
    pub(crate) pin: u64,
    pub(crate) primary: u64,
    /// 0 where there are no secondary controls.
    pub(crate) secondary: u64,
    pub(crate) exit: u64,
    pub(crate) entry: u64,
    /// IA32_VMX_EPT_VPID_CAP; 0 where there is neither.
    pub(crate) ept_vpid: u64,
    pub(crate) cr0: Fixed,
    pub(crate) cr4: Fixed,
}

/// Bits of a control register that VMX operation fixes (A.7, A.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Fixed {
    /// Bits that must be 1.
    pub(crate) ones: u64,
    /// Bits that may be 1.
    pub(crate) allowed: u64,
}

impl Fixed {
    /// `value` as VMX operation wants it, or `None` if it has a bit that must be 0.
    pub(crate) const fn settle(self, value: u64) -> Option<u64> {
        if value & !self.allowed == 0 {
            Some(value | self.ones)
        } else {
            None
        }
    }
}

/// IA32_FEATURE_CONTROL: no more changes until reset; VMX outside SMX operation (23.7).
pub(crate) const FEATURE_LOCKED: u64 = 1 << 0;
pub(crate) const FEATURE_VMX: u64 = 1 << 2;

/// IA32_VMX_EPT_VPID_CAP (A.10).
mod ept {
    pub(super) const FOUR_LEVELS: u64 = 1 << 6;
    pub(super) const WRITE_BACK: u64 = 1 << 14;
    pub(super) const LARGE_PAGES: u64 = 1 << 16;
    pub(super) const GIBIBYTE_PAGES: u64 = 1 << 17;
    pub(super) const INVEPT: u64 = 1 << 20;
    pub(super) const ACCESSED_DIRTY: u64 = 1 << 21;
    pub(super) const INVEPT_SINGLE: u64 = 1 << 25;
    pub(super) const INVEPT_ALL: u64 = 1 << 26;
    pub(super) const INVVPID: u64 = 1 << 32;
    pub(super) const INVVPID_ALL: u64 = 1 << 42;
}

/// How translations through EPT are dropped: the types of `INVEPT` (chapter 30).
#[repr(u64)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InveptKind {
    /// Those of one table.
    Single = 1,
    /// All.
    All = 2,
}

/// What the monitor does with this processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// The revision of control structures (24.2).
    pub(crate) revision: u32,
    pub(crate) pin: u32,
    pub(crate) primary: u32,
    pub(crate) secondary: u32,
    pub(crate) exit: u32,
    pub(crate) entry: u32,
    pub(crate) cr0: Fixed,
    pub(crate) cr4: Fixed,
    /// Whether the tables record accesses and stores.
    pub(crate) keeps_dirty_bits: bool,
    pub(crate) largest_page: LargestPage,
    pub(crate) invept: InveptKind,
}

impl Plan {
    /// Whether guests have an identifier of their own in the translation buffer.
    pub(crate) const fn has_vpid(&self) -> bool {
        self.secondary & secondary::VPID != 0
    }

    /// What to do with a processor that says `registers` of itself.
    ///
    /// # Errors
    /// [`Refusal`]: what the monitor cannot do without.
    pub(crate) fn new(registers: &Registers) -> Result<Self, Refusal> {
        let locked_off = registers.feature_control & (FEATURE_LOCKED | FEATURE_VMX);
        if locked_off == FEATURE_LOCKED {
            return Err(Refusal::LockedOff);
        }
        let group = |name, needed, harmless, capability| Group {
            name,
            needed,
            harmless,
            capability,
        };
        let needed = pin::NMI_EXITING | pin::VIRTUAL_NMIS;
        let pin = group("pin-based", needed, harmless::PIN, registers.pin).settle()?;
        let needed = primary::IO_BITMAPS | primary::MSR_BITMAPS | primary::SECONDARY;
        let primary = group("primary", needed, harmless::PRIMARY, registers.primary);
        let primary = primary.settle()?;
        if primary & primary::SECONDARY == 0 || registers.secondary >> 32 & 0b10 == 0 {
            return Err(Refusal::NoEpt);
        }
        let vpid = vpid_bit(registers);
        let secondary = secondary::EPT | vpid;
        let secondary = group("secondary", secondary, 0, registers.secondary).settle()?;
        let needed = exit::SAVE_DEBUG | exit::HOST_64_BIT;
        let exit = group("exit", needed, harmless::EXIT, registers.exit).settle()?;
        let needed = entry::LOAD_DEBUG | entry::GUEST_64_BIT;
        let entry = group("entry", needed, harmless::ENTRY, registers.entry).settle()?;
        Ok(Self {
            revision: registers.basic as u32 & 0x7fff_ffff,
            pin,
            primary,
            secondary,
            exit,
            entry,
            cr0: registers.cr0,
            cr4: registers.cr4,
            keeps_dirty_bits: registers.ept_vpid & ept::ACCESSED_DIRTY != 0,
            largest_page: if registers.ept_vpid & ept::GIBIBYTE_PAGES != 0 {
                LargestPage::Gibibyte
            } else {
                LargestPage::Stretch
            },
            invept: check_ept(registers.ept_vpid)?,
        })
    }
}

/// Identifiers are worth having only where translations under them can be dropped.
const fn vpid_bit(registers: &Registers) -> u32 {
    let can_drop = ept::INVVPID | ept::INVVPID_ALL;
    if registers.ept_vpid & can_drop == can_drop {
        (registers.secondary >> 32) as u32 & secondary::VPID
    } else {
        0
    }
}

fn check_ept(capability: u64) -> Result<InveptKind, Refusal> {
    for (bit, name) in [
        (ept::FOUR_LEVELS, "four levels"),
        (ept::WRITE_BACK, "cached tables"),
        (ept::LARGE_PAGES, "2 MiB pages"),
        (ept::INVEPT, "INVEPT"),
    ] {
        if capability & bit == 0 {
            return Err(Refusal::EptWithout(name));
        }
    }
    if capability & ept::INVEPT_SINGLE != 0 {
        Ok(InveptKind::Single)
    } else if capability & ept::INVEPT_ALL != 0 {
        Ok(InveptKind::All)
    } else {
        Err(Refusal::EptWithout("a usable INVEPT"))
    }
}

/// One group of controls.
struct Group {
    name: &'static str,
    needed: u32,
    /// Bits that may be forced without being needed.
    harmless: u32,
    capability: u64,
}

impl Group {
    /// The value of the controls.
    fn settle(&self) -> Result<u32, Refusal> {
        let (forced, allowed) = (self.capability as u32, (self.capability >> 32) as u32);
        let refuse = |bits| Refusal::Control {
            group: self.name,
            bits,
        };
        let missing = self.needed & !allowed;
        if missing != 0 {
            return Err(refuse(missing));
        }
        let unwanted = forced & !(self.needed | self.harmless);
        if unwanted != 0 {
            return Err(Refusal::Forced {
                group: self.name,
                bits: unwanted,
            });
        }
        Ok(self.needed | forced)
    }
}

/// Why this processor cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// CPUID shows no VMX.
    NoVmx,
    /// IA32_FEATURE_CONTROL is locked with VMX off.
    LockedOff,
    /// There are no extended page tables.
    NoEpt,
    /// There are extended page tables, without this.
    EptWithout(&'static str),
    /// Controls of this group that are needed and not offered.
    Control {
        /// Which group.
        group: &'static str,
        /// The bits.
        bits: u32,
    },
    /// Controls of this group that cannot be left off, and that the monitor does not handle.
    Forced {
        /// Which group.
        group: &'static str,
        /// The bits.
        bits: u32,
    },
    /// VMX operation wants a bit of this register to be 0 that the monitor or a kernel has set.
    ControlRegister(&'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVmx => f.write_str("the processor has no VMX"),
            Self::LockedOff => f.write_str("the firmware has locked VMX off"),
            Self::NoEpt => f.write_str("the processor has VMX without extended page tables"),
            Self::EptWithout(what) => write!(f, "the extended page tables are without {what}"),
            Self::Control { group, bits } => {
                write!(f, "VMX is without {group} controls {bits:#x}")
            }
            Self::Forced { group, bits } => {
                write!(f, "VMX insists on {group} controls {bits:#x}")
            }
            Self::ControlRegister(name) => write!(f, "VMX forbids a bit that {name} has"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST_CR0: u64 = 0x8001_0033;

    /// Bochs 2.7, model `corei7_skylake_x`; the TRUE registers allow CR3 without exits.
    fn skylake() -> Registers {
        Registers {
            feature_control: 5,
            basic: 0x00d8_1000_0000_002b,
            pin: 0x0000_007f_0000_0016,
            primary: 0xf7f9_fffe_0400_6172,
            secondary: 0x0217_7fff_0000_0000,
            exit: 0x007f_ffff_0003_6dfb,
            entry: 0x0000_ffff_0000_11fb,
            ept_vpid: 0x0000_0f01_0633_4141,
            cr0: Fixed {
                ones: 0x8000_0021,
                allowed: 0xffff_ffff,
            },
            cr4: Fixed {
                ones: 0x2000,
                allowed: 0x0077_2fff,
            },
        }
    }

    #[test]
    fn a_usable_processor_gets_what_is_needed_and_what_it_insists_on() {
        let plan = Plan::new(&skylake()).expect("usable");
        assert_eq!(plan.revision, 0x2b);
        assert_eq!(plan.pin, 0x3e);
        assert_eq!(plan.primary, 0x9600_6172);
        assert_eq!(plan.secondary, 0x22);
        assert_eq!(plan.exit, 0x0003_6fff);
        assert_eq!(plan.entry, 0x0000_13ff);
        assert!(plan.keeps_dirty_bits && plan.has_vpid());
        assert_eq!(plan.largest_page, LargestPage::Gibibyte);
        assert_eq!(plan.invept, InveptKind::Single);
    }

    #[test]
    fn vmx_off_for_good_is_told_from_vmx_that_can_be_switched_on() {
        let with = |feature_control| {
            Plan::new(&Registers {
                feature_control,
                ..skylake()
            })
        };
        assert_eq!(with(FEATURE_LOCKED), Err(Refusal::LockedOff));
        assert_eq!(with(FEATURE_LOCKED | 2), Err(Refusal::LockedOff));
        assert!(with(0).is_ok());
    }

    /// Bochs 2.7, model `core2_penryn_t9600`: secondary controls 41h, none of them EPT.
    #[test]
    fn vmx_without_extended_tables_is_refused() {
        let penryn = Registers {
            secondary: 0x41 << 32,
            ept_vpid: 0,
            ..skylake()
        };
        assert_eq!(Plan::new(&penryn), Err(Refusal::NoEpt));
        let no_large_pages = Registers {
            ept_vpid: skylake().ept_vpid & !ept::LARGE_PAGES,
            ..skylake()
        };
        let refusal = Plan::new(&no_large_pages).expect_err("refused");
        assert_eq!(
            refusal.to_string(),
            "the extended page tables are without 2 MiB pages"
        );
    }

    /// Bochs 2.7, model `corei5_lynnfield_750`: no unrestricted guest, no dirty bits,
    /// no pages of 1 GiB.
    #[test]
    fn the_oldest_processors_with_extended_tables_serve_without_dirty_bits() {
        let lynnfield = Registers {
            secondary: 0x7f << 32,
            ept_vpid: 0x0000_0f01_0611_4141,
            ..skylake()
        };
        let plan = Plan::new(&lynnfield).expect("usable");
        assert!(!plan.keeps_dirty_bits);
        assert_eq!(plan.largest_page, LargestPage::Stretch);
    }

    #[test]
    fn what_is_missing_and_what_is_forced_is_named() {
        let no_virtual_nmis = Registers {
            pin: 0x0000_005f_0000_0016,
            ..skylake()
        };
        let missing = Refusal::Control {
            group: "pin-based",
            bits: pin::VIRTUAL_NMIS,
        };
        assert_eq!(Plan::new(&no_virtual_nmis), Err(missing));
        let exits_on_cr3 = Registers {
            primary: 0xf7f9_fffe_0401_e172,
            ..skylake()
        };
        let forced = Refusal::Forced {
            group: "primary",
            bits: 0x0001_8000,
        };
        assert_eq!(Plan::new(&exits_on_cr3), Err(forced));
    }

    #[test]
    fn nothing_identifies_translations_that_could_not_be_dropped() {
        let no_invvpid = Registers {
            ept_vpid: 0x0633_4141,
            ..skylake()
        };
        let plan = Plan::new(&no_invvpid).expect("usable");
        assert!(!plan.has_vpid());
        let only_all = Registers {
            ept_vpid: skylake().ept_vpid & !ept::INVEPT_SINGLE,
            ..skylake()
        };
        assert_eq!(
            Plan::new(&only_all).map(|it| it.invept),
            Ok(InveptKind::All)
        );
    }

    #[test]
    fn fixed_bits_are_added_and_forbidden_ones_refused() {
        let fixed = skylake().cr0;
        assert_eq!(fixed.settle(GUEST_CR0), Some(GUEST_CR0));
        assert_eq!(fixed.settle(0x10), Some(0x8000_0031));
        assert_eq!(fixed.settle(1 << 32), None);
    }
}
