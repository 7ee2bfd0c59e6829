//! Q11: which secrets the container could read, and which it did read.

use crate::acts::Acts;
use crate::collected::{Collected, failed};
use crate::mounts::{Door, on_node, secret_object, told};
use crate::network::counted;
use crate::opinions::tell;
use crate::say::{Sentences, count};
use crate::{About, AskError};
use plimsoll_api::describe;
use plimsoll_model::paths::{Sensitive, is_metadata, sensitive};
use plimsoll_model::{BehaviourKind, EventKind, FileOp, Observation, SockAddr};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Reach {
    Credential,
    OwnSecret,
    ProcessMemory,
    Metadata,
    Moved,
    OnCommandLine,
    Tried,
}

impl Reach {
    fn words(self) -> &'static str {
        match self {
            Reach::Credential => "Credentials read",
            Reach::OwnSecret => "A secret that it was given was read",
            Reach::ProcessMemory => {
                "Memory or environment of a process read, where secrets usually are"
            }
            Reach::Metadata => "Cloud credentials could be had: the metadata service was contacted",
            Reach::Moved => "A secret's file was changed, linked or moved",
            Reach::OnCommandLine => "A secret stood in arguments (masked by the rule named)",
            Reach::Tried => "Tried, and failed",
        }
    }

    const READ: [Reach; 4] = [
        Reach::Credential,
        Reach::OwnSecret,
        Reach::ProcessMemory,
        Reach::Metadata,
    ];
}

/// Q11.
pub(crate) fn read(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    could(about, say);
    let mut reads: Collected<Reach> = Collected::new();
    let looked = Acts::READ_NOTABLE
        .or(Acts::CHANGE_NOTABLE)
        .or(Acts::NETWORK)
        .or(Acts::MASKED);
    let looked = crate::mounts::looked(about.container(), looked);
    about.workload(looked, say, |id, o| {
        for (reach, what) in reached(about, &o) {
            reads.add(reach, what, id.clone(), &o);
        }
    })?;
    let none = !Reach::READ.into_iter().any(|r| reads.has(r));
    reads.say(Reach::words, "plimsoll events --kind file", say);
    let opinions = about.opinions(say)?;
    let judged = opinions
        .iter()
        .filter(|o| o.has(&["T1552", "T1528", "T1555"]));
    tell("Judged as access to secrets", judged, say);
    let known = counted(
        about,
        &[BehaviourKind::File],
        |b| is_secret(b.object.as_bytes()),
        "Secrets that its baseline knows it to read",
        say,
    )?;
    if none {
        let beyond = if known {
            " beyond what the baseline knows"
        } else {
            ""
        };
        say.unknown(format!("No reading of a secret is recorded{beyond} {}. That is not proof that none was read: see the completeness below.", about.interval.text()));
    } else {
        say.unknown("What was read of these files is not known: that a file was opened is recorded, not its content.");
    }
    say.unknown("Secrets in environment variables are not known: every process of the container could read its own, and that needs no file.");
    say.no_source(
        "an inventory of the secrets that it was given (secret objects, environment, cloud role)",
        "the orchestrator's API",
    );
    Ok(())
}

fn is_secret(path: &[u8]) -> bool {
    matches!(
        sensitive(path),
        Some(Sensitive::Credential | Sensitive::OwnSecret | Sensitive::ProcessMemory)
    )
}

/// Whether a path of the node is, holds or lies above a place of secrets.
fn holds(source: &str) -> bool {
    const PLACES: [&str; 8] = [
        "/etc/shadow",
        "/etc/kubernetes/admin.conf",
        "/root/.ssh/id_rsa",
        "/root/.aws/credentials",
        "/home/x/.ssh/id_rsa",
        "/proc/1/environ",
        "/var/lib/kubelet/pki/kubelet-client-current.pem",
        "/run/secrets/x",
    ];
    let dir = source.trim_end_matches('/');
    let below = format!("{dir}/");
    is_secret(source.as_bytes())
        || is_secret(format!("{below}x").as_bytes())
        || PLACES.iter().any(|p| p.starts_with(&below))
}

/// Mounts that hold secrets by their place.
fn could(about: &About<'_>, say: &mut Sentences) {
    let known = about
        .case
        .instance
        .as_ref()
        .and_then(|i| about.directory.get(i));
    let Some(known) = known else {
        say.unknown(
            "Which secrets were mounted in it is not known: no record of its identity is left.",
        );
        return;
    };
    let points = known.container.mount_points.as_deref().unwrap_or_default();
    let objects: Vec<String> = points
        .iter()
        .filter_map(|m| Some((secret_object(m)?, m)))
        .take(12)
        .map(|(name, m)| {
            format!(
                "{} at {}",
                describe::words(name),
                describe::words(&m.destination)
            )
        })
        .collect();
    if !objects.is_empty() {
        say.observed(
            format!("It was given these secret objects: {}.", objects.join(", ")),
            &known.evidence,
        );
    }
    let of_node: Vec<String> = points
        .iter()
        .filter(|m| crate::mounts::door(m) == Some(Door::Node) && holds(&m.source))
        .take(8)
        .map(told)
        .collect();
    if !of_node.is_empty() {
        say.observed(
            format!(
                "It could read what the node keeps secret, through {}.",
                of_node.join(", ")
            ),
            &known.evidence,
        );
    }
    let mounts = &known.container.mounts;
    let holds_secrets = |m: &&String| {
        let below = format!("{}/x", m.trim_end_matches('/'));
        is_secret(m.as_bytes()) || is_secret(below.as_bytes())
    };
    let secret: Vec<String> = mounts
        .iter()
        .filter(holds_secrets)
        .take(12)
        .map(|m| describe::words(m))
        .collect();
    match (secret.is_empty(), mounts.len()) {
        (false, _) => say.observed(
            format!("It could read what is mounted at {}.", secret.join(", ")),
            &known.evidence,
        ),
        (true, 0) if !known.container.unknown_because.is_empty() => {
            say.unknown(
                "Which secrets were mounted in it is not known: its runtime could not be asked.",
            );
        }
        (true, 0) => say.observed("Its runtime names no mount of secrets.", &known.evidence),
        (true, n) => say.observed(
            format!(
                "None of its {} lies where secrets usually are.",
                count(n as u64, "mount")
            ),
            &known.evidence,
        ),
    }
}

/// What an act has to do with secrets.
fn reached(about: &About<'_>, o: &Observation) -> Vec<(Reach, String)> {
    let mut found = Vec::new();
    if !o.redacted.is_empty() {
        let rules = describe::words(&o.redacted.join(", "));
        let words = about.action(&o.event.kind);
        found.push((Reach::OnCommandLine, format!("{words} (rule {rules})")));
    }
    match &o.event.kind {
        EventKind::File(f) => {
            let node = about
                .container()
                .and_then(|c| on_node(c, f.path.as_bytes()));
            // what it is on the node says more than where it is mounted
            let of_node = node
                .as_ref()
                .and_then(|(path, _, _)| sensitive(path.as_bytes()));
            let reach = match of_node.or_else(|| sensitive(f.path.as_bytes())) {
                Some(Sensitive::Credential) => Reach::Credential,
                Some(Sensitive::OwnSecret) => Reach::OwnSecret,
                Some(Sensitive::ProcessMemory) => Reach::ProcessMemory,
                _ => return found,
            };
            let path = match &node {
                Some((node, _, _)) => format!(
                    "{} (on the node {})",
                    describe::path(&f.path),
                    describe::path(node)
                ),
                None => describe::path(&f.path),
            };
            found.push(match f.op {
                _ if f.op == FileOp::Failed || failed(f.result) => {
                    (Reach::Tried, about.action(&o.event.kind))
                }
                FileOp::Read => (reach, path),
                FileOp::List => return found,
                _ => (Reach::Moved, about.action(&o.event.kind)),
            });
        }
        EventKind::Connect(c) | EventKind::Datagram(c) => {
            if let SockAddr::Inet(ip, _) = &c.peer
                && is_metadata(*ip)
            {
                let reach = match failed(c.result) {
                    true => Reach::Tried,
                    false => Reach::Metadata,
                };
                found.push((reach, about.action(&o.event.kind)));
            }
        }
        _ => {}
    }
    found
}
