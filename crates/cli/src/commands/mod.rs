//! One module a command.

pub(crate) mod alerts;
pub(crate) mod ask;
pub(crate) mod baseline;
pub(crate) mod containers;
pub(crate) mod doctor;
pub(crate) mod drift;
pub(crate) mod enforcement;
pub(crate) mod events;
pub(crate) mod evidence;
pub(crate) mod gaps;
pub(crate) mod hooks;
pub(crate) mod lake;
pub(crate) mod notify;
pub(crate) mod plan;
pub(crate) mod query;
pub(crate) mod replay;
pub(crate) mod rules;
pub(crate) mod rules_audit;
pub(crate) mod rules_try;
pub(crate) mod run;
pub(crate) mod select;
pub(crate) mod status;

use crate::out::Style;
use plimsoll_model::{Priority, Risk};

/// How a risk stands out.
pub(crate) fn risk_style(risk: Risk) -> Style {
    match risk {
        Risk::Critical | Risk::High => Style::Bad,
        Risk::Medium => Style::Warn,
        Risk::Low => Style::Plain,
    }
}

/// How a priority stands out.
pub(crate) fn priority_style(priority: Priority) -> Style {
    match priority {
        Priority::Emergency | Priority::Alert | Priority::Critical | Priority::Error => Style::Bad,
        Priority::Warning => Style::Warn,
        Priority::Notice | Priority::Informational | Priority::Debug => Style::Plain,
    }
}

/// How a baseline's or container's state stands out.
pub(crate) fn state_style(state: &str) -> Style {
    match state {
        "ready" | "running" | "ok" | "locked" => Style::Good,
        "learning" | "degraded" | "unknown" => Style::Warn,
        "missing" | "failing" | "emergency" => Style::Bad,
        _ => Style::Plain,
    }
}
