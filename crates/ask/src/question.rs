//! Which questions there are.

use std::fmt;
use std::str::FromStr;

macro_rules! questions {
    ($($(#[$doc:meta])* $name:ident: $title:literal;)*) => {
        /// A standard question.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Question { $(#[doc = $title] $name,)* }
        impl Question {
            /// All of them.
            pub const ALL: [Question; 18] = [$(Question::$name),*];
            /// `Q1`.
            pub fn as_str(self) -> &'static str { match self { $(Question::$name => stringify!($name),)* } }
            /// The question in words.
            pub fn title(self) -> &'static str { match self { $(Question::$name => $title,)* } }
        }
    };
}

questions! {
    Q1: "Which exact instance was it?";
    Q2: "What was it doing, each process with its lineage?";
    Q3: "Has this behaviour occurred before, here or elsewhere?";
    Q4: "What changed in the period before?";
    Q5: "What does the baseline expect, and was it valid for this image?";
    Q6: "How did it start: lineage back to the entry point?";
    Q7: "What was written, dropped, deleted, run from memory?";
    Q8: "Whom did it contact, and which process dialled or resolved the name?";
    Q9: "Were namespaces, mounts, host files or the node reached?";
    Q10: "Which identity did it hold, and what did it do with it?";
    Q11: "Which secrets could it read, and which did it read?";
    Q12: "Was there lateral movement?";
    Q13: "How far does it reach: containers, images, nodes, namespaces with this fingerprint?";
    Q14: "Which known vulnerabilities are in packages really in use, and was it attested?";
    Q15: "What persistence was left behind?";
    Q16: "Was the sensor blind at any time?";
    Q17: "When did access start and end, is it still active?";
    Q18: "Who did what in response, and was anything destroyed before it was captured?";
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// There is no such question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such question: expected Q1 to Q18")]
pub struct UnknownQuestion;

impl FromStr for Question {
    type Err = UnknownQuestion;
    /// `Q2`, `q2` or `2`.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let digits = s.strip_prefix(['Q', 'q']).unwrap_or(s);
        let number: usize = digits.parse().map_err(|_| UnknownQuestion)?;
        Self::ALL
            .get(number.wrapping_sub(1))
            .copied()
            .ok_or(UnknownQuestion)
    }
}
