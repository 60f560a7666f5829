//! Owns the flags by which people say which installation they mean.

use clap::Args;

/// Where the program is installed, and under which names.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Installation")]
pub struct Installation {
    /// The namespace of the installation.
    #[arg(long, env = "POD_NAMESPACE", value_parser = object_name, default_value = "kubevirt-wol-system", value_name = "NAME")]
    pub namespace: String,
    /// The managers' Deployment.
    #[arg(long, env = "WOL_DEPLOYMENT", value_parser = object_name, default_value = "kubevirt-wol-controller-manager", value_name = "NAME")]
    pub deployment: String,
    /// The agents' DaemonSet.
    #[arg(long, env = "WOL_AGENT_DAEMON_SET", value_parser = object_name, default_value = "kubevirt-wol-agent", value_name = "NAME")]
    pub agent_daemon_set: String,
    /// The Service by which agents find the managers.
    #[arg(long, env = "WOL_SERVICE", value_parser = object_name, default_value = "kubevirt-wol-grpc", value_name = "NAME")]
    pub service: String,
    /// The Secret with the managers' CA.
    #[arg(long, env = "WOL_CA_SECRET", value_parser = object_name, default_value = "kubevirt-wol-ca", value_name = "NAME")]
    pub ca_secret: String,
    /// The ConfigMap with the certificates that agents trust.
    #[arg(long, env = "WOL_CA_BUNDLE", value_parser = object_name, default_value = "kubevirt-wol-ca-bundle", value_name = "NAME")]
    pub ca_bundle: String,
    /// A Secret with SecureOn passwords, as the managers are told of it; may be given several times.
    #[arg(long = "secure-on-secret", env = "WOL_SECURE_ON_SECRETS", value_parser = object_name, default_value = "kubevirt-wol-secureon", value_delimiter = ',', value_name = "NAME")]
    pub secure_on_secrets: Vec<String>,
}

/// Reads the name of an object: it becomes a part of URLs.
fn object_name(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let part = |part: &str| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-');
    let valid = text.len() <= 253 && text.bytes().all(allowed) && text.split('.').all(part);
    valid
        .then(|| text.to_owned())
        .ok_or("names of objects are lower-case letters, digits, hyphens and dots")
}

#[cfg(test)]
mod tests {
    use super::object_name;

    #[test]
    fn what_is_no_name_never_gets_into_a_url() {
        for name in ["kubevirt-wol-ca", "a", "team.ca-1"] {
            assert_eq!(object_name(name).as_deref(), Ok(name));
        }
        for text in [
            "",
            "../secrets",
            "a/b",
            "a?b=c",
            "A",
            "a..b",
            "-a",
            &"a".repeat(254),
        ] {
            assert!(object_name(text).is_err(), "{text}");
        }
    }
}
