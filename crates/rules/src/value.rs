//! What an event answers when it is asked for a field.
//!
//! Promises: values are borrowed from the event and hold bytes, never assumed to be UTF-8; nothing
//! here allocates. `Absent` (the event has no such thing) and `Unknown` (we were not told) are
//! different answers: the first is Falco's missing value, the second makes a verdict `Unknown`.

use std::net::IpAddr;

use crate::events::EventKind;
use crate::fields::FieldRef;

/// The value of one field of one event.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// The event has no such value. Every comparison with it is false.
    Absent,
    /// The event may have such a value; the asker was not told. A comparison with it is unknown.
    Unknown,
    /// True or false.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number, nanoseconds or a port.
    UInt(u64),
    /// A number with a fraction.
    Double(f64),
    /// Text or data.
    Text(&'a [u8]),
    /// An address.
    Ip(IpAddr),
    /// Several values: a list, the ancestors, both ends of a connection.
    List(&'a dyn ValueList),
}

impl<'a> Value<'a> {
    /// Text, or `Absent`.
    pub fn text(text: Option<&'a [u8]>) -> Self {
        text.map_or(Self::Absent, Self::Text)
    }
}

/// Several values of one field.
pub trait ValueList {
    /// How many.
    fn len(&self) -> usize;
    /// One of them; `Absent` beyond the end.
    fn get(&self, index: usize) -> Value<'_>;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Something that is one value.
pub trait AsValue {
    /// Borrowed as a value.
    fn as_value(&self) -> Value<'_>;
}

impl AsValue for String {
    fn as_value(&self) -> Value<'_> {
        Value::Text(self.as_bytes())
    }
}

impl AsValue for &str {
    fn as_value(&self) -> Value<'_> {
        Value::Text(self.as_bytes())
    }
}

impl AsValue for Vec<u8> {
    fn as_value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl AsValue for Box<[u8]> {
    fn as_value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl AsValue for &[u8] {
    fn as_value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl AsValue for IpAddr {
    fn as_value(&self) -> Value<'_> {
        Value::Ip(*self)
    }
}

impl AsValue for u64 {
    fn as_value(&self) -> Value<'_> {
        Value::UInt(*self)
    }
}

impl AsValue for i64 {
    fn as_value(&self) -> Value<'_> {
        Value::Int(*self)
    }
}

impl AsValue for bool {
    fn as_value(&self) -> Value<'_> {
        Value::Bool(*self)
    }
}

impl<T: AsValue> ValueList for Vec<T> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn get(&self, index: usize) -> Value<'_> {
        self.as_slice()
            .get(index)
            .map_or(Value::Absent, T::as_value)
    }
}

impl<T: AsValue, const N: usize> ValueList for [T; N] {
    fn len(&self) -> usize {
        N
    }

    fn get(&self, index: usize) -> Value<'_> {
        self.as_slice()
            .get(index)
            .map_or(Value::Absent, T::as_value)
    }
}

impl<T: AsValue> ValueList for &[T] {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn get(&self, index: usize) -> Value<'_> {
        (**self).get(index).map_or(Value::Absent, T::as_value)
    }
}

/// An event, as the judge sees it.
///
/// A view answers the same question the same way for as long as it is judged. What has to be
/// composed (a command line, a list of ancestors) is kept by the view, so that answers can borrow.
pub trait EventView {
    /// What `evt.type` is.
    fn kind(&self) -> EventKind;

    /// The value of a field. `evt.type`, `evt.type.is` and `evt.dir` are never asked for: they
    /// follow from the kind.
    fn field<'a>(&'a self, field: &FieldRef) -> Value<'a>;

    /// What a text begins with whose rest is not known; asked only where [`Self::field`] says
    /// `Unknown`, and only by [`crate::Ruleset::could_match_some`].
    fn beginning<'a>(&'a self, field: &FieldRef) -> Option<&'a [u8]> {
        let _ = field;
        None
    }
}

/// A verdict in three-valued logic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Tri {
    /// It does not hold.
    False = 0,
    /// It may hold: a value it depends on is not known.
    Unknown = 1,
    /// It holds.
    True = 2,
}

impl Tri {
    pub(crate) fn negated(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
            Self::True => Self::False,
        }
    }

    pub(crate) fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::False,
            1 => Self::Unknown,
            _ => Self::True,
        }
    }
}

impl From<bool> for Tri {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}
