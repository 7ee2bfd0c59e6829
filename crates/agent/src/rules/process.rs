//! `proc.*` and `thread.*`: the acting process and its ancestors.
//!
//! Promises: a process is called what it was executed as, whatever it names itself later. Ancestors
//! end at the container's entry point: the runtime and the host above it are not part of a lineage.

use super::view::View;
use super::words;
use plimsoll_model::event::Exec;
use plimsoll_model::{Ancestor, ExecFacts, Glance, Observation, Origin, Text};
use plimsoll_rules::{Field, FieldArg, FieldRef, Value, ValueList};
use std::cell::OnceCell;

/// The process and its ancestors, and the lists that are made of them.
pub(super) struct Lines<'a> {
    own: Option<&'a Ancestor>,
    /// Without a program that the process itself ran before: Falco's parent is another process.
    ancestors: &'a [Ancestor],
    names: List<'a>,
    exes: List<'a>,
    paths: List<'a>,
    commands: List<'a>,
    pids: List<'a>,
}

#[derive(Clone, Copy)]
enum What {
    Name,
    Exe,
    Path,
    Command,
    Pid,
}

struct List<'a> {
    what: What,
    line: &'a [Ancestor],
    made: OnceCell<Vec<Vec<u8>>>,
}

impl<'a> Lines<'a> {
    /// Of an observation.
    pub(super) fn new(obs: &'a Observation) -> Self {
        let line = &*obs.lineage;
        let own = line.first();
        let skip = line
            .iter()
            .take_while(|a| own.is_some_and(|o| o.key == a.key))
            .count();
        let ancestors = &line[skip..];
        let list = |what| List {
            what,
            line: ancestors,
            made: OnceCell::new(),
        };
        Self {
            own,
            ancestors,
            names: list(What::Name),
            exes: list(What::Exe),
            paths: list(What::Path),
            commands: list(What::Command),
            pids: list(What::Pid),
        }
    }

    fn nth(&self, index: usize) -> Option<&'a Ancestor> {
        match index {
            0 => self.own,
            n => self.ancestors.get(n - 1),
        }
    }
}

impl ValueList for List<'_> {
    fn len(&self) -> usize {
        self.line.len()
    }

    fn get(&self, index: usize) -> Value<'_> {
        let Some(ancestor) = self.line.get(index) else {
            return Value::Absent;
        };
        match self.what {
            What::Name => Value::Text(name(ancestor)),
            What::Exe => Value::Text(exe(ancestor)),
            What::Path => Value::Text(ancestor.exe.as_bytes()),
            What::Pid => Value::Int(ancestor.key.tgid.into()),
            What::Command => {
                let made = self.made.get_or_init(|| {
                    let line = |a: &Ancestor| command_line(name(a), &a.argv);
                    self.line.iter().map(line).collect()
                });
                Value::Text(&made[index])
            }
        }
    }
}

fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|b| *b == b'/').next().unwrap_or(path)
}

/// What a process is called: its `comm` at exec, else the name of its program.
pub(super) fn name(a: &Ancestor) -> &[u8] {
    match a.comm.is_empty() {
        false => a.comm.as_bytes(),
        true => base(a.exe.as_bytes()),
    }
}

fn exe(a: &Ancestor) -> &[u8] {
    a.argv.first().unwrap_or(&a.exe).as_bytes()
}

/// The name, then the arguments from the second one.
fn command_line(name: &[u8], argv: &[Text]) -> Vec<u8> {
    let mut line = name.to_vec();
    for arg in argv.iter().skip(1) {
        line.push(b' ');
        line.extend_from_slice(arg.as_bytes());
    }
    line
}

fn arguments(argv: &[Text]) -> Vec<u8> {
    let args: Vec<&[u8]> = argv.iter().skip(1).map(Text::as_bytes).collect();
    args.join(&b' ')
}

/// What is known of the program's exec: the event itself, or what was kept of it.
fn facts(view: &View<'_>) -> Option<ExecFacts> {
    match view.exec() {
        Some(exec) => Some(ExecFacts::of(exec)),
        None => view.own().and_then(|own| own.facts.clone()),
    }
}

fn of_facts<'v>(view: &View<'_>, get: impl FnOnce(&ExecFacts) -> Value<'v>) -> Value<'v> {
    match facts(view) {
        Some(facts) => get(&facts),
        None => Value::Unknown,
    }
}

/// One of `proc.*` or `thread.*`.
pub(super) fn field<'v>(view: &'v View<'_>, field: &FieldRef) -> Value<'v> {
    use Field as F;
    let process = &view.obs.event.process;
    let lines = view.lines();
    match field.field {
        F::ProcName
        | F::ProcExe
        | F::ProcExepath
        | F::ProcArgs
        | F::ProcCmdline
        | F::ProcExeline
        | F::ProcCmdnargs
        | F::ProcCmdlenargs => own(view, field),
        F::ProcPname | F::ProcPexe | F::ProcPexepath | F::ProcPcmdline => parent(view, field.field),
        F::ProcAname => of_lineage(view, field, &lines.names),
        F::ProcAexe => of_lineage(view, field, &lines.exes),
        F::ProcAexepath => of_lineage(view, field, &lines.paths),
        F::ProcAcmdline => of_lineage(view, field, &lines.commands),
        F::ProcApid => of_lineage(view, field, &lines.pids),
        F::ProcAargs => match index(field).and_then(|i| lines.nth(i)) {
            Some(a) => view.text(arguments(&a.argv)),
            None => Value::Absent,
        },
        F::ProcPid => Value::Int(process.key.tgid.into()),
        F::ProcPpid => Value::Int(process.ppid.into()),
        F::ThreadTid => Value::Int(process.tid.into()),
        F::ThreadIsmain => Value::Bool(process.tid == process.key.tgid),
        F::ProcDuration => Value::UInt(view.obs.event.boot.0.saturating_sub(process.key.start.0)),
        F::ProcPidTs => Value::UInt(started(view, process.key.start.0)),
        F::ProcPpidTs => match lines.ancestors.first() {
            Some(p) => Value::UInt(started(view, p.key.start.0)),
            None => Value::Absent,
        },
        F::ProcPpidDuration => match lines.ancestors.first() {
            Some(p) => Value::UInt(view.obs.event.boot.0.saturating_sub(p.key.start.0)),
            None => Value::Absent,
        },
        F::ProcLoginshellid => login_shell(lines),
        F::ProcVpid => match (glance(view), facts(view)) {
            (Some(g), _) => Value::Int(g.vpid.into()),
            // the first program of a container is the first of its pid namespace
            (None, Some(f)) if f.first => Value::Int(1),
            _ => Value::Unknown,
        },
        F::ThreadVtid if process.tid != process.key.tgid => Value::Unknown,
        F::ThreadVtid => of_glance(view, |g| Value::Int(g.vpid.into())),
        F::ProcVpgid => of_glance(view, |g| Value::Int(g.vpgid.into())),
        F::ProcSid => of_glance(view, |g| Value::Int(g.vsid.into())),
        F::ProcIsVpgidLeader => of_glance(view, |g| Value::Bool(g.vpgid == g.vpid)),
        F::ProcIsSidLeader => of_glance(view, |g| Value::Bool(g.vsid == g.vpid)),
        F::ProcEnv => environment(view, &field.arg),
        F::ProcCwd => match facts(view) {
            Some(facts) => view.text(with_slash(facts.cwd.as_bytes())),
            None => Value::Unknown,
        },
        F::ProcTty => of_facts(view, |f| Value::UInt(f.tty.into())),
        F::ProcExeIno => of_facts(view, |f| Value::Int(f.ino as i64)),
        F::ProcIsExeUpperLayer => of_facts(view, |f| Value::Bool(f.origin == Origin::Upper)),
        F::ProcIsExeLowerLayer => of_facts(view, |f| Value::Bool(f.origin == Origin::Image)),
        F::ProcIsExeFromMemfd => of_facts(view, |f| Value::Bool(f.origin == Origin::Memfd)),
        F::ThreadCapEffective => match facts(view) {
            Some(facts) => view.text(words::capabilities(facts.caps)),
            None => Value::Unknown,
        },
        F::ThreadCapPermitted => match (glance(view), facts(view)) {
            (Some(g), _) => view.text(words::capabilities(g.permitted)),
            // who executes gets effective what is permitted, but for rare programs
            (None, Some(f)) => view.text(words::capabilities(f.caps)),
            (None, None) => Value::Unknown,
        },
        F::ThreadCapInheritable => match glance(view) {
            Some(g) => view.text(words::capabilities(g.inheritable)),
            None => Value::Unknown,
        },
        _ => Value::Unknown,
    }
}

/// What else the program had when it started.
pub(super) fn glance<'a>(view: &View<'a>) -> Option<&'a Glance> {
    match view.exec() {
        Some(exec) => exec.glance.as_deref(),
        None => view.own()?.facts.as_ref()?.glance.as_deref(),
    }
}

fn of_glance<'v>(view: &View<'_>, get: impl FnOnce(&Glance) -> Value<'v>) -> Value<'v> {
    glance(view).map_or(Value::Unknown, get)
}

/// All variables with blanks between them, or the value of one; one that is not there is an empty
/// text, as in Falco. Kept of execs only.
fn environment<'v>(view: &'v View<'_>, arg: &FieldArg) -> Value<'v> {
    let Some(glance) = view.exec().and_then(|e| e.glance.as_deref()) else {
        return Value::Unknown;
    };
    let Some(env) = &glance.env else {
        return Value::Unknown;
    };
    let FieldArg::Key(name) = arg else {
        let all: Vec<&[u8]> = env.iter().map(Text::as_bytes).collect();
        return view.text(all.join(&b' '));
    };
    let value = |variable: &'v Text| {
        let rest = variable.as_bytes().strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    };
    match env.iter().find_map(value) {
        Some(value) => Value::Text(value.trim_ascii()),
        None if glance.env_cut => Value::Unknown,
        None => Value::Text(b""),
    }
}

/// The acting process; of an exec, the new program with its arguments in full.
fn own<'v>(view: &'v View<'_>, field: &FieldRef) -> Value<'v> {
    use Field as F;
    let exec: Option<&Exec> = view.exec();
    let own = view.own();
    let argv: &[Text] = exec
        .map(|e| e.argv.as_slice())
        .or_else(|| own.map(|o| o.argv.as_slice()))
        .unwrap_or_default();
    let path: &[u8] = exec
        .map(|e| e.exe.as_bytes())
        .or_else(|| own.map(|o| o.exe.as_bytes()))
        .unwrap_or_default();
    let comm = view.obs.event.process.comm.as_bytes();
    let name: &[u8] = match own {
        _ if exec.is_some() && !comm.is_empty() => comm,
        Some(own) if exec.is_none() && !(own.comm.is_empty() && own.exe.is_empty()) => name(own),
        _ if !comm.is_empty() => comm,
        _ => base(path),
    };
    let first = argv.first().map_or(path, Text::as_bytes);
    match field.field {
        F::ProcName => Value::Text(name),
        F::ProcExepath if path.is_empty() => Value::Absent,
        F::ProcExepath => Value::Text(path),
        F::ProcExe if first.is_empty() => Value::Text(name),
        F::ProcExe => Value::Text(first),
        F::ProcArgs => match index(field) {
            Some(i) => Value::text(argv.get(i + 1).map(Text::as_bytes)),
            None => view.text(arguments(argv)),
        },
        F::ProcCmdline => view.text(command_line(name, argv)),
        F::ProcExeline => view.text(command_line(first, argv)),
        F::ProcCmdnargs => Value::UInt(argv.len().saturating_sub(1) as u64),
        _ => {
            let bytes: usize = argv.iter().skip(1).map(Text::len).sum();
            Value::UInt(bytes as u64)
        }
    }
}

fn parent<'v>(view: &'v View<'_>, field: Field) -> Value<'v> {
    let Some(parent) = view.lines().ancestors.first() else {
        return Value::Absent;
    };
    match field {
        Field::ProcPname => Value::Text(name(parent)),
        Field::ProcPexe => Value::Text(exe(parent)),
        Field::ProcPexepath => Value::Text(parent.exe.as_bytes()),
        _ => view.text(command_line(name(parent), &parent.argv)),
    }
}

fn of_lineage<'v>(view: &'v View<'_>, field: &FieldRef, list: &'v List<'v>) -> Value<'v> {
    let Some(index) = index(field) else {
        return Value::List(list);
    };
    match index {
        0 => {
            let own = match field.field {
                Field::ProcAname => Field::ProcName,
                Field::ProcAexe => Field::ProcExe,
                Field::ProcAexepath => Field::ProcExepath,
                Field::ProcAcmdline => Field::ProcCmdline,
                _ => return Value::Int(view.obs.event.process.key.tgid.into()),
            };
            let field = FieldRef {
                field: own,
                arg: FieldArg::None,
            };
            self::own(view, &field)
        }
        n => list.get(n - 1),
    }
}

fn index(field: &FieldRef) -> Option<usize> {
    match field.arg {
        FieldArg::Index(i) => Some(i as usize),
        _ => None,
    }
}

/// A start on the boot clock as nanoseconds since 1970.
fn started(view: &View<'_>, boot: u64) -> u64 {
    let age = view.obs.at.boot.0.saturating_sub(boot);
    (view.obs.at.wall.0.max(0) as u64).saturating_sub(age)
}

/// The oldest shell above the process.
fn login_shell<'v>(lines: &Lines<'_>) -> Value<'v> {
    const SHELLS: [&[u8]; 7] = [b"sh", b"bash", b"dash", b"ash", b"zsh", b"ksh", b"csh"];
    let mut oldest = lines.ancestors.iter().rev();
    match oldest.find(|a| SHELLS.contains(&name(a))) {
        Some(shell) => Value::Int(shell.key.tgid.into()),
        None => Value::Absent,
    }
}

fn with_slash(path: &[u8]) -> Vec<u8> {
    let mut text = path.to_vec();
    if text.last() != Some(&b'/') {
        text.push(b'/');
    }
    text
}
