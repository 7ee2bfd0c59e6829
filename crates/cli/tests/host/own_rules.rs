//! Our own rules on real processes in real containers: each act of `rules/scenarios/` fires its rule,
//! nothing that comes near does, and a benign day raises nothing above Notice.

use crate::own::{Scenario, scenarios};
use crate::{Agent, alone, docker_socket};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const DEBIAN: &str = "plimsoll-test/debian:1";
const POSTGRES: &str = "plimsoll-test/postgres:1";

/// What the scripts of scenarios may call.
const PRELUDE: &str = r#"
bin=/opt/act; mkdir -p $bin
# a shell of that name, which stays the parent of what it runs
as() { cp /bin/bash $bin/$1; $bin/$1 -c "$2; true"; }
# a harmless program of that name
fake() { cp /bin/true $bin/$1; n=$1; shift; $bin/$n "$@"; }
# takes one connection on the container's own address, says nothing and hangs up
listen() {
    perl -MIO::Socket::INET -e '
        $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "0.0.0.0:$ARGV[0]", ReuseAddr => 1) or die;
        alarm 60; $s->accept' $1 &
}
"#;

/// Numbers of the system calls that scripts name, for this machine.
pub(crate) const CALLS: &[(&str, u32)] = if cfg!(target_arch = "aarch64") {
    &[
        ("socket", 198),
        ("setuid", 146),
        ("mount", 40),
        ("umount2", 39),
        ("open_by_handle_at", 265),
        ("name_to_handle_at", 264),
        ("init_module", 105),
        ("delete_module", 106),
        ("bpf", 280),
        ("ptrace", 117),
        ("userfaultfd", 282),
        ("eventfd2", 19),
        ("memfd_create", 279),
    ]
} else {
    &[
        ("socket", 41),
        ("setuid", 105),
        ("mount", 165),
        ("umount2", 166),
        ("open_by_handle_at", 304),
        ("name_to_handle_at", 303),
        ("init_module", 175),
        ("delete_module", 176),
        ("bpf", 321),
        ("ptrace", 101),
        ("userfaultfd", 323),
        ("eventfd2", 290),
        ("memfd_create", 319),
    ]
};

/// An agent with our own rules and no others.
fn start(docker: String) -> Agent {
    let dir = tempfile::tempdir().expect("a directory");
    let config = "version: 1\nlearning:\n  slot_seconds: 1\nrules:\n  paths: []\n";
    std::fs::write(dir.path().join("config.yaml"), config).expect("write the configuration");
    Agent::start_in(dir, docker)
}

fn script(work: &str) -> String {
    let mut work = work.to_owned();
    for (name, number) in CALLS {
        work = work.replace(&format!("@{name}@"), &number.to_string());
    }
    assert!(
        !work.contains("syscall(@"),
        "a call without a number: {work}"
    );
    format!("{PRELUDE}\n{work}\ntrue\n")
}

fn name_of(scenario: &Scenario, half: &str) -> String {
    format!("own-{half}-{}", scenario.slug())
}

/// Runs one half of a scenario; its own success is not what is asked.
fn perform(agent: &Agent, scenario: &Scenario, half: &str) {
    let name = name_of(scenario, half);
    let work = script(match half {
        "act" => &scenario.act,
        _ => &scenario.near,
    });
    // a file, because rules read what shells are given as arguments
    let file = agent.dir.path().join(format!("{name}.sh"));
    std::fs::write(&file, work).expect("write the script");
    let mount = format!("{}:/act.sh:ro", file.display());
    let mut args = vec!["run", "--rm", "--name", &name, "-v", &mount];
    args.extend(scenario.options.iter().map(String::as_str));
    if half == "act" {
        args.extend(scenario.options_of_act.iter().map(String::as_str));
    }
    args.extend([DEBIAN, "bash", "/act.sh"]);
    agent.docker(&args);
}

/// Names of the rules that fired, by container.
pub(crate) fn fired(agent: &Agent) -> BTreeMap<String, BTreeSet<String>> {
    let mut rules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (container, alert) in by_container(agent) {
        let rule = alert["rule"].as_str().unwrap_or_default();
        rules.entry(container).or_default().insert(rule.to_owned());
    }
    rules
}

/// Alerts of rules with the name of their container. By its id: on a busy machine an alert may be
/// told before the name is known.
pub(crate) fn by_container(agent: &Agent) -> Vec<(String, Value)> {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for container in agent.plimsoll(&["containers", "--all"]).unwrap_or_default() {
        let text = |key: &str| container[key].as_str().map(str::to_owned);
        if let (Some(id), Some(name)) = (text("container_id"), text("name")) {
            names.insert(id.chars().take(12).collect(), name);
        }
    }
    let named = |alert: Value| {
        let id = alert["output_fields"]["container.id"].as_str()?;
        Some((names.get(id)?.clone(), alert))
    };
    of_rules(agent).into_iter().filter_map(named).collect()
}

fn of_rules(agent: &Agent) -> Vec<Value> {
    let all = agent
        .plimsoll(&["alerts", "--limit", "0"])
        .unwrap_or_default();
    let of_rule = |a: &Value| a["plimsoll"]["drift"].is_null();
    all.into_iter().filter(of_rule).collect()
}

/// What these containers did has come through once they have gone and nothing waits.
pub(crate) fn over(agent: &Agent, names: &[String]) {
    agent.wait_until("the containers have gone", || {
        let all = agent.plimsoll(&["containers", "--all"]).unwrap_or_default();
        let gone = |name: &String| {
            let mut all = all.iter();
            all.any(|c| c["name"] == **name && c["state"] == "gone")
        };
        names.iter().all(gone)
    });
    all_is_written(agent);
}

/// Nothing waits any more anywhere between the rings and the journal.
pub(crate) fn all_is_written(agent: &Agent) {
    const QUEUES: [&str; 5] = [
        "inbox_bulk",
        "inbox_tree",
        "inbox_alert",
        "identity_waiting",
        "journal_queue",
    ];
    // two looks in a row: between the kernel's rings and the queues there is a reader
    let mut empty = 0;
    agent.wait_until("nothing is on its way", || {
        let status = agent.plimsoll(&["status"]).unwrap_or_default();
        let drained = |q: &str| status.iter().all(|s| s["queues"][q].as_u64() == Some(0));
        let all = !status.is_empty() && QUEUES.into_iter().all(drained);
        empty = if all { empty + 1 } else { 0 };
        empty >= 2
    });
}

#[test]
fn every_own_rule_fires_on_its_act_in_a_container_and_on_nothing_near() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = start(docker);
    // for looking at some of them only
    let only = std::env::var("PLIMSOLL_TEST_SCENARIOS").unwrap_or_default();
    let all: Vec<Scenario> = scenarios()
        .into_iter()
        .filter(|s| s.rule.contains(&only) || s.tactic == only)
        .collect();
    let mut names = Vec::new();
    for scenario in &all {
        for half in ["act", "near"] {
            perform(&agent, scenario, half);
            names.push(name_of(scenario, half));
        }
    }
    over(&agent, &names);
    let fired = fired(&agent);
    let has = |scenario: &Scenario, half| {
        let of = fired.get(&name_of(scenario, half));
        of.is_some_and(|rules| rules.contains(&scenario.rule))
    };
    let mut wrong = Vec::new();
    for s in &all {
        if !has(s, "act") {
            let others = fired.get(&name_of(s, "act"));
            wrong.push(format!(
                "{} did not fire on: {} ({others:?} did)",
                s.rule, s.act
            ));
        }
        if has(s, "near") {
            wrong.push(format!("{} fired on what comes near: {}", s.rule, s.near));
        }
    }
    let gaps = agent.plimsoll(&["gaps"]).unwrap_or_default();
    assert!(
        wrong.is_empty(),
        "{}\nnot observed meanwhile: {gaps:?}",
        wrong.join("\n")
    );
}

/// A day of ordinary work: the script and what its container needs.
struct Work {
    name: &'static str,
    image: &'static str,
    /// Programs of this machine that it runs; without them the second script is run.
    programs: &'static [&'static str],
    script: &'static str,
    otherwise: &'static str,
    /// It never comes to a last sleep.
    serves: bool,
}

const DAY: &[Work] = &[
    Work {
        name: "benign-web",
        image: DEBIAN,
        programs: &["/usr/sbin/nginx"],
        script: r#"
            mkdir -p /srv/www /var/log/nginx /var/lib/nginx; echo hello > /srv/www/index.html
            printf 'user root; worker_processes 2; daemon off; pid /run/nginx.pid; events {}
                http { access_log /var/log/nginx/access.log; server { listen 8080; root /srv/www; } }' > /srv/nginx.conf
            nginx -t -c /srv/nginx.conf; exec nginx -c /srv/nginx.conf"#,
        otherwise: "perl -MIO::Socket::INET -e '
            $s = IO::Socket::INET->new(Listen => 9, LocalPort => 8080, ReuseAddr => 1);
            while ($c = $s->accept) { <$c>; print $c qq(HTTP/1.0 200 OK\\r\\n\\r\\nhello); close $c }'",
        serves: true,
    },
    Work {
        name: "benign-cache",
        image: DEBIAN,
        programs: &["/usr/bin/redis-server", "/usr/bin/redis-cli"],
        script: r#"
            mkdir -p /data /run/secrets; echo pw > /run/secrets/cache_password
            password=$(< /run/secrets/cache_password)
            [ "$(id -u)" = 0 ] && chown -R nobody /data && find /data ! -user nobody -exec chown nobody {} +
            redis-server --dir /data --appendonly yes --save 1 1 --requirepass "$password" &
            for i in $(seq 40); do
                redis-cli -a "$password" set k$i v >/dev/null 2>&1
                redis-cli -a "$password" get k$i >/dev/null 2>&1; sleep 0.2
            done
            redis-cli -a "$password" bgrewriteaof; sleep 600"#,
        otherwise: "mkdir /data; for i in $(seq 40); do echo v > /data/k.tmp; mv /data/k.tmp /data/k$i; sleep 0.2; done; sleep 600",
        serves: false,
    },
    Work {
        name: "benign-cron",
        image: DEBIAN,
        programs: &[],
        script: r#"
            mkdir -p /backup /srv/data /var/log/app; seq 10000 > /srv/data/list
            for i in $(seq 30); do
                date >> /var/log/app/job.log
                sh -c "tar czf /backup/data-$i.tgz -C /srv data && find /backup -name '*.tgz' -mmin +60 -delete"
                gzip -c /var/log/app/job.log > /var/log/app/job.log.$i.gz; : > /var/log/app/job.log
                touch /srv/data/stamp; awk '{s += $1} END {print s}' /srv/data/list > /srv/data/sum
                ls /proc | grep -c . > /dev/null; cat /proc/self/status /proc/loadavg > /dev/null
                sort -r /srv/data/list | sha256sum > /srv/data/sum.new; mv /srv/data/sum.new /srv/data/sum
                sleep 0.2
            done; sleep 600"#,
        otherwise: "",
        serves: false,
    },
    Work {
        name: "benign-build",
        image: DEBIAN,
        programs: &["/usr/bin/gcc", "/usr/bin/make"],
        script: r#"
            mkdir -p /src/t; cd /src
            for i in $(seq 12); do echo "int f$i(int x) { return x + $i; }" > f$i.c; done
            echo 'int f1(int); int main(void) { return f1(-1); }' > main.c
            printf 'all: prog\nprog: $(patsubst %%.c,%%.o,$(wildcard *.c))\n\tcc -o $@ $^\ncheck: prog\n\t./prog\n\tcp prog /tmp/prog.test && /tmp/prog.test\ninstall: check\n\tinstall -m 755 prog /usr/local/bin/prog 2>/dev/null || cp prog /opt/prog\n' > Makefile
            make -j2 && make check && make install
            for f in *.o; do mv $f t/$f; done; tar cf /srv/src.tar /src && gzip -9 /srv/src.tar && rm -rf /src/t
            sleep 600"#,
        otherwise: "mkdir -p /src; cd /src; for i in $(seq 200); do seq 100 > f$i.txt; done; tar cf /srv/src.tar /src && gzip -9 /srv/src.tar && tar xzf /srv/src.tar.gz -C /srv; rm -rf /src; sleep 600",
        serves: false,
    },
    Work {
        name: "benign-ledger",
        image: POSTGRES,
        programs: &[],
        script: "exec /usr/local/bin/start-postgres",
        otherwise: "",
        serves: true,
    },
    Work {
        name: "benign-small",
        image: "plimsoll-test/busybox:1",
        programs: &[],
        script: r#"
            mkdir -p /www; echo ok > /www/index.html; httpd -p 8081 -h /www
            for i in $(seq 30); do wget -q -O /dev/null http://127.0.0.1:8081/; ps > /dev/null; sleep 0.2; done
            sleep 600"#,
        otherwise: "",
        serves: false,
    },
];

/// What clients of a database do: fill it, work on it from several connections, report.
const LEDGER_CLIENT: &str = r#"
    pg=$(echo /usr/lib/postgresql/*/bin); export PGHOST=$1 PGUSER=postgres PATH=$PATH:$pg
    for i in $(seq 240); do pg_isready -q && break; sleep 0.5; done
    createdb shop && pgbench -q -i -s 2 shop 2>/dev/null && pgbench -c 4 -j 2 -T 6 shop 2>/dev/null
    for i in $(seq 20); do psql -qAt shop -c 'select count(*) from pgbench_history' >/dev/null; sleep 0.1; done"#;

/// What its administrators do, from cron or by hand, in its own container.
const LEDGER_CARE: &str = r#"
    set -e; export PGUSER=postgres
    psql -qAt shop -c 'vacuum analyze' -c checkpoint -c 'select pg_switch_wal()' -c 'select pg_reload_conf()' >/dev/null
    psql -qAt shop -c "copy pgbench_branches to '/tmp/branches.csv' csv" >/dev/null
    pg_dump shop | gzip > /var/backups/shop.sql.gz
    createdb again; gunzip -c /var/backups/shop.sql.gz | psql -qAt again >/dev/null; dropdb again"#;

fn begin(agent: &Agent, work: &Work) {
    let there = work
        .programs
        .iter()
        .all(|p| std::path::Path::new(p).exists());
    if !there {
        let what = work.programs.join(", ");
        eprintln!(
            "left out: {} with {what}, which this machine has not",
            work.name
        );
    }
    let script = if there { work.script } else { work.otherwise };
    let mut args = vec!["run", "-d", "--name", work.name];
    if there && !work.programs.is_empty() {
        // programs of this machine in an image of the same distribution
        args.extend(["-v", "/usr:/usr:ro"]);
    }
    let shell = if work.image != "plimsoll-test/busybox:1" {
        "bash"
    } else {
        "sh"
    };
    args.extend([work.image, shell, "-c", script]);
    agent.docker(&args);
}

#[test]
fn a_benign_day_raises_nothing_above_notice() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let images = format!("{}/images", crate::stage::env("PLIMSOLL_TEST_LIB"));
    crate::stage::run(&images, &["load", &docker, "postgres"]);
    let agent = start(docker);
    for work in DAY {
        begin(&agent, work);
    }
    // somebody asks the web server, and the runtime asks whether all are well
    let address = |name: &str| {
        let of = "{{.NetworkSettings.IPAddress}}";
        agent.docker(&["inspect", "-f", of, name]).trim().to_owned()
    };
    let url = format!("http://{}:8080/", address("benign-web"));
    let visits =
        format!("for i in $(seq 40); do wget -T 10 -q -O /dev/null {url}; sleep 0.1; done");
    agent.docker(&[
        "run",
        "--rm",
        "--name",
        "benign-visitor",
        "plimsoll-test/busybox:1",
        "sh",
        "-c",
        &visits,
    ]);
    let ledger = address("benign-ledger");
    let client = ["run", "--rm", "--name", "benign-ledger-client", POSTGRES];
    agent.docker(&[&client[..], &["sh", "-c", LEDGER_CLIENT, "sh", &ledger]].concat());
    agent.docker(&["exec", "benign-ledger", "bash", "-c", LEDGER_CARE]);
    for work in DAY {
        agent.docker(&[
            "exec",
            work.name,
            "sh",
            "-c",
            "test -d /proc/1 && cat /etc/hostname",
        ]);
    }
    // ten seconds of work and more: each script has come to its last sleep, the web server serves on
    agent.wait_until("the work is done", || {
        DAY.iter().filter(|w| !w.serves).all(|work| {
            let top = agent.docker(&["top", work.name, "-eo", "pid,args"]);
            top.lines().any(|l| l.ends_with("sleep 600"))
        })
    });
    // the agent was not asleep: one bad act is told
    agent.docker(&["exec", "benign-web", "cat", "/etc/shadow"]);
    agent.wait_until("the bad act is told", || {
        let fired = fired(&agent);
        fired
            .get("benign-web")
            .is_some_and(|r| r.contains("Password hashes read"))
    });
    let mut loud: Vec<String> = Vec::new();
    for (container, alert) in by_container(&agent) {
        let quiet = ["Notice", "Informational", "Debug"];
        let priority = alert["priority"].as_str().unwrap_or_default();
        let ours =
            DAY.iter().any(|work| work.name == container) || container == "benign-ledger-client";
        let meant = alert["rule"] == "Password hashes read" && container == "benign-web";
        if ours && !meant && !quiet.contains(&priority) {
            loud.push(format!("{priority}: {}", alert["output"]));
        }
    }
    for work in DAY {
        let events = agent.plimsoll(&["events", "--container", work.name]);
        assert!(
            events.is_some_and(|e| !e.is_empty()),
            "{} was seen",
            work.name
        );
        agent.docker(&["rm", "-f", work.name]);
    }
    assert!(loud.is_empty(), "{}", loud.join("\n"));
}
