//! Kubernetes audit events: `ka.*` and `jevt.value[…]` over what the API server writes.
//!
//! Promises: an event is JSON that is bounded in length and depth before anything is built of it;
//! fields mean what they mean in Falco's `k8saudit` source (field names and meanings from its
//! documentation); what an event does not say is absent. Pure.
//!
//! Leaves out: receiving events, and what is done about them.

use serde_json::Value as Json;

use crate::events::EventKind;
use crate::fields::{Field, FieldArg, FieldRef};
use crate::kept::Kept;
use crate::value::{EventView, Value};

/// A line of input is at most this long.
pub const MAX_LINE_BYTES: usize = 4 << 20;
/// One line holds at most so many events.
pub const MAX_EVENTS: usize = 10_000;
/// One list that a rule asks for has at most so many values.
const MAX_VALUES: usize = 10_000;

/// Why a line holds no audit event.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It is too long.
    #[error("a line of {0} bytes; at most {MAX_LINE_BYTES} are read")]
    TooLong(usize),
    /// It holds too many events.
    #[error("a line with {0} events; at most {MAX_EVENTS} are read")]
    TooMany(usize),
    /// It is not JSON, or nested deeper than 128.
    #[error("not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// It is JSON, and no audit event.
    #[error("no audit event: expected an object with auditID, a list of them, or an EventList")]
    NotAudit,
}

/// One event.
#[derive(Debug)]
pub struct AuditEvent {
    json: Json,
    number: u64,
    texts: Kept<Vec<u8>>,
    lists: Kept<Vec<Vec<u8>>>,
}

/// Reads a line: an event, an array of events, or an `EventList` as the webhook sends it. `number`
/// is that of the first event.
///
/// # Errors
/// When the line is too long, not JSON, or holds something else.
pub fn read_line(line: &[u8], number: u64) -> Result<Vec<AuditEvent>, AuditError> {
    if line.len() > MAX_LINE_BYTES {
        return Err(AuditError::TooLong(line.len()));
    }
    let events = match serde_json::from_slice(line)? {
        Json::Array(events) => events,
        Json::Object(mut object) => match object.remove("items") {
            Some(Json::Array(events)) => events,
            Some(_) => return Err(AuditError::NotAudit),
            None => vec![Json::Object(object)],
        },
        _ => return Err(AuditError::NotAudit),
    };
    if events.len() > MAX_EVENTS {
        return Err(AuditError::TooMany(events.len()));
    }
    let numbered = events.into_iter().zip(number..);
    numbered
        .map(|(json, number)| match json.get("auditID") {
            Some(Json::String(_)) => Ok(AuditEvent {
                json,
                number,
                texts: Kept::default(),
                lists: Kept::default(),
            }),
            _ => Err(AuditError::NotAudit),
        })
        .collect()
}

/// Where a field's values are.
enum Place {
    /// One value.
    At(&'static [&'static str]),
    /// The items of a list.
    Items(&'static [&'static str]),
    /// Of each item of a list, the value (or values) further down.
    Of(&'static [&'static str], &'static [&'static str]),
}

const CONTAINERS: &[&str] = &["requestObject", "spec", "containers"];
const INIT_CONTAINERS: &[&str] = &["requestObject", "spec", "initContainers"];
const EPHEMERAL_CONTAINERS: &[&str] = &["requestObject", "spec", "ephemeralContainers"];
const VOLUMES: &[&str] = &["requestObject", "spec", "volumes"];
const RULES: &[&str] = &["requestObject", "rules"];

fn place(field: Field) -> Option<Place> {
    use Field as F;
    use Place::{At, Items, Of};
    Some(match field {
        F::KaAuditid => At(&["auditID"]),
        F::KaStage => At(&["stage"]),
        F::KaAuthDecision => At(&["annotations", "authorization.k8s.io/decision"]),
        F::KaAuthReason => At(&["annotations", "authorization.k8s.io/reason"]),
        F::KaAuthOpenshiftDecision => At(&["annotations", "authentication.openshift.io/decision"]),
        F::KaAuthOpenshiftUsername => At(&["annotations", "authentication.openshift.io/username"]),
        F::KaValidationsAdmissionPolicyFailure => At(&[
            "annotations",
            "validation.policy.admission.k8s.io/validation_failure",
        ]),
        F::KaSecurityPodViolations => {
            At(&["annotations", "pod-security.kubernetes.io/audit-violations"])
        }
        F::KaUserName => At(&["user", "username"]),
        F::KaUserGroups => Items(&["user", "groups"]),
        F::KaImpuserName => At(&["impersonatedUser", "username"]),
        F::KaVerb => At(&["verb"]),
        F::KaUri => At(&["requestURI"]),
        F::KaTargetName => At(&["objectRef", "name"]),
        F::KaTargetNamespace => At(&["objectRef", "namespace"]),
        F::KaTargetResource => At(&["objectRef", "resource"]),
        F::KaTargetSubresource => At(&["objectRef", "subresource"]),
        F::KaReqBindingSubjects => Items(&["requestObject", "subjects"]),
        F::KaReqBindingRole => At(&["requestObject", "roleRef", "name"]),
        F::KaReqConfigmapName => At(&["objectRef", "name"]),
        F::KaReqConfigmapObj => At(&["requestObject", "data"]),
        F::KaReqPodHostIpc => At(&["requestObject", "spec", "hostIPC"]),
        F::KaReqPodHostNetwork | F::KaReqContainerHostNetwork => {
            At(&["requestObject", "spec", "hostNetwork"])
        }
        F::KaReqPodHostPid => At(&["requestObject", "spec", "hostPID"]),
        F::KaReqPodRunAsUser => At(&["requestObject", "spec", "securityContext", "runAsUser"]),
        F::KaReqPodRunAsGroup => At(&["requestObject", "spec", "securityContext", "runAsGroup"]),
        F::KaReqPodFsGroup => At(&["requestObject", "spec", "securityContext", "fsGroup"]),
        F::KaReqPodSupplementalGroups => Items(&[
            "requestObject",
            "spec",
            "securityContext",
            "supplementalGroups",
        ]),
        F::KaReqRoleRules => Items(RULES),
        F::KaReqRoleRulesApiGroups => Of(RULES, &["apiGroups"]),
        F::KaReqRoleRulesNonResourceURLs => Of(RULES, &["nonResourceURLs"]),
        F::KaReqRoleRulesVerbs => Of(RULES, &["verbs"]),
        F::KaReqRoleRulesResources => Of(RULES, &["resources"]),
        F::KaReqServiceType => At(&["requestObject", "spec", "type"]),
        F::KaReqServicePorts => Items(&["requestObject", "spec", "ports"]),
        F::KaReqPodVolumesHostpath => Of(VOLUMES, &["hostPath", "path"]),
        F::KaReqPodVolumesFlexvolumeDriver => Of(VOLUMES, &["flexVolume", "driver"]),
        F::KaRespName => At(&["responseObject", "metadata", "name"]),
        F::KaResponseCode => At(&["responseStatus", "code"]),
        F::KaResponseReason => At(&["responseStatus", "reason"]),
        F::KaUseragent => At(&["userAgent"]),
        F::KaSourceips => Items(&["sourceIPs"]),
        F::KaClusterName => At(&["annotations", "cluster_name"]),
        _ => return of_containers(field),
    })
}

/// `ka.req.pod.containers.*`, `…initContainers.*` and `…ephemeralContainers.*`.
fn of_containers(field: Field) -> Option<Place> {
    let (containers, rest) = containers_of(field)?;
    let item: &'static [&'static str] = match rest {
        "name" => &["name"],
        "image" => &["image"],
        "command" => &["command"],
        "args" => &["args"],
        "privileged" => &["securityContext", "privileged"],
        "allow_privilege_escalation" => &["securityContext", "allowPrivilegeEscalation"],
        "read_only_fs" => &["securityContext", "readOnlyRootFilesystem"],
        "run_as_user" => &["securityContext", "runAsUser"],
        "run_as_group" => &["securityContext", "runAsGroup"],
        "proc_mount" => &["securityContext", "procMount"],
        "add_capabilities" => &["securityContext", "capabilities", "add"],
        _ => return None,
    };
    Some(Place::Of(containers, item))
}

fn containers_of(field: Field) -> Option<(&'static [&'static str], &'static str)> {
    let name = field.name().strip_prefix("ka.req.pod.")?;
    let (list, rest) = name.split_once('.')?;
    let containers = match list {
        "containers" => CONTAINERS,
        "initContainers" => INIT_CONTAINERS,
        "ephemeralContainers" => EPHEMERAL_CONTAINERS,
        _ => return None,
    };
    Some((containers, rest))
}

fn at<'j>(json: &'j Json, path: &[&str]) -> Option<&'j Json> {
    let found = path.iter().try_fold(json, |json, key| json.get(key))?;
    (!found.is_null()).then_some(found)
}

fn items<'j>(json: &'j Json, path: &[&str]) -> &'j [Json] {
    let list = at(json, path).and_then(Json::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// A value as text: strings as they are, everything else as JSON.
fn text(json: &Json) -> Vec<u8> {
    match json {
        Json::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    }
}

impl AuditEvent {
    fn one<'v>(&'v self, json: Option<&'v Json>) -> Value<'v> {
        match json {
            None => Value::Absent,
            Some(Json::String(text)) => Value::Text(text.as_bytes()),
            Some(other) => Value::Text(self.texts.keep(text(other))),
        }
    }

    fn made(&self, text: impl Into<Vec<u8>>) -> Value<'_> {
        Value::Text(self.texts.keep(text.into()))
    }

    /// A list; with an index, its item. An event without any value has none at all.
    fn list(&self, mut values: Vec<Vec<u8>>, arg: &FieldArg) -> Value<'_> {
        if let FieldArg::Index(index) = arg {
            let index = *index as usize;
            return match index < values.len() {
                true => self.made(values.swap_remove(index)),
                false => Value::Absent,
            };
        }
        values.truncate(MAX_VALUES);
        match values.is_empty() {
            true => Value::Absent,
            false => Value::List(self.lists.keep(values)),
        }
    }

    /// Of each item, what lies further down; an array there gives all of its values.
    fn of_each(&self, list: &[&str], path: &[&str]) -> Vec<Vec<u8>> {
        let mut values = Vec::new();
        for found in items(&self.json, list).iter().filter_map(|i| at(i, path)) {
            match found {
                Json::Array(all) => values.extend(all.iter().take(MAX_VALUES).map(text)),
                one => values.push(text(one)),
            }
            if values.len() > MAX_VALUES {
                break;
            }
        }
        values
    }

    /// What a field is made of where it is not simply somewhere.
    fn composed(&self, field: &FieldRef) -> Value<'_> {
        use Field as F;
        let arg = &field.arg;
        match field.field {
            F::KaUriParam => self.uri_parameter(arg),
            F::KaTargetPodName => match at(&self.json, &["objectRef", "resource"]) {
                Some(Json::String(r)) if r == "pods" => {
                    self.one(at(&self.json, &["objectRef", "name"]))
                }
                _ => Value::Absent,
            },
            F::KaReqBindingSubjectsUserNames => self.subjects("User", false, arg),
            F::KaReqBindingSubjectsGroupNames => self.subjects("Group", false, arg),
            F::KaReqBindingSubjectsServiceaccountNames => {
                self.subjects("ServiceAccount", false, arg)
            }
            F::KaReqBindingSubjectsServiceaccountNsNames => {
                self.subjects("ServiceAccount", true, arg)
            }
            F::KaReqContainerImage => self.one(
                items(&self.json, CONTAINERS)
                    .first()
                    .and_then(|c| at(c, &["image"])),
            ),
            F::KaReqContainerImageRepository => {
                let images = self.of_each(CONTAINERS, &["image"]);
                match images.first() {
                    Some(image) => self.made(repository(image)),
                    None => Value::Absent,
                }
            }
            F::KaReqContainerPrivileged => {
                let all = self.of_each(CONTAINERS, &["securityContext", "privileged"]);
                Value::Text(match all.iter().any(|p| p == b"true") {
                    true => b"true",
                    false => b"false",
                })
            }
            F::KaReqVolumeHostpath => self.mounts_host_path(arg),
            F::KaReqPodVolumesVolumeType => {
                let keys = |v: &Json| -> Vec<Vec<u8>> {
                    let object = v.as_object().into_iter().flat_map(|o| o.keys());
                    let kinds = object.filter(|k| *k != "name");
                    kinds.map(|k| k.clone().into_bytes()).collect()
                };
                let kinds = items(&self.json, VOLUMES).iter().flat_map(keys).collect();
                self.list(kinds, arg)
            }
            other => match containers_of(other) {
                Some((containers, "image.repository")) => {
                    let images = self.of_each(containers, &["image"]);
                    self.list(images.iter().map(|i| repository(i)).collect(), arg)
                }
                Some((containers, "host_port")) => {
                    let ports = items(&self.json, containers)
                        .iter()
                        .flat_map(|c| items(c, &["ports"]))
                        .filter_map(|p| at(p, &["hostPort"]))
                        .map(text);
                    self.list(ports.collect(), arg)
                }
                Some((containers, "eff_run_as_user")) => {
                    self.effective(containers, "runAsUser", arg)
                }
                Some((containers, "eff_run_as_group")) => {
                    self.effective(containers, "runAsGroup", arg)
                }
                _ => Value::Absent,
            },
        }
    }

    /// The container's own setting, else the pod's, else 0.
    fn effective(&self, containers: &[&str], key: &str, arg: &FieldArg) -> Value<'_> {
        let of_pod = at(
            &self.json,
            &["requestObject", "spec", "securityContext", key],
        );
        let of = |c: &Json| {
            let own = at(c, &["securityContext", key]).or(of_pod);
            own.map_or_else(|| b"0".to_vec(), text)
        };
        let all = items(&self.json, containers).iter().map(of).collect();
        self.list(all, arg)
    }

    fn subjects(&self, kind: &str, with_namespace: bool, arg: &FieldArg) -> Value<'_> {
        let name = |s: &Json| {
            let name = at(s, &["name"])?.as_str()?;
            let namespace = at(s, &["namespace"]).and_then(Json::as_str);
            Some(match with_namespace {
                true => format!("{}:{name}", namespace.unwrap_or_default()).into_bytes(),
                false => name.as_bytes().to_vec(),
            })
        };
        let names = items(&self.json, &["requestObject", "subjects"])
            .iter()
            .filter(|s| at(s, &["kind"]).and_then(Json::as_str) == Some(kind))
            .filter_map(name);
        self.list(names.collect(), arg)
    }

    /// `ka.req.volume.hostpath[/etc*]`: whether a volume is that path of the host, or lies below.
    fn mounts_host_path(&self, arg: &FieldArg) -> Value<'_> {
        let FieldArg::Key(wanted) = arg else {
            return Value::Absent;
        };
        let paths = self.of_each(VOLUMES, &["hostPath", "path"]);
        let fits = |path: &Vec<u8>| match wanted.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning.as_bytes()),
            None => path == wanted.as_bytes(),
        };
        Value::Text(match paths.iter().any(fits) {
            true => b"true",
            false => b"false",
        })
    }

    fn uri_parameter(&self, arg: &FieldArg) -> Value<'_> {
        let key = match arg {
            FieldArg::Key(key) => key.to_string(),
            FieldArg::Index(index) => index.to_string(),
            FieldArg::None => return Value::Absent,
        };
        let uri = at(&self.json, &["requestURI"]).and_then(Json::as_str);
        let query = uri.and_then(|u| u.split_once('?')).map_or("", |(_, q)| q);
        let found = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find(|(k, _)| decoded(k) == key.as_bytes());
        match found {
            Some((_, value)) => self.made(decoded(value)),
            None => Value::Absent,
        }
    }

    /// When the API server reached this stage, as it writes it.
    pub fn time(&self) -> &str {
        let keys = ["stageTimestamp", "requestReceivedTimestamp"];
        let found = keys.into_iter().find_map(|k| self.json.get(k)?.as_str());
        found.unwrap_or_default()
    }

    /// The event's id.
    pub fn id(&self) -> &str {
        self.json
            .get("auditID")
            .and_then(Json::as_str)
            .unwrap_or_default()
    }

    /// `verb resource namespace/name by user`, for what aggregates and for people.
    pub fn summary(&self) -> String {
        let get = |path: &[&str]| at(&self.json, path).and_then(Json::as_str).unwrap_or("-");
        format!(
            "{} {} {}/{} by {}",
            get(&["verb"]),
            get(&["objectRef", "resource"]),
            get(&["objectRef", "namespace"]),
            get(&["objectRef", "name"]),
            get(&["user", "username"])
        )
    }
}

/// The part of an image's name before tag and digest.
fn repository(image: &[u8]) -> Vec<u8> {
    let name = image.split(|b| *b == b'@').next().unwrap_or_default();
    let slash = name.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
    let end = name[slash..].iter().position(|b| *b == b':');
    name[..end.map_or(name.len(), |i| slash + i)].to_vec()
}

/// A part of a query with `+` and `%XX` taken back; what is no escape stays.
fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = || u8::from_str_radix(text.get(i + 1..i + 3)?, 16).ok();
        match bytes[i] {
            b'+' => out.push(b' '),
            b'%' => match hex() {
                Some(byte) => {
                    out.push(byte);
                    i += 2;
                }
                None => out.push(b'%'),
            },
            b => out.push(b),
        }
        i += 1;
    }
    out
}

impl EventView for AuditEvent {
    fn kind(&self) -> EventKind {
        EventKind::from_name("pluginevent").expect("a name of the table")
    }

    fn field<'a>(&'a self, field: &FieldRef) -> Value<'a> {
        use Field as F;
        match field.field {
            F::EvtNum => Value::UInt(self.number),
            F::EvtSource => Value::Text(b"k8s_audit"),
            F::EvtPluginname => Value::Text(b"k8saudit"),
            F::EvtCount => Value::UInt(1),
            F::EvtTime | F::EvtTimeIso8601 | F::EvtDatetime | F::JevtRawtime | F::JsonRawtime => {
                Value::text((!self.time().is_empty()).then_some(self.time().as_bytes()))
            }
            F::JevtValue | F::JsonValue => match &field.arg {
                FieldArg::Key(pointer) => {
                    self.one(self.json.pointer(pointer).filter(|v| !v.is_null()))
                }
                _ => Value::Absent,
            },
            F::JevtObj | F::JsonObj | F::EvtPlugininfo => self.made(self.json.to_string()),
            // kept by Falco for old rules, where it is always so
            F::KaReqBindingSubjectHasName => Value::Text(b"true"),
            other => match place(other) {
                Some(Place::At(path)) => self.one(at(&self.json, path)),
                Some(Place::Items(path)) => {
                    let values = items(&self.json, path).iter().take(MAX_VALUES).map(text);
                    self.list(values.collect(), &field.arg)
                }
                Some(Place::Of(list, path)) => self.list(self.of_each(list, path), &field.arg),
                None => self.composed(field),
            },
        }
    }
}
