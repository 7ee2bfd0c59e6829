//! Secrets in arguments are masked before anything is judged or stored.
//!
//! Built-in rules know the places where programs are given secrets (options, assignments, URLs,
//! headers, connection strings; also inside the scripts of `sh -c`), the forms that providers print on
//! their tokens, and text that looks random; own rules are regular expressions. A mask is
//! `[redacted:RULE:DIGEST]`: which rule did it, and 12 hex digits of HMAC-SHA-256 with a key of this
//! node, so that equal secrets can be told to be equal, and nobody without the key can try candidates.
//! What is masked is the same for the judge and for the store, so verdicts replay.
//!
//! Promises: pure and deterministic for one key; masking twice is masking once; regular expressions
//! without backtracking, over at most 4 KiB of arguments; a mask is never longer than 64 bytes and the
//! rule's name. Forms are those that the providers document themselves (`docs/guide/redaction.md`).
//!
//! Left out: contents of files and connections (never read), names of files.

mod forms;
mod places;
mod random;

use crate::facts::{Facts, hex};
use forms::names_no_secret;
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
    built_in: usize,
    option: Regex,
    pair: Regex,
    entropy: bool,
    on: bool,
}

impl Redactor {
    /// The built-in rules with this node's key; `entropy`: mask what looks random, too.
    pub fn new(key: [u8; 32], entropy: bool) -> Self {
        let compile = |form: String| -> Regex {
            Regex::new(&form).expect("the built-in forms are regular expressions")
        };
        let rules: Vec<Rule> = forms::built_in()
            .map(|(name, form)| Rule {
                name: name.to_owned(),
                regex: compile(form),
            })
            .collect();
        Self {
            key,
            built_in: rules.len(),
            rules,
            option: compile(forms::option()),
            pair: compile(forms::pair()),
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
        if self.rules.len() >= self.built_in + MAX_OWN_RULES {
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
            for variable in &mut *variables {
                self.whole_value(variable, true, &mut did);
            }
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
            let words = random::words(text.as_bytes()).into_iter();
            let spans = words.filter(|(from, to)| self.is_secret(&text.as_bytes()[*from..*to]));
            self.mask_spans("entropy", text, &spans.collect::<Vec<_>>(), did);
        }
    }

    /// Whether a word that looks random is a secret: text in base 64 is judged by what it says.
    fn is_secret(&self, word: &[u8]) -> bool {
        random::coded_text(word).is_none_or(|text| {
            !random::words(&text).is_empty()
                || self.rules.iter().any(|r| self.apply(r, &text).is_some())
        })
    }

    /// What stands where programs take secrets: in the command line, and in the commands of scripts.
    fn by_place(&self, argv: &mut [Text], did: &mut BTreeSet<String>) {
        let words: Vec<&[u8]> = argv.iter().map(Text::as_bytes).collect();
        let placed = places::placed(&words, &self.option, names_no_secret);
        for (i, at) in placed {
            let span = (at, argv[i].len());
            self.mask_spans("option", &mut argv[i], &[span], did);
        }
        for i in 1..argv.len() {
            if !may_be_script(argv[i - 1].as_bytes(), argv[i].as_bytes()) {
                self.whole_value(&mut argv[i], false, did);
            }
            if argv[i].as_bytes().iter().any(u8::is_ascii_whitespace) {
                self.in_script(&mut argv[i], did);
            }
        }
    }

    fn in_script(&self, script: &mut Text, did: &mut BTreeSet<String>) {
        let text = script.as_bytes();
        let mut spans = Vec::new();
        for command in places::commands(text) {
            let words: Vec<&[u8]> = command.iter().map(|w| &text[w.clone()]).collect();
            let placed = places::placed(&words, &self.option, names_no_secret);
            spans.extend(
                placed
                    .iter()
                    .map(|(i, at)| (command[*i].start + at, command[*i].end)),
            );
        }
        self.mask_spans("option", script, &spans, did);
    }

    /// Masks the value of `NAME=value` to its end, whatever is in it. A connection string that begins so
    /// is left to the forms.
    fn whole_value(&self, pair: &mut Text, is_variable: bool, did: &mut BTreeSet<String>) {
        let Some(found) = self.pair.captures(pair.as_bytes()) else {
            return;
        };
        let (Some(name), Some(value)) = (found.name("name"), found.name("secret")) else {
            return;
        };
        let more = value.as_bytes().split(|b| *b == b';').skip(1);
        let is_connection = more.filter(|p| p.contains(&b'=')).count() > 0;
        let is_words = !is_variable && value.as_bytes().starts_with(b"{");
        if is_connection || is_words || names_no_secret(name.as_bytes()) {
            return;
        }
        let span = (value.start(), value.end());
        self.mask_spans("assignment", pair, &[span], did);
    }

    /// Masks these spans, which are in order and apart.
    fn mask_spans(
        &self,
        rule: &str,
        text: &mut Text,
        spans: &[(usize, usize)],
        did: &mut BTreeSet<String>,
    ) {
        let bytes = text.as_bytes();
        let (mut out, mut done, mut changed) = (Vec::new(), 0, false);
        for (from, to) in spans {
            if let Some(mask) = self.mask(rule, &bytes[*from..*to]) {
                out.extend_from_slice(&bytes[done..*from]);
                out.extend(mask);
                (done, changed) = (*to, true);
            }
        }
        if changed {
            out.extend_from_slice(&bytes[done..]);
            *text = Text::from(out);
            did.insert(rule.to_owned());
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
            let is_none = c
                .name("name")
                .is_some_and(|n| names_no_secret(n.as_bytes()));
            if is_none || (rule.name == "url-password" && is_port(secret.as_bytes())) {
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
}

/// Whether an argument that begins with `NAME=` may be commands (`PASSWORD=a run; stop`), by the argument
/// before it and what is in it.
fn may_be_script(before: &[u8], arg: &[u8]) -> bool {
    let says_so = before.len() <= 5 && before.starts_with(b"-") && before.ends_with(b"c");
    let is_setting = arg.starts_with(b"-")
        || [
            &b"-e"[..],
            b"--env",
            b"--build-arg",
            b"--from-literal",
            b"--set",
        ]
        .contains(&before);
    says_so || (!is_setting && arg.iter().any(|b| b";|&\n".contains(b)))
}

/// `scheme://host:5000/app@sha256:…` has a port where others have a password.
fn is_port(secret: &[u8]) -> bool {
    let digits = secret.iter().take_while(|b| b.is_ascii_digit()).count();
    (1..=5).contains(&digits) && secret.get(digits) == Some(&b'/')
}

#[cfg(test)]
mod tests;
