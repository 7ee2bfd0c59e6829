//! Risk: what kind of step below the line an act is, how bad that can be, and why.
//!
//! [`classify`] names a class for every behaviour, known or not; the caller asks only about what
//! the baseline does not know. Each finding carries one sentence for a tired person and the
//! techniques of ATT&CK for Containers that apply.
//!
//! Promises: pure and total; a class that is typical of attacks is quarantined while learning; a
//! program's *name* excuses an act only while learning, and never below a start that waits for
//! approval (log rotation and package managers are graded lower, not excused; programs of the
//! runtime are excused while nothing of the workload is among their ancestors).
//!
//! Left out on purpose: sequences of acts (rules and incidents do that) and the alert's priority
//! ([`crate::alert::priority`]), which also depends on coverage and novelty.

use crate::baseline::{Baseline, State};
use crate::code::{entry, is_outside};
use crate::names;
use crate::paths::{Sensitive, changes, clean, in_temp, is_program_dir, is_tls_key_dir, sensitive};
use crate::programs::{
    applet, is_credential_reader, is_interpreter, is_miner, is_offensive_tool, is_read_tool,
    is_runtime, is_server, is_shell, name_of,
};
use plimsoll_model::event::{Connection, DupTarget, Exec, FileEvent, MountCall, NamespaceCall};
pub use plimsoll_model::paths::is_metadata;
use plimsoll_model::{
    Ancestor, Behaviour, BehaviourKind, Container, DriftClass, Entry, EventKind, FileOp,
    Observation, Origin, Proto, Risk, SockAddr, Text, Trust,
};

/// What an act is judged against.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Whose act.
    pub container: &'a Container,
    /// Baseline in force.
    pub baseline: Option<&'a Baseline>,
}

impl Context<'_> {
    /// Whether ordinary behaviour is still being learned.
    pub fn learning(&self) -> bool {
        self.baseline.is_none_or(|b| b.state() == State::Learning)
    }
}

/// A class with its grade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Class of the step.
    pub class: DriftClass,
    /// How bad that can be.
    pub risk: Risk,
    /// Why, in a sentence.
    pub reason: String,
    /// ATT&CK for Containers techniques.
    pub techniques: Vec<&'static str>,
    /// Not learned by itself: kept for a person to approve.
    pub quarantine: bool,
}

impl Class {
    /// Ordinary change: learned while learning.
    fn plain(class: DriftClass, risk: Risk, reason: impl Into<String>) -> Self {
        Self {
            class,
            risk,
            reason: reason.into(),
            techniques: Vec::new(),
            quarantine: false,
        }
    }
    /// Kept apart while learning.
    fn risky(class: DriftClass, risk: Risk, reason: impl Into<String>) -> Self {
        Self {
            quarantine: true,
            ..Self::plain(class, risk, reason)
        }
    }
    fn technique(mut self, id: &'static str) -> Self {
        self.techniques.push(id);
        self
    }
}

/// Names a class for one behaviour of an observation.
pub fn classify(obs: &Observation, b: &Behaviour, context: &Context<'_>) -> Class {
    let act = Act { obs, b, context };
    let mut class = act.class();
    act.aggravate(&mut class);
    if let Some(since) = obs.found_since() {
        let since = since.rfc3339();
        let since = since.split('.').next().unwrap_or_default();
        class.reason += &format!("; it ran already when the agent came, since {since}Z");
    }
    class
}

struct Act<'a> {
    obs: &'a Observation,
    b: &'a Behaviour,
    context: &'a Context<'a>,
}

// The main path.
impl Act<'_> {
    fn class(&self) -> Class {
        if self.is_runtime_setup() {
            let reason = "the container runtime sets the container up";
            return Class::plain(self.setup_class(), Risk::Low, reason);
        }
        match &self.obs.event.kind {
            EventKind::Exec(exec) if self.b.kind == BehaviourKind::Arguments => {
                self.arguments(exec)
            }
            EventKind::Exec(exec) => self.exec(exec),
            EventKind::File(file) => self.file(file),
            EventKind::Library { path, origin } => self.library(path, *origin),
            EventKind::Socket {
                family,
                kind,
                protocol,
            } => self.socket(*family, *kind, *protocol),
            EventKind::Connect(c) | EventKind::Datagram(c) => self.outbound(c),
            EventKind::Accept(_) => {
                self.never(DriftClass::NewInboundPeer, Risk::Low, "was reached by")
            }
            EventKind::Listen { proto, local } => self.listen(*proto, local),
            EventKind::Bind { proto, .. } => self.bind(*proto),
            EventKind::Dns(_) => self.dns(),
            EventKind::Dup { target, peer, .. } => self.dup(*target, peer.as_ref()),
            EventKind::Namespace { call, flags } => self.namespace(*call, *flags),
            EventKind::Mount { call, .. } => self.mount(*call),
            EventKind::Ptrace { request, .. } => self.ptrace(*request),
            EventKind::Module { .. } => kernel_module("loading a kernel module"),
            EventKind::Bpf { .. } => Class::risky(
                DriftClass::BpfUse,
                Risk::High,
                "bpf programs can watch and change the whole host; services do not use them",
            ),
            EventKind::Credentials {
                old_uid,
                new_uid,
                old_caps,
                new_caps,
            } => self.credentials((*old_uid, *new_uid), new_caps & !old_caps),
            EventKind::Syscall { .. } => self.syscall(),
            EventKind::Memfd { .. } => Class::risky(
                DriftClass::MemoryFile,
                Risk::Medium,
                "a file in memory can hold a program that never touches a disk",
            ),
            EventKind::CgroupAttach { path, .. } => self.cgroup(path),
            EventKind::CgroupMkdir { .. } | EventKind::CgroupRmdir { .. } => {
                self.never(DriftClass::RareCall, Risk::Low, "made the cgroup")
            }
            EventKind::Rare { nr, .. } => self.rare(*nr),
            EventKind::Signal { .. } => self.never(DriftClass::RareCall, Risk::Low, "sent"),
            EventKind::Exit { .. } | EventKind::Fork { .. } => {
                Class::plain(DriftClass::RareCall, Risk::Low, "a process began or ended")
            }
        }
    }

    /// What makes any class worse: arguments that changed while they were read, and the company
    /// that it is in.
    fn aggravate(&self, class: &mut Class) {
        if self.obs.event.tampered {
            class.class = DriftClass::ArgumentRace;
            class.risk = class.risk.max(Risk::Medium);
            class.quarantine = true;
            let was = std::mem::take(&mut class.reason);
            class.reason = format!(
                "arguments changed while the kernel read them, as in an attempt to hide them; {was}"
            );
        }
        if let Some((parent, child)) = self.unapproved_ancestor() {
            class.quarantine = true;
            if self.b.kind == BehaviourKind::Exec {
                class.risk = class.risk.max(Risk::Medium);
            }
            let (parent, child) = (shown_name(&parent), shown_name(&child));
            let by = if parent.is_empty() {
                "from outside".to_owned()
            } else {
                format!("by {parent}")
            };
            class.reason +=
                &format!("; under {child}, whose start {by} is new itself and waits for approval");
        }
    }

    /// A (parent, child) pair in the lineage whose start is itself pending.
    fn unapproved_ancestor(&self) -> Option<(Text, Text)> {
        let baseline = self.context.baseline?;
        let lineage = &self.obs.lineage;
        // the exec event is judged on its own
        let skip = usize::from(matches!(self.obs.event.kind, EventKind::Exec(_)));
        (skip..lineage.len()).find_map(|i| {
            let child = &lineage[i];
            let inside = lineage.get(i + 1).filter(|p| !is_outside(p, child.entry));
            let parent = inside.map_or_else(Text::default, |p| crate::code::program_path(&p.exe));
            let child = crate::code::program_path(&child.exe);
            baseline
                .is_parked_pair(&parent, &child)
                .then_some((parent, child))
        })
    }

    /// The runtime prepares the container from inside: its own program acts, and nothing of the
    /// workload is among its ancestors, which a workload cannot bring about.
    fn is_runtime_setup(&self) -> bool {
        let lineage = &self.obs.lineage;
        // the runtime's program is the host's: never in the image or in what was written since
        let host_program = match &self.obs.event.kind {
            EventKind::File(_) | EventKind::Connect(_) => false,
            EventKind::Exec(exec) => matches!(
                exec.origin,
                Origin::Unknown | Origin::Foreign | Origin::Memfd | Origin::Pseudo
            ),
            _ => true,
        };
        // an entry point that calls itself runc is known by its exec
        let of_image = |b: &Baseline| b.index.runs(&lineage[0].exe);
        !lineage.is_empty()
            && !self.obs.lineage_cut
            && host_program
            && lineage.iter().all(|a| is_runtime(a.exe.as_bytes()))
            && !self.context.baseline.is_some_and(of_image)
    }

    fn setup_class(&self) -> DriftClass {
        match self.obs.event.kind {
            EventKind::Namespace { .. } => DriftClass::NamespaceChange,
            EventKind::Mount { .. } => DriftClass::MountChange,
            EventKind::Credentials { .. } => DriftClass::UidChange,
            EventKind::Memfd { .. } => DriftClass::MemoryFile,
            EventKind::Exec(_) => DriftClass::NewProgram,
            EventKind::Library { .. } => DriftClass::NewLibrary,
            _ => DriftClass::RareCall,
        }
    }
}

// Who acts.
impl Act<'_> {
    fn actor(&self) -> Option<&Ancestor> {
        self.obs.lineage.first()
    }

    /// Path of the acting program; of a multi-call program, the name it was called by.
    fn exe(&self) -> &[u8] {
        self.actor()
            .map_or(b"", |a| applet(a.exe.as_bytes(), &a.argv))
    }

    /// Name of the acting program, for a sentence.
    fn program(&self) -> String {
        match name_of(self.exe()) {
            "" => self.obs.event.process.comm.to_string(),
            name => Text::from(name).to_string(),
        }
    }

    /// `nginx never read … before`: ordinary and new.
    fn never(&self, class: DriftClass, risk: Risk, verb: &str) -> Class {
        let reason = format!("{} never {verb} {} before", self.program(), self.b.object);
        Class::plain(class, risk, reason)
    }

    /// A shell, or a tool that reads, fetches or tunnels for whoever calls it.
    fn is_hand(&self) -> bool {
        is_shell(self.exe()) || is_read_tool(self.exe()) || is_offensive_tool(self.exe())
    }

    /// Came in from outside: an exec session, or the host.
    fn is_visitor(&self) -> bool {
        !matches!(entry(self.obs.event.process.entry), Entry::Init)
    }

    /// An account or package program of the image does its work while the container learns.
    fn is_housekeeping(&self) -> bool {
        self.context.learning() && !self.is_visitor() && is_credential_reader(self.exe())
    }

    /// A server of the image at its own work while the container learns.
    fn serves_while_learning(&self) -> bool {
        let script = self.actor().map_or(b"".as_slice(), |a| a.script.as_bytes());
        self.context.learning() && !self.is_visitor() && is_server(self.exe(), script)
    }

    /// Low while learning, worse when the baseline should have known it.
    fn later(&self, risk: Risk) -> Risk {
        if self.context.learning() {
            Risk::Low
        } else {
            risk
        }
    }
}

// Programs.
impl Act<'_> {
    fn exec(&self, exec: &Exec) -> Class {
        let exe = applet(exec.exe.as_bytes(), &exec.argv);
        let name = Text::from(name_of(exe)).to_string();
        if exec.deleted || exec.origin == Origin::Memfd || is_nameless(exec.exe.as_bytes()) {
            let reason = format!(
                "{name} runs from memory or from a file already deleted: nothing to find on disk"
            );
            return Class::risky(DriftClass::FilelessProgram, Risk::Critical, reason);
        }
        if is_miner(exe) {
            return miner(exec.origin, &name);
        }
        if exec.origin.is_writable() {
            return self.writable_program(exec, &name);
        }
        if let Some(class) = self.under_server(exec, exe, &name) {
            return class;
        }
        if self.b.program.is_empty() && self.is_visitor() {
            return self.entered(exec, &name);
        }
        self.new_program(exec, exe, &name)
    }

    fn writable_program(&self, exec: &Exec, name: &str) -> Class {
        let path = exec.exe.as_bytes();
        // the file is what has to be found; the name is the starter's choice
        let shown = match name_of(path) == name {
            true => exec.exe.to_string(),
            false => format!("{} (as {name})", exec.exe),
        };
        let odd_place = in_temp(path) || exec.origin == Origin::Tmpfs || name.starts_with('.');
        let risk = match exec.origin {
            Origin::Volume if !odd_place => Risk::Medium,
            _ => Risk::High,
        };
        let place = match exec.origin {
            Origin::Volume => "a volume",
            Origin::Tmpfs => "memory-backed storage",
            _ => "the container's writable layer",
        };
        let reason = match exec.origin {
            // which file it is cannot be told: the image's own may be among them
            Origin::Foreign => format!(
                "{shown} was started from mounts that are not the container's: the host's, another container's, or some made since"
            ),
            _ => format!(
                "{shown} is not part of the image: it came into {place} after the container was created"
            ),
        };
        let class = Class::risky(DriftClass::ProgramFromWritable, risk, reason);
        if self.is_namesake(exec) {
            class.technique("T1036.005")
        } else {
            class
        }
    }

    /// It calls itself like a program that the image is known for.
    fn is_namesake(&self, exec: &Exec) -> bool {
        let name = name_of(exec.exe.as_bytes());
        let expects = |b: &Baseline| {
            let mut execs = b
                .expected()
                .filter(|(_, e)| e.behaviour.kind == BehaviourKind::Exec);
            execs.any(|(_, e)| {
                let known = crate::generalise::exec_program(&e.behaviour);
                known != exec.exe && name_of(known.as_bytes()) == name
            })
        };
        self.context.baseline.is_some_and(expects)
    }

    /// A shell, interpreter or tool started by a server.
    fn under_server(&self, exec: &Exec, exe: &[u8], name: &str) -> Option<Class> {
        let parent = self.obs.parent().filter(|_| !self.b.program.is_empty())?;
        let by_name = is_server(parent.exe.as_bytes(), parent.script.as_bytes());
        let listens = || {
            self.context
                .baseline
                .is_some_and(|b| b.is_listener(&self.b.program))
        };
        let parent_exe = applet(parent.exe.as_bytes(), &parent.argv);
        // a server may start itself again; a shell that listens is graded when it listens
        if is_shell(parent_exe)
            || parent.exe == exec.exe
            || self.is_of_the_beginning(parent)
            || !(by_name || listens())
        {
            return None;
        }
        let by = Text::from(name_of(parent_exe));
        let what = if by_name {
            "a server"
        } else {
            "which listens on a port"
        };
        if self.context.learning() && lists_locales(parent_exe, exec) {
            let reason = format!("{name} was started by {by} to list the locales there are");
            return Some(Class::plain(DriftClass::NewParentage, Risk::Low, reason));
        }
        if is_shell(exe) || (is_interpreter(exe) && !is_server(exe, exec.script.as_bytes())) {
            let reason = format!(
                "{name} was started by {by}, {what}: typical of a hole in the service being used"
            );
            return Some(
                Class::risky(DriftClass::ShellUnderServer, Risk::High, reason).technique("T1190"),
            );
        }
        (is_read_tool(exe) || is_offensive_tool(exe)).then(|| {
            let reason = format!(
                "{by}, {what}, started {name}, a tool that reads or fetches for its caller"
            );
            Class::risky(DriftClass::NewProgram, Risk::Medium, reason).technique("T1190")
        })
    }

    /// What was found running and began with the container: an entry point starts its helpers, then
    /// becomes the server, and then that is the parent that `/proc` shows.
    fn is_of_the_beginning(&self, parent: &Ancestor) -> bool {
        const BEGINNING_NS: u64 = 60_000_000_000;
        let first = self.obs.lineage.len() == 2 && !self.obs.lineage_cut;
        let began = self.obs.event.process.key.start.0;
        let soon = began.saturating_sub(parent.key.start.0) < BEGINNING_NS;
        self.obs.found_since().is_some() && first && soon
    }

    /// `docker exec`, a probe, or `nsenter` from the host.
    fn entered(&self, exec: &Exec, name: &str) -> Class {
        let host = self.obs.event.process.entry == Entry::Host;
        let how = match (host, exec.tty != 0) {
            (true, _) => "by other means than its runtime",
            (false, true) => "with a terminal",
            (false, false) => "through its runtime",
        };
        let reason = format!("somebody entered the container {how} and started {name}");
        let class = if host || exec.tty != 0 {
            Class::risky(DriftClass::InteractiveEntry, Risk::Medium, reason)
        } else {
            // health checks come in this way: learned while learning
            Class::plain(
                DriftClass::InteractiveEntry,
                self.later(Risk::Medium),
                reason,
            )
        };
        class.technique("T1609")
    }

    fn new_program(&self, exec: &Exec, exe: &[u8], name: &str) -> Class {
        if self
            .context
            .baseline
            .is_some_and(|b| b.index.expects_program(self.b))
        {
            let by = match shown_name(&self.b.program).as_str() {
                "" => "from outside".to_owned(),
                by => format!("by {by}"),
            };
            let reason = format!("{name} is known here, but was never started {by}");
            return Class::plain(DriftClass::NewParentage, Risk::Low, reason);
        }
        if is_offensive_tool(exe) {
            let reason = format!(
                "{name} scans, tunnels, traces or commands containers; it never ran here before"
            );
            let class = Class::plain(DriftClass::NewProgram, Risk::Medium, reason);
            return match name_of(exe) {
                "nmap" | "masscan" | "zmap" => class.technique("T1046"),
                "kubectl" | "docker" | "crictl" | "ctr" => class.technique("T1613"),
                "nsenter" => class.technique("T1611"),
                _ => class,
            };
        }
        if let Some(reason) = self.other_code(exec, exe, name) {
            return Class::plain(DriftClass::NewProgram, Risk::Medium, reason);
        }
        let set_uid = exec.mode & 0o4000 != 0 && self.obs.event.process.uid != 0;
        let more = if set_uid {
            ", and is set-uid: it runs with its owner's rights"
        } else {
            ""
        };
        let reason = format!("{name} was never run here before{more}");
        Class::plain(DriftClass::NewProgram, Risk::Medium, reason)
    }

    /// An interpreter that the baseline knows, with code that it does not.
    fn other_code(&self, exec: &Exec, exe: &[u8], name: &str) -> Option<String> {
        let runs = |b: &Baseline| b.index.starts(&exec.exe);
        if !(is_interpreter(exe) || is_shell(exe)) || !self.context.baseline.is_some_and(runs) {
            return None;
        }
        Some(match exec.script.is_empty() {
            true => format!(
                "{name} runs here with scripts that are known, but was started with none of them: with code in its arguments or on its input"
            ),
            false => format!(
                "{name} runs here with other scripts, but never ran {} before",
                exec.script
            ),
        })
    }

    fn arguments(&self, exec: &Exec) -> Class {
        let exe = applet(exec.exe.as_bytes(), &exec.argv);
        let name = Text::from(name_of(exe));
        if is_shell(exe) && exec.argv.iter().any(|a| dials(a.as_bytes())) {
            let reason = format!(
                "{name} is told to open a network connection by itself (/dev/tcp), as reverse shells are"
            );
            return Class::risky(DriftClass::NewArguments, Risk::High, reason);
        }
        let tools = is_shell(exe) && runs_tools(&self.b.object);
        let risk = if tools { Risk::Medium } else { Risk::Low };
        let reason = format!("{name} was never run with arguments of this shape");
        Class::plain(DriftClass::NewArguments, risk, reason)
    }

    fn library(&self, path: &Text, origin: Origin) -> Class {
        let itself = self.actor().is_some_and(|a| a.exe == *path);
        if itself || !origin.is_writable() {
            return self.never(DriftClass::NewLibrary, Risk::Low, "mapped");
        }
        let program = self.program();
        let whence = match origin {
            Origin::Foreign => "from mounts that are not the container's",
            _ => "which came into the container after it was created",
        };
        let reason = format!("{program} runs code of {path}, {whence}");
        if matches!(origin, Origin::Memfd | Origin::Tmpfs) || in_temp(path.as_bytes()) {
            return Class::risky(DriftClass::LibraryFromWritable, Risk::High, reason);
        }
        Class::plain(DriftClass::LibraryFromWritable, Risk::Medium, reason)
    }
}

// Files.
impl Act<'_> {
    fn file(&self, file: &FileEvent) -> Class {
        let subject = match file.op {
            FileOp::Rename | FileOp::Link | FileOp::Symlink => &file.target,
            _ => &file.path,
        };
        let path = clean(subject.as_bytes());
        let shown = Text::new(&*path);
        if let Some(inner) = self.host_path(file, &path) {
            return self.host_file(file, &shown, inner);
        }
        let kind = sensitive(&path);
        if file.op == FileOp::Failed || file.result < 0 {
            return self.failed(kind, &shown);
        }
        let special = match kind {
            Some(Sensitive::HostControl) => self.host_control(file, &shown),
            Some(Sensitive::RuntimeSocket) => Some(self.runtime_socket(&shown)),
            Some(Sensitive::Credential) => Some(self.credential(file, &path, &shown)),
            Some(Sensitive::OwnSecret) => self.own_secret(file, &path, &shown),
            Some(Sensitive::ProcessMemory) => Some(self.process_memory(&path, &shown)),
            Some(Sensitive::Persistence) => self.persistence(file, &path, &shown),
            Some(Sensitive::Program) => self.program_file(file, &path, &shown),
            Some(Sensitive::Trace) | None => None,
        };
        special
            .or_else(|| self.traces(file))
            .or_else(|| self.second_name(file))
            .or_else(|| self.web_script(file, &path, &shown))
            .unwrap_or_else(|| self.ordinary_file(file, &path, &shown))
    }

    /// The path inside the host's file system, when a mount of the container (or another
    /// process's root) shows one.
    fn host_path<'p>(&self, file: &FileEvent, path: &'p [u8]) -> Option<&'p [u8]> {
        if !matches!(
            file.origin,
            Origin::Volume | Origin::Unknown | Origin::Foreign
        ) {
            return None;
        }
        let through_proc = path.strip_prefix(b"/proc/").and_then(|rest| {
            let at = rest.windows(6).position(|w| w == b"/root/")?;
            Some(&rest[at + 5..])
        });
        let mounts = self.context.container.mounts.iter();
        let through_mounts = mounts.flat_map(|m| {
            let m = m.trim_end_matches('/');
            let rest = path.strip_prefix(m.as_bytes());
            let within = rest.filter(|r| !m.is_empty() && r.first() == Some(&b'/'));
            // the host's root is mounted here, or a directory of it under its own name (/host/etc)
            let last = m.rfind('/').filter(|at| *at > 0);
            within
                .into_iter()
                .chain(within.and(last).into_iter().map(|at| &path[at..]))
        });
        through_proc
            .into_iter()
            .chain(through_mounts)
            .find(|p| is_host_like(p))
    }

    fn host_file(&self, file: &FileEvent, shown: &Text, inner: &[u8]) -> Class {
        let inner = Text::new(inner);
        let (risk, verb) = match changes(file.op) {
            true => (Risk::Critical, "changed"),
            false => (Risk::High, "looked at"),
        };
        let reason = format!(
            "{} {verb} {shown}, which looks like the host's own {inner}",
            self.program()
        );
        Class::risky(DriftClass::HostControlFile, risk, reason).technique("T1611")
    }

    fn failed(&self, kind: Option<Sensitive>, shown: &Text) -> Class {
        let worth = matches!(
            kind,
            Some(Sensitive::Credential | Sensitive::HostControl | Sensitive::RuntimeSocket)
        );
        let own_key = is_tls_key_dir(shown.as_bytes()) && self.serves_while_learning();
        if worth && !own_key && !self.is_housekeeping() {
            let reason = format!("{} tried to open {shown} and could not", self.program());
            if kind == Some(Sensitive::HostControl) {
                let reason = format!("{reason}: it controls the host itself");
                return Class::risky(DriftClass::HostControlFile, Risk::Medium, reason)
                    .technique("T1611");
            }
            return Class::risky(DriftClass::SensitiveFileRead, Risk::Medium, reason)
                .technique("T1552.001");
        }
        self.never(DriftClass::NewFileRead, Risk::Low, "tried to open")
    }

    fn host_control(&self, file: &FileEvent, shown: &Text) -> Option<Class> {
        let path = shown.as_bytes();
        let raw = path.starts_with(b"/dev/") || path == b"/proc/kcore";
        (changes(file.op) || raw).then(|| {
            let reason = format!(
                "{shown} controls the host itself; {} used it",
                self.program()
            );
            Class::risky(DriftClass::HostControlFile, Risk::Critical, reason).technique("T1611")
        })
    }

    fn runtime_socket(&self, shown: &Text) -> Class {
        let program = self.program();
        let reason =
            format!("{program} used {shown}: who commands the container runtime commands the host");
        Class::risky(DriftClass::RuntimeSocket, Risk::High, reason)
            .technique("T1609")
            .technique("T1610")
    }

    fn credential(&self, file: &FileEvent, path: &[u8], shown: &Text) -> Class {
        let program = self.program();
        if is_tls_key_dir(path) && changes(file.op) {
            // certificates are renewed every few weeks, by programs of many names
            let reason = format!("{program} changed {shown}, where keys of certificates are kept");
            return Class::plain(DriftClass::PersistenceWrite, Risk::Medium, reason);
        }
        if changes(file.op) {
            let reason = format!(
                "{program} changed {shown}, which decides who may log in or act for others"
            );
            return self.account_change(path, reason);
        }
        let own_key = is_tls_key_dir(path)
            && (self.serves_while_learning()
                || (file.op == FileOp::List && self.context.learning()));
        if own_key || self.is_housekeeping() {
            let reason = format!("{program} reads {shown} as part of its work");
            return Class::plain(DriftClass::SensitiveFileRead, Risk::Low, reason);
        }
        if file.op == FileOp::Read && self.asks_for_users(path) {
            let reason = format!(
                "{program} looks up users for a script that was installed: as root Perl opens {shown} for that"
            );
            return Class::plain(DriftClass::SensitiveFileRead, Risk::Low, reason);
        }
        if file.op == FileOp::List {
            let reason = format!("{program} listed {shown}, where credentials are kept");
            return Class::risky(DriftClass::SensitiveFileRead, Risk::Medium, reason)
                .technique("T1552.001");
        }
        let reason = format!("{program} read {shown}, which holds credentials");
        Class::risky(DriftClass::SensitiveFileRead, Risk::High, reason).technique("T1552.001")
    }

    /// Perl's `getpwuid` opens the password hashes too when root calls it (perlfunc): `psql`, `pg_dump`
    /// and others of Debian's PostgreSQL begin with that. Only for scripts where programs are installed.
    fn asks_for_users(&self, path: &[u8]) -> bool {
        let installed = |script: &[u8]| {
            is_program_dir(script) || script.starts_with(b"/usr/share/postgresql-common/")
        };
        path == b"/etc/shadow"
            && self.actor().is_some_and(|a| {
                name_of(a.exe.as_bytes()).starts_with("perl") && installed(a.script.as_bytes())
            })
    }

    fn account_change(&self, path: &[u8], reason: String) -> Class {
        if self.is_housekeeping() {
            return Class::plain(DriftClass::PersistenceWrite, Risk::Low, reason);
        }
        let account = matches!(
            path,
            b"/etc/passwd" | b"/etc/shadow" | b"/etc/group" | b"/etc/gshadow"
        );
        let technique = if account { "T1136.001" } else { "T1098" };
        Class::risky(DriftClass::PersistenceWrite, Risk::High, reason).technique(technique)
    }

    /// A service reads the secret that it was given; a tool or a visitor should not.
    fn own_secret(&self, file: &FileEvent, path: &[u8], shown: &Text) -> Option<Class> {
        if changes(file.op) {
            return None;
        }
        let program = self.program();
        // start scripts take passwords from files before they start the service
        let starts = (is_shell(self.exe()) || program == "cat")
            && !path.windows(14).any(|w| w == b"serviceaccount");
        if self.context.learning() && (!self.is_hand() || starts) && !self.is_visitor() {
            let reason = format!("{program} reads a secret that was given to this container");
            return Some(Class::plain(
                DriftClass::SensitiveFileRead,
                Risk::Low,
                reason,
            ));
        }
        let risk = if self.context.learning() {
            Risk::Medium
        } else {
            Risk::High
        };
        let token = path.windows(14).any(|w| w == b"serviceaccount");
        let technique = if token { "T1528" } else { "T1552.001" };
        let reason = format!("{program} read {shown}, a secret of this container");
        Some(Class::risky(DriftClass::SensitiveFileRead, risk, reason).technique(technique))
    }

    fn process_memory(&self, path: &[u8], shown: &Text) -> Class {
        let program = self.program();
        // one's own, where the path still says so
        if path.starts_with(b"/proc/self/") || path.starts_with(b"/proc/thread-self/") {
            return self.never(DriftClass::NewFileRead, Risk::Low, "opened");
        }
        if path.ends_with(b"/mem") {
            let reason = format!("{program} opened {shown}: the memory of a process");
            return Class::risky(DriftClass::ProcessTampering, Risk::High, reason);
        }
        let lists = matches!(
            program.as_str(),
            "ps" | "top" | "htop" | "pgrep" | "pidof" | "pkill"
        );
        if lists && self.context.learning() && !self.is_visitor() {
            let reason = format!("{program} read {shown} for its list of processes");
            return Class::plain(DriftClass::SensitiveFileRead, Risk::Low, reason);
        }
        let reason = format!("{program} read {shown}: environments hold passwords and tokens");
        Class::risky(DriftClass::SensitiveFileRead, Risk::Medium, reason).technique("T1552.001")
    }

    fn persistence(&self, file: &FileEvent, path: &[u8], shown: &Text) -> Option<Class> {
        if !changes(file.op) {
            return None;
        }
        let program = self.program();
        Some(match path {
            b"/etc/ld.so.preload" => Class::risky(
                DriftClass::PersistenceWrite,
                Risk::Critical,
                format!(
                    "{program} changed {shown}: every program started from now on loads what it names"
                ),
            ),
            b"/etc/passwd" | b"/etc/group" => self.account_change(
                path,
                format!("{program} changed {shown}, the list of accounts"),
            ),
            _ => {
                let reason = format!(
                    "{program} changed {shown}, from where programs are started or logins allowed later"
                );
                let class = Class::risky(DriftClass::PersistenceWrite, Risk::High, reason);
                match persistence_technique(path) {
                    Some(id) => class.technique(id),
                    None => class,
                }
            }
        })
    }

    fn program_file(&self, file: &FileEvent, path: &[u8], shown: &Text) -> Option<Class> {
        use FileOp::*;
        if !matches!(file.op, Write | Create | Rename | Link | Symlink) {
            return None;
        }
        let program = self.program();
        if path.ends_with(b".pyc") || path.windows(11).any(|w| w == b"__pycache__") {
            let reason = format!("{program} wrote compiled code beside its source");
            return Some(Class::plain(
                DriftClass::ProgramFileWrite,
                Risk::Low,
                reason,
            ));
        }
        let installs = matches!(
            name_of(self.exe()),
            "dpkg" | "apt" | "apt-get" | "apk" | "rpm" | "dnf" | "yum" | "pip" | "pip3" | "npm"
        );
        let risk = if installs { Risk::Medium } else { Risk::High };
        let reason =
            format!("{program} wrote {shown}, where programs and libraries are started from");
        Some(Class::risky(DriftClass::ProgramFileWrite, risk, reason))
    }

    /// Logs and histories removed, renamed away, replaced or emptied.
    fn traces(&self, file: &FileEvent) -> Option<Class> {
        let target = clean(file.target.as_bytes());
        let path = match file.op {
            // a link, or another file, put in the place of a history
            FileOp::Symlink | FileOp::Link => target,
            FileOp::Rename if is_history(&target) => target,
            _ => clean(file.path.as_bytes()),
        };
        if sensitive(&path) != Some(Sensitive::Trace) {
            return None;
        }
        let verb = self.trace_verb(file, &path)?;
        let (program, shown) = (self.program(), Text::new(&*path));
        if is_history(&path) && self.keeps_its_history(file, &path) {
            let reason = format!("{program} wrote its own history {shown} anew");
            return Some(Class::plain(DriftClass::TracesRemoved, Risk::Low, reason));
        }
        let packs =
            ["gzip", "bzip2", "xz", "zstd"].contains(&program.as_str()) && !is_history(&path);
        if program == "logrotate" || program == "savelog" || packs {
            let reason = format!("{program} rotates {shown}");
            return Some(Class::plain(DriftClass::TracesRemoved, Risk::Low, reason));
        }
        let grave = is_history(&path) || self.is_hand() || self.is_visitor() || program == "rm";
        let risk = if grave { Risk::High } else { Risk::Medium };
        let reason = format!("{program} {verb} {shown}: traces are gone");
        Some(Class::risky(DriftClass::TracesRemoved, risk, reason).technique("T1070"))
    }

    /// A shell at the end of a session: it puts a file of its own making in the history's place, named
    /// after it (`.bash_history-17.tmp`, `.ash_history.17.new`, `.zsh_history.new`), or cuts the history
    /// that it has open (old readline; a redirection would create the file). Clients do the same to the
    /// history that is named after them (`redis-cli` to `.rediscli_history`), and create it. A session that
    /// was emptied first (`history -c`) ends in the same way: what was typed is told by its own events.
    fn keeps_its_history(&self, file: &FileEvent, path: &[u8]) -> bool {
        const O_CREAT: u32 = 0o100;
        let letters = |name: &str| name.replace(|c: char| !c.is_ascii_alphabetic(), "");
        let name = name_of(self.exe());
        let program = letters(name);
        // of a program that is many, what it calls itself
        let many = matches!(name, "busybox" | "toybox");
        let shell =
            is_shell(self.exe()) && (!many || is_shell(self.obs.event.process.comm.as_bytes()));
        let named_after =
            !is_shell(self.exe()) && program.len() > 2 && letters(name_of(path)).contains(&program);
        match file.op {
            FileOp::Rename if shell || named_after => {
                let source = clean(file.path.as_bytes());
                source.strip_prefix(path).is_some_and(is_copy_in_the_making)
            }
            FileOp::Write if shell => file.flags & O_CREAT == 0,
            FileOp::Write => named_after,
            _ => false,
        }
    }

    fn trace_verb(&self, file: &FileEvent, path: &[u8]) -> Option<&'static str> {
        const O_TRUNC: u32 = 0o1000;
        match file.op {
            FileOp::Unlink | FileOp::Rmdir => Some("removed"),
            FileOp::Rename => Some("moved or replaced"),
            // logs are often links (to /dev/stdout); histories never
            FileOp::Symlink | FileOp::Link => is_history(path).then_some("replaced"),
            // one that was not there before lost nothing; an argument cannot tell (io_uring)
            FileOp::Create if self.obs.event.trust == Trust::Object => None,
            FileOp::Write | FileOp::Create => {
                let emptied = file.flags & O_TRUNC != 0;
                (emptied && (is_history(path) || self.is_hand())).then_some("emptied")
            }
            FileOp::Read
            | FileOp::List
            | FileOp::Mkdir
            | FileOp::Chmod
            | FileOp::Chown
            | FileOp::Failed => None,
        }
    }

    /// A link to, or a new name for, a secret: it can then be read under that name.
    fn second_name(&self, file: &FileEvent) -> Option<Class> {
        if !matches!(file.op, FileOp::Rename | FileOp::Link | FileOp::Symlink) {
            return None;
        }
        let path = clean(file.path.as_bytes());
        let secret = matches!(
            sensitive(&path),
            Some(Sensitive::Credential | Sensitive::HostControl | Sensitive::RuntimeSocket)
        );
        (secret && !self.is_housekeeping()).then(|| {
            let reason = format!("{} gave {} another name", self.program(), Text::new(&*path));
            Class::risky(DriftClass::SensitiveFileRead, Risk::High, reason).technique("T1552.001")
        })
    }

    /// A server puts a script where it, or another, will run it, or runs one that came later than the
    /// image: a web shell. Templates that servers compile are kept in places of their own.
    fn web_script(&self, file: &FileEvent, path: &[u8], shown: &Text) -> Option<Class> {
        use FileOp::{Create, Link, Read, Rename, Symlink, Write};
        let script = self.actor().map_or(b"".as_slice(), |a| a.script.as_bytes());
        if !is_server_script(path) || !is_server(self.exe(), script) {
            return None;
        }
        let program = self.program();
        let reason = match file.op {
            Create | Write | Rename | Link | Symlink => {
                format!("{program}, a server, put {shown} there, a script that servers run")
            }
            Read if matches!(file.origin, Origin::Upper | Origin::Tmpfs) => format!(
                "{program}, a server, runs {shown}, which came into the container after it was created"
            ),
            _ => return None,
        };
        let class = match file.op {
            Read => DriftClass::NewFileRead,
            _ => DriftClass::ProgramFileWrite,
        };
        // of the matrix for containers: the way in that a web shell comes by
        Some(Class::plain(class, Risk::Medium, reason).technique("T1190"))
    }

    fn ordinary_file(&self, file: &FileEvent, path: &[u8], shown: &Text) -> Class {
        use FileOp::*;
        let (class, verb) = match file.op {
            Read | List | Failed => (DriftClass::NewFileRead, "read"),
            Unlink | Rmdir => (DriftClass::FileRemoved, "removed"),
            Rename => (DriftClass::FileRemoved, "renamed"),
            Chmod => return self.mode(file, path, shown),
            Write | Create | Mkdir | Chown | Link | Symlink => (DriftClass::NewFileWrite, "wrote"),
        };
        self.never(class, Risk::Low, verb)
    }

    fn mode(&self, file: &FileEvent, path: &[u8], shown: &Text) -> Class {
        let (program, mode) = (self.program(), file.flags & 0o7777);
        // set-gid directories are ordinary (03775 on a run directory): only programs matter
        let program_place = in_temp(path) || sensitive(path) == Some(Sensitive::Program);
        if mode & 0o4000 != 0 || (mode & 0o2000 != 0 && program_place) {
            let reason = format!(
                "{program} made {shown} set-uid or set-gid: whoever runs it gets its owner's rights"
            );
            return Class::risky(DriftClass::MadeExecutable, Risk::High, reason);
        }
        if mode & 0o111 == 0 {
            return self.never(DriftClass::NewFileWrite, Risk::Low, "changed the mode of");
        }
        let risk = if in_temp(path) {
            Risk::Medium
        } else {
            Risk::Low
        };
        Class::plain(
            DriftClass::MadeExecutable,
            risk,
            format!("{program} made {shown} executable"),
        )
    }
}

// Network.
impl Act<'_> {
    fn socket(&self, family: u16, kind: u16, protocol: u16) -> Class {
        const PACKET: u16 = 17;
        const NETLINK: u16 = 16;
        const RAW: u16 = 3;
        const ICMP: u16 = 1;
        const ICMP6: u16 = 58;
        let program = self.program();
        if family == NETLINK {
            let reason = format!("{program} never asked the kernel over netlink {protocol} before");
            return Class::plain(DriftClass::UnusualSocket, Risk::Low, reason);
        }
        if family == PACKET {
            let reason =
                format!("{program} reads or forges packets of the whole network (packet socket)");
            return Class::risky(DriftClass::UnusualSocket, Risk::High, reason);
        }
        if kind != RAW && [ICMP, ICMP6].contains(&protocol) {
            let reason = format!(
                "{program} sends pings (ICMP), which few services need and which can carry data"
            );
            return Class::plain(DriftClass::UnusualSocket, Risk::Medium, reason);
        }
        let raw = if kind == RAW { "raw " } else { "" };
        let family = names::family_name(family);
        let reason = format!("{program} opened a {raw}{family} socket, which services hardly need");
        Class::risky(DriftClass::UnusualSocket, Risk::Medium, reason)
    }

    fn outbound(&self, c: &Connection) -> Class {
        let (ip, port) = match &c.peer {
            SockAddr::Unix(path) => return self.unix_peer(path),
            SockAddr::Inet(ip, port) => (*ip, *port),
        };
        let (program, object) = (self.program(), &self.b.object);
        if is_metadata(ip) {
            let reason = format!(
                "{program} contacted {ip}, the cloud's metadata service, which hands out credentials"
            );
            return Class::risky(DriftClass::MetadataService, Risk::High, reason)
                .technique("T1552");
        }
        if ip.is_loopback() {
            return self.never(DriftClass::NewOutboundPeer, Risk::Low, "contacted");
        }
        if is_shell(self.exe()) {
            let reason = format!("{program}, a shell, contacted {object} by itself");
            return Class::risky(DriftClass::NewOutboundPeer, Risk::High, reason);
        }
        let mut class = self.never(DriftClass::NewOutboundPeer, Risk::Medium, "contacted");
        // a service may have no better name than a number
        if object.to_str_lossy().contains("service:") {
            class.reason += &format!(" (at {ip})");
        }
        // kubelet and Docker's API
        let orchestrator = matches!(port, 10_250 | 10_255 | 2375 | 2376);
        if orchestrator {
            class.technique("T1613")
        } else {
            class
        }
    }

    fn unix_peer(&self, path: &Text) -> Class {
        match sensitive(path.as_bytes()) {
            Some(Sensitive::RuntimeSocket) => self.runtime_socket(path),
            _ => self.never(DriftClass::NewOutboundPeer, Risk::Low, "contacted"),
        }
    }

    fn listen(&self, proto: Proto, local: &SockAddr) -> Class {
        if self.is_hand() {
            let (program, object) = (self.program(), &self.b.object);
            let reason = format!(
                "{program} waits for connections on {object}: a back door rather than a service"
            );
            return Class::risky(DriftClass::NewListeningPort, Risk::High, reason);
        }
        let local_only = match local {
            SockAddr::Unix(_) => true,
            SockAddr::Inet(ip, _) => ip.is_loopback() || proto == Proto::Unix,
        };
        let risk = if local_only { Risk::Low } else { Risk::Medium };
        self.never(DriftClass::NewListeningPort, risk, "listened on")
    }

    fn bind(&self, proto: Proto) -> Class {
        match proto {
            Proto::Raw => {
                let reason = format!("{} bound a raw socket ({})", self.program(), self.b.object);
                Class::risky(DriftClass::UnusualSocket, Risk::Medium, reason)
            }
            Proto::Tcp | Proto::Udp | Proto::Unix | Proto::Other => {
                self.never(DriftClass::NewListeningPort, Risk::Low, "bound")
            }
        }
    }

    fn dns(&self) -> Class {
        let (program, name) = (self.program(), &self.b.object);
        let text = name.to_str_lossy();
        if text == "metadata.google.internal" {
            let reason = format!("{program} asked for {name}, the cloud's metadata service");
            return Class::risky(DriftClass::MetadataService, Risk::Medium, reason)
                .technique("T1552");
        }
        let pools = [
            "minexmr.",
            "nanopool.",
            "supportxmr.",
            "moneroocean.",
            "stratum.",
        ];
        if pools.iter().any(|p| text.contains(p)) {
            let reason = format!("{program} asked for {name}, a mining pool");
            return Class::risky(DriftClass::NewDnsName, Risk::High, reason).technique("T1496.001");
        }
        self.never(DriftClass::NewDnsName, Risk::Low, "asked for")
    }

    fn dup(&self, target: DupTarget, peer: Option<&SockAddr>) -> Class {
        let program = self.program();
        let exe = self.exe();
        if target != DupTarget::Inet {
            let reason = format!("{program} has its input or output on a local socket");
            return Class::plain(DriftClass::StreamsOnSocket, Risk::Low, reason);
        }
        let runs_code = is_shell(exe) || is_interpreter(exe) || is_offensive_tool(exe);
        let risk = if runs_code {
            Risk::Critical
        } else {
            Risk::High
        };
        let at = peer.map_or(String::new(), |p| format!(" with {p}"));
        let itself = matches!(peer, Some(SockAddr::Inet(ip, _)) if ip.is_loopback());
        if itself && is_shell(exe) {
            // how a health check reads its answer where the image has no client
            let reason = format!(
                "{program} has its input or output on a connection{at}, within the container: a check of its health, or a way in through another program"
            );
            return Class::plain(DriftClass::StreamsOnSocket, Risk::Medium, reason);
        }
        let reason = format!(
            "{program} has its input or output on a network connection{at}: somebody may be typing at the other end"
        );
        Class::risky(DriftClass::StreamsOnSocket, risk, reason)
    }
}

// Rights, and the way to the host.
impl Act<'_> {
    fn namespace(&self, call: NamespaceCall, flags: u64) -> Class {
        let program = self.program();
        let which = names::namespace_names(flags);
        let (risk, what) = match call {
            NamespaceCall::Setns => (Risk::High, "entered other namespaces"),
            NamespaceCall::Unshare => (Risk::High, "made namespaces of its own"),
            NamespaceCall::Clone => (Risk::Medium, "started a process in namespaces of its own"),
        };
        let reason = format!(
            "{program} {what} ({which}): a step out of the container, or to rights within it"
        );
        Class::risky(DriftClass::NamespaceChange, risk, reason).technique("T1611")
    }

    fn mount(&self, call: MountCall) -> Class {
        let risk = match call {
            MountCall::Mount | MountCall::MoveMount | MountCall::PivotRoot => Risk::High,
            MountCall::Umount | MountCall::Chroot => Risk::Medium,
        };
        let (program, op, object) = (self.program(), &self.b.operation, &self.b.object);
        let reason = format!(
            "{program} changed mounts or root ({op}: {object}): this can uncover the host's files"
        );
        Class::risky(DriftClass::MountChange, risk, reason).technique("T1611")
    }

    fn ptrace(&self, request: u32) -> Class {
        let what = names::ptrace_name(request);
        let looking = matches!(
            what.as_str(),
            "traceme" | "peek" | "process_vm_readv" | "get registers"
        );
        let risk = if looking { Risk::Medium } else { Risk::High };
        let program = self.program();
        let reason = match what.as_str() {
            "traceme" => format!("{program} lets its parent trace it (traceme)"),
            _ => format!("{program} traces or changes another process ({what})"),
        };
        Class::risky(DriftClass::ProcessTampering, risk, reason)
    }

    fn credentials(&self, uid: (u32, u32), gained: u64) -> Class {
        let program = self.program();
        if self.b.operation.0 == "capability" {
            let risk = if gained & DANGEROUS_CAPABILITIES == 0 {
                Risk::Medium
            } else {
                Risk::High
            };
            let reason = format!("{program} gained {}", names::capability_names(gained));
            // the right that a ping takes up for its socket
            let pings = matches!(program.as_str(), "ping" | "ping6" | "fping" | "arping");
            if pings && gained == 1 << 13 {
                return Class::plain(DriftClass::NewCapability, Risk::Low, reason);
            }
            if self.steps_down(gained) {
                let reason = format!(
                    "{program}, which runs others as another user, took up rights again that it was started with"
                );
                return Class::plain(DriftClass::NewCapability, Risk::Low, reason);
            }
            return Class::risky(DriftClass::NewCapability, risk, reason).technique("T1068");
        }
        // `su -`, started by root, takes the other user's identity for a moment and its own back
        let by_root = self.obs.parent().is_some_and(|p| p.uid == 0);
        if uid.1 == 0 && by_root && self.is_housekeeping() {
            let reason = format!("{program} went back from user {} to root", uid.0);
            return Class::plain(DriftClass::UidChange, Risk::Low, reason);
        }
        if uid.1 == 0 {
            let reason = format!("{program} became root, from user {}", uid.0);
            return Class::risky(DriftClass::UidChange, Risk::High, reason).technique("T1068");
        }
        let risk = if uid.0 == 0 { Risk::Low } else { Risk::Medium };
        let reason = format!("{program} went from user {} to user {}", uid.0, uid.1);
        Class::plain(DriftClass::UidChange, risk, reason)
    }

    /// A program that start scripts of images use to become another user keeps its rights over that
    /// change, takes them up once more and gives them away with the next exec. Its name alone excuses
    /// nothing: they must be rights that it was started with.
    fn steps_down(&self, gained: u64) -> bool {
        const NAMES: [&str; 6] = ["setpriv", "capsh", "gosu", "su-exec", "runuser", "chpst"];
        let facts = self.actor().and_then(|a| a.facts.as_ref());
        NAMES.contains(&name_of(self.exe())) && facts.is_some_and(|f| gained & !f.caps == 0)
    }

    fn syscall(&self) -> Class {
        let rare = RARE_SYSCALLS.contains(&&*self.b.object.to_str_lossy());
        let risk = if rare { Risk::Medium } else { Risk::Low };
        self.never(DriftClass::NewSyscall, risk, "used the system call")
    }

    fn cgroup(&self, path: &Text) -> Class {
        let own = self.context.container.cgroup_path.as_bytes();
        let rest = path.as_bytes().strip_prefix(own);
        let inside = own.is_empty() || rest.is_some_and(|r| r.is_empty() || r[0] == b'/');
        if inside {
            return Class::plain(
                DriftClass::RareCall,
                Risk::Low,
                "moves processes within its own cgroup",
            );
        }
        let reason = format!(
            "a process left the container's cgroup for {path}: limits and watching stop there"
        );
        Class::risky(DriftClass::CgroupEscape, Risk::Critical, reason).technique("T1611")
    }

    fn rare(&self, nr: u32) -> Class {
        let (program, call) = (self.program(), names::native_syscall(nr));
        match call.as_str() {
            "open_by_handle_at" => {
                let reason = format!(
                    "{program} opens files by handle, which reaches past the container's root"
                );
                Class::risky(DriftClass::HostControlFile, Risk::High, reason).technique("T1611")
            }
            "kexec_load" | "kexec_file_load" | "init_module" | "finit_module" | "delete_module" => {
                kernel_module(&call)
            }
            "userfaultfd" | "perf_event_open" | "keyctl" | "add_key" | "request_key" | "iopl"
            | "ioperm" => {
                let reason = format!(
                    "{program} used {call}, a call known from kernel exploits and rare in services"
                );
                Class::risky(DriftClass::RareCall, Risk::Medium, reason).technique("T1068")
            }
            _ => {
                let reason = format!("{program} never used {call} before");
                Class::plain(DriftClass::RareCall, Risk::Medium, reason)
            }
        }
    }
}

/// Capabilities that reach the host or other processes: dac_read_search, net_admin, net_raw,
/// sys_module, sys_rawio, sys_ptrace, sys_admin, sys_boot, mknod, setfcap, mac_override, mac_admin,
/// syslog, perfmon, bpf, checkpoint_restore.
const DANGEROUS_CAPABILITIES: u64 = 1 << 2
    | 1 << 12
    | 1 << 13
    | 1 << 16
    | 1 << 17
    | 1 << 19
    | 1 << 21
    | 1 << 22
    | 1 << 27
    | 1 << 31
    | 1 << 32
    | 1 << 33
    | 1 << 34
    | 1 << 38
    | 1 << 39
    | 1 << 40;

/// System calls that Docker's default seccomp profile denies or that exploits need.
const RARE_SYSCALLS: &[&str] = &[
    "acct",
    "add_key",
    "bpf",
    "delete_module",
    "finit_module",
    "fsmount",
    "fsopen",
    "init_module",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "mount",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "personality",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "reboot",
    "request_key",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "umount2",
    "unshare",
    "userfaultfd",
];

fn kernel_module(what: &str) -> Class {
    let reason = format!("{what} runs code in the host's kernel, or takes some out of it");
    Class::risky(DriftClass::KernelModule, Risk::Critical, reason).technique("T1611")
}

fn miner(origin: Origin, name: &str) -> Class {
    let class = match origin.is_writable() {
        true => DriftClass::ProgramFromWritable,
        false => DriftClass::NewProgram,
    };
    let reason = format!("{name} is the name of a cryptocurrency miner");
    Class::risky(class, Risk::Critical, reason).technique("T1496.001")
}

/// No file that one could look at later.
fn is_nameless(exe: &[u8]) -> bool {
    exe.starts_with(b"memfd:")
        || exe.starts_with(b"/memfd:")
        || exe.ends_with(b" (deleted)")
        || (exe.starts_with(b"/proc/") && exe.windows(4).any(|w| w == b"/fd/"))
}

/// A path that means something on a host, wherever it is mounted.
fn is_host_like(inner: &[u8]) -> bool {
    const TOPS: [&[u8]; 7] = [
        b"/etc/", b"/root/", b"/var/", b"/run/", b"/proc/", b"/sys/", b"/dev/",
    ];
    let telling = matches!(
        sensitive(inner),
        Some(
            Sensitive::Credential
                | Sensitive::Persistence
                | Sensitive::HostControl
                | Sensitive::RuntimeSocket
        )
    );
    telling && TOPS.iter().any(|top| inner.starts_with(top))
}

/// A history or a log of logins, rather than a log of the service.
fn is_history(path: &[u8]) -> bool {
    let login = matches!(name_of(path), "wtmp" | "btmp" | "utmp" | "lastlog");
    sensitive(path) == Some(Sensitive::Trace) && (login || !path.starts_with(b"/var/log/"))
}

/// What shells put behind a history's name while they write it anew.
fn is_copy_in_the_making(suffix: &[u8]) -> bool {
    let number = |n: &[u8]| !n.is_empty() && n.len() <= 10 && n.iter().all(u8::is_ascii_digit);
    let between = |front: &[u8], back: &[u8]| {
        let middle = suffix
            .strip_prefix(front)
            .and_then(|s| s.strip_suffix(back));
        middle.is_some_and(number)
    };
    suffix == b".new" || between(b"-", b".tmp") || between(b".", b".new")
}

fn persistence_technique(path: &[u8]) -> Option<&'static str> {
    let within = |dirs: &[&[u8]]| dirs.iter().any(|d| path.starts_with(d));
    if within(&[b"/etc/cron", b"/var/spool/", b"/etc/anacrontab"]) {
        return Some("T1053");
    }
    if within(&[
        b"/etc/systemd",
        b"/lib/systemd",
        b"/usr/lib/systemd",
        b"/etc/init.d",
    ]) {
        return Some("T1543");
    }
    name_of(path)
        .starts_with("authorized_keys")
        .then_some("T1098")
}

/// A shell's own way to dial out. To the container itself it is how images without a client check
/// their health.
fn dials(argument: &[u8]) -> bool {
    const WAYS: [&[u8]; 2] = [b"/dev/tcp/", b"/dev/udp/"];
    const ITSELF: [&[u8]; 3] = [b"127.0.0.1/", b"localhost/", b"::1/"];
    let places = argument.windows(9).enumerate();
    let mut targets = places
        .filter(|(_, w)| WAYS.contains(w))
        .map(|(at, _)| &argument[at + 9..]);
    targets.any(|t| !ITSELF.iter().any(|own| t.starts_with(own)))
}

/// What `PostgreSQL` runs while it makes its first database.
fn lists_locales(parent: &[u8], exec: &Exec) -> bool {
    let arguments: Vec<&[u8]> = exec.argv.iter().skip(1).map(|a| a.as_bytes()).collect();
    name_of(parent) == "postgres" && arguments == [b"-c".as_slice(), b"locale -a"]
}

/// Whether a shell's command names tools that fetch, scan or read.
fn runs_tools(shape: &Text) -> bool {
    let text = shape.to_str_lossy();
    let commands = text
        .split(' ')
        .filter_map(|p| p.strip_prefix("<cmd:")?.strip_suffix('>'));
    commands
        .flat_map(|c| c.split('|'))
        .any(|name| is_offensive_tool(name.as_bytes()) || is_read_tool(name.as_bytes()))
}

/// By its ending, and not in a place where servers keep what they compiled.
fn is_server_script(path: &[u8]) -> bool {
    const ENDINGS: [&[u8]; 9] = [
        b".php", b".phtml", b".phar", b".php5", b".jsp", b".jspx", b".asp", b".aspx", b".cgi",
    ];
    const COMPILED: [&[u8]; 5] = [b"cache", b"compile", b"templates_c", b"views", b"work"];
    let lower = path.to_ascii_lowercase();
    let mut dirs = lower.rsplit(|c| *c == b'/').skip(1);
    let compiled = |dir: &[u8]| {
        COMPILED
            .iter()
            .any(|name| dir.windows(name.len()).any(|w| w == *name))
    };
    ENDINGS.iter().any(|e| lower.ends_with(e)) && !dirs.any(compiled)
}

fn shown_name(path: &Text) -> String {
    Text::from(name_of(path.as_bytes())).to_string()
}
