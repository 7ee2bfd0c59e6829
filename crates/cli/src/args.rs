//! The command line: commands, options and their help.

use crate::commands::enforcement::EnforcementCommand;
use crate::commands::evidence::args::{EvidenceCommand, ReplayArgs};
use crate::commands::hooks::HooksCommand;
use crate::commands::lake::LakeCommand;
use crate::commands::notify::NotifyCommand;
use crate::commands::plan::PlanCommand;
use crate::commands::query::QueryArgs;
use crate::global::{Global, Selection};
use crate::values::{
    Questions, absolute, alert, behaviour, container, kind, node, priority, questions, reason,
    selector,
};
use crate::when::Length;
use clap::{Args, Parser, Subcommand};
use plimsoll_ask::Question;
use plimsoll_model::{AlertId, NodeId, Priority};
use std::path::PathBuf;

/// Plimsoll: knows what every container image does, and raises the alert at the first step below
/// that line.
#[derive(Debug, Parser)]
#[command(
    name = "plimsoll",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  plimsoll doctor                          what can be seen on this machine, and what it costs
  plimsoll run                             watch every container from now on (root)
  plimsoll alerts --since 1h               what went below the line in the last hour
  plimsoll ask Q2 --alert A-…              what was going on around an alert
  plimsoll ask all --container web         every question about a container, also a removed one
  plimsoll events --container web --json | head

Exit status: 0 fine, 1 something was found (doctor, status, baseline diff) or failed, 2 wrong usage.
Commands that read ask the running agent for live state, and read the data directory when there is
none; evidence is always read from the data directory."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Watch every container on this machine (needs root)
    #[command(after_help = "\
Examples:
  sudo plimsoll run
  sudo plimsoll run --data-dir /srv/plimsoll --json > alerts.jsonl

Alerts are shown on standard output as they happen: a line each on a terminal, Falco's JSON
otherwise. Stop it with Ctrl-C or SIGTERM; what was accepted is durable by then.")]
    Run(RunArgs),
    /// What this kernel and these runtimes allow, and what each refusal costs
    #[command(after_help = "\
Works without root and without an agent as far as it can; as root it loads the kernel side for a
moment (or asks the running agent) and says for each kind of event how it is seen, what was refused
and why, what that costs, and what to do. Exit status 1 when something is missing or degraded.")]
    Doctor,
    /// How the agent is doing
    #[command(after_help = "Exit status 1 when there is a problem, or no agent runs.")]
    Status,
    /// The containers that are watched
    #[command(after_help = "\
Examples:
  plimsoll containers
  plimsoll containers --all --json | jq 'select(.state == \"gone\") | .name'")]
    Containers(ContainersArgs),
    /// What images are known for: list, show, compare, decide
    #[command(after_help = "\
Examples:
  plimsoll baseline list
  plimsoll baseline show web               by container name, role, image, or the id's beginning
  plimsoll baseline diff b1f0@3 b1f0       what changed since version 3
  plimsoll baseline approve web --reason 'new health check, reviewed in CHG-104'")]
    Baseline {
        #[command(subcommand)]
        command: BaselineCommand,
    },
    /// Behaviour outside the baseline, latest last
    #[command(after_help = "\
Examples:
  plimsoll drift --container web --since 2d
  plimsoll drift --json | jq -r '[.risk, .class, .behaviour.object] | @tsv'")]
    Drift(DriftArgs),
    /// Alerts, latest last
    #[command(after_help = "\
Examples:
  plimsoll alerts --since 1h --priority warning
  plimsoll alerts --follow --json          as they become durable; a line with the same alert_id
                                           and a higher count supersedes the earlier one
  plimsoll ask Q1 Q2 Q6 --alert A-…        then ask about one")]
    Alerts(AlertsArgs),
    /// What containers did beyond their known behaviour, latest last
    #[command(after_help = "\
Known behaviour is counted in the kernel and not kept event by event, except in the minutes before
an alert and after it: --full shows those.

Examples:
  plimsoll events --container web --kind exec,connect
  plimsoll events --alert A-…              ten minutes around an alert
  plimsoll events --alert A-… --full       known behaviour too, use by use
  plimsoll events --since 10m --json | head")]
    Events(EventsArgs),
    /// When something was not seen or not kept, where and how much
    #[command(after_help = "\
Examples:
  plimsoll gaps --since 1d
  plimsoll gaps --container web --json")]
    Gaps(GapsArgs),
    /// What is done about alerts: list, show, approve, deny, undo; one switch for all of it
    #[command(after_help = "\
Examples:
  plimsoll plan show --alert A-…           what would be done, why, how far it reaches
  plimsoll plan approve P-… --reason 'confirmed by the shop team'
  plimsoll plan undo P-… --reason 'false alarm, see INC-7'
  plimsoll plan stop --reason 'game day'   nothing new begins anywhere until `plan resume`

Approvals hold for a limited time, and count only as what the kernel says of you (uid, login uid).")]
    Plan {
        #[command(subcommand)]
        command: PlanCommand,
    },
    /// Containers held to their baseline: what is in force, what was or would be prevented, the switch
    #[command(after_help = "\
Examples:
  plimsoll enforcement check /etc/plimsoll/enforcement.yaml
  plimsoll enforcement report --since 7d   what a dry run (mode: alert) would have stopped
  plimsoll enforcement off --reason 'INC-7: checkout does not start'
                                           the whole node, at once, until `enforcement on`")]
    Enforcement {
        #[command(subcommand)]
        command: EnforcementCommand,
    },
    /// What agents left running in the kernel: list, remove
    #[command(after_help = "\
Examples:
  plimsoll hooks list
  plimsoll hooks remove                    after `systemctl stop plimsoll`, when it is to stay off
  plimsoll hooks remove --all              before it is uninstalled")]
    Hooks {
        #[command(subcommand)]
        command: HooksCommand,
    },
    /// Notifications that have not been delivered: list, resend
    #[command(after_help = "\
Examples:
  plimsoll notify list
  plimsoll notify resend --receiver ops --reason 'the proxy is fixed'")]
    Notify {
        #[command(subcommand)]
        command: NotifyCommand,
    },
    /// Rules in the Falco language: check files, list, explain, try them on a recording
    #[command(after_help = "\
Examples:
  plimsoll rules check my-rules.yaml       errors and warnings with line, column and item
  plimsoll rules list                      every rule, and why one is off here
  plimsoll rules explain 'Terminal shell in container'
  plimsoll rules record --container web > s.jsonl
  plimsoll rules test my-rules.yaml --scenario s.jsonl
  plimsoll rules audit --rules k8s_audit_rules.yaml audit.log")]
    Rules {
        #[command(subcommand)]
        command: RulesCommand,
    },
    /// Answer a standard question from evidence
    #[command(after_help = ask_help())]
    Ask(AskArgs),
    /// Ask the evidence anything, in SQL
    #[command(after_help = "\
Tables: alerts, drift, behaviours, fingerprints, processes, files, connections, dns, containers,
gaps, actions, access; `describe TABLE` lists columns. docs/guide/query.md has them all, with
queries to start from. A statement only reads. What it read, and that somebody did, becomes a
record.

Examples:
  plimsoll query \"select time, container_name, rule, output from alerts
                  where time > now() - interval '1 hour' order by time\"
  plimsoll query --output json \"select * from files where path = '/etc/shadow'\"
  plimsoll query --output parquet --file web.parquet \"select * from processes where container_name = 'web'\"")]
    Query(QueryArgs),
    /// The files that queries read: made from the journal, and made again
    #[command(after_help = "\
`plimsoll query` makes what is missing by itself. Files cover spans of 65,536 records, and pieces
of 8,192 of the last one; what came later is read from the journal.")]
    Lake {
        #[command(subcommand)]
        command: LakeCommand,
    },
    /// Verify, seal, anchor, hand over and hold evidence
    Evidence {
        #[command(subcommand)]
        command: EvidenceCommand,
    },
    /// Judge recorded observations again and compare; exit status 1 when a verdict differs
    #[command(after_help = "\
A verdict is a function of the observation as stored, the baseline version and the rules in force,
all of which are records. What cannot be judged again, because a record is gone, is counted as
unknown.")]
    Replay(ReplayArgs),
    /// Thaws a container when the budget of its freeze ends; started by `plimsoll run`
    #[command(name = plimsoll_agent::respond::freeze::WATCHDOG, hide = true)]
    ThawLater {
        /// The lease that says whether it is still this one's to thaw
        lease: PathBuf,
        /// What the lease says then
        nonce: String,
        /// Of the cgroup
        #[arg(value_parser = ["v1", "v2"])]
        version: String,
        /// From its being ready on
        budget_ms: u64,
        /// And not beyond this, on the boot clock
        until_ms: u64,
    },
    /// Takes out pinned hooks that no agent comes back for; started by `plimsoll run`
    #[command(name = plimsoll_agent::leftover::UNPIN_LATER, hide = true)]
    UnpinLater {
        /// The agent's place on the bpffs
        home: PathBuf,
        /// The agent's process
        pid: u32,
        /// How long they wait for the next agent
        seconds: u64,
    },
}

fn ask_help() -> String {
    let mut help = String::from("Questions:\n");
    for question in Question::ALL {
        help += &format!("  {:<4} {}\n", question.as_str(), question.title());
    }
    help += "
Each sentence says whether it is observed, inferred or unknown, and names the records that show it.
The answer ends with how complete the data behind it is. \"Unknown\" never means \"did not happen\";
\"no source for …\" names what nothing here collects yet, and which data would bring it.

Examples:
  plimsoll ask Q2 --alert A-… --around 5m
  plimsoll ask Q7 Q8 --container web       the latest container of that name, running or removed
  plimsoll ask all --container web --json";
    help
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Name of this node in every record [default: the machine id]
    #[arg(long, env = "PLIMSOLL_NODE", value_parser = node)]
    pub(crate) node: Option<NodeId>,
    /// Watch processes outside containers too
    #[arg(long)]
    pub(crate) host: bool,
    /// Plan what the policy says about alerts, show and tell it, and do nothing of it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Falco rules: a file, or a directory of files; may be given more than once, later ones
    /// override [default: /etc/plimsoll/rules.d]
    #[arg(long, value_name = "FILE|DIR", value_parser = absolute())]
    pub(crate) rules: Vec<PathBuf>,
    /// Where programs and maps are pinned for the next agent, on a bpffs; `off`: they end with this one
    /// [default: hooks.directory of the configuration, off where hooks.pin is false]
    #[arg(
        long,
        value_name = "DIR|off",
        env = "PLIMSOLL_PINS",
        hide_env_values = true
    )]
    pub(crate) pins: Option<PathBuf>,
}

/// Which rules.
#[derive(Clone, Debug, Args)]
pub(crate) struct RuleFiles {
    /// Rule files, or directories of them [default: those of the running agent, or of the configuration]
    #[arg(long, value_name = "FILE|DIR", value_parser = absolute())]
    pub(crate) rules: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// Load files and say what is wrong with them; exit status 1 when there is an error
    #[command(after_help = "\
With --json: Falco's own result shape (falco_load_results).")]
    Check {
        /// Rule files, or directories of them, in the order in which they are loaded
        #[arg(required = true, value_name = "FILE|DIR")]
        files: Vec<PathBuf>,
    },
    /// Every rule in force in the running agent, with priority, ATT&CK techniques, and why it is off; without an agent, or with --rules, those of the files
    List(RuleFiles),
    /// What a rule means: macros and lists expanded, what it needs, what is not observed here
    Explain {
        /// Name of the rule
        #[arg(value_name = "RULE")]
        rule: String,
        #[command(flatten)]
        files: RuleFiles,
    },
    /// Try rules on recorded events: which fire, and what was the first condition that was false
    #[command(after_help = "\
Exit status 0 when a rule fires on an event of the scenario (with --expect quiet: when none does), else 1.
A scenario holds a JSON object a line: Falco's fields of one event, or a Kubernetes audit event; see
docs/guide/rules.md. `plimsoll rules record` writes one from the journal.")]
    Test {
        /// Rule files, or directories of them
        #[arg(required = true, value_name = "FILE|DIR")]
        files: Vec<PathBuf>,
        /// The events; `-` for standard input
        #[arg(long, value_name = "SCENARIO")]
        scenario: PathBuf,
        /// Only this rule
        #[arg(long, value_name = "RULE")]
        rule: Option<String>,
        /// What has to come of it
        #[arg(long, value_name = "fire|quiet", value_parser = ["fire", "quiet"], default_value = "fire")]
        expect: String,
    },
    /// Write a scenario from what was observed: each event as rules see it, a JSON object a line
    Record(Selection),
    /// Judge Kubernetes audit events from a file or standard input; alerts as Falco prints them
    #[command(after_help = "\
Reads a JSON object a line, as the API server's log and webhook write them (an event, a list of events,
or an EventList), until the end of the input. With --json: Falco's JSON, an alert a line. Exit status 1
when a line could not be read; the others are judged all the same.

Example:
  kubectl logs -f audit-forwarder | plimsoll rules audit --rules k8s_audit_rules.yaml -")]
    Audit {
        /// The events; `-` for standard input
        #[arg(value_name = "FILE")]
        events: PathBuf,
        #[command(flatten)]
        files: RuleFiles,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ContainersArgs {
    /// Those that are gone, too
    #[arg(long, short)]
    pub(crate) all: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BaselineCommand {
    /// All baselines, with their coverage and what they lack to be ready
    List,
    /// One baseline: how far it is known, what it expects, what waits for a person
    Show {
        /// Id or its beginning (ID@VERSION for an older one), container name, role or image
        #[arg(value_name = "BASELINE", value_parser = selector)]
        baseline: String,
        /// As it was at this version
        #[arg(long, value_name = "N")]
        version: Option<u64>,
        /// Every behaviour on a line of its own (JSON has them always)
        #[arg(long)]
        all: bool,
    },
    /// What changed from one baseline (or version) to another; exit status 1 when something did
    Diff {
        /// From this one
        #[arg(value_name = "FROM", value_parser = selector)]
        from: String,
        /// To this one
        #[arg(value_name = "TO", value_parser = selector)]
        to: String,
    },
    /// Take behaviours from quarantine into the baseline
    Approve {
        /// Id or its beginning, container name, role or image
        #[arg(value_name = "BASELINE", value_parser = selector)]
        baseline: String,
        /// Only these behaviours, by their ids (default: everything that waits)
        #[arg(long = "behaviour", value_name = "ID", value_parser = behaviour)]
        behaviours: Vec<String>,
        /// Why; it is kept with your uid
        #[arg(long, value_parser = reason)]
        reason: String,
    },
    /// Stop learning: from now on everything new is drift
    Lock {
        /// Id or its beginning, container name, role or image
        #[arg(value_name = "BASELINE", value_parser = selector)]
        baseline: String,
        /// Why; it is kept with your uid
        #[arg(long, value_parser = reason)]
        reason: String,
    },
    /// Undo a lock: learning (or being ready) goes on
    Unlock {
        /// Id or its beginning, container name, role or image
        #[arg(value_name = "BASELINE", value_parser = selector)]
        baseline: String,
        /// Why; it is kept with your uid
        #[arg(long, value_parser = reason)]
        reason: String,
    },
    /// Take behaviours out, expected or waiting: the next one is drift
    Remove {
        /// Id or its beginning, container name, role or image
        #[arg(value_name = "BASELINE", value_parser = selector)]
        baseline: String,
        /// These behaviours, by their ids (`baseline show` has them)
        #[arg(long = "behaviour", value_name = "ID", value_parser = behaviour, required = true)]
        behaviours: Vec<String>,
        /// Why; it is kept with your uid
        #[arg(long, value_parser = reason)]
        reason: String,
    },
    /// Forget what was learned and start again
    Reset {
        /// Id or its beginning, container name, role or image
        #[arg(value_name = "BASELINE", value_parser = selector)]
        baseline: String,
        /// Why; it is kept with your uid
        #[arg(long, value_parser = reason)]
        reason: String,
    },
    /// Write a baseline as a portable document (in-toto statement about the image digest)
    Export {
        /// Id or its beginning (ID@VERSION for an older one), container name, role or image
        #[arg(value_name = "BASELINE", value_parser = selector)]
        baseline: String,
        /// Into this file instead of standard output
        #[arg(long, short, value_name = "FILE", value_parser = absolute())]
        output: Option<PathBuf>,
    },
    /// Take over a baseline from such a document
    Import {
        /// The document; `-` for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Why; it is kept with your uid
        #[arg(long, value_parser = reason)]
        reason: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AlertsArgs {
    #[command(flatten)]
    pub(crate) select: Selection,
    /// At least this severe: emergency, alert, critical, error, warning, notice, informational, debug
    #[arg(long, short, value_name = "PRIORITY", value_parser = priority)]
    pub(crate) priority: Option<Priority>,
    /// Go on showing new ones until interrupted
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DriftArgs {
    #[command(flatten)]
    pub(crate) select: Selection,
    /// At least this risky
    #[arg(long, value_name = "RISK", value_parser = ["low", "medium", "high", "critical"])]
    pub(crate) risk: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    pub(crate) select: Selection,
    /// Around this alert, in its container
    #[arg(long, value_name = "ALERT", value_parser = alert, conflicts_with_all = ["container", "since", "until"])]
    pub(crate) alert: Option<AlertId>,
    /// How far around the alert
    #[arg(long, value_name = "LENGTH", default_value = "10m", requires = "alert")]
    pub(crate) around: Length,
    /// What is known too: every use that the recorder kept around the alert
    #[arg(long, requires = "alert")]
    pub(crate) full: bool,
    /// Only these kinds: exec, exit, fork, file, library, connect, accept, listen, dns …
    #[arg(long, short, value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    pub(crate) kind: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct GapsArgs {
    #[command(flatten)]
    pub(crate) select: Selection,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("subject").required(true).args(["alert", "container"]))]
pub(crate) struct AskArgs {
    /// Q1 … Q18, or `all` for every one that is answered
    #[arg(required = true, value_name = "QUESTION", value_parser = questions)]
    pub(crate) questions: Vec<Questions>,
    /// About this alert
    #[arg(long, value_name = "ALERT", value_parser = alert)]
    pub(crate) alert: Option<AlertId>,
    /// About this container: name, id or its beginning, or ID@START; it may be gone
    #[arg(long, short, value_name = "NAME|ID", value_parser = container)]
    pub(crate) container: Option<String>,
    /// How far before and after the alert, or before the container's end [default: as suits the question]
    #[arg(long, value_name = "LENGTH")]
    pub(crate) around: Option<Length>,
    /// Read all that the container did, however much that is [default: at most 3,000 acts, of each
    /// sort the first and the last, those around the alert and those that alerts stand on]
    #[arg(long)]
    pub(crate) all: bool,
    /// Read every record of the journal, and do without the lists that say which ones to read
    #[arg(long)]
    pub(crate) scan: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_socket_beside_the_person_has_a_directory() {
        let cli = Cli::parse_from(["plimsoll", "--socket", "agent.sock", "status"]);
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(cli.global.socket, Some(here.join("agent.sock")));
    }
}
