//! What looks random, and what only looks so.
//!
//! Left readable although it looks random: hexadecimal numbers (ids and digests are what evidence is
//! made of), parts of paths, public keys and certificates, integrity sums, and text in base 64, which is
//! judged by what it says: a coded payload is evidence, a coded token is a secret.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Shortest word that is looked at for randomness.
const RANDOM_BYTES_MIN: usize = 24;
/// Shortest word with slashes, or of one case, that is looked at.
const LONG_BYTES_MIN: usize = 32;
/// Least entropy of its letters, bits each (24 random letters of base 64 have 4.3, words about 3.5).
const RANDOM_BITS_MIN: f64 = 4.0;
/// Least part of neighbours that are of another class (capital, small, digit): 0.6 in random letters,
/// 0.2 to 0.33 in `NamesLikeThis1`.
const MIXED_MIN: f64 = 0.36;
/// The same for words with slashes, which may be paths.
const MIXED_SLASHED_MIN: f64 = 0.42;

/// Public keys of SSH and certificates, in base 64.
const PUBLIC: [&[u8]; 5] = [
    b"AAAAB3NzaC1",
    b"AAAAC3NzaC1lZDI1NTE5",
    b"AAAAE2VjZHNhLXNoYTIt",
    b"AAAAGnNrLXNzaC1lZDI1NTE5",
    b"LS0tLS1CRUdJTiBDRVJUSUZJQ0FUR",
];
/// What stands before integrity sums and fingerprints.
const SUMS: [&[u8]; 6] = [
    b"sha256-", b"sha384-", b"sha512-", b"SHA256:", b"h1:", b"MD5:",
];

/// Where words stand that look random: start and end of each.
pub(super) fn words(text: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let len = text[at..].iter().take_while(|b| in_word(**b)).count();
        if len == 0 {
            at += 1;
            continue;
        }
        let padding = text[at + len..]
            .iter()
            .take(2)
            .take_while(|b| **b == b'=')
            .count();
        if is_candidate(&text[..at], &text[at..at + len]) {
            found.push((at, at + len + padding));
        }
        at += len + padding;
    }
    found
}

fn in_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+' | b'/')
}

fn is_candidate(before: &[u8], word: &[u8]) -> bool {
    let is_sum = SUMS
        .iter()
        .any(|s| before.ends_with(s) || word.starts_with(s));
    let is_public = PUBLIC.iter().any(|p| word.starts_with(p));
    if is_sum || is_public {
        return false;
    }
    if !word.contains(&b'/') {
        return looks_random(word);
    }
    let in_path = word[0] == b'/' || matches!(before.last(), Some(b'.' | b'~' | b':' | b'@'));
    let is_base64 = !word.contains(&b'-') && !word.contains(&b'_');
    !in_path
        && is_base64
        && word.len() >= LONG_BYTES_MIN
        && has_all_classes(word)
        && mixed(word) >= MIXED_SLASHED_MIN
        && bits(word) >= RANDOM_BITS_MIN
}

/// Long, mixed, and few repeats.
fn looks_random(word: &[u8]) -> bool {
    let is_hex = word.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-');
    if word.len() < RANDOM_BYTES_MIN || is_hex || bits(word) < RANDOM_BITS_MIN {
        return false;
    }
    if has_all_classes(word) {
        return mixed(word) >= MIXED_MIN;
    }
    // base 32 and 36: one case and digits, nothing between them
    let digits = word.iter().filter(|b| b.is_ascii_digit()).count();
    word.len() >= LONG_BYTES_MIN
        && word.iter().all(u8::is_ascii_alphanumeric)
        && (4..word.len() - 8).contains(&digits)
        && mixed(word) >= MIXED_MIN
}

fn has_all_classes(word: &[u8]) -> bool {
    let has = |f: fn(&u8) -> bool| word.iter().any(f);
    has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit)
}

/// Part of neighbouring letters and digits that are of different classes.
fn mixed(word: &[u8]) -> f64 {
    let class = |b: u8| match b {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        _ => 2,
    };
    let letters = |p: &&[u8]| p[0].is_ascii_alphanumeric() && p[1].is_ascii_alphanumeric();
    let pairs: Vec<&[u8]> = word.windows(2).filter(letters).collect();
    let changes = pairs.iter().filter(|p| class(p[0]) != class(p[1])).count();
    changes as f64 / pairs.len().max(1) as f64
}

/// Entropy of the letters, bits each.
fn bits(word: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    word.iter().for_each(|b| counts[*b as usize] += 1);
    let n = word.len() as f64;
    let parts = counts.iter().filter(|c| **c > 0).map(|c| f64::from(*c) / n);
    parts.map(|p| -p * p.log2()).sum()
}

/// The text that a word is in base 64; `None`: it is none.
pub(super) fn coded_text(word: &[u8]) -> Option<Vec<u8>> {
    let how = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let urls = word.iter().any(|b| matches!(b, b'-' | b'_'));
    let letters = if urls {
        &alphabet::URL_SAFE
    } else {
        &alphabet::STANDARD
    };
    let text = GeneralPurpose::new(letters, how).decode(word).ok()?;
    let is_text = |t: &str| {
        t.chars()
            .all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
    };
    std::str::from_utf8(&text)
        .is_ok_and(is_text)
        .then_some(text)
}
