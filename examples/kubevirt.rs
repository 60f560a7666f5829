//! The tests' KubeVirt as a pod, for a cluster that has none: the definition of `VirtualMachine`,
//! virt-api behind a Service, and virt-controller. No guest runs. tests/e2e deploys it.

#![allow(
    clippy::expect_used,
    reason = "what a test bed cannot do ends it, and kubelet starts it again"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use common::kubevirt::{Exposure, KubeVirt, Speed};

/// Where virt-api listens, as tests/e2e/kubevirt.yaml says too.
const PORT: u16 = 8443;

#[tokio::main]
async fn main() {
    // An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = kube::Client::try_default()
        .await
        .expect("this runs in a pod, or where there is a kubeconfig");
    let kubevirt = KubeVirt::start(client, Speed::default()).await;
    kubevirt.expose(Exposure::Pods(PORT)).await;
    std::future::pending::<()>().await;
}
