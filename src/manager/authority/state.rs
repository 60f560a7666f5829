//! Owns what is kept of the managers' CAs: [`Trust`], the content of the Secret, and [`Bundle`],
//! that of the ConfigMap, which agents trust. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::{
    ca::{Ca, Unusable, to_pem},
    certificate::Certificate,
};

/// The keys of the Secret.
const SIGNER: [&str; 2] = ["tls.crt", "tls.key"];
const NEXT: [&str; 2] = ["next.crt", "next.key"];
const PREVIOUS: &str = "previous.crt";
/// All of them.
pub const SECRET_KEYS: [&str; 5] = [SIGNER[0], SIGNER[1], NEXT[0], NEXT[1], PREVIOUS];
/// The key of the ConfigMap.
pub const BUNDLE_KEY: &str = "ca.crt";
/// The annotation of the Secret with the time at which the previous CA may be dropped, in seconds
/// since 1970.
pub const PREVIOUS_UNTIL: &str = "wol.pillon.org/previous-until";
/// The annotation of the ConfigMap with the time since when all of its CAs have been there, in
/// seconds since 1970.
pub const COMPLETE_SINCE: &str = "wol.pillon.org/complete-since";

/// The data of a Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

/// The managers' CAs.
#[derive(Debug, Clone, PartialEq)]
pub struct Trust {
    /// Signs the serving certificates.
    pub signer: Ca,
    /// Will sign them, once agents have had the time to trust it.
    pub next: Option<Ca>,
    /// Signed them before.
    pub previous: Option<Previous>,
}

/// A CA that signs no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// What agents trust.
    pub certificate: Certificate,
    /// When its last leaf is over.
    pub until: SystemTime,
}

/// Why the content of the Secret cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Some keys are there, and others are not.
    #[error(
        "it has some of the keys tls.crt, tls.key, next.crt and next.key, and not those that go with them"
    )]
    Incomplete,
    /// The CA that signs.
    #[error("tls.crt and tls.key: {0}")]
    Signer(#[source] Unusable),
    /// The CA that will sign.
    #[error("next.crt and next.key: {0}")]
    Next(#[source] Unusable),
    /// The CA that signed.
    #[error("previous.crt is not one X.509 certificate in PEM")]
    Previous,
}

impl Trust {
    /// A CA and no other.
    #[must_use]
    pub fn new(signer: Ca) -> Self {
        Self {
            signer,
            next: None,
            previous: None,
        }
    }

    /// Reads the content of the Secret; none where it is empty.
    ///
    /// # Errors
    ///
    /// See [`Unreadable`].
    pub fn read(data: &Data, previous_until: Option<&str>) -> Result<Option<Self>, Unreadable> {
        let get = |key: &str| data.get(key).filter(|value| !value.is_empty());
        let pair = |[certificate, key]: [&str; 2]| match (get(certificate), get(key)) {
            (Some(certificate), Some(key)) => Ok(Some(Ca::from_pem(certificate, key))),
            (None, None) => Ok(None),
            _ => Err(Unreadable::Incomplete),
        };
        let signer = pair(SIGNER)?.transpose().map_err(Unreadable::Signer)?;
        let next = pair(NEXT)?.transpose().map_err(Unreadable::Next)?;
        let previous = get(PREVIOUS).map(|pem| {
            let certificate = Certificate::from_pem(pem).ok_or(Unreadable::Previous)?;
            // Nothing that it signed is good for longer than it is itself.
            let until = previous_until.and_then(from_seconds);
            let until = until.map_or(certificate.not_after, |until| {
                until.min(certificate.not_after)
            });
            Ok(Previous { certificate, until })
        });
        let previous = previous.transpose()?;
        match signer {
            Some(signer) => Ok(Some(Self {
                signer,
                next,
                previous,
            })),
            None if next.is_none() && previous.is_none() => Ok(None),
            None => Err(Unreadable::Incomplete),
        }
    }

    /// What the Secret is to hold: data, and the annotation [`PREVIOUS_UNTIL`].
    #[must_use]
    pub fn write(&self) -> (Data, Option<String>) {
        let mut data = Data::new();
        let mut add = |key: &str, value: String| {
            data.insert(key.to_owned(), value.into_bytes());
        };
        add(SIGNER[0], to_pem([&self.signer.certificate]));
        add(SIGNER[1], self.signer.key_pem());
        if let Some(next) = &self.next {
            add(NEXT[0], to_pem([&next.certificate]));
            add(NEXT[1], next.key_pem());
        }
        if let Some(previous) = &self.previous {
            add(PREVIOUS, to_pem([&previous.certificate]));
        }
        let until = self
            .previous
            .as_ref()
            .map(|previous| to_seconds(previous.until));
        (data, until)
    }

    /// The CAs that agents are to trust.
    pub fn trusted(&self) -> impl Iterator<Item = &Certificate> {
        let next = self.next.as_ref().map(|ca| &ca.certificate);
        let previous = self.previous.as_ref().map(|previous| &previous.certificate);
        [Some(&self.signer.certificate), next, previous]
            .into_iter()
            .flatten()
    }
}

/// The CAs that agents trust.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bundle {
    /// Their certificates.
    pub certificates: Vec<Certificate>,
    /// Since when all of them have been there, where that is known.
    pub since: Option<SystemTime>,
}

impl Bundle {
    /// Reads the content of the ConfigMap. What cannot be read is as good as nothing: it is made
    /// from the Secret.
    #[must_use]
    pub fn read(pem: Option<&str>, since: Option<&str>) -> Self {
        let certificates = pem.and_then(|pem| Certificate::all_from_pem(pem.as_bytes()));
        Self {
            certificates: certificates.unwrap_or_default(),
            since: since.and_then(from_seconds),
        }
    }

    /// What the ConfigMap is to hold: the bundle, and the annotation [`COMPLETE_SINCE`].
    #[must_use]
    pub fn write(&self) -> (String, Option<String>) {
        (to_pem(&self.certificates), self.since.map(to_seconds))
    }

    /// Whether agents that read it trust this CA.
    #[must_use]
    pub fn has(&self, ca: &Certificate) -> bool {
        self.certificates.contains(ca)
    }
}

fn from_seconds(text: &str) -> Option<SystemTime> {
    let seconds = text.parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Rounded up: nothing is to happen too early.
fn to_seconds(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.unwrap_or_default().as_millis();
    millis.div_ceil(1_000).to_string()
}
