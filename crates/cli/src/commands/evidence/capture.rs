//! `plimsoll evidence capture`: what a capture holds, with every digest computed again.

use super::args::CaptureArgs;
use crate::Verdict;
use crate::failure::Failure;
use crate::out::Out;
use plimsoll_agent::respond::capture::verify_file;
use plimsoll_api::describe::words;

pub(super) fn capture(args: &CaptureArgs, out: &mut Out) -> Result<Verdict, Failure> {
    let manifest = match verify_file(&args.file, args.identity.as_deref()) {
        Ok(manifest) => manifest,
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            let said = format!("{}: {e}", args.file.display());
            if out.json {
                out.object(&serde_json::json!({ "verified": false, "error": said }))?;
            } else {
                out.line(&words(&format!("NOT what was sealed: {said}")))?;
            }
            return Ok(Verdict::Found);
        }
        Err(e) => {
            let file = args.file.display();
            return Err(Failure::Failed(format!("read capture {file}: {e}")));
        }
    };
    if out.json {
        out.object(&serde_json::json!({ "verified": true, "manifest": manifest }))?;
        return Ok(Verdict::Fine);
    }
    let list = |key: &str| manifest[key].as_array().cloned().unwrap_or_default();
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    let about = &manifest["about"];
    out.line(&words(&format!(
        "{} of container {} ({}), image {}: as it was sealed by {}",
        text(&about["kind"]),
        text(&about["name"]),
        text(&about["container_id"]),
        text(&about["image"]),
        text(&manifest["collector"])
    )))?;
    for item in list("artefacts") {
        let short = text(&item["error"]);
        out.line(&words(&format!(
            "  {:>12}  {}  {}{}",
            item["size"].as_u64().unwrap_or(0),
            text(&item["name"]),
            text(&item["sha256"]),
            if short.is_empty() {
                String::new()
            } else {
                format!("  ! {short}")
            }
        )))?;
    }
    for gap in list("gaps") {
        out.line(&words(&format!("  not had: {}", text(&gap))))?;
    }
    Ok(Verdict::Fine)
}
