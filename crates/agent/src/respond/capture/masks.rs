//! Secrets in what is kept in clear words: environments, arguments, labels.
//!
//! Promises: masked by the node's own rules (`redaction`), so that equal masks are equal secrets all
//! over the journal and its captures. Left out: files and memory, which are kept byte for byte.

use plimsoll_model::Text;
use plimsoll_workload::Redactor;
use serde_json::Value;
use std::sync::Arc;

/// How secrets are masked; by default not at all.
#[derive(Clone, Debug, Default)]
pub struct Masks(Option<Arc<Redactor>>);

impl PartialEq for Masks {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Masks {
    /// By these rules.
    pub fn new(rules: Redactor) -> Self {
        Masks(Some(Arc::new(rules)))
    }

    /// `NAME=value`, each ended by NUL, as `/proc/PID/environ` has them.
    pub(super) fn environment(&self, bytes: &[u8]) -> Vec<u8> {
        let Some(rules) = &self.0 else {
            return bytes.to_vec();
        };
        let mut all: Vec<Text> = bytes.split(|b| *b == 0).map(Text::new).collect();
        rules.environment(&mut all);
        let parts: Vec<&[u8]> = all.iter().map(Text::as_bytes).collect();
        parts.join(&0)
    }

    /// Every text in a description: lists as arguments or environments, values with their names.
    pub(super) fn json(&self, value: &mut Value, depth: usize) {
        let Some(rules) = &self.0 else { return };
        match value {
            _ if depth == 0 => *value = "[left out: too deep]".into(),
            Value::Array(list) if list.iter().all(Value::is_string) => {
                let mut words: Vec<Text> =
                    list.iter().filter_map(Value::as_str).map(text).collect();
                rules.arguments(&mut words);
                rules.environment(&mut words);
                *list = words.iter().map(|w| w.to_str_lossy().into()).collect();
            }
            Value::Array(list) => list.iter_mut().for_each(|v| self.json(v, depth - 1)),
            Value::Object(map) => {
                for (name, value) in map.iter_mut() {
                    let Value::String(word) = value else {
                        self.json(value, depth - 1);
                        continue;
                    };
                    let mut pair = [text(&format!("{name}={word}"))];
                    let masked = !rules.arguments(&mut pair).is_empty();
                    let pair = pair[0].to_str_lossy();
                    if masked && let Some(rest) = pair.strip_prefix(&format!("{name}=")) {
                        *value = rest.into();
                    }
                }
            }
            _ => {}
        }
    }
}

fn text(word: &str) -> Text {
    Text::new(word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_in_environments_arguments_and_labels_are_masked_and_the_rest_is_kept() {
        let masks = Masks::new(Redactor::new([7; 32], true));
        let mut value = json!({
            "Config": {
                "Env": ["PATH=/bin", "DB_PASSWORD=hunter2-secret"],
                "Cmd": ["mysql", "--password", "hunter2-secret", "shop"],
                "Labels": {"team": "shop", "api_token": "hunter2-secret"},
            },
        });
        masks.json(&mut value, 32);
        let said = value.to_string();
        assert!(!said.contains("hunter2"), "{said}");
        assert!(
            said.contains("PATH=/bin") && said.contains("\"team\":\"shop\""),
            "{said}"
        );
        let masked = masks.environment(b"A=1\0API_TOKEN=hunter2-secret\0");
        assert!(masked.starts_with(b"A=1\0API_TOKEN=[redacted") && masked.ends_with(b"\0"));
        assert_eq!(
            Masks::default().environment(b"API_TOKEN=x\0"),
            b"API_TOKEN=x\0"
        );
    }
}
