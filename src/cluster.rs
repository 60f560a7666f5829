//! Owns the way to the Kubernetes API server, and how its failures are told.

mod look;
mod requests;

use std::{error::Error, time::Duration};

use anyhow::{Context as _, anyhow};
use http::{HeaderValue, header};
use kube::{Client, Config, config::InferConfigError};

pub use look::{Look, Place, Unseen};
pub use requests::counted;

/// What need not be in time is waited for so long.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Characters of an error's text that are told.
const MAX_TEXT: usize = 300;

/// Reads where the API server is, and who we are there: from the kubeconfig, or in a pod from its
/// service account. Nothing is asked of the server yet.
///
/// # Errors
///
/// There is neither, or the kubeconfig cannot be used.
pub async fn config() -> anyhow::Result<Config> {
    let mut config = Config::infer().await.map_err(no_config)?;
    // A call that is repeated unseen would start a VM long after its wake was given up.
    config.default_retry = false;
    // For who reads the audit log of the API server.
    let agent = HeaderValue::from_static(concat!("kubevirt-wol/", env!("CARGO_PKG_VERSION")));
    config.headers.push((header::USER_AGENT, agent));
    Ok(config)
}

/// Whether this runs in a pod.
#[must_use]
pub fn in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// Makes a client. Where the kubeconfig names a program that gets the credentials, it runs here.
///
/// # Errors
///
/// The credentials or certificates cannot be used.
pub fn client(config: Config) -> anyhow::Result<Client> {
    Client::try_from(config).context("cannot use the configuration of the cluster")
}

/// Names the file that is to be mended; the error itself names only what is wrong in it, or says
/// the same thing several times.
fn no_config(error: InferConfigError) -> anyhow::Error {
    // As kube reads them; only for the message.
    let set = std::env::var_os;
    match (set("KUBECONFIG"), error.source()) {
        (Some(path), Some(cause)) => anyhow!(
            "cannot use kubeconfig {}, which KUBECONFIG names: {cause}",
            path.display()
        ),
        (None, Some(cause)) if !in_pod() => anyhow!(
            "cannot find a cluster: this is no pod, and {cause}; set KUBECONFIG to a kubeconfig file"
        ),
        _ => anyhow::Error::from(error).context("cannot find a cluster"),
    }
}

/// The messages of an error and of what caused it; of an answer of the API server, its own words.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = Some(error);
    while let Some(cause) = source {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            return format!("{} ({})", status.message, status.code);
        }
        source = cause.source();
    }
    let mut source = error.source();
    while let Some(cause) = source {
        let message = cause.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        source = cause.source();
    }
    text.chars().take(MAX_TEXT).collect()
}
