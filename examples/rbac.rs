//! Prints the accounts and rights of managers and agents, from which `just manifests` makes
//! `deploy/base/rbac.yaml`.

#![allow(clippy::print_stdout, reason = "that is all it does")]

use kubevirt_wol::manager::rights::manifest;

/// Where the other manifests install it.
const NAMESPACE: &str = "kubevirt-wol-system";

fn main() {
    print!("{}", manifest(NAMESPACE));
}
