//! What must hold in every run.

use serde::{Deserialize, Serialize};

/// What a [`super::Violation`] speaks against.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// The machine stays up.
    MachineStaysUp,
    /// Nobody dies but by a fault of its own.
    NobodyElseDies,
    /// No survivor takes wrong bytes for right ones.
    NoWrongBytes,
    /// Nobody's code and constants change, nor memory that nobody wrote who may.
    NoForeignWrites,
    /// Nobody writes what the firewall does not let it.
    StoresStayInside,
    /// Survivors decide alike.
    OneLiveSet,
    /// No work vanishes, and none is lost with the living.
    WorkIsAccountedFor,
    /// The survivors go on.
    SurvivorsGoOn,
    /// A cell that must die is expelled.
    TheDeadAreNoticed,
    /// A cell that died comes back.
    TheDeadComeBack,
    /// Every fault strikes.
    EveryFaultStrikes,
}

impl Invariant {
    /// Every invariant.
    pub const ALL: [Self; 11] = [
        Self::MachineStaysUp,
        Self::NobodyElseDies,
        Self::NoWrongBytes,
        Self::NoForeignWrites,
        Self::StoresStayInside,
        Self::OneLiveSet,
        Self::WorkIsAccountedFor,
        Self::SurvivorsGoOn,
        Self::TheDeadAreNoticed,
        Self::TheDeadComeBack,
        Self::EveryFaultStrikes,
    ];

    /// Whether it is about the system, and not about the runner.
    pub fn is_of_the_system(self) -> bool {
        self != Self::EveryFaultStrikes
    }

    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::MachineStaysUp => "the machine stays up",
            Self::NobodyElseDies => "nobody else dies",
            Self::NoWrongBytes => "no survivor takes wrong bytes",
            Self::NoForeignWrites => "no foreign memory changes",
            Self::StoresStayInside => "stores stay inside",
            Self::OneLiveSet => "survivors decide alike",
            Self::WorkIsAccountedFor => "no work vanishes",
            Self::SurvivorsGoOn => "the survivors go on",
            Self::TheDeadAreNoticed => "the dead are noticed",
            Self::TheDeadComeBack => "the dead come back",
            Self::EveryFaultStrikes => "every fault strikes",
        }
    }
}
