//! Owns [`Token`]: what an agent proves by who it is. It is never shown.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use serde::Deserialize;

/// Longer ones are nobody's: a bound token has about 1,200 bytes.
pub const MAX_TOKEN: usize = 12 * 1_024;

/// What a token is remembered by.
pub(super) type Digest = [u8; 32];

/// A bearer token, not checked yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

#[derive(Deserialize)]
struct Claims {
    exp: Option<u64>,
}

impl Token {
    /// Takes what may be a token; none where it cannot be one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=MAX_TOKEN).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_graphic());
        (fits && plain).then(|| Self(text.into()))
    }

    /// Reads the value of an `authorization` header; none where it brings no token.
    #[must_use]
    pub fn from_header(value: &str) -> Option<Self> {
        let (scheme, token) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| Self::new(token.trim()))?
    }

    /// The secret itself, for the API server only.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }

    pub(super) fn digest(&self) -> Digest {
        let mut bytes = Digest::default();
        bytes.copy_from_slice(digest(&SHA256, self.0.as_bytes()).as_ref());
        bytes
    }

    /// When it expires, in its own words: only worth something once the API server has verified
    /// it. None where it does not say.
    pub(super) fn expires(&self) -> Option<SystemTime> {
        let payload = self.0.split('.').nth(1)?;
        let json = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: Claims = serde_json::from_slice(&json).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp?))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> Token {
        Token::new(&format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))).unwrap()
    }

    #[test]
    fn a_token_is_read_from_its_header_and_never_shown() {
        let token = Token::from_header("bearer s3cret").unwrap();
        assert_eq!(token.secret(), "s3cret");
        assert!(!format!("{token:?}").contains("s3cret"));
        let message = crate::rpc::pb::Credential {
            token: "s3cret".into(),
        };
        assert!(!format!("{message:?}").contains("s3cret"));
        for none in ["", "Bearer", "Bearer ", "Basic s3cret", "Bearer s3\u{e9}"] {
            assert!(Token::from_header(none).is_none(), "{none}");
        }
        assert!(Token::new(&"t".repeat(MAX_TOKEN + 1)).is_none());
    }

    #[test]
    fn a_token_that_says_when_it_expires_is_believed_and_no_other_has_an_end() {
        let at = jwt(r#"{"exp": 1700000000, "iat": 1}"#).expires();
        let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(at, Some(expected));
        assert_eq!(jwt("{}").expires(), None);
        assert_eq!(jwt(r#"{"exp": "soon"}"#).expires(), None);
        assert_eq!(Token::new("opaque").unwrap().expires(), None);
        assert_eq!(Token::new("a.b!.c").unwrap().expires(), None);
    }
}
