//! Answers by lists are the answers of a whole reading, whatever became of the store.

#[path = "../../../ask/tests/scene/mod.rs"]
mod scene;

use super::*;
use plimsoll_agent::ledger::{instance_key, stored};
use plimsoll_ask::{Ask, Body, Question, READ_MAX, Subject};
use plimsoll_evidence::{Hold, Options, RetentionPolicy, RetentionRule, Sealing, Tombstone};
use plimsoll_model::event::FileOp;
use plimsoll_model::*;
use scene::{World, at, connect, container, dns, exec, file, known, process};

/// Two whole spans, and a tail that no list covers. The shell of `web` runs a program that came in,
/// which calls home; `twin` does the same in the second span, `late` in the tail.
fn world() -> World {
    let mut world = World::new();
    // the journal's own first record, the certificate of its key
    world.agent("start", -4001.0);
    world.agent("start", -4000.0);
    let noise = container("noise", 'f', -3900.0, '3');
    world.container(&noise, -3900.0);
    let mut web = container("web", 'a', -500.0, '1');
    world.container(&web, -499.0);
    world.gap(None, Stage::BulkRing, -10.0, -5.0, Some(7), "burst");
    world.presence(&web, 0.0, 60.0, &[(&known()[2], 40), (&known()[1], 3)]);
    attack(&mut world, &web, "A-1", 100.0);
    fill(&mut world, &noise, SPAN_LEAVES as usize + 500, 200.0);
    world.gone(&mut web, 700.0);
    let twin = container("twin", 'b', 800.0, '1');
    world.container(&twin, 800.0);
    attack(&mut world, &twin, "A-2", 900.0);
    fill(&mut world, &noise, 2 * SPAN_LEAVES as usize + 500, 1000.0);
    let late = container("late", 'c', 2000.0, '1');
    world.container(&late, 2000.0);
    world.presence(&late, 2000.0, 2060.0, &[(&known()[1], 2)]);
    attack(&mut world, &late, "A-3", 2100.0);
    world
}

fn attack(world: &mut World, c: &Container, alert: &str, s: f64) {
    let nginx = process(11, -499.0, "/usr/sbin/nginx", &["nginx"], Entry::Init);
    let sh = process(20, s, "/bin/sh", &["sh", "-c", "/tmp/x"], Entry::Init);
    let x = process(22, s + 1.0, "/tmp/x", &["/tmp/x"], Entry::Init);
    let [of_sh, of_x] = [
        vec![sh.clone(), nginx.clone()],
        vec![x.clone(), sh.clone(), nginx],
    ];
    world.event(c, s, &of_sh, exec(&sh, Origin::Image));
    world.event(c, s + 0.5, &of_sh, file(FileOp::Create, "/tmp/x", 0));
    let shown = world.event(c, s + 1.0, &of_x, exec(&x, Origin::Upper));
    let drift = Drift {
        behaviour: Behaviour {
            origin: Origin::Upper,
            ..scene::behaviour(BehaviourKind::Exec, "/bin/sh", "run", "/tmp/x")
        },
        class: DriftClass::ProgramFromWritable,
        risk: Risk::Critical,
        reason: "the program came into the container after it was created".into(),
        baseline: Some(scene::reference()),
        baseline_state: "ready".into(),
        coverage_permille: 993,
        nearest: vec![],
        instance: c.instance.clone(),
        lineage: of_x.clone().into(),
        observation: Some(shown),
        first: at(s + 1.0),
        last: at(s + 1.0),
        count: 1,
        techniques: vec!["T1059".into()],
        quarantined: false,
    };
    world.alert(alert, c, s + 1.0, drift);
    world.event(
        c,
        s + 2.0,
        &of_x,
        dns("evil.example", Some([198, 51, 100, 7])),
    );
    world.event(c, s + 2.1, &of_x, connect([198, 51, 100, 7], 443));
    world.event(c, s + 3.0, &of_x, file(FileOp::Read, "/etc/shadow", 0));
}

/// A neighbour reads its files until there are so many records.
fn fill(world: &mut World, noise: &Container, records: usize, s: f64) {
    let p = process(10, -3900.0, "/usr/bin/backup", &["backup"], Entry::Init);
    while world.records.len() < records {
        let n = world.records.len();
        let path = format!("/srv/data/{}", n % 97);
        world.act(noise, s + n as f64 / 1e6, &p, file(FileOp::Read, &path, 0));
    }
}

struct Place {
    dir: tempfile::TempDir,
    journal: Option<evidence::Journal>,
}

impl Place {
    fn new(world: &World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new("node1");
        options.sealing = Some(Sealing::new(dir.path().join("keys")));
        let (journal, _) = evidence::Journal::open(dir.path().join("journal"), options).unwrap();
        let journal = Some(journal);
        let mut place = Self { dir, journal };
        place.append(world, 1);
        place
    }

    /// The world's records from this one on.
    fn append(&mut self, world: &World, from: usize) {
        let journal = self.journal.as_mut().unwrap();
        for (n, (at, about, body)) in world.records.iter().enumerate().skip(from) {
            let Body::Record(record) = body else { continue };
            let leaf = journal.append(stored(record, *at, about.as_ref())).unwrap();
            assert_eq!(leaf.0, n as u64, "records name each other by these");
        }
        journal.sync().unwrap();
    }

    fn journal(&self) -> Journal {
        Journal::open(&self.dir.path().join("journal")).unwrap()
    }

    fn lists(&self) -> std::path::PathBuf {
        self.dir.path().join("lake")
    }

    /// Observations of the first spans go, but for what is held.
    fn prune(&mut self, spans: usize) {
        let journal = self.journal.as_mut().unwrap();
        let rule = RetentionRule {
            class: RetentionClass::OBSERVATION,
            max_age_ms: None,
            max_bytes: Some(0),
        };
        let policy = RetentionPolicy { rules: vec![rule] };
        let plan = journal.plan_retention(&policy, 0).unwrap();
        assert!(plan.len() >= spans);
        for prune in plan.iter().take(spans) {
            let tombstone = Tombstone::of(prune, "retention", "test").encode();
            let record = evidence::Record::new(11, RetentionClass::CUSTODY, tombstone);
            journal.prune(prune, record).unwrap();
        }
    }

    fn hold(&mut self, c: &str) {
        let hold = Hold {
            id: "case-7".into(),
            containers: vec![instance_key(&scene::instance(
                c.chars().next().unwrap(),
                800.0,
            ))],
            leaves: vec![],
            wall_ns: 5,
            subject: "container twin".into(),
            reason: "case 7".into(),
            uid: 0,
        };
        self.journal.as_mut().unwrap().hold(&hold).unwrap();
    }

    /// Every answer about these, by lists and by a whole reading.
    fn same(&self, what: &str, subjects: &[Subject]) {
        let journal = self.journal();
        let listed = Listed::open(&journal, &self.lists()).unwrap();
        assert_eq!(
            listed.holes(listed.end).next(),
            None,
            "{what}: all is listed"
        );
        compare(&journal, &listed, what, subjects);
    }
}

fn compare(whole: &Journal, listed: &Listed<'_>, what: &str, subjects: &[Subject]) {
    // with so little room that most of what was done is left out, too
    let few = [Question::Q2, Question::Q6, Question::Q7, Question::Q17].map(|q| (q, 6));
    let all = Question::ALL.map(|q| (q, READ_MAX));
    for subject in subjects {
        for (question, read_max) in all.into_iter().chain(few) {
            let one = Ask {
                question,
                subject: subject.clone(),
                around_ns: None,
                now: at(4000.0).wall,
                read_max,
            };
            let answer = |records: &dyn Records| {
                let answer = plimsoll_ask::ask(records, &scene::Known, &one).unwrap();
                serde_json::to_string_pretty(&answer).unwrap()
            };
            let (by_lists, by_all) = (answer(listed), answer(whole));
            assert_eq!(
                by_lists, by_all,
                "{what}: {question} of {subject:?}, {read_max} read"
            );
        }
    }
}

#[test]
fn answers_are_those_of_a_whole_reading() {
    let alert = |id: &str| Subject::Alert(AlertId::parse(id).unwrap());
    let container = |name: &str| Subject::Container(name.into());
    let mut place = Place::new(&world());
    place.same("all there", &[alert("A-3"), container("web")]);
    place.hold("b");
    place.prune(1);
    place.same(
        "contents of the first span gone since it was listed",
        &[alert("A-1")],
    );
    place.prune(1);
    place.same(
        "contents of both gone, but for what is held",
        &[container("twin")],
    );
    std::fs::remove_dir_all(place.lists()).unwrap();
    place.same("listed when contents were gone", &[alert("A-2")]);
    // what comes while somebody asks is in the answer
    let journal = place.journal();
    let listed = Listed::open(&journal, &place.lists()).unwrap();
    let mut more = World::new();
    let newest = scene::container("newest", 'd', 3000.0, '1');
    attack(&mut more, &newest, "A-4", 3100.0);
    let own = place.journal.as_mut().unwrap();
    for (at, about, body) in &more.records {
        let Body::Record(record) = body else { continue };
        own.append(stored(record, *at, about.as_ref())).unwrap();
    }
    own.sync().unwrap();
    let mut found = 0;
    let filter = Filter::of(&[RecordKind::Alert]).about(&newest.instance);
    listed.visit(&filter, &mut |_| found += 1).unwrap();
    assert_eq!(found, 1);
    compare(&journal, &listed, "more came", &[alert("A-4")]);
}

#[test]
fn lists_that_are_damaged_missing_or_of_another_journal_are_made_again_or_done_without() {
    let mut world = World::new();
    world.agent("start", -4001.0);
    let noise = container("noise", 'f', -3900.0, '3');
    world.container(&noise, -3900.0);
    let web = container("web", 'a', -500.0, '1');
    world.container(&web, -499.0);
    attack(&mut world, &web, "A-1", 100.0);
    fill(&mut world, &noise, SPAN_LEAVES as usize + 9, 200.0);
    let place = Place::new(&world);
    let journal = place.journal();
    let lists = place.lists();
    let name = format!("{:020}-{:020}.list", 0, SPAN_LEAVES);
    let file = lists.join("leaves").join(&name);
    let open = || Listed::open(&journal, &lists).unwrap();

    let about = Filter::of(&[RecordKind::Observation, RecordKind::Alert]).about(&web.instance);
    let mut few = Filter::of(&[
        RecordKind::Observation,
        RecordKind::Drift,
        RecordKind::Alert,
    ]);
    few.marks = vec![Mark::Name("evil.example".into())];
    let read = |listed: &Listed<'_>, filter: &Filter| match &listed.stretches(filter)[..] {
        [Stretch::Picked(leaves), Stretch::Whole(tail)] => {
            assert_eq!(tail.start, listed.end, "what comes later");
            Some(leaves.len())
        }
        _ => None,
    };
    let listed = open();
    assert_eq!(read(&listed, &about), Some(7), "six acts and an alert");
    assert_eq!(read(&listed, &few), Some(1));
    let all = Filter::of(&[RecordKind::Observation]);
    assert_eq!(read(&listed, &all), None, "too many to list");
    let early = about.clone().between(at(-90.0).wall, at(-80.0).wall);
    assert!(read(&listed, &early).is_some_and(|n| n <= 7));

    let whole = std::fs::read(&file).unwrap();
    let mut bad = whole.clone();
    bad[100] ^= 4;
    for damage in [bad, whole[..whole.len() / 2].to_vec(), vec![]] {
        std::fs::write(&file, &damage).unwrap();
        assert_eq!(open().files.len(), 2, "a span, and the tail in memory");
        assert!(std::fs::read(&file).unwrap() == whole, "made again");
    }
    // the longest list, the neighbour's, is found to be damaged when it is read
    let mut bad = whole.clone();
    let at = bad.len() / 2;
    bad[at] ^= 4;
    std::fs::write(&file, &bad).unwrap();
    let listed = open();
    let of_noise = Filter::of(&[RecordKind::Observation]).about(&noise.instance);
    assert_eq!(read(&listed, &of_noise), None, "all are read");
    assert_eq!(read(&listed, &about), Some(7), "another list is whole");
    let listed = open();
    assert!(std::fs::read(&file).unwrap() == whole, "made again");
    assert!(read(&listed, &of_noise).is_some());

    // the same records in another journal have other salts
    let other = Place::new(&world);
    let theirs = other.lists().join("leaves");
    std::fs::create_dir_all(&theirs).unwrap();
    std::fs::copy(&file, theirs.join(file.file_name().unwrap())).unwrap();
    let journal2 = other.journal();
    drop(Listed::open(&journal2, &other.lists()).unwrap());
    let now = std::fs::read(theirs.join(file.file_name().unwrap())).unwrap();
    assert!(now != whole, "made anew");

    // a place that takes no files
    let blocked = place.dir.path().join("blocked");
    std::fs::write(&blocked, b"").unwrap();
    let listed = Listed::open(&journal, &blocked).unwrap();
    assert!(
        listed.files.is_empty(),
        "too much to list it for one question"
    );
    let one = |records: &dyn Records| {
        let mut leaves = Vec::new();
        records
            .visit(&about, &mut |seen| leaves.push(seen.id.leaf))
            .unwrap();
        leaves
    };
    assert_eq!(one(&listed), one(&journal));
}

#[test]
fn what_every_question_reads_comes_from_copies_or_from_the_journal_where_they_are_damaged() {
    let mut world = World::new();
    // the journal's own first record
    world.agent("start", -4001.0);
    world.agent("start", -4000.0);
    let mut noise = container("noise", 'f', -3900.0, '3');
    world.container(&noise, -3900.0);
    world.gap(None, Stage::BulkRing, -10.0, -5.0, Some(7), "burst");
    fill(&mut world, &noise, LIST_LEAVES[0] as usize + 9, 200.0);
    world.gone(&mut noise, 900.0);
    let place = Place::new(&world);
    let journal = place.journal();
    let open = || Listed::open(&journal, &place.lists()).unwrap();
    let kinds = [
        RecordKind::Container,
        RecordKind::Lifecycle,
        RecordKind::Gap,
    ];
    let filter = Filter::of(&kinds);
    let of = |records: &dyn Records| {
        let mut seen = Vec::new();
        let each = &mut |s: Seen| seen.push(format!("{s:?}"));
        records.visit(&filter, each).unwrap();
        seen
    };
    let listed = open();
    let copied = |s: &Stretch| matches!(s, Stretch::Copied { too, .. } if too.is_empty());
    let stretches = listed.stretches(&filter);
    assert_eq!(
        stretches.iter().filter(|s| copied(s)).count(),
        2,
        "a file and the tail: {stretches:?}"
    );
    assert_eq!(of(&listed), of(&journal));
    assert_eq!(of(&listed).len(), 4);
    let others = Filter::of(&[RecordKind::Container, RecordKind::Alert]);
    assert!(!listed.stretches(&others).iter().any(copied));

    let file = files_below(&place.lists().join("leaves")).remove(0);
    let whole = std::fs::read(&file).unwrap();
    let mut bad = whole.clone();
    *bad.last_mut().unwrap() ^= 4;
    std::fs::write(&file, &bad).unwrap();
    assert_eq!(of(&open()), of(&journal));
    assert_eq!(of(&open()), of(&journal));
    assert!(std::fs::read(&file).unwrap() == whole, "made again");
}

#[test]
fn lists_of_a_growing_journal_stay_few_and_tell_what_a_whole_reading_tells() {
    let mut world = World::new();
    world.agent("start", -4001.0);
    let noise = container("noise", 'f', -3900.0, '3');
    world.container(&noise, -3900.0);
    let web = container("web", 'a', -500.0, '1');
    world.container(&web, -499.0);
    attack(&mut world, &web, "A-1", 100.0);
    let mut place = Place::new(&world);
    for records in [3000, 9000, 30_000, 64_000, 66_000, 75_000] {
        let from = world.records.len();
        fill(&mut world, &noise, records, 200.0);
        attack(
            &mut world,
            &web,
            &format!("B-{records}"),
            200.0 + records as f64 / 1e6,
        );
        place.append(&world, from);
        let journal = place.journal();
        let listed = Listed::open(&journal, &place.lists()).unwrap();
        assert_eq!(
            listed.holes(listed.end).next(),
            None,
            "{records}: all is listed"
        );
        assert!(
            listed.files.len() <= 17,
            "{records}: {} files",
            listed.files.len()
        );
        let few = Filter::of(&[RecordKind::Alert]).about(&web.instance);
        let of = |records: &dyn Records| {
            let mut leaves = Vec::new();
            let each = &mut |seen: Seen| leaves.push(seen.id.leaf);
            records.visit(&few, each).unwrap();
            leaves
        };
        assert_eq!(of(&listed), of(&journal), "{records}");
    }
    let names = files_below(&place.lists().join("leaves"));
    assert_eq!(names.len(), 3, "a span and two pieces: {names:?}");
    let journal = place.journal();
    let listed = Listed::open(&journal, &place.lists()).unwrap();
    // an interval that cuts through blocks is counted to the record
    let filter = Filter::of(&[RecordKind::Observation])
        .about(&noise.instance)
        .between(at(200.0301).wall, at(200.0602).wall)
        .acts(Acts::EXEC);
    let counted = |records: &dyn Records| {
        let mut survey = Survey::new(usize::MAX, None);
        records.survey(&filter, &mut survey, &mut |_| {}).unwrap();
        (survey.count(), survey.choose(Acts::ALL).leaves)
    };
    let (all, leaves) = counted(&journal);
    assert!(all > 20_000 && leaves.len() as u64 == all);
    assert_eq!(counted(&listed), (all, leaves));
    compare(
        &journal,
        &listed,
        "grown",
        &[Subject::Container("noise".into())],
    );
    // where nobody may write, the same is listed in memory
    let lists = place.dir.path().join("blocked");
    std::fs::write(&lists, b"").unwrap();
    let mut short = World::new();
    short.agent("start", -4001.0);
    short.container(&web, -499.0);
    attack(&mut short, &web, "A-1", 100.0);
    let other = Place::new(&short);
    let journal = other.journal();
    let listed = Listed::open(&journal, &lists).unwrap();
    assert_eq!(listed.files.len(), 1);
    compare(
        &journal,
        &listed,
        "in memory",
        &[Subject::Container("web".into())],
    );
}

#[test]
fn the_last_sign_of_life_is_found_from_behind() {
    let mut world = World::new();
    world.agent("start", -4001.0);
    let noise = container("noise", 'f', -3900.0, '3');
    world.container(&noise, -3900.0);
    for s in 0..9 {
        fill(&mut world, &noise, 3000 * (s + 1), 100.0 * s as f64);
        let now = at(100.0 * s as f64 + 50.0);
        let anchor = ClockAnchor {
            boot: now.boot,
            wall: now.wall,
            uncertainty_ns: 1000,
            step_ns: 0,
        };
        world.put(now, None, Record::Clock(anchor));
    }
    let place = Place::new(&world);
    let journal = place.journal();
    let listed = Listed::open(&journal, &place.lists()).unwrap();
    let latest = |records: &dyn Records, from: f64, to: f64| {
        let clock = RecordKind::Clock;
        records.latest(clock, at(from).wall, at(to).wall).unwrap()
    };
    for (from, to) in [
        (0.0, 4000.0),
        (0.0, 349.0),
        (60.0, 140.0),
        (50.0, 50.0),
        (900.0, 990.0),
    ] {
        assert_eq!(
            latest(&listed, from, to),
            latest(&journal, from, to),
            "{from} to {to}"
        );
    }
    assert_eq!(latest(&listed, 0.0, 349.0), Some(at(250.0).wall));
    assert_eq!(latest(&listed, 60.0, 140.0), None);
}

#[test]
fn a_leaf_that_was_damaged_before_it_was_listed_is_told_as_a_whole_reading_tells_it() {
    let mut world = World::new();
    world.agent("start", -4001.0);
    let noise = container("noise", 'f', -3900.0, '3');
    world.container(&noise, -3900.0);
    let web = container("web", 'a', -500.0, '1');
    world.container(&web, -499.0);
    attack(&mut world, &web, "A-1", 100.0);
    fill(&mut world, &noise, SPAN_LEAVES as usize + 9, 200.0);
    let place = Place::new(&world);
    // a byte of a payload of the class of observations, and one of a leaf
    let dir = place.dir.path().join("journal");
    let mut struck = 0;
    for (path, at) in files_below(&dir).into_iter().filter_map(|p| {
        let name = p.file_name()?.to_str()?.to_owned();
        let observations = name.contains("-3") || name.contains(".3.") || name.contains("c3");
        match p.extension()?.to_str()? {
            "leaf" | "leaves" | "seg" => Some((p, 4096 + 50 * 96)),
            _ if observations => Some((p, 9000)),
            _ => None,
        }
    }) {
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 0x40;
            struck += 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    assert!(struck > 0, "{:?}", files_below(&dir));
    let journal = place.journal();
    let listed = Listed::open(&journal, &place.lists()).unwrap();
    let subject = Subject::Container("web".into());
    for question in Question::ALL {
        let one = Ask {
            question,
            subject: subject.clone(),
            around_ns: None,
            now: at(4000.0).wall,
            read_max: READ_MAX,
        };
        let answer = |records: &dyn Records| {
            let answer = plimsoll_ask::ask(records, &scene::Known, &one).unwrap();
            serde_json::to_string_pretty(&answer).unwrap()
        };
        assert_eq!(answer(&listed), answer(&journal), "{question}");
    }
}

fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for item in std::fs::read_dir(dir).unwrap().flatten() {
        match item.path().is_dir() {
            true => all.extend(files_below(&item.path())),
            false => all.push(item.path()),
        }
    }
    all
}
