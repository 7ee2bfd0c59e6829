//! The life of a baseline: learning, readiness, decisions, lineage, bytes, and what it refuses.

mod support;

use plimsoll_baseline::{
    Approval, Baseline, Burst, BurstConfig, BurstKey, Change, DecodeBaselineError, Flag, Key,
    KnownObject, LearnConfig, NoNames, Novelty, Offer, PathReach, PeerReach, Select, State,
    behaviours, diff, export, import, known_entries, merge, watched_paths,
};
use plimsoll_model::*;
use support::*;

fn approval() -> Approval {
    Approval {
        who: "kim".into(),
        why: "reviewed".into(),
        at: at(1000),
    }
}

#[test]
fn readiness_says_what_is_missing_in_words() {
    let c = container("web1", 100);
    let mut b = fresh(&c);
    live(&mut b, &c, 100, 8);
    let r = b.readiness();
    assert!(!r.ready);
    assert!(r.unmet.contains(&"needs 1 more start".to_owned()), "{r:?}");
    assert!(
        r.unmet
            .contains(&"needs 2 more time slots of the steady phase".to_owned()),
        "{r:?}"
    );
    assert!(
        r.unmet
            .contains(&"needs 2 more time slots altogether".to_owned()),
        "{r:?}"
    );
    assert!(r.notes[0].contains("Sat 00-01"), "{:?}", r.notes);
}

#[test]
fn coverage_alone_does_not_make_it_ready() {
    let c = container("web1", 100);
    let mut b = fresh(&c);
    live(&mut b, &c, 100, 500);
    assert!(b.coverage().permille() >= 980, "{}", b.statement());
    assert_eq!(b.state(), State::Learning);
    assert_eq!(b.readiness().unmet, ["needs 1 more start"]);
    // a container found running shows no start
    let mut found = container("web2", 5000);
    found.found_running = true;
    live(&mut b, &found, 5000, 50);
    assert_eq!(b.state(), State::Learning);
    let real = container("web3", 9000);
    live(&mut b, &real, 9000, 3);
    assert_eq!(b.state(), State::Ready);
}

#[test]
fn readiness_makes_one_version_and_is_reported_once() {
    let (mut b, _) = ready();
    assert_eq!(b.version(), 2);
    assert!(b.ready_since().is_some());
    assert_eq!(b.refresh(at(900)), None);
    assert_eq!(b.version(), 2);
}

#[test]
fn a_ready_baseline_absorbs_nothing_silently() {
    let (mut b, c) = ready();
    let before = b.expected().count();
    let obs = see(&c, 500, &nginx(), read("/srv/www/new.html"));
    let v = observe(&mut b, &c, &obs);
    assert_eq!(v.drifts.len(), 1);
    assert!(!v.drifts[0].quarantined);
    assert_eq!(b.expected().count(), before);
    assert_eq!(b.pending().len(), 1);
    // again: counted, not duplicated
    observe(&mut b, &c, &obs);
    assert_eq!((b.pending().len(), b.pending()[0].count), (1, 2));
    // approved: known, with who and why
    let id = b.pending()[0].behaviour.id();
    let change = b.approve(&Select::Ids(vec![id]), approval()).unwrap();
    let Change::Decided(d) = change else { panic!() };
    assert_eq!(
        (d.version, d.behaviours, d.approval.who.as_str()),
        (3, 1, "kim")
    );
    assert!(b.pending().is_empty());
    assert!(observe(&mut b, &c, &obs).is_known());
}

#[test]
fn a_drift_is_new_until_another_instance_shows_it_too() {
    let (mut b, c) = ready();
    let other = container("web2", 400);
    let act = |c: &Container| see(c, 500, &nginx(), read("/srv/www/new.html"));
    let behaviour = behaviours(&act(&c), &c, &NoNames)[0].clone();
    let new_to = |b: &Baseline, c: &Container| b.novelty(&behaviour, &c.instance);
    assert_eq!(new_to(&b, &c), Novelty::First, "nobody has shown it");
    observe(&mut b, &c, &act(&c));
    assert_eq!(
        new_to(&b, &c),
        Novelty::First,
        "its own drift is no witness"
    );
    assert_eq!(new_to(&b, &other), Novelty::Elsewhere);
    observe(&mut b, &other, &act(&other));
    assert_eq!(new_to(&b, &c), Novelty::Elsewhere);
    // the places of what waits move when something before it is let in
    let first = see(&c, 501, &nginx(), read("/srv/www/other.html"));
    observe(&mut b, &c, &first);
    b.approve(&Select::Ids(vec![behaviour.id()]), approval())
        .unwrap();
    let waits = behaviours(&first, &c, &NoNames)[0].clone();
    assert_eq!(b.novelty(&waits, &c.instance), Novelty::First);
    assert_eq!(b.novelty(&waits, &other.instance), Novelty::Elsewhere);
    assert_eq!(new_to(&b, &other), Novelty::First, "it waits no longer");
}

#[test]
fn what_a_rule_flags_while_learning_waits_for_a_person_whatever_covers_it_later() {
    let c = container("web1", 100);
    let mut b = fresh(&c);
    live(&mut b, &c, 100, 5);
    let by_rule = |b: &mut Baseline, obs: &Observation| {
        let flag = Some(Flag {
            rule: "Odd session",
            risk: Risk::High,
        });
        b.observe_flagged(obs, &c, &behaviours(obs, &c, &NoNames), flag)
    };
    let session = |n| write(&format!("/var/lib/php/sess_ab{n}cd{n}"));
    let odd = see(&c, 120, &nginx(), session(0));
    let v = by_rule(&mut b, &odd);
    assert_eq!((v.flagged, v.learned.len(), v.drifts.len()), (1, 0, 0));
    let [waits] = b.pending() else {
        panic!("{:?}", b.pending());
    };
    assert!(waits.quarantined && waits.rule == "Odd session" && waits.risk == Risk::High);
    assert!(waits.reason.contains("Odd session"), "{}", waits.reason);
    // the same act when no rule is there to flag it, and siblings that make a pattern over it
    assert_eq!(observe(&mut b, &c, &odd).flagged, 1);
    for n in 1..10 {
        let sibling = see(&c, 121 + 2 * n, &nginx(), session(n));
        assert_eq!(observe(&mut b, &c, &sibling).flagged, 0);
    }
    let code = |obs: &Observation| behaviours(obs, &c, &NoNames)[0].clone();
    let objects = b.expected().map(|(_, e)| e.behaviour.object.to_string());
    let objects: Vec<String> = objects.filter(|o| o.contains("sess_")).collect();
    assert!(
        b.find(&code(&odd)).is_some(),
        "a pattern covers it by now: {objects:?}"
    );
    assert_eq!(observe(&mut b, &c, &odd).flagged, 1, "and yet it waits");
    assert_eq!((b.pending().len(), b.pending()[0].count), (1, 3));
    // it is stored with that
    let mut b = Baseline::decode(&b.encode()).unwrap();
    assert_eq!(observe(&mut b, &c, &odd).flagged, 1);
    // the quiet twin: what is known already stays known
    let known = see(&c, 122, &nginx(), read("/etc/nginx/nginx.conf"));
    let v = by_rule(&mut b, &known);
    assert!(v.is_known() && v.known.len() == 1, "{v:?}");
    b.approve(&Select::AllPending, approval()).unwrap();
    assert!(observe(&mut b, &c, &odd).is_known());
}

#[test]
fn what_a_rule_flagged_is_a_drift_once_the_baseline_is_ready() {
    let c = container("web1", 100);
    let mut b = fresh(&c);
    live(&mut b, &c, 100, 5);
    let odd = see(&c, 120, &nginx(), read("/srv/www/odd.html"));
    let coded = behaviours(&odd, &c, &NoNames);
    let flag = Flag {
        rule: "Odd session",
        risk: Risk::Medium,
    };
    b.observe_flagged(&odd, &c, &coded, Some(flag));
    b.lock(approval()).unwrap();
    let v = observe(&mut b, &c, &odd);
    assert_eq!((v.drifts.len(), v.flagged), (1, 0), "{v:?}");
}

#[test]
fn an_attack_while_learning_is_kept_apart_with_all_that_it_does() {
    let c = container("web1", 100);
    let mut b = fresh(&c);
    live(&mut b, &c, 100, 5);
    let shell = who(&["/bin/sh", NGINX]);
    let v = observe(
        &mut b,
        &c,
        &see(&c, 120, &shell, run_args("/bin/sh", &["-c", "id"])),
    );
    assert!(
        v.learned.is_empty(),
        "neither the exec nor its arguments: {v:?}"
    );
    assert!(v.drifts.iter().all(|d| d.quarantined));
    let under = who(&["/usr/bin/id", "/bin/sh", NGINX]);
    for kind in [
        run("/usr/bin/id"),
        read("/etc/passwd"),
        connect("10.0.0.9:4444"),
    ] {
        let v = observe(&mut b, &c, &see(&c, 121, &under, kind));
        assert!(v.learned.is_empty() && !v.drifts.is_empty(), "{v:?}");
        assert!(
            v.drifts[0].reason.contains("waits for approval")
                || v.drifts[0].class == DriftClass::NewProgram
        );
    }
    // the same acts by the service itself are learned as ever
    let v = observe(&mut b, &c, &see(&c, 122, &nginx(), read("/etc/passwd")));
    assert_eq!(v.learned.len(), 1);
    // once approved, what follows from it is ordinary
    b.approve(&Select::AllPending, approval()).unwrap();
    let v = observe(
        &mut b,
        &c,
        &see(&c, 123, &shell, run_args("/bin/sh", &["-c", "id"])),
    );
    assert!(v.is_known());
    let v = observe(&mut b, &c, &see(&c, 124, &under, read("/etc/hosts")));
    assert_eq!(v.learned.len(), 1);
}

#[test]
fn locked_means_locked_until_it_is_unlocked() {
    let (mut b, c) = ready();
    b.lock(approval()).unwrap();
    assert_eq!((b.state(), b.version()), (State::Locked, 3));
    observe(&mut b, &c, &see(&c, 500, &nginx(), read("/srv/new")));
    assert!(b.approve(&Select::AllPending, approval()).is_err());
    assert!(b.reset(approval()).is_err());
    assert!(b.lock(approval()).is_err());
    b.unlock(approval()).unwrap();
    assert_eq!(b.state(), State::Ready);
    assert!(b.unlock(approval()).is_err());
    b.approve(&Select::AllPending, approval()).unwrap();
    let decided: Vec<&str> = b.decisions().iter().map(|d| d.action.as_str()).collect();
    assert_eq!(decided, ["lock", "unlock", "approve"]);
}

#[test]
fn reset_forgets_the_behaviour_and_keeps_the_history() {
    let (mut b, _) = ready();
    b.reset(approval()).unwrap();
    assert_eq!((b.state(), b.version()), (State::Learning, 3));
    assert_eq!(
        (b.expected().count(), b.starts(), b.coverage().units),
        (0, 0, 0)
    );
    assert_eq!(b.decisions()[0].action, "reset");
}

#[test]
fn removed_behaviour_is_drift_again() {
    let (mut b, c) = ready();
    let obs = see(&c, 500, &nginx(), read("/srv/www/index.html"));
    let index = judge(&b, &c, &obs).known[0];
    let id = b.entry(index).unwrap().behaviour.id();
    b.remove(&[id], approval()).unwrap();
    assert_eq!(judge(&b, &c, &obs).drifts.len(), 1);
    assert!(b.remove(&[id], approval()).is_err());
    assert!(b.entry(index).is_none(), "numbers are not given again");
}

#[test]
fn the_next_image_starts_from_its_predecessor_and_learns_by_itself() {
    let (b, _) = ready();
    let mut c = container("next", 700);
    c.image.config_digest = Some(Digest::parse(&format!("sha256:{}", "b".repeat(64))).unwrap());
    c.image.name = "shop/web:1.5".into();
    let mut next = b.successor(Key::of(&c).unwrap(), &c, at(700));
    assert_ne!(next.id(), b.id());
    assert_eq!(next.state(), State::Learning);
    assert_eq!(next.lineage().unwrap().predecessor, b.reference());
    assert_eq!(next.coverage().seen, 0, "nothing inherited counts as seen");
    assert_eq!(next.repository(), b.repository());
    // inherited behaviour is known, and counts once it is seen
    assert!(
        observe(
            &mut next,
            &c,
            &see(&c, 701, &nginx(), read("/srv/www/index.html"))
        )
        .is_known()
    );
    assert_eq!(next.coverage().seen, 1);
    observe(
        &mut next,
        &c,
        &see(&c, 702, &nginx(), read("/srv/www/new.html")),
    );
    let d = diff(&b, &next);
    assert_eq!(d.added.len(), 1);
    assert!(d.removed.is_empty());
    assert_eq!(d.unseen.len(), b.expected().count() - 1);
    assert_eq!(d.by_kind(), [(BehaviourKind::File, 1, 0)]);
}

#[test]
fn presence_counted_in_the_kernel_is_coverage_too() {
    let c = container("web1", 100);
    let mut b = fresh(&c);
    let v = observe(&mut b, &c, &see(&c, 100, &nginx(), read("/srv/x")));
    let i = v.learned[0];
    for slot in 1..10 {
        b.note_presence(&c, at(100 + 2 * slot), &[(i, 1000), (999, 5)]);
    }
    let e = b.entry(i).unwrap();
    assert_eq!((e.incidence, e.count), (10, 9001));
    assert_eq!(b.coverage().units, 10);
    // an idle slot is a unit, and no sample of the steady phase
    let steady = b.phases().1;
    b.note_alive(&c, at(300));
    assert_eq!((b.coverage().units, b.phases().1), (11, steady));
}

#[test]
fn a_behaviour_counts_once_a_unit_even_when_instances_interleave() {
    let (a, z) = (container("a", 0), container("z", 0));
    let mut b = fresh(&a);
    for _ in 0..5 {
        for c in [&a, &z] {
            observe(&mut b, c, &see(c, 1, &nginx(), read("/srv/x")));
        }
    }
    let (_, e) = b.expected().next().unwrap();
    assert_eq!((e.incidence, e.count, b.coverage().units), (2, 10, 2));
    // a late event belongs to the open slot
    observe(&mut b, &a, &see(&a, 9, &nginx(), read("/srv/x")));
    observe(&mut b, &a, &see(&a, 1, &nginx(), read("/srv/x")));
    assert_eq!(b.coverage().units, 3);
}

#[test]
fn a_baseline_is_bounded_and_says_when_it_is_too_variable() {
    let c = container("x", 0);
    let config = LearnConfig {
        max_behaviours: 10,
        max_pending: 3,
        ..quick()
    };
    let mut b = Baseline::new(Key::of(&c).unwrap(), &c, config, at(0));
    for n in 0..20u8 {
        let path = format!("/srv/{}", (b'a' + n) as char);
        let v = observe(&mut b, &c, &see(&c, 1, &nginx(), read(&path)));
        assert!(v.drifts.is_empty());
    }
    assert_eq!((b.expected().count(), b.saturated()), (10, 10));
    assert!(
        b.readiness()
            .unmet
            .iter()
            .any(|u| u.contains("too variable"))
    );
    let cat = who(&["/usr/bin/cat", "/bin/sh"]);
    for n in 0..6 {
        observe(
            &mut b,
            &c,
            &see(&c, 1, &cat, read(&format!("/root/.ssh/k{n}"))),
        );
    }
    assert_eq!((b.pending().len(), b.pending_dropped()), (3, 3));
}

#[test]
fn bytes_round_trip_and_newer_or_damaged_ones_are_refused_clearly() {
    let (mut b, c) = ready();
    observe(&mut b, &c, &see(&c, 500, &nginx(), read("/srv/new")));
    let bytes = b.encode();
    let back = Baseline::decode(&bytes).unwrap();
    assert_eq!(back, b);
    assert_eq!(back.coverage(), b.coverage());
    assert_eq!(back.id(), b.id());
    for n in 0..bytes.len() {
        assert!(Baseline::decode(&bytes[..n]).is_err(), "{n} bytes");
    }
    let mut newer = bytes.clone();
    newer[1] = 9; // the schema version stands second
    match Baseline::decode(&newer) {
        Err(DecodeBaselineError::Newer { found: 9 }) => {}
        other => panic!("{other:?}"),
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(Baseline::decode(&longer).is_err());
}

#[test]
fn the_stored_form_of_version_1_stays_loadable() {
    let fixture = include_bytes!("fixtures/baseline-v1.cbor");
    let b = Baseline::decode(fixture).expect("schema version 1 is loadable for ever");
    assert_eq!(b.version(), 2);
    assert_eq!(b.state(), State::Ready);
    assert_eq!(b.encode(), fixture);
}

#[test]
fn an_export_is_an_in_toto_statement_about_the_image() {
    let (b, _) = ready();
    let value = export(&b).unwrap();
    assert_eq!(value["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(value["subject"][0]["digest"]["sha256"], "a".repeat(64));
    assert_eq!(
        value["predicate"]["behaviours"].as_array().unwrap().len(),
        b.expected().count()
    );
    let text = value.to_string();
    assert_eq!(import(text.as_bytes()).unwrap(), b);
    let forged = text.replace(&"a".repeat(64), &"c".repeat(64));
    assert!(
        import(forged.as_bytes()).is_err(),
        "content about another image than the subject"
    );
    assert!(import(b"{}").is_err());
    assert!(import(b"not json").is_err());
}

#[test]
fn an_image_without_a_digest_has_no_statement() {
    let mut c = container("x", 0);
    c.image.config_digest = None;
    assert!(export(&fresh(&c)).is_err());
    c.image.name = String::new();
    assert_eq!(Key::of(&c), None);
}

#[test]
fn two_profiles_of_one_image_become_one() {
    let (a, _) = ready();
    let c = container("ci", 0);
    let mut b = fresh(&c);
    observe(&mut b, &c, &see(&c, 1, &nginx(), read("/srv/only-in-ci")));
    let m = merge(&a, &b).unwrap();
    assert_eq!(m.expected().count(), a.expected().count() + 1);
    assert_eq!(m.coverage().units, a.coverage().units + b.coverage().units);
    assert_eq!(m.state(), State::Learning, "one of them still learns");
    assert_eq!(merge(&a, &a).unwrap().state(), State::Ready);
    // slots of another length are no comparable sample
    let mut other = Baseline::new(Key::of(&c).unwrap(), &c, LearnConfig::default(), at(0));
    observe(
        &mut other,
        &c,
        &see(&c, 1, &nginx(), read("/srv/only-there")),
    );
    let m = merge(&a, &other).unwrap();
    assert_eq!(m.coverage().units, a.coverage().units);
    let mut stranger = c.clone();
    stranger.role = "db".into();
    assert!(merge(&a, &fresh(&stranger)).is_err());
}

#[test]
fn the_kernel_gets_what_it_can_match_and_nothing_that_matters() {
    let (mut b, c) = ready();
    observe(&mut b, &c, &see(&c, 500, &nginx(), read("/etc/shadow")));
    observe(&mut b, &c, &see(&c, 500, &nginx(), write("/etc/cron.d/x")));
    observe(&mut b, &c, &see(&c, 500, &nginx(), read("/proc/77/stat")));
    observe(
        &mut b,
        &c,
        &see(&c, 500, &nginx(), read("/home/bob/.aws/credentials")),
    );
    b.approve(&Select::AllPending, approval()).unwrap();
    let known: Vec<KnownObject> = known_entries(&b).map(|k| k.object).collect();
    let reads: Vec<String> = known
        .iter()
        .filter_map(|k| match k {
            KnownObject::File {
                path: PathReach::Exact(p),
                ..
            } => Some(p.to_string()),
            _ => None,
        })
        .collect();
    assert!(reads.contains(&"/srv/www/index.html".to_owned()));
    for secret in [
        "/etc/shadow",
        "/etc/cron.d/x",
        "/proc/<pid>/stat",
        "/home/bob/.aws/credentials",
    ] {
        assert!(!reads.contains(&secret.to_owned()), "{secret}");
    }
    assert!(known.contains(&KnownObject::Connect {
        proto: Proto::Tcp,
        peer: PeerReach::Ip([10, 0, 0, 5].into()),
        port: 6379,
    }));
    for k in known_entries(&b) {
        assert_eq!(b.entry(k.index).unwrap().behaviour, *k.behaviour);
        assert!(k.index < b.index_len());
    }
}

#[test]
fn no_watched_path_is_ever_given_to_the_kernel_as_known() {
    let c = container("x", 0);
    let mut b = fresh(&c);
    for (pattern, ops) in watched_paths() {
        let path = match pattern {
            plimsoll_baseline::PathPattern::Exact(p) => p.to_owned(),
            plimsoll_baseline::PathPattern::Below(d) => format!("{d}/x"),
        };
        for op in [FileOp::Read, FileOp::Write, FileOp::Create, FileOp::Unlink] {
            if ops.is_empty() || ops.contains(&op) {
                observe(
                    &mut b,
                    &c,
                    &see(&c, 1, &nginx(), file(op, &path, Origin::Image)),
                );
            }
        }
    }
    b.approve(&Select::AllPending, approval()).unwrap();
    let files = known_entries(&b).filter(|k| matches!(k.object, KnownObject::File { .. }));
    assert_eq!(
        files
            .map(|k| k.behaviour.object.to_string())
            .collect::<Vec<_>>(),
        Vec::<String>::new()
    );
}

#[test]
fn changes_show_in_the_revision() {
    let (mut b, c) = ready();
    let r = b.revision();
    observe(
        &mut b,
        &c,
        &see(&c, 500, &nginx(), read("/srv/www/index.html")),
    );
    assert_eq!(b.revision(), r);
    observe(&mut b, &c, &see(&c, 500, &nginx(), read("/srv/new")));
    b.approve(&Select::AllPending, approval()).unwrap();
    assert!(b.revision() > r);
}

fn an_alert(second: u64) -> Alert {
    Alert {
        id: AlertId::parse("A-1").unwrap(),
        at: at(second),
        rule: "r".into(),
        priority: Priority::Error,
        output: "o".into(),
        source: AlertSource::Rule("r".into()),
        instance: None,
        tags: vec![],
        fields: vec![],
        evidence: vec![],
        count: 1,
        last: at(second),
        handed_boot: BootNs(0),
        prevented: false,
    }
}

#[test]
fn the_first_alert_of_a_burst_is_out_at_once_and_no_repeat_is_lost() {
    let mut burst = Burst::new(BurstConfig::default());
    let key = || BurstKey::of_rule(None, "r", "");
    let mut told = 0;
    for n in 0..1000u64 {
        let offer = burst.offer(key(), at(n / 50), 1, || Some(an_alert(n / 50)));
        match (n, offer) {
            (0, Offer::New(a)) => told = a.count,
            (0, other) => panic!("{other:?}"),
            (_, Offer::Update(a)) => {
                assert!(a.count > told && a.id.as_str() == "A-1");
                told = a.count;
            }
            (_, Offer::Held) => {}
            (_, other) => panic!("{other:?}"),
        }
    }
    assert!(told < 1000);
    let owed = burst.expire(at(200).boot);
    assert_eq!((owed.len(), owed[0].count), (1, 1000));
    assert!(burst.is_empty());
    assert!(burst.expire(at(300).boot).is_empty());
    assert!(matches!(
        burst.offer(key(), at(301), 1, || Some(an_alert(301))),
        Offer::New(_)
    ));
}

#[test]
fn an_endless_burst_alerts_again() {
    let mut burst = Burst::new(BurstConfig::default());
    let alerts = (0..3600)
        .filter(|&s| {
            let key = BurstKey::of_rule(None, "r", "");
            matches!(
                burst.offer(key, at(s), 1, || Some(an_alert(s))),
                Offer::New(_)
            )
        })
        .count();
    assert_eq!(alerts, 6);
}

#[test]
fn a_full_table_of_bursts_loses_no_count() {
    let mut burst = Burst::new(BurstConfig {
        max_open: 4,
        ..BurstConfig::default()
    });
    let (mut emitted, offered) = (0, 200u64);
    let mut last: std::collections::BTreeMap<String, u64> = Default::default();
    let mut tell = |a: &Alert, fresh: bool| {
        let before = if fresh { 0 } else { last[&a.rule] };
        emitted += a.count - before;
        last.insert(a.rule.clone(), a.count);
    };
    for n in 0..offered {
        // two of a kind in a row, then another kind, of ten
        let rule = format!("r{}", n / 2 % 10);
        let build = || {
            let mut a = an_alert(n / 10);
            a.rule = rule.clone();
            Some(a)
        };
        match burst.offer(BurstKey::of_rule(None, &rule, ""), at(n / 10), 1, build) {
            Offer::New(a) => {
                for owed in burst.expire(BootNs(0)) {
                    tell(&owed, false);
                }
                tell(&a, true);
            }
            Offer::Update(a) => tell(&a, false),
            Offer::Held => {}
            Offer::Nothing => panic!(),
        }
        assert!(burst.len() <= 4);
    }
    for owed in burst.finish() {
        tell(&owed, false);
    }
    assert_eq!(emitted, offered);
}

#[test]
#[ignore = "writes the fixture: only when a new schema version begins"]
fn write_the_fixture() {
    if std::env::var_os("PLIMSOLL_WRITE_FIXTURES").is_none() {
        return;
    }
    let (b, _) = ready();
    std::fs::create_dir_all("tests/fixtures").unwrap();
    std::fs::write("tests/fixtures/baseline-v1.cbor", b.encode()).unwrap();
}
