//! Owns [`Credentials`]: by what the agent proves to managers which node it is on, and when that
//! has changed. A token leaves the agent over a protected connection only.

use std::{fmt, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};

/// How often it is looked whether the token is a new one: kubelet writes it when a fifth of its
/// life is left, which are two minutes at least.
const LOOK: Duration = Duration::from_secs(5);

/// Longer files hold no token.
const MAX_TOKEN: usize = 12 * 1_024;

/// What proves who this agent is. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

impl Token {
    /// The value of the `authorization` header.
    ///
    /// # Errors
    ///
    /// None in practice: what was read is plain text.
    pub(super) fn header(&self) -> anyhow::Result<MetadataValue<Ascii>> {
        let mut value = MetadataValue::try_from(format!("Bearer {}", self.0))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The token itself, for the manager only.
    pub(super) fn into_secret(self) -> String {
        self.0
    }
}

/// Where the token is.
#[derive(Debug)]
pub(super) struct Credentials {
    file: PathBuf,
    /// Whether a certificate proves who this agent is, so that there need not be a token.
    certified: bool,
}

impl Credentials {
    pub(super) fn new(file: PathBuf, certified: bool) -> Self {
        Self { file, certified }
    }

    /// What a new session is to be opened with: nothing where the connection is not `protected`, as
    /// whoever hears a token can use it.
    ///
    /// # Errors
    ///
    /// There is no token that could be sent.
    pub(super) fn for_session(&self, protected: bool) -> anyhow::Result<Option<Token>> {
        if !protected || (self.certified && matches!(self.file.try_exists(), Ok(false))) {
            return Ok(None);
        }
        self.read().map(Some)
    }

    /// Reads the file, which is in memory where kubelet wrote it: that takes microseconds.
    fn read(&self) -> anyhow::Result<Token> {
        let file = self.file.display();
        let text = fs::read_to_string(&self.file).with_context(|| {
            format!(
                "cannot read the token {file} (--token-file), by which managers know this agent; \
                 the agents' pods mount a projected serviceAccountToken there"
            )
        })?;
        let token = text.trim();
        let plain = token.bytes().all(|b| b.is_ascii_graphic());
        if token.is_empty() || token.len() > MAX_TOKEN || !plain {
            bail!("what is in {file} (--token-file) is no token");
        }
        Ok(Token(token.to_owned()))
    }
}

/// Looks whether the token that a session was opened with has been replaced.
#[derive(Debug)]
pub(super) struct Renewal<'a> {
    credentials: &'a Credentials,
    /// What the manager knows; none where it was told nothing, and will not be.
    sent: Option<Token>,
    look_at: Instant,
}

impl<'a> Renewal<'a> {
    pub(super) fn new(credentials: &'a Credentials, sent: Option<Token>) -> Self {
        Self {
            credentials,
            sent,
            look_at: Instant::now() + crate::pace::of(LOOK),
        }
    }

    /// A token that the manager does not know yet; once, and only where it knows an older one.
    pub(super) fn due(&mut self) -> Option<Token> {
        let now = Instant::now();
        if self.sent.is_none() || now < self.look_at {
            return None;
        }
        self.look_at = now + crate::pace::of(LOOK);
        match self.credentials.read() {
            Ok(token) if self.sent.as_ref() != Some(&token) => {
                self.sent = Some(token.clone());
                Some(token)
            }
            Ok(_) => None,
            // The session goes on to the end of what was sent; a new one will say it louder.
            Err(error) => {
                tracing::debug!("the token is not renewed: {error:#}");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, Credentials) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, text).unwrap();
        (directory, Credentials::new(file, false))
    }

    #[test]
    fn a_token_goes_over_protected_connections_only_and_is_never_shown() {
        let (_directory, credentials) = file("s3cret\n");
        assert_eq!(credentials.for_session(false).unwrap(), None);
        let token = credentials.for_session(true).unwrap().unwrap();
        let header = token.header().unwrap();
        assert_eq!(header.to_str().unwrap(), "Bearer s3cret");
        for shown in [format!("{token:?}"), format!("{header:?}")] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }

    #[test]
    fn what_is_missing_or_no_token_is_told_with_its_flag_and_not_with_its_text() {
        let (directory, credentials) = file("two words");
        let error = format!("{:#}", credentials.for_session(true).unwrap_err());
        assert!(error.contains("--token-file") && !error.contains("two"));
        drop(directory);
        let error = format!("{:#}", credentials.for_session(true).unwrap_err());
        assert!(
            error.contains("projected serviceAccountToken") && error.contains("No such file"),
            "{error}"
        );
        assert_eq!(credentials.for_session(false).unwrap(), None);
    }

    #[test]
    fn a_certificate_makes_up_for_a_token_that_is_not_there_but_not_for_a_bad_one() {
        let (directory, credentials) = file("two words");
        let credentials = Credentials::new(credentials.file, true);
        assert!(credentials.for_session(true).is_err());
        fs::write(&credentials.file, "s3cret").unwrap();
        assert!(credentials.for_session(true).unwrap().is_some());
        drop(directory);
        assert_eq!(credentials.for_session(true).unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_replaced_is_sent_once_within_seconds() {
        let (_directory, credentials) = file("old");
        let sent = credentials.for_session(true).unwrap();
        let mut renewal = Renewal::new(&credentials, sent);
        fs::write(&credentials.file, "new").unwrap();
        tokio::time::advance(LOOK).await;
        assert_eq!(renewal.due(), Some(Token("new".into())));
        tokio::time::advance(LOOK).await;
        assert_eq!(renewal.due(), None);
        fs::remove_file(&credentials.file).unwrap();
        tokio::time::advance(LOOK).await;
        assert_eq!(renewal.due(), None);
        fs::write(&credentials.file, "newest").unwrap();
        tokio::time::advance(LOOK).await;
        assert_eq!(renewal.due(), Some(Token("newest".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_without_a_token_never_gets_one() {
        let (_directory, credentials) = file("s3cret");
        let mut renewal = Renewal::new(&credentials, None);
        tokio::time::advance(LOOK).await;
        assert_eq!(renewal.due(), None);
    }
}
