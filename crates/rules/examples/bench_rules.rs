//! How fast events are judged, on a synthetic mix in the proportions of a busy node.
//!
//! `cargo run --release -p plimsoll-rules --example bench_rules [-- --also N]`
//!
//! Prints the time to load, events a second on one core, the median over the mix, allocations of an
//! event that matches nothing, and the same with 1,000 more rules of the same shapes; then each of
//! the bounds with what came of it. Times are of this thread's processor time, so that other
//! work on the machine costs caches and not the whole measurement. `--assert` makes missing a bound
//! an error.

#[path = "../tests/support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::hint::black_box;

use plimsoll_rules::{LoadOptions, Ruleset, Scratch, Source, load};
use support::{Event, FALCO_FILES, Held, corpus_files};

/// An event of the mix, and how many of a thousand events are like it.
struct Share {
    name: &'static str,
    permille: usize,
    event: Event,
}

fn process(kind: &str, name: &str, exe: &str, cmdline: &str, parent: &str) -> Event {
    Event::new(kind)
        .with("container.id", "3ad7b26ded6d")
        .with("container.name", "web")
        .with("container.image.repository", "docker.io/library/nginx")
        .with("container.privileged", false)
        .with("k8s.ns.name", "shop")
        .with("k8s.pod.name", "web-5d5f7c9d6b-x2x7q")
        .with("proc.name", name)
        .with("proc.exe", exe)
        .with("proc.exepath", exe)
        .with("proc.cmdline", cmdline)
        .with("proc.args", cmdline.split_once(' ').map_or("", |(_, a)| a))
        .with("proc.pname", parent)
        .with("proc.pcmdline", parent)
        .with("proc.pexe", parent)
        .with("proc.aname", &[parent, "containerd-shim", "systemd"][..])
        .with("proc.aname[2]", "containerd-shim")
        .with("proc.aname[3]", "systemd")
        .with("proc.vpid", 7i64)
        .with("proc.tty", 0i64)
        .with("proc.duration", 5_000_000_000u64)
        .with("proc.is_exe_upper_layer", false)
        .with("proc.is_exe_from_memfd", false)
        .with("proc.env", "PATH=/usr/bin HOME=/root HOSTNAME=web")
        .with("proc.cwd", "/srv/app/")
        .with("user.name", "www-data")
        .with("user.uid", 33u64)
        .with("user.loginuid", -1i64)
        .with("thread.cap_effective", "")
        .with("thread.cap_permitted", "CAP_CHOWN CAP_DAC_OVERRIDE")
        .with("evt.num", 1u64)
        .with("evt.rawres", 0i64)
        .with("evt.res", "SUCCESS")
}

fn file(kind: &str, path: &str, write: bool) -> Event {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    process(
        kind,
        "nginx",
        "/usr/sbin/nginx",
        "nginx -g daemon off;",
        "containerd-shim",
    )
    .with("fd.num", 9i64)
    .with("fd.typechar", "f")
    .with("fd.type", "file")
    .with("fd.name", path)
    .with("fd.nameraw", path)
    .with("fd.directory", directory)
    .with("fd.filename", name)
    .with("evt.is_open_read", !write)
    .with("evt.is_open_write", write)
    .with("evt.is_open_exec", false)
    .with(
        "evt.arg[flags]",
        if write {
            "O_WRONLY|O_CREAT"
        } else {
            "O_RDONLY"
        },
    )
    .with("evt.arg[name]", path)
    .with("evt.arg[path]", path)
    .with("evt.arg[oldpath]", path)
    .with("evt.arg[newpath]", "/srv/app/next")
    .with("evt.arg[mode]", "S_IRUSR|S_IWUSR")
}

fn socket(kind: &str, to: &str, port: u64) -> Event {
    let ends = Held::Ips(vec!["10.1.0.7".parse().unwrap(), to.parse().unwrap()]);
    process(
        kind,
        "python3",
        "/usr/bin/python3.12",
        "python3 app.py",
        "tini",
    )
    .with("fd.num", 12i64)
    .with("fd.typechar", "4")
    .with("fd.type", "ipv4")
    .with("fd.l4proto", "tcp")
    .with("fd.name", format!("10.1.0.7:40000->{to}:{port}").as_str())
    .with("fd.connected", true)
    .with("fd.name_changed", true)
    .with("fd.cip", "10.1.0.7".parse::<std::net::IpAddr>().unwrap())
    .with("fd.sip", to.parse::<std::net::IpAddr>().unwrap())
    .with("fd.snet", to.parse::<std::net::IpAddr>().unwrap())
    .with("fd.rnet", to.parse::<std::net::IpAddr>().unwrap())
    .with("fd.ip", ends.clone())
    .with("fd.net", ends)
    .with("fd.port", Held::Numbers(vec![40000, port]))
    .with("fd.sport", port)
    .with("fd.cport", 40000u64)
    .with("fd.sip.name", &["db.shop.svc"][..])
    .with("fd.sockfamily", "ip")
}

fn mix() -> Vec<Share> {
    let exec = |name: &str, path: &str, line: &str| {
        process("execve", name, path, line, "sh").with("evt.arg[flags]", "EXE_LOWER_LAYER")
    };
    let share = |name, permille, event| Share {
        name,
        permille,
        event,
    };
    vec![
        share(
            "open library",
            220,
            file("openat", "/usr/lib/x86_64-linux-gnu/libssl.so.3", false),
        ),
        share(
            "open data",
            150,
            file("openat", "/srv/app/templates/index.html", false),
        ),
        share("open /proc", 60, file("openat", "/proc/self/status", false)),
        share("open /etc", 30, file("openat", "/etc/resolv.conf", false)),
        share(
            "write log",
            60,
            file("openat", "/var/log/nginx/access.log", true),
        ),
        share("write tmp", 40, file("openat", "/tmp/upload-81723", true)),
        share(
            "close",
            80,
            file("close", "/srv/app/templates/index.html", false),
        ),
        share(
            "read",
            60,
            file("read", "/srv/app/templates/index.html", false),
        ),
        share("connect db", 60, socket("connect", "10.4.3.2", 5432)),
        share("connect out", 20, socket("connect", "93.184.216.34", 443)),
        share("accept", 40, socket("accept4", "10.1.0.7", 8080)),
        share("sendto", 30, socket("sendto", "10.4.3.2", 5432)),
        share("recvfrom", 30, socket("recvfrom", "10.4.3.2", 5432)),
        share("exec date", 20, exec("date", "/usr/bin/date", "date +%s")),
        share(
            "exec sh -c",
            20,
            exec("sh", "/bin/dash", "sh -c curl -sf localhost:8080/health"),
        ),
        share(
            "exec python",
            10,
            exec(
                "python3",
                "/usr/bin/python3.12",
                "python3 manage.py migrate",
            ),
        ),
        share("unlink", 20, file("unlinkat", "/tmp/upload-81723", false)),
        share("rename", 20, file("renameat2", "/tmp/upload-81723", false)),
        share(
            "chmod",
            10,
            file("fchmodat", "/srv/app/static/a.css", false),
        ),
        share("dup", 10, file("dup2", "/dev/null", false)),
        share("mkdir", 10, file("mkdirat", "/srv/app/cache/ab", false)),
    ]
}

/// Rules of the shapes that the public ones have, with other constants.
fn more_rules(count: usize) -> String {
    let mut text = String::new();
    for i in 0..count {
        let condition = match i % 5 {
            0 => format!("spawned_process and container and proc.name in (tool{i}, helper{i})"),
            1 => format!(
                "open_write and fd.name startswith /opt/app{i}/ and not proc.name in (a{i}, b{i})"
            ),
            2 => format!(
                "open_read and (fd.name startswith /secrets{i}/ or fd.name = /etc/key{i}) and container"
            ),
            3 => format!(
                "evt.type = connect and fd.sport = {} and container and proc.name = net{i}",
                10_000 + i
            ),
            _ => format!(
                "spawned_process and proc.cmdline contains \"--flag{i}\" and proc.pname = p{i}"
            ),
        };
        let _ = write!(
            text,
            "- rule: more {i}\n  desc: d\n  priority: NOTICE\n  output: o %proc.name\n  condition: {condition}\n"
        );
    }
    text
}

/// Processor time that this thread has used, seconds.
fn used() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

struct Measured {
    load_ms: f64,
    /// Most allocations of one event that matches nothing.
    allocations: u64,
    events_per_s: f64,
    median_ns: f64,
    slowest: (&'static str, f64),
}

fn measure(files: &[(&str, &str)], shares: &[Share], show: bool) -> Measured {
    // the fastest of three: the first reads the texts into the caches
    let times = [0; 3].map(|_| {
        let start = used();
        black_box(load(files, &LoadOptions::default()));
        (used() - start) * 1e3
    });
    let load_ms = times.into_iter().fold(f64::INFINITY, f64::min);
    let (report, set) = load(files, &LoadOptions::default());
    let set =
        set.unwrap_or_else(|| panic!("{:?}", report.errors().next().map(|(_, e)| &e.message)));
    let mut scratch = Scratch::default();
    let mut one = |set: &Ruleset, event: &Event| {
        black_box(
            set.judge(Source::Syscall, black_box(event), &mut scratch)
                .len(),
        )
    };
    // The mix, shuffled so that no two of a kind follow each other by rule.
    let mut order: Vec<usize> = shares
        .iter()
        .enumerate()
        .flat_map(|(i, s)| vec![i; s.permille])
        .collect();
    let mut seed = 88_172_645_463_325_252u64;
    for i in (1..order.len()).rev() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        order.swap(i, (seed % (i as u64 + 1)) as usize);
    }
    for i in &order {
        one(&set, &shares[*i].event);
    }
    let rounds = 1_000;
    let start = used();
    for _ in 0..rounds {
        for i in &order {
            one(&set, &shares[*i].event);
        }
    }
    let events_per_s = (rounds * order.len()) as f64 / (used() - start);
    let allocations = shares.iter().map(|share| {
        let mut matched = 0;
        let counted = allocation_counter::measure(|| matched = one(&set, &share.event));
        if matched == 0 { counted.count_total } else { 0 }
    });
    let allocations = allocations.max().unwrap_or(0);
    let mut each: Vec<(f64, &Share)> = shares
        .iter()
        .map(|share| {
            let start = used();
            for _ in 0..20_000 {
                one(&set, &share.event);
            }
            ((used() - start) * 1e9 / 20_000.0, share)
        })
        .collect();
    each.sort_by(|a, b| a.0.total_cmp(&b.0));
    if show {
        for (ns, share) in &each {
            let rules: Vec<&str> = set
                .judge(Source::Syscall, &share.event, &mut scratch)
                .iter()
                .map(|id| set.rule(*id).name.as_str())
                .collect();
            println!(
                "  {ns:8.0} ns  {:4} ‰  {} {rules:?}",
                share.permille, share.name
            );
        }
    }
    let mut seen = 0;
    let median = each.iter().find(|(_, s)| {
        seen += s.permille;
        seen >= 500
    });
    let slowest = each.last().map_or(("", 0.0), |(ns, s)| (s.name, *ns));
    Measured {
        load_ms,
        allocations,
        events_per_s,
        median_ns: median.map_or(0.0, |m| m.0),
        slowest,
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let also = args
        .iter()
        .position(|a| a == "--also")
        .and_then(|i| args.get(i + 1))
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000);
    let Some(files) = corpus_files("falco-rules", &FALCO_FILES) else {
        return;
    };
    let mut files: Vec<(&str, &str)> = files
        .iter()
        .map(|(n, t)| (n.as_str(), t.as_str()))
        .collect();
    let shares = mix();
    println!("public rules:");
    let stock = measure(&files, &shares, true);
    print(&stock);
    let more = more_rules(also);
    files.push(("more.yaml", &more));
    println!("with {also} more:");
    let with_more = measure(&files, &shares, true);
    print(&with_more);
    let ratio = stock.events_per_s / with_more.events_per_s;
    println!("price of {also} more rules: {ratio:.2} x");
    let bounds = [
        (
            "events a second on one core, at least 2,000,000",
            stock.events_per_s >= 2e6,
        ),
        ("median of an event, below 300 ns", stock.median_ns < 300.0),
        (
            "allocations of an event that matches nothing, none",
            stock.allocations == 0 && with_more.allocations == 0,
        ),
        (
            "loading the public rules, below 100 ms",
            stock.load_ms < 100.0,
        ),
        ("price of 1,000 more rules, below 2 x", ratio < 2.0),
    ];
    println!("bounds:");
    for (bound, met) in bounds {
        println!("  {} {bound}", if met { "met   " } else { "MISSED" });
    }
    if args.iter().any(|a| a == "--assert") {
        let missed = bounds.iter().filter(|(_, met)| !met).count();
        assert_eq!(missed, 0, "bounds were missed");
    }
}

fn print(m: &Measured) {
    println!(
        "  loaded in {:.1} ms; {:.2} million events/s; median {:.0} ns; slowest: {} {:.0} ns; \
         {} allocations",
        m.load_ms,
        m.events_per_s / 1e6,
        m.median_ns,
        m.slowest.0,
        m.slowest.1,
        m.allocations
    );
}
