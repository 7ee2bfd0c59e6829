//! `plimsoll evidence`: its subcommands and options.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What to do with evidence.
#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Whether a store, a copy of one or a bundle is what was signed; exit status 1 when not
    #[command(after_help = "\
Needs no agent and no root, only read access and the node's public root key
(`plimsoll evidence checkpoint --key` prints it; keep it elsewhere).

Examples:
  plimsoll evidence verify                            this machine's store
  plimsoll evidence verify /mnt/copy --key node.pub --checkpoint kept.txt
  plimsoll evidence verify case-7.tar --key 'plimsoll/NODE+…' --json")]
    Verify(VerifyArgs),
    /// The latest checkpoint, to be kept elsewhere; made now when the agent runs
    Checkpoint(CheckpointArgs),
    /// Take checkpoints elsewhere: into directories on other mounts, or to a receiver over HTTP(S)
    #[command(after_help = "\
Root on this machine cannot rewrite what was anchored. Runs as a process of its own, because the
agent holds no HTTP and no TLS, and because a mount that hangs must not hang the agent.

Examples:
  plimsoll evidence anchor --to /mnt/nas/anchors
  plimsoll evidence anchor --to /mnt/nas/anchors --webhook https://siem.example/anchor --every 60")]
    Anchor(AnchorArgs),
    /// One self-contained file about an alert or a container, that a third party can verify
    #[command(after_help = "\
Examples:
  plimsoll evidence bundle --alert A-… -o case-7.tar --reason 'case 7'
  plimsoll evidence bundle --container web -o web.tar --reason 'handed to the IR team'
  plimsoll replay case-7.tar               judge it again and compare")]
    Bundle(BundleArgs),
    /// Records in a form that other tools open: plain JSONL, CSV, Timesketch JSONL, OCSF 1.8.0
    #[command(after_help = "\
The export itself becomes a record: who, when, what, why. `bundle` is what a third party can verify.

Examples:
  plimsoll evidence export --alert A-… --format timesketch -o a.jsonl --reason 'case 7'
  plimsoll evidence export --container web --format ocsf -o web.ocsf.jsonl --reason 'to the SIEM'
  plimsoll evidence export --since 2d --until 1d --format csv --reason 'report' > day.csv")]
    Export(ExportArgs),
    /// Keep the records of a container or an alert whatever retention says
    Hold(HoldArgs),
    /// End a hold
    Release(ReleaseArgs),
    /// The holds in force
    Holds,
    /// What a capture holds, and whether it is what was sealed; exit status 1 when not
    #[command(after_help = "\
Needs no agent. A capture that was encrypted needs the identity (age) of one of its recipients.

Examples:
  plimsoll evidence capture /var/lib/plimsoll/captures/capture-8f2c….tar
  plimsoll evidence capture capture-8f2c….tar.age --identity key.txt --json")]
    Capture(CaptureArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    /// The capture
    #[arg(value_name = "FILE")]
    pub(crate) file: std::path::PathBuf,
    /// File with the age identity that opens it
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<std::path::PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A data directory, a journal directory, or a bundle [default: this machine's]
    #[arg(value_name = "DIR|BUNDLE", value_parser = crate::values::absolute())]
    pub(crate) target: Option<PathBuf>,
    /// The node's public root key, or a file that holds it
    #[arg(long, value_name = "PUB")]
    pub(crate) key: Option<String>,
    /// A checkpoint that was kept elsewhere
    #[arg(long, value_name = "FILE", value_parser = crate::values::absolute())]
    pub(crate) checkpoint: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckpointArgs {
    /// Print the public root key instead
    #[arg(long)]
    pub(crate) key: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AnchorArgs {
    /// A directory elsewhere
    #[arg(long, value_name = "DIR", value_parser = crate::values::absolute())]
    pub(crate) to: Vec<PathBuf>,
    /// A receiver: the checkpoint is posted to it as text
    #[arg(long, value_name = "URL")]
    pub(crate) webhook: Vec<String>,
    /// Go on, this often, seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) every: Option<u64>,
}

/// What a bundle or a hold is about.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("about").required(true).args(["alert", "container", "incident"]))]
pub(crate) struct About {
    /// This alert
    #[arg(long, value_name = "ALERT", value_parser = crate::values::alert)]
    pub(crate) alert: Option<plimsoll_model::AlertId>,
    /// This container: name, id or its beginning, or ID@START
    #[arg(long, short, value_name = "NAME|ID", value_parser = crate::values::container)]
    pub(crate) container: Option<String>,
    /// This incident
    #[arg(long, value_name = "INCIDENT")]
    pub(crate) incident: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    #[command(flatten)]
    pub(crate) about: About,
    /// How far around an alert
    #[arg(long, value_name = "LENGTH", default_value = "10m")]
    pub(crate) around: crate::when::Length,
    /// Into this file, which must not exist
    #[arg(long, short, value_name = "FILE", value_parser = crate::values::absolute())]
    pub(crate) output: PathBuf,
    /// Why; it is kept with your uid
    #[arg(long, value_parser = crate::values::reason)]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["alert", "container", "since", "until"]))]
pub(crate) struct ExportArgs {
    /// This alert, with its container around it
    #[arg(long, value_name = "ALERT", value_parser = crate::values::alert, conflicts_with = "container")]
    pub(crate) alert: Option<plimsoll_model::AlertId>,
    /// This container: name, id or its beginning, or ID@START
    #[arg(long, short, value_name = "NAME|ID", value_parser = crate::values::container)]
    pub(crate) container: Option<String>,
    /// Not before: a length of time ago, or a date
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<crate::when::Moment>,
    /// Not after
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<crate::when::Moment>,
    /// How far around an alert, when neither --since nor --until is given
    #[arg(long, value_name = "LENGTH", default_value = "10m")]
    pub(crate) around: crate::when::Length,
    /// jsonl, csv, timesketch or ocsf
    #[arg(long, short, value_name = "FORMAT", default_value = "jsonl", value_parser = format)]
    pub(crate) format: plimsoll_export::Format,
    /// Into this file, which must not exist [default: standard output]
    #[arg(long, short, value_name = "FILE", value_parser = crate::values::absolute())]
    pub(crate) output: Option<PathBuf>,
    /// Why; it is kept with your uid
    #[arg(long, value_parser = crate::values::reason)]
    pub(crate) reason: String,
}

fn format(name: &str) -> Result<plimsoll_export::Format, String> {
    plimsoll_export::Format::parse(name)
        .ok_or_else(|| "one of jsonl, csv, timesketch, ocsf".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    pub(crate) about: About,
    /// Name of the hold [default: made from what it is about and the time]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Why; it is kept with your uid
    #[arg(long, value_parser = crate::values::reason)]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    /// The hold, as `plimsoll evidence holds` names it
    #[arg(value_name = "HOLD")]
    pub(crate) hold: String,
    /// Why; it is kept with your uid
    #[arg(long, value_parser = crate::values::reason)]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// A data directory, a journal directory, or a bundle [default: this machine's]
    #[arg(value_name = "JOURNAL|BUNDLE", value_parser = crate::values::absolute())]
    pub(crate) target: Option<PathBuf>,
}
