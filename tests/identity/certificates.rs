//! What the manager makes of client certificates, which are verified elsewhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use kubevirt_wol::manager::{
    identity::{Authenticator, Bans, ClientCertificates, Metrics, Refused},
    peer::{Peer, Transport},
};
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Request;

const INTERVAL: Duration = Duration::from_secs(300);

/// A certificate is the name of its node.
#[derive(Default)]
struct Names {
    revoked: AtomicBool,
}

impl ClientCertificates for Names {
    fn name(&self, own: &CertificateDer<'_>) -> Result<String, String> {
        String::from_utf8(own.to_vec()).map_err(|error| error.to_string())
    }

    fn verify(&self, _: &[CertificateDer<'static>], _: SystemTime) -> Result<(), String> {
        if self.revoked.load(Ordering::SeqCst) {
            return Err("it is signed by an authority that is not ours any more".into());
        }
        Ok(())
    }
}

fn with(transport: Transport) -> Request<()> {
    let mut request = Request::new(());
    let address = "127.0.0.1:1".parse().unwrap();
    let cut = CancellationToken::new();
    request.extensions_mut().insert(Peer {
        address,
        transport,
        cut,
    });
    request
}

fn certificate(name: &str) -> Request<()> {
    let own = CertificateDer::from(name.as_bytes().to_vec());
    with(Transport::Tls(Some([own].into())))
}

fn authenticator(names: &Arc<Names>) -> Arc<Authenticator> {
    let (names, metrics) = (names.clone(), Metrics::default());
    let bans = Bans::none();
    Arc::new(Authenticator::certificates(names, INTERVAL, bans, metrics))
}

#[tokio::test(start_paused = true)]
async fn a_certificate_says_which_node_it_is_and_whoever_has_none_is_refused() {
    let authenticator = authenticator(&Arc::default());
    let standing = authenticator.admit(&certificate("node-1")).await.unwrap();
    assert_eq!(standing.node().map(|node| &**node), Some("node-1"));
    for (request, kind) in [
        (certificate("Not a node"), Refused::Certificate),
        (with(Transport::Tls(None)), Refused::NoCertificate),
        (
            with(Transport::Tls(Some([].into()))),
            Refused::NoCertificate,
        ),
        (with(Transport::Plain), Refused::NoCertificate),
        (Request::new(()), Refused::NoCertificate),
    ] {
        let refusal = authenticator.admit(&request).await.err().unwrap();
        assert_eq!(refusal.kind(), kind);
    }
    let mut bearer = Request::new(());
    let header = "Bearer token".parse().unwrap();
    bearer.metadata_mut().insert("authorization", header);
    let refusal = authenticator.admit(&bearer).await.err().unwrap();
    assert_eq!(refusal.kind(), Refused::NoCertificate);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_within_an_interval_when_its_certificate_is_not_good_any_more() {
    let names = Arc::<Names>::default();
    let authenticator = authenticator(&names);
    let mut standing = authenticator.admit(&certificate("node-1")).await.unwrap();
    let lasts = tokio::time::timeout(INTERVAL * 3, standing.ended());
    assert!(lasts.await.is_err(), "it lasts as long as it is good");
    names.revoked.store(true, Ordering::SeqCst);
    let since = Instant::now();
    let refusal = standing.ended().await;
    assert_eq!(refusal.kind(), Refused::Certificate);
    assert!(since.elapsed() <= INTERVAL, "{:?}", since.elapsed());
    assert!(refusal.to_string().contains("not ours any more"));
}

#[tokio::test(start_paused = true)]
async fn without_proofs_the_word_of_the_agent_counts_and_so_does_a_ban() {
    let authenticator = Authenticator::believing(Bans::none(), Metrics::default());
    let mut standing = Arc::new(authenticator)
        .admit(&Request::new(()))
        .await
        .unwrap();
    assert_eq!(standing.node(), None);
    assert_eq!(&*standing.believe("node-1").unwrap(), "node-1");
    assert_eq!(&*standing.believe("node-2").unwrap(), "node-1", "once said");
    let lasts = tokio::time::timeout(Duration::from_secs(86_400), standing.ended());
    assert!(lasts.await.is_err());
}
