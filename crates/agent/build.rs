//! Embeds the rules that come with Plimsoll (`rules/*.yaml` at the root of the repository), in the
//! order of their names, so that a binary without any file beside it protects.

use std::fmt::Write as _;
use std::path::Path;

fn main() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rules");
    println!("cargo::rerun-if-changed={}", dir.display());
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("an entry of rules/ can be read").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    let mut code = String::from("&[\n");
    for file in files {
        println!("cargo::rerun-if-changed={}", file.display());
        let name = file
            .file_name()
            .expect("a file has a name")
            .to_string_lossy()
            .into_owned();
        let path = file
            .canonicalize()
            .expect("a file that was listed is there");
        writeln!(code, "    ({name:?}, include_str!({path:?})),").expect("writing to memory");
    }
    code.push_str("]\n");
    let out = std::env::var("OUT_DIR").expect("cargo names the output directory");
    std::fs::write(Path::new(&out).join("builtin_rules.rs"), code)
        .expect("write the list of rules");
}
