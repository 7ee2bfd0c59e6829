//! Comparing one value with constants.
//!
//! Promises: every comparison takes time linear in the value (times the pattern, for globs), and
//! nothing allocates. What comes from an event may be any bytes.
//!
//! Leaves out: absent values, lists and ancestors; `judge` deals with those before it asks here.

use std::cmp::Ordering;
use std::net::IpAddr;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use ipnet::IpNet;
use memchr::memmem::Finder;
use regex::bytes::{Regex, RegexBuilder};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::fields::FieldType;
use crate::syntax::{Op, Quantifier};
use crate::value::{Tri, Value};

/// A regular expression, compiled, takes at most this much memory.
const MAX_REGEX_BYTES: usize = 1 << 20;
/// A pattern is at most this long.
const MAX_PATTERN_BYTES: usize = 4096;

/// A comparison with constants.
#[derive(Debug)]
pub(crate) enum Test {
    Exists,
    TextEq(Box<[u8]>),
    TextOrder(Op, Box<[u8]>),
    TextIn(FxHashSet<Box<[u8]>>),
    Contains(Box<Finder<'static>>),
    Icontains(Box<AhoCorasick>),
    Startswith(Box<[u8]>),
    Endswith(Box<[u8]>),
    Glob(Glob),
    Pmatch(PathTree),
    Regex(Regex),
    Patterns(Box<Patterns>),
    Number(Op, i128),
    Fraction(Op, f64),
    NumberIn(FxHashSet<i128>),
    Bool(bool),
    Ip(IpAddr),
    IpIn(FxHashSet<IpAddr>),
    Net(Nets),
    /// Numbers as numbers, all else as text: for fields whose type only the event knows.
    Dynamic(Op, Vec<(Option<i128>, Box<[u8]>)>),
    Not(Box<Test>),
    Any(Vec<Test>),
    All(Vec<Test>),
    One(Vec<Test>),
}

impl Test {
    /// Builds the test of an operator with constants; the error says what was expected.
    pub(crate) fn new(
        ty: FieldType,
        op: Op,
        quantifier: Option<Quantifier>,
        values: &[Vec<u8>],
    ) -> Result<Self, String> {
        if op == Op::Exists {
            return Ok(Self::Exists);
        }
        if let Some(quantifier) = quantifier {
            return Self::quantified(ty, op, quantifier, values);
        }
        match op {
            Op::In | Op::Intersects => Self::membership(ty, values),
            Op::Pmatch => Ok(Self::Pmatch(PathTree::new(values)?)),
            Op::Ne => Self::new(ty, Op::Eq, None, values).map(|t| Self::Not(Box::new(t))),
            _ => match values {
                [value] => Self::single(ty, op, value),
                _ => Err(format!("'{op}' takes one value, not {}", values.len())),
            },
        }
    }

    fn quantified(
        ty: FieldType,
        op: Op,
        quantifier: Quantifier,
        values: &[Vec<u8>],
    ) -> Result<Self, String> {
        if quantifier == Quantifier::Any && ty == FieldType::Text {
            match op {
                Op::Eq => return Self::membership(ty, values),
                Op::Startswith | Op::Endswith | Op::Contains => {
                    let mut patterns = PatternsBuilder::default();
                    values.iter().for_each(|v| patterns.add(op, v, 0));
                    return Ok(Self::Patterns(Box::new(patterns.build()?)));
                }
                _ => {}
            }
        }
        let tests = values
            .iter()
            .map(|v| Self::new(ty, op, None, std::slice::from_ref(v)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(match quantifier {
            // Falco: no value, no match, whatever the quantifier.
            _ if tests.is_empty() => Self::Any(tests),
            Quantifier::Any => Self::Any(tests),
            Quantifier::All => Self::All(tests),
            Quantifier::One => Self::One(tests),
        })
    }

    fn membership(ty: FieldType, values: &[Vec<u8>]) -> Result<Self, String> {
        Ok(match ty {
            FieldType::Text | FieldType::Bytes => {
                Self::TextIn(values.iter().map(|v| v.as_slice().into()).collect())
            }
            FieldType::Ip => Self::IpIn(
                values
                    .iter()
                    .map(|v| parse_ip(v))
                    .collect::<Result<_, _>>()?,
            ),
            FieldType::Net => Self::Net(Nets::new(values)?),
            FieldType::Bool => Self::Any(
                values
                    .iter()
                    .map(|v| parse_bool(v).map(Self::Bool))
                    .collect::<Result<_, _>>()?,
            ),
            FieldType::Double => Self::Any(
                values
                    .iter()
                    .map(|v| parse_fraction(v).map(|n| Self::Fraction(Op::Eq, n)))
                    .collect::<Result<_, _>>()?,
            ),
            FieldType::Dyn => Self::Dynamic(Op::Eq, values.iter().map(|v| dynamic(v)).collect()),
            _ => Self::NumberIn(
                values
                    .iter()
                    .map(|v| parse_number(ty, v))
                    .collect::<Result<_, _>>()?,
            ),
        })
    }

    fn single(ty: FieldType, op: Op, value: &[u8]) -> Result<Self, String> {
        match ty {
            FieldType::Text | FieldType::Bytes => Self::text(op, value),
            FieldType::Ip => parse_ip(value).map(Self::Ip),
            FieldType::Net => Nets::new(&[value.to_vec()]).map(Self::Net),
            FieldType::Bool => parse_bool(value).map(Self::Bool),
            FieldType::Double => parse_fraction(value).map(|n| Self::Fraction(op, n)),
            FieldType::Dyn => Ok(Self::Dynamic(op, vec![dynamic(value)])),
            _ => parse_number(ty, value).map(|n| Self::Number(op, n)),
        }
    }

    fn text(op: Op, value: &[u8]) -> Result<Self, String> {
        Ok(match op {
            Op::Eq => Self::TextEq(value.into()),
            Op::Lt | Op::Le | Op::Gt | Op::Ge => Self::TextOrder(op, value.into()),
            Op::Contains => Self::Contains(Box::new(Finder::new(value).into_owned())),
            Op::Icontains => Self::Icontains(Box::new(
                AhoCorasick::builder()
                    .ascii_case_insensitive(true)
                    .build([value])
                    .map_err(|e| e.to_string())?,
            )),
            Op::Bcontains => Self::Contains(Box::new(Finder::new(&unhex(value)?).into_owned())),
            Op::Startswith => Self::Startswith(value.into()),
            Op::Bstartswith => Self::Startswith(unhex(value)?.into()),
            Op::Endswith => Self::Endswith(value.into()),
            Op::Glob => Self::Glob(Glob::new(value, false)?),
            Op::Iglob => Self::Glob(Glob::new(value, true)?),
            Op::Regex => Self::Regex(compile_regex(value)?),
            Op::Ne | Op::In | Op::Intersects | Op::Pmatch | Op::Exists => {
                return Err(format!("'{op}' does not compare with one text"));
            }
        })
    }

    /// Whether the test holds for one value that is there.
    pub(crate) fn holds(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Exists, _) => true,
            (Self::Not(test), v) => !test.holds(v),
            (Self::Any(tests), v) => tests.iter().any(|t| t.holds(v)),
            (Self::All(tests), v) => tests.iter().all(|t| t.holds(v)),
            (Self::One(tests), v) => tests.iter().filter(|t| t.holds(v)).take(2).count() == 1,
            (_, Value::Text(text)) => self.holds_text(text),
            (_, Value::Ip(ip)) => match self {
                Self::Ip(wanted) => *wanted == ip,
                Self::IpIn(wanted) => wanted.contains(&ip),
                Self::Net(nets) => nets.contains(ip),
                _ => false,
            },
            (_, Value::Bool(flag)) => match self {
                Self::Bool(wanted) => *wanted == flag,
                _ => self.holds_number(i128::from(flag)),
            },
            (_, Value::Int(n)) => self.holds_number(i128::from(n)),
            (_, Value::UInt(n)) => self.holds_number(i128::from(n)),
            (_, Value::Double(n)) => match self {
                Self::Fraction(op, wanted) => order_holds(*op, n.partial_cmp(wanted)),
                Self::Number(op, wanted) => order_holds(*op, n.partial_cmp(&(*wanted as f64))),
                _ => false,
            },
            (_, Value::Absent | Value::Unknown | Value::List(_)) => false,
        }
    }

    /// What is known of the comparison with a text that begins so and goes on in an unknown way.
    pub(crate) fn holds_for_some(&self, beginning: &[u8]) -> Tri {
        let may = |constant: &[u8]| match constant.starts_with(beginning) {
            true => Tri::Unknown,
            false => Tri::False,
        };
        match self {
            Self::Exists => Tri::True,
            Self::TextEq(text) => may(text),
            Self::TextIn(texts) => texts.iter().map(|t| may(t)).max().unwrap_or(Tri::False),
            Self::Startswith(text) if beginning.starts_with(text) => Tri::True,
            Self::Startswith(text) => may(text),
            Self::Contains(finder) if finder.find(beginning).is_some() => Tri::True,
            Self::Not(test) => test.holds_for_some(beginning).negated(),
            Self::Any(tests) => {
                let all = tests.iter().map(|t| t.holds_for_some(beginning));
                all.max().unwrap_or(Tri::False)
            }
            Self::All(tests) => {
                let all = tests.iter().map(|t| t.holds_for_some(beginning));
                all.min().unwrap_or(Tri::True)
            }
            _ => Tri::Unknown,
        }
    }

    fn holds_number(&self, number: i128) -> bool {
        match self {
            Self::Number(op, wanted) => order_holds(*op, Some(number.cmp(wanted))),
            Self::NumberIn(wanted) => wanted.contains(&number),
            Self::Fraction(op, wanted) => order_holds(*op, (number as f64).partial_cmp(wanted)),
            Self::Bool(wanted) => i128::from(*wanted) == number,
            Self::Dynamic(op, wanted) => wanted
                .iter()
                .any(|(n, _)| n.is_some_and(|n| order_holds(*op, Some(number.cmp(&n))))),
            _ => false,
        }
    }

    fn holds_text(&self, text: &[u8]) -> bool {
        match self {
            Self::TextEq(wanted) => **wanted == *text,
            Self::TextOrder(op, wanted) => order_holds(*op, Some(text.cmp(&**wanted))),
            Self::TextIn(wanted) => wanted.contains(text),
            Self::Contains(finder) => finder.find(text).is_some(),
            Self::Icontains(finder) => finder.is_match(text),
            Self::Startswith(prefix) => text.starts_with(prefix),
            Self::Endswith(suffix) => text.ends_with(suffix),
            Self::Glob(glob) => glob.matches(text),
            Self::Pmatch(tree) => tree.matches(text),
            Self::Regex(regex) => regex.is_match(text),
            Self::Patterns(patterns) => patterns.matches(text),
            Self::Dynamic(op, wanted) => wanted
                .iter()
                .any(|(_, w)| order_holds(*op, Some(text.cmp(&**w)))),
            _ => false,
        }
    }

    /// What a test costs, in comparisons of a number.
    pub(crate) fn cost(&self) -> u32 {
        match self {
            Self::Exists | Self::Bool(_) | Self::Number(..) | Self::Fraction(..) => 1,
            Self::Ip(_) | Self::TextEq(_) | Self::Startswith(_) | Self::Endswith(_) => 2,
            Self::TextOrder(..) | Self::Dynamic(..) => 3,
            Self::NumberIn(_) | Self::IpIn(_) | Self::TextIn(_) => 4,
            Self::Contains(_) => 8,
            Self::Net(_) | Self::Patterns(_) => 10,
            Self::Glob(_) | Self::Pmatch(_) | Self::Icontains(_) => 16,
            Self::Regex(_) => 40,
            Self::Not(test) => test.cost(),
            Self::Any(tests) | Self::All(tests) | Self::One(tests) => {
                tests.iter().map(Self::cost).fold(0, u32::saturating_add)
            }
        }
    }
}

/// Whether an operator takes fields of a type; the error is Falco's rule in words.
pub(crate) fn check_operator(
    op: Op,
    quantifier: Option<Quantifier>,
    ty: FieldType,
    is_list: bool,
) -> Result<(), String> {
    let refuse = |what: &str| Err(format!("'{op}' does not compare {what}"));
    if op == Op::Exists {
        return Ok(());
    }
    if is_list {
        return match op {
            Op::In | Op::Intersects => Ok(()),
            _ => refuse("lists; lists take in, intersects and exists"),
        };
    }
    let equality = matches!(op, Op::Eq | Op::Ne | Op::In | Op::Intersects);
    let order = matches!(op, Op::Lt | Op::Le | Op::Gt | Op::Ge);
    let binary = matches!(op, Op::Bcontains | Op::Bstartswith);
    match ty {
        FieldType::Dyn if equality || order => Ok(()),
        FieldType::Dyn => refuse("a field of unknown type"),
        FieldType::Text if binary => refuse("text; use contains or startswith"),
        FieldType::Text => Ok(()),
        FieldType::Bytes
            if equality || binary || matches!(op, Op::Contains | Op::Startswith | Op::Endswith) =>
        {
            Ok(())
        }
        FieldType::Bytes => refuse("bytes"),
        FieldType::Bool if equality => Ok(()),
        FieldType::Bool => refuse("true and false"),
        FieldType::Ip | FieldType::Net if equality && quantifier.is_none() => Ok(()),
        FieldType::Ip | FieldType::Net if equality => Ok(()),
        FieldType::Ip | FieldType::Net => refuse("addresses and networks"),
        _ if equality || order => Ok(()),
        _ => refuse("numbers"),
    }
}

pub(crate) fn order_holds(op: Op, order: Option<Ordering>) -> bool {
    match (op, order) {
        (Op::Eq | Op::In | Op::Intersects, Some(order)) => order.is_eq(),
        (Op::Ne, order) => order != Some(Ordering::Equal),
        (Op::Lt, Some(order)) => order.is_lt(),
        (Op::Le, Some(order)) => order.is_le(),
        (Op::Gt, Some(order)) => order.is_gt(),
        (Op::Ge, Some(order)) => order.is_ge(),
        _ => false,
    }
}

fn show(value: &[u8]) -> String {
    String::from_utf8_lossy(value).chars().take(80).collect()
}

fn parse_bool(value: &[u8]) -> Result<bool, String> {
    match value {
        b"true" => Ok(true),
        b"false" => Ok(false),
        _ => Err(format!("expected true or false, found '{}'", show(value))),
    }
}

fn parse_integer(value: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(value).ok()?;
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let number = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(hex) => i128::from(u64::from_str_radix(hex, 16).ok()?),
        None if digits.bytes().all(|b| b.is_ascii_digit()) => {
            i128::from(digits.parse::<u64>().ok()?)
        }
        None => return None,
    };
    Some(sign * number)
}

fn parse_number(ty: FieldType, value: &[u8]) -> Result<i128, String> {
    let number = match (ty, parse_integer(value)) {
        (FieldType::Port, None) => service_port(value),
        (_, number) => number,
    };
    match (ty, number) {
        (_, None) => Err(format!("expected a whole number, found '{}'", show(value))),
        (FieldType::Port, Some(n)) if !(0..=65535).contains(&n) => Err(format!(
            "expected a port from 0 to 65535, found '{}'",
            show(value)
        )),
        (FieldType::Int, Some(n)) if i64::try_from(n).is_err() => {
            Err(format!("the number '{}' is too large", show(value)))
        }
        // An id of -1 is how 32 bits say "none".
        (FieldType::UInt, Some(n)) if n < 0 => Ok(i128::from(n as u32)),
        (_, Some(n)) => Ok(n),
    }
}

fn parse_fraction(value: &[u8]) -> Result<f64, String> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|t| t.parse().ok())
        .ok_or_else(|| format!("expected a number, found '{}'", show(value)))
}

fn parse_ip(value: &[u8]) -> Result<IpAddr, String> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|t| t.parse().ok())
        .ok_or_else(|| format!("expected an IP address, found '{}'", show(value)))
}

fn dynamic(value: &[u8]) -> (Option<i128>, Box<[u8]>) {
    (parse_integer(value), value.into())
}

fn service_port(value: &[u8]) -> Option<i128> {
    Some(match value {
        b"ftp" => 21,
        b"ssh" => 22,
        b"telnet" => 23,
        b"smtp" => 25,
        b"domain" => 53,
        b"http" => 80,
        b"pop3" => 110,
        b"ntp" => 123,
        b"imap2" | b"imap" => 143,
        b"snmp" => 161,
        b"ldap" => 389,
        b"https" => 443,
        b"ldaps" => 636,
        b"imaps" => 993,
        b"pop3s" => 995,
        b"mysql" => 3306,
        b"postgresql" => 5432,
        _ => return None,
    })
}

fn unhex(value: &[u8]) -> Result<Vec<u8>, String> {
    let error = || {
        format!(
            "expected an even number of hex digits, found '{}'",
            show(value)
        )
    };
    if value.is_empty()
        || !value.len().is_multiple_of(2)
        || !value.iter().all(u8::is_ascii_hexdigit)
    {
        return Err(error());
    }
    value
        .chunks(2)
        .map(|pair| {
            let text = std::str::from_utf8(pair).map_err(|_| error())?;
            u8::from_str_radix(text, 16).map_err(|_| error())
        })
        .collect()
}

/// A regular expression that has to match the whole value, in linear time.
fn compile_regex(pattern: &[u8]) -> Result<Regex, String> {
    let text = std::str::from_utf8(pattern).map_err(|_| "the pattern is not UTF-8".to_owned())?;
    if text.len() > MAX_PATTERN_BYTES {
        return Err(format!(
            "the pattern is longer than {MAX_PATTERN_BYTES} bytes"
        ));
    }
    // The pattern is compiled alone first: brackets that do not match must not pair with ours.
    let build = |text: &str, unicode| {
        RegexBuilder::new(text)
            .unicode(unicode)
            .size_limit(MAX_REGEX_BYTES)
            .dfa_size_limit(MAX_REGEX_BYTES)
            .nest_limit(100)
            .build()
    };
    // RE2, which Falco uses, takes a brace that repeats nothing for itself
    let braces = literal_braces(text);
    let text = match (build(text, false).is_ok(), &braces) {
        (false, Some(braces)) => braces.as_str(),
        _ => text,
    };
    let anchored = format!(r"\A(?:{text})\z");
    let compiled = match build(text, false).and_then(|_| build(&anchored, false)) {
        Ok(regex) => Ok(regex),
        Err(_) => build(text, true).and_then(|_| build(&anchored, true)),
    };
    compiled.map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => {
            format!("the pattern needs more than {MAX_REGEX_BYTES} bytes compiled")
        }
        other => {
            let text = other.to_string();
            let last = text
                .lines()
                .last()
                .unwrap_or("")
                .trim_start_matches("error: ");
            format!("not a regular expression: {last}")
        }
    })
}

/// The pattern with a backslash before each opening brace that begins no repetition; `None`: there is
/// no such brace.
fn literal_braces(pattern: &str) -> Option<String> {
    let mut out = String::with_capacity(pattern.len() + 4);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        // an escape, with the braces that belong to it
        let len = match c {
            '\\' => {
                let name = rest.chars().nth(1).map_or(0, char::len_utf8);
                let braced = rest[1..].starts_with(['p', 'P', 'x']) && rest[2..].starts_with('{');
                let end = rest.find('}').filter(|_| braced);
                end.map_or(1 + name, |end| end + 1)
            }
            _ => c.len_utf8(),
        };
        match c {
            '[' => in_class = true,
            ']' => in_class = false,
            '{' if !in_class && !is_repetition(rest) => out.push('\\'),
            _ => {}
        }
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    (out.len() != pattern.len()).then_some(out)
}

/// `{2}`, `{2,}`, `{2,4}`.
fn is_repetition(text: &str) -> bool {
    let inner = text.strip_prefix('{').and_then(|t| t.split_once('}'));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    inner.is_some_and(|(inner, _)| {
        let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
        !least.is_empty() && digits(least) && digits(most)
    })
}

/// Whether a whole text fits a shell pattern, as the operator `glob` asks. A pattern past the bound
/// fits nothing.
pub fn glob_fits(pattern: &[u8], text: &[u8]) -> bool {
    Glob::new(pattern, false).is_ok_and(|glob| glob.matches(text))
}

/// A shell pattern as `fnmatch` without flags reads it: `*` also spans `/`.
#[derive(Debug)]
pub(crate) struct Glob {
    tokens: Vec<GlobToken>,
    fold_case: bool,
}

#[derive(Debug)]
enum GlobToken {
    Byte(u8),
    AnyOne,
    Star,
    Class {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

impl Glob {
    pub(crate) fn new(pattern: &[u8], fold_case: bool) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(format!(
                "the pattern is longer than {MAX_PATTERN_BYTES} bytes"
            ));
        }
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(byte) = pattern.get(at).copied() {
            at += 1;
            match byte {
                b'*' if matches!(tokens.last(), Some(GlobToken::Star)) => {}
                b'*' => tokens.push(GlobToken::Star),
                b'?' => tokens.push(GlobToken::AnyOne),
                b'\\' if at < pattern.len() => {
                    tokens.push(GlobToken::Byte(pattern[at]));
                    at += 1;
                }
                b'[' => match parse_class(&pattern[at..]) {
                    Some((class, len)) => {
                        tokens.push(class);
                        at += len;
                    }
                    None => tokens.push(GlobToken::Byte(b'[')),
                },
                other => tokens.push(GlobToken::Byte(other)),
            }
        }
        Ok(Self { tokens, fold_case })
    }

    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        let (mut t, mut p) = (0, 0);
        let mut retry = None;
        while t < text.len() {
            match self.tokens.get(p) {
                Some(GlobToken::Star) => {
                    retry = Some((p + 1, t));
                    p += 1;
                    continue;
                }
                Some(token) if self.matches_one(token, text[t]) => {
                    p += 1;
                    t += 1;
                    continue;
                }
                _ => {}
            }
            let Some((star, from)) = retry else {
                return false;
            };
            retry = Some((star, from + 1));
            p = star;
            t = from + 1;
        }
        self.tokens[p..]
            .iter()
            .all(|t| matches!(t, GlobToken::Star))
    }

    fn matches_one(&self, token: &GlobToken, byte: u8) -> bool {
        match token {
            GlobToken::Byte(wanted) if self.fold_case => wanted.eq_ignore_ascii_case(&byte),
            GlobToken::Byte(wanted) => *wanted == byte,
            GlobToken::AnyOne => true,
            GlobToken::Star => false,
            GlobToken::Class { negated, ranges } => {
                let within = |b: u8| ranges.iter().any(|(from, to)| (*from..=*to).contains(&b));
                let found = within(byte)
                    || self.fold_case
                        && (within(byte.to_ascii_lowercase()) || within(byte.to_ascii_uppercase()));
                found != *negated
            }
        }
    }
}

/// Reads a bracket expression behind its `[`; without an end it is none.
fn parse_class(pattern: &[u8]) -> Option<(GlobToken, usize)> {
    let negated = matches!(pattern.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    let mut at = start;
    let mut ranges = Vec::new();
    loop {
        let mut from = *pattern.get(at)?;
        if from == b']' && at > start {
            return Some((GlobToken::Class { negated, ranges }, at + 1));
        }
        if from == b'\\' {
            at += 1;
            from = *pattern.get(at)?;
        }
        at += 1;
        let mut to = from;
        if pattern.get(at) == Some(&b'-') && pattern.get(at + 1).is_some_and(|b| *b != b']') {
            to = pattern[at + 1];
            at += 2;
            if to == b'\\' {
                to = *pattern.get(at)?;
                at += 1;
            }
        }
        ranges.push((from, to));
    }
}

/// Paths, of which one has to be a prefix of the value, component by component (`pmatch`).
#[derive(Debug, Default)]
pub(crate) struct PathTree {
    is_end: bool,
    children: FxHashMap<Box<[u8]>, PathTree>,
    globs: Vec<(Glob, PathTree)>,
}

impl PathTree {
    fn new(paths: &[Vec<u8>]) -> Result<Self, String> {
        let mut tree = Self::default();
        for path in paths {
            let components: Vec<&[u8]> = components(path).collect();
            if components.len() > 128 {
                return Err(format!("the path '{}' has more than 128 parts", show(path)));
            }
            tree.add(&components)?;
        }
        Ok(tree)
    }

    fn add(&mut self, components: &[&[u8]]) -> Result<(), String> {
        let Some((first, rest)) = components.split_first() else {
            self.is_end = true;
            return Ok(());
        };
        if first.iter().any(|b| matches!(b, b'?' | b'*' | b'[')) {
            let mut child = Self::default();
            child.add(rest)?;
            self.globs.push((Glob::new(first, false)?, child));
            return Ok(());
        }
        self.children.entry((*first).into()).or_default().add(rest)
    }

    fn matches(&self, path: &[u8]) -> bool {
        self.matches_rest(components(path))
    }

    fn matches_rest<'p>(&self, mut rest: impl Iterator<Item = &'p [u8]> + Clone) -> bool {
        if self.is_end {
            return true;
        }
        let Some(first) = rest.next() else {
            return false;
        };
        self.children
            .get(first)
            .is_some_and(|c| c.matches_rest(rest.clone()))
            || self
                .globs
                .iter()
                .any(|(g, c)| g.matches(first) && c.matches_rest(rest.clone()))
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    path.split(|b| *b == b'/').filter(|c| !c.is_empty())
}

/// Networks, by the length of their prefix.
#[derive(Debug)]
pub(crate) struct Nets {
    nets: FxHashSet<IpNet>,
    lengths: Vec<(bool, u8)>,
}

impl Nets {
    fn new(values: &[Vec<u8>]) -> Result<Self, String> {
        let mut nets = FxHashSet::default();
        for value in values {
            let net: IpNet = std::str::from_utf8(value)
                .ok()
                .and_then(|t| t.parse().ok())
                .ok_or_else(|| {
                    format!(
                        "expected a network such as 10.0.0.0/8, found '{}'",
                        show(value)
                    )
                })?;
            nets.insert(net.trunc());
        }
        let mut lengths: Vec<(bool, u8)> = nets
            .iter()
            .map(|n| (n.addr().is_ipv4(), n.prefix_len()))
            .collect();
        lengths.sort_unstable();
        lengths.dedup();
        Ok(Self { nets, lengths })
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.lengths
            .iter()
            .filter(|(v4, _)| *v4 == ip.is_ipv4())
            .any(|(_, len)| IpNet::new(ip, *len).is_ok_and(|net| self.nets.contains(&net.trunc())))
    }
}

/// Many texts to be equal to, to begin or end with, or to contain, each with numbers to report.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    exact: FxHashMap<Box<[u8]>, Vec<u32>>,
    prefixes: Trie,
    suffixes: Trie,
    /// Where they are few: one search each is faster than one for all.
    few: Vec<(Finder<'static>, Vec<u32>)>,
    many: Option<(Box<AhoCorasick>, Vec<Vec<u32>>)>,
}

/// Substrings that are searched one by one.
const MAX_FEW: usize = 4;

impl Patterns {
    /// Whether any of them matches.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        (!self.exact.is_empty() && self.exact.contains_key(text))
            || self.prefixes.matches(text.iter())
            || self.suffixes.matches(text.iter().rev())
            || self
                .few
                .iter()
                .any(|(finder, _)| finder.find(text).is_some())
            || self.many.as_ref().is_some_and(|(ac, _)| ac.is_match(text))
    }

    /// Reports the numbers of all that match; a number may be reported twice.
    pub(crate) fn each(&self, text: &[u8], mut report: impl FnMut(u32)) {
        if !self.exact.is_empty()
            && let Some(numbers) = self.exact.get(text)
        {
            numbers.iter().for_each(|n| report(*n));
        }
        self.prefixes.each(text.iter(), &mut report);
        self.suffixes.each(text.iter().rev(), &mut report);
        for (finder, numbers) in &self.few {
            if finder.find(text).is_some() {
                numbers.iter().for_each(|n| report(*n));
            }
        }
        if let Some((ac, numbers)) = &self.many {
            let mut state = aho_corasick::automaton::OverlappingState::start();
            loop {
                ac.find_overlapping(text, &mut state);
                let Some(found) = state.get_match() else {
                    break;
                };
                numbers[found.pattern().as_usize()]
                    .iter()
                    .for_each(|n| report(*n));
            }
        }
    }
}

/// Collects patterns.
#[derive(Debug, Default)]
pub(crate) struct PatternsBuilder {
    patterns: Patterns,
    contains: FxHashMap<Vec<u8>, Vec<u32>>,
}

impl PatternsBuilder {
    /// Adds one pattern: equality for any operator that is not a prefix, suffix or substring.
    pub(crate) fn add(&mut self, op: Op, text: &[u8], number: u32) {
        match op {
            Op::Startswith => self.patterns.prefixes.add(text.iter(), number),
            Op::Endswith => self.patterns.suffixes.add(text.iter().rev(), number),
            Op::Contains => self.contains.entry(text.to_vec()).or_default().push(number),
            _ => self
                .patterns
                .exact
                .entry(text.into())
                .or_default()
                .push(number),
        }
    }

    pub(crate) fn build(mut self) -> Result<Patterns, String> {
        if !self.contains.is_empty() {
            let mut entries: Vec<_> = self.contains.into_iter().collect();
            entries.sort_unstable();
            if entries.len() <= MAX_FEW {
                self.patterns.few = entries
                    .into_iter()
                    .map(|(text, numbers)| (Finder::new(&text).into_owned(), numbers))
                    .collect();
                return Ok(self.patterns);
            }
            let (texts, numbers): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
            let small = texts.iter().map(Vec::len).sum::<usize>() <= 8192;
            let kind = if small {
                AhoCorasickKind::DFA
            } else {
                AhoCorasickKind::ContiguousNFA
            };
            let ac = AhoCorasick::builder()
                .match_kind(MatchKind::Standard)
                .kind(Some(kind))
                .build(&texts)
                .map_err(|e| e.to_string())?;
            self.patterns.many = Some((Box::new(ac), numbers));
        }
        Ok(self.patterns)
    }
}

/// Texts by their bytes, from one end.
#[derive(Debug, Default)]
struct Trie {
    nodes: Vec<TrieNode>,
}

#[derive(Debug, Default)]
struct TrieNode {
    /// Sorted.
    bytes: Vec<u8>,
    next: Vec<u32>,
    numbers: Vec<u32>,
}

impl Trie {
    fn add<'b>(&mut self, text: impl Iterator<Item = &'b u8>, number: u32) {
        if self.nodes.is_empty() {
            self.nodes.push(TrieNode::default());
        }
        let mut at = 0;
        for byte in text {
            at = match self.nodes[at].bytes.binary_search(byte) {
                Ok(i) => self.nodes[at].next[i] as usize,
                Err(i) => {
                    let new = self.nodes.len();
                    self.nodes.push(TrieNode::default());
                    self.nodes[at].bytes.insert(i, *byte);
                    self.nodes[at].next.insert(i, new as u32);
                    new
                }
            };
        }
        self.nodes[at].numbers.push(number);
    }

    fn step(&self, at: usize, byte: u8) -> Option<usize> {
        let node = &self.nodes[at];
        let found = if node.bytes.len() <= 8 {
            node.bytes.iter().position(|b| *b == byte)?
        } else {
            node.bytes.binary_search(&byte).ok()?
        };
        Some(node.next[found] as usize)
    }

    fn matches<'b>(&self, text: impl Iterator<Item = &'b u8>) -> bool {
        let mut found = false;
        self.walk(text, |numbers| {
            found = !numbers.is_empty();
            found
        });
        found
    }

    fn each<'b>(&self, text: impl Iterator<Item = &'b u8>, report: &mut impl FnMut(u32)) {
        self.walk(text, |numbers| {
            numbers.iter().for_each(|n| report(*n));
            false
        });
    }

    /// Visits the nodes along the text until it is told to stop.
    fn walk<'b>(
        &self,
        text: impl Iterator<Item = &'b u8>,
        mut stop_at: impl FnMut(&[u32]) -> bool,
    ) {
        let Some(root) = self.nodes.first() else {
            return;
        };
        if stop_at(&root.numbers) {
            return;
        }
        let mut at = 0;
        for byte in text {
            match self.step(at, *byte) {
                Some(next) => at = next,
                None => return,
            }
            if stop_at(&self.nodes[at].numbers) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(ty: FieldType, op: Op, values: &[&str]) -> Test {
        let values: Vec<Vec<u8>> = values.iter().map(|v| v.as_bytes().to_vec()).collect();
        Test::new(ty, op, None, &values).unwrap()
    }

    fn text(op: Op, pattern: &str, value: &str) -> bool {
        test(FieldType::Text, op, &[pattern]).holds(Value::Text(value.as_bytes()))
    }

    #[test]
    fn text_operators_compare_as_falco() {
        assert!(text(Op::Eq, "bash", "bash") && !text(Op::Eq, "bash", "Bash"));
        assert!(text(Op::Ne, "bash", "sh"));
        assert!(text(Op::Contains, "as", "bash") && text(Op::Contains, "", "x"));
        assert!(text(Op::Icontains, "AS", "bash") && !text(Op::Icontains, "z", "bash"));
        assert!(text(Op::Startswith, "ba", "bash") && !text(Op::Startswith, "sh", "bash"));
        assert!(text(Op::Endswith, "sh", "bash") && !text(Op::Endswith, "bashbash", "bash"));
        assert!(text(Op::Lt, "b", "a") && text(Op::Ge, "a", "a"));
    }

    #[test]
    fn a_regex_has_to_match_the_whole_value() {
        assert!(text(Op::Regex, "ba.*", "bash") && !text(Op::Regex, "as", "bash"));
        assert!(text(Op::Regex, "a|b", "b") && !text(Op::Regex, "a|b", "ab"));
        assert!(text(Op::Regex, "[[:alpha:]]+", "bash"));
    }

    #[test]
    fn patterns_that_would_grow_without_bound_are_refused() {
        let bad = |p: &str| Test::new(FieldType::Text, Op::Regex, None, &[p.as_bytes().to_vec()]);
        assert!(bad("(((a{1000}){1000}){1000}").is_err());
        assert!(bad("a)(b").is_err());
        assert!(bad(&"(".repeat(10_000)).is_err());
        assert!(bad(&"a".repeat(10_000)).is_err());
    }

    #[test]
    fn globs_span_slashes_and_know_classes() {
        assert!(text(Op::Glob, "/etc/*", "/etc/a/b") && !text(Op::Glob, "/etc/?", "/etc/ab"));
        assert!(text(Op::Glob, "[a-c]x", "bx") && !text(Op::Glob, "[!a-c]x", "bx"));
        assert!(text(Op::Glob, "a\\*", "a*") && !text(Op::Glob, "a\\*", "ab"));
        assert!(text(Op::Iglob, "/ETC/*", "/etc/x") && text(Op::Glob, "a[", "a["));
        let stars = format!("{}b", "*a".repeat(50));
        assert!(!text(Op::Glob, &stars, &"a".repeat(5_000)));
    }

    #[test]
    fn pmatch_compares_whole_components() {
        let tree = test(
            FieldType::Text,
            Op::Pmatch,
            &["/var/run", "/etc", "/home/*/.ssh"],
        );
        let holds = |p: &str| tree.holds(Value::Text(p.as_bytes()));
        assert!(holds("/var/run/docker") && holds("/etc") && holds("/home/a/.ssh/id"));
        assert!(!holds("/var") && !holds("/etcetera") && !holds("/home/a/b/.ssh"));
        assert!(test(FieldType::Text, Op::Pmatch, &["/"]).holds(Value::Text(b"/x")));
    }

    #[test]
    fn addresses_and_networks() {
        let ip = |t: &str| Value::Ip(t.parse().unwrap());
        assert!(test(FieldType::Ip, Op::Eq, &["10.0.0.1"]).holds(ip("10.0.0.1")));
        assert!(test(FieldType::Ip, Op::Ne, &["10.0.0.1"]).holds(ip("::1")));
        let nets = test(FieldType::Net, Op::In, &["10.0.0.0/8", "fc00::/7"]);
        assert!(nets.holds(ip("10.9.9.9")) && nets.holds(ip("fd00::1")));
        assert!(!nets.holds(ip("11.0.0.1")));
        for bad in ["10.0.0.0/33", "10.0.0.0", "x/8"] {
            assert!(
                Test::new(FieldType::Net, Op::Eq, None, &[bad.into()]).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn numbers_compare_as_numbers() {
        assert!(test(FieldType::Int, Op::Ge, &["0"]).holds(Value::Int(3)));
        assert!(test(FieldType::Int, Op::Eq, &["-1"]).holds(Value::Int(-1)));
        assert!(test(FieldType::UInt, Op::Eq, &["0x10"]).holds(Value::UInt(16)));
        assert!(test(FieldType::UInt, Op::Eq, &["-1"]).holds(Value::UInt(u32::MAX.into())));
        assert!(test(FieldType::Port, Op::Eq, &["https"]).holds(Value::UInt(443)));
        assert!(Test::new(FieldType::Int, Op::Eq, None, &[b"x".to_vec()]).is_err());
        assert!(Test::new(FieldType::Port, Op::Eq, None, &[b"70000".to_vec()]).is_err());
    }

    #[test]
    fn binary_operators_take_hex() {
        let test = test(FieldType::Bytes, Op::Bcontains, &["CAFE"]);
        assert!(test.holds(Value::Text(&[0, 0xca, 0xfe])));
        assert!(Test::new(FieldType::Bytes, Op::Bcontains, None, &[b"xyz".to_vec()]).is_err());
    }

    #[test]
    fn patterns_report_each_that_matches() {
        let mut builder = PatternsBuilder::default();
        for (i, (op, t)) in [
            (Op::Eq, "/bin/sh"),
            (Op::Startswith, "/bin"),
            (Op::Endswith, "sh"),
            (Op::Contains, "in/"),
            (Op::Contains, "/x"),
        ]
        .into_iter()
        .enumerate()
        {
            builder.add(op, t.as_bytes(), i as u32);
        }
        let patterns = builder.build().unwrap();
        let mut found = Vec::new();
        patterns.each(b"/bin/sh", |n| found.push(n));
        found.sort_unstable();
        assert_eq!(found, [0, 1, 2, 3]);
        assert!(patterns.matches(b"/bin/x") && !patterns.matches(b"none"));
    }

    #[test]
    fn quantifiers_count_what_holds() {
        let values = [b"a".to_vec(), b"b".to_vec()];
        let holds = |op, q, v: &str| {
            Test::new(FieldType::Text, op, Some(q), &values)
                .unwrap()
                .holds(Value::Text(v.as_bytes()))
        };
        assert!(holds(Op::Contains, Quantifier::All, "ab"));
        assert!(!holds(Op::Contains, Quantifier::One, "ab"));
        assert!(holds(Op::Contains, Quantifier::One, "ac"));
        assert!(holds(Op::Startswith, Quantifier::Any, "bx"));
        assert!(holds(Op::Ne, Quantifier::All, "c"));
        assert!(!holds(Op::Ne, Quantifier::All, "a"));
    }
}
