//! The name that was probably meant where one is not known.
//!
//! Promises: one name at most, two slips of the pen away at most; words longer than [`MAX_BYTES`] are
//! not looked at, and a name that shares too few letters is not compared.

use std::fmt::Write as _;

/// Longest word that is compared.
const MAX_BYTES: usize = 48;

/// `; did you mean 'proc.name'?`, or nothing.
pub(crate) fn meant<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> String {
    let mut text = String::new();
    if let Some(name) = nearest(word, names) {
        let _ = write!(text, "; did you mean '{name}'?");
    }
    text
}

fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if word.len() > MAX_BYTES || word.len() < 3 {
        return None;
    }
    let most = if word.len() < 6 { 1 } else { 2 };
    let letters = letters_of(word);
    names
        .filter(|n| n.len() <= MAX_BYTES && n.len().abs_diff(word.len()) <= most)
        .filter(|n| (letters_of(n) ^ letters).count_ones() as usize <= 2 * most)
        .map(|n| (slips(word.as_bytes(), n.as_bytes()), n))
        .filter(|(slips, _)| *slips <= most)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, name)| name)
}

fn letters_of(word: &str) -> u64 {
    word.bytes().fold(0, |mask, b| mask | 1 << (b % 64))
}

/// Letters that are missing, too many, other ones, or two that changed places.
fn slips(a: &[u8], b: &[u8]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let other = usize::from(!a[i - 1].eq_ignore_ascii_case(&b[j - 1]));
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + other);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_or_two_find_the_name_and_other_words_none() {
        let names = ["proc.name", "proc.pname", "fd.name", "evt.type"];
        let near = |word: &str| nearest(word, names.into_iter());
        assert_eq!(near("proc.nmae"), Some("proc.name"));
        assert_eq!(near("proc.ppname"), Some("proc.pname"));
        assert_eq!(near("Proc.name"), Some("proc.name"));
        assert_eq!(near("evt.typ"), Some("evt.type"));
        assert_eq!(near("container.id"), None);
        assert_eq!(near(&"p".repeat(10_000)), None);
        assert_eq!(
            meant("fd.nam", names.into_iter()),
            "; did you mean 'fd.name'?"
        );
    }
}
