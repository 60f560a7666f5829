//! Owns [`ClientTrust`]: which authorities sign the agents' certificates, where agents prove who
//! they are by one. It follows a changed `ca.crt`, and can be asked again about open connections.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::tls;

/// Checks certificates of clients against the authorities of the moment; refuses all before the
/// first.
#[derive(Debug)]
pub struct ClientTrust {
    verifier: RwLock<Option<Arc<dyn ClientCertVerifier>>>,
    provider: Arc<CryptoProvider>,
}

impl Default for ClientTrust {
    fn default() -> Self {
        Self {
            verifier: RwLock::default(),
            provider: tls::provider(),
        }
    }
}

impl ClientTrust {
    /// Trusts these authorities, and no others, from now on.
    ///
    /// # Errors
    ///
    /// There is none among them.
    pub fn set(&self, roots: RootCertStore) -> Result<(), VerifierBuilderError> {
        let roots = Arc::new(roots);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, self.provider.clone()).build()?;
        let mut held = self
            .verifier
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *held = Some(verifier);
        Ok(())
    }

    /// Whether the certificate of a client, first in `chain`, is good at a moment.
    ///
    /// # Errors
    ///
    /// It is not: it has expired, or none of the authorities of the moment signed it.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), rustls::Error> {
        let Some((own, others)) = chain.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        self.verify_client_cert(own, others, now).map(drop)
    }

    fn get(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        let held = self.verifier.read().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }
}

impl ClientCertVerifier for ClientTrust {
    /// No hints: they would have to stay the same.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verifier = self.get().ok_or(CertificateError::UnknownIssuer)?;
        verifier.verify_client_cert(own, others, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
