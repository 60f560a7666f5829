//! Owns the flags for the certificates that managers make themselves.

use clap::Args;
use k8s_openapi::jiff::SignedDuration;

/// Options of `kubevirt-wol manager` for the certificates that it makes itself.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Certificates")]
pub struct AuthorityArgs {
    /// The Secret with the managers' CA, in the namespace of this installation. It has to be there,
    /// and may be empty.
    #[arg(
        long,
        env = "WOL_CA_SECRET",
        default_value = "kubevirt-wol-ca",
        value_name = "NAME"
    )]
    pub ca_secret: String,
    /// The ConfigMap by which agents learn which CA to trust. It has to be there, and may be empty.
    #[arg(
        long,
        env = "WOL_CA_BUNDLE",
        default_value = "kubevirt-wol-ca-bundle",
        value_name = "NAME"
    )]
    pub ca_bundle: String,
    /// The Service by whose names agents know the managers.
    #[arg(
        long,
        env = "WOL_SERVICE",
        default_value = "kubevirt-wol-grpc",
        value_name = "NAME"
    )]
    pub service: String,
    /// The domain of the cluster, in which Services have their full names.
    #[arg(
        long,
        env = "WOL_CLUSTER_DOMAIN",
        default_value = "cluster.local",
        value_name = "DOMAIN"
    )]
    pub cluster_domain: String,
    /// A CA holds for so long. When two thirds of it have passed, the next one is made.
    #[arg(
        long,
        env = "WOL_CA_LIFETIME",
        default_value = "8760h",
        value_name = "TIME"
    )]
    pub ca_lifetime: SignedDuration,
    /// The next CA signs no sooner than so long after it was published, so that every agent trusts
    /// it by then.
    #[arg(
        long,
        env = "WOL_CA_PUBLISH_WAIT",
        default_value = "24h",
        value_name = "TIME"
    )]
    pub ca_publish_wait: SignedDuration,
    /// The certificate that a manager serves agents with holds for so long. It is renewed when a
    /// third of it is left.
    #[arg(
        long,
        env = "WOL_LEAF_LIFETIME",
        default_value = "168h",
        value_name = "TIME"
    )]
    pub leaf_lifetime: SignedDuration,
}
