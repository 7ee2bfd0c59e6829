//! Enforcement: what keeps a container on its baseline, and what that came to.
//!
//! Journalled as records 52 ([`EnforcementInForce`]) and 53 ([`Prevention`]); the verdict on one act
//! is part of its event ([`Enforced`]), so that replaying a journal gives the same alerts.

use crate::behaviour::Behaviour;
use crate::ids::{BaselineRef, Instance};
use crate::text::Text;
use crate::time::Stamp;
use minicbor::{Decode, Encode};

/// Which acts are held against the baseline. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum EnforceClass {
    /// Programs executed.
    #[n(0)]
    Program,
    /// Scripts: an interpreter with what it is given, a multi-call program by its name.
    #[n(1)]
    Script,
    /// Files mapped executable.
    #[n(2)]
    Library,
    /// Outbound TCP and UDP peers.
    #[n(3)]
    Peer,
}

impl EnforceClass {
    /// All of them.
    pub const ALL: [EnforceClass; 4] = [Self::Program, Self::Script, Self::Library, Self::Peer];

    /// Name in policies, JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Program => "programs",
            Self::Script => "scripts",
            Self::Library => "libraries",
            Self::Peer => "peers",
        }
    }
}

/// What enforcement did about an act. Numbers are never reused; 1–3 are those of `bpf/wire.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Enforced {
    /// The kernel refused it: nothing of it happened.
    #[n(1)]
    Denied,
    /// Killed at exec, before its first instruction.
    #[n(2)]
    Killed,
    /// Stopped at exec, before its first instruction; not decided yet.
    #[n(3)]
    Held,
    /// Stopped at exec, found outside the baseline, killed.
    #[n(4)]
    HeldKilled,
    /// Stopped at exec, found to be known, or not decided in time: continued.
    #[n(5)]
    HeldContinued,
    /// Outside the baseline and not stopped: a dry run, or no means on this kernel.
    #[n(6)]
    WouldBe,
}

impl Enforced {
    /// The act did not happen.
    pub fn is_prevented(self) -> bool {
        matches!(self, Self::Denied | Self::Killed | Self::HeldKilled)
    }

    /// The kernel's number for it (`bpf/wire.h`); `None` for 0, nothing was done.
    ///
    /// # Errors
    /// The number, when it is none of the kernel's.
    pub fn from_wire(n: u8) -> Result<Option<Self>, u8> {
        Ok(Some(match n {
            0 => return Ok(None),
            1 => Self::Denied,
            2 => Self::Killed,
            3 => Self::Held,
            other => return Err(other),
        }))
    }

    /// Name in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Killed => "killed",
            Self::Held => "stopped",
            Self::HeldKilled => "stopped and killed",
            Self::HeldContinued => "stopped and continued",
            Self::WouldBe => "would be prevented",
        }
    }
}

/// The enforcement policy in force from here on, whole.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EnforcementInForce {
    /// Since when.
    #[n(0)]
    pub at: Stamp,
    /// Where it was read; empty: there is none.
    #[n(1)]
    pub path: String,
    /// SHA-256 of its text, hex.
    #[n(2)]
    pub digest: String,
    /// Its text (at most 256 KiB; longer policies are refused).
    #[n(3)]
    pub text: String,
    /// The switch for the whole node is off: nothing is prevented, whatever the policy says.
    #[n(4)]
    pub switched_off: bool,
    /// How each class is prevented on this kernel: class, mechanism (empty: it cannot be).
    #[n(5)]
    pub means: Vec<(String, String)>,
}

/// Acts outside a baseline that were prevented, or would have been.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Prevention {
    /// Whose.
    #[n(0)]
    pub instance: Instance,
    /// The image's name.
    #[n(1)]
    pub image: String,
    /// The container's role.
    #[n(2)]
    pub role: String,
    /// Which class.
    #[n(3)]
    pub class: EnforceClass,
    /// What was done.
    #[n(4)]
    pub enforced: Enforced,
    /// The act.
    #[n(5)]
    pub behaviour: Behaviour,
    /// The program, library or peer that is not in the baseline, as people write it.
    #[n(6)]
    pub object: Text,
    /// The baseline that it is not in.
    #[n(7)]
    pub baseline: Option<BaselineRef>,
    /// The rule of the policy.
    #[n(8)]
    pub rule: String,
    /// How often since the record before with the same content.
    #[n(9)]
    pub count: u64,
    /// The kernel counts repeats of this kind by itself: it may have been more often.
    #[n(10)]
    pub at_least: bool,
    /// First of these.
    #[n(11)]
    pub first: Stamp,
    /// Last of these.
    #[n(12)]
    pub last: Stamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_did_not_happen_counts_as_prevented() {
        use Enforced::*;
        assert!(
            [Denied, Killed, HeldKilled]
                .iter()
                .all(|e| e.is_prevented())
        );
        assert!(
            ![Held, HeldContinued, WouldBe]
                .iter()
                .any(|e| e.is_prevented())
        );
    }

    #[test]
    fn the_wire_has_three_numbers_and_no_others() {
        assert_eq!(Enforced::from_wire(0), Ok(None));
        assert_eq!(Enforced::from_wire(3), Ok(Some(Enforced::Held)));
        for n in 4..=255 {
            assert_eq!(Enforced::from_wire(n), Err(n));
        }
    }
}
