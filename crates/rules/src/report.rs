//! What came of loading rule files: the shape of `rules check --json`.
//!
//! Promises: codes, item types and nesting are Falco's, so tools that read its result read ours;
//! every error and warning names file, line, column (from 1) and the item it lies in, with the
//! line itself.
//!
//! Leaves out: how it is shown to people, and reading files.

use serde::Serialize;

/// The result for all files, as Falco prints it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LoadReport {
    /// One result a file, in the order in which they were given.
    #[serde(rename = "falco_load_results")]
    pub files: Vec<FileReport>,
}

impl LoadReport {
    /// Whether every file was fine. Only then is there a rule set.
    pub fn successful(&self) -> bool {
        self.files.iter().all(|f| f.successful)
    }

    /// All errors, with the file each is in.
    pub fn errors(&self) -> impl Iterator<Item = (&FileReport, &Finding)> {
        self.files
            .iter()
            .flat_map(|f| f.errors.iter().map(move |e| (f, e)))
    }

    /// All warnings, with the file each is in.
    pub fn warnings(&self) -> impl Iterator<Item = (&FileReport, &Finding)> {
        self.files
            .iter()
            .flat_map(|f| f.warnings.iter().map(move |w| (f, w)))
    }
}

/// The result for one file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FileReport {
    /// Name of the file.
    pub name: String,
    /// Whether it has no errors.
    pub successful: bool,
    /// Why it was refused.
    pub errors: Vec<Finding>,
    /// What may not be meant.
    pub warnings: Vec<Finding>,
}

/// One error or warning.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// `LOAD_ERR_COMPILE_CONDITION`
    pub code: Code,
    /// The code in words.
    pub codedesc: &'static str,
    /// What is wrong and what was expected.
    pub message: String,
    /// Where.
    pub context: Context,
}

/// Where a finding lies.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Context {
    /// From the file down to the item.
    pub locations: Vec<Location>,
    /// The line, and a mark under the column.
    pub snippet: String,
}

/// One step on the way to a finding.
#[derive(Clone, Debug, Serialize)]
pub struct Location {
    /// Name of the rule, macro or list; empty where items have no name.
    pub item_name: String,
    /// `rule`, `macro condition`, …
    pub item_type: &'static str,
    /// Where the item begins.
    pub position: Position,
}

/// A place in a file. Lines and columns count from 1, the offset from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Name of the file.
    pub name: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// Byte offset, from 0.
    pub offset: usize,
}

impl Finding {
    /// The innermost place.
    pub fn position(&self) -> Option<&Position> {
        self.context.locations.last().map(|l| &l.position)
    }

    /// The innermost item that has a name: kind and name.
    pub fn item(&self) -> Option<(&'static str, &str)> {
        let named = |l: &&Location| !l.item_name.is_empty();
        self.context
            .locations
            .iter()
            .rev()
            .find(named)
            .map(|l| (l.item_type, l.item_name.as_str()))
    }
}

macro_rules! codes {
    ($($variant:ident $name:literal $text:literal;)*) => {
        /// What kind of error or warning it is. Names are Falco's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        pub enum Code {
            $(#[doc = $text] #[serde(rename = $name)] $variant,)*
        }

        impl Code {
            /// The code, as in the JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The code in words.
            pub fn description(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

codes! {
    FileRead "LOAD_ERR_FILE_READ" "file cannot be read";
    YamlParse "LOAD_ERR_YAML_PARSE" "not YAML";
    YamlValidate "LOAD_ERR_YAML_VALIDATE" "YAML of the wrong structure";
    CompileCondition "LOAD_ERR_COMPILE_CONDITION" "condition does not compile";
    CompileOutput "LOAD_ERR_COMPILE_OUTPUT" "output does not compile";
    Validate "LOAD_ERR_VALIDATE" "rule, macro, list or exception is wrong";
    Extension "LOAD_ERR_EXTENSION" "extension is wrong";
    UnknownSource "LOAD_UNKNOWN_SOURCE" "event source is not known";
    UnsafeNaCheck "LOAD_UNSAFE_NA_CHECK" "comparison with the text that stands for a missing value";
    NoEvttype "LOAD_NO_EVTTYPE" "condition matches too many kinds of event";
    UnknownFilter "LOAD_UNKNOWN_FILTER" "field or kind of event is not known";
    UnusedMacro "LOAD_UNUSED_MACRO" "macro is not used";
    UnusedList "LOAD_UNUSED_LIST" "list is not used";
    UnknownItem "LOAD_UNKNOWN_ITEM" "item is not known";
    DeprecatedItem "LOAD_DEPRECATED_ITEM" "item is deprecated";
    WarningExtension "LOAD_WARNING_EXTENSION" "extension has a warning";
    AppendNoValues "LOAD_APPEND_NO_VALUES" "exception is appended to without values";
    ExceptionNameNotUnique "LOAD_EXCEPTION_NAME_NOT_UNIQUE" "exceptions share a name";
    InvalidMacroName "LOAD_INVALID_MACRO_NAME" "macro has a name that no condition can use";
    InvalidListName "LOAD_INVALID_LIST_NAME" "list has a name that no condition can use";
    CompileConditionWarning "LOAD_COMPILE_CONDITION" "condition may not mean what it says";
    UnknownKey "LOAD_UNKNOWN_KEY" "key is not known";
}
