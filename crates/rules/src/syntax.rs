//! The text of a condition, read into a tree.
//!
//! Promises: Falco's grammar and precedence (`or` binds loosest, then `and`, then `not`; brackets
//! group), with the place of each part. Nesting is bounded, so that no text overflows the stack.
//!
//! Leaves out: what names mean. Fields, macros, lists and types are the compiler's business.

use std::fmt;

/// Groups, `not`s and transformers lie in each other at most this deep.
pub(crate) const MAX_NESTING: usize = 150;
/// A condition, with everything appended to it, is at most this long.
pub(crate) const MAX_CONDITION_BYTES: usize = 1 << 20;

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    Macro { name: String, at: usize },
    Check(Box<Check>),
}

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Check {
    pub(crate) left: Operand,
    pub(crate) op: Op,
    pub(crate) quantifier: Option<Quantifier>,
    pub(crate) right: Right,
    pub(crate) at: usize,
    pub(crate) right_at: usize,
}

/// What is compared: a field, or what a transformer makes of fields.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    Field {
        name: String,
        arg: Option<String>,
        at: usize,
    },
    Transform {
        name: String,
        args: Vec<Operand>,
        arg: Option<String>,
        at: usize,
    },
    Text {
        text: Vec<u8>,
    },
    List {
        items: Vec<Operand>,
    },
}

/// What it is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Right {
    Nothing,
    Literal(Literal),
    List(Vec<Literal>),
    /// A bare name where a list belongs.
    ListName(Literal),
    Operand(Operand),
}

/// A constant as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Literal {
    pub(crate) text: Vec<u8>,
    pub(crate) quoted: bool,
}

impl Literal {
    fn bare(text: &str) -> Self {
        Self {
            text: text.as_bytes().to_vec(),
            quoted: false,
        }
    }

    /// The text, if it can be the name of a list.
    pub(crate) fn as_name(&self) -> Option<&str> {
        if self.quoted {
            None
        } else {
            std::str::from_utf8(&self.text).ok()
        }
    }
}

/// How two sides are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    Intersects,
    Pmatch,
    Glob,
    Iglob,
    Contains,
    Icontains,
    Bcontains,
    Startswith,
    Bstartswith,
    Endswith,
    Regex,
    Exists,
}

impl Op {
    /// The operator, as Falco writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::In => "in",
            Self::Intersects => "intersects",
            Self::Pmatch => "pmatch",
            Self::Glob => "glob",
            Self::Iglob => "iglob",
            Self::Contains => "contains",
            Self::Icontains => "icontains",
            Self::Bcontains => "bcontains",
            Self::Startswith => "startswith",
            Self::Bstartswith => "bstartswith",
            Self::Endswith => "endswith",
            Self::Regex => "regex",
            Self::Exists => "exists",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "=" | "==" => Self::Eq,
            "!=" => Self::Ne,
            "<" => Self::Lt,
            "<=" => Self::Le,
            ">" => Self::Gt,
            ">=" => Self::Ge,
            "in" => Self::In,
            "intersects" => Self::Intersects,
            "pmatch" => Self::Pmatch,
            "exists" => Self::Exists,
            _ => return WORD_OPS.iter().find(|(w, _)| *w == word).map(|(_, op)| *op),
        })
    }

    /// Reads an operator that stands alone, as in the `comps` of an exception.
    pub(crate) fn parse(text: &str) -> Option<(Self, Option<Quantifier>)> {
        let mut words = text.split_whitespace();
        let op = Self::from_word(words.next()?)?;
        let quantifier = match words.next() {
            None => None,
            Some(word) => Some(Quantifier::from_word(word).filter(|_| op.takes_quantifier())?),
        };
        words.next().is_none().then_some((op, quantifier))
    }

    /// Whether its right side is a list.
    pub(crate) fn takes_list(self) -> bool {
        matches!(self, Self::In | Self::Intersects | Self::Pmatch)
    }

    fn takes_quantifier(self) -> bool {
        matches!(self, Self::Eq | Self::Ne) || WORD_OPS.iter().any(|(_, op)| *op == self)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `anyof`, `allof`, `oneof`: how many of the right side's values have to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Quantifier {
    Any,
    All,
    One,
}

impl Quantifier {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Any => "anyof",
            Self::All => "allof",
            Self::One => "oneof",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        match word {
            "anyof" => Some(Self::Any),
            "allof" => Some(Self::All),
            "oneof" => Some(Self::One),
            _ => None,
        }
    }
}

/// Operators that are words and need a blank behind them.
const WORD_OPS: &[(&str, Op)] = &[
    ("glob", Op::Glob),
    ("iglob", Op::Iglob),
    ("contains", Op::Contains),
    ("icontains", Op::Icontains),
    ("bcontains", Op::Bcontains),
    ("startswith", Op::Startswith),
    ("bstartswith", Op::Bstartswith),
    ("endswith", Op::Endswith),
    ("regex", Op::Regex),
];

/// Transformers that make a value of values. `val` is another: it only names a field.
pub(crate) const TRANSFORMERS: &[&str] = &[
    "tolower", "toupper", "b64", "basename", "len", "join", "concat", "getopt",
];

/// Why a text is not a condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SyntaxError {
    /// Byte offset in the text.
    pub(crate) at: usize,
    pub(crate) message: String,
}

type Parsed<T> = Result<T, SyntaxError>;

/// Reads a whole condition.
pub(crate) fn parse_condition(text: &str) -> Parsed<Expr> {
    if text.len() > MAX_CONDITION_BYTES {
        return Err(SyntaxError {
            at: 0,
            message: format!("the condition is longer than {MAX_CONDITION_BYTES} bytes"),
        });
    }
    let mut parser = Parser::new(text);
    parser.blanks();
    if parser.at == text.len() {
        return Err(parser.error("the condition is empty"));
    }
    let expr = parser.or()?;
    if parser.at != text.len() {
        let word = parser.next_word();
        let lower = word.to_ascii_lowercase();
        let message = match word != lower && ["and", "or", "not"].contains(&&*lower) {
            true => format!("'{word}' is written '{lower}'"),
            false => format!("unexpected '{word}', expected 'and' or 'or'"),
        };
        return Err(parser.error(message));
    }
    Ok(expr)
}

/// Reads a field or a transformer at the start of a text, and says how long it is.
pub(crate) fn parse_operand_prefix(text: &str) -> Parsed<(Operand, usize)> {
    let mut parser = Parser::new(text);
    if let Some(operand) = parser.field_or_transformer()? {
        return Ok((operand, parser.at));
    }
    Err(parser.error("expected a field or a transformer"))
}

/// Reads the items of a list from a text: Falco pastes the items of a list into the condition, so
/// an item may hold quotes or commas. A text that is no such thing is one item as it is.
pub(crate) fn parse_list_item(text: &str) -> Vec<Literal> {
    let verbatim = || {
        vec![Literal {
            text: text.as_bytes().to_vec(),
            quoted: true,
        }]
    };
    let starts_quoted = text.starts_with(['"', '\'']);
    if text.contains(' ') && !starts_quoted {
        return verbatim();
    }
    if !starts_quoted && !text.contains(['(', ')', '"', '\'', '=', ',', '\t', '\n', '\r']) {
        return vec![Literal {
            quoted: text.is_empty(),
            ..Literal::bare(text)
        }];
    }
    let mut parser = Parser::new(text);
    let mut items = Vec::new();
    loop {
        parser.blanks();
        match parser.string() {
            Ok(Some(item)) => items.push(item),
            _ => return verbatim(),
        }
        parser.blanks();
        if parser.at == text.len() {
            return items;
        }
        if !parser.eat(",") {
            return verbatim();
        }
    }
}

/// Whether a name can be used as a macro.
pub(crate) fn is_identifier(name: &str) -> bool {
    !name.is_empty() && identifier_len(name) == name.len()
}

/// Whether a name can be used as a list.
pub(crate) fn is_bare_string(name: &str) -> bool {
    !name.is_empty() && bare_len(name) == name.len()
}

fn identifier_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(u8::is_ascii_alphabetic) {
        return 0;
    }
    bytes
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
        .count()
}

fn field_name_len(text: &str) -> usize {
    let mut end = identifier_len(text);
    let mut dots = 0;
    while end > 0 && text[end..].starts_with('.') {
        let part = identifier_len(&text[end + 1..]);
        if part == 0 {
            break;
        }
        end += 1 + part;
        dots += 1;
    }
    if dots > 0 { end } else { 0 }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\x08' | b'\r' | b'\n')
}

fn bare_len(text: &str) -> usize {
    text.bytes()
        .take_while(|b| {
            !b.is_ascii_whitespace()
                && !matches!(b, b'(' | b')' | b'"' | b'\'' | b'=' | b',' | b'\x0b')
        })
        .count()
}

fn number_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| {
        bytes[from..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count()
    };
    if text.starts_with("0x") || text.starts_with("0X") {
        let hex = bytes[2..]
            .iter()
            .take_while(|b| b.is_ascii_hexdigit())
            .count();
        if hex > 0 {
            return 2 + hex;
        }
    }
    let sign = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let whole = digits(sign);
    if whole == 0 {
        return 0;
    }
    let mut end = sign + whole;
    if bytes.get(end) == Some(&b'.') {
        end += 1 + digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E'))
        && matches!(bytes.get(end + 1), Some(b'+' | b'-'))
    {
        let exponent = digits(end + 2);
        if exponent > 0 {
            end += 2 + exponent;
        }
    }
    end
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
        }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError {
            at: self.at,
            message: message.into(),
        }
    }

    fn next_word(&self) -> String {
        let rest = self.rest();
        let len = bare_len(rest).max(rest.chars().next().map_or(0, char::len_utf8));
        if rest.is_empty() {
            return "the end".to_owned();
        }
        rest[..len].chars().take(40).collect()
    }

    fn blanks(&mut self) -> bool {
        let len = self.rest().bytes().take_while(|b| is_blank(*b)).count();
        self.at += len;
        len > 0
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// Eats a word that a blank has to follow, and the blank.
    fn eat_spaced(&mut self, word: &str) -> bool {
        let start = self.at;
        if self.eat(word) && self.blanks() {
            return true;
        }
        self.at = start;
        false
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= MAX_NESTING {
            return Err(self.error(format!("nested deeper than {MAX_NESTING} levels")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn or(&mut self) -> Parsed<Expr> {
        self.blanks();
        let first = self.and()?;
        self.blanks();
        let mut children = vec![first];
        while self.eat("or") {
            children.push(self.after_word("or", Self::and)?);
            self.blanks();
        }
        Ok(one_or(children, Expr::Or))
    }

    fn and(&mut self) -> Parsed<Expr> {
        self.blanks();
        let first = self.not()?;
        self.blanks();
        let mut children = vec![first];
        while self.eat("and") {
            children.push(self.after_word("and", Self::not)?);
            self.blanks();
        }
        Ok(one_or(children, Expr::And))
    }

    /// What follows `and` or `or`: a blank and an operand, or a group.
    fn after_word(&mut self, word: &str, next: fn(&mut Self) -> Parsed<Expr>) -> Parsed<Expr> {
        if self.blanks() {
            return next(self);
        }
        if self.eat("(") {
            return self.group();
        }
        Err(self.error(format!("expected a blank or '(' behind '{word}'")))
    }

    fn not(&mut self) -> Parsed<Expr> {
        self.blanks();
        let mut negated = false;
        while self.eat_spaced("not") {
            negated = !negated;
        }
        let child = if self.eat("not(") {
            negated = !negated;
            self.group()?
        } else {
            self.check()?
        };
        Ok(if negated {
            Expr::Not(Box::new(child))
        } else {
            child
        })
    }

    /// The rest of a group, behind its `(`.
    fn group(&mut self) -> Parsed<Expr> {
        let open = self.at - 1;
        self.nested(|p| {
            p.blanks();
            let inner = p.or()?;
            p.blanks();
            if p.rest().is_empty() {
                return Err(SyntaxError {
                    at: open,
                    message: "this '(' is not closed; expected ')', 'and' or 'or' before the end"
                        .to_owned(),
                });
            }
            if !p.eat(")") {
                let word = p.next_word();
                return Err(p.error(format!("expected ')', 'and' or 'or', found '{word}'")));
            }
            Ok(inner)
        })
    }

    fn check(&mut self) -> Parsed<Expr> {
        self.blanks();
        if self.eat("(") {
            return self.group();
        }
        let at = self.at;
        if let Some(left) = self.field_or_transformer()? {
            return self.comparison(left, at);
        }
        let len = identifier_len(self.rest());
        if len > 0 {
            let name = self.rest()[..len].to_owned();
            if self.rest()[len..].starts_with('(') && !matches!(&*name, "and" | "or" | "not") {
                return Err(self.error(format!(
                    "there is no transformer '{name}'; there are {}",
                    TRANSFORMERS.join(", ")
                )));
            }
            self.at += len;
            return Ok(Expr::Macro { name, at });
        }
        let word = self.next_word();
        Err(self.error(format!("expected a field, a macro or '(', found '{word}'")))
    }

    fn field_or_transformer(&mut self) -> Parsed<Option<Operand>> {
        let at = self.at;
        let len = field_name_len(self.rest());
        if len > 0 {
            let name = self.rest()[..len].to_owned();
            self.at += len;
            let arg = self.bracket()?;
            return Ok(Some(Operand::Field { name, arg, at }));
        }
        for name in TRANSFORMERS {
            if self.rest().starts_with(name) && self.rest()[name.len()..].starts_with('(') {
                self.at += name.len() + 1;
                return self.nested(|p| p.transformer(name, at)).map(Some);
            }
        }
        Ok(None)
    }

    /// The arguments of a transformer, behind its `(`.
    fn transformer(&mut self, name: &str, at: usize) -> Parsed<Operand> {
        let mut args = Vec::new();
        loop {
            self.blanks();
            args.push(self.transformer_arg(true)?);
            self.blanks();
            if !self.eat(",") {
                break;
            }
        }
        if !self.eat(")") {
            return Err(self.error(format!("expected ')' at the end of {name}()")));
        }
        let arg = self.bracket()?;
        Ok(Operand::Transform {
            name: name.to_owned(),
            args,
            arg,
            at,
        })
    }

    fn transformer_arg(&mut self, lists: bool) -> Parsed<Operand> {
        if let Some(operand) = self.field_or_transformer()? {
            return Ok(operand);
        }
        let len = number_len(self.rest());
        if len > 0 {
            let text = self.rest().as_bytes()[..len].to_vec();
            self.at += len;
            return Ok(Operand::Text { text });
        }
        if let Some(literal) = self.quoted()? {
            return Ok(Operand::Text { text: literal.text });
        }
        if lists && self.eat("(") {
            let mut items = Vec::new();
            self.blanks();
            if self.eat(")") {
                return Ok(Operand::List { items });
            }
            loop {
                self.blanks();
                items.push(self.transformer_arg(false)?);
                self.blanks();
                if !self.eat(",") {
                    break;
                }
            }
            if !self.eat(")") {
                return Err(self.error("expected ')' at the end of the list"));
            }
            return Ok(Operand::List { items });
        }
        let word = self.next_word();
        Err(self.error(format!(
            "expected a field, a transformer, a quoted text or a number, found '{word}'"
        )))
    }

    /// `[…]` behind a field, if there is one.
    fn bracket(&mut self) -> Parsed<Option<String>> {
        if !self.eat("[") {
            return Ok(None);
        }
        let arg = if let Some(literal) = self.quoted()? {
            String::from_utf8(literal.text)
                .map_err(|_| self.error("the argument in brackets is not UTF-8"))?
        } else {
            let len = self
                .rest()
                .bytes()
                .take_while(|b| {
                    !b.is_ascii_whitespace() && !matches!(b, b'[' | b']' | b'"' | b'\'' | b'\x0b')
                })
                .count();
            if len == 0 {
                return Err(self.error("expected an argument in the brackets"));
            }
            let arg = self.rest()[..len].to_owned();
            self.at += len;
            arg
        };
        if !self.eat("]") {
            return Err(self.error("expected ']'"));
        }
        Ok(Some(arg))
    }

    fn comparison(&mut self, left: Operand, at: usize) -> Parsed<Expr> {
        self.blanks();
        let check = |op, quantifier, right_at, right| {
            Ok(Expr::Check(Box::new(Check {
                left: left.clone(),
                op,
                quantifier,
                right,
                at,
                right_at,
            })))
        };
        if self.eat("exists") {
            return check(Op::Exists, None, self.at, Right::Nothing);
        }
        for word in ["<=", "<", ">=", ">"] {
            if self.eat(word) {
                self.blanks();
                let right_at = self.at;
                let right = self.number_or_operand()?;
                let op = Op::from_word(word).expect("the word is in the table above");
                return check(op, None, right_at, right);
            }
        }
        for word in ["==", "=", "!="] {
            if self.eat(word) {
                let op = Op::from_word(word).expect("the word is in the table above");
                let spaced = self.blanks();
                let (quantifier, right_at, right) = self.string_side(spaced)?;
                return check(op, quantifier, right_at, right);
            }
        }
        for (word, op) in WORD_OPS {
            if self.eat_spaced(word) {
                let (quantifier, right_at, right) = self.string_side(true)?;
                return check(*op, quantifier, right_at, right);
            }
        }
        for (word, op) in [
            ("intersects", Op::Intersects),
            ("in", Op::In),
            ("pmatch", Op::Pmatch),
        ] {
            if self.eat(word) {
                self.blanks();
                let right_at = self.at;
                let right = self.list_side(true)?;
                return check(op, None, right_at, right);
            }
        }
        let word = self.next_word();
        Err(self.error(format!(
            "expected an operator behind the field, found '{word}'; operators are = == != < <= > >= \
             in intersects pmatch glob iglob contains icontains bcontains startswith bstartswith \
             endswith regex exists"
        )))
    }

    fn number_or_operand(&mut self) -> Parsed<Right> {
        if let Some(operand) = self.right_operand()? {
            return Ok(Right::Operand(operand));
        }
        let len = number_len(self.rest());
        if len == 0 {
            let word = self.next_word();
            return Err(self.error(format!("expected a number, found '{word}'")));
        }
        let literal = Literal::bare(&self.rest()[..len]);
        self.at += len;
        Ok(Right::Literal(literal))
    }

    fn string_side(&mut self, spaced: bool) -> Parsed<(Option<Quantifier>, usize, Right)> {
        let start = self.at;
        if spaced {
            for word in ["oneof", "anyof", "allof"] {
                if self.eat_spaced(word) && self.list_follows() {
                    let at = self.at;
                    let right = self.list_side(false)?;
                    return Ok((Quantifier::from_word(word), at, right));
                }
                self.at = start;
            }
        }
        self.blanks();
        let at = self.at;
        if let Some(operand) = self.right_operand()? {
            return Ok((None, at, Right::Operand(operand)));
        }
        match self.string()? {
            Some(literal) => Ok((None, at, Right::Literal(literal))),
            None => {
                let word = self.next_word();
                Err(self.error(format!(
                    "expected a value behind the operator, found '{word}'"
                )))
            }
        }
    }

    /// Whether a list, or the name of one, comes next: `proc.name = anyof and …` compares with the
    /// word `anyof`.
    fn list_follows(&self) -> bool {
        let rest = self.rest();
        let word = &rest[..identifier_len(rest)];
        rest.starts_with('(') || !(word.is_empty() || matches!(word, "and" | "or" | "not"))
    }

    fn list_side(&mut self, operands: bool) -> Parsed<Right> {
        self.blanks();
        if self.eat("(") {
            return self.list_items().map(Right::List);
        }
        if operands && let Some(operand) = self.right_operand()? {
            return Ok(Right::Operand(operand));
        }
        let len = bare_len(self.rest());
        if len == 0 {
            let word = self.next_word();
            return Err(self.error(format!(
                "expected '(' or the name of a list, found '{word}'"
            )));
        }
        let literal = Literal::bare(&self.rest()[..len]);
        self.at += len;
        Ok(Right::ListName(literal))
    }

    /// The items of a list, behind its `(`. Commas that separate nothing are passed over: where a
    /// list is empty, Falco's own text substitution leaves some.
    fn list_items(&mut self) -> Parsed<Vec<Literal>> {
        let mut items = Vec::new();
        loop {
            self.blanks();
            match self.string()? {
                Some(item) => items.push(item),
                None if items.is_empty() => {}
                None => {
                    let word = self.next_word();
                    return Err(self.error(format!("expected a list item, found '{word}'")));
                }
            }
            self.blanks();
            if self.eat(")") {
                return Ok(items);
            }
            if items.is_empty() || !self.eat(",") {
                let word = self.next_word();
                return Err(self.error(format!("expected ',' or ')' in the list, found '{word}'")));
            }
        }
    }

    /// `val(field)` or another transformer on the right side.
    fn right_operand(&mut self) -> Parsed<Option<Operand>> {
        let at = self.at;
        if self.eat("val(") {
            self.blanks();
            let len = field_name_len(self.rest());
            if len == 0 {
                return Err(self.error("expected a field in val()"));
            }
            let name = self.rest()[..len].to_owned();
            let field_at = self.at;
            self.at += len;
            let arg = self.bracket()?;
            self.blanks();
            if !self.eat(")") {
                return Err(self.error("expected ')' at the end of val()"));
            }
            return Ok(Some(Operand::Field {
                name,
                arg,
                at: field_at,
            }));
        }
        for name in TRANSFORMERS {
            if self.rest().starts_with(name) && self.rest()[name.len()..].starts_with('(') {
                self.at += name.len() + 1;
                return self.nested(|p| p.transformer(name, at)).map(Some);
            }
        }
        Ok(None)
    }

    /// A quoted or a bare string.
    fn string(&mut self) -> Parsed<Option<Literal>> {
        if let Some(literal) = self.quoted()? {
            return Ok(Some(literal));
        }
        let len = bare_len(self.rest());
        if len == 0 {
            return Ok(None);
        }
        let literal = Literal::bare(&self.rest()[..len]);
        self.at += len;
        Ok(Some(literal))
    }

    fn quoted(&mut self) -> Parsed<Option<Literal>> {
        let bytes = self.rest().as_bytes();
        let Some(delimiter @ (b'"' | b'\'')) = bytes.first().copied() else {
            return Ok(None);
        };
        let mut text = Vec::new();
        let mut at = 1;
        while let Some(byte) = bytes.get(at).copied() {
            at += 1;
            if byte == delimiter {
                self.at += at;
                return Ok(Some(Literal { text, quoted: true }));
            }
            if byte != b'\\' {
                text.push(byte);
                continue;
            }
            let Some(escaped) = bytes.get(at).copied() else {
                break;
            };
            at += 1;
            text.push(match escaped {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let hex = self.rest().get(at..at + 2);
                    at += 2;
                    match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
                        Some(byte) => byte,
                        None => return Err(self.error("expected two hex digits behind '\\x'")),
                    }
                }
                // A backslash before a blank is a backslash, and the blank is lost: as in Falco.
                b' ' | b'\\' => b'\\',
                b'/' => escaped,
                quote @ (b'"' | b'\'') if quote == delimiter => quote,
                other => {
                    let other = char::from(other);
                    return Err(self.error(format!("unknown escape '\\{other}' in a string")));
                }
            });
        }
        Err(self.error("the string has no closing quote"))
    }
}

fn one_or(mut children: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match (children.len(), children.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            children.extend(last);
            many(children)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Expr {
        parse_condition(text).unwrap_or_else(|e| panic!("{text}: {e} at {}", e.at))
    }

    fn shape(expr: &Expr) -> String {
        let join = |c: &[Expr], s: &str| c.iter().map(shape).collect::<Vec<_>>().join(s);
        match expr {
            Expr::And(c) => format!("({})", join(c, " & ")),
            Expr::Or(c) => format!("({})", join(c, " | ")),
            Expr::Not(c) => format!("!{}", shape(c)),
            Expr::Macro { name, .. } => name.clone(),
            Expr::Check(c) => c.op.as_str().to_owned(),
        }
    }

    fn literals(text: &str) -> Vec<String> {
        let Expr::Check(check) = parse(text) else {
            panic!("not a check: {text}")
        };
        let show = |l: &Literal| String::from_utf8_lossy(&l.text).into_owned();
        match &check.right {
            Right::List(items) => items.iter().map(show).collect(),
            Right::Literal(item) | Right::ListName(item) => vec![show(item)],
            _ => Vec::new(),
        }
    }

    #[test]
    fn or_binds_looser_than_and_and_not_binds_tightest() {
        assert_eq!(shape(&parse("a or b and not c")), "(a | (b & !c))");
        assert_eq!(shape(&parse("not a and b or c")), "((!a & b) | c)");
        assert_eq!(shape(&parse("not not a")), "a");
        assert_eq!(shape(&parse("(a or b)and(c)")), "((a | b) & c)");
        assert_eq!(shape(&parse("not(a or b) and c")), "(!(a | b) & c)");
    }

    #[test]
    fn lists_take_quoted_and_bare_items() {
        assert_eq!(
            literals(r#"proc.name in (sh, "a b", 'c,d')"#),
            ["sh", "a b", "c,d"]
        );
        assert_eq!(literals("proc.name in ()"), [""; 0]);
        assert_eq!(literals("proc.name in(a,b)"), ["a", "b"]);
        assert_eq!(literals("proc.name pmatch shells"), ["shells"]);
    }

    #[test]
    fn strings_keep_their_escapes() {
        assert_eq!(literals(r#"proc.name = "a\"b\n""#), ["a\"b\n"]);
        assert_eq!(literals(r"proc.name = '\x41'"), ["A"]);
    }

    #[test]
    fn quantifiers_are_words_where_no_list_follows() {
        let Expr::Check(check) = parse("proc.name startswith anyof (a, b)") else {
            panic!()
        };
        assert_eq!(check.quantifier, Some(Quantifier::Any));
        assert_eq!(shape(&parse("proc.name = anyof and a")), "(= & a)");
    }

    #[test]
    fn operators_need_their_blank() {
        assert!(parse_condition("proc.name containsx").is_err());
        assert!(parse_condition("proc.name contains").is_err());
        assert_eq!(literals("evt.num>=0x1F"), ["0x1F"]);
        assert_eq!(literals("fd.num=-1"), ["-1"]);
    }

    #[test]
    fn transformers_and_field_arguments_are_read() {
        parse("tolower(proc.name) = val(proc.pname)");
        parse("join(\",\", (proc.name, proc.pname)) contains x");
        parse("concat(proc.name, '-', proc.pname) = a-b");
        parse("container.mount.dest[/proc*] in (a)");
        parse("len(b64(proc.args)) > 3");
    }

    #[test]
    fn nesting_without_end_is_an_error() {
        let deep = format!("{}a{}", "(".repeat(10_000), ")".repeat(10_000));
        assert!(
            parse_condition(&deep)
                .unwrap_err()
                .message
                .contains("nested deeper")
        );
        let nots = format!("{}a", "not ".repeat(10_000));
        assert_eq!(shape(&parse(&nots)), "a");
        let calls = format!(
            "{}proc.name{} = a",
            "tolower(".repeat(10_000),
            ")".repeat(10_000)
        );
        assert!(
            parse_condition(&calls)
                .unwrap_err()
                .message
                .contains("nested deeper")
        );
    }

    #[test]
    fn errors_say_where_and_what_was_expected() {
        let e = parse_condition("a and ").unwrap_err();
        assert_eq!(e.at, 6);
        let e = parse_condition("proc.name ~ x").unwrap_err();
        assert!(e.message.contains("expected an operator"), "{e}");
        let e = parse_condition("(a or b").unwrap_err();
        assert!(e.message.contains("expected ')'"), "{e}");
    }
}
