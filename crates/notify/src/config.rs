//! The file of receivers.
//!
//! Promises: unknown keys and missing ones are said with their place or the receiver's name; a
//! secret may stand in a file of its own. The keys are documented in
//! `docs/guide/notifications.md`.

use serde::Deserialize;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file, and every file that it names, is at most this long.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Receivers at most.
const RECEIVERS_MAX: usize = 64;

/// All receivers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    version: u32,
    /// Them.
    #[serde(default)]
    pub receivers: Vec<Receiver>,
}

/// What a receiver speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Our JSON, signed.
    Webhook,
    /// Slack's incoming webhooks, and what speaks like them.
    Slack,
    /// E-mail.
    Smtp,
    /// RFC 5424 over TCP or TLS.
    Syslog,
    /// OpenTelemetry logs over HTTP, JSON encoding.
    Otlp,
    /// Falco's JSON over HTTP.
    Falcosidekick,
}

/// One receiver.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receiver {
    /// Its name.
    pub name: String,
    /// What it speaks.
    pub kind: Kind,
    /// Alerts at least this severe, by Falco's name.
    #[serde(default = "debug")]
    pub priority: String,
    /// Single messages a minute; more are told together.
    #[serde(default = "per_minute")]
    pub per_minute: u32,
    /// A try ends after this many seconds.
    #[serde(default = "timeout")]
    pub timeout_s: u64,
    /// Where (HTTP).
    #[serde(default)]
    pub url: String,
    /// `host:port` (SMTP, syslog).
    #[serde(default)]
    pub address: String,
    /// TLS for SMTP (`tls`, `starttls`, `none`) and syslog (`tls`, `none`).
    #[serde(default = "tls")]
    pub tls: String,
    /// PEM file of the authorities to trust instead of the public ones.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Key of the signature (webhook), bearer token (otlp, falcosidekick), password (smtp).
    #[serde(default)]
    secret: Option<String>,
    /// The same, in a file.
    #[serde(default)]
    secret_file: Option<PathBuf>,
    /// User (SMTP).
    #[serde(default)]
    pub user: Option<String>,
    /// Sender's address (SMTP).
    #[serde(default)]
    pub from: String,
    /// Recipients' addresses (SMTP).
    #[serde(default)]
    pub to: Vec<String>,
}

fn debug() -> String {
    "debug".to_owned()
}
fn per_minute() -> u32 {
    30
}
fn timeout() -> u64 {
    10
}
fn tls() -> String {
    "tls".to_owned()
}

/// Why there are no receivers.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not understood.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: serde_yaml_ng::Error,
    },
    /// A receiver lacks something, or has something impossible.
    #[error("{}: receiver \"{name}\": {message}", path.display())]
    Receiver {
        /// Which file.
        path: PathBuf,
        /// Which receiver.
        name: String,
        /// What was expected.
        message: String,
    },
}

impl Config {
    /// Reads the file and the secrets that it names.
    ///
    /// # Errors
    /// When something cannot be read or is not understood.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let mut config = Self::parse(&text, path)?;
        for receiver in &mut config.receivers {
            if let Some(file) = &receiver.secret_file {
                receiver.secret = Some(read(file)?.trim_end().to_owned());
            }
        }
        Ok(config)
    }

    /// Reads a text; `path` names it in messages.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self =
            serde_yaml_ng::from_str(text).map_err(|source| ConfigError::Malformed {
                path: path.to_owned(),
                source,
            })?;
        let fault = |name: &str, message: String| ConfigError::Receiver {
            path: path.to_owned(),
            name: name.to_owned(),
            message,
        };
        if config.version != 1 || config.receivers.len() > RECEIVERS_MAX {
            let message = format!("expected \"version: 1\" and at most {RECEIVERS_MAX} receivers");
            return Err(fault("", message));
        }
        for (i, receiver) in config.receivers.iter().enumerate() {
            let again = config.receivers[..i]
                .iter()
                .any(|r| r.name == receiver.name);
            if again {
                return Err(fault(&receiver.name, "the name is given twice".to_owned()));
            }
            receiver.check().map_err(|m| fault(&receiver.name, m))?;
        }
        Ok(config)
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

impl Receiver {
    fn check(&self) -> Result<(), String> {
        const PRIORITIES: [&str; 8] = [
            "emergency",
            "alert",
            "critical",
            "error",
            "warning",
            "notice",
            "informational",
            "debug",
        ];
        if self.name.is_empty() || self.name.len() > 64 {
            return Err("expected a name of 1 to 64 bytes".to_owned());
        }
        if !PRIORITIES.contains(&self.priority.as_str()) {
            return Err(format!(
                "priority: expected one of {}",
                PRIORITIES.join(", ")
            ));
        }
        if !(1..=300).contains(&self.timeout_s) || !(1..=6000).contains(&self.per_minute) {
            return Err(
                "expected timeout_s from 1 to 300 and per_minute from 1 to 6000".to_owned(),
            );
        }
        match self.kind {
            Kind::Smtp => {
                if !["tls", "starttls", "none"].contains(&self.tls.as_str()) {
                    return Err("tls: expected tls, starttls or none".to_owned());
                }
                if self.address.is_empty() || self.from.is_empty() || self.to.is_empty() {
                    return Err("expected address, from and to".to_owned());
                }
                crate::email::check(self)
            }
            Kind::Syslog => {
                if !["tls", "none"].contains(&self.tls.as_str()) {
                    return Err("tls: expected tls or none".to_owned());
                }
                self.host_port().map(drop)
            }
            Kind::Webhook | Kind::Slack | Kind::Otlp | Kind::Falcosidekick => {
                let http = self.url.starts_with("http://") || self.url.starts_with("https://");
                http.then_some(())
                    .ok_or_else(|| "url: expected http://… or https://…".to_owned())
            }
        }
    }

    /// Host and port of `address`.
    pub(crate) fn host_port(&self) -> Result<(&str, u16), String> {
        let parts = self.address.rsplit_once(':');
        parts
            .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)))
            .filter(|(host, _)| !host.is_empty())
            .ok_or_else(|| "address: expected host:port".to_owned())
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }
    pub(crate) fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }
    pub(crate) fn authorities(&self) -> Result<Option<Vec<u8>>, String> {
        let Some(file) = &self.ca_file else {
            return Ok(None);
        };
        let pem = std::fs::read(file);
        pem.map(Some)
            .map_err(|e| format!("cannot read {}: {e}", file.display()))
    }

    /// A text without what only this receiver may know.
    pub(crate) fn masked(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // a Slack URL is a secret as a whole; of any URL, the path may hold a token
        let path = self.url.splitn(4, '/').nth(3).filter(|p| p.len() > 4);
        for secret in [self.secret.as_deref(), path].into_iter().flatten() {
            if !secret.is_empty() {
                text = text.replace(secret, "…");
            }
        }
        text.chars().take(400).collect()
    }
}
