//! Containers for acts: a layer with small programs over busybox, run by crun with overlayfs, one
//! container an act.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("scripts/test sets {name}"))
}

pub(crate) fn run(program: &str, args: &[&str]) {
    let out = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {said}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

/// What the containers of this test share: a layer with the programs over busybox, and a configuration.
pub(crate) struct Stage {
    dir: tempfile::TempDir,
    config: Value,
}

/// What an attacker with a careless configuration has; every machine that runs these tests has them.
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
];

impl Stage {
    pub(crate) fn new() -> Self {
        // overlayfs wants a plain file system below it, which /tmp may not be
        let dir = tempfile::tempdir_in(env("PLIMSOLL_TEST_DOCKER_DIR")).expect("a directory");
        let layer = dir.path().join("layer");
        for d in ["bin", "etc", "lib", "lib64", "tmp"] {
            std::fs::create_dir_all(layer.join(d)).expect("make a directory");
        }
        let acts = PathBuf::from(env("PLIMSOLL_TEST_LIB")).join("../acts");
        let build = |to: &str, from: &str, more: &[&str]| {
            let (to, from) = (layer.join(to), acts.join(from));
            let mut args = vec!["-O1", "-pthread", "-o", text(&to), text(&from)];
            args.extend(more);
            run("cc", &args);
        };
        build("bin/acts", "acts.c", &["-static"]);
        build("bin/dynamic", "acts.c", &[]);
        build(
            "bin/bare",
            "bare.c",
            &["-static", "-nostdlib", "-fno-stack-protector"],
        );
        build("lib/preload.so", "preload.c", &["-shared", "-fPIC"]);
        std::fs::copy(layer.join("bin/acts"), layer.join("bin/victim")).expect("copy");
        std::fs::write(layer.join("etc/hostname-of-mine"), "mine\n").expect("write");
        loader_and_library(&layer);
        let bundle = dir.path().join("template");
        run(
            &format!("{}/images", env("PLIMSOLL_TEST_LIB")),
            &["bundle", text(&bundle), "true"],
        );
        let config = std::fs::read(bundle.join("config.json")).expect("a configuration");
        Stage {
            config: serde_json::from_slice(&config).expect("JSON"),
            dir,
        }
    }

    /// The configuration of one container.
    fn config(&self, rootfs: &Path, argv: &[&str]) -> Value {
        let mut config = self.config.clone();
        config["process"]["args"] = json!(argv);
        config["root"]["path"] = json!(rootfs);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(CAPABILITIES);
        }
        // a careless one shows the host's cgroups, and what is read-only elsewhere is not
        let namespaces = config["linux"]["namespaces"]
            .as_array_mut()
            .expect("namespaces");
        namespaces.retain(|n| n["type"] != "cgroup");
        config["mounts"]
            .as_array_mut()
            .expect("mounts")
            .push(json!({
                "destination": "/run/docker.sock", "type": "bind", "options": ["bind", "rw"],
                "source": env("PLIMSOLL_TEST_DOCKER_SOCK"),
            }));
        config
    }

    /// Runs one container to its end: what it wrote, or what it said when it could not do its act.
    pub(crate) fn run(&self, id: &str, argv: &[&str]) -> Result<String, String> {
        let own = self.dir.path().join(id);
        for d in ["upper", "work", "rootfs"] {
            std::fs::create_dir_all(own.join(d)).expect("make a directory");
        }
        let rootfs = own.join("rootfs");
        let layers = format!(
            "lowerdir={}:{},upperdir={},workdir={}",
            text(&self.dir.path().join("layer")),
            env("PLIMSOLL_TEST_ROOTFS"),
            text(&own.join("upper")),
            text(&own.join("work")),
        );
        run(
            "mount",
            &["-t", "overlay", "-o", &layers, "overlay", text(&rootfs)],
        );
        let config = self.config(&rootfs, argv).to_string();
        std::fs::write(own.join("config.json"), config).expect("write the configuration");
        let out = Command::new(env("PLIMSOLL_TEST_CRUN"))
            .arg("--root")
            .arg(self.dir.path().join("crun"))
            .args(["run", "--bundle", text(&own), id])
            .stdin(Stdio::null())
            .output()
            .expect("run crun");
        run("umount", &["-l", text(&rootfs)]);
        let _ = std::fs::remove_dir_all(&own);
        match out.status.success() {
            true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        }
    }
}

/// The loader and the C library of this machine, for the dynamic program.
fn loader_and_library(layer: &Path) {
    let out = Command::new("ldd").arg(layer.join("bin/dynamic")).output();
    let listed = String::from_utf8_lossy(&out.expect("ldd is there").stdout).into_owned();
    let files = listed.split_whitespace().filter(|w| w.starts_with('/'));
    for file in files {
        let at = layer.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(at.parent().expect("a directory")).expect("make a directory");
        std::fs::copy(file, &at).expect("copy a library");
        if file.contains("/ld-") {
            std::fs::copy(file, layer.join("tmp/ld.so")).expect("copy the loader");
        }
    }
}
