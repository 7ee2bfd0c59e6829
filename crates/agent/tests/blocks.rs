//! Programs forbidden as an answer to an alert, and processes that went elsewhere, with the kernel side
//! loaded: a cgroup and a mount namespace of this test's own stand for a container. Needs root
//! (`PLIMSOLL_HOST_TESTS=1`, set by `scripts/test`); left out, and said so there, without.

use plimsoll_agent::kernel::Kernel;
use plimsoll_agent::respond::act::{Action, KernelWord, Machine, Target, perform};
use plimsoll_agent::respond::block::{self, Wanted};
use plimsoll_agent::respond::capture::Room;
use plimsoll_model::response::{StepKind, StepOutcome};
use plimsoll_model::*;
use plimsoll_sensor::Sensor;
use plimsoll_sensor::api::{Hierarchy, SensorConfig, Watch};
use plimsoll_workload::{Layout, Version};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn words(outcome: &StepOutcome) -> String {
    format!("{}: {}", outcome.as_str(), outcome.words())
}

/// A cgroup of the hierarchy that identifies containers; removed with the test.
struct Group(PathBuf);
impl Group {
    fn new(layout: &Layout, name: &str) -> Self {
        let root = layout.dir("/").expect("the root of the hierarchy");
        let this = Self(root.join(format!("plimsoll-{name}-{}", std::process::id())));
        fs::create_dir(&this.0).expect("make a cgroup");
        this
    }
    fn path(&self) -> String {
        format!("/{}", self.0.file_name().expect("a name").to_string_lossy())
    }
    fn start(&self, program: &str, argument: &str) -> Child {
        let procs = self.0.join("cgroup.procs");
        let script = format!("echo $$ >{} && exec {program} {argument}", procs.display());
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", &script]);
        unshare.stdin(Stdio::null()).stdout(Stdio::null());
        unshare.stderr(Stdio::null()).spawn().expect("start it")
    }
    /// Whether the program was killed.
    fn is_killed(&self, program: &str) -> bool {
        let status = self.start(program, "0").wait().expect("wait");
        status.signal() == Some(9)
    }
}
impl Drop for Group {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn load(layout: &Layout) -> Sensor {
    let h = &layout.identifying;
    let mount = h.mount.clone();
    let hierarchy = match &h.version {
        Version::V2 => Hierarchy::V2 { mount },
        Version::V1 { controller } => Hierarchy::V1 {
            controller: controller.clone(),
            mount,
        },
    };
    Sensor::load(&SensorConfig::new(hierarchy)).expect("load the sensor")
}

fn target(group: &Group, cgroup_id: u64, program: Option<&str>) -> Target {
    let instance = Instance {
        id: ContainerId::parse(&format!("{:064x}", std::process::id())).expect("an id"),
        start: BootNs(1),
    };
    let container = Container {
        state: ContainerState::Running,
        cgroup_id,
        cgroup_path: Text::new(group.path().as_bytes()),
        ..Container::new(instance, Runtime::Oci, Stamp::default())
    };
    Target {
        container: Arc::new(container),
        process: None,
        program: program.map(Text::from),
        plan: "P-1".to_owned(),
    }
}

#[test]
fn a_forbidden_program_does_not_start_after_a_restart_either_and_who_moved_away_is_captured() {
    if !std::env::var("PLIMSOLL_HOST_TESTS").is_ok_and(|v| v == "1") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let layout = Layout::detect(Path::new("/proc")).expect("cgroups");
    let sensor = load(&layout);
    let kernel: Arc<dyn Kernel> = Arc::new(sensor.control());
    let (group, away) = (Group::new(&layout, "held"), Group::new(&layout, "away"));
    let cgroup_id = fs::metadata(&group.0).expect("it is there").ino();
    let watch = Watch {
        cgroup_id,
        set: 0,
        dense_base: 0,
        dense_len: 0,
    };
    kernel.watch(&watch).expect("watch");
    let machine = Machine {
        blocks_dir: dir.path().join("blocks"),
        captures_dir: dir.path().join("captures"),
        captures_room: Room {
            max_bytes: u64::MAX,
            min_free: 0,
        },
        kernel: KernelWord::of(kernel.clone()),
        ..Machine::default()
    };
    let dropped = dir.path().join("dropped").to_string_lossy().into_owned();
    // not by this process: a child forked meanwhile by another thread would hold it open for writing
    let copied = Command::new("cp").args(["/bin/sleep", &dropped]).status();
    assert!(copied.expect("run cp").success());
    let target = target(&group, cgroup_id, Some(&dropped));
    assert!(!group.is_killed(&dropped));

    let wanted = Wanted {
        path: None,
        node: false,
        lasts: Duration::from_secs(3600),
    };
    let outcome = perform(&machine, &target, &Action::BlockProgram(wanted.clone()));
    assert!(outcome.is_done(), "{}", words(&outcome));
    assert!(group.is_killed(&dropped));
    assert!(!group.is_killed("/bin/sleep"));
    let of = |lasts: &str| vec![("for".to_owned(), lasts.to_owned())];
    let (kind, notes) = (StepKind::BlockProgram, of("1h"));
    let look = Action::Look { kind, notes };
    assert!(perform(&machine, &target, &look).is_done());

    // a kernel side that has begun anew knows nothing; the file does
    let by_path = plimsoll_sensor::api::Block {
        what: plimsoll_sensor::api::Blocked::Path(Text::from(dropped.clone())),
        cgroup_id,
    };
    assert!(kernel.unblock(&by_path).expect("unblock"));
    assert!(!group.is_killed(&dropped));
    assert_eq!(block::restore(&machine.blocks_dir, kernel.as_ref()), 1);
    assert!(group.is_killed(&dropped));

    let notes = of("1h");
    let back = perform(&machine, &target, &Action::Undo { kind, notes });
    assert!(
        back.is_done() && words(&back).contains("may run again"),
        "{}",
        words(&back)
    );
    assert!(!group.is_killed(&dropped));
    assert!(!perform(&machine, &target, &look).is_done());
    assert_eq!(block::restore(&machine.blocks_dir, kernel.as_ref()), 0);

    // in every container only what is named
    let everywhere = Wanted {
        node: true,
        ..wanted
    };
    let refused = perform(&machine, &target, &Action::BlockProgram(everywhere));
    assert_eq!(refused.as_str(), "refused", "{}", words(&refused));

    // a process that moved itself elsewhere is still the container's
    let mut child = group.start(&dropped, "600");
    let pid = child.id();
    let runs = || fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|l| l == Path::new(&dropped));
    let end = Instant::now() + Duration::from_secs(120);
    while !runs() {
        assert!(Instant::now() < end, "it does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::write(away.0.join("cgroup.procs"), pid.to_string()).expect("move it");
    let outcome = perform(&machine, &target, &Action::Snapshot);
    let StepOutcome::Done { sealed, .. } = &outcome else {
        panic!("{}", words(&outcome));
    };
    let name = sealed.as_deref().expect("a bundle");
    let file = fs::File::open(machine.captures_dir.join(name)).expect("open");
    let mut archive = tar::Archive::new(file);
    let wanted = format!("processes/{pid}/cmdline");
    let mut entries = archive.entries().expect("tar");
    let found = entries.any(|e| e.expect("an entry").path().expect("a name") == Path::new(&wanted));
    child.kill().expect("end our own");
    child.wait().expect("it ends");
    assert!(found, "{}", words(&outcome));
}
