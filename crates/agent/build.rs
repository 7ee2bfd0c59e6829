//! Embeds the rules that come with Plimsoll (`rules/*.yaml` at the root of the repository), in the
//! order of their names, so that a binary without any file beside it protects.

use std::fmt::Write as _;
use std::path::Path;

fn main() {
    // not `env!`, and relative below: a target directory may be shared by checkouts, and this program
    // is then not compiled again for each
    let root = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the package's directory");
    let dir = Path::new(&root).join("../../rules");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../rules");
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("an entry of rules/ can be read").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    let mut code = String::from("&[\n");
    for file in files {
        let name = file
            .file_name()
            .expect("a file has a name")
            .to_string_lossy()
            .into_owned();
        println!("cargo::rerun-if-changed=../../rules/{name}");
        let text = std::fs::read_to_string(&file).expect("a file that was listed can be read");
        writeln!(code, "    ({name:?}, {text:?}),").expect("writing to memory");
    }
    code.push_str("]\n");
    let out = std::env::var("OUT_DIR").expect("cargo names the output directory");
    std::fs::write(Path::new(&out).join("builtin_rules.rs"), code)
        .expect("write the list of rules");
}
