//! The programs that people wake machines with.

use std::path::Path;

use crate::common::netns::Host;

/// This program.
pub(crate) const OURS: &str = env!("CARGO_BIN_EXE_kubevirt-wol");

/// What the tests need and this machine has not, if anything.
pub(crate) fn missing() -> Option<&'static str> {
    // Both end with an error when only asked for their usage; what matters is that they are there.
    let installed = |name: &str| {
        ["/usr/bin", "/usr/sbin"]
            .iter()
            .any(|folder| Path::new(folder).join(name).exists())
    };
    if !installed("wakeonlan") {
        Some("wakeonlan is missing: apt-get install wakeonlan")
    } else if !installed("etherwake") {
        Some("etherwake is missing: apt-get install etherwake")
    } else {
        None
    }
}

/// Runs one of them on a host: the words of `command`, in which `MAC` stands for `target`, and
/// `send` for this program's own.
pub(crate) fn wake(host: &Host, command: &str, target: &str) {
    let mut words = command
        .split_whitespace()
        .map(|word| if word == "MAC" { target } else { word });
    let program = words.next().unwrap();
    if program == "send" {
        let args: Vec<_> = ["send"].into_iter().chain(words).collect();
        host.run(OURS, &args);
    } else {
        let args: Vec<_> = words.collect();
        host.run(program, &args);
    }
}
