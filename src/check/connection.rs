//! Owns the check of the way to the managers: a TLS connection to each, made as an agent makes it.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{ClientConfig, pki_types::ServerName, version::TLS13};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{Cause, Check, CheckArgs, PORT, Report, words::lasting};
use crate::{cli::Installation, cluster, manager::authority::certificate::Certificate, tls};

/// How long a manager may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Managers that are connected to at most.
const MOST: usize = 8;

/// Why a connection does not work.
enum Failure {
    /// Nobody answers there.
    Unreached(io::Error),
    /// Somebody does, whom no agent would trust.
    Untrusted(String),
}

/// Connects to each manager: where `--manager` says; in a pod, where the Service's name leads, as for
/// an agent; elsewhere, to its `endpoints`.
pub(super) async fn connection(
    report: &mut Report,
    args: &CheckArgs,
    bundle: Option<String>,
    endpoints: Vec<String>,
) {
    let check = Check::Connection;
    let roots = match (bundle, &args.ca_file) {
        (_, Some(path)) => tls::read(path).and_then(|pem| roots(path, &pem)),
        (Some(pem), None) => roots(&PathBuf::from("the ConfigMap"), pem.as_bytes()),
        (None, None) => return,
    };
    let roots = match roots {
        Ok(roots) => roots,
        Err(error) => return report.bad(check, Cause::NotTrusted, error.to_string()),
    };
    // Where somebody, or the cluster, leads there, it has to be possible.
    let expected = args.manager.is_some() || cluster::in_pod();
    let service = server_name(&args.installation);
    let targets = match &args.manager {
        Some(manager) => vec![manager.clone()],
        None if expected => vec![format!("{service}:{PORT}")],
        None => endpoints,
    };
    for target in targets.iter().take(MOST) {
        let addresses = match timeout(PATIENCE, lookup_host(target)).await {
            Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
            Ok(Err(error)) => {
                report.bad(check, Cause::NameUnknown, format!("{target}: {error}"));
                continue;
            }
            Err(_) => {
                let seen = format!("{target}: the DNS does not answer within {PATIENCE:?}");
                report.bad(check, Cause::NameUnknown, seen);
                continue;
            }
        };
        for address in addresses.into_iter().take(MOST) {
            let tried = connect(address, &service, &roots).await;
            tell(report, address, tried, expected);
        }
    }
}

/// The name that every manager's certificate is for.
fn server_name(names: &Installation) -> String {
    format!("{}.{}.svc", names.service, names.namespace)
}

fn roots(path: &Path, pem: &[u8]) -> Result<Arc<ClientConfig>, tls::FileError> {
    let roots = tls::roots(path, pem)?;
    let builder = ClientConfig::builder_with_provider(tls::provider());
    let unusable = |error: rustls::Error| tls::FileError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let builder = builder
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Connects to a manager, and reads its certificate.
async fn connect(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> Result<Option<Certificate>, Failure> {
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let stream = timeout(PATIENCE, TcpStream::connect(address)).await;
    let stream = stream
        .unwrap_or_else(|_| Err(late()))
        .map_err(Failure::Unreached)?;
    let untrusted = |error: io::Error| Failure::Untrusted(error.to_string());
    let name = ServerName::try_from(name.to_owned());
    let name = name.map_err(|error| Failure::Untrusted(error.to_string()))?;
    let connecting = TlsConnector::from(config.clone()).connect(name, stream);
    let connected = timeout(PATIENCE, connecting).await;
    let mut stream = connected
        .unwrap_or_else(|_| Err(late()))
        .map_err(untrusted)?;
    let shown = stream.get_ref().1.peer_certificates();
    let leaf = shown.and_then(<[_]>::first).cloned();
    // That it is ended properly is for the manager's log only.
    let _ = stream.shutdown().await;
    Ok(leaf.and_then(Certificate::from_der))
}

fn tell(
    report: &mut Report,
    address: SocketAddr,
    tried: Result<Option<Certificate>, Failure>,
    expected: bool,
) {
    let check = Check::Connection;
    match tried {
        Ok(certificate) => {
            let left = certificate.as_ref().and_then(|certificate| {
                let left = certificate.not_after.duration_since(SystemTime::now());
                left.ok().map(|left| (left, certificate.life()))
            });
            let Some((left, life)) = left else {
                return report.good(check, format!("{address} is a manager"));
            };
            let seen = format!(
                "{address} is a manager, and its certificate holds for {}",
                lasting(left)
            );
            if left < life / 6 {
                report.bad(check, Cause::CertificateExpiring, seen);
            } else {
                report.good(check, seen);
            }
        }
        Err(Failure::Untrusted(why)) => {
            report.bad(check, Cause::NotTrusted, format!("{address}: {why}"));
        }
        Err(Failure::Unreached(error)) if expected => {
            report.bad(check, Cause::NotReached, format!("{address}: {error}"));
        }
        Err(Failure::Unreached(error)) => {
            let seen = format!("{address} cannot be reached from here: {error}");
            report.bad(check, Cause::NotReachable, seen);
        }
    }
}
