//! What is shipped for the CA is applied again and again, and takes nothing away.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::bed::{CALM, MANIFEST, NAMESPACE, Replica, bundle, prepared, remove, trust};
use crate::common::{
    cluster::{Cluster, eventually},
    kubectl::Kubectl,
    skip::skipped,
};

/// Waits until the managers have filled what is shipped.
async fn filled(c: &Cluster) {
    eventually("both are filled", async || {
        let Some(trust) = trust(c).await else {
            return false;
        };
        bundle(c).await.has(&trust.signer.certificate)
    })
    .await;
}

pub(crate) async fn applying_the_manifests_again_takes_nothing_away(c: &Cluster) {
    let Some(kubectl) = Kubectl::find() else {
        return;
    };
    // The stand-in serves no OpenAPI to validate by.
    let client_side = vec!["apply", "--validate=false", "-f", MANIFEST];
    let server_side = [&*client_side, &["--server-side"]].concat();
    for apply in [client_side, server_side] {
        prepared(c).await;
        remove(c).await;
        kubectl.run(c, &apply);
        let replica = Replica::start(&c.client, CALM, true);
        filled(c).await;
        // Nobody is there to fill it again.
        replica.stop().await;
        let before = (trust(c).await, bundle(c).await);
        kubectl.run(c, &apply);
        assert_eq!((trust(c).await, bundle(c).await), before, "{apply:?}");
    }
}

/// Helm on the PATH.
fn helm() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut folders = std::env::split_paths(&path);
    folders.find_map(|folder| Some(folder.join("helm")).filter(|helm| helm.is_file()))
}

fn run_helm(c: &Cluster, helm: &Path, folder: &Path, words: &[&str]) {
    let output = Command::new(helm)
        .args(words)
        .args(["-n", NAMESPACE])
        .env("KUBECONFIG", c.kubeconfig())
        .env("HOME", folder)
        .current_dir(folder)
        .output()
        .expect("helm can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "helm {words:?}: {errors}");
}

pub(crate) async fn upgrading_with_helm_takes_nothing_away(c: &Cluster) {
    // Helm reads the schemas of everything first, which only a real API server has.
    if c.server().is_some() {
        return;
    }
    let Some(helm) = helm() else {
        return skipped("there is no helm on the PATH");
    };
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("chart");
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    std::fs::copy(MANIFEST, chart.join("templates/trust.yaml")).unwrap();
    let about = |version: u8| format!("apiVersion: v2\nname: trust\nversion: 0.0.{version}\n");
    std::fs::write(chart.join("Chart.yaml"), about(1)).unwrap();
    prepared(c).await;
    remove(c).await;
    run_helm(c, &helm, folder.path(), &["install", "trust", "chart"]);
    let replica = Replica::start(&c.client, CALM, true);
    filled(c).await;
    replica.stop().await;
    let before = (trust(c).await, bundle(c).await);
    std::fs::write(chart.join("Chart.yaml"), about(2)).unwrap();
    run_helm(c, &helm, folder.path(), &["upgrade", "trust", "chart"]);
    assert_eq!((trust(c).await, bundle(c).await), before);
    run_helm(c, &helm, folder.path(), &["uninstall", "trust"]);
}
