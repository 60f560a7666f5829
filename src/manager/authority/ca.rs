//! Owns [`Ca`]: a certificate authority with its key, and the [`Leaf`]s that it signs. Pure; the
//! caller brings the clock.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    sign::CertifiedKey,
};

use super::certificate::Certificate;

/// The name in the certificate of every CA; which one it is, its key says.
const NAME: &str = "kubevirt-wol";
/// Clocks differ: a certificate holds from so long before it is made, or less where it is short.
const SKEW: Duration = Duration::from_secs(300);
/// The part of a short life by which its beginning is put back.
const SKEW_PART: u32 = 20;

/// Why a CA cannot be used. Says nothing of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The certificate cannot be read.
    #[error("the certificate is not one X.509 certificate in PEM")]
    Certificate,
    /// The key cannot be read.
    #[error("the key is not an ECDSA P-256 key in PEM (PKCS #8)")]
    Key,
    /// What the key signs is not accepted by who trusts the certificate.
    #[error("the certificate is no authority of ours, or the key does not belong to it")]
    Mismatch,
    /// It could not be made.
    #[error("no certificate or key can be made")]
    Making,
}

/// A certificate authority: a certificate that is trusted, and the key that makes others trusted.
#[derive(Clone)]
pub struct Ca {
    /// Its certificate.
    pub certificate: Certificate,
    issuer: Arc<Issuer<'static, KeyPair>>,
}

/// A serving certificate with its key, and when the next one is due.
#[derive(Clone)]
pub struct Leaf {
    /// The certificate.
    pub certificate: Certificate,
    /// Both, as rustls wants them.
    pub key: Arc<CertifiedKey>,
    /// From when on it is to be replaced.
    renew_at: SystemTime,
}

impl Ca {
    /// Makes one that holds for `life` from `now` on.
    ///
    /// # Errors
    ///
    /// The source of random numbers failed.
    pub fn generate(now: SystemTime, life: Duration) -> Result<Self, Unusable> {
        let key = new_key()?;
        let mut params = params();
        params.not_before = back(now, life).into();
        params.not_after = (now + life).into();
        let made = params.self_signed(&key).map_err(|_| Unusable::Making)?;
        let certificate = Certificate::from_der(made.der().clone()).ok_or(Unusable::Making)?;
        Ok(Self::new(certificate, key))
    }

    /// Reads one. Whether certificate and key belong together is tried out.
    ///
    /// # Errors
    ///
    /// See [`Unusable`].
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, Unusable> {
        let certificate = Certificate::from_pem(certificate).ok_or(Unusable::Certificate)?;
        let key = std::str::from_utf8(key).map_err(|_| Unusable::Key)?;
        let key = KeyPair::from_pem(key).map_err(|_| Unusable::Key)?;
        if !key.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256) {
            return Err(Unusable::Key);
        }
        let ca = Self::new(certificate, key);
        let name = "kubevirt-wol";
        let life = ca.certificate.life();
        let leaf = ca.sign(&[name.to_owned()], ca.certificate.not_before, life)?;
        if trusts(
            &ca.certificate,
            &leaf.certificate,
            name,
            ca.certificate.not_before,
        ) {
            Ok(ca)
        } else {
            Err(Unusable::Mismatch)
        }
    }

    fn new(certificate: Certificate, key: KeyPair) -> Self {
        Self {
            certificate,
            issuer: Arc::new(Issuer::new(params(), key)),
        }
    }

    /// Its key, for the Secret and nowhere else.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Signs a serving certificate for `names`, which holds for `life` from `now` on, and no longer
    /// than its authority does.
    ///
    /// # Errors
    ///
    /// A name is none, or the source of random numbers failed.
    pub fn sign(
        &self,
        names: &[String],
        now: SystemTime,
        life: Duration,
    ) -> Result<Leaf, Unusable> {
        let key = new_key()?;
        let mut params = CertificateParams::new(names).map_err(|_| Unusable::Making)?;
        params.distinguished_name.push(DnType::CommonName, NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.not_before = back(now, life).into();
        let not_after = (now + life).min(self.certificate.not_after);
        params.not_after = not_after.into();
        let made = params
            .signed_by(&key, &self.issuer)
            .map_err(|_| Unusable::Making)?;
        let chain = vec![made.der().clone()];
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = ring::sign::any_ecdsa_type(&der).map_err(|_| Unusable::Making)?;
        let left = not_after.duration_since(now).unwrap_or_default();
        Ok(Leaf {
            certificate: Certificate::from_der(made.der().clone()).ok_or(Unusable::Making)?,
            key: Arc::new(CertifiedKey::new(chain, signing)),
            renew_at: now + left * 2 / 3,
        })
    }
}

impl PartialEq for Ca {
    fn eq(&self, other: &Self) -> bool {
        self.certificate == other.certificate
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ca").field(&self.certificate).finish()
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leaf").field(&self.certificate).finish()
    }
}

impl Leaf {
    /// Whether it is to be replaced: it has not long to go, or the clock was put back to before it.
    #[must_use]
    pub fn is_due(&self, now: SystemTime) -> bool {
        now >= self.renew_at || now < self.certificate.not_before
    }
}

/// Whether who trusts `ca` and nothing else accepts `leaf` as the certificate of a server of this
/// name.
#[must_use]
pub fn trusts(ca: &Certificate, leaf: &Certificate, name: &str, now: SystemTime) -> bool {
    let mut roots = RootCertStore::empty();
    if roots.add(ca.der().clone()).is_err() {
        return false;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let (Ok(verifier), Ok(name)) = (verifier, ServerName::try_from(name)) else {
        return false;
    };
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = UnixTime::since_unix_epoch(since);
    verifier
        .verify_server_cert(leaf.der(), &[], &name, &[], now)
        .is_ok()
}

/// Writes certificates as PEM.
#[must_use]
pub fn to_pem<'a>(certificates: impl IntoIterator<Item = &'a Certificate>) -> String {
    let write = |certificate: &Certificate| {
        let pem = Pem::new("CERTIFICATE", certificate.der().to_vec());
        pem::encode_config(&pem, EncodeConfig::new().set_line_ending(LineEnding::LF))
    };
    certificates.into_iter().map(write).collect()
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn new_key() -> Result<KeyPair, Unusable> {
    KeyPair::generate().map_err(|_| Unusable::Making)
}

fn back(now: SystemTime, life: Duration) -> SystemTime {
    let skew = SKEW.min(life / SKEW_PART);
    now.checked_sub(skew).unwrap_or(SystemTime::UNIX_EPOCH)
}
