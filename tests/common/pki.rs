//! Certificates for tests: small authorities that live only in memory.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub pem: String,
}

/// A certificate and its key.
pub struct Leaf {
    /// The certificate.
    pub pem: String,
    /// The private key, PKCS #8.
    pub key_pem: String,
}

impl Authority {
    /// Makes an authority.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = new_key();
        let pem = params
            .self_signed(&key)
            .expect("an authority can sign itself")
            .pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Makes a certificate for a server with these names or addresses.
    pub fn server(&self, names: &[&str]) -> Leaf {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names are well formed");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// Makes a certificate for a client; Kubernetes reads the user from `name` and the group from
    /// `organisation`.
    pub fn client(&self, name: &str, organisation: Option<&str>) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(organisation) = organisation {
            params
                .distinguished_name
                .push(DnType::OrganizationName, organisation);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// Makes a certificate for a server with these names, which expired long ago.
    pub fn expired_server(&self, names: &[&str]) -> Leaf {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names are well formed");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_after = rcgen::date_time_ymd(2_000, 1, 1);
        self.sign(params)
    }

    /// Makes a certificate for the agent of a node.
    pub fn agent(&self, node: &str) -> Leaf {
        let mut params =
            CertificateParams::new([node.to_owned()]).expect("the name is well formed");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Leaf {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = new_key();
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("the authority can sign");
        Leaf {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

/// Makes a key (ECDSA P-256).
pub fn new_key() -> KeyPair {
    KeyPair::generate().expect("keys can be made")
}
