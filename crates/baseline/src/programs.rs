//! Programs by what they are for: shells, servers, tools. By base name, because images differ in
//! where they put them; a name decides how an act is *described*, never that it is allowed.

pub use plimsoll_model::paths::{is_runtime, name_of};

/// Command shells.
pub const SHELLS: &[&str] = &[
    "sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "csh", "tcsh", "fish", "rbash", "pwsh",
];

/// Programs that run code given on the command line.
pub const INTERPRETERS: &[&str] = &[
    "python", "python2", "python3", "perl", "ruby", "php", "node", "lua", "tclsh", "awk", "gawk",
    "mawk", "irb", "deno", "bun",
];

/// Web servers, databases, caches, queues and application runtimes: none of them needs a shell.
const SERVERS: &[&str] = &[
    "nginx",
    "apache2",
    "httpd",
    "lighttpd",
    "caddy",
    "haproxy",
    "envoy",
    "traefik",
    "varnishd",
    "php-fpm",
    "php-cgi",
    "unicorn",
    "puma",
    "gunicorn",
    "uwsgi",
    "uvicorn",
    "hypercorn",
    "daphne",
    "java",
    "node",
    "deno",
    "bun",
    "dotnet",
    "w3wp",
    "redis-server",
    "valkey-server",
    "memcached",
    "postgres",
    "mysqld",
    "mariadbd",
    "mongod",
    "mongos",
    "cassandra",
    "influxd",
    "clickhouse",
    "clickhouse-server",
    "etcd",
    "rabbitmq-server",
    "beam.smp",
    "mosquitto",
    "nats-server",
    "named",
    "unbound",
    "dnsmasq",
    "vsftpd",
    "proftpd",
    "exim4",
    "master",
    "smbd",
    "slapd",
    "squid",
    "tomcat",
    "jenkins",
    "grafana",
    "grafana-server",
    "prometheus",
    "minio",
    "vault",
    "consul",
    "elasticsearch",
    "solr",
];

/// Scripts whose interpreter is a build tool rather than a server.
const TOOL_SCRIPTS: &[&str] = &[
    "npm",
    "npx",
    "yarn",
    "pnpm",
    "npm-cli.js",
    "npx-cli.js",
    "yarn.js",
    "pnpm.cjs",
    "corepack",
    "pip",
    "pip3",
    "gem",
    "bundle",
    "rake",
];

/// Scripts that make their interpreter a server.
const SERVER_SCRIPTS: &[&str] = &[
    "gunicorn",
    "uwsgi",
    "uvicorn",
    "hypercorn",
    "daphne",
    "flask",
    "celery",
    "puma",
    "unicorn",
    "manage.py",
    "wsgi.py",
    "app.py",
    "server.py",
];

/// Programs whose work it is to read password hashes and keys.
const CREDENTIAL_READERS: &[&str] = &[
    "sshd",
    "sshd-session",
    "login",
    "su",
    "sudo",
    "cron",
    "crond",
    "unix_chkpwd",
    "passwd",
    "chpasswd",
    "chage",
    "chsh",
    "chfn",
    "useradd",
    "usermod",
    "userdel",
    "adduser",
    "deluser",
    "groupadd",
    "groupmod",
    "groupdel",
    "gpasswd",
    "pwck",
    "pwconv",
    "vipw",
    "dpkg",
    "systemd",
    "systemd-userdbd",
    "systemd-sysusers",
    "nscd",
    "sssd",
    "sssd_nss",
    "polkitd",
    "agetty",
    "gosu",
    "su-exec",
    "runuser",
];

/// Tools that fetch, scan, tunnel or dump: worth naming in a sentence.
const OFFENSIVE_TOOLS: &[&str] = &[
    "nc",
    "ncat",
    "netcat",
    "nc.openbsd",
    "nc.traditional",
    "socat",
    "nmap",
    "masscan",
    "zmap",
    "tcpdump",
    "tshark",
    "dig",
    "nslookup",
    "host",
    "hydra",
    "sqlmap",
    "chisel",
    "proxychains",
    "proxychains4",
    "kubectl",
    "docker",
    "crictl",
    "ctr",
    "nsenter",
    "capsh",
    "gdb",
    "strace",
];

/// Tools that only read or fetch; ordinary in scripts, telling in the hands of a server.
const READ_TOOLS: &[&str] = &[
    "cat", "head", "tail", "less", "more", "grep", "egrep", "sed", "awk", "cut", "strings", "xxd",
    "od", "base64", "cp", "dd", "tar", "zip", "find", "curl", "wget", "vi", "vim", "nano", "tac",
    "rsync", "scp",
];

/// Miners by their usual names.
const MINERS: &[&str] = &[
    "xmrig",
    "xmr-stak",
    "minerd",
    "cpuminer",
    "ccminer",
    "ethminer",
    "nbminer",
    "t-rex",
    "kdevtmpfsi",
    "kinsing",
    "lolminer",
    "srbminer",
    "cgminer",
    "bfgminer",
];

/// `python3.11` → `python`, `php-fpm8.2` → `php-fpm`, `redis-server` as it is.
fn stem(name: &str) -> &str {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    if stem.is_empty() { name } else { stem }
}

fn listed(list: &[&str], path: &[u8]) -> bool {
    let name = name_of(path);
    !name.is_empty() && (list.contains(&name) || list.contains(&stem(name)))
}

/// Programs that are many in one, told apart by the name they are called by.
const MULTICALL: &[&str] = &["busybox", "toybox", "coreutils"];

/// Whether a program is many in one.
pub fn is_multicall(path: &[u8]) -> bool {
    MULTICALL.contains(&name_of(path))
}

/// The name under which a multi-call program acts (`/bin/busybox` called as `nc` is `nc`); any
/// other program's own path. Such programs choose what to do by this very name, so it is true.
pub fn applet<'a>(exe: &'a [u8], argv: &'a [plimsoll_model::Text]) -> &'a [u8] {
    if !MULTICALL.contains(&name_of(exe)) {
        return exe;
    }
    let called = |i: usize| argv.get(i).map(|a| a.as_bytes()).filter(|a| !a.is_empty());
    match called(0).map(|a| a.strip_prefix(b"-").unwrap_or(a)) {
        None => exe,
        Some(first) if MULTICALL.contains(&name_of(first)) => called(1).unwrap_or(exe),
        Some(first) => first,
    }
}

/// Whether a program is a command shell.
pub fn is_shell(path: &[u8]) -> bool {
    listed(SHELLS, path)
}

/// Whether a program runs code given on the command line.
pub fn is_interpreter(path: &[u8]) -> bool {
    listed(INTERPRETERS, path)
}

/// Whether a program (with the script it interprets) is a server by its name.
pub fn is_server(exe: &[u8], script: &[u8]) -> bool {
    if !script.is_empty() && listed(TOOL_SCRIPTS, script) {
        return false;
    }
    listed(SERVERS, exe) || (!script.is_empty() && listed(SERVER_SCRIPTS, script))
}

/// Whether a program may be expected to read password hashes: by name, and from where such
/// programs live.
pub fn is_credential_reader(path: &[u8]) -> bool {
    listed(CREDENTIAL_READERS, path)
        && (crate::paths::is_program_dir(path) || path.starts_with(b"/usr/lib/"))
}

/// Whether a program is one that attackers bring or use.
pub fn is_offensive_tool(path: &[u8]) -> bool {
    listed(OFFENSIVE_TOOLS, path)
}

/// Whether a program merely reads or fetches for whoever calls it.
pub fn is_read_tool(path: &[u8]) -> bool {
    listed(READ_TOOLS, path)
}

/// Whether a program is a known miner.
pub fn is_miner(path: &[u8]) -> bool {
    listed(MINERS, path)
}
