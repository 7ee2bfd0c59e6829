//! Programs that take a secret in a known place, in a command line and in the commands of a script.

use regex::bytes::Regex;
use std::ops::Range;

/// Where a program takes its secret.
struct Place {
    /// Short options.
    options: &'static [&'static [u8]],
    /// Only what follows this byte is the secret (`user:password`).
    after: Option<u8>,
    /// The secret stands in the option's own argument only (`-pSECRET`).
    joined_only: bool,
}

const fn behind(options: &'static [&'static [u8]]) -> Option<Place> {
    Some(Place {
        options,
        after: None,
        joined_only: false,
    })
}

const fn user_and(after: u8, options: &'static [&'static [u8]]) -> Option<Place> {
    Some(Place {
        options,
        after: Some(after),
        joined_only: false,
    })
}

fn place(program: &[u8], words: &[&[u8]]) -> Option<Place> {
    let login = || words.contains(&&b"login"[..]);
    match program {
        b"mysql" | b"mysqldump" | b"mysqladmin" | b"mysqlimport" | b"mysqlcheck" | b"mysqlshow"
        | b"mariadb" | b"mariadb-dump" | b"mariadb-admin" | b"7z" | b"7za" => Some(Place {
            options: &[b"-p"],
            after: None,
            joined_only: true,
        }),
        b"sshpass" | b"cqlsh" | b"rdesktop" | b"mongo" | b"mongosh" | b"mongodump"
        | b"mongorestore" | b"mongoexport" | b"mongoimport" | b"useradd" | b"usermod" => {
            behind(&[b"-p"])
        }
        b"redis-cli" => behind(&[b"-a", b"--pass"]),
        b"ldapsearch" | b"ldapadd" | b"ldapmodify" | b"ldapdelete" | b"ldapwhoami"
        | b"ldappasswd" => behind(&[b"-w", b"-s"]),
        b"zip" | b"unzip" | b"sqlcmd" | b"bcp" | b"ipmitool" | b"mosquitto_pub"
        | b"mosquitto_sub" => behind(&[b"-P"]),
        b"snmpwalk" | b"snmpget" | b"snmpset" | b"snmpbulkwalk" => behind(&[b"-c", b"-A", b"-X"]),
        b"docker" | b"podman" | b"nerdctl" | b"helm" | b"oc" | b"skopeo" | b"buildah" | b"az"
        | b"crane"
            if login() =>
        {
            behind(&[b"-p"])
        }
        b"curl" => user_and(b':', &[b"-u", b"--user", b"-U", b"--proxy-user"]),
        b"http" | b"https" | b"xh" => user_and(b':', &[b"-a", b"--auth"]),
        b"smbclient" | b"rpcclient" | b"smbmap" => user_and(b'%', &[b"-U", b"--user"]),
        b"lftp" => user_and(b',', &[b"-u"]),
        _ => None,
    }
}

/// Which words of one command hold a secret, and from which byte on.
pub(super) fn placed(
    words: &[&[u8]],
    option: &Regex,
    is_none: fn(&[u8]) -> bool,
) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut program: Option<Place> = None;
    for (i, word) in words.iter().enumerate() {
        if let Some(p) = place(basename(word), &words[i..]) {
            program = Some(p);
            continue;
        }
        let before = i.checked_sub(1).map(|b| words[b]).unwrap_or_default();
        let is_value = !word.starts_with(b"-") && i > 0;
        let named =
            || (option.is_match(before) && !is_none(before)) || is_setting(words, i, option);
        if is_value && named() {
            found.push((i, 0));
        } else if before.starts_with(b"-pass") && word.starts_with(b"pass:") {
            found.push((i, 5)); // openssl -passin pass:…
        } else if let Some(at) = program.as_ref().and_then(|p| p.secret(before, word)) {
            found.push((i, at));
        }
    }
    found
}

/// `aws configure set aws_secret_access_key VALUE`, `CONFIG SET requirepass VALUE`.
fn is_setting(words: &[&[u8]], i: usize, option: &Regex) -> bool {
    i >= 2
        && words[i - 2].eq_ignore_ascii_case(b"set")
        && option.is_match(&[b"--", words[i - 1]].concat())
}

impl Place {
    /// From which byte of a word on it is the secret, with the word before it.
    fn secret(&self, before: &[u8], word: &[u8]) -> Option<usize> {
        let start =
            if self.options.contains(&before) && !self.joined_only && !word.starts_with(b"-") {
                0
            } else {
                let short = self.options.iter().filter(|o| !o.starts_with(b"--"));
                let mut joined = short.filter(|o| word.starts_with(o) && word.len() > o.len());
                joined.next()?.len()
            };
        match self.after {
            None => Some(start),
            Some(mark) => {
                let at = word[start..].iter().position(|b| *b == mark)?;
                Some(start + at + 1)
            }
        }
    }
}

fn basename(word: &[u8]) -> &[u8] {
    word.rsplit(|b| *b == b'/').next().unwrap_or(word)
}

/// The commands of a script, each as the spans of its words, quotes left out. As a shell would divide
/// it, as far as that can be told without running it.
pub(super) fn commands(script: &[u8]) -> Vec<Vec<Range<usize>>> {
    let mut all = vec![Vec::new()];
    let mut at = 0;
    while at < script.len() {
        match script[at] {
            b';' | b'|' | b'&' | b'(' | b')' | b'\n' | b'`' => {
                all.push(Vec::new());
                at += 1;
            }
            b if b.is_ascii_whitespace() || matches!(b, b'<' | b'>') => at += 1,
            quote @ (b'"' | b'\'') => {
                let len = script[at + 1..].iter().take_while(|b| **b != quote).count();
                push(&mut all, at + 1..at + 1 + len);
                at += len + 2;
            }
            _ => {
                let ends = |b: &u8| {
                    b.is_ascii_whitespace()
                        || matches!(b, b';' | b'|' | b'&' | b'(' | b')' | b'<' | b'>' | b'`')
                };
                let len = script[at..].iter().take_while(|b| !ends(b)).count();
                // -p'a b': what is quoted inside a word goes on to the quote's end
                let word = &script[at..at + len];
                let open = word.iter().rev().find(|b| matches!(b, b'"' | b'\''));
                let more = match open {
                    Some(q) if word.iter().filter(|b| *b == q).count() % 2 == 1 => {
                        script[at + len..].iter().take_while(|b| *b != q).count() + 1
                    }
                    _ => 0,
                };
                let end = (at + len + more).min(script.len());
                push(&mut all, at..end);
                at = end;
            }
        }
    }
    all
}

fn push(all: &mut [Vec<Range<usize>>], word: Range<usize>) {
    if let (Some(last), false) = (all.last_mut(), word.is_empty()) {
        last.push(word);
    }
}
