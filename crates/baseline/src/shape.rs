//! The shape of a command line: what stays the same when a program is run again.
//!
//! Flags stay, values become their type (`<path> <n> <ip> <url> <hex> <uuid> <str>`), and a command
//! handed to a shell keeps the names of the programs in it. Promises: bounded in parts and length,
//! no spaces inside a part, total for any bytes.

use plimsoll_model::Text;

/// Arguments that are looked at; the rest is `<more>`.
pub const MAX_PARTS: usize = 24;
/// Longest word kept as it is.
pub const MAX_WORD: usize = 24;
/// Program names kept of a shell command.
const MAX_COMMANDS: usize = 8;
/// Bytes of a shell command that are looked at.
const MAX_COMMAND_BYTES: usize = 1024;

/// The shape of an argument vector without its first element; `-` for none.
pub fn shape(exe: &[u8], argv: &[Text]) -> String {
    let shell = crate::programs::is_shell(exe);
    let mut parts: Vec<String> = Vec::with_capacity(argv.len().min(MAX_PARTS));
    let mut command_next = false;
    for arg in argv.iter().skip(1) {
        if parts.len() == MAX_PARTS {
            parts.push("<more>".to_owned());
            break;
        }
        let bytes = arg.as_bytes();
        parts.push(match command_next {
            true => commands(bytes),
            false => part(bytes),
        });
        command_next = shell && is_command_flag(bytes);
    }
    // runs of equal typed values say no more than one of them (`rm <path> <path> …`)
    parts.dedup_by(|a, b| a == b && a.starts_with('<'));
    if parts.is_empty() {
        return "-".to_owned();
    }
    parts.join(" ")
}

/// `-c`, also among other short flags (`-lc`).
fn is_command_flag(arg: &[u8]) -> bool {
    arg.len() >= 2 && arg[0] == b'-' && arg[1] != b'-' && arg.last() == Some(&b'c')
}

/// One argument: a flag with its value typed, or a typed value.
fn part(arg: &[u8]) -> String {
    if arg.first() != Some(&b'-') || arg.len() == 1 {
        return value(arg);
    }
    let Some(at) = arg.iter().position(|&b| b == b'=') else {
        return flag_with_number(arg)
            .or_else(|| word(arg))
            .unwrap_or_else(|| "<str>".to_owned());
    };
    match word(&arg[..at]) {
        Some(name) => format!("{name}={}", value(&arg[at + 1..])),
        None => "<str>".to_owned(),
    }
}

/// `-n10`, `-12`: a letter and a number.
fn flag_with_number(arg: &[u8]) -> Option<String> {
    let digits = arg.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let name = word(&arg[..arg.len() - digits]).filter(|_| digits > 0)?;
    Some(format!("{name}<n>"))
}

/// A value by its type; short plain words stay (`daemon`, `start`, `off;`).
fn value(arg: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(arg) else {
        return "<bytes>".to_owned();
    };
    typed(text).map_or_else(
        || word(arg).unwrap_or_else(|| "<str>".to_owned()),
        str::to_owned,
    )
}

fn typed(text: &str) -> Option<&'static str> {
    let bytes = text.as_bytes();
    if text.is_empty() {
        return Some("<empty>");
    }
    if bytes.iter().all(u8::is_ascii_digit) {
        return Some("<n>");
    }
    if text.contains("://") {
        return Some("<url>");
    }
    if is_address(text) {
        return Some("<ip>");
    }
    if crate::paths::is_uuid(bytes) {
        return Some("<uuid>");
    }
    if crate::paths::is_long_hex(bytes) {
        return Some("<hex>");
    }
    if text.contains('/') && !text.contains(char::is_whitespace) {
        return Some("<path>");
    }
    let number = |b: &u8| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'%');
    (bytes[0].is_ascii_digit() && bytes.iter().all(number)).then_some("<n>")
}

/// An address, with or without a port.
fn is_address(text: &str) -> bool {
    use std::net::{IpAddr, SocketAddr};
    text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok()
}

/// A word that may be kept: short, printable, without spaces, and not random to the eye.
fn word(bytes: &[u8]) -> Option<String> {
    let plain = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'\\');
    if bytes.is_empty() || bytes.len() > MAX_WORD || !bytes.iter().all(plain) || looks_random(bytes)
    {
        return None;
    }
    Some(bytes.iter().map(|&b| char::from(b)).collect())
}

/// Letters and digits that change sides often are generated, not written (`x8f3kq0z1`).
fn looks_random(bytes: &[u8]) -> bool {
    let digits = bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let turns = bytes
        .windows(2)
        .filter(|w| w[0].is_ascii_digit() != w[1].is_ascii_digit())
        .count();
    digits >= 6 || (bytes.len() >= 8 && digits >= 3 && turns >= 4)
}

/// The programs of a shell command, in order: `curl -s x | sh` → `<cmd:curl|sh>`.
fn commands(command: &[u8]) -> String {
    let command = &command[..command.len().min(MAX_COMMAND_BYTES)];
    let mut names: Vec<String> = Vec::new();
    for piece in command.split(|b| matches!(b, b'|' | b';' | b'&' | b'\n' | b'(' | b')' | b'`')) {
        let Some(name) = first_command(piece) else {
            continue;
        };
        if names.len() == MAX_COMMANDS {
            names.push("more".to_owned());
            break;
        }
        names.push(name);
    }
    names.dedup();
    format!("<cmd:{}>", names.join("|"))
}

/// The first word that is neither an assignment nor a keyword.
fn first_command(piece: &[u8]) -> Option<String> {
    const KEYWORDS: [&[u8]; 10] = [
        b"if", b"then", b"else", b"fi", b"do", b"done", b"while", b"for", b"!", b"exec",
    ];
    let mut words = piece
        .split(|b| b.is_ascii_whitespace())
        .filter(|w| !w.is_empty());
    let first = words.find(|w| !KEYWORDS.contains(w) && !is_assignment(w))?;
    let name = first.rsplit(|&b| b == b'/').next().unwrap_or(first);
    Some(
        word(name)
            .unwrap_or_else(|| "<str>".to_owned())
            .replace(['<', '>'], "_"),
    )
}

fn is_assignment(word: &[u8]) -> bool {
    let Some(at) = word.iter().position(|&b| b == b'=') else {
        return false;
    };
    at > 0
        && word[..at]
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}
