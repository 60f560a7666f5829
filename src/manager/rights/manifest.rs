//! Owns the manifest of the rights: the accounts of manager and agents, and what RBAC binds to them.

use super::{RIGHTS, Right, Scope};

/// The service account of the managers.
pub const MANAGER: &str = "kubevirt-wol-controller-manager";

/// The service account of the agents.
pub const AGENT: &str = "kubevirt-wol-agent";

/// The name of the roles and of their bindings.
const ROLE: &str = "kubevirt-wol-manager";

/// Columns of a comment.
const WIDTH: usize = 100;

const HEAD: &str = "\
Who the programs are at the API server, and what they may do there. Made from src/manager/rights.rs
by `just manifests`: change it there.
";

const ABOUT_AGENT: &str = "\
Agents have no right at all, here or anywhere: nothing binds a role to this account. Their pods get
no token for the API server, only one that managers take.
";

/// The manifest for an installation in `namespace`.
#[must_use]
pub fn manifest(namespace: &str) -> String {
    let documents = [
        account(HEAD, MANAGER, namespace) + &labels("manager"),
        account(ABOUT_AGENT, AGENT, namespace)
            + &labels("agent")
            + "automountServiceAccountToken: false\n",
        role(Scope::Cluster, namespace),
        binding(Scope::Cluster, namespace),
        role(Scope::Namespace, namespace),
        binding(Scope::Namespace, namespace),
    ];
    documents.join("---\n")
}

fn account(about: &str, name: &str, namespace: &str) -> String {
    let about: Vec<_> = about.lines().map(|line| format!("# {line}\n")).collect();
    format!(
        "{}apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n  namespace: {namespace}\n",
        about.concat()
    )
}

fn role(scope: Scope, namespace: &str) -> String {
    let rights = RIGHTS.iter().filter(|right| right.scope == scope);
    let rules: Vec<_> = rights.map(rule).collect();
    format!("{}rules:\n{}", head(scope, "", namespace), rules.concat())
}

fn binding(scope: Scope, namespace: &str) -> String {
    format!(
        "{}roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {}\n  name: {ROLE}\n\
         subjects:\n  - kind: ServiceAccount\n    name: {MANAGER}\n    namespace: {namespace}\n",
        head(scope, "Binding", namespace),
        kind(scope)
    )
}

fn head(scope: Scope, suffix: &str, namespace: &str) -> String {
    let kind = kind(scope);
    let place = match scope {
        Scope::Cluster => String::new(),
        Scope::Namespace => format!("  namespace: {namespace}\n"),
    };
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}{suffix}\n\
         metadata:\n  name: {ROLE}\n{place}{}",
        labels("manager")
    )
}

/// What `metadata` ends with.
fn labels(component: &str) -> String {
    let name = "kubevirt-wol";
    format!(
        "  labels:\n    app.kubernetes.io/name: {name}\n    app.kubernetes.io/component: {component}\n    \
         app.kubernetes.io/part-of: {name}\n"
    )
}

const fn kind(scope: Scope) -> &'static str {
    match scope {
        Scope::Cluster => "ClusterRole",
        Scope::Namespace => "Role",
    }
}

fn rule(right: &Right) -> String {
    let why = comment(&format!("To {}.", right.why));
    let group = match right.group {
        "" => "\"\"",
        group => group,
    };
    let name = match right.name {
        Some(name) => format!("    resourceNames: [{name}]\n"),
        None => String::new(),
    };
    let (resource, verbs) = (right.resource, right.verbs());
    format!(
        "{why}  - apiGroups: [{group}]\n    resources: [{resource}]\n{name}    verbs: [{verbs}]\n"
    )
}

/// Lines of a comment among the rules.
fn comment(words: &str) -> String {
    const MARK: &str = "  #";
    let (mut text, mut line) = (String::new(), MARK.to_owned());
    for word in words.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            text += &line;
            text.push('\n');
            MARK.clone_into(&mut line);
        }
        line.push(' ');
        line += word;
    }
    text + &line + "\n"
}
