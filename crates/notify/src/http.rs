//! Receivers over HTTP.

use crate::Tried;
use crate::config::Receiver;
use crate::words::{falco, now_ns, one_line, priority, severity, summary, title};
use hmac::{Hmac, Mac as _};
use plimsoll_api::notify::{Message, TryResult};
use serde_json::{Value, json};
use std::io::Read as _;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// Of an answer, this much is read.
const ANSWER_BYTES_MAX: u64 = 512;

type Headers = Vec<(&'static str, String)>;

/// Our JSON: signed with HMAC-SHA256 over `timestamp.body` when there is a secret.
pub(crate) fn webhook(receiver: &Receiver, message: &Message) -> Tried {
    let body = plimsoll_api::json::line(message);
    let mut headers: Headers = vec![("idempotency-key", one_line(&message.key))];
    if let Some(secret) = receiver.secret() {
        let timestamp = (now_ns() / 1_000_000_000).to_string();
        let signature = sign(secret, &timestamp, &body);
        headers.push(("x-plimsoll-timestamp", timestamp));
        headers.push(("x-plimsoll-signature", format!("v1={signature}")));
    }
    post(receiver, &receiver.url, &headers, &body)
}

fn sign(secret: &str, timestamp: &str, body: &str) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    let bytes = mac.finalize().into_bytes();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Slack's form; `&`, `<` and `>` are what it gives a meaning to.
pub(crate) fn slack(receiver: &Receiver, message: &Message) -> Tried {
    let escape = |t: String| {
        t.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    let text = format!(
        "*{}* {}\n{}",
        priority(message),
        escape(title(message)),
        escape(summary(message).chars().take(3000).collect())
    );
    post(
        receiver,
        &receiver.url,
        &vec![],
        &json!({ "text": text }).to_string(),
    )
}

/// Falco's JSON, as Falco's own HTTP output sends it.
pub(crate) fn falcosidekick(receiver: &Receiver, message: &Message) -> Tried {
    let body = plimsoll_api::json::line(&falco(message));
    post(receiver, &receiver.url, &bearer(receiver), &body)
}

fn bearer(receiver: &Receiver) -> Headers {
    let token = receiver
        .secret()
        .map(|s| ("authorization", format!("Bearer {s}")));
    token.into_iter().collect()
}

/// OTLP/HTTP 1.x, JSON encoding (opentelemetry-proto, `ExportLogsServiceRequest`).
pub(crate) fn otlp(receiver: &Receiver, message: &Message) -> Tried {
    let event = falco(message);
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let mut attributes = vec![
        text("plimsoll.message", &message.key),
        text("plimsoll.rule", event["rule"].as_str().unwrap_or_default()),
        json!({"key": "plimsoll.count", "value": {"intValue": message.count.to_string()}}),
        text("plimsoll.alert", &plimsoll_api::json::line(&event)),
    ];
    if let Some(Value::Object(fields)) = event.get("output_fields") {
        let known = fields
            .iter()
            .filter_map(|(k, v)| Some(text(k, v.as_str()?)));
        attributes.extend(known.take(64));
    }
    let name = priority(message);
    let record = json!({
        "timeUnixNano": now_ns().to_string(),
        "observedTimeUnixNano": now_ns().to_string(),
        "severityNumber": otel_severity(severity(name)),
        "severityText": name,
        "body": {"stringValue": summary(message)},
        "attributes": attributes,
    });
    let host = event["hostname"].as_str().unwrap_or_default();
    let body = json!({"resourceLogs": [{
        "resource": {"attributes": [text("service.name", "plimsoll"), text("host.name", host)]},
        "scopeLogs": [{"scope": {"name": "plimsoll"}, "logRecords": [record]}],
    }]});
    let url = receiver.url.trim_end_matches('/');
    let url = match url.ends_with("/v1/logs") {
        true => url.to_owned(),
        false => format!("{url}/v1/logs"),
    };
    let tried = post(receiver, &url, &bearer(receiver), &body.to_string());
    match tried.result {
        // OTLP 1.x, "Partial Success": taken as a whole, and the only record of it was not
        TryResult::Delivered if rejected(&tried.detail) => Tried::refused(tried.detail),
        _ => tried,
    }
}

/// Whether an answer's `partialSuccess` says that records were rejected. The answer may have been cut, so
/// its number is looked for as text; 64-bit numbers are strings in protobuf's JSON, and taken bare too.
fn rejected(answer: &str) -> bool {
    let behind = answer
        .split("\"rejectedLogRecords\"")
        .nth(1)
        .unwrap_or_default();
    let number = behind.trim_start_matches([':', ' ', '"']);
    number.starts_with(|c: char| ('1'..='9').contains(&c))
}

/// OpenTelemetry's severity numbers for syslog's (log data model, appendix B).
fn otel_severity(syslog: u8) -> u8 {
    [21, 19, 18, 17, 13, 10, 9, 5][usize::from(syslog.min(7))]
}

fn agent(receiver: &Receiver) -> Result<ureq::Agent, String> {
    let mut tls = TlsConfig::builder();
    if let Some(pem) = receiver.authorities()? {
        let mut certificates = Vec::new();
        for item in parse_pem(&pem) {
            if let PemItem::Certificate(c) = item.map_err(|e| format!("ca_file: {e}"))? {
                certificates.push(c);
            }
        }
        tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
    }
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(receiver.timeout()))
        .http_status_as_error(false)
        // a receiver that moved is a decision of a person: secrets do not follow it
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("plimsoll/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build())
        .build();
    Ok(config.new_agent())
}

fn post(receiver: &Receiver, url: &str, headers: &Headers, body: &str) -> Tried {
    let agent = match agent(receiver) {
        Ok(agent) => agent,
        Err(why) => return Tried::later(why),
    };
    let mut request = agent.post(url).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let mut answer = match request.send(body.as_bytes()) {
        Ok(answer) => answer,
        Err(e) => return Tried::later(e.to_string()),
    };
    let status = answer.status().as_u16();
    let retry_after = answer.headers().get("retry-after");
    let retry_after = retry_after.and_then(|v| v.to_str().ok()?.trim().parse::<u64>().ok());
    let mut said = Vec::new();
    let whole = answer.body_mut().as_reader();
    // what came before an error of reading is told all the same
    let _ = whole.take(ANSWER_BYTES_MAX).read_to_end(&mut said);
    let said = one_line(&String::from_utf8_lossy(&said));
    let detail = format!("HTTP {status} {said}");
    match status {
        200..=299 => Tried::delivered(detail),
        408 | 425 | 429 | 500..=599 => Tried {
            result: TryResult::Later {
                retry_after_ms: retry_after.map(|s| s.saturating_mul(1000)),
            },
            detail,
        },
        _ => Tried::refused(detail),
    }
}
