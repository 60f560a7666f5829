//! Owns the programs of an API server as child processes that do not outlive the tests.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A child process that does not outlive the tests. A shell holds the other end of a pipe, and
/// ends the child and removes its directory when the pipe breaks, even where the test process was
/// killed and nothing was dropped.
pub(super) struct Leashed {
    child: Child,
    leash: Child,
    log: PathBuf,
}

impl Leashed {
    pub(super) fn start(program: &Path, flags: Vec<OsString>, directory: &Path) -> Self {
        let name = program.file_name().expect("a program has a name");
        let log = directory.join(name).with_extension("log");
        let file = File::create(&log).expect("the directory can be written");
        let child = Command::new(program)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let leash = Command::new("sh")
            .args([
                "-c",
                "read -r _; kill -9 $1; sleep 1; rm -rf -- \"$2\"",
                "leash",
            ])
            .arg(child.id().to_string())
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell can be started");
        Self { child, leash, log }
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id fits into i32");
        kill(Pid::from_raw(pid), signal).expect("the child can be signalled");
    }

    pub(super) fn log_end(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        // The leash first: it must not see the pipe break. All fail only where it has ended.
        let _ = self.leash.kill();
        let _ = self.leash.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
