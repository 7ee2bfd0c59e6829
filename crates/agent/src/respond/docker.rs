//! Effects through the socket of Docker or Podman: pause, unpause, stop, remove, and a look
//! whether they hold.
//!
//! Promises: the container is named by its full id, never by a name; what the daemon answers is
//! read up to a bound and within a time; an effect counts only when a look afterwards shows it.
//! Plain HTTP/1.0 over a Unix socket, the few requests that are needed. Left out: everything that
//! does not go through a runtime.

use plimsoll_model::ContainerId;
use plimsoll_model::response::StepOutcome;
use serde_json::Value;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Of an answer, this much is read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// How long a look at a container may take: a daemon answers late where the machine is busy, and one that
/// is not heard counts as one that does not know it.
const LOOK_MAX: Duration = Duration::from_secs(15);
/// How long ago its end may have been asked for.
const ENDING_SECONDS: u64 = 300;
/// Signals with which daemons end containers, or people do: SIGINT, SIGQUIT, SIGKILL, SIGTERM.
const ENDING_SIGNALS: [&str; 4] = ["2", "3", "9", "15"];
/// Where daemons are looked for besides the configured sockets.
const USUAL: [&str; 2] = ["/run/docker.sock", "/run/podman/podman.sock"];

/// A container as a daemon knows it.
#[derive(Debug)]
pub struct Known {
    socket: PathBuf,
    id: ContainerId,
}

/// How a container is, as its daemon says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// Its processes run.
    Running,
    /// They are stopped in their tracks.
    Paused,
    /// It has no processes.
    Stopped,
    /// The daemon does not know it (any more).
    Unknown,
}

/// Asks every socket who knows the container.
pub fn find(sockets: &[PathBuf], id: &ContainerId) -> Option<Known> {
    let usual = USUAL.iter().map(PathBuf::from);
    let mut all = sockets.iter().cloned().chain(usual);
    all.find_map(|socket| {
        let known = Known {
            socket,
            id: id.clone(),
        };
        (known.look().ok()? != Is::Unknown).then_some(known)
    })
}

impl Known {
    /// How it is.
    ///
    /// # Errors
    /// When the daemon does not answer, or nonsense.
    pub fn look(&self) -> io::Result<Is> {
        let path = format!("/containers/{}/json", self.id);
        let (status, body) = ask(&self.socket, "GET", &path, LOOK_MAX)?;
        match status {
            404 => return Ok(Is::Unknown),
            200 => {}
            other => return Err(io::Error::other(format!("HTTP {other}"))),
        }
        let answer: Value = serde_json::from_slice(&body)?;
        let flag = |name: &str| answer["State"][name] == true;
        Ok(match (flag("Running"), flag("Paused")) {
            (_, true) => Is::Paused,
            (true, false) => Is::Running,
            (false, false) => Is::Stopped,
        })
    }

    /// What the daemon says of it (`json`, `logs?…`): status, and at most `max` bytes.
    ///
    /// # Errors
    /// When the daemon does not answer in time, or not HTTP.
    pub fn get(&self, what: &str, max: u64, patience: Duration) -> io::Result<(u16, Vec<u8>)> {
        let path = format!("/containers/{}/{what}", self.id);
        ask_up_to(&self.socket, "GET", &path, patience, max)
    }

    /// What the daemon says of an image, named by its digest.
    ///
    /// # Errors
    /// When that is no digest, or the daemon does not know it.
    pub fn image(&self, digest: &str, max: u64, patience: Duration) -> io::Result<Vec<u8>> {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(io::Error::other("its digest is not known"));
        }
        let path = format!("/images/{digest}/json");
        match ask_up_to(&self.socket, "GET", &path, patience, max)? {
            (200, body) => Ok(body),
            (status, _) => Err(io::Error::other(format!("HTTP {status}"))),
        }
    }

    /// Whether its end has been asked for (`docker stop`, a kill) and it has not been started since, by
    /// what the daemon did with it in the last minutes; `false` where that cannot be told. Its state says
    /// so only when its processes are gone.
    pub fn is_being_ended(&self, patience: Duration) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let filters = format!(
            r#"{{"container":["{}"],"event":["start","restart","kill","stop","die","destroy"]}}"#,
            self.id
        );
        let path = format!(
            "/events?since={}&until={}.{:09}&filters={}",
            now.as_secs().saturating_sub(ENDING_SECONDS),
            now.as_secs(),
            now.subsec_nanos(),
            encoded(&filters)
        );
        match ask_up_to(&self.socket, "GET", &path, patience, ANSWER_BYTES_MAX) {
            Ok((200, body)) => ends(&body),
            _ => false,
        }
    }

    /// The socket of its daemon, for people.
    pub fn source(&self) -> String {
        self.socket.display().to_string()
    }

    /// How long it can stand still before its health check calls it unhealthy: all failures but
    /// the last, an interval each (`retries` and `interval` of the image or of `docker run`; 3 and
    /// 30 s unless given). `None`: it has no health check.
    ///
    /// # Errors
    /// When the daemon does not answer, or nonsense.
    pub fn health_patience(&self) -> io::Result<Option<Duration>> {
        let path = format!("/containers/{}/json", self.id);
        let (_, body) = ask(&self.socket, "GET", &path, LOOK_MAX)?;
        let answer: Value = serde_json::from_slice(&body)?;
        Ok(health_patience(&answer["Config"]["Healthcheck"]))
    }

    /// Stops its processes in their tracks.
    pub fn pause(&self) -> StepOutcome {
        self.change("POST", "pause", Duration::from_secs(20), Is::Paused)
    }
    /// Lets them go on.
    pub fn unpause(&self) -> StepOutcome {
        self.change("POST", "unpause", Duration::from_secs(20), Is::Running)
    }
    /// Ends its processes: SIGTERM, and SIGKILL after `grace`.
    pub fn stop(&self, grace: Duration) -> StepOutcome {
        let what = format!("stop?t={}", grace.as_secs());
        self.change("POST", &what, grace + Duration::from_secs(20), Is::Stopped)
    }
    /// Removes it, running or not.
    pub fn remove(&self) -> StepOutcome {
        self.change(
            "DELETE",
            "?force=true",
            Duration::from_secs(40),
            Is::Unknown,
        )
    }

    fn change(&self, method: &str, what: &str, patience: Duration, to: Is) -> StepOutcome {
        let failed = |why: String| StepOutcome::Failed { why };
        if self.look().is_ok_and(|is| is == to) {
            return done(to, "it was so already");
        }
        let slash = if what.starts_with('?') { "" } else { "/" };
        let path = format!("/containers/{}{slash}{what}", self.id);
        let answered = ask(&self.socket, method, &path, patience);
        // whatever was answered, what holds now decides
        match (self.look(), answered) {
            (Ok(is), _) if is == to => done(to, "looked at afterwards"),
            (_, Err(e)) => failed(format!("{}: {e}", self.socket.display())),
            (_, Ok((status, body))) => {
                let said: String = String::from_utf8_lossy(&body).chars().take(300).collect();
                failed(format!("the runtime answered HTTP {status}: {said}"))
            }
        }
    }
}

/// Whether the last of these events (one JSON object after the other) is one that ends a container.
fn ends(events: &[u8]) -> bool {
    let events = serde_json::Deserializer::from_slice(events).into_iter::<Value>();
    // the last one may have been cut
    let events = events.map_while(Result::ok);
    let ends = |event: Value| match event["Action"].as_str()? {
        "start" | "restart" => Some(false),
        "kill" => {
            let signal = event["Actor"]["Attributes"]["signal"].as_str();
            let ending = signal.is_none_or(|s| ENDING_SIGNALS.contains(&s));
            ending.then_some(true)
        }
        _ => Some(true),
    };
    events.filter_map(ends).last().unwrap_or(false)
}

/// For a query: what is neither a letter nor a digit in hexadecimal.
fn encoded(text: &str) -> String {
    let one = |b: u8| match b.is_ascii_alphanumeric() {
        true => char::from(b).to_string(),
        false => format!("%{b:02X}"),
    };
    text.bytes().map(one).collect()
}

fn health_patience(check: &Value) -> Option<Duration> {
    let test = check["Test"].as_array()?;
    if test.is_empty() || test[0] == "NONE" {
        return None;
    }
    let given = |name: &str| check[name].as_u64().filter(|n| *n > 0);
    let failures = given("Retries").unwrap_or(3) - 1;
    let interval = Duration::from_nanos(given("Interval").unwrap_or(30_000_000_000));
    Some(interval.saturating_mul(u32::try_from(failures).unwrap_or(u32::MAX)))
}

fn done(is: Is, how: &str) -> StepOutcome {
    let what = match is {
        Is::Running => "its processes run",
        Is::Paused => "its processes are paused",
        Is::Stopped => "it is stopped",
        Is::Unknown => "it is removed",
    };
    StepOutcome::Done {
        effect: format!("{what} ({how})"),
        sealed: None,
        undo: Vec::new(),
    }
}

/// One request; status and body.
fn ask(socket: &Path, method: &str, path: &str, patience: Duration) -> io::Result<(u16, Vec<u8>)> {
    ask_up_to(socket, method, path, patience, ANSWER_BYTES_MAX)
}

/// One request; status and body, of which `max` bytes are read.
fn ask_up_to(
    socket: &Path,
    method: &str,
    path: &str,
    patience: Duration,
    max: u64,
) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let request = format!("{method} {path} HTTP/1.0\r\nHost: runtime\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(max).read_to_end(&mut answer)?;
    parse(answer).ok_or_else(|| io::Error::other("not an HTTP answer"))
}

fn parse(mut answer: Vec<u8>) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    answer.drain(..end + 4);
    Some((status, answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A daemon that gives these answers, one connection each.
    fn daemon(answers: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let answers: Vec<String> = answers.iter().map(|a| (*a).to_owned()).collect();
        std::thread::spawn(move || {
            for answer in answers {
                let Ok((mut stream, _)) = listener.accept() else {
                    return;
                };
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        (dir, path)
    }
    fn state(running: bool, paused: bool) -> String {
        format!(
            "HTTP/1.0 200 OK\r\n\r\n{{\"State\":{{\"Running\":{running},\"Paused\":{paused}}}}}"
        )
    }
    fn known(socket: PathBuf) -> Known {
        Known {
            socket,
            id: ContainerId::parse(&"ab".repeat(32)).unwrap(),
        }
    }

    #[test]
    fn an_effect_counts_only_when_a_look_shows_it() {
        let fine = "HTTP/1.0 204 No Content\r\n\r\n";
        let (_dir, path) = daemon(&[&state(true, false), fine, &state(true, true)]);
        assert!(known(path).pause().is_done());
        let (_dir, path) = daemon(&[&state(true, false), fine, &state(true, false)]);
        assert_eq!(known(path).pause().as_str(), "failed");
    }

    #[test]
    fn a_health_check_is_given_all_its_failures_but_the_last() {
        let of = |text: &str| health_patience(&serde_json::from_str(text).unwrap());
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(of("null"), None);
        assert_eq!(of(r#"{"Test":["NONE"]}"#), None);
        assert_eq!(of(r#"{"Test":["CMD","x"]}"#), seconds(60));
        let given = r#"{"Test":["CMD","x"],"Interval":5000000000,"Retries":4}"#;
        assert_eq!(of(given), seconds(15));
        let last = r#"{"Test":["CMD","x"],"Interval":5000000000,"Retries":1}"#;
        assert_eq!(of(last), seconds(0));
    }

    #[test]
    fn a_container_is_being_ended_when_the_last_word_about_it_ends_it() {
        let event = |action: &str, signal: &str| {
            format!(
                "{{\"Action\":\"{action}\",\"Actor\":{{\"Attributes\":{{\"signal\":\"{signal}\"}}}}}}\n"
            )
        };
        let stop = event("kill", "15");
        assert!(ends(stop.as_bytes()));
        assert!(
            !ends(event("kill", "1").as_bytes()),
            "told to read its files again"
        );
        assert!(ends((stop.clone() + &event("kill", "1")).as_bytes()));
        assert!(!ends((stop.clone() + &event("start", "")).as_bytes()));
        assert!(!ends(b"") && !ends(b"garbage"));
        assert!(ends((stop + "{\"Acti").as_bytes()), "cut");
        assert_eq!(encoded("{\"a\":[1]}"), "%7B%22a%22%3A%5B1%5D%7D");
    }

    #[test]
    fn garbage_and_silence_are_failures() {
        let (_dir, path) = daemon(&["\0\0garbage", "garbage", ""]);
        assert_eq!(known(path).remove().as_str(), "failed");
        assert!(
            find(
                &["/nowhere/docker.sock".into()],
                &ContainerId::parse("x").unwrap()
            )
            .is_none()
        );
    }
}
