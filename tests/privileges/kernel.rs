//! What the kernel says of a process.

use std::{collections::BTreeMap, fs};

/// The bit of `CAP_NET_BIND_SERVICE` (linux/capability.h).
pub const NET_BIND_SERVICE: u64 = 1 << 10;

/// The bit of `CAP_NET_RAW`.
pub const NET_RAW: u64 = 1 << 13;

/// The bit of `CAP_SETPCAP`.
pub const SETPCAP: u64 = 1 << 8;

/// What a thread has, and what it can get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privileges {
    pub permitted: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub ambient: u64,
    pub bounding: u64,
    pub no_new: bool,
}

impl Privileges {
    fn read(status: &str) -> Self {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        let set = |name| u64::from_str_radix(&field(name), 16).unwrap();
        Self {
            permitted: set("CapPrm:"),
            effective: set("CapEff:"),
            inheritable: set("CapInh:"),
            ambient: set("CapAmb:"),
            bounding: set("CapBnd:"),
            no_new: field("NoNewPrivs:") == "1",
        }
    }

    /// Those of the calling thread.
    pub fn own() -> Self {
        Self::read(&fs::read_to_string("/proc/thread-self/status").unwrap())
    }

    /// Those of every thread of a process.
    pub fn of_threads(pid: u32) -> Vec<Self> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        // A thread may end meanwhile.
        let status = |task: std::io::Result<fs::DirEntry>| {
            fs::read_to_string(task.ok()?.path().join("status")).ok()
        };
        tasks.filter_map(status).map(|s| Self::read(&s)).collect()
    }
}

/// Where a process could write: the places of its mounts that are not read-only.
pub fn writable(pid: u32) -> Vec<String> {
    let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
    let mut options = BTreeMap::new();
    for mount in mounts.lines() {
        let mut words = mount.split(' ').skip(1);
        let (place, _, flags) = (words.next(), words.next(), words.next());
        // One that was mounted over another hides it.
        options.insert(place.unwrap().to_owned(), flags.unwrap().to_owned());
    }
    assert!(options.contains_key("/"), "no root among {mounts}");
    let writable = options.into_iter().filter(|(_, flags)| {
        let mut flags = flags.split(',');
        !flags.any(|flag| flag == "ro")
    });
    writable.map(|(place, _)| place).collect()
}
