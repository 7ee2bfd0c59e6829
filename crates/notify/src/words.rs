//! A message in words and in Falco's form, whatever it stands for.

use plimsoll_api::notify::Message;
use plimsoll_model::WallNs;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Rule name under which a storm is told to those who know only alerts.
pub(crate) const STORM: &str = "Plimsoll: many alerts";
/// Rules that a storm names one by one.
const NAMED: usize = 10;

/// Of a text for people, where a message has to be short: at most 6 bytes each in JSON.
const OUTPUT_CHARS: usize = 400;
/// Of one field's value there.
const VALUE_CHARS: usize = 100;

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

/// Its most severe priority, by Falco's name.
pub(crate) fn priority(message: &Message) -> &str {
    let of_alert = message.alert.as_ref().and_then(|a| a["priority"].as_str());
    let of_groups = message.groups.iter().map(|g| g.priority.as_str());
    let all = of_alert.into_iter().chain(of_groups);
    all.min_by_key(|p| severity(p)).unwrap_or("Notice")
}

/// Syslog's number of a priority.
pub(crate) fn severity(priority: &str) -> u8 {
    const NAMES: [&str; 8] = [
        "emergency",
        "alert",
        "critical",
        "error",
        "warning",
        "notice",
        "informational",
        "debug",
    ];
    let found = NAMES.iter().position(|n| n.eq_ignore_ascii_case(priority));
    found.unwrap_or(5) as u8
}

/// The alert that a message stands for, where it is one: a storm of one is that alert.
fn the_one(message: &Message) -> Option<&Value> {
    let single = || match &message.groups[..] {
        [group] if group.count == 1 && group.sample.is_object() => Some(&group.sample),
        _ => None,
    };
    message.alert.as_ref().or_else(single)
}

/// One line for people.
pub(crate) fn summary(message: &Message) -> String {
    if let Some(alert) = the_one(message) {
        return alert["output"].as_str().unwrap_or_default().to_owned();
    }
    let mut groups: Vec<_> = message.groups.iter().collect();
    groups.sort_by_key(|g| std::cmp::Reverse(g.count));
    let named = groups.iter().take(NAMED).map(|g| {
        let rule = if g.rule.is_empty() {
            "other rules"
        } else {
            &g.rule
        };
        format!("{} × {rule} ({} … {})", g.count, g.first, g.last)
    });
    let named: Vec<String> = named.collect();
    let more = groups.len().saturating_sub(NAMED);
    let rest = if more > 0 {
        format!("; and {more} rules more")
    } else {
        String::new()
    };
    format!("{} alerts: {}{rest}", message.count, named.join("; "))
}

/// A heading for people.
pub(crate) fn title(message: &Message) -> String {
    match the_one(message) {
        Some(alert) => alert["rule"].as_str().unwrap_or("alert").to_owned(),
        None => format!("{} alerts", message.count),
    }
}

/// The message as one alert in Falco's form.
pub(crate) fn falco(message: &Message) -> Value {
    if let Some(alert) = the_one(message) {
        return alert.clone();
    }
    let sample = message
        .groups
        .iter()
        .map(|g| &g.sample)
        .find(|s| s.is_object());
    let of_sample = |key: &str| sample.map_or(Value::Null, |s| s[key].clone());
    json!({
        "time": WallNs(now_ns()).rfc3339(),
        "rule": STORM,
        "priority": priority(message),
        "output": summary(message),
        "output_fields": { "plimsoll.count": message.count },
        "source": "syscall",
        "tags": ["plimsoll", "storm"],
        "hostname": of_sample("hostname"),
        "uuid": message.key,
    })
}

/// An event in Falco's form in at most `max` bytes of JSON, for receivers that cut what is longer: first
/// what only we add goes, then long values are cut, then all values but the alert's id go.
pub(crate) fn fitting(mut event: Value, max: usize) -> String {
    let whole = plimsoll_api::json::line(&event);
    if whole.len() <= max {
        return whole;
    }
    let id = event["plimsoll"]["alert_id"].clone();
    event["plimsoll"] = json!({"alert_id": id, "cut": true});
    let less = plimsoll_api::json::line(&event);
    if less.len() <= max {
        return less;
    }
    for key in ["output", "rule", "hostname"] {
        shorten(&mut event[key], OUTPUT_CHARS);
    }
    if let Some(fields) = event["output_fields"].as_object_mut() {
        fields.values_mut().for_each(|v| shorten(v, VALUE_CHARS));
    }
    let less = plimsoll_api::json::line(&event);
    if less.len() <= max {
        return less;
    }
    event["output_fields"] = json!({});
    event["tags"] = json!([]);
    plimsoll_api::json::line(&event)
}

fn shorten(value: &mut Value, chars: usize) {
    let Some(text) = value.as_str() else {
        return;
    };
    if text.chars().count() > chars {
        let kept: String = text.chars().take(chars).collect();
        *value = format!("{kept}…").into();
    }
}

/// Text in which nothing ends a header or a line.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
