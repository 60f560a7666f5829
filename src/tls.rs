//! Owns what managers and agents share of TLS: [`Slot`], the serving certificate of the moment.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Holds the certificate that new connections are served with. Replacing it does not touch those
/// that are open. Clones hold the same one.
#[derive(Debug, Clone, Default)]
pub struct Slot(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl Slot {
    /// Serves new connections with `certificate` from now on.
    pub fn set(&self, certificate: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(certificate);
    }

    /// The certificate of the moment; none before the first.
    #[must_use]
    pub fn get(&self) -> Option<Arc<CertifiedKey>> {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }
}

impl ResolvesServerCert for Slot {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.get()
    }
}
