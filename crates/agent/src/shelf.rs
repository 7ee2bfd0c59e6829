//! The baselines: found, grown from a predecessor, kept on disk, and turned into the kernel's sets.
//!
//! Promises: a baseline lies in one file that is replaced as a whole; what is on disk and cannot be
//! read is set aside, never overwritten. Only baselines in use are in memory; the others are a line
//! each. Bounded: [`KNOWN_MAX`] baselines; beyond, a new image is judged without one, and that is
//! said. Left out: judging (`baseline`), who may decide (the server), journalling (the pipeline).

use crate::files;
use plimsoll_api as api;
use plimsoll_baseline::{
    Baseline, Key, KnownObject, LearnConfig, PathReach, PeerReach, State, known_entries,
};
use plimsoll_model::{BaselineId, BehaviourId, Container, Entry, NodeId, Stamp};
use plimsoll_sensor::api as kernel;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Baselines known at a time, on disk or in memory.
pub const KNOWN_MAX: usize = files::FILES_MAX;
/// Longest document that is taken over.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// A baseline in use.
#[derive(Debug)]
pub struct Shelved {
    /// The baseline.
    pub baseline: Baseline,
    /// Number of its dictionary set in the kernel.
    pub set: u32,
    /// Version whose entries are loaded there (0: none; `u64::MAX`: those of another baseline).
    pub loaded: u64,
    /// Behaviour ids by number, as of the loaded version.
    pub ids: Vec<BehaviourId>,
    /// Names of services that loaded entries were resolved from.
    pub services: bool,
    /// Live instances that use it.
    pub users: usize,
    /// Changed since it was saved.
    pub dirty: bool,
    /// Nobody has used it since (boot clock, ns).
    idle_since: u64,
}

/// A baseline that nobody uses now.
#[derive(Clone, Debug)]
struct Asleep {
    summary: api::Baseline,
    repository: Option<String>,
    ready: bool,
}

/// All baselines.
#[derive(Debug)]
pub struct Shelf {
    dir: PathBuf,
    node: NodeId,
    config: LearnConfig,
    awake: HashMap<BaselineId, Shelved>,
    asleep: BTreeMap<BaselineId, Asleep>,
    next_set: u32,
    problems: Vec<String>,
}

/// Why a baseline is not available.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// There is none of that name.
    #[error("there is no baseline \"{0}\"")]
    NotFound(String),
    /// The name fits more than one.
    #[error("\"{0}\" fits more than one baseline: {1}")]
    Ambiguous(String, String),
    /// Its file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its file does not hold a baseline.
    #[error("{} holds no baseline that this build reads: {why}", path.display())]
    Decode {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There are too many.
    #[error("there are {KNOWN_MAX} baselines already: remove files that are not needed any more")]
    Full,
}

impl Shelf {
    /// Reads what is on disk. What does not decode is set aside and named in [`Self::problems`];
    /// a file of a newer build is left where it is.
    ///
    /// # Errors
    /// When the directory cannot be made or listed.
    pub fn open(dir: &Path, node: NodeId, config: LearnConfig) -> io::Result<Self> {
        files::private_dir(dir)?;
        let listing = files::read_all(dir)?;
        let mut shelf = Self {
            dir: dir.to_owned(),
            node,
            config,
            awake: HashMap::new(),
            asleep: BTreeMap::new(),
            next_set: 1,
            problems: listing.problems,
        };
        for found in listing.found {
            match Baseline::decode(&found.bytes) {
                Ok(baseline) => shelf.lay_down(&baseline),
                Err(e) => shelf.problems.push(not_a_baseline(&found.path, &e)),
            }
        }
        Ok(shelf)
    }

    /// What could not be read, in words.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    fn lay_down(&mut self, baseline: &Baseline) {
        let asleep = Asleep {
            summary: crate::view::summary(baseline, &self.node),
            repository: baseline.repository().map(str::to_owned),
            ready: baseline.state() != State::Learning,
        };
        self.asleep.insert(baseline.id().clone(), asleep);
    }

    fn read(&self, id: &BaselineId) -> Result<Baseline, ShelfError> {
        let path = files::path_of(&self.dir, id);
        let bytes = std::fs::read(&path).map_err(|source| ShelfError::Read {
            path: path.clone(),
            source,
        })?;
        Baseline::decode(&bytes).map_err(|e| ShelfError::Decode {
            path,
            why: e.to_string(),
        })
    }

    /// The baseline of a container: the one there is, a successor of the one of the image's
    /// predecessor, or a new one. Counts a user. `true`: it was made just now.
    ///
    /// # Errors
    /// When it cannot be read, or there are too many.
    pub fn take(
        &mut self,
        key: &Key,
        container: &Container,
        at: Stamp,
    ) -> Result<(BaselineId, bool), ShelfError> {
        let id = key.id();
        let known = self.awake.contains_key(&id) || self.asleep.contains_key(&id);
        if !known {
            let made = self.made_for(key, container, at)?;
            self.put(made, true);
        }
        self.wake(&id)?.users += 1;
        Ok((id, !known))
    }

    fn made_for(
        &self,
        key: &Key,
        container: &Container,
        at: Stamp,
    ) -> Result<Baseline, ShelfError> {
        if self.awake.len() + self.asleep.len() >= KNOWN_MAX {
            return Err(ShelfError::Full);
        }
        let made = match self.predecessor(key, container) {
            Some(id) => match self.awake.get(&id) {
                Some(shelved) => shelved.baseline.successor(key.clone(), container, at),
                None => self.read(&id)?.successor(key.clone(), container, at),
            },
            None => Baseline::new(key.clone(), container, self.config.clone(), at),
        };
        Ok(made)
    }

    /// The newest ready baseline of the same repository and role.
    fn predecessor(&self, key: &Key, container: &Container) -> Option<BaselineId> {
        let repository = container.image.repository.as_deref()?;
        let awake = self.awake.values().map(|s| &s.baseline).filter(|b| {
            b.repository() == Some(repository)
                && b.key().role == key.role
                && b.state() != State::Learning
        });
        let asleep = self.asleep.iter().filter(|(_, a)| {
            a.repository.as_deref() == Some(repository) && a.summary.role == key.role && a.ready
        });
        awake
            .map(|b| (b.updated().wall.rfc3339(), b.id().clone()))
            .chain(asleep.map(|(id, a)| (a.summary.last.clone().unwrap_or_default(), id.clone())))
            .max()
            .map(|(_, id)| id)
    }

    fn put(&mut self, baseline: Baseline, dirty: bool) {
        let id = baseline.id().clone();
        self.asleep.remove(&id);
        let set = self.next_set;
        self.next_set = self.next_set.wrapping_add(1).max(1);
        self.awake.insert(
            id,
            Shelved {
                baseline,
                set,
                loaded: 0,
                ids: Vec::new(),
                services: false,
                users: 0,
                dirty,
                idle_since: u64::MAX,
            },
        );
    }

    fn wake(&mut self, id: &BaselineId) -> Result<&mut Shelved, ShelfError> {
        if !self.awake.contains_key(id) {
            if !self.asleep.contains_key(id) {
                return Err(ShelfError::NotFound(id.to_string()));
            }
            let mut baseline = self.read(id)?;
            baseline.set_config(self.config.clone());
            self.put(baseline, false);
        }
        self.awake
            .get_mut(id)
            .ok_or_else(|| ShelfError::NotFound(id.to_string()))
    }

    /// A baseline in memory.
    pub fn get(&self, id: &BaselineId) -> Option<&Shelved> {
        self.awake.get(id)
    }

    /// A baseline in memory.
    pub fn get_mut(&mut self, id: &BaselineId) -> Option<&mut Shelved> {
        self.awake.get_mut(id)
    }

    /// A baseline for a person to look at or decide about, by the beginning of its id.
    ///
    /// # Errors
    /// When there is none, more than one, or it cannot be read.
    pub fn find(&mut self, name: &str) -> Result<&mut Shelved, ShelfError> {
        let id = self.resolve(name)?;
        self.wake(&id)
    }

    fn resolve(&self, name: &str) -> Result<BaselineId, ShelfError> {
        let mut fits: Vec<&BaselineId> = self
            .awake
            .keys()
            .chain(self.asleep.keys())
            .filter(|id| !name.is_empty() && id.as_str().starts_with(name))
            .collect();
        fits.sort();
        match fits.as_slice() {
            [] => Err(ShelfError::NotFound(name.to_owned())),
            [one] => Ok((*one).clone()),
            [exact, ..] if exact.as_str() == name => Ok((*exact).clone()),
            many => {
                let shown: Vec<&str> = many.iter().take(5).map(|id| id.as_str()).collect();
                Err(ShelfError::Ambiguous(name.to_owned(), shown.join(", ")))
            }
        }
    }

    /// Takes over a baseline from elsewhere, in the place of the one with its id.
    ///
    /// # Errors
    /// When there are too many.
    pub fn import(&mut self, mut baseline: Baseline) -> Result<BaselineId, ShelfError> {
        let id = baseline.id().clone();
        let there = self.awake.contains_key(&id) || self.asleep.contains_key(&id);
        if !there && self.awake.len() + self.asleep.len() >= KNOWN_MAX {
            return Err(ShelfError::Full);
        }
        baseline.set_config(self.config.clone());
        if let Some(shelved) = self.awake.get_mut(&id) {
            shelved.baseline = baseline;
            shelved.dirty = true;
            // whatever is loaded belongs to the one that was replaced
            shelved.loaded = u64::MAX;
        } else {
            self.put(baseline, true);
        }
        Ok(id)
    }

    /// An instance does not use it any more.
    pub fn give_back(&mut self, id: &BaselineId, now_ns: u64) {
        if let Some(shelved) = self.awake.get_mut(id) {
            shelved.users = shelved.users.saturating_sub(1);
            shelved.idle_since = now_ns;
        }
    }

    /// All that are in memory.
    pub fn awake_mut(&mut self) -> impl Iterator<Item = (&BaselineId, &mut Shelved)> {
        self.awake.iter_mut()
    }

    /// Every baseline, one line each, sorted by image and role.
    pub fn summaries(&self) -> Vec<api::Baseline> {
        let awake = self
            .awake
            .values()
            .map(|s| crate::view::summary(&s.baseline, &self.node));
        let mut all: Vec<api::Baseline> = awake
            .chain(self.asleep.values().map(|a| a.summary.clone()))
            .collect();
        all.sort_by(|a, b| (&a.image, &a.role, &a.id).cmp(&(&b.image, &b.role, &b.id)));
        all
    }

    /// The bytes of up to `most` changed baselines, with their files.
    pub fn unsaved(&mut self, most: usize) -> Vec<(PathBuf, Vec<u8>)> {
        let dir = &self.dir;
        self.awake
            .iter_mut()
            .filter(|(_, s)| s.dirty)
            .take(most)
            .map(|(id, s)| {
                s.dirty = false;
                (files::path_of(dir, id), s.baseline.encode())
            })
            .collect()
    }

    /// Lets go of baselines that nobody has used for `after_ns`; the numbers of their sets.
    pub fn put_to_sleep(&mut self, now_ns: u64, after_ns: u64) -> Vec<u32> {
        let idle: Vec<BaselineId> = self
            .awake
            .iter_mut()
            .filter(|(_, s)| s.users == 0 && !s.dirty)
            .filter_map(|(id, s)| {
                if s.idle_since == u64::MAX {
                    // woken for a person, or made and never used: its time starts now
                    s.idle_since = now_ns;
                }
                (now_ns.saturating_sub(s.idle_since) >= after_ns).then(|| id.clone())
            })
            .collect();
        let mut sets = Vec::new();
        for id in idle {
            if let Some(shelved) = self.awake.remove(&id) {
                self.lay_down(&shelved.baseline);
                sets.push(shelved.set);
            }
        }
        sets
    }

    /// How many are in memory and how many are not.
    pub fn len(&self) -> (usize, usize) {
        (self.awake.len(), self.asleep.len())
    }
}

fn not_a_baseline(path: &Path, error: &plimsoll_baseline::DecodeBaselineError) -> String {
    use plimsoll_baseline::DecodeBaselineError as E;
    if matches!(error, E::Newer { .. }) {
        return format!("{}: {error}", path.display());
    }
    match files::set_aside(path) {
        Ok(to) => format!("{}: {error}; kept as {}", path.display(), to.display()),
        Err(e) => format!("{}: {error}; it cannot be set aside: {e}", path.display()),
    }
}

/// The entries of a baseline as the kernel takes them. `services` gives the present addresses of a
/// workload; other names cannot be matched by address and are judged in user space. The second
/// value says whether any service's addresses went in.
pub fn set_of(
    baseline: &Baseline,
    services: &HashMap<String, Vec<IpAddr>>,
) -> (Vec<kernel::Known>, bool) {
    let mut entries = Vec::new();
    let mut resolved = false;
    for known in known_entries(baseline) {
        for object in objects(known.object, services, &mut resolved) {
            let entry = |entry| kernel::Known {
                program: known.behaviour.program.clone(),
                script: known.behaviour.script.clone(),
                entry,
                uid: known.behaviour.uid,
                object: object.clone(),
                index: known.index,
            };
            entries.push(entry(known.behaviour.entry));
            if known.behaviour.entry == Entry::Init {
                // processes found running are coded as if they had been seen from the start
                entries.push(entry(Entry::FoundRunning));
            }
        }
    }
    (entries, resolved)
}

fn objects(
    object: KnownObject,
    services: &HashMap<String, Vec<IpAddr>>,
    resolved: &mut bool,
) -> Vec<kernel::KnownObject> {
    use kernel::KnownObject as K;
    let mut peers = |peer: PeerReach| peers(peer, services, resolved);
    match object {
        KnownObject::File { op, origin, path } => vec![K::File {
            op,
            origin,
            path: path_match(path),
        }],
        KnownObject::Library { origin, path } => vec![K::Library {
            origin,
            path: path_match(path),
        }],
        KnownObject::Connect { proto, peer, port } => peers(peer)
            .into_iter()
            .map(|peer| K::Connect { proto, peer, port })
            .collect(),
        KnownObject::Accept { proto, peer, port } => peers(peer)
            .into_iter()
            .map(|peer| K::Accept { proto, peer, port })
            .collect(),
        KnownObject::Datagram { peer, port } => peers(peer)
            .into_iter()
            .map(|peer| K::Datagram { peer, port })
            .collect(),
        KnownObject::Syscall { nr } => vec![K::Syscall { nr }],
    }
}

fn path_match(path: PathReach) -> kernel::PathMatch {
    match path {
        PathReach::Exact(p) => kernel::PathMatch::Exact(p),
        PathReach::Below(p) => kernel::PathMatch::Below(p),
    }
}

fn peers(
    peer: PeerReach,
    services: &HashMap<String, Vec<IpAddr>>,
    resolved: &mut bool,
) -> Vec<kernel::PeerMatch> {
    use kernel::PeerMatch;
    match peer {
        PeerReach::Ip(ip) => vec![PeerMatch::Ip(ip)],
        PeerReach::Any => vec![PeerMatch::Any],
        // the two loopback addresses in use; the rest of 127/8 is judged in user space
        PeerReach::Loopback => vec![
            PeerMatch::Ip(std::net::Ipv4Addr::LOCALHOST.into()),
            PeerMatch::Ip(std::net::Ipv6Addr::LOCALHOST.into()),
        ],
        PeerReach::Named(name) => {
            let Some(service) = name.strip_prefix("service:") else {
                return Vec::new();
            };
            *resolved = true;
            let addresses = services.get(service).map(Vec::as_slice).unwrap_or_default();
            addresses.iter().map(|ip| PeerMatch::Ip(*ip)).collect()
        }
    }
}
