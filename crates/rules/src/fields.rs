//! The fields a condition or an output can name, and what each needs.
//!
//! Promises: the name, type and argument of a field are Falco's, so a rule that Falco accepts finds
//! its fields here. What a node cannot observe is said from outside ([`NodeCapabilities`]) and makes
//! the rules that need it visibly inactive; it never makes them silently false.
//!
//! Leaves out: how a field is obtained. An event answers through [`crate::EventView`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::events::{EventKind, KindSet};

/// What a field's values are, and so which operators it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// Bytes that are meant to be read; not assumed to be UTF-8.
    Text,
    /// Bytes that are data.
    Bytes,
    /// True or false.
    Bool,
    /// A signed whole number.
    Int,
    /// An unsigned whole number.
    UInt,
    /// A number with a fraction.
    Double,
    /// A port, by number or by the name of a well-known service.
    Port,
    /// An IPv4 or IPv6 address.
    Ip,
    /// An address that is compared with networks.
    Net,
    /// Nanoseconds.
    Duration,
    /// Nanoseconds since 1970.
    Time,
    /// Known only when the event is seen (`evt.rawarg`).
    Dyn,
}

impl FieldType {
    /// The name that Falco prints for this type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "CHARBUF",
            Self::Bytes => "BYTEBUF",
            Self::Bool => "BOOL",
            Self::Int => "INT64",
            Self::UInt => "UINT64",
            Self::Double => "DOUBLE",
            Self::Port => "PORT",
            Self::Ip => "IPADDR",
            Self::Net => "IPNET",
            Self::Duration => "RELTIME",
            Self::Time => "ABSTIME",
            Self::Dyn => "DYNAMIC",
        }
    }

    /// Whether values are compared as numbers.
    pub fn is_number(self) -> bool {
        matches!(
            self,
            Self::Int | Self::UInt | Self::Double | Self::Port | Self::Duration | Self::Time
        )
    }
}

/// How many values a field has, and what a comparison with them means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// One value.
    One,
    /// A list: `in` asks whether all are in, `intersects` whether any is.
    List,
    /// The ancestors of a process: true when it is true of any of them. With an index it is one.
    Lineage,
    /// The two ends of a connection, or the names of an address: true when it is true of either;
    /// `!=` when it is true of both.
    Ends,
}

/// Whether a field takes an argument, and of which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArgRule {
    /// `proc.name`
    None,
    /// `proc.aname` or `proc.aname[2]`
    OptIndex,
    /// `proc.env` or `proc.env[PATH]`
    OptKey,
    /// `proc.aenv`, `proc.aenv[2]` or `proc.aenv[PATH]`
    OptAny,
    /// `ka.uri.param[command]`
    ReqKey,
    /// `evt.arg[1]` or `evt.arg.flags`
    ReqAny,
}

/// What the catalogue knows of one field.
#[derive(Clone, Copy, Debug)]
pub struct FieldInfo {
    /// `proc.name`
    pub name: &'static str,
    /// What its values are.
    pub ty: FieldType,
    /// How many values it has.
    pub shape: Shape,
    /// What may stand in brackets behind it.
    pub arg: ArgRule,
}

macro_rules! catalogue {
    ($($variant:ident $name:literal $ty:ident $shape:ident $arg:ident;)*) => {
        /// A field, by a number that indexes tables. Its name is the one that Falco uses.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Field {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        const INFOS: &[FieldInfo] = &[
            $(FieldInfo { name: $name, ty: FieldType::$ty, shape: Shape::$shape, arg: ArgRule::$arg },)*
        ];

        const FIELDS: &[Field] = &[$(Field::$variant,)*];
    };
}

catalogue! {
    EvtNum "evt.num" UInt One None;
    EvtTime "evt.time" Text One None;
    EvtTimeS "evt.time.s" Text One None;
    EvtTimeIso8601 "evt.time.iso8601" Text One None;
    EvtDatetime "evt.datetime" Text One None;
    EvtDatetimeS "evt.datetime.s" Text One None;
    EvtRawtime "evt.rawtime" Time One None;
    EvtRawtimeS "evt.rawtime.s" Time One None;
    EvtRawtimeNs "evt.rawtime.ns" Time One None;
    EvtReltime "evt.reltime" Duration One None;
    EvtReltimeS "evt.reltime.s" Duration One None;
    EvtReltimeNs "evt.reltime.ns" Duration One None;
    EvtPluginname "evt.pluginname" Text One None;
    EvtPlugininfo "evt.plugininfo" Text One None;
    EvtSource "evt.source" Text One None;
    EvtIsAsync "evt.is_async" Bool One None;
    EvtAsynctype "evt.asynctype" Text One None;
    EvtHostname "evt.hostname" Text One None;
    EvtLatency "evt.latency" Duration One None;
    EvtLatencyS "evt.latency.s" Duration One None;
    EvtLatencyNs "evt.latency.ns" Duration One None;
    EvtLatencyHuman "evt.latency.human" Text One None;
    EvtDeltatime "evt.deltatime" Duration One None;
    EvtDeltatimeS "evt.deltatime.s" Duration One None;
    EvtDeltatimeNs "evt.deltatime.ns" Duration One None;
    EvtOutputtime "evt.outputtime" Text One None;
    EvtDir "evt.dir" Text One None;
    EvtType "evt.type" Text One None;
    EvtTypeIs "evt.type.is" UInt One ReqKey;
    SyscallType "syscall.type" Text One None;
    EvtCategory "evt.category" Text One None;
    EvtCpu "evt.cpu" Int One None;
    EvtArgs "evt.args" Text One None;
    EvtArg "evt.arg" Text One ReqAny;
    EvtRawarg "evt.rawarg" Dyn One ReqKey;
    EvtInfo "evt.info" Text One None;
    EvtBuffer "evt.buffer" Bytes One None;
    EvtBuflen "evt.buflen" UInt One None;
    EvtRes "evt.res" Text One None;
    EvtRawres "evt.rawres" Int One None;
    EvtFailed "evt.failed" Bool One None;
    EvtIsIo "evt.is_io" Bool One None;
    EvtIsIoRead "evt.is_io_read" Bool One None;
    EvtIsIoWrite "evt.is_io_write" Bool One None;
    EvtIoDir "evt.io_dir" Text One None;
    EvtIsWait "evt.is_wait" Bool One None;
    EvtWaitLatency "evt.wait_latency" Duration One None;
    EvtIsSyslog "evt.is_syslog" Bool One None;
    EvtCount "evt.count" UInt One None;
    EvtCountError "evt.count.error" UInt One None;
    EvtCountErrorFile "evt.count.error.file" UInt One None;
    EvtCountErrorNet "evt.count.error.net" UInt One None;
    EvtCountErrorMemory "evt.count.error.memory" UInt One None;
    EvtCountErrorOther "evt.count.error.other" UInt One None;
    EvtCountExit "evt.count.exit" UInt One None;
    EvtAbspath "evt.abspath" Text One OptKey;
    EvtIsOpenRead "evt.is_open_read" Bool One None;
    EvtIsOpenWrite "evt.is_open_write" Bool One None;
    EvtIsOpenExec "evt.is_open_exec" Bool One None;
    EvtIsOpenCreate "evt.is_open_create" Bool One None;
    ProcExe "proc.exe" Text One None;
    ProcPexe "proc.pexe" Text One None;
    ProcAexe "proc.aexe" Text Lineage OptIndex;
    ProcExepath "proc.exepath" Text One None;
    ProcPexepath "proc.pexepath" Text One None;
    ProcAexepath "proc.aexepath" Text Lineage OptIndex;
    ProcName "proc.name" Text One None;
    ProcPname "proc.pname" Text One None;
    ProcAname "proc.aname" Text Lineage OptIndex;
    ProcArgs "proc.args" Text One OptIndex;
    ProcAargs "proc.aargs" Text One OptIndex;
    ProcCmdline "proc.cmdline" Text One None;
    ProcPcmdline "proc.pcmdline" Text One None;
    ProcAcmdline "proc.acmdline" Text Lineage OptIndex;
    ProcCmdnargs "proc.cmdnargs" UInt One None;
    ProcCmdlenargs "proc.cmdlenargs" UInt One None;
    ProcExeline "proc.exeline" Text One None;
    ProcEnv "proc.env" Text One OptKey;
    ProcAenv "proc.aenv" Text Lineage OptAny;
    ProcCwd "proc.cwd" Text One None;
    ProcLoginshellid "proc.loginshellid" Int One None;
    ProcTty "proc.tty" UInt One None;
    ProcPid "proc.pid" Int One None;
    ProcPpid "proc.ppid" Int One None;
    ProcApid "proc.apid" Int Lineage OptIndex;
    ProcVpid "proc.vpid" Int One None;
    ProcPvpid "proc.pvpid" Int One None;
    ProcSid "proc.sid" Int One None;
    ProcSname "proc.sname" Text One None;
    ProcSidExe "proc.sid.exe" Text One None;
    ProcSidExepath "proc.sid.exepath" Text One None;
    ProcVpgid "proc.vpgid" Int One None;
    ProcVpgidName "proc.vpgid.name" Text One None;
    ProcVpgidExe "proc.vpgid.exe" Text One None;
    ProcVpgidExepath "proc.vpgid.exepath" Text One None;
    ProcPgid "proc.pgid" Int One None;
    ProcPgidName "proc.pgid.name" Text One None;
    ProcPgidExe "proc.pgid.exe" Text One None;
    ProcPgidExepath "proc.pgid.exepath" Text One None;
    ProcDuration "proc.duration" Duration One None;
    ProcPpidDuration "proc.ppid.duration" Duration One None;
    ProcPidTs "proc.pid.ts" Duration One None;
    ProcPpidTs "proc.ppid.ts" Duration One None;
    ProcIsExeWritable "proc.is_exe_writable" Bool One None;
    ProcIsExeUpperLayer "proc.is_exe_upper_layer" Bool One None;
    ProcIsExeLowerLayer "proc.is_exe_lower_layer" Bool One None;
    ProcIsExeFromMemfd "proc.is_exe_from_memfd" Bool One None;
    ProcIsSidLeader "proc.is_sid_leader" Bool One None;
    ProcIsVpgidLeader "proc.is_vpgid_leader" Bool One None;
    ProcIsPgidLeader "proc.is_pgid_leader" Bool One None;
    ProcExeIno "proc.exe_ino" Int One None;
    ProcExeInoCtime "proc.exe_ino.ctime" Time One None;
    ProcExeInoMtime "proc.exe_ino.mtime" Time One None;
    ProcExeInoCtimeDurationProcStart "proc.exe_ino.ctime_duration_proc_start" Time One None;
    ProcExeInoCtimeDurationPidnsStart "proc.exe_ino.ctime_duration_pidns_start" Time One None;
    ProcPidnsInitStartTs "proc.pidns_init_start_ts" UInt One None;
    ThreadCapPermitted "thread.cap_permitted" Text One None;
    ThreadCapInheritable "thread.cap_inheritable" Text One None;
    ThreadCapEffective "thread.cap_effective" Text One None;
    ProcFdopencount "proc.fdopencount" UInt One None;
    ProcFdlimit "proc.fdlimit" Int One None;
    ProcFdusage "proc.fdusage" Double One None;
    ProcVmsize "proc.vmsize" UInt One None;
    ProcVmrss "proc.vmrss" UInt One None;
    ProcVmswap "proc.vmswap" UInt One None;
    ThreadPfmajor "thread.pfmajor" UInt One None;
    ThreadPfminor "thread.pfminor" UInt One None;
    ThreadTid "thread.tid" Int One None;
    ThreadIsmain "thread.ismain" Bool One None;
    ThreadVtid "thread.vtid" Int One None;
    ThreadNametid "thread.nametid" Text One None;
    ThreadExectime "thread.exectime" Duration One None;
    ThreadTotexectime "thread.totexectime" Duration One None;
    ThreadCgroups "thread.cgroups" Text One None;
    ThreadCgroup "thread.cgroup" Text One ReqKey;
    ProcNthreads "proc.nthreads" UInt One None;
    ProcNchilds "proc.nchilds" UInt One None;
    ThreadCpu "thread.cpu" Double One None;
    ThreadCpuUser "thread.cpu.user" Double One None;
    ThreadCpuSystem "thread.cpu.system" Double One None;
    ThreadVmsize "thread.vmsize" UInt One None;
    ThreadVmrss "thread.vmrss" UInt One None;
    ProcStdinType "proc.stdin.type" Text One None;
    ProcStdoutType "proc.stdout.type" Text One None;
    ProcStderrType "proc.stderr.type" Text One None;
    ProcStdinName "proc.stdin.name" Text One None;
    ProcStdoutName "proc.stdout.name" Text One None;
    ProcStderrName "proc.stderr.name" Text One None;
    FdNum "fd.num" Int One None;
    FdType "fd.type" Text One None;
    FdTypechar "fd.typechar" Text One None;
    FdName "fd.name" Text One None;
    FdDirectory "fd.directory" Text One None;
    FdFilename "fd.filename" Text One None;
    FdIp "fd.ip" Ip Ends None;
    FdCip "fd.cip" Ip One None;
    FdSip "fd.sip" Ip One None;
    FdLip "fd.lip" Ip One None;
    FdRip "fd.rip" Ip One None;
    FdPort "fd.port" Port Ends None;
    FdCport "fd.cport" Port One None;
    FdSport "fd.sport" Port One None;
    FdLport "fd.lport" Port One None;
    FdRport "fd.rport" Port One None;
    FdL4proto "fd.l4proto" Text One None;
    FdSockfamily "fd.sockfamily" Text One None;
    FdIsServer "fd.is_server" Bool One None;
    FdUid "fd.uid" Text One None;
    FdContainername "fd.containername" Text One None;
    FdContainerdirectory "fd.containerdirectory" Text One None;
    FdProto "fd.proto" Port Ends None;
    FdCproto "fd.cproto" Text One None;
    FdSproto "fd.sproto" Text One None;
    FdLproto "fd.lproto" Text One None;
    FdRproto "fd.rproto" Text One None;
    FdNet "fd.net" Net Ends None;
    FdCnet "fd.cnet" Net One None;
    FdSnet "fd.snet" Net One None;
    FdLnet "fd.lnet" Net One None;
    FdRnet "fd.rnet" Net One None;
    FdConnected "fd.connected" Bool One None;
    FdNameChanged "fd.name_changed" Bool One None;
    FdCipName "fd.cip.name" Text Ends None;
    FdSipName "fd.sip.name" Text Ends None;
    FdLipName "fd.lip.name" Text Ends None;
    FdRipName "fd.rip.name" Text Ends None;
    FdDev "fd.dev" Int One None;
    FdDevMajor "fd.dev.major" Int One None;
    FdDevMinor "fd.dev.minor" Int One None;
    FdIno "fd.ino" Int One None;
    FdNameraw "fd.nameraw" Text One None;
    FdTypes "fd.types" Text List OptIndex;
    FdIsUpperLayer "fd.is_upper_layer" Bool One None;
    FdIsLowerLayer "fd.is_lower_layer" Bool One None;
    UserUid "user.uid" UInt One None;
    UserName "user.name" Text One None;
    UserHomedir "user.homedir" Text One None;
    UserShell "user.shell" Text One None;
    UserLoginuid "user.loginuid" Int One None;
    UserLoginname "user.loginname" Text One None;
    GroupGid "group.gid" UInt One None;
    GroupName "group.name" Text One None;
    FsPathName "fs.path.name" Text One None;
    FsPathNameraw "fs.path.nameraw" Text One None;
    FsPathSource "fs.path.source" Text One None;
    FsPathSourceraw "fs.path.sourceraw" Text One None;
    FsPathTarget "fs.path.target" Text One None;
    FsPathTargetraw "fs.path.targetraw" Text One None;
    FdlistNums "fdlist.nums" Text One None;
    FdlistNames "fdlist.names" Text One None;
    FdlistCips "fdlist.cips" Text One None;
    FdlistSips "fdlist.sips" Text One None;
    FdlistCports "fdlist.cports" Text One None;
    FdlistSports "fdlist.sports" Text One None;
    DnsQuestion "dns.question" Text One None;
    DnsQtype "dns.qtype" UInt One None;
    DnsRcode "dns.rcode" UInt One None;
    DnsIsAnswer "dns.is_answer" Bool One None;
    ContainerId "container.id" Text One None;
    ContainerFullId "container.full_id" Text One None;
    ContainerName "container.name" Text One None;
    ContainerImage "container.image" Text One None;
    ContainerImageId "container.image.id" Text One None;
    ContainerType "container.type" Text One None;
    ContainerPrivileged "container.privileged" Bool One None;
    ContainerMounts "container.mounts" Text One None;
    ContainerMount "container.mount" Text One ReqAny;
    ContainerMountSource "container.mount.source" Text One ReqAny;
    ContainerMountDest "container.mount.dest" Text One ReqAny;
    ContainerMountMode "container.mount.mode" Text One ReqAny;
    ContainerMountRdwr "container.mount.rdwr" Text One ReqAny;
    ContainerMountPropagation "container.mount.propagation" Text One ReqAny;
    ContainerImageRepository "container.image.repository" Text One None;
    ContainerImageTag "container.image.tag" Text One None;
    ContainerImageDigest "container.image.digest" Text One None;
    ContainerHealthcheck "container.healthcheck" Text One None;
    ContainerLivenessProbe "container.liveness_probe" Text One None;
    ContainerReadinessProbe "container.readiness_probe" Text One None;
    ContainerStartTs "container.start_ts" Time One None;
    ContainerDuration "container.duration" Duration One None;
    ContainerIp "container.ip" Text One None;
    ContainerCniJson "container.cni.json" Text One None;
    ContainerHostPid "container.host_pid" Bool One None;
    ContainerHostNetwork "container.host_network" Bool One None;
    ContainerHostIpc "container.host_ipc" Bool One None;
    ContainerLabel "container.label" Text One ReqKey;
    ContainerLabels "container.labels" Text One None;
    ProcIsContainerHealthcheck "proc.is_container_healthcheck" Bool One None;
    ProcIsContainerLivenessProbe "proc.is_container_liveness_probe" Bool One None;
    ProcIsContainerReadinessProbe "proc.is_container_readiness_probe" Bool One None;
    K8sPodName "k8s.pod.name" Text One None;
    K8sNsName "k8s.ns.name" Text One None;
    K8sPodId "k8s.pod.id" Text One None;
    K8sPodUid "k8s.pod.uid" Text One None;
    K8sPodSandboxId "k8s.pod.sandbox_id" Text One None;
    K8sPodFullSandboxId "k8s.pod.full_sandbox_id" Text One None;
    K8sPodLabel "k8s.pod.label" Text One ReqKey;
    K8sPodLabels "k8s.pod.labels" Text One None;
    K8sPodIp "k8s.pod.ip" Text One None;
    K8sPodCniJson "k8s.pod.cni.json" Text One None;
    K8sRcName "k8s.rc.name" Text One None;
    K8sRcId "k8s.rc.id" Text One None;
    K8sRcLabel "k8s.rc.label" Text One ReqKey;
    K8sRcLabels "k8s.rc.labels" Text One None;
    K8sSvcName "k8s.svc.name" Text One None;
    K8sSvcId "k8s.svc.id" Text One None;
    K8sSvcLabel "k8s.svc.label" Text One ReqKey;
    K8sSvcLabels "k8s.svc.labels" Text One None;
    K8sNsId "k8s.ns.id" Text One None;
    K8sNsLabel "k8s.ns.label" Text One ReqKey;
    K8sNsLabels "k8s.ns.labels" Text One None;
    K8sRsName "k8s.rs.name" Text One None;
    K8sRsId "k8s.rs.id" Text One None;
    K8sRsLabel "k8s.rs.label" Text One ReqKey;
    K8sRsLabels "k8s.rs.labels" Text One None;
    K8sDeploymentName "k8s.deployment.name" Text One None;
    K8sDeploymentId "k8s.deployment.id" Text One None;
    K8sDeploymentLabel "k8s.deployment.label" Text One ReqKey;
    K8sDeploymentLabels "k8s.deployment.labels" Text One None;
    KaAuditid "ka.auditid" Text One None;
    KaStage "ka.stage" Text One None;
    KaAuthDecision "ka.auth.decision" Text One None;
    KaAuthReason "ka.auth.reason" Text One None;
    KaAuthOpenshiftDecision "ka.auth.openshift.decision" Text One None;
    KaValidationsAdmissionPolicyFailure "ka.validations.admission.policy.failure" Text One None;
    KaSecurityPodViolations "ka.security.pod.violations" Text One None;
    KaAuthOpenshiftUsername "ka.auth.openshift.username" Text One None;
    KaUserName "ka.user.name" Text One None;
    KaUserGroups "ka.user.groups" Text List None;
    KaImpuserName "ka.impuser.name" Text One None;
    KaVerb "ka.verb" Text One None;
    KaUri "ka.uri" Text One None;
    KaUriParam "ka.uri.param" Text One ReqKey;
    KaTargetName "ka.target.name" Text One None;
    KaTargetNamespace "ka.target.namespace" Text One None;
    KaTargetResource "ka.target.resource" Text One None;
    KaTargetSubresource "ka.target.subresource" Text One None;
    KaTargetPodName "ka.target.pod.name" Text One None;
    KaReqBindingSubjects "ka.req.binding.subjects" Text List None;
    KaReqBindingSubjectsUserNames "ka.req.binding.subjects.user_names" Text List None;
    KaReqBindingSubjectsServiceaccountNames "ka.req.binding.subjects.serviceaccount_names" Text List None;
    KaReqBindingSubjectsServiceaccountNsNames "ka.req.binding.subjects.serviceaccount_ns_names" Text List None;
    KaReqBindingSubjectsGroupNames "ka.req.binding.subjects.group_names" Text List None;
    KaReqBindingRole "ka.req.binding.role" Text One None;
    KaReqBindingSubjectHasName "ka.req.binding.subject.has_name" Text One ReqKey;
    KaReqConfigmapName "ka.req.configmap.name" Text One None;
    KaReqConfigmapObj "ka.req.configmap.obj" Text One None;
    KaReqPodContainersArgs "ka.req.pod.containers.args" Text List OptIndex;
    KaReqPodContainersCommand "ka.req.pod.containers.command" Text List OptIndex;
    KaReqPodContainersName "ka.req.pod.containers.name" Text List OptIndex;
    KaReqPodContainersImage "ka.req.pod.containers.image" Text List OptIndex;
    KaReqContainerImage "ka.req.container.image" Text One None;
    KaReqPodContainersImageRepository "ka.req.pod.containers.image.repository" Text List OptIndex;
    KaReqContainerImageRepository "ka.req.container.image.repository" Text One None;
    KaReqPodHostIpc "ka.req.pod.host_ipc" Text One None;
    KaReqPodHostNetwork "ka.req.pod.host_network" Text One None;
    KaReqContainerHostNetwork "ka.req.container.host_network" Text One None;
    KaReqPodHostPid "ka.req.pod.host_pid" Text One None;
    KaReqPodContainersHostPort "ka.req.pod.containers.host_port" Text List OptIndex;
    KaReqPodContainersPrivileged "ka.req.pod.containers.privileged" Text List OptIndex;
    KaReqContainerPrivileged "ka.req.container.privileged" Text One None;
    KaReqPodContainersAllowPrivilegeEscalation "ka.req.pod.containers.allow_privilege_escalation" Text List OptIndex;
    KaReqPodContainersReadOnlyFs "ka.req.pod.containers.read_only_fs" Text List OptIndex;
    KaReqPodRunAsUser "ka.req.pod.run_as_user" Text One None;
    KaReqPodContainersRunAsUser "ka.req.pod.containers.run_as_user" Text List OptIndex;
    KaReqPodContainersEffRunAsUser "ka.req.pod.containers.eff_run_as_user" Text List OptIndex;
    KaReqPodRunAsGroup "ka.req.pod.run_as_group" Text One None;
    KaReqPodContainersRunAsGroup "ka.req.pod.containers.run_as_group" Text List OptIndex;
    KaReqPodContainersEffRunAsGroup "ka.req.pod.containers.eff_run_as_group" Text List OptIndex;
    KaReqPodContainersProcMount "ka.req.pod.containers.proc_mount" Text List OptIndex;
    KaReqRoleRules "ka.req.role.rules" Text List None;
    KaReqRoleRulesApiGroups "ka.req.role.rules.apiGroups" Text List OptIndex;
    KaReqRoleRulesNonResourceURLs "ka.req.role.rules.nonResourceURLs" Text List OptIndex;
    KaReqRoleRulesVerbs "ka.req.role.rules.verbs" Text List OptIndex;
    KaReqRoleRulesResources "ka.req.role.rules.resources" Text List OptIndex;
    KaReqPodFsGroup "ka.req.pod.fs_group" Text One None;
    KaReqPodSupplementalGroups "ka.req.pod.supplemental_groups" Text List None;
    KaReqPodContainersAddCapabilities "ka.req.pod.containers.add_capabilities" Text List OptIndex;
    KaReqServiceType "ka.req.service.type" Text One None;
    KaReqServicePorts "ka.req.service.ports" Text List OptIndex;
    KaReqPodVolumesHostpath "ka.req.pod.volumes.hostpath" Text List OptIndex;
    KaReqVolumeHostpath "ka.req.volume.hostpath" Text One ReqKey;
    KaReqPodVolumesFlexvolumeDriver "ka.req.pod.volumes.flexvolume_driver" Text List OptIndex;
    KaReqPodVolumesVolumeType "ka.req.pod.volumes.volume_type" Text List OptIndex;
    KaRespName "ka.resp.name" Text One None;
    KaResponseCode "ka.response.code" Text One None;
    KaResponseReason "ka.response.reason" Text One None;
    KaUseragent "ka.useragent" Text One None;
    KaSourceips "ka.sourceips" Text List OptIndex;
    KaClusterName "ka.cluster.name" Text One None;
    KaReqPodInitContainersName "ka.req.pod.initContainers.name" Text List OptIndex;
    KaReqPodInitContainersImage "ka.req.pod.initContainers.image" Text List OptIndex;
    KaReqPodInitContainersImageRepository "ka.req.pod.initContainers.image.repository" Text List OptIndex;
    KaReqPodInitContainersCommand "ka.req.pod.initContainers.command" Text List OptIndex;
    KaReqPodInitContainersArgs "ka.req.pod.initContainers.args" Text List OptIndex;
    KaReqPodInitContainersPrivileged "ka.req.pod.initContainers.privileged" Text List OptIndex;
    KaReqPodInitContainersAllowPrivilegeEscalation "ka.req.pod.initContainers.allow_privilege_escalation" Text List OptIndex;
    KaReqPodInitContainersReadOnlyFs "ka.req.pod.initContainers.read_only_fs" Text List OptIndex;
    KaReqPodInitContainersRunAsUser "ka.req.pod.initContainers.run_as_user" Text List OptIndex;
    KaReqPodInitContainersEffRunAsUser "ka.req.pod.initContainers.eff_run_as_user" Text List OptIndex;
    KaReqPodInitContainersRunAsGroup "ka.req.pod.initContainers.run_as_group" Text List OptIndex;
    KaReqPodInitContainersEffRunAsGroup "ka.req.pod.initContainers.eff_run_as_group" Text List OptIndex;
    KaReqPodInitContainersProcMount "ka.req.pod.initContainers.proc_mount" Text List OptIndex;
    KaReqPodInitContainersAddCapabilities "ka.req.pod.initContainers.add_capabilities" Text List OptIndex;
    KaReqPodInitContainersHostPort "ka.req.pod.initContainers.host_port" Text List OptIndex;
    KaReqPodEphemeralContainersName "ka.req.pod.ephemeralContainers.name" Text List OptIndex;
    KaReqPodEphemeralContainersImage "ka.req.pod.ephemeralContainers.image" Text List OptIndex;
    KaReqPodEphemeralContainersImageRepository "ka.req.pod.ephemeralContainers.image.repository" Text List OptIndex;
    KaReqPodEphemeralContainersCommand "ka.req.pod.ephemeralContainers.command" Text List OptIndex;
    KaReqPodEphemeralContainersArgs "ka.req.pod.ephemeralContainers.args" Text List OptIndex;
    KaReqPodEphemeralContainersPrivileged "ka.req.pod.ephemeralContainers.privileged" Text List OptIndex;
    KaReqPodEphemeralContainersAllowPrivilegeEscalation "ka.req.pod.ephemeralContainers.allow_privilege_escalation" Text List OptIndex;
    KaReqPodEphemeralContainersReadOnlyFs "ka.req.pod.ephemeralContainers.read_only_fs" Text List OptIndex;
    KaReqPodEphemeralContainersRunAsUser "ka.req.pod.ephemeralContainers.run_as_user" Text List OptIndex;
    KaReqPodEphemeralContainersEffRunAsUser "ka.req.pod.ephemeralContainers.eff_run_as_user" Text List OptIndex;
    KaReqPodEphemeralContainersRunAsGroup "ka.req.pod.ephemeralContainers.run_as_group" Text List OptIndex;
    KaReqPodEphemeralContainersEffRunAsGroup "ka.req.pod.ephemeralContainers.eff_run_as_group" Text List OptIndex;
    KaReqPodEphemeralContainersProcMount "ka.req.pod.ephemeralContainers.proc_mount" Text List OptIndex;
    KaReqPodEphemeralContainersAddCapabilities "ka.req.pod.ephemeralContainers.add_capabilities" Text List OptIndex;
    JsonValue "json.value" Text One ReqKey;
    JsonObj "json.obj" Text One None;
    JsonRawtime "json.rawtime" Text One None;
    JevtValue "jevt.value" Text One ReqKey;
    JevtObj "jevt.obj" Text One None;
    JevtRawtime "jevt.rawtime" Text One None;
    K8smetaPodName "k8smeta.pod.name" Text One None;
    K8smetaPodUid "k8smeta.pod.uid" Text One None;
    K8smetaPodLabel "k8smeta.pod.label" Text One ReqKey;
    K8smetaPodLabels "k8smeta.pod.labels" Text List None;
    K8smetaPodIp "k8smeta.pod.ip" Text One None;
    K8smetaNsName "k8smeta.ns.name" Text One None;
    K8smetaNsUid "k8smeta.ns.uid" Text One None;
    K8smetaNsLabel "k8smeta.ns.label" Text One ReqKey;
    K8smetaNsLabels "k8smeta.ns.labels" Text List None;
    K8smetaDeploymentName "k8smeta.deployment.name" Text One None;
    K8smetaDeploymentUid "k8smeta.deployment.uid" Text One None;
    K8smetaDeploymentLabel "k8smeta.deployment.label" Text One ReqKey;
    K8smetaDeploymentLabels "k8smeta.deployment.labels" Text List None;
    K8smetaSvcName "k8smeta.svc.name" Text List None;
    K8smetaSvcUid "k8smeta.svc.uid" Text List None;
    K8smetaSvcLabel "k8smeta.svc.label" Text List ReqKey;
    K8smetaSvcLabels "k8smeta.svc.labels" Text List None;
    K8smetaRsName "k8smeta.rs.name" Text One None;
    K8smetaRsUid "k8smeta.rs.uid" Text One None;
    K8smetaRsLabel "k8smeta.rs.label" Text One ReqKey;
    K8smetaRsLabels "k8smeta.rs.labels" Text List None;
    K8smetaRcName "k8smeta.rc.name" Text One None;
    K8smetaRcUid "k8smeta.rc.uid" Text One None;
    K8smetaRcLabel "k8smeta.rc.label" Text One ReqKey;
    K8smetaRcLabels "k8smeta.rc.labels" Text List None;
}

impl Field {
    /// What the catalogue knows of it.
    pub fn info(self) -> &'static FieldInfo {
        &INFOS[self as usize]
    }

    /// The name, as in a condition.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// A dense number below [`Field::count`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// How many fields there are.
    pub fn count() -> usize {
        FIELDS.len()
    }

    /// All fields.
    pub fn all() -> impl Iterator<Item = Field> {
        FIELDS.iter().copied()
    }

    /// The field of exactly that name.
    pub fn from_name(name: &str) -> Option<Self> {
        static BY_NAME: std::sync::OnceLock<Vec<Field>> = std::sync::OnceLock::new();
        let table = BY_NAME.get_or_init(|| {
            let mut fields = FIELDS.to_vec();
            fields.sort_unstable_by_key(|f| f.name());
            fields
        });
        table
            .binary_search_by_key(&name, |f| f.name())
            .ok()
            .map(|i| table[i])
    }

    /// Whether an argument may also follow a dot, as in `evt.arg.flags`.
    fn takes_dotted_argument(self) -> bool {
        matches!(
            self,
            Self::EvtArg
                | Self::EvtRawarg
                | Self::EvtTypeIs
                | Self::EvtAbspath
                | Self::ThreadCgroup
                | Self::ContainerLabel
                | Self::K8sPodLabel
                | Self::K8sNsLabel
                | Self::K8sRcLabel
                | Self::K8sRsLabel
                | Self::K8sSvcLabel
                | Self::K8sDeploymentLabel
        )
    }

    /// Falco no longer fills these.
    pub fn is_deprecated(self) -> bool {
        matches!(
            self,
            Self::EvtDir
                | Self::EvtLatency
                | Self::EvtLatencyS
                | Self::EvtLatencyNs
                | Self::EvtLatencyHuman
                | Self::EvtWaitLatency
        )
    }

    /// Falco does not let these be transformed, compared with another field, or printed.
    pub(crate) fn is_comparison_only(self) -> bool {
        self.info().shape == Shape::Ends && !self.name().ends_with(".name")
            || self.info().ty == FieldType::Net
    }

    /// Which event sources have this field.
    pub(crate) fn belongs_to(self, source: crate::Source) -> bool {
        let name = self.name();
        match source {
            crate::Source::Syscall => !name.starts_with("ka."),
            crate::Source::K8sAudit => {
                ["ka.", "jevt.", "json."]
                    .iter()
                    .any(|p| name.starts_with(p))
                    || matches!(
                        self,
                        Self::EvtNum
                            | Self::EvtTime
                            | Self::EvtTimeS
                            | Self::EvtTimeIso8601
                            | Self::EvtDatetime
                            | Self::EvtDatetimeS
                            | Self::EvtRawtime
                            | Self::EvtRawtimeS
                            | Self::EvtRawtimeNs
                            | Self::EvtReltime
                            | Self::EvtReltimeS
                            | Self::EvtReltimeNs
                            | Self::EvtPluginname
                            | Self::EvtPlugininfo
                            | Self::EvtSource
                            | Self::EvtIsAsync
                            | Self::EvtAsynctype
                            | Self::EvtHostname
                            | Self::EvtType
                            | Self::EvtDir
                    )
            }
        }
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The argument of a field: what stands in brackets, or behind the last dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FieldArg {
    /// No argument.
    None,
    /// `[2]`
    Index(u32),
    /// `[PATH]` or `.flags`
    Key(Box<str>),
}

/// A field together with its argument: what an event is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRef {
    /// Which field.
    pub field: Field,
    /// Which part of it.
    pub arg: FieldArg,
}

impl FieldRef {
    /// The field without an argument.
    pub fn plain(field: Field) -> Self {
        Self {
            field,
            arg: FieldArg::None,
        }
    }

    /// Reads `name` and what stood in brackets behind it, as Falco does.
    pub fn resolve(name: &str, bracket: Option<&str>) -> Result<Self, FieldError> {
        if let Some(field) = Field::from_name(name) {
            return Self::with_arg(field, bracket, name);
        }
        let dotted = name
            .match_indices('.')
            .rev()
            .filter_map(|(at, _)| Field::from_name(&name[..at]).map(|f| (f, &name[at + 1..])))
            .find(|(f, _)| f.takes_dotted_argument());
        match (dotted, bracket) {
            (Some((field, arg)), None) => Self::with_arg(field, Some(arg), name),
            _ => Err(FieldError::Unknown {
                name: name.to_owned(),
            }),
        }
    }

    fn with_arg(field: Field, arg: Option<&str>, name: &str) -> Result<Self, FieldError> {
        let index = arg.and_then(|a| a.parse::<u32>().ok());
        let arg = match (field.info().arg, arg) {
            (ArgRule::None, None)
            | (ArgRule::OptIndex | ArgRule::OptKey | ArgRule::OptAny, None) => FieldArg::None,
            (ArgRule::None, Some(_)) => {
                return Err(FieldError::TakesNoArgument {
                    name: name.to_owned(),
                });
            }
            (ArgRule::ReqKey | ArgRule::ReqAny, None) => {
                return Err(FieldError::NeedsArgument {
                    name: name.to_owned(),
                });
            }
            (ArgRule::OptIndex, Some(arg)) => match index {
                Some(index) => FieldArg::Index(index),
                None => {
                    return Err(FieldError::NeedsIndex {
                        name: name.to_owned(),
                        arg: arg.to_owned(),
                    });
                }
            },
            (ArgRule::OptAny | ArgRule::ReqAny, Some(_)) if index.is_some() => {
                FieldArg::Index(index.unwrap_or_default())
            }
            (_, Some("")) => {
                return Err(FieldError::NeedsArgument {
                    name: name.to_owned(),
                });
            }
            (_, Some(arg)) => FieldArg::Key(arg.into()),
        };
        Ok(Self { field, arg })
    }

    /// How many values this has: an ancestor named by its index is one.
    pub fn shape(&self) -> Shape {
        match (self.field.info().shape, &self.arg) {
            (Shape::Lineage, FieldArg::None) => Shape::Lineage,
            (Shape::Lineage, _) => Shape::One,
            (shape, _) => shape,
        }
    }
}

impl fmt::Display for FieldRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.field.name())?;
        match &self.arg {
            FieldArg::None => Ok(()),
            FieldArg::Index(i) => write!(f, "[{i}]"),
            FieldArg::Key(k) if self.field.takes_dotted_argument() && is_plain_word(k) => {
                write!(f, ".{k}")
            }
            FieldArg::Key(k) => write!(f, "[{k}]"),
        }
    }
}

fn is_plain_word(word: &str) -> bool {
    word.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
}

/// Why a field was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// No field has this name.
    #[error("nonexistent field '{name}'")]
    Unknown {
        /// As written.
        name: String,
    },
    /// Something in brackets where nothing belongs.
    #[error("field '{name}' takes no argument")]
    TakesNoArgument {
        /// As written.
        name: String,
    },
    /// Nothing in brackets where something belongs.
    #[error("field '{name}' needs an argument in brackets")]
    NeedsArgument {
        /// As written.
        name: String,
    },
    /// A word in brackets where a number belongs.
    #[error("field '{name}' needs a number in brackets, not '{arg}'")]
    NeedsIndex {
        /// As written.
        name: String,
        /// What stood in brackets.
        arg: String,
    },
}

/// What this node observes, told from outside. Everything is observed until it is said not to be.
#[derive(Clone, Debug, Default)]
pub struct NodeCapabilities {
    fields: BTreeMap<Field, String>,
    parts: BTreeMap<Field, Vec<Part>>,
    kinds: BTreeMap<EventKind, String>,
    never: Vec<Never>,
    arguments: Option<(BTreeSet<String>, String)>,
}

/// What a field never is.
#[derive(Clone, Debug)]
struct Never {
    field: Field,
    text: Vec<u8>,
    /// It never begins with it, either.
    is_prefix: bool,
    reason: String,
}

/// In what a field is not told whole.
#[derive(Clone, Debug)]
struct Part {
    which: String,
    kinds: KindSet,
    /// Numbers up to this one are told as they are, greater ones only as greater.
    exact_to: Option<i64>,
}

impl NodeCapabilities {
    /// A node that observes every field and every kind of event.
    pub fn all() -> Self {
        Self::default()
    }

    /// The same node, without that field; `reason` is what people read, e.g. `not collected`.
    pub fn without_field(mut self, field: Field, reason: impl Into<String>) -> Self {
        self.fields.insert(field, reason.into());
        self
    }

    /// The same node, with that field for some events only, or roughly; `which` is what people
    /// read. Rules that need it stay active and say so.
    pub fn with_part_of_field(self, field: Field, which: impl Into<String>) -> Self {
        self.with_part_of_field_in(field, KindSet::all(), which)
    }

    /// The same, but only in events of these kinds: a rule for other kinds is told it whole.
    pub fn with_part_of_field_in(
        mut self,
        field: Field,
        kinds: KindSet,
        which: impl Into<String>,
    ) -> Self {
        self.parts.entry(field).or_default().push(Part {
            which: which.into(),
            kinds,
            exact_to: None,
        });
        self
    }

    /// The same node, with numbers of that field up to `last` as they are, and of greater ones only
    /// that they are greater. A rule that cannot tell these apart is told the field whole.
    pub fn with_numbers_up_to(mut self, field: Field, last: i64, which: impl Into<String>) -> Self {
        self.parts.entry(field).or_default().push(Part {
            which: which.into(),
            kinds: KindSet::all(),
            exact_to: Some(last),
        });
        self
    }

    /// The same node, on which that field never is `value`; `reason` is what people read. A rule
    /// that is only about events with this value is inactive and says so.
    pub fn without_value(self, field: Field, value: &str, reason: impl Into<String>) -> Self {
        self.without(field, value, false, reason.into())
    }

    /// The same node, on which that field never begins with `prefix`.
    pub fn without_prefix(self, field: Field, prefix: &str, reason: impl Into<String>) -> Self {
        self.without(field, prefix, true, reason.into())
    }

    fn without(mut self, field: Field, text: &str, is_prefix: bool, reason: String) -> Self {
        let text = text.as_bytes().to_vec();
        self.never.push(Never {
            field,
            text,
            is_prefix,
            reason,
        });
        self
    }

    /// Why `field` never is `value` (with `begins`: never begins with it), where it never does.
    pub(crate) fn never(&self, field: Field, value: &[u8], begins: bool) -> Option<&str> {
        let mut of_field = self.never.iter().filter(|n| n.field == field);
        let found = of_field.find(|n| match n.is_prefix {
            true => value.starts_with(&n.text),
            false => !begins && value == n.text,
        });
        found.map(|n| n.reason.as_str())
    }

    /// The same node, without that kind of event.
    pub fn without_kind(mut self, kind: EventKind, reason: impl Into<String>) -> Self {
        self.kinds.insert(kind, reason.into());
        self
    }

    /// Why the field is not observed, if it is not.
    pub fn missing_field(&self, field: Field) -> Option<&str> {
        self.fields.get(&field).map(String::as_str)
    }

    /// The same node, with these arguments of events (`evt.arg.NAME`) and no others.
    pub fn with_arguments<'n>(
        mut self,
        names: impl IntoIterator<Item = &'n str>,
        reason: impl Into<String>,
    ) -> Self {
        let names = names.into_iter().map(str::to_owned).collect();
        self.arguments = Some((names, reason.into()));
        self
    }

    /// Why this part of the field is not observed, if it is not.
    pub(crate) fn missing(&self, field: &FieldRef) -> Option<&str> {
        let of_argument = || match (&self.arguments, &field.arg) {
            (Some((names, why)), FieldArg::Key(name)) if field.field == Field::EvtArg => {
                (!names.contains(&**name)).then_some(why.as_str())
            }
            _ => None,
        };
        self.missing_field(field.field).or_else(of_argument)
    }

    /// Of which events the field is observed, where not of all.
    pub fn part_of_field(&self, field: Field) -> Option<&str> {
        let parts = self.parts.get(&field)?;
        parts.first().map(|p| p.which.as_str())
    }

    /// In what the field is not told whole to a comparison in a rule for events of these kinds.
    /// `tells_apart` says whether the comparison tells numbers beyond one from each other.
    pub(crate) fn parts_for<'a>(
        &'a self,
        field: Field,
        kinds: &'a KindSet,
        tells_apart: impl Fn(i64) -> bool + 'a,
    ) -> impl Iterator<Item = &'a str> {
        let parts = self.parts.get(&field).into_iter().flatten();
        parts
            .filter(|p| !p.kinds.intersection(kinds).is_empty())
            .filter(move |p| p.exact_to.is_none_or(&tells_apart))
            .map(|p| p.which.as_str())
    }

    /// Why the kind is not observed, if it is not.
    pub fn missing_kind(&self, kind: EventKind) -> Option<&str> {
        self.kinds.get(&kind).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_field() {
        for field in Field::all() {
            assert_eq!(Field::from_name(field.name()), Some(field));
        }
    }

    #[test]
    fn arguments_follow_a_dot_or_stand_in_brackets() {
        let dotted = FieldRef::resolve("evt.arg.flags", None).unwrap();
        let bracket = FieldRef::resolve("evt.arg", Some("flags")).unwrap();
        assert_eq!(dotted, bracket);
        assert_eq!(dotted.to_string(), "evt.arg.flags");
        assert_eq!(
            FieldRef::resolve("evt.arg", Some("1")).unwrap().arg,
            FieldArg::Index(1)
        );
        assert_eq!(
            FieldRef::resolve("container.mount.dest", Some("/proc*"))
                .unwrap()
                .to_string(),
            "container.mount.dest[/proc*]"
        );
    }

    #[test]
    fn an_indexed_ancestor_is_one_value() {
        assert_eq!(
            FieldRef::resolve("proc.aname", None).unwrap().shape(),
            Shape::Lineage
        );
        assert_eq!(
            FieldRef::resolve("proc.aname", Some("2")).unwrap().shape(),
            Shape::One
        );
    }

    #[test]
    fn wrong_arguments_are_refused() {
        assert!(matches!(
            FieldRef::resolve("proc.name", Some("1")),
            Err(FieldError::TakesNoArgument { .. })
        ));
        assert!(matches!(
            FieldRef::resolve("ka.uri.param", None),
            Err(FieldError::NeedsArgument { .. })
        ));
        assert!(matches!(
            FieldRef::resolve("proc.aname", Some("x")),
            Err(FieldError::NeedsIndex { .. })
        ));
        assert!(matches!(
            FieldRef::resolve("proc.nmae", None),
            Err(FieldError::Unknown { .. })
        ));
    }
}
