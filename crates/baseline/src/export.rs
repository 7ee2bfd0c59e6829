//! A baseline as an in-toto statement: portable, readable, ready to be signed by the caller.
//!
//! The subject is the image by its config digest, so that an attestation store finds it; the
//! predicate says in words and numbers what the baseline is, and carries its exact bytes
//! (base64) for [`import`].
//!
//! Source: in-toto Attestation Framework v1, "Statement layer". Left out on purpose: the DSSE
//! envelope and its signature, which belong to whoever holds the key.

use crate::baseline::{Baseline, Expected};
use crate::wire::DecodeBaselineError;
use serde_json::{Value, json};

/// Type of the statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Type of the predicate.
pub const PREDICATE_TYPE: &str = "https://plimsoll.dev/attestation/baseline/v1";

/// A document is no exported baseline.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The image's digest is not known: there is no subject.
    #[error("export baseline: its image has no digest, so a statement would have no subject")]
    NoDigest,
    /// Not JSON.
    #[error("import baseline: {0}")]
    Json(#[from] serde_json::Error),
    /// Not the statement that was expected.
    #[error("import baseline: {0}")]
    Form(&'static str),
    /// The bytes inside are no baseline.
    #[error("import baseline: {0}")]
    Content(#[from] DecodeBaselineError),
}

/// The statement about a baseline, as JSON.
///
/// # Errors
/// When the image has no digest.
pub fn export(baseline: &Baseline) -> Result<Value, ExportError> {
    let (algorithm, hex) = digest(baseline).ok_or(ExportError::NoDigest)?;
    let reference = baseline.reference();
    let coverage = baseline.coverage();
    let behaviours: Vec<Value> = baseline.expected().map(|(_, e)| behaviour(e)).collect();
    Ok(json!({
        "_type": STATEMENT_TYPE,
        "subject": [{ "name": baseline.image_name(), "digest": { algorithm: hex } }],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "id": reference.id.as_str(),
            "version": reference.version,
            "role": baseline.key().role,
            "state": baseline.state().as_str(),
            "coverage": {
                "permille": coverage.permille(),
                "units": coverage.units,
                "slot_seconds": baseline.config().slot_seconds,
                "statement": baseline.statement(),
            },
            "starts": baseline.starts(),
            "hours": baseline.hours().words(),
            "predecessor": baseline.lineage().map(|l| l.predecessor.to_string()),
            "behaviours": behaviours,
            "content": base64(&baseline.encode()),
        },
    }))
}

fn digest(baseline: &Baseline) -> Option<(&str, &str)> {
    let (algorithm, hex) = baseline.key().image.split_once(':')?;
    (algorithm != "name").then_some((algorithm, hex))
}

fn behaviour(e: &Expected) -> Value {
    let b = &e.behaviour;
    let examples: Vec<_> = e.examples.iter().map(|x| x.to_str_lossy()).collect();
    json!({
        "id": b.id().to_string(),
        "kind": b.kind.as_str(),
        "program": b.program.to_str_lossy(),
        "script": b.script.to_str_lossy(),
        "entry": b.entry.as_str(),
        "uid": b.uid,
        "operation": b.operation.0,
        "object": b.object.to_str_lossy(),
        "origin": b.origin.as_str(),
        "count": e.count,
        "examples": examples,
    })
}

/// The baseline in a statement. The readable part is not trusted: the bytes count, and they must be
/// about the subject that the statement (and so its signature) names.
///
/// # Errors
/// When it is not such a statement, or its subject is another image.
pub fn import(json: &[u8]) -> Result<Baseline, ExportError> {
    let value: Value = serde_json::from_slice(json)?;
    if value["_type"] != STATEMENT_TYPE || value["predicateType"] != PREDICATE_TYPE {
        return Err(ExportError::Form("is not a statement about a baseline"));
    }
    let content = value["predicate"]["content"].as_str();
    let bytes = content
        .and_then(unbase64)
        .ok_or(ExportError::Form("has no content in base64"))?;
    let baseline = Baseline::decode(&bytes)?;
    let (algorithm, hex) = digest(&baseline).ok_or(ExportError::NoDigest)?;
    if value["subject"][0]["digest"][algorithm] != hex {
        return Err(ExportError::Form(
            "has a subject that is not the image of its content",
        ));
    }
    Ok(baseline)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, &b| n << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let sextet = (n >> (18 - 6 * i) & 63) as usize;
            out.push(if i <= chunk.len() {
                char::from(ALPHABET[sextet])
            } else {
                '='
            });
        }
    }
    out
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.chunks(4) {
        if chunk.len() < 2 {
            return None;
        }
        let mut n = 0u32;
        for &c in chunk {
            n = n << 6 | ALPHABET.iter().position(|&a| a == c)? as u32;
        }
        n <<= 6 * (4 - chunk.len());
        out.extend_from_slice(&n.to_be_bytes()[1..chunk.len()]);
    }
    Some(out)
}
