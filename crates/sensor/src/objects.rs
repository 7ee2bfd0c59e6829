//! Maps and variables of the programs that run, whether this process loaded them or found them pinned.

use crate::programs::MapFreeProgram;
use crate::region::Region;
use crate::skel::{PlimsollSkel, types};
use libbpf_rs::{Link, MapCore as _, MapHandle};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};

/// Every map by the name it has in `bpf/`; the sections of variables are `bss`, `data` and `rodata`.
#[derive(Debug)]
pub(crate) struct Objects(BTreeMap<String, MapHandle>);

impl Objects {
    /// Those of programs that were just loaded.
    pub(crate) fn of(skel: &PlimsollSkel<'_>) -> libbpf_rs::Result<Self> {
        use libbpf_rs::skel::Skel as _;
        let mut all = BTreeMap::new();
        for map in skel.object().maps() {
            let name = map.name().to_string_lossy().into_owned();
            // libbpf names sections after the object: plimsoll.bss
            let short = name.rsplit('.').next().unwrap_or(&name).to_owned();
            all.insert(short, MapHandle::try_from(&map)?);
        }
        Ok(Self(all))
    }

    /// Those that were found.
    pub(crate) fn found(all: BTreeMap<String, MapHandle>) -> Self {
        Self(all)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &MapHandle)> {
        self.0.iter().map(|(name, map)| (name.as_str(), map))
    }

    /// The map of that name.
    pub(crate) fn get(&self, name: &str) -> libbpf_rs::Result<&MapHandle> {
        let missing = || libbpf_rs::Error::from_raw_os_error(libc::ENOENT);
        self.0.get(name).ok_or_else(missing)
    }

    /// A handle of its own on the map of that name.
    pub(crate) fn map(&self, name: &str) -> libbpf_rs::Result<MapHandle> {
        MapHandle::try_from(self.get(name)?)
    }

    /// The variables that change while running.
    pub(crate) fn variables(&self) -> libbpf_rs::Result<Variables> {
        let map = self.get("bss")?;
        let len = map.value_size() as usize;
        if len < size_of::<types::bss>() {
            return Err(libbpf_rs::Error::from_raw_os_error(libc::EINVAL));
        }
        Region::new(map, len, true)
            .map(Variables)
            .map_err(libbpf_rs::Error::from)
    }
}

/// The section `.bss`, mapped.
pub(crate) struct Variables(Region);

impl Variables {
    pub(crate) fn get(&mut self) -> &mut types::bss {
        // SAFETY: the mapping is writable, page-aligned and at least as long as the struct (checked
        // when it was made); it holds integers only, so every bit pattern is valid; the programs
        // read and write the same words, as they do with libbpf's own view of this section.
        #[allow(unsafe_code)]
        unsafe {
            &mut *self.0.start().cast::<types::bss>()
        }
    }
}

/// The program behind a link, by its descriptor.
pub(crate) fn program_of(link: &Link) -> libbpf_rs::Result<MapFreeProgram> {
    let id = link.info()?.prog_id;
    // SAFETY: a plain system call; the descriptor that it returns is ours alone.
    #[allow(unsafe_code)]
    let fd = unsafe {
        let fd = libbpf_rs::libbpf_sys::bpf_prog_get_fd_by_id(id);
        if fd < 0 {
            return Err(libbpf_rs::Error::from_raw_os_error(-fd));
        }
        OwnedFd::from_raw_fd(fd)
    };
    Ok(MapFreeProgram { fd })
}

/// Id of a map, which no other one of this boot has at the same time.
pub(crate) fn map_id(map: &MapHandle) -> libbpf_rs::Result<u32> {
    let info = libbpf_rs::MapInfo::new(map.as_fd())?;
    Ok(info.info.id)
}
