//! The enforcement policy: which containers are held to their baseline, and how strictly.
//!
//! Promises: pure. What is wrong is said with line, column and what was expected; unknown keys are
//! wrong; a rule that could stop anything in every container is refused until the file says
//! `confirm_everything: true`. The first rule that matches a container has the word; a container
//! that none matches is only observed. Documented in `docs/guide/enforcement.md`. Left out: reading
//! the file, and whether the baseline is fit to enforce (the agent).

use crate::policy::{FILE_BYTES_MAX, PolicyError, is_open, millis};
use crate::values::glob;
use plimsoll_model::{Container, EnforceClass};
use plimsoll_settings::{Fault, Mark, Node, Result, Section, expected, parse};
use sha2::Digest as _;

/// Rules of a policy at most.
pub const RULES_MAX: usize = 256;
/// How long a process that was stopped at exec waits for its verdict, unless a rule says otherwise.
pub const DECIDE_WITHIN_MS: u64 = 2_000;
/// Longest that it may be made to wait.
pub const DECIDE_WITHIN_MAX_MS: u64 = 60_000;

/// How far a rule goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Nothing beyond what is done for every container.
    Observe,
    /// A dry run: what would be prevented is reported, and happens.
    Alert,
    /// It is prevented.
    Enforce,
}

impl Mode {
    /// Name in policies, JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Observe => "observe",
            Mode::Alert => "alert",
            Mode::Enforce => "enforce",
        }
    }

    /// The mode of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Mode::Observe, Mode::Alert, Mode::Enforce]
            .into_iter()
            .find(|m| m.as_str() == text)
    }
}

/// What becomes of a program outside the baseline at its exec, where the kernel cannot refuse it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtExec {
    /// Stopped with its memory preserved, then decided.
    Stop,
    /// Killed at once.
    Kill,
}

/// What becomes of a process that nobody decided about in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// It goes on, and a gap says so.
    Continue,
    /// It is killed.
    Kill,
}

/// A valid policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// SHA-256 of the text, hex; empty: there is no policy.
    pub digest: String,
    /// In the order of the file.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Which containers.
    pub select: Select,
    /// How far it goes.
    pub mode: Mode,
    /// Which acts are held against the baseline, sorted.
    pub classes: Vec<EnforceClass>,
    /// What becomes of programs outside the baseline where the kernel cannot refuse them.
    pub at_exec: AtExec,
    /// How long one that was stopped waits for its verdict, milliseconds.
    pub decide_within_ms: u64,
    /// What becomes of one that nobody decided about in time.
    pub undecided: Undecided,
}

/// Which containers: everything that is given has to fit; of a list, one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select {
    /// Patterns of image names.
    pub image: Vec<String>,
    /// Labels and patterns of their values.
    pub labels: Vec<(String, String)>,
    /// Patterns of Kubernetes namespaces.
    pub namespace: Vec<String>,
    /// Patterns of services.
    pub service: Vec<String>,
    /// Patterns of container names.
    pub name: Vec<String>,
}

impl Select {
    /// Whether a container is meant.
    pub fn fits(&self, c: &Container) -> bool {
        let one_of = |patterns: &[String], text: Option<&str>| {
            patterns.is_empty() || text.is_some_and(|t| patterns.iter().any(|p| glob(p, t)))
        };
        one_of(&self.image, Some(&c.image.name))
            && one_of(&self.namespace, c.namespace.as_deref())
            && one_of(&self.service, c.service.as_deref())
            && one_of(&self.name, Some(&c.name))
            && self
                .labels
                .iter()
                .all(|(label, p)| c.labels.get(label).is_some_and(|v| glob(p, v)))
    }

    /// It narrows nothing down.
    fn is_everything(&self) -> bool {
        let open = |list: &[String]| list.is_empty() || list.iter().any(|p| is_open(p));
        open(&self.image)
            && open(&self.namespace)
            && open(&self.service)
            && open(&self.name)
            && self.labels.is_empty()
    }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str) -> std::result::Result<Self, PolicyError> {
        let digest = sha2::Sha256::digest(text.as_bytes());
        let digest = digest.iter().map(|b| format!("{b:02x}")).collect();
        resolve(text, digest).map_err(|fault| PolicyError {
            line: fault.at.line,
            column: fault.at.column,
            message: fault.message,
        })
    }

    /// The rule that has the word about a container, and its place.
    pub fn rule_for(&self, container: &Container) -> Option<(usize, &Rule)> {
        let mut rules = self.rules.iter().enumerate();
        rules.find(|(_, rule)| rule.select.fits(container))
    }

    /// Whether any rule prevents anything.
    pub fn enforces(&self) -> bool {
        self.rules.iter().any(|r| r.mode == Mode::Enforce)
    }
}

fn resolve(text: &str, digest: String) -> Result<Policy> {
    let Some(root) = parse(text, FILE_BYTES_MAX)? else {
        let message = "expected \"version: 1\" and rules";
        return Err(Fault::new(Mark::START, message));
    };
    let file = Section::new(Some(&root), "", &["version", "confirm_everything", "rules"])?;
    file.must_be("version", "1")?;
    let confirmed = file.flag("confirm_everything", false)?;
    let nodes = file.list("rules", "rules")?;
    if nodes.len() > RULES_MAX {
        return Err(Fault::new(
            file.at,
            format!("expected at most {RULES_MAX} rules"),
        ));
    }
    let mut rules: Vec<Rule> = Vec::with_capacity(nodes.len());
    for (i, node) in nodes.iter().enumerate() {
        let rule = rule(node, i)?;
        if rules.iter().any(|r| r.name == rule.name) {
            let message = format!("the name \"{}\" is given twice", rule.name);
            return Err(Fault::new(node.at, message));
        }
        if !confirmed && rule.mode == Mode::Enforce && rule.select.is_everything() {
            let message = format!(
                "\"{}\" could stop programs in every container: narrow its match, or confirm with \"confirm_everything: true\" at the top",
                rule.name
            );
            return Err(Fault::new(node.at, message));
        }
        rules.push(rule);
    }
    Ok(Policy { digest, rules })
}

fn rule(node: &Node, i: usize) -> Result<Rule> {
    let path = format!("rules[{i}]");
    let keys = [
        "name",
        "match",
        "mode",
        "classes",
        "at_exec",
        "decide_within",
        "undecided",
    ];
    let s = Section::new(Some(node), &path, &keys)?;
    let name = s
        .text("name", "a name", |t| {
            (!t.is_empty() && t.len() <= 128).then(|| t.to_owned())
        })?
        .ok_or_else(|| expected(node, &s.name("name"), "a name"))?;
    let mode = s
        .text("mode", "observe, alert or enforce", Mode::parse)?
        .ok_or_else(|| expected(node, &s.name("mode"), "observe, alert or enforce"))?;
    let at_exec = |t: &str| match t {
        "stop" => Some(AtExec::Stop),
        "kill" => Some(AtExec::Kill),
        _ => None,
    };
    let undecided = |t: &str| match t {
        "continue" => Some(Undecided::Continue),
        "kill" => Some(Undecided::Kill),
        _ => None,
    };
    let within = millis(&s, "decide_within")?.unwrap_or(DECIDE_WITHIN_MS);
    if !(100..=DECIDE_WITHIN_MAX_MS).contains(&within) {
        let what = "a length of time from 100ms to 60s";
        let at = s.get("decide_within").unwrap_or(node);
        return Err(expected(at, &s.name("decide_within"), what));
    }
    Ok(Rule {
        select: select(&s)?,
        mode,
        classes: classes(&s)?,
        at_exec: s
            .text("at_exec", "stop or kill", at_exec)?
            .unwrap_or(AtExec::Stop),
        decide_within_ms: within,
        undecided: s
            .text("undecided", "continue or kill", undecided)?
            .unwrap_or(Undecided::Continue),
        name,
    })
}

fn select(rule: &Section<'_>) -> Result<Select> {
    let keys = ["image", "labels", "namespace", "service", "name"];
    let s = rule.section("match", &keys)?;
    Ok(Select {
        image: s.texts("image")?,
        labels: s.named_texts("labels")?,
        namespace: s.texts("namespace")?,
        service: s.texts("service")?,
        name: s.texts("name")?,
    })
}

/// All classes, unless some are named.
fn classes(rule: &Section<'_>) -> Result<Vec<EnforceClass>> {
    let Some(node) = rule.get("classes").filter(|n| !n.is_null()) else {
        return Ok(EnforceClass::ALL.to_vec());
    };
    let known = |t: &String| {
        let mut all = EnforceClass::ALL.into_iter();
        all.find(|c| c.as_str() == t).ok_or_else(|| {
            expected(
                node,
                &rule.name("classes"),
                "programs, scripts, libraries, peers",
            )
        })
    };
    let mut classes: Vec<_> = rule
        .texts("classes")?
        .iter()
        .map(known)
        .collect::<Result<_>>()?;
    classes.sort();
    classes.dedup();
    if classes.is_empty() {
        return Err(expected(node, &rule.name("classes"), "at least one class"));
    }
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Policy::parse(text).unwrap_err().to_string()
    }

    const STAGED: &str = "version: 1
rules:
  - { name: payments, match: { labels: { tier: pay* } }, mode: enforce, classes: [programs, scripts], at_exec: kill }
  - { name: web, match: { image: 'nginx:*', namespace: shop }, mode: alert }
";

    #[test]
    fn a_policy_is_read_with_its_defaults() {
        let p = Policy::parse(STAGED).unwrap();
        assert_eq!(p.digest.len(), 64);
        assert!(p.enforces());
        assert_eq!(
            p.rules[0].classes,
            [EnforceClass::Program, EnforceClass::Script]
        );
        assert_eq!(p.rules[0].at_exec, AtExec::Kill);
        assert_eq!(p.rules[1].classes, EnforceClass::ALL);
        assert_eq!(p.rules[1].at_exec, AtExec::Stop);
        assert_eq!(p.rules[1].decide_within_ms, DECIDE_WITHIN_MS);
        assert_eq!(p.rules[1].undecided, Undecided::Continue);
    }

    #[test]
    fn nothing_is_enforced_without_a_word_about_it() {
        assert!(!Policy::default().enforces());
        assert!(
            Policy::parse("version: 1\nrules: []\n")
                .unwrap()
                .rules
                .is_empty()
        );
    }

    #[test]
    fn a_rule_for_everything_has_to_be_confirmed() {
        let rule = "rules:\n  - { name: all, mode: enforce }\n";
        assert!(refused(&format!("version: 1\n{rule}")).contains("every container"));
        assert!(Policy::parse(&format!("version: 1\nconfirm_everything: true\n{rule}")).is_ok());
        // a dry run harms nobody
        assert!(Policy::parse("version: 1\nrules:\n  - { name: all, mode: alert }\n").is_ok());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let bad = |rule: &str| refused(&format!("version: 1\nrules:\n  - {rule}\n"));
        assert_eq!(
            bad("{ name: a, mode: block }"),
            "3:22: rules[0].mode: expected observe, alert or enforce, found \"block\""
        );
        assert!(bad("{ name: a }").contains("rules[0].mode: expected observe, alert or enforce"));
        assert!(bad("{ name: a, mode: alert, classes: [files] }").contains("programs, scripts"));
        assert!(bad("{ name: a, mode: alert, clases: [files] }").contains("classes"));
        assert!(bad("{ name: a, mode: alert, decide_within: 10m }").contains("60s"));
        assert!(refused("rules: []").contains("version: 1"));
        assert!(refused("").contains("version: 1"));
    }
}
