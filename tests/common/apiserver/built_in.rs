//! Owns the table of the built-in resources.

/// A built-in resource: group, version, kind, plural, short names, scope and parts.
pub type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static str,
);

pub const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// The flags: `n`amespaced, `s`tatus subresource, `g`eneration, `r`eview, in category `a`ll or
/// api-e`x`tensions.
pub const BUILT_IN: &[Row] = &[
    ("", "v1", "Namespace", "namespaces", &["ns"], "s"),
    ("", "v1", "Node", "nodes", &["no"], "s"),
    ("", "v1", "Event", "events", &["ev"], "n"),
    ("", "v1", "ConfigMap", "configmaps", &["cm"], "n"),
    ("", "v1", "Secret", "secrets", &[], "n"),
    ("", "v1", "ServiceAccount", "serviceaccounts", &["sa"], "n"),
    ("", "v1", "Service", "services", &["svc"], "nsa"),
    ("", "v1", "Endpoints", "endpoints", &["ep"], "n"),
    ("", "v1", "Pod", "pods", &["po"], "nsga"),
    ("apps", "v1", "DaemonSet", "daemonsets", &["ds"], "nsga"),
    (
        "apps",
        "v1",
        "Deployment",
        "deployments",
        &["deploy"],
        "nsga",
    ),
    (
        "apiregistration.k8s.io",
        "v1",
        "APIService",
        "apiservices",
        &[],
        "s",
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd", "crds"],
        "sgx",
    ),
    ("coordination.k8s.io", "v1", "Lease", "leases", &[], "n"),
    (
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        &[],
        "n",
    ),
    (
        AUTHENTICATION,
        "v1",
        "TokenReview",
        "tokenreviews",
        &[],
        "r",
    ),
    (
        AUTHENTICATION,
        "v1",
        "SelfSubjectReview",
        "selfsubjectreviews",
        &[],
        "r",
    ),
    (
        AUTHORIZATION,
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        &[],
        "r",
    ),
    (
        AUTHORIZATION,
        "v1",
        "SubjectAccessReview",
        "subjectaccessreviews",
        &[],
        "r",
    ),
];
