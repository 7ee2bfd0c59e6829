//! Who decides, and whether two are different persons.
//!
//! Promises: the word of the kernel alone counts (uid and login uid of the socket's peer, as they
//! stand in the [`Decision`]). Two decisions are of different persons only if nothing suggests
//! that they are of the same: both login uids known and different, or no uid in common at all.

use plimsoll_model::record::Decision;

const NONE: u32 = u32::MAX;

/// How a person is named in words: by login uid where there is one.
pub fn name(decision: &Decision) -> String {
    match decision.login_uid {
        NONE => format!("uid {}", decision.uid),
        login => format!("login uid {login} (as uid {})", decision.uid),
    }
}

/// Surely not the same person.
pub fn differ(a: &Decision, b: &Decision) -> bool {
    if a.login_uid != NONE && b.login_uid != NONE {
        return a.login_uid != b.login_uid;
    }
    let ids = |d: &Decision| [d.uid, d.login_uid].map(|u| (u != NONE).then_some(u));
    let b = ids(b);
    ids(a).iter().flatten().all(|u| !b.contains(&Some(*u)))
}

/// How many surely different persons are among them.
pub fn distinct<'a>(voices: impl Iterator<Item = &'a Decision>) -> u32 {
    let mut counted: Vec<&Decision> = Vec::new();
    for voice in voices {
        if counted.iter().all(|c| differ(c, voice)) {
            counted.push(voice);
        }
    }
    counted.len() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_model::Stamp;

    fn voice(uid: u32, login_uid: u32) -> Decision {
        Decision {
            at: Stamp::default(),
            action: "plan.approve".into(),
            subject: "P-1".into(),
            reason: "r".into(),
            uid,
            login_uid,
            method: "socket".into(),
        }
    }

    #[test]
    fn root_twice_is_one_person_unless_their_logins_differ() {
        assert!(!differ(&voice(0, NONE), &voice(0, NONE)));
        assert!(!differ(&voice(0, 1000), &voice(1000, 1000)));
        assert!(
            !differ(&voice(0, 1000), &voice(1000, NONE)),
            "sudo, then not"
        );
        assert!(
            !differ(&voice(0, 1000), &voice(0, NONE)),
            "root could be either"
        );
        assert!(differ(&voice(0, 1000), &voice(0, 1001)));
        assert!(differ(&voice(1000, NONE), &voice(1001, NONE)));
        let all = [voice(0, 1000), voice(1000, NONE), voice(0, 1001)];
        assert_eq!(distinct(all.iter()), 2);
    }
}
