//! Bytes from the kernel, a container or a file, which may be anything.
//!
//! Promise: the bytes are kept as they were; showing them never writes a control character, an
//! escape sequence or invalid UTF-8 to a terminal.

use std::fmt;

/// Hostile bytes that usually are text: a path, an argument, a command name.
#[derive(
    Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode,
)]
#[cbor(transparent)]
pub struct Text(#[cbor(with = "minicbor::bytes")] Vec<u8>);

impl Text {
    /// Wraps bytes unchanged.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }
    /// The bytes as they were.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// The text with every invalid byte replaced by U+FFFD; control characters are kept, so this
    /// is for JSON and matching, never for a terminal.
    pub fn to_str_lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
    /// The last path component (`/usr/bin/nginx` → `nginx`).
    pub fn basename(&self) -> Text {
        let start = self.0.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
        Text(self.0[start..].to_vec())
    }
}

impl From<&str> for Text {
    fn from(s: &str) -> Self {
        Self(s.as_bytes().to_vec())
    }
}
impl From<String> for Text {
    fn from(s: String) -> Self {
        Self(s.into_bytes())
    }
}
impl From<&[u8]> for Text {
    fn from(s: &[u8]) -> Self {
        Self(s.to_vec())
    }
}
impl From<Vec<u8>> for Text {
    fn from(s: Vec<u8>) -> Self {
        Self(s)
    }
}

/// Writes `bytes` so that a terminal shows what they are and obeys none of them: control
/// characters, bidirectional overrides and invalid bytes appear as `\n`, `\x1b`, `\u{202e}`.
pub fn escape_into(out: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.write_str("\\n")?,
                '\r' => out.write_str("\\r")?,
                '\t' => out.write_str("\\t")?,
                c if c.is_control() && (c as u32) < 0x100 => write!(out, "\\x{:02x}", c as u32)?,
                c if is_unsafe_for_terminals(c) => write!(out, "\\u{{{:x}}}", c as u32)?,
                c => out.write_char(c)?,
            }
        }
        for b in chunk.invalid() {
            write!(out, "\\x{b:02x}")?;
        }
    }
    Ok(())
}

/// Characters that reorder, hide or join text on a screen (Unicode TR36 spoofing classes).
fn is_unsafe_for_terminals(c: char) -> bool {
    matches!(c as u32,
        0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb | 0xe0000..=0xe007f)
        || c.is_control()
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` so that width and precision work in tables
        let mut s = String::with_capacity(self.0.len());
        escape_into(&mut s, &self.0)?;
        f.pad(&s)
    }
}
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_never_reach_a_terminal() {
        let t = Text::new(b"a\x1b[31mb\xff\n\xe2\x80\xaec".to_vec());
        assert_eq!(t.to_string(), "a\\x1b[31mb\\xff\\n\\u{202e}c");
    }

    #[test]
    fn basename_is_the_last_component() {
        assert_eq!(Text::from("/usr/bin/nginx").basename(), Text::from("nginx"));
        assert_eq!(Text::from("nginx").basename(), Text::from("nginx"));
        assert_eq!(Text::from("/").basename(), Text::from(""));
    }
}
