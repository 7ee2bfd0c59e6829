//! Each receiver against a server that speaks its protocol, on loopback: what arrives, and what
//! becomes of a receiver that is down, slow, busy, broken or not who it says it is.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use hmac::{Hmac, Mac as _};
use plimsoll_api::notify::{FromSender, Group, Message, ToSender, TryResult};
use plimsoll_notify::{Config, send};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn alert() -> Message {
    Message {
        key: "A-17".into(),
        count: 1,
        alert: Some(json!({
            "time": "2026-01-01T00:00:00.000000001Z", "rule": "Shell <under> server",
            "priority": "Critical", "output": "sh under nginx & more", "source": "syscall",
            "output_fields": {"proc.name": "sh"}, "hostname": "node-1", "tags": ["T1059"],
        })),
        groups: vec![],
    }
}
fn storm() -> Message {
    let group = |rule: &str, count| Group {
        rule: rule.into(),
        priority: "Warning".into(),
        count,
        first: "A-1".into(),
        last: "A-9".into(),
        sample: Value::Null,
    };
    Message {
        key: "storm-A-1-0".into(),
        count: 9_000,
        alert: None,
        groups: vec![group("rule a", 1000), group("rule b", 8000)],
    }
}
fn receiver(yaml: &str) -> plimsoll_notify::config::Receiver {
    let text = format!("version: 1\nreceivers:\n  - {{name: ops, timeout_s: 2, {yaml}}}\n");
    let config = Config::parse(&text, Path::new("notify.yaml")).unwrap();
    config.receivers.into_iter().next().unwrap()
}

// ---- HTTP ----

type Got = Arc<Mutex<Vec<(Uri, HeaderMap, String)>>>;
#[derive(Clone)]
struct Http {
    got: Got,
    status: StatusCode,
    answer: String,
    retry_after: Option<&'static str>,
    wait: Duration,
}

/// An HTTP server that answers everything alike; its address and what it got.
fn http(
    status: u16,
    answer: &str,
    retry_after: Option<&'static str>,
    wait: Duration,
) -> (String, Got) {
    let got = Got::default();
    let state = Http {
        got: got.clone(),
        status: StatusCode::from_u16(status).unwrap(),
        answer: answer.into(),
        retry_after,
        wait,
    };
    let (told, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let app = axum::Router::new().fallback(take).with_state(state);
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, app).await.unwrap();
        });
    });
    (format!("http://{}", address.recv().unwrap()), got)
}
async fn take(
    State(s): State<Http>,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, HeaderMap, String) {
    s.got.lock().unwrap().push((uri, headers, body));
    std::thread::sleep(s.wait);
    let mut out = HeaderMap::new();
    if let Some(seconds) = s.retry_after {
        out.insert("retry-after", seconds.parse().unwrap());
    }
    (s.status, out, s.answer.clone())
}
fn fine() -> (String, Got) {
    http(200, "ok", None, Duration::ZERO)
}
fn body(got: &Got) -> Value {
    serde_json::from_str(&got.lock().unwrap()[0].2).unwrap()
}
fn later() -> TryResult {
    TryResult::Later {
        retry_after_ms: None,
    }
}

#[test]
fn a_webhook_is_signed_and_can_be_deduplicated() {
    let (url, got) = fine();
    let tried = send(
        &receiver(&format!("kind: webhook, url: '{url}/hook', secret: s3cr3t")),
        &alert(),
    );
    assert_eq!(tried.result, TryResult::Delivered, "{tried:?}");
    let (uri, headers, text) = got.lock().unwrap()[0].clone();
    assert_eq!(uri.path(), "/hook");
    assert_eq!(headers["idempotency-key"], "A-17");
    assert_eq!(headers["content-type"], "application/json");
    let stamp = headers["x-plimsoll-timestamp"].to_str().unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"s3cr3t").unwrap();
    mac.update(format!("{stamp}.{text}").as_bytes());
    let expected: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(headers["x-plimsoll-signature"], format!("v1={expected}"));
    assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), alert());
}

#[test]
fn slack_gets_text_in_which_nothing_is_markup() {
    let (url, got) = fine();
    let tried = send(
        &receiver(&format!("kind: slack, url: '{url}/services/T0/B0/token'")),
        &alert(),
    );
    assert_eq!(tried.result, TryResult::Delivered);
    let text = body(&got)["text"].as_str().unwrap().to_owned();
    assert_eq!(
        text,
        "*Critical* Shell &lt;under&gt; server\nsh under nginx &amp; more"
    );
}

#[test]
fn falcosidekick_gets_falcos_json_for_one_alert_and_for_a_storm() {
    let (url, got) = fine();
    let receiver = receiver(&format!("kind: falcosidekick, url: '{url}/'"));
    assert_eq!(send(&receiver, &alert()).result, TryResult::Delivered);
    assert_eq!(body(&got), alert().alert.unwrap());
    got.lock().unwrap().clear();
    assert_eq!(send(&receiver, &storm()).result, TryResult::Delivered);
    let event = body(&got);
    for field in [
        "time",
        "rule",
        "priority",
        "output",
        "output_fields",
        "source",
        "tags",
        "hostname",
    ] {
        assert!(event.get(field).is_some(), "{field} is Falco's");
    }
    let output = event["output"].as_str().unwrap();
    assert!(
        output.starts_with("9000 alerts: 8000 × rule b (A-1 … A-9); 1000 × rule a"),
        "{output}"
    );
}

#[test]
fn otlp_gets_a_log_record() {
    let (url, got) = fine();
    let tried = send(
        &receiver(&format!("kind: otlp, url: '{url}', secret: token1")),
        &alert(),
    );
    assert_eq!(tried.result, TryResult::Delivered);
    let (uri, headers, _) = got.lock().unwrap()[0].clone();
    assert_eq!(uri.path(), "/v1/logs");
    assert_eq!(headers["authorization"], "Bearer token1");
    let body = body(&got);
    let log = &body["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    assert_eq!(log["severityNumber"], 18);
    assert_eq!(log["body"]["stringValue"], "sh under nginx & more");
    assert!(
        log["timeUnixNano"].as_str().unwrap().parse::<u64>().is_ok(),
        "64 bits are strings in OTLP's JSON"
    );
}

#[test]
fn a_record_that_otlp_takes_and_rejects_is_a_dead_letter() {
    let says = |answer: String| {
        let collector = once(move |mut s| {
            let _ = s.read(&mut [0; 65536]);
            let length = answer.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            let _ = s.write_all(format!("{head}{answer}").as_bytes());
        });
        let to = receiver(&format!("kind: otlp, url: 'http://{collector}'"));
        send(&to, &alert()).result
    };
    let partial = |n: &str, why: &str| {
        format!(r#"{{"partialSuccess": {{"rejectedLogRecords": {n}, "errorMessage": "{why}"}}}}"#)
    };
    assert_eq!(says(partial(r#""1""#, "no room")), TryResult::Refused);
    assert_eq!(
        says(partial("1", &"no room ".repeat(500))),
        TryResult::Refused
    );
    assert_eq!(says(partial(r#""0""#, "a warning")), TryResult::Delivered);
    assert_eq!(says("{}".into()), TryResult::Delivered);
}

#[track_caller]
fn answers(status: u16, retry_after: Option<&'static str>, expected: TryResult) {
    let (url, _) = http(status, "no", retry_after, Duration::ZERO);
    let tried = send(&receiver(&format!("kind: webhook, url: '{url}'")), &alert());
    assert_eq!(tried.result, expected, "{tried:?}");
    assert!(tried.detail.contains(&status.to_string()));
}

#[test]
fn what_a_receiver_answers_decides() {
    answers(202, None, TryResult::Delivered);
    answers(
        429,
        Some("7"),
        TryResult::Later {
            retry_after_ms: Some(7000),
        },
    );
    answers(429, Some("garbage"), later());
    answers(500, None, later());
    answers(
        503,
        Some("1"),
        TryResult::Later {
            retry_after_ms: Some(1000),
        },
    );
    answers(400, None, TryResult::Refused);
    answers(404, None, TryResult::Refused);
    // not followed: the secret would go along
    answers(302, None, TryResult::Refused);
}

#[test]
fn a_receiver_that_is_down_slow_or_talks_garbage_is_tried_later() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let down = receiver(&format!("kind: webhook, url: 'http://{nobody}'"));
    assert_eq!(send(&down, &alert()).result, later());

    let (url, _) = http(200, "late", None, Duration::from_secs(60));
    let since = Instant::now();
    let slow = receiver(&format!("kind: webhook, url: '{url}'"));
    assert_eq!(send(&slow, &alert()).result, later());
    assert!(
        since.elapsed() < Duration::from_secs(45),
        "{:?}",
        since.elapsed()
    );

    let garbage = once(|mut s| {
        let _ = s.read(&mut [0; 4096]);
        let _ = s.write_all(&[0xff; 100_000]);
    });
    let broken = receiver(&format!("kind: webhook, url: 'http://{garbage}'"));
    assert_eq!(send(&broken, &alert()).result, later());

    let (url, _) = http(200, &"x".repeat(5_000_000), None, Duration::ZERO);
    let chatty = send(&receiver(&format!("kind: webhook, url: '{url}'")), &alert());
    assert!(chatty.detail.len() < 2000, "what it says is bounded");
}

/// One receiver of each kind at this address, over TLS or not.
fn of_each_kind(address: std::net::SocketAddr, tls: bool) -> Vec<(String, String)> {
    let port = address.port();
    let scheme = if tls { "https" } else { "http" };
    let http = |kind: &str| {
        let secret = if kind == "webhook" {
            ", secret: s3cret"
        } else {
            ""
        };
        (
            kind.to_owned(),
            format!("kind: {kind}, url: '{scheme}://localhost:{port}/x'{secret}"),
        )
    };
    let mut all: Vec<_> = ["webhook", "slack", "falcosidekick", "otlp"]
        .map(http)
        .into();
    let from = "from: plimsoll@example.org, to: [ops@example.org]";
    let plain = if tls { "" } else { "tls: none, " };
    all.push((
        "syslog".into(),
        format!("kind: syslog, {plain}address: 'localhost:{port}'"),
    ));
    all.push((
        "smtp".into(),
        format!("kind: smtp, {plain}address: 'localhost:{port}', {from}"),
    ));
    if tls {
        all.push((
            "smtp starttls".into(),
            format!("kind: smtp, tls: starttls, address: 'localhost:{port}', {from}"),
        ));
    }
    all
}

/// A server that does the same to everybody who connects, until the test ends.
fn always(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

#[test]
fn every_kind_is_tried_later_when_its_receiver_is_down_silent_or_talks_garbage() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let silent = always(|mut s| drop(s.read_to_end(&mut Vec::new())));
    let garbage = always(|mut s| {
        let _ = s.write_all(&[0xfe; 65_536]);
        let _ = s.read_to_end(&mut Vec::new());
    });
    let (_, server) = localhost_tls();
    let stranger = always(move |s| drop(over_tls(server.clone(), s).read(&mut [0; 64])));
    // what has no answer of its own (syslog) can only find out by TLS that nobody understood it
    let has_answers = |kind: &str| kind != "syslog";
    let trials = [
        ("down", nobody, false),
        ("silent", silent, false),
        ("garbage", garbage, false),
        ("silent over TLS", silent, true),
        ("garbage over TLS", garbage, true),
        ("somebody else's certificate", stranger, true),
    ];
    for (what, address, tls) in trials {
        for (kind, yaml) in of_each_kind(address, tls) {
            if !tls && what != "down" && !has_answers(&kind) {
                continue;
            }
            let since = Instant::now();
            let tried = send(&receiver(&yaml), &alert());
            assert_eq!(tried.result, later(), "{kind}, {what}: {tried:?}");
            assert!(
                !tried.detail.contains("s3cret"),
                "{kind}, {what}: {tried:?}"
            );
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "{kind}, {what}: it ends"
            );
        }
    }
}

#[test]
fn every_http_kind_obeys_429_and_500() {
    for (status, wait) in [(429, Some("3")), (500, None), (503, Some("3"))] {
        let (url, _) = http(status, "\u{0}garbage", wait, Duration::ZERO);
        let expected = TryResult::Later {
            retry_after_ms: wait.map(|_| 3000),
        };
        for kind in ["webhook", "slack", "falcosidekick", "otlp"] {
            let tried = send(&receiver(&format!("kind: {kind}, url: '{url}'")), &alert());
            assert_eq!(tried.result, expected, "{kind} {status}: {tried:?}");
        }
    }
}

#[test]
fn an_error_never_tells_a_secret() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (url, _) = http(
        403,
        "your key hunter2hunter2 on /services/T0/B0/tok3n is wrong",
        None,
        Duration::ZERO,
    );
    for url in [format!("http://{nobody}"), url] {
        let r = receiver(&format!(
            "kind: slack, url: '{url}/services/T0/B0/tok3n', secret: hunter2hunter2"
        ));
        let detail = send(&r, &alert()).detail;
        assert!(
            !detail.contains("tok3n") && !detail.contains("hunter2"),
            "{detail}"
        );
    }
}

/// A server for one connection.
fn once(serve: impl FnOnce(TcpStream) + Send + 'static) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            serve(stream);
        }
    });
    address
}

// ---- TLS ----

/// A certificate for localhost that nobody else trusts: PEM of its authority, and its server.
fn localhost_tls() -> (String, Arc<rustls::ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.key_pair.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (made.cert.pem(), Arc::new(server))
}

fn over_tls(
    server: Arc<rustls::ServerConfig>,
    stream: TcpStream,
) -> rustls::StreamOwned<rustls::ServerConnection, TcpStream> {
    rustls::StreamOwned::new(rustls::ServerConnection::new(server).unwrap(), stream)
}

#[test]
fn https_is_verified_against_the_given_authority_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (pem, server) = localhost_tls();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let serve = |server: Arc<rustls::ServerConfig>| {
        once(move |s| {
            let mut s = over_tls(server, s);
            let _ = s.read(&mut [0; 65536]);
            let _ = s.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            let _ = s.flush();
        })
    };
    let port = serve(server.clone()).port();
    let trusted = receiver(&format!(
        "kind: webhook, url: 'https://localhost:{port}', ca_file: '{}'",
        ca.display()
    ));
    let tried = send(&trusted, &alert());
    assert_eq!(tried.result, TryResult::Delivered, "{tried:?}");
    let port = serve(server).port();
    let public = receiver(&format!("kind: webhook, url: 'https://localhost:{port}'"));
    let tried = send(&public, &alert());
    assert_eq!(tried.result, later());
    assert!(
        tried.detail.contains("certificate") || tried.detail.contains("UnknownIssuer"),
        "{tried:?}"
    );
}

// ---- syslog ----

#[track_caller]
fn check_syslog(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap();
    let (length, rest) = text.split_once(' ').unwrap();
    assert_eq!(
        length.parse::<usize>().unwrap(),
        rest.len(),
        "octet counting"
    );
    // facility 13, severity 2
    assert!(rest.starts_with("<106>1 20"), "{rest}");
    let fields: Vec<&str> = rest.splitn(8, ' ').collect();
    assert_eq!(
        (fields[2], fields[3], fields[5], fields[6]),
        ("node-1", "plimsoll", "A-17", "-")
    );
    let json: Value = serde_json::from_str(fields[7]).unwrap();
    assert_eq!(json["rule"], "Shell <under> server");
}

#[test]
fn syslog_over_tcp_and_tls_is_framed_rfc_5424() {
    let (told, got) = std::sync::mpsc::channel();
    let plain = told.clone();
    let address = once(move |mut s| {
        let mut all = Vec::new();
        s.read_to_end(&mut all).unwrap();
        plain.send(all).unwrap();
    });
    let tried = send(
        &receiver(&format!("kind: syslog, tls: none, address: '{address}'")),
        &alert(),
    );
    assert_eq!(tried.result, TryResult::Delivered, "{tried:?}");
    check_syslog(&got.recv().unwrap());

    let dir = tempfile::tempdir().unwrap();
    let (pem, server) = localhost_tls();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let port = once(move |s| {
        let mut all = Vec::new();
        let _ = over_tls(server, s).read_to_end(&mut all);
        told.send(all).unwrap();
    })
    .port();
    let tls = receiver(&format!(
        "kind: syslog, address: 'localhost:{port}', ca_file: '{}'",
        ca.display()
    ));
    let tried = send(&tls, &alert());
    assert_eq!(tried.result, TryResult::Delivered, "{tried:?}");
    check_syslog(&got.recv().unwrap());
}

#[test]
fn a_syslog_message_is_never_longer_than_receivers_take_and_stays_json() {
    // what a container chose, and what it would like the receiver to read as the next message
    let forged = "<13>1 - - plimsoll - - - all is well";
    for long in [
        "y".repeat(9000),
        forged.repeat(300),
        "\u{1}\u{2}".repeat(5000),
    ] {
        let mut message = alert();
        let event = message.alert.as_mut().unwrap();
        event["output"] = long.as_str().into();
        for i in 0..50 {
            event["output_fields"][format!("proc.{i}")] = long.as_str().into();
        }
        event["plimsoll"] = serde_json::json!({"alert_id": "A-1", "lineage": [&long, &long]});
        let (to, got) = std::sync::mpsc::channel();
        let address = once(move |mut s| {
            let mut all = Vec::new();
            let _ = s.read_to_end(&mut all);
            to.send(all).unwrap();
        });
        let plain = format!("kind: syslog, address: '{address}', tls: none");
        assert_eq!(
            send(&receiver(&plain), &message).result,
            TryResult::Delivered
        );
        let bytes = got.recv().unwrap();
        assert!(bytes.len() < 8096, "{} bytes", bytes.len());
        let text = String::from_utf8(bytes).unwrap();
        let json = &text[text.find('{').unwrap()..];
        let told: Value = serde_json::from_str(json).unwrap();
        assert_eq!(told["plimsoll"]["alert_id"], "A-1");
        assert_eq!(told["priority"], "Critical");
    }
}

#[test]
fn a_storm_of_one_is_that_alert() {
    let mut message = storm();
    message.count = 1;
    message.groups.truncate(1);
    message.groups[0].count = 1;
    message.groups[0].priority = "Critical".into();
    message.groups[0].sample = alert().alert.unwrap();
    let (url, got) = fine();
    let to = receiver(&format!("kind: slack, url: '{url}'"));
    assert_eq!(send(&to, &message).result, TryResult::Delivered);
    let text = body(&got)["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("*Critical* Shell"), "{text}");
}

#[test]
fn syslog_reaches_a_name_by_whichever_of_its_addresses_answers() {
    // where the name has ::1 too, and that comes first, nobody listens there
    let (to, got) = std::sync::mpsc::channel();
    let address = once(move |mut s| {
        let mut all = Vec::new();
        let _ = s.read_to_end(&mut all);
        to.send(all).unwrap();
    });
    let named = format!(
        "kind: syslog, address: 'localhost:{}', tls: none",
        address.port()
    );
    assert_eq!(
        send(&receiver(&named), &alert()).result,
        TryResult::Delivered
    );
    check_syslog(&got.recv().unwrap());
}

#[test]
fn syslog_to_somebody_else_or_without_tls_fails_and_says_why() {
    let (_, server) = localhost_tls();
    let stranger = once(move |s| drop(over_tls(server, s).read(&mut [0; 64]))).port();
    let tried = send(
        &receiver(&format!("kind: syslog, address: 'localhost:{stranger}'")),
        &alert(),
    );
    assert_eq!(tried.result, later());
    assert!(tried.detail.contains("certificate"), "{tried:?}");
    let plain = once(|mut s| drop(s.write_all(b"hello\n"))).port();
    let tried = send(
        &receiver(&format!("kind: syslog, address: 'localhost:{plain}'")),
        &alert(),
    );
    assert_eq!(tried.result, later());
}

// ---- e-mail ----

/// Says what an SMTP server says; what it was told, the mail included.
fn smtp(refuse: Option<&'static str>) -> (std::net::SocketAddr, std::sync::mpsc::Receiver<String>) {
    let (told, got) = std::sync::mpsc::channel();
    let address = once(move |s| {
        let mut to = s.try_clone().unwrap();
        let mut say = |line: &str| drop(to.write_all(format!("{line}\r\n").as_bytes()));
        let mut all = String::new();
        let mut in_data = false;
        say("220 test ESMTP");
        for line in BufReader::new(s).lines() {
            let Ok(line) = line else { break };
            all += &format!("{line}\n");
            if in_data {
                if line == "." {
                    in_data = false;
                    say("250 2.0.0 queued as 42");
                }
                continue;
            }
            match line.split([' ', ':']).next().unwrap() {
                "EHLO" => say("250-test\r\n250 AUTH PLAIN LOGIN"),
                "AUTH" => say("235 2.7.0 accepted"),
                "RCPT" => say(refuse.unwrap_or("250 ok")),
                "DATA" => {
                    in_data = true;
                    say("354 go on");
                }
                "QUIT" => {
                    say("221 bye");
                    break;
                }
                _ => say("250 ok"),
            }
        }
        let _ = told.send(all);
    });
    (address, got)
}
fn mailbox(address: std::net::SocketAddr) -> plimsoll_notify::config::Receiver {
    receiver(&format!(
        "kind: smtp, tls: none, address: '{address}', user: u, secret: pa55, from: plimsoll@example.org, to: [ops@example.org, 'Second <second@example.org>']"
    ))
}

#[test]
fn e_mail_arrives_with_a_stable_message_id() {
    let (address, got) = smtp(None);
    let mut message = alert();
    message.alert.as_mut().unwrap()["rule"] = "x\r\nBcc: evil@example.org".into();
    let tried = send(&mailbox(address), &message);
    assert_eq!(tried.result, TryResult::Delivered, "{tried:?}");
    assert!(tried.detail.contains("queued as 42"));
    let mail = got.recv_timeout(Duration::from_secs(60)).unwrap();
    for line in [
        "MAIL FROM:<plimsoll@example.org>",
        "RCPT TO:<ops@example.org>",
        "RCPT TO:<second@example.org>",
        "Message-ID: <A-17@example.org>",
        "Subject: [Critical] x  Bcc: evil@example.org",
    ] {
        assert!(
            mail.lines().any(|l| l.starts_with(line)),
            "{line} is missing in:\n{mail}"
        );
    }
    assert!(
        !mail.lines().any(|l| l.starts_with("Bcc:")),
        "a rule's name is no header"
    );
    assert!(mail.contains("sh under nginx & more"));
}

#[test]
fn a_mail_server_that_is_busy_is_tried_later_and_one_that_refuses_is_not() {
    let (busy, _) = smtp(Some("451 4.7.1 greylisted"));
    assert_eq!(send(&mailbox(busy), &alert()).result, later());
    let (never, _) = smtp(Some("550 5.1.1 no such user"));
    assert_eq!(send(&mailbox(never), &alert()).result, TryResult::Refused);
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(send(&mailbox(nobody), &alert()).result, later());
}

// ---- the file, the socket ----

#[test]
fn the_file_of_receivers_says_what_is_wrong() {
    for (yaml, words) in [
        ("kind: webhook", "url: expected"),
        ("kind: fax, url: 'http://x'", "line 3"),
        ("kind: webhook, url: 'http://x', colour: red", "colour"),
        (
            "kind: smtp, address: 'h:25', from: nobody, to: [a@b.c]",
            "e-mail address",
        ),
        ("kind: syslog, address: here", "host:port"),
        ("kind: slack, url: 'https://x', priority: loud", "priority"),
    ] {
        let text = format!("version: 1\nreceivers:\n  - {{name: ops, {yaml}}}\n");
        let e = Config::parse(&text, Path::new("notify.yaml")).unwrap_err();
        let e = format!("{e}");
        assert!(
            e.contains(words) && e.contains("notify.yaml"),
            "{yaml}: {e}"
        );
    }
}

#[test]
fn the_agent_is_told_of_receivers_and_of_every_try() {
    let (url, _) = fine();
    let text = format!("version: 1\nreceivers:\n  - {{name: ops, kind: webhook, url: '{url}'}}\n");
    let config = Config::parse(&text, Path::new("notify.yaml")).unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let served = std::thread::spawn(move || plimsoll_notify::serve(theirs, config));
    let mut to = ours.try_clone().unwrap();
    let mut lines = BufReader::new(ours).lines();
    let mut next = || serde_json::from_str::<FromSender>(&lines.next().unwrap().unwrap()).unwrap();
    let FromSender::Hello { receivers } = next() else {
        panic!("hello comes first")
    };
    assert_eq!(
        (receivers[0].name.as_str(), receivers[0].kind.as_str()),
        ("ops", "webhook")
    );
    for receiver in ["ops", "nobody"] {
        let ask = ToSender::Send {
            receiver: receiver.into(),
            message: alert(),
        };
        to.write_all(format!("{}\n", serde_json::to_string(&ask).unwrap()).as_bytes())
            .unwrap();
        let FromSender::Tried { key, result, .. } = next() else {
            panic!("a try has an end")
        };
        assert_eq!(key, "A-17");
        assert_eq!(result == TryResult::Delivered, receiver == "ops");
    }
    to.shutdown(std::net::Shutdown::Both).unwrap();
    served.join().unwrap().unwrap();
}
