//! Owns where the agent connects to, and how patiently.

mod failure;
mod fate;

use std::{
    future::ready,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    pki_types::ServerName,
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

pub use failure::Failure;
use failure::Refusal;
pub(super) use fate::Fate;
use fate::Kept;

use crate::{
    UsageError,
    cli::AgentArgs,
    pace,
    tls::{self, FileError},
};

/// A manager that does not answer within this time is taken as not there.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A silent connection is probed this often, and given up when a probe is not answered in time.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// What was sent and is not confirmed by the other end's kernel in this time never will be: the way
/// was cut without a word.
const UNCONFIRMED: Duration = Duration::from_secs(5);

/// The first and the longest time between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Where some managers are, and how a connection to them is protected.
pub(super) struct Target {
    uri: Uri,
    endpoint: Endpoint,
    /// None with `--insecure`.
    tls: Option<Tls>,
}

/// Bytes in both directions.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// What is needed to check a manager, and to be checked by it.
struct Tls {
    server_name: ServerName<'static>,
    ca_file: PathBuf,
    client_dir: Option<PathBuf>,
}

impl Target {
    /// Reads the command line: each `--manager` is `host:port`, or a whole URL.
    ///
    /// # Errors
    ///
    /// One is neither, or does not go with the other options.
    pub(super) fn all(args: &AgentArgs) -> Result<Vec<Self>, UsageError> {
        let targets = args.managers.iter();
        targets.map(|manager| Self::new(args, manager)).collect()
    }

    fn new(args: &AgentArgs, manager: &str) -> Result<Self, UsageError> {
        let scheme = if args.insecure { "http" } else { "https" };
        let uri = uri(manager, scheme)?;
        let tls = if args.insecure {
            None
        } else {
            Some(Tls {
                server_name: server_name(args, &uri)?,
                ca_file: args.ca_file.clone(),
                client_dir: args.client_tls_dir.clone(),
            })
        };
        // What tonic is to dial: were it https, tonic would want to encrypt by itself.
        let endpoint = Endpoint::from_static("http://manager")
            .origin(uri.clone())
            .connect_timeout(pace::of(CONNECT_TIMEOUT))
            .http2_keep_alive_interval(pace::of(KEEPALIVE.0))
            .keep_alive_timeout(pace::of(KEEPALIVE.1))
            .keep_alive_while_idle(true);
        Ok(Self { uri, endpoint, tls })
    }

    /// Whether connections are encrypted, and the manager proves to be one.
    pub(super) fn is_protected(&self) -> bool {
        self.tls.is_some()
    }

    /// For messages.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The host and the port, to look for addresses by.
    pub(super) fn host(&self) -> (&str, u16) {
        let host = self.uri.host().unwrap_or_default();
        (host, self.uri.port_u16().unwrap_or_default())
    }

    /// Connects to one address, once: a channel that is broken stays so, and its fate says why. The
    /// manager has to prove the name that all addresses have in common.
    pub(super) async fn connect(&self, address: SocketAddr) -> anyhow::Result<(Channel, Fate)> {
        // Read before anything is sent: without a bundle nobody is asked for anything.
        let connector = self.tls.as_ref().map(Tls::connector).transpose()?;
        let stream = dial(address).await?;
        let fate = Fate::new(self.tls.is_none());
        let stream: Box<dyn Bytes> = match (&self.tls, connector) {
            (Some(tls), Some(connector)) => {
                let bytes = tls.encrypt(&connector, stream).await?;
                let fate = fate.clone();
                Box::new(Kept { bytes, fate })
            }
            _ => Box::new(stream),
        };
        let channel = self.speak(stream).await;
        let channel =
            channel.map_err(|error| fate.explain(error.context("cannot speak HTTP/2")))?;
        Ok((channel, fate))
    }

    /// Speaks HTTP/2 over what is connected.
    async fn speak(&self, stream: Box<dyn Bytes>) -> anyhow::Result<Channel> {
        let mut stream = Some(TokioIo::new(stream));
        let connector = service_fn(move |_: Uri| {
            let stream = stream.take();
            ready(stream.ok_or_else(|| io::Error::other("the connection has ended")))
        });
        Ok(self.endpoint.connect_with_connector(connector).await?)
    }
}

impl Tls {
    /// Reads the files.
    fn connector(&self) -> Result<TlsConnector, Refusal> {
        let bundle = tls::read(&self.ca_file);
        let roots = bundle.and_then(|pem| tls::roots(&self.ca_file, &pem));
        let roots = roots.map_err(|error| Refusal::bundle(&error))?;
        let unusable =
            |error: rustls::Error| Refusal::new(Failure::BadCertificate, error.to_string());
        let builder = ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_root_certificates(roots);
        let mut config = match &self.client_dir {
            None => builder.with_no_client_auth(),
            Some(directory) => {
                let own = client_certificate(directory);
                let own = own.map_err(|error| Refusal::client_certificate(&error))?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }

    async fn encrypt(
        &self,
        connector: &TlsConnector,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Refusal> {
        let connected = connector.connect(self.server_name.clone(), stream).await;
        connected.map_err(|error| {
            let name = self.server_name.to_str();
            Refusal::handshake(&error, &name, &self.ca_file)
        })
    }
}

fn client_certificate(directory: &Path) -> Result<CertifiedKey, FileError> {
    let certificate = tls::read(&directory.join(tls::CERTIFICATE))?;
    let key = tls::read(&directory.join(tls::KEY))?;
    tls::certified(directory, &certificate, &key)
}

async fn dial(address: SocketAddr) -> Result<TcpStream, Refusal> {
    let connecting =
        tokio::time::timeout(pace::of(CONNECT_TIMEOUT), TcpStream::connect(address)).await;
    let stream = connecting.unwrap_or_else(|late| Err(late.into()));
    let stream = stream.and_then(|stream| {
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_user_timeout(Some(crate::pace::of(UNCONFIRMED)))?;
        Ok(stream)
    });
    stream.map_err(|error| Refusal::unreachable(address, &error))
}

/// Reads the address of a manager; `scheme` is the one that it has to have.
fn uri(manager: &str, scheme: &str) -> Result<Uri, UsageError> {
    let url = if manager.contains("://") {
        manager.to_owned()
    } else {
        format!("{scheme}://{manager}")
    };
    let uri: Option<Uri> = url.parse().ok();
    let usable = |uri: &Uri| uri.port_u16().is_some() && uri.host().is_some();
    let error = |why: &str| UsageError::new(format!("--manager {manager:?} {why}"));
    let uri = uri
        .filter(usable)
        .ok_or_else(|| error("is not of the form host:port or https://host:port"))?;
    match (uri.scheme_str(), scheme) {
        (Some(given), wanted) if given == wanted => Ok(uri),
        (Some("http"), _) => Err(error(
            "is not encrypted, which has to be allowed by --insecure; else write host:port or \
             https://host:port",
        )),
        (Some("https"), _) => Err(error(
            "is encrypted, which --insecure is not; leave out --insecure, or write host:port or \
             http://host:port",
        )),
        _ => Err(error("is not of the form host:port or https://host:port")),
    }
}

fn server_name(args: &AgentArgs, uri: &Uri) -> Result<ServerName<'static>, UsageError> {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = args.server_name.as_deref().unwrap_or(host).to_owned();
    ServerName::try_from(name.clone()).map_err(|_| {
        UsageError::new(format!(
            "{name:?} is neither a DNS name nor an IP address; name what the managers' certificates \
             are for with --server-name"
        ))
    })
}

/// Doubles from 100 ms to 5 s, and takes a random share of that, so that the agents of a cluster do
/// not come back all at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// How many pauses there were.
    pub(super) attempts: u32,
}

impl Backoff {
    /// The time until the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        let doubled = BACKOFF.0.saturating_mul(1 << self.attempts.min(16));
        self.attempts = self.attempts.saturating_add(1);
        pace::of(doubled.min(BACKOFF.1)).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_named_by_host_and_port_or_by_url() {
        for (good, scheme) in [
            ("kubevirt-wol-grpc.kubevirt-wol-system.svc:9090", "https"),
            ("127.0.0.1:9090", "https"),
            ("[::1]:9090", "http"),
            ("http://manager:9090", "http"),
            ("https://manager:9090", "https"),
        ] {
            let uri = uri(good, scheme).unwrap();
            assert_eq!(uri.port_u16(), Some(9090), "{good}");
            assert_eq!(uri.scheme_str(), Some(scheme), "{good}");
        }
        for bad in [
            "",
            "manager",
            "http://manager",
            "a b:1",
            "x:70000",
            "ftp://x:1",
        ] {
            let error = uri(bad, "https").unwrap_err().to_string();
            assert!(error.contains("host:port"), "{bad:?}: {error}");
        }
    }

    #[tokio::test]
    async fn a_way_that_is_cut_without_a_word_is_given_up_by_the_kernel() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = dial(listener.local_addr().unwrap()).await.unwrap();
        let timeout = SockRef::from(&stream).tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_url_and_insecure_cannot_say_different_things() {
        for (manager, scheme) in [("http://m:1", "https"), ("https://m:1", "http")] {
            let error = uri(manager, scheme).unwrap_err().to_string();
            assert!(error.contains("--insecure"), "{error}");
        }
    }

    #[test]
    fn pauses_grow_to_five_seconds_and_differ_between_agents() {
        let mut longest = [Duration::ZERO; 12];
        for _ in 0..500 {
            let mut backoff = Backoff::default();
            for longest in &mut longest {
                *longest = backoff.next().max(*longest);
            }
        }
        for (attempt, longest) in longest.into_iter().enumerate() {
            let limit = BACKOFF.1.min(BACKOFF.0 * (1 << attempt));
            assert!(longest <= limit, "attempt {attempt}: {longest:?}");
            assert!(longest > limit / 2, "attempt {attempt}: {longest:?}");
        }
    }
}
