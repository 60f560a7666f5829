//! The real program as a child process: its log lines, its ports, its end.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener, UdpSocket},
    ops::Range,
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// One line that the program logged.
#[derive(Debug, Clone)]
pub struct Line {
    /// When it was read.
    pub at: Instant,
    /// As it was written.
    pub text: String,
    /// The JSON object, or a string where the line is none.
    pub value: Value,
}

impl Line {
    /// The text of a field, or nothing.
    pub fn field(&self, name: &str) -> &str {
        self.value
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// What the line says.
    pub fn message(&self) -> &str {
        self.value.as_str().unwrap_or_else(|| self.field("message"))
    }
}

#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<Line>, bool)>,
    more: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, (Vec<Line>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running `kubevirt-wol`; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
}

impl Process {
    /// Starts `program` with `args`; `name` is for messages. It logs JSON and inherits no `WOL_*`
    /// variable or kubeconfig.
    pub fn spawn<S: AsRef<OsStr>>(name: &str, program: &Path, args: &[S]) -> Self {
        let mut command = Command::new(program);
        command.args(args);
        Self::spawn_command(name, command)
    }

    /// Starts a command that was prepared by the caller, for example inside a network namespace.
    pub fn spawn_command(name: &str, mut command: Command) -> Self {
        let ours = |key: &OsStr| {
            key.to_str()
                .is_some_and(|key| key.starts_with("WOL_") || key == "NODE_NAME")
        };
        for (key, _) in std::env::vars_os().filter(|(key, _)| ours(key)) {
            command.env_remove(key);
        }
        command
            .env("WOL_LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let log = Arc::<Log>::default();
        let stderr = child.stderr.take().expect("standard error is piped");
        thread::spawn({
            let log = log.clone();
            move || follow(stderr, &log)
        });
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.log.lock().0.clone()
    }

    /// Waits for the first line, among all, of which `wanted` holds.
    ///
    /// # Panics
    ///
    /// None came in time; the panic shows what came instead.
    pub fn wait_for(&self, what: &str, time: Duration, wanted: impl Fn(&Line) -> bool) -> Line {
        let line = self.find(time, wanted);
        line.unwrap_or_else(|| panic!("{} did not log: {what}\n{}", self.name, self.text()))
    }

    /// Waits for the first line, among all, of which `wanted` holds; none where none came in time.
    pub fn find(&self, time: Duration, wanted: impl Fn(&Line) -> bool) -> Option<Line> {
        let deadline = Instant::now() + time;
        let mut log = self.log.lock();
        loop {
            if let Some(line) = log.0.iter().find(|line| wanted(line)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || log.1 {
                return None;
            }
            log = self
                .log
                .more
                .wait_timeout(log, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Asks it to end.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id fits into i32");
        // Fails only where it has ended already.
        let _ = kill(Pid::from_raw(pid), signal);
    }

    /// How it ended, where it has.
    pub fn end(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be waited for")
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    ///
    /// It did not end in time.
    pub fn ended(&mut self, time: Duration) -> ExitStatus {
        let deadline = Instant::now() + time;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end in {time:?}\n{}",
                self.name,
                self.text()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// All that it logged, for a message.
    pub fn text(&self) -> String {
        text(&self.log.lock().0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {} logged:\n{}", self.name, self.text());
        }
    }
}

fn text(lines: &[Line]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| line.value.to_string()).collect();
    lines.join("\n")
}

fn follow(stderr: ChildStderr, log: &Log) {
    for text in BufReader::new(stderr).lines().map_while(Result::ok) {
        let value = serde_json::from_str(&text).unwrap_or_else(|_| text.as_str().into());
        log.lock().0.push(Line {
            at: Instant::now(),
            text,
            value,
        });
        log.more.notify_all();
    }
    log.lock().1 = true;
    log.more.notify_all();
}

/// Ports that the kernel gives to nobody who does not ask for them by number, or a connection of somebody
/// else might take the port of a process that is dead for a moment.
const PORTS: Range<u16> = 10_000..30_000;

/// Each port once, and in each test process from another one on.
fn next_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id().wrapping_mul(97) + TAKEN.fetch_add(1, Ordering::Relaxed);
    let offset = number % u32::try_from(PORTS.len()).expect("they are few");
    PORTS.start + u16::try_from(offset).expect("it is less than their number")
}

/// A TCP address on loopback that nobody listens on.
pub fn free_tcp() -> SocketAddr {
    let mut addresses = (0..PORTS.len()).map(|_| SocketAddr::from(([127, 0, 0, 1], next_port())));
    let free = addresses.find(|address| TcpListener::bind(address).is_ok());
    free.expect("a port is free")
}

/// A UDP port that nobody listens on.
pub fn free_udp() -> u16 {
    let is_free = |port: &u16| {
        let socket = UdpSocket::bind(("::", *port));
        socket
            .or_else(|_| UdpSocket::bind(("0.0.0.0", *port)))
            .is_ok()
    };
    let mut ports = (0..PORTS.len()).map(|_| next_port());
    ports.find(is_free).expect("a port is free")
}
