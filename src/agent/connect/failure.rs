//! Owns [`Refusal`]: why there is no connection to a manager, in words that say what to do.

use std::{io, net::SocketAddr, path::Path};

use rustls::{AlertDescription, CertificateError};

use crate::tls::FileError;

/// Why there is no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Nobody answers there.
    Unreachable,
    /// No name server knows where managers are.
    Unresolved,
    /// There is no CA bundle yet.
    NoBundle,
    /// The CA bundle cannot be used.
    BadBundle,
    /// The agent's own certificate cannot be used.
    BadClientCertificate,
    /// An authority that is not in the bundle signed the manager's certificate.
    UnknownIssuer,
    /// The manager's certificate has expired, or is not valid yet.
    Expired,
    /// The manager's certificate is for other names.
    WrongName,
    /// The manager's certificate is not good for another reason.
    BadCertificate,
    /// The manager speaks no TLS.
    NoTls,
    /// The manager has no certificate yet, or does not take the agent's.
    Refused,
    /// The connection was there, and the session failed or ended.
    Session,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Unreachable,
        Self::Unresolved,
        Self::NoBundle,
        Self::BadBundle,
        Self::BadClientCertificate,
        Self::UnknownIssuer,
        Self::Expired,
        Self::WrongName,
        Self::BadCertificate,
        Self::NoTls,
        Self::Refused,
        Self::Session,
    ];

    /// Why a session failed that got as far as a connection, or not.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<Refusal>() {
            Some(refusal) => refusal.failure,
            None => Self::Session,
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub(super) failure: Failure,
    message: String,
}

impl Refusal {
    pub(super) fn new(failure: Failure, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { failure, message }
    }

    /// Nobody answers.
    pub(super) fn unreachable(address: SocketAddr, error: &io::Error) -> Self {
        let message = format!("cannot connect to {address}: {error}");
        Self::new(Failure::Unreachable, message)
    }

    /// The bundle is of no use.
    pub(super) fn bundle(error: &FileError) -> Self {
        let missing = matches!(error, FileError::Missing(_) | FileError::Empty(_));
        if missing {
            return Self::new(
                Failure::NoBundle,
                format!(
                    "there is no CA bundle to check managers with: {error}. After a first install \
                     kubelet brings it within 90 s of the first manager's start; later, look \
                     whether the ConfigMap that is mounted there (kubevirt-wol-ca-bundle) has the \
                     key ca.crt. Nothing is sent until then"
                ),
            );
        }
        Self::new(
            Failure::BadBundle,
            format!(
                "the CA bundle to check managers with is of no use: {error}. Mend the ConfigMap \
                 that is mounted there, or name another file with --ca-file. Nothing is sent until then"
            ),
        )
    }

    /// The agent's own certificate is of no use.
    pub(super) fn client_certificate(error: &FileError) -> Self {
        Self::new(
            Failure::BadClientCertificate,
            format!("the client certificate of --client-tls-dir is of no use: {error}"),
        )
    }

    /// The handshake failed.
    pub(super) fn handshake(error: &io::Error, name: &str, bundle: &Path) -> Self {
        let bundle = bundle.display();
        let reason = error.get_ref();
        let reason = reason.and_then(|reason| reason.downcast_ref::<rustls::Error>());
        match reason {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                Self::certificate(reason, name, &bundle.to_string())
            }
            Some(rustls::Error::InvalidMessage(_)) => Self::new(
                Failure::NoTls,
                "the manager speaks no TLS: is it run with --insecure, and is this its port for agents?",
            ),
            Some(rustls::Error::AlertReceived(alert)) => Self::alert(*alert),
            Some(reason) => Self::new(
                Failure::BadCertificate,
                format!("the TLS handshake failed: {reason}"),
            ),
            None => Self::new(
                Failure::Unreachable,
                format!("the connection broke during the TLS handshake: {error}"),
            ),
        }
    }

    /// The manager ended the connection in TLS.
    pub(super) fn alert(alert: AlertDescription) -> Self {
        let message = match alert {
            AlertDescription::AccessDenied => {
                "the manager has no serving certificate yet; its log says what it waits for".into()
            }
            AlertDescription::CertificateRequired => {
                "the manager takes only agents with a client certificate; name one with \
                 --client-tls-dir"
                    .into()
            }
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError => format!(
                "the manager does not take the client certificate of --client-tls-dir ({alert:?}); \
                 compare who signed it with ca.crt of the manager's --tls-dir"
            ),
            other => format!("the manager ended the connection in TLS: {other:?}"),
        };
        Self::new(Failure::Refused, message)
    }

    fn certificate(reason: &CertificateError, name: &str, bundle: &str) -> Self {
        use CertificateError::{
            BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext,
            NotValidYet, NotValidYetContext, UnknownIssuer,
        };
        match reason {
            UnknownIssuer | BadSignature => Self::new(
                Failure::UnknownIssuer,
                format!(
                    "the manager's certificate is not signed by any authority in {bundle}; compare \
                     it with ca.crt in the ConfigMap kubevirt-wol-ca-bundle, or in the Secret that \
                     the manager reads by --tls-dir"
                ),
            ),
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => Self::new(
                Failure::Expired,
                format!(
                    "{reason}: renew the manager's certificate, or set the clock of this node right"
                ),
            ),
            NotValidForName | NotValidForNameContext { .. } => Self::new(
                Failure::WrongName,
                format!(
                    "the manager's certificate is not for {name:?} ({reason}); name one of its names \
                     with --server-name, or issue one for this name"
                ),
            ),
            other => Self::new(
                Failure::BadCertificate,
                format!("the manager's certificate is not good: {other}"),
            ),
        }
    }
}
