//! Signed notes in the form of C2SP (c2sp.org/signed-note): a text, an empty line, and lines of
//! Ed25519 signatures. The form that transparency logs and their witnesses speak.
//!
//! Pure. Parsing is bounded and strict; a signature of a key that the caller does not have is
//! kept and means nothing.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

/// Longest note that is read, in bytes.
pub const NOTE_BYTES_MAX: usize = 16 << 10;
const SIGNATURES_MAX: usize = 32;
const ED25519: u8 = 1;

/// A public key as notes name it: `NAME+ID+KEY`.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    bytes: [u8; 32],
}

/// Why a text is not a public key or a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not `NAME+ID+KEY`.
    #[error("not a public key: expected NAME+ID+KEY")]
    Key,
    /// The id does not belong to name and key.
    #[error("not a public key: its id does not belong to its name and key")]
    KeyId,
    /// Not an Ed25519 key.
    #[error("not an Ed25519 public key")]
    Algorithm,
    /// Not a note.
    #[error("not a signed note: {0}")]
    Note(&'static str),
}

impl PublicKey {
    pub(crate) fn new(name: &str, bytes: [u8; 32]) -> Self {
        Self {
            name: name.to_owned(),
            bytes,
        }
    }

    /// Reads `NAME+ID+KEY` (a verifier key of C2SP signed-note).
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (name, id, key) = (parts.next(), parts.next(), parts.next());
        let (Some(name), Some(id), Some(key)) = (name, id, key) else {
            return Err(NoteError::Key);
        };
        let key = STANDARD.decode(key).map_err(|_| NoteError::Key)?;
        let (algorithm, bytes) = key.split_first().ok_or(NoteError::Key)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| NoteError::Algorithm)?;
        if *algorithm != ED25519 || VerifyingKey::from_bytes(&bytes).is_err() {
            return Err(NoteError::Algorithm);
        }
        if !is_name(name) {
            return Err(NoteError::Key);
        }
        let key = Self::new(name, bytes);
        if u32::from_str_radix(id, 16).ok() != Some(u32::from_be_bytes(key.id())) {
            return Err(NoteError::KeyId);
        }
        Ok(key)
    }

    /// Its name; here the origin of a log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first 4 bytes of SHA-256(name ‖ newline ‖ algorithm ‖ key).
    pub fn id(&self) -> [u8; 4] {
        let hash = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', ED25519])
            .chain_update(self.bytes)
            .finalize();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    fn holds(&self, text: &str, signature: &[u8]) -> bool {
        let key = VerifyingKey::from_bytes(&self.bytes);
        let signature = Signature::from_slice(signature);
        match (key, signature) {
            (Ok(key), Ok(signature)) => key.verify_strict(text.as_bytes(), &signature).is_ok(),
            _ => false,
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.id());
        let key = [&[ED25519], &self.bytes[..]].concat();
        write!(f, "{}+{id:08x}+{}", self.name, STANDARD.encode(key))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key's name has no spaces and no plus.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 1024
        && !name.contains(|c: char| c.is_whitespace() || c == '+')
}

/// A note as it was read; nothing in it is believed before [`Self::is_signed_by`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The text, with its last newline.
    pub text: String,
    /// All of it, as it was read.
    raw: String,
    /// Name, key id, signature.
    signatures: Vec<(String, [u8; 4], Vec<u8>)>,
}

impl Note {
    /// Reads a note.
    ///
    /// # Errors
    /// When it is too long, not UTF-8, holds control characters, or has no signature.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        let bad = NoteError::Note;
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(bad("it is too long"));
        }
        let all = std::str::from_utf8(bytes).map_err(|_| bad("it is not UTF-8"))?;
        if all.chars().any(|c| c < ' ' && c != '\n') {
            return Err(bad("it has control characters"));
        }
        let end = all.rfind("\n\n").ok_or(bad("it has no signatures"))?;
        let (text, lines) = (&all[..=end], &all[end + 2..]);
        let lines = lines
            .strip_suffix('\n')
            .ok_or(bad("its last line has no end"))?;
        let signatures: Vec<_> = lines
            .split('\n')
            .map(signature)
            .collect::<Option<_>>()
            .ok_or(bad("a line of its signatures is none"))?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(bad("it has too many signatures"));
        }
        Ok(Self {
            text: text.to_owned(),
            raw: all.to_owned(),
            signatures,
        })
    }

    /// Whether `key` has signed this text.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let (name, id) = (key.name(), key.id());
        self.signatures
            .iter()
            .any(|(n, i, bytes)| n == name && *i == id && key.holds(&self.text, bytes))
    }

    /// The bytes that it was read from.
    pub fn bytes(&self) -> Vec<u8> {
        self.raw.clone().into_bytes()
    }

    /// Ids of the keys that it names as signers, rightly or not.
    pub(crate) fn key_ids(&self) -> impl Iterator<Item = [u8; 4]> {
        self.signatures.iter().map(|(_, id, _)| *id)
    }

    /// Whether it names this key as a signer, rightly or not.
    pub fn names(&self, key: &PublicKey) -> bool {
        self.signatures
            .iter()
            .any(|(n, i, _)| n == key.name() && *i == key.id())
    }
}

fn signature(line: &str) -> Option<(String, [u8; 4], Vec<u8>)> {
    let (name, encoded) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = STANDARD.decode(encoded).ok()?;
    let (id, rest) = bytes.split_first_chunk::<4>()?;
    is_name(name).then(|| (name.to_owned(), *id, rest.to_vec()))
}

/// The note of `text` (which ends in a newline) signed by `key` under `name`.
pub(crate) fn sign(name: &str, key: &SigningKey, text: &str) -> String {
    let public = PublicKey::new(name, key.verifying_key().to_bytes());
    let signature = key.sign(text.as_bytes()).to_bytes();
    let encoded = STANDARD.encode([&public.id()[..], &signature].concat());
    format!("{text}\n\u{2014} {name} {encoded}\n")
}

/// Splits notes that lie one after another; the rest is what does not end as a note.
pub(crate) fn split(mut bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut notes = Vec::new();
    while let Some(end) = end_of_first(bytes) {
        let (note, rest) = bytes.split_at(end);
        notes.push(note);
        bytes = rest;
    }
    (notes, bytes)
}

/// Where the first note ends: after the signature lines that follow its first empty line.
fn end_of_first(bytes: &[u8]) -> Option<usize> {
    const DASH: &[u8] = "\u{2014} ".as_bytes();
    let mut end = bytes.windows(2).position(|pair| pair == b"\n\n")? + 2;
    let begin = end;
    while bytes[end..].starts_with(DASH) {
        end += bytes[end..].iter().position(|b| *b == b'\n')? + 1;
    }
    (end > begin).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    /// The example of the documentation of Go's golang.org/x/mod/sumdb/note.
    #[test]
    fn a_note_of_another_implementation_verifies() {
        let key = PublicKey::parse(KEY).unwrap();
        assert_eq!(key.to_string(), KEY);
        let note = Note::parse(NOTE.as_bytes()).unwrap();
        assert!(note.is_signed_by(&key));
        let altered = Note::parse(NOTE.replace("answer", "Answer").as_bytes()).unwrap();
        assert!(altered.names(&key) && !altered.is_signed_by(&key));
    }

    #[test]
    fn what_was_signed_verifies_and_no_flipped_bit_does() {
        let secret = SigningKey::from_bytes(&[5; 32]);
        let key = PublicKey::new("plimsoll/node-1", secret.verifying_key().to_bytes());
        let note = sign("plimsoll/node-1", &secret, "one\ntwo\n");
        assert!(Note::parse(note.as_bytes()).unwrap().is_signed_by(&key));
        for bit in 0..note.len() * 8 {
            let mut bytes = note.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let signed =
                Note::parse(&bytes).is_ok_and(|n| n.is_signed_by(&key) && n.text == "one\ntwo\n");
            // base64 has no spare bits here, so nothing else says the same
            assert!(!signed, "bit {bit}");
        }
    }

    #[test]
    fn notes_in_a_row_are_told_apart_and_a_torn_one_is_left() {
        let row = [NOTE, NOTE, &NOTE[..NOTE.len() - 5]].concat();
        let (notes, torn) = split(row.as_bytes());
        assert_eq!((notes.len(), torn.len()), (2, NOTE.len() - 5));
        assert!(notes.iter().all(|note| *note == NOTE.as_bytes()));
    }

    #[test]
    fn keys_are_checked() {
        assert_eq!(
            PublicKey::parse(&KEY.replace("c74f20a3", "c74f20a4")),
            Err(NoteError::KeyId)
        );
        assert_eq!(PublicKey::parse("PeterNeumann"), Err(NoteError::Key));
        assert_eq!(
            PublicKey::parse("a+00000000+AQ=="),
            Err(NoteError::Algorithm)
        );
    }
}
