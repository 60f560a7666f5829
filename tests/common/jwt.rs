//! Signed tokens as API servers issue them: JSON web tokens by a P-256 key (ES256).

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    },
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};

/// Signs tokens, and knows its own again.
#[derive(Clone)]
pub struct Signer(Arc<EcdsaKeyPair>);

impl Signer {
    /// A signer with a key of its own.
    pub fn new() -> Self {
        Self::from_pem(&super::pki::new_key().serialize_pem())
    }

    /// The signer with this key, PKCS #8.
    pub fn from_pem(pem: &str) -> Self {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).expect("a key in PEM");
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::from_pkcs8(algorithm, key.secret_pkcs8_der(), &random);
        Self(Arc::new(key.expect("a key on P-256")))
    }

    /// A token that claims this.
    pub fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| BASE64.encode(value.to_string());
        let header = json!({"alg": "ES256", "typ": "JWT"});
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.expect("a key can sign");
        format!("{signed}.{}", BASE64.encode(signature))
    }

    /// Whether the signature of a token is this signer's.
    pub fn signed(&self, token: &str) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.0.public_key());
        token.rsplit_once('.').is_some_and(|(signed, signature)| {
            let signature = BASE64.decode(signature).unwrap_or_default();
            key.verify(signed.as_bytes(), &signature).is_ok()
        })
    }
}

/// What a token claims, whoever signed it. None where it is no such token.
pub fn claims(token: &str) -> Option<Value> {
    let [_, claims, _] = token.split('.').collect::<Vec<_>>().try_into().ok()?;
    serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()
}
