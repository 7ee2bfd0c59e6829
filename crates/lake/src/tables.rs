//! The tables: their names, columns and order. `docs/guide/query.md` lists them for people.
//!
//! Promise: a column keeps its name, type and meaning; new ones are added at the end of a table's
//! own columns, and [`LAYOUT_VERSION`] grows, so that older files are made again.

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::sync::{Arc, LazyLock};

/// Version of tables, columns and file layout. Files of another version are made again.
pub const LAYOUT_VERSION: u32 = 3;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Nanoseconds since 1970, UTC.
    Time,
    /// UTF-8; bytes that are none appear as U+FFFD (the journal keeps them as they were).
    Text,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// True or false.
    Bool,
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name in SQL.
    pub name: &'static str,
    /// Its type.
    pub of: Type,
    /// A bloom filter says quickly that a value is not there.
    pub bloom: bool,
}

const fn text(name: &'static str) -> Column {
    Column {
        name,
        of: Type::Text,
        bloom: false,
    }
}
/// Text that people look for by its exact value.
const fn key(name: &'static str) -> Column {
    Column {
        name,
        of: Type::Text,
        bloom: true,
    }
}
const fn u64(name: &'static str) -> Column {
    Column {
        name,
        of: Type::U64,
        bloom: false,
    }
}
const fn i64(name: &'static str) -> Column {
    Column {
        name,
        of: Type::I64,
        bloom: false,
    }
}
const fn flag(name: &'static str) -> Column {
    Column {
        name,
        of: Type::Bool,
        bloom: false,
    }
}
const fn time(name: &'static str) -> Column {
    Column {
        name,
        of: Type::Time,
        bloom: false,
    }
}

/// First in every table.
pub(crate) const HEAD: &[Column] = &[time("time"), text("container_name")];
/// Last in every table: whose it is, and the leaf that shows it.
pub(crate) const TAIL: &[Column] = &[
    key("container"),
    u64("container_started"),
    text("image"),
    text("image_digest"),
    text("origin"),
    u64("leaf"),
];

/// What was done: the columns of `behaviours` that its files keep once, in `fingerprints`.
pub(crate) const DEEDS: [&str; 9] = [
    "behaviour",
    "kind",
    "program",
    "script",
    "entry",
    "uid",
    "operation",
    "object",
    "object_origin",
];
/// By which a row of `behaviours` names them.
pub(crate) const NUMBER: &str = "fingerprint";
/// The first 32 bits of a behaviour's id, which files do not keep where it follows from what was
/// done.
pub(crate) const MARK: &str = "mark";

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident = $sql:literal [$($column:expr),* $(,)?]),* $(,)?) => {
        /// A table of the lake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Table { $($(#[$doc])* $name),* }
        impl Table {
            /// All of them.
            pub const ALL: &[Table] = &[$(Table::$name),*];
            /// Its name in SQL and in file names.
            pub fn name(self) -> &'static str {
                match self { $(Table::$name => $sql),* }
            }
            /// The columns between the common ones.
            pub(crate) fn own_columns(self) -> &'static [Column] {
                match self { $(Table::$name => { const C: &[Column] = &[$($column),*]; C }),* }
            }
        }
    };
}

tables! {
    /// Alerts; a later row with the same id and a higher count supersedes.
    Alerts = "alerts" [
        key("alert_id"), text("rule"), text("priority"), u64("severity"), text("output"),
        text("source"), key("behaviour"), text("drift_class"), text("risk"), u64("count"),
        time("last"), text("tags"), text("fields"), text("evidence"), flag("prevented"),
    ],
    /// Behaviour outside the baseline in force.
    Drift = "drift" [
        text("class"), text("risk"), key("behaviour"), text("kind"), text("program"), text("script"),
        text("entry"), u64("uid"), text("operation"), key("object"), text("object_origin"),
        text("reason"), text("baseline"), u64("baseline_version"), text("baseline_state"),
        u64("coverage_permille"), flag("quarantined"), text("techniques"), u64("count"),
        time("last"), u64("pid"), text("lineage"), u64("observation"),
    ],
    /// Every behaviour that was observed, and the presence of known ones.
    Behaviours = "behaviours" [
        text("behaviour"), text("kind"), text("program"), text("script"), text("entry"), u64("uid"),
        text("operation"), text("object"), text("object_origin"), u64("count"), u64("pid"),
        text("source"), time("until"),
    ],
    /// Each behaviour once for every span of leaves: where it occurred first, how often, in how
    /// many containers, until when.
    Fingerprints = "fingerprints" [
        text("behaviour"), text("kind"), text("program"), text("script"), text("entry"), u64("uid"),
        text("operation"), key("object"), text("object_origin"), u64("count"), time("last"),
        u64("containers"),
    ],
    /// Programs that started, processes that were made and that ended.
    Processes = "processes" [
        text("event"), u64("pid"), u64("pid_started"), u64("ppid"), key("program"), text("script"),
        text("args"), text("cwd"), text("parent_program"), text("lineage"), flag("lineage_cut"),
        text("entry"), u64("uid"), u64("euid"), u64("gid"), text("comm"), text("object_origin"),
        flag("deleted"), u64("caps"), u64("tty"), i64("exit_code"), u64("signal"), u64("child_pid"),
        text("redacted"), text("trust"), u64("count"),
    ],
    /// What was done to files; libraries and memory files too.
    Files = "files" [
        text("operation"), key("path"), text("target"), text("object_origin"), i64("result"),
        u64("flags"), u64("pid"), u64("pid_started"), text("program"), text("script"), u64("uid"),
        text("entry"), text("trust"), u64("count"),
    ],
    /// Network ends: connections, datagrams, listening, bound and unusual sockets.
    Connections = "connections" [
        text("direction"), text("proto"), key("peer"), u64("peer_port"), text("local"),
        u64("local_port"), i64("result"), u64("pid"), u64("pid_started"), text("program"),
        text("script"), u64("uid"), text("entry"), u64("count"),
    ],
    /// Names asked for, and answers.
    Dns = "dns" [
        flag("response"), key("name"), u64("qtype"), u64("rcode"), text("addresses"), text("server"),
        u64("pid"), u64("pid_started"), text("program"), u64("uid"), u64("count"),
    ],
    /// Identities of containers, whenever they changed.
    Containers = "containers" [
        text("state"), text("runtime"), text("role"), text("service"), text("pod"), text("namespace"),
        text("repository"), text("manifest_digest"), time("first_seen"), time("gone"),
        i64("exit_code"), flag("privileged"), flag("found_running"), text("command"),
        text("addresses"), text("mounts"), text("ports"), text("labels"), text("unknown_because"),
    ],
    /// What was not observed or not kept.
    Gaps = "gaps" [
        text("stage"), time("until"), u64("count"), text("reason"),
    ],
    /// What was done about alerts: plans, steps, deliveries, decisions.
    Actions = "actions" [
        text("action"), text("subject"), text("plan"), text("step"), text("outcome"), text("detail"),
        key("alert_id"), u64("uid"), u64("login_uid"), text("method"), text("receiver"),
        u64("attempt"), flag("dry_run"),
    ],
    /// Who read, exported or held evidence.
    Access = "access" [
        text("action"), text("subject"), text("reason"), u64("uid"), u64("login_uid"), text("method"),
    ],
}

impl Table {
    /// All columns, in order.
    pub fn columns(self) -> impl Iterator<Item = &'static Column> {
        HEAD.iter().chain(self.own_columns()).chain(TAIL)
    }

    /// Columns that rows of a file are sorted by.
    pub(crate) fn order(self) -> &'static [&'static str] {
        match self {
            // which go by image, and by how often
            Table::Fingerprints => &[NUMBER],
            // containers of one image do the same things: their dictionaries stay small
            _ => &[
                "image_digest",
                "container",
                "container_started",
                "time",
                "leaf",
            ],
        }
    }

    /// The Arrow schema.
    pub fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<Vec<SchemaRef>> =
            LazyLock::new(|| Table::ALL.iter().map(|t| t.make_schema()).collect());
        SCHEMAS[self as usize].clone()
    }

    /// The schema of its files: rows of `behaviours` name what was done by a number that the file
    /// of `fingerprints` beside them explains.
    pub(crate) fn stored(self) -> SchemaRef {
        static SCHEMAS: LazyLock<Vec<SchemaRef>> =
            LazyLock::new(|| Table::ALL.iter().map(|t| t.make_stored()).collect());
        SCHEMAS[self as usize].clone()
    }

    fn make_stored(self) -> SchemaRef {
        let number = Field::new(NUMBER, DataType::UInt32, false);
        let own = self.schema();
        let fields = own.fields().iter().map(|f| f.as_ref().clone());
        Arc::new(Schema::new(match self {
            Table::Behaviours => fields
                .filter(|f| !DEEDS.contains(&f.name().as_str()))
                .chain([number])
                .collect::<Vec<_>>(),
            Table::Fingerprints => {
                let mark = Field::new(MARK, DataType::UInt32, true);
                fields.chain([number, mark]).collect()
            }
            _ => return own,
        }))
    }

    fn make_schema(self) -> SchemaRef {
        let field = |c: &Column| {
            let always = matches!(c.name, "time" | "origin" | "leaf");
            Field::new(c.name, c.of.arrow(), !always)
        };
        Arc::new(Schema::new(self.columns().map(field).collect::<Vec<_>>()))
    }
}

impl Type {
    pub(crate) fn arrow(self) -> DataType {
        match self {
            Type::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())),
            Type::Text => DataType::Utf8View,
            Type::U64 => DataType::UInt64,
            Type::I64 => DataType::Int64,
            Type::Bool => DataType::Boolean,
        }
    }
}
