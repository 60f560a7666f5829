//! Owns what managers and agents share of TLS: [`Slot`], the serving certificate of the moment, and
//! what is read from certificates and their files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use webpki::{EndEntityCert, KeyUsage};

/// The certificate of a directory, as in Secrets of type `kubernetes.io/tls`.
pub const CERTIFICATE: &str = "tls.crt";
/// Its private key.
pub const KEY: &str = "tls.key";
/// Who signs the other side's certificates.
pub const AUTHORITY: &str = "ca.crt";

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

/// Why a file of certificates or keys is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// There is none.
    #[error("{} is not there", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It holds nothing.
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    /// It holds something else.
    #[error("{} holds no {what} in PEM form that can be read: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The key is another certificate's.
    #[error("the key in {} does not belong to the certificate beside it: {reason}", path.display())]
    KeyMismatch {
        /// The file of the key.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// How all of our connections encrypt.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Reads a file.
///
/// # Errors
///
/// It is not there, or cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FileError::Missing(path.to_owned()),
        _ => FileError::Unreadable {
            path: path.to_owned(),
            reason: error.to_string(),
        },
    })
}

/// Reads the certificates of a PEM text, of which there is at least one. `path` is for messages.
///
/// # Errors
///
/// There is none, or one is malformed.
pub fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    if pem.trim_ascii().is_empty() {
        return Err(FileError::Empty(path.to_owned()));
    }
    let malformed = |reason: String| FileError::Malformed {
        path: path.to_owned(),
        what: "certificate",
        reason,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(malformed("there is no certificate in it".into())),
        Ok(found) => Ok(found),
        Err(error) => Err(malformed(error.to_string())),
    }
}

/// Reads the authorities of a PEM text. `path` is for messages.
///
/// # Errors
///
/// There is none, or one is malformed.
pub fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        let added = roots.add(certificate);
        added.map_err(|error| FileError::Malformed {
            path: path.to_owned(),
            what: "certificate",
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}

/// Reads a certificate, which may be followed by those that signed it, and its key, from the texts
/// of `tls.crt` and `tls.key`. `directory` is for messages.
///
/// # Errors
///
/// One is missing or malformed, or they do not belong together.
pub fn certified(directory: &Path, pem: &[u8], key: &[u8]) -> Result<CertifiedKey, FileError> {
    let chain = certificates(&directory.join(CERTIFICATE), pem)?;
    let path = directory.join(KEY);
    if key.trim_ascii().is_empty() {
        return Err(FileError::Empty(path));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| FileError::Malformed {
        path: path.clone(),
        what: "private key",
        reason: error.to_string(),
    })?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| {
        FileError::KeyMismatch {
            path,
            reason: error.to_string(),
        }
    })
}

/// The name of who has this certificate: the first DNS name in it that is no pattern.
#[must_use]
pub fn client_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let mut names = certificate.valid_dns_names();
    names
        .find(|name| !name.starts_with('*'))
        .map(ToOwned::to_owned)
}

/// From when and until when a certificate is valid.
#[must_use]
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    // The verifier looks at the times first, and tells them when they do not suit.
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let at = |seconds| {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let usage = KeyUsage::server_auth();
        let verified = certificate.verify_for_usage(&[], &[], &[], time, usage, None, None);
        verified.err()
    };
    let from = match at(0)? {
        webpki::Error::CertNotValidYet { not_before, .. } => not_before,
        _ => UnixTime::since_unix_epoch(Duration::ZERO),
    };
    let webpki::Error::CertExpired { not_after, .. } = at(u64::MAX)? else {
        return None;
    };
    let system = |time: UnixTime| SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs());
    Some((system(from), system(not_after)))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn issue(names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::default();
        let name = |name: &&str| SanType::DnsName((*name).try_into().unwrap());
        params.subject_alt_names = names.iter().map(name).collect();
        params.not_before = date_time_ymd(2_020, 1, 1);
        params.not_after = date_time_ymd(2_021, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap(), key)
    }

    #[test]
    fn a_client_is_called_by_the_first_dns_name_that_is_no_pattern() {
        for (names, name) in [
            (&["node-1", "node-2"][..], Some("node-1")),
            (&["*.example.org", "node-2"], Some("node-2")),
            (&["*.example.org"], None),
            (&[], None),
        ] {
            let (certificate, _) = issue(names);
            assert_eq!(client_name(certificate.der()).as_deref(), name, "{names:?}");
        }
        assert_eq!(client_name(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn the_times_of_a_certificate_are_read() {
        let (certificate, _) = issue(&["node-1"]);
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let (from, until) = validity(certificate.der()).unwrap();
        assert_eq!(seconds(from).as_secs(), 1_577_836_800);
        assert_eq!(seconds(until).as_secs(), 1_609_459_200);
    }

    #[test]
    fn what_is_wrong_with_files_is_named() {
        let directory = Path::new("/tls");
        let ((one, key), (_, other)) = (issue(&["a"]), issue(&["b"]));
        let error = |pem: &str, key: &str| {
            let certified = certified(directory, pem.as_bytes(), key.as_bytes());
            certified.err().map(|error| error.to_string())
        };
        let (pem, key) = (one.pem(), key.serialize_pem());
        assert_eq!(error(&pem, &key), None);
        for (pem, key, words) in [
            ("", &*key, "/tls/tls.crt is empty"),
            ("text", &key, "/tls/tls.crt holds no certificate"),
            (&pem, " ", "/tls/tls.key is empty"),
            (&pem, &pem, "/tls/tls.key holds no private key"),
            (&pem, &other.serialize_pem(), "does not belong"),
        ] {
            let error = error(pem, key).unwrap();
            assert!(error.contains(words), "{error}");
        }
    }
}
