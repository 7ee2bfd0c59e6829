//! Compiles `bpf/plimsoll.bpf.c` and `bpf/isolate.bpf.c` with clang and makes their typed skeletons.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let bpf = manifest.join("../../bpf");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    let (define, triple) = match arch.as_str() {
        "x86_64" => ("-D__TARGET_ARCH_x86", "x86_64-linux-gnu"),
        "aarch64" => ("-D__TARGET_ARCH_arm64", "aarch64-linux-gnu"),
        other => panic!("no kernel side for {other}: only x86_64 and aarch64"),
    };
    let mut args = vec![
        define.to_owned(),
        // v2: runs on 5.10, whose verifier does not know the atomics of v3
        "-mcpu=v2".to_owned(),
        "-Wall".to_owned(),
        "-Werror".to_owned(),
        "-Wno-unused-function".to_owned(),
    ];
    let headers = format!("/usr/include/{triple}");
    if Path::new(&headers).exists() {
        args.push(format!("-I{headers}"));
    }
    println!("cargo::rerun-if-changed={}", bpf.display());
    println!("cargo::rerun-if-env-changed=CLANG");
    for name in ["plimsoll", "isolate"] {
        let source = bpf.join(format!("{name}.bpf.c"));
        libbpf_cargo::SkeletonBuilder::new()
            .source(&source)
            .obj(out.join(format!("{name}.bpf.o")))
            .clang(clang())
            .clang_args(args.clone())
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .unwrap_or_else(|e| panic!("compile {}: {e:#}", source.display()));
    }
}

/// `$CLANG`, else the newest versioned clang, else `clang`.
fn clang() -> PathBuf {
    if let Some(given) = std::env::var_os("CLANG") {
        return given.into();
    }
    let versioned = (14..=22).rev().map(|v| format!("clang-{v}"));
    versioned
        .chain(["clang".to_owned()])
        .find(|name| {
            Command::new(name)
                .arg("--version")
                .output()
                .is_ok_and(|o| o.status.success())
        })
        .unwrap_or_else(|| panic!("no clang found: install clang 14 or newer, or set CLANG"))
        .into()
}
