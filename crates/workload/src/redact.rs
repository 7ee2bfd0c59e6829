//! Secrets in arguments are masked before anything is judged or stored.
//!
//! Built-in rules know the places where programs are given secrets (options, assignments, URLs,
//! headers, connection strings), the forms that providers print on their tokens, and text that looks
//! random; own rules are regular expressions. A mask is `[redacted:RULE:DIGEST]`: which rule did it,
//! and 12 hex digits of HMAC-SHA-256 with a key of this node, so that equal secrets can be told to be
//! equal, and nobody without the key can try candidates. What is masked is the same for the judge and
//! for the store, so verdicts replay.
//!
//! Promises: pure and deterministic for one key; masking twice is masking once; regular expressions
//! without backtracking, over at most 4 KiB of arguments; a mask is never longer than 64 bytes and the
//! rule's name. Forms are those that the providers document themselves (`docs/guide/redaction.md`).
//!
//! Left out: contents of files and connections (never read), names of files.

use crate::facts::{Facts, hex};
use hmac::{Hmac, Mac};
use plimsoll_model::{Event, EventKind, Text};
use regex::bytes::{Captures, Regex, RegexBuilder};
use sha2::Sha256;
use std::collections::BTreeSet;

/// Own rules at most.
pub const MAX_OWN_RULES: usize = 64;
/// Compiled size of one rule, bytes.
const MAX_RULE_BYTES: usize = 1 << 20;
/// What every mask begins with.
const MASK: &[u8] = b"[redacted:";

/// Words that name a secret, in options, variables and keys.
const WORDS: &str = "passwords?|passwd|passphrase|secrets?|tokens?|api[-_]?keys?|access[-_]?keys?|\
    secret[-_]?keys?|private[-_]?keys?|account[-_]?keys?|encryption[-_]?keys?|credentials?";

/// Names of rules and regular expressions; `secret` is what is masked (else all), `name` what was
/// named (a name that says it is a file is left alone).
const BUILT_IN: [(&str, &str); 13] = [
    (
        "private-key",
        r"(?s-u)-----BEGIN [A-Z ]*PRIVATE KEY-----(?P<secret>.*?)(?:-----END|\z)",
    ),
    (
        "url-password",
        r"(?-u)[A-Za-z][A-Za-z0-9+.-]*://[^\s/@:'\x22]*:(?P<secret>[^\s@'\x22]+)@",
    ),
    (
        "authorization",
        r"(?i-u)\bauthorization\s*[:=]\s*(?:(?:bearer|basic|token|apikey)\s+)?(?P<secret>[^\s'\x22]{4,})",
    ),
    (
        "header",
        r"(?i-u)\b(?:x-[a-z-]*(?:key|token|secret)|private-token)\s*:\s*(?P<secret>[^\s'\x22]{4,})",
    ),
    (
        "json",
        r"(?i-u)\x22(?P<name>[a-z0-9_.-]*(?:WORDS)(?:[_.-][a-z0-9_.-]*)?)\x22\s*:\s*\x22(?P<secret>[^\x22]+)\x22",
    ),
    (
        "assignment",
        r"(?i-u)(?P<name>[a-z0-9_.-]*(?:WORDS)(?:[_.-][a-z0-9_.-]*)?)\s?=\s?(?:\x22(?P<secret>[^\x22]+)\x22|'(?P<quoted>[^']+)'|(?P<plain>[^\s;&|'\x22]+))",
    ),
    (
        "connection-string",
        r"(?i-u)(?:^|[;\s'\x22])pwd\s?=\s?(?P<secret>[^/\s;'\x22][^\s;'\x22]*)",
    ),
    ("aws-key", r"(?-u)\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    (
        "github-token",
        r"(?-u)\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})\b",
    ),
    ("gitlab-token", r"(?-u)\bglpat-[A-Za-z0-9_-]{20,}"),
    ("slack-token", r"(?-u)\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("stripe-key", r"(?-u)\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    (
        "jwt",
        r"(?-u)\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?",
    ),
];

/// Why an own rule was refused.
#[derive(Debug, thiserror::Error)]
#[error("redaction rule {name:?}: {why}")]
pub struct RedactionRuleError {
    /// Which rule.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

/// A regular expression and what it is called.
#[derive(Clone, Debug)]
struct Rule {
    name: String,
    regex: Regex,
}

/// Masks secrets.
#[derive(Clone, Debug)]
pub struct Redactor {
    key: [u8; 32],
    rules: Vec<Rule>,
    option: Regex,
    entropy: bool,
    on: bool,
}

impl Redactor {
    /// The built-in rules with this node's key; `entropy`: mask what looks random, too.
    pub fn new(key: [u8; 32], entropy: bool) -> Self {
        let compile = |form: &str| -> Regex {
            let form = form.replace("WORDS", WORDS);
            Regex::new(&form).expect("the built-in forms are regular expressions")
        };
        let rules = BUILT_IN.iter().map(|(name, form)| Rule {
            name: (*name).to_owned(),
            regex: compile(form),
        });
        Self {
            key,
            rules: rules.collect(),
            option: compile(r"(?i-u)\A--?(?:[a-z0-9]+[-_.])*(?:WORDS)\z"),
            entropy,
            on: true,
        }
    }

    /// Masks nothing: for replay of what is masked already, and where a person wants it so.
    pub fn off() -> Self {
        Self {
            on: false,
            ..Self::new([0; 32], false)
        }
    }

    /// Adds a rule of one's own: the group `secret` is masked where the expression has one, else all
    /// that it matches.
    ///
    /// # Errors
    /// When the name is no word, the expression does not compile, or there are too many.
    pub fn add(&mut self, name: &str, form: &str) -> Result<(), RedactionRuleError> {
        let refuse = |why: String| RedactionRuleError {
            name: name.to_owned(),
            why,
        };
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > 40 || !name.bytes().all(is_word) {
            return Err(refuse(
                "a name is 1 to 40 letters, digits, - and _".to_owned(),
            ));
        }
        if self.rules.len() >= BUILT_IN.len() + MAX_OWN_RULES {
            return Err(refuse(format!("more than {MAX_OWN_RULES} rules")));
        }
        let regex = RegexBuilder::new(form)
            .size_limit(MAX_RULE_BYTES)
            .build()
            .map_err(|e| refuse(e.to_string()))?;
        if regex.is_match(b"") {
            return Err(refuse("it matches the empty text".to_owned()));
        }
        self.rules.push(Rule {
            name: name.to_owned(),
            regex,
        });
        Ok(())
    }

    /// Masks the arguments of an exec; returns the rules that did something, sorted.
    pub fn event(&self, event: &mut Event) -> Vec<String> {
        match &mut event.kind {
            EventKind::Exec(exec) => {
                let mut did = self.arguments(&mut exec.argv);
                if let Some(env) = exec.glance.as_mut().and_then(|g| g.env.as_mut()) {
                    did.extend(self.environment(env));
                    did.sort();
                    did.dedup();
                }
                did
            }
            _ => Vec::new(),
        }
    }

    /// Masks variables of an environment (`NAME=value`); returns the rules that did something.
    pub fn environment(&self, variables: &mut [Text]) -> BTreeSet<String> {
        let mut did = BTreeSet::new();
        if self.on {
            self.by_form(variables, &mut did);
            self.by_entropy(variables, &mut did);
        }
        did
    }

    /// What is known of a container with its command masked, and labels whose name or value says
    /// that they are secret. Its role is that of the command as it is: the same on every node.
    pub fn facts(&self, facts: &Facts) -> Facts {
        let mut facts = facts.clone();
        self.arguments(&mut facts.command);
        for (key, value) in &mut facts.labels {
            let mut pair = [Text::from(format!("{key}={value}"))];
            if !self.arguments(&mut pair).is_empty()
                && let Some(masked) = pair[0].to_str_lossy().strip_prefix(&format!("{key}="))
            {
                *value = masked.to_owned();
            }
        }
        facts
    }

    /// Masks a command line; returns the rules that did something, sorted.
    pub fn arguments(&self, argv: &mut [Text]) -> Vec<String> {
        if !self.on {
            return Vec::new();
        }
        let mut did = BTreeSet::new();
        self.by_place(argv, &mut did);
        self.by_form(argv, &mut did);
        self.by_entropy(argv.get_mut(1..).unwrap_or_default(), &mut did);
        did.into_iter().collect()
    }

    fn by_form(&self, texts: &mut [Text], did: &mut BTreeSet<String>) {
        for text in texts {
            for rule in &self.rules {
                if let Some(masked) = self.apply(rule, text.as_bytes()) {
                    did.insert(rule.name.clone());
                    *text = Text::from(masked);
                }
            }
        }
    }

    fn by_entropy(&self, texts: &mut [Text], did: &mut BTreeSet<String>) {
        for text in texts.iter_mut().filter(|_| self.entropy) {
            if let Some(masked) = self.random(text.as_bytes()) {
                did.insert("entropy".to_owned());
                *text = Text::from(masked);
            }
        }
    }
}

/// Programs that take a secret right behind a short option: options, and whether only what follows
/// the first `:` is the secret (`user:password`).
fn short_options(program: &[u8], argv: &[Text]) -> (&'static [&'static str], bool) {
    let login = || argv.iter().any(|a| a.as_bytes() == b"login");
    match program {
        b"mysql" | b"mysqldump" | b"mysqladmin" | b"mariadb" | b"mariadb-dump" => (&["-p"], false),
        b"sshpass" => (&["-p"], false),
        b"redis-cli" => (&["-a", "--pass"], false),
        b"curl" => (&["-u", "--user", "-U", "--proxy-user"], true),
        b"docker" | b"podman" | b"nerdctl" | b"helm" | b"oc" if login() => (&["-p"], false),
        _ => (&[], false),
    }
}

impl Redactor {
    /// What stands behind an option that takes a secret.
    fn by_place(&self, argv: &mut [Text], did: &mut BTreeSet<String>) {
        let program = argv.first().map(|a| a.basename()).unwrap_or_default();
        let (short, with_user) = short_options(program.as_bytes(), argv);
        // mysql's -p takes its password in the same argument only
        let joined_only = program.as_bytes().starts_with(b"m");
        for i in 1..argv.len() {
            let before = argv[i - 1].as_bytes().to_vec();
            let is_option = |a: &[u8]| short.iter().any(|s| s.as_bytes() == a);
            if self.option.is_match(&before) && !argv[i].as_bytes().starts_with(b"-") {
                if let Some(masked) = self.mask("option", argv[i].as_bytes()) {
                    argv[i] = Text::from(masked);
                    did.insert("option".to_owned());
                }
            } else if is_option(&before) && !joined_only {
                self.behind(&mut argv[i], 0, with_user, did);
            } else if let Some(s) = short
                .iter()
                .filter(|s| !s.starts_with("--"))
                .find(|s| argv[i].as_bytes().starts_with(s.as_bytes()) && argv[i].len() > s.len())
            {
                self.behind(&mut argv[i], s.len(), with_user, did);
            }
        }
    }

    /// Masks an argument from `at` on (behind its first `:` with `with_user`).
    fn behind(&self, arg: &mut Text, at: usize, with_user: bool, did: &mut BTreeSet<String>) {
        let bytes = arg.as_bytes();
        let from = match with_user {
            false => at,
            true => match bytes[at..].iter().position(|b| *b == b':') {
                Some(i) => at + i + 1,
                None => return,
            },
        };
        if let Some(masked) = self.mask("option", &bytes[from..]) {
            let whole = [&bytes[..from], &masked].concat();
            *arg = Text::from(whole);
            did.insert("option".to_owned());
        }
    }

    /// The argument with everything masked that the rule finds; `None`: nothing.
    fn apply(&self, rule: &Rule, arg: &[u8]) -> Option<Vec<u8>> {
        let mut changed = false;
        let masked = rule.regex.replace_all(arg, |c: &Captures<'_>| {
            let whole = c.get(0).expect("a match has a whole").as_bytes();
            let secret = ["secret", "quoted", "plain"]
                .iter()
                .find_map(|g| c.name(g))
                .or_else(|| c.get(0))
                .expect("a match has a whole");
            if c.name("name").is_some_and(|n| names_a_file(n.as_bytes())) {
                return whole.to_vec();
            }
            let Some(mask) = self.mask(&rule.name, secret.as_bytes()) else {
                return whole.to_vec();
            };
            changed = true;
            let start = c.get(0).map_or(0, |m| m.start());
            let (from, to) = (secret.start() - start, secret.end() - start);
            [&whole[..from], &mask, &whole[to..]].concat()
        });
        changed.then(|| masked.into_owned())
    }

    /// The mask of a secret; `None` for what holds one already, and for a reference to a variable.
    fn mask(&self, rule: &str, secret: &[u8]) -> Option<Vec<u8>> {
        let is_masked = secret.windows(MASK.len()).any(|w| w == MASK);
        if secret.is_empty() || is_masked || secret.starts_with(b"$") {
            return None;
        }
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(secret);
        let digest = hex(&mac.finalize().into_bytes()[..6]);
        Some([MASK, rule.as_bytes(), b":", digest.as_bytes(), b"]"].concat())
    }

    /// Masks words that look random.
    fn random(&self, arg: &[u8]) -> Option<Vec<u8>> {
        let is_word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+');
        let mut out = Vec::with_capacity(arg.len());
        let (mut rest, mut changed) = (arg, false);
        while !rest.is_empty() {
            let len = rest.iter().position(|b| !is_word(b)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(len);
            // a component of a path is a name
            let in_path = out.last() == Some(&b'/') || after.first() == Some(&b'/');
            match self
                .mask("entropy", word)
                .filter(|_| !in_path && looks_random(word))
            {
                Some(mask) => {
                    changed = true;
                    out.extend(mask);
                }
                None => out.extend(word),
            }
            let step = after.len().min(1);
            out.extend(&after[..step]);
            rest = &after[step..];
        }
        changed.then_some(out)
    }
}

/// `DB_PASSWORD_FILE` names a file, which is no secret.
fn names_a_file(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    [&b"file"[..], b"path", b"dir", b"name", b"url"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// Shortest word that is looked at for randomness.
const RANDOM_BYTES_MIN: usize = 24;
/// Least entropy of its letters, bits each (24 random letters of base 64 have 4.3, words about 3.5).
const RANDOM_BITS_MIN: f64 = 4.0;

/// Long, with small and capital letters and digits mixed, and few repeats. Hexadecimal numbers (ids,
/// digests) are not: they are what evidence is made of.
fn looks_random(word: &[u8]) -> bool {
    if word.len() < RANDOM_BYTES_MIN || word.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-') {
        return false;
    }
    let has = |f: fn(&u8) -> bool| word.iter().any(f);
    if !(has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit)) {
        return false;
    }
    let mut counts = [0u32; 256];
    word.iter().for_each(|b| counts[*b as usize] += 1);
    let n = word.len() as f64;
    let bits: f64 = counts
        .iter()
        .filter(|c| **c > 0)
        .map(|c| f64::from(*c) / n)
        .map(|p| -p * p.log2())
        .sum();
    bits >= RANDOM_BITS_MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redactor() -> Redactor {
        Redactor::new([7; 32], true)
    }

    /// What is shown of a command line, and by which rules it was masked.
    fn masked(line: &[&str]) -> (String, Vec<String>) {
        let mut argv: Vec<Text> = line.iter().map(|a| Text::from(*a)).collect();
        let did = redactor().arguments(&mut argv);
        let all: Vec<String> = argv.iter().map(ToString::to_string).collect();
        (all.join(" "), did)
    }

    const SECRET: &str = "hunter2-Zq8";

    #[test]
    fn an_environment_is_masked_as_arguments_are() {
        let mut env = [
            "DB_PASSWORD=hunter2-Zq8".into(),
            "HTTP_PROXY=http://me:hunter2-Zq8@192.0.2.1:8080".into(),
            "PATH=/usr/bin:/bin".into(),
        ];
        let did = redactor().environment(&mut env);
        assert_eq!(Vec::from_iter(did), ["assignment", "url-password"]);
        assert!(env.iter().all(|v| !v.to_string().contains(SECRET)));
        assert_eq!(env[2], "PATH=/usr/bin:/bin".into());
    }

    #[test]
    fn secrets_in_their_usual_places_are_masked_and_the_rule_is_named() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl";
        for (line, rule, secret) in [
            (&["x", "--password", SECRET][..], "option", SECRET),
            (&["x", "-token", SECRET], "option", SECRET),
            (&["x", "--db-password=hunter2-Zq8"], "assignment", SECRET),
            (
                &["env", "PGPASSWORD=hunter2-Zq8", "psql"],
                "assignment",
                SECRET,
            ),
            (
                &["sh", "-c", "export API_KEY='hunter2-Zq8'; run"],
                "assignment",
                SECRET,
            ),
            (&["mysql", "-uroot", "-phunter2-Zq8"], "option", SECRET),
            (&["sshpass", "-p", SECRET, "ssh", "h"], "option", SECRET),
            (&["redis-cli", "-a", SECRET], "option", SECRET),
            (&["curl", "-u", "me:hunter2-Zq8", "h"], "option", SECRET),
            (
                &["/usr/bin/curl", "-ume:hunter2-Zq8", "h"],
                "option",
                SECRET,
            ),
            (&["docker", "login", "-p", SECRET], "option", SECRET),
            (
                &["psql", "postgres://me:hunter2-Zq8@db:5432/shop"],
                "url-password",
                SECRET,
            ),
            (
                &["curl", "-H", "Authorization: Bearer hunter2-Zq8"],
                "authorization",
                SECRET,
            ),
            (&["curl", "-H", "X-Api-Key: hunter2-Zq8"], "header", SECRET),
            (
                &["curl", "-d", r#"{"user":"me","password":"hunter2-Zq8"}"#],
                "json",
                SECRET,
            ),
            (
                &["x", "Server=db;Uid=sa;Pwd=hunter2-Zq8;"],
                "connection-string",
                SECRET,
            ),
            (
                &["x", "AKIAIOSFODNN7EXAMPLE"],
                "aws-key",
                "AKIAIOSFODNN7EXAMPLE",
            ),
            (&["x", jwt], "jwt", jwt),
            (
                &["x", "xQ9mZr7Lk2Wv5Tn8Yp3Bc6Df"],
                "entropy",
                "xQ9mZr7Lk2Wv5Tn8Yp3Bc6Df",
            ),
        ] {
            let (shown, did) = masked(line);
            assert!(!shown.contains(secret), "{line:?}: {shown}");
            assert!(
                shown.contains(&format!("[redacted:{rule}:")),
                "{line:?}: {shown}"
            );
            assert_eq!(did, [rule], "{line:?}");
        }
    }

    #[test]
    fn what_is_no_secret_is_left_as_it_is() {
        for line in [
            &["ls", "-la", "/etc/shadow"][..],
            &["x", "--password-file", "/run/secrets/db"],
            &["x", "DB_PASSWORD_FILE=/run/secrets/db"],
            &["sh", "-c", "PWD=/root OLDPWD=/ ls"],
            &["x", "--tokenizer=bert", "--secretary", "jane"],
            &["x", "--password=$DB_PASSWORD"],
            &[
                "git",
                "checkout",
                "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
            ],
            &["x", "123e4567-e89b-12d3-a456-426614174000"],
            &["x", "/var/lib/docker/xQ9mZr7Lk2Wv5Tn8Yp3Bc6Df/merged"],
            &[
                "java",
                "-cp",
                "org.example.ApplicationContextInitializer1Factory",
            ],
            &["ssh", "-p", "2222", "host"],
            &["mysql", "-u", "root", "-p", "shop"],
            &["curl", "http://db:8080/a"],
            &["nginx", "-g", "daemon off;"],
        ] {
            let (shown, did) = masked(line);
            assert_eq!(shown, line.join(" "));
            assert!(did.is_empty(), "{line:?}: {did:?}");
        }
    }

    #[test]
    fn equal_secrets_have_equal_masks_and_another_key_another() {
        let digest = |r: &Redactor, secret: &str| {
            let mut argv = [Text::from("x"), "--password".into(), secret.into()];
            r.arguments(&mut argv);
            argv[2].to_string()
        };
        let other = Redactor::new([8; 32], true);
        assert_eq!(digest(&redactor(), "a"), digest(&redactor(), "a"));
        assert_ne!(digest(&redactor(), "a"), digest(&redactor(), "b"));
        assert_ne!(digest(&redactor(), "a"), digest(&other, "a"));
        // the same secret in another place is told to be the same
        let (by_option, _) = masked(&["x", "--password", SECRET]);
        let (by_url, _) = masked(&["x", "a://b:hunter2-Zq8@c"]);
        let tail = |s: &str| {
            s.split(':')
                .find(|p| p.contains(']'))
                .map(|p| p[..12].to_owned())
        };
        assert_eq!(tail(&by_option), tail(&by_url));
    }

    #[test]
    fn own_rules_mask_their_group_and_bad_ones_are_refused_with_the_reason() {
        let mut r = redactor();
        r.add("badge", "badge (?P<secret>[0-9]+)").unwrap();
        let mut argv = [Text::from("x"), "badge 4711".into()];
        assert_eq!(r.arguments(&mut argv), ["badge"]);
        assert!(argv[1].to_string().starts_with("badge [redacted:badge:"));
        for (name, form) in [
            ("a b", "x"),
            ("", "x"),
            ("x", "("),
            ("x", ".*"),
            ("x", "a{99999}{999}"),
        ] {
            assert!(r.add(name, form).is_err(), "{name:?} {form:?}");
        }
    }

    #[test]
    fn off_is_off() {
        let mut argv = [Text::from("x"), "--password=a".into()];
        assert!(Redactor::off().arguments(&mut argv).is_empty());
        assert_eq!(argv[1].to_string(), "--password=a");
    }

    proptest! {
        /// Whatever the arguments are: no panic, twice is once, and the number of arguments stays.
        #[test]
        fn masking_twice_is_masking_once(
            words in prop::collection::vec("(-p|--password|-u|--token=|PASSWORD=|a://b:c@d|[a-zA-Z0-9:/@=;'\" \\-]{0,40})", 0..6),
            program in "(mysql|curl|sshpass|x)",
        ) {
            let r = redactor();
            let mut argv: Vec<Text> = std::iter::once(program).chain(words).map(|w| Text::from(w.as_str())).collect();
            let n = argv.len();
            r.arguments(&mut argv);
            let once = argv.clone();
            let again = r.arguments(&mut argv);
            prop_assert_eq!(argv.len(), n);
            prop_assert_eq!(&argv, &once);
            prop_assert!(again.is_empty());
        }
    }
}
