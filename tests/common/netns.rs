//! Owns hosts and switches made of network namespaces and veth pairs, for tests on real networks.
//!
//! Needs root and `ip` of iproute2. Everything disappears when the values are dropped.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Output},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::sched::{CloneFlags, setns};

/// Makes names unique within this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Why this process cannot make hosts, if so.
pub fn unavailable() -> Option<&'static str> {
    static REASON: OnceLock<Option<&str>> = OnceLock::new();
    *REASON.get_or_init(find_obstacle)
}

fn find_obstacle() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        Some("network namespaces need root")
    } else if !runs("ip", &["-V"]) {
        Some("ip is missing: apt-get install iproute2")
    } else if !can_make() {
        Some("this machine allows no network namespaces, bridges or veth pairs")
    } else {
        None
    }
}

/// Whether a host can be made here, with all that the tests need.
fn can_make() -> bool {
    let name = format!("wol-{}-probe", std::process::id());
    let made = runs("ip", &["netns", "add", &name])
        && runs("ip", &["-n", &name, "link", "add", "br0", "type", "bridge"])
        && runs("ip", &["-n", &name, "link", "add", "v0", "type", "veth"]);
    runs("ip", &["netns", "delete", &name]);
    made
}

/// Whether a program is there and ends well.
pub fn runs(program: &str, args: &[&str]) -> bool {
    let output = Command::new(program).args(args).output();
    output.is_ok_and(|output| output.status.success())
}

/// A network stack of its own.
pub struct Host {
    name: String,
}

impl Host {
    /// Makes a host with nothing but a loopback interface.
    pub fn new(role: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wol-{}-{number}-{role}", std::process::id());
        ip(&["netns", "add", &name]);
        let host = Self { name };
        // An address that is still being probed for duplicates cannot send yet.
        host.sysctl("net/ipv6/conf/default/accept_dad", "0");
        host.ip("link set lo up");
        host
    }

    /// What `ip` calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` with these words on this host.
    ///
    /// # Panics
    ///
    /// It failed.
    pub fn ip(&self, words: &str) {
        let mut args = vec!["-n", &self.name];
        args.extend(words.split_whitespace());
        ip(&args);
    }

    /// Sets a kernel parameter; `path` is below `/proc/sys`.
    pub fn sysctl(&self, path: &str, value: &str) {
        let path = Path::new("/proc/sys").join(path);
        let value = value.to_owned();
        let written = self.thread(move || fs::write(&path, value)).join();
        written.unwrap().unwrap();
    }

    /// Adds an interface with `address`, such as `10.0.0.1/24`, if one is given, plugged into a
    /// switch.
    pub fn plug(&self, switch: &Switch, interface: &str, address: Option<&str>) {
        switch.plug(self, interface);
        if let Some(address) = address {
            self.ip(&format!("address add {address} dev {interface}"));
        }
    }

    /// A command that will run on this host. Its process is the program's own.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]);
        command.arg(program.as_ref());
        command
    }

    /// Runs a program to its end.
    pub fn output(&self, program: impl AsRef<Path>, args: &[&str]) -> Output {
        self.command(program).args(args).output().unwrap()
    }

    /// Runs a program to its end and gives its standard output.
    ///
    /// # Panics
    ///
    /// It failed.
    pub fn run(&self, program: impl AsRef<Path>, args: &[&str]) -> String {
        let output = self.output(&program, args);
        assert!(
            output.status.success(),
            "{} {args:?} failed: {}{}",
            program.as_ref().display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a closure in a thread on this host. Sockets that it opens, and threads that it
    /// starts, belong to this host too.
    pub fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        runs("ip", &["netns", "delete", &self.name]);
    }
}

/// An Ethernet switch: a bridge on a host of its own.
pub struct Switch {
    host: Host,
    ports: AtomicU32,
}

impl Switch {
    /// Makes a switch that nothing is plugged into.
    pub fn new(role: &str) -> Self {
        let host = Host::new(role);
        host.ip("link add br0 type bridge stp_state 0 mcast_snooping 0");
        host.ip("link set br0 up");
        let ports = AtomicU32::new(0);
        Self { host, ports }
    }

    fn plug(&self, other: &Host, interface: &str) {
        let port = format!("p{}", self.ports.fetch_add(1, Ordering::Relaxed));
        let switch = &self.host.name;
        other.ip(&format!(
            "link add {interface} type veth peer name {port} netns {switch}"
        ));
        self.host.ip(&format!("link set {port} master br0 up"));
        other.ip(&format!("link set {interface} up"));
    }
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(
        output.status.success(),
        "ip {} failed: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
