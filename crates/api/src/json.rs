//! One value, one line, safe on a terminal.
//!
//! `serde_json` escapes only what JSON demands (below U+0020). A terminal also obeys DEL and the
//! C1 controls, and is confused by characters that reorder or hide text; those are written as
//! `\uXXXX` too. Readers get the same string back.

use serde::Serialize;
use std::io;

/// A value as one line of JSON, without the newline.
pub fn line<T: Serialize + ?Sized>(value: &T) -> String {
    let mut out = Vec::with_capacity(256);
    let mut writer = serde_json::Serializer::with_formatter(&mut out, TerminalSafe);
    value
        .serialize(&mut writer)
        .expect("our types have string keys and finite numbers, and memory does not fail");
    String::from_utf8(out).expect("JSON written from strings is UTF-8")
}

/// A hostile text as a JSON string's content: invalid bytes become U+FFFD, the rest is kept.
pub fn lossy(text: &plimsoll_model::Text) -> String {
    text.to_str_lossy().into_owned()
}

/// Compact JSON in which no string holds a character that acts on a terminal.
struct TerminalSafe;

impl serde_json::ser::Formatter for TerminalSafe {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain = 0;
        for (at, c) in fragment
            .char_indices()
            .filter(|&(_, c)| acts_on_terminals(c))
        {
            writer.write_all(&fragment.as_bytes()[plain..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            plain = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[plain..])
    }
}

/// DEL, C1 and the characters of the Unicode TR36 spoofing classes (as `model::text` has them).
fn acts_on_terminals(c: char) -> bool {
    c.is_control()
        || matches!(c as u32,
            0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb | 0xe0000..=0xe007f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_model::Text;

    #[test]
    fn no_control_character_survives_and_readers_get_the_same_string_back() {
        let hostile = "a\x1b[31m\x7f\u{9b}2J\u{202e}\u{e0041}\n\"\\ é";
        let json = line(hostile);
        assert!(!json.chars().any(acts_on_terminals), "{json:?}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
    }

    #[test]
    fn invalid_bytes_become_valid_json() {
        let json = line(&lossy(&Text::new(b"/bin/\xff\xfe".to_vec())));
        assert_eq!(json, "\"/bin/\u{fffd}\u{fffd}\"");
    }
}
