//! What a signed tree head says (c2sp.org/tlog-checkpoint), and the certificates that link one
//! epoch's key to the next.
//!
//! Both are signed notes. The root key signs its own certificate; every later certificate is
//! signed by the key before it, so whoever has the root's public key can follow the chain to the
//! key of any epoch. Pure: where notes lie is the business of [`crate::tlog`].

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::merkle::Hash;
use crate::note::{Note, PublicKey};

/// First line of a certificate.
const CERTIFICATE: &str = "plimsoll epoch key 1";

/// A tree head; signed when it came out of a note that verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log: `plimsoll/NODE`.
    pub origin: String,
    /// How many leaves it covers.
    pub size: u64,
    /// Root of their tree.
    pub root: Hash,
    /// When it was made, by the node's wall clock, nanoseconds; an extension line.
    pub wall_ns: Option<i64>,
}

/// The name of a node's log, as the first line of its checkpoints and the name of its keys.
/// Whatever a note cannot hold is percent-encoded.
pub(crate) fn log_name(origin: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.~:@/".contains(b);
    origin.bytes().fold("plimsoll/".to_owned(), |mut name, b| {
        if plain(&b) {
            name.push(char::from(b));
        } else {
            name += &format!("%{b:02X}");
        }
        name
    })
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        let time = self
            .wall_ns
            .map_or(String::new(), |ns| format!("time {ns}\n"));
        format!(
            "{}\n{}\n{}\n{time}",
            self.origin,
            self.size,
            STANDARD.encode(self.root)
        )
    }

    /// Reads a checkpoint's text; unknown extension lines are skipped.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let origin = lines.next().filter(|line| !line.is_empty())?.to_owned();
        let size = number(lines.next()?)?;
        let root = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
        let mut wall_ns = None;
        for line in lines {
            if line.is_empty() {
                return None;
            }
            if let Some(ns) = line.strip_prefix("time ") {
                wall_ns = ns.parse().ok();
            }
        }
        Some(Self {
            origin,
            size,
            root,
            wall_ns,
        })
    }
}

/// Decimal without leading zeros: one text for one number.
fn number(text: &str) -> Option<u64> {
    let plain = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| plain)
}

/// Who may sign from when on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Number of the epoch, from 0; of a chain that had to begin anew, from its last number on.
    pub epoch: u64,
    /// The epoch's public key.
    pub key: PublicKey,
    /// When it was made, by the node's wall clock, nanoseconds.
    pub wall_ns: i64,
    /// It is signed by itself: the first of a chain.
    pub is_root: bool,
    /// The note it came from.
    pub note: Note,
}

impl Certificate {
    pub(crate) fn text(epoch: u64, key: &PublicKey, wall_ns: i64) -> String {
        format!("{CERTIFICATE}\n{}\n{epoch}\n{key}\n{wall_ns}\n", key.name())
    }

    /// Reads a certificate; the only signature that is checked here is a root's own.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let note = Note::parse(bytes).ok()?;
        let mut lines = note.text.strip_suffix('\n')?.split('\n');
        let head = (lines.next()? == CERTIFICATE).then(|| lines.next())??;
        let epoch = number(lines.next()?)?;
        let key = PublicKey::parse(lines.next()?)
            .ok()
            .filter(|key| key.name() == head)?;
        let wall_ns = lines.next()?.parse().ok()?;
        let is_root = note.is_signed_by(&key);
        lines.next().is_none().then_some(Self {
            epoch,
            key,
            wall_ns,
            is_root,
            note,
        })
    }
}

/// The keys that a root key vouches for.
#[derive(Debug, Clone, Default)]
pub struct KeyChain {
    /// In order; the first is the root.
    pub certificates: Vec<Certificate>,
    /// Certificates that nothing links to the root, and why.
    pub unlinked: Vec<(Certificate, &'static str)>,
}

impl KeyChain {
    /// Follows `certificates` (in the order in which they were made) from `root`; without one,
    /// from the first certificate, which then proves nothing by itself.
    pub fn follow(
        certificates: impl IntoIterator<Item = Certificate>,
        root: Option<&PublicKey>,
    ) -> Self {
        let mut chain = Self::default();
        for certificate in certificates {
            let linked = match root {
                None if chain.certificates.is_empty() => certificate.is_root,
                Some(root) if chain.certificates.is_empty() => {
                    certificate.is_root && certificate.key == *root
                }
                // Usually the last one. An earlier one, when a successor was logged and a crash
                // kept it from ever signing.
                _ => chain.certificates.iter().rev().any(|parent| {
                    certificate.epoch > parent.epoch && certificate.note.is_signed_by(&parent.key)
                }),
            };
            if chain
                .certificates
                .iter()
                .any(|c| c.note == certificate.note)
            {
                // the same certificate, kept in two places
            } else if linked {
                chain.certificates.push(certificate);
            } else {
                let why = if certificate.is_root {
                    "it begins a chain of its own: the key before it was lost, or this is another node's"
                } else {
                    "the key before it has not signed it"
                };
                chain.unlinked.push((certificate, why));
            }
        }
        chain
    }

    /// The certificate whose key has signed this note.
    pub fn signer_of(&self, note: &Note) -> Option<&Certificate> {
        // Of thousands of keys the note names one or two.
        self.certificates
            .iter()
            .filter(|c| note.names(&c.key))
            .find(|c| note.is_signed_by(&c.key))
    }

    /// The chain's public root key.
    pub fn root(&self) -> Option<&PublicKey> {
        self.certificates
            .first()
            .map(|certificate| &certificate.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note;
    use ed25519_dalek::SigningKey;

    fn public(secret: &SigningKey) -> PublicKey {
        PublicKey::new("plimsoll/n", secret.verifying_key().to_bytes())
    }

    fn certificate(epoch: u64, of: &SigningKey, by: &SigningKey) -> Certificate {
        let text = Certificate::text(epoch, &public(of), 7);
        Certificate::parse(note::sign("plimsoll/n", by, &text).as_bytes()).unwrap()
    }

    #[test]
    fn a_checkpoint_reads_as_it_was_written() {
        let checkpoint = Checkpoint {
            origin: log_name("node 1"),
            size: 20,
            root: [9; 32],
            wall_ns: Some(-4),
        };
        assert_eq!(checkpoint.origin, "plimsoll/node%201");
        assert_eq!(
            Checkpoint::parse(&checkpoint.text()),
            Some(checkpoint.clone())
        );
        let other = checkpoint.text() + "unknown extension\n";
        assert_eq!(Checkpoint::parse(&other), Some(checkpoint.clone()));
        assert_eq!(
            Checkpoint::parse(&checkpoint.text().replace("\n20\n", "\n020\n")),
            None
        );
        assert_eq!(Checkpoint::parse("a\n1\n"), None);
    }

    #[test]
    fn only_keys_that_the_root_leads_to_are_believed() {
        let [a, b, c, evil] = [1, 2, 3, 4].map(|n| SigningKey::from_bytes(&[n; 32]));
        let good = [
            certificate(0, &a, &a),
            certificate(1, &b, &a),
            certificate(2, &c, &b),
        ];
        let chain = KeyChain::follow(good.clone(), Some(&public(&a)));
        assert_eq!((chain.certificates.len(), chain.unlinked.len()), (3, 0));
        let note = Note::parse(note::sign("plimsoll/n", &c, "x\n").as_bytes()).unwrap();
        assert_eq!(chain.signer_of(&note).map(|c| c.epoch), Some(2));

        let forged = [
            certificate(0, &a, &a),
            certificate(1, &evil, &evil),
            certificate(2, &c, &evil),
        ];
        let chain = KeyChain::follow(forged, Some(&public(&a)));
        assert_eq!((chain.certificates.len(), chain.unlinked.len()), (1, 2));
        assert!(chain.signer_of(&note).is_none());
        let other_root = KeyChain::follow(good, Some(&public(&evil)));
        assert!(other_root.certificates.is_empty());
    }
}
