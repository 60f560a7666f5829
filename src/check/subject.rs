//! Owns who we are to the API server, and whose rights are asked about.

use serde_json::{Value, json};

use crate::{
    cluster::{Look, Place, Unseen},
    manager::rights::{Right, Scope, Verb},
};

/// Where it is asked who one is.
const SELF: Place<'_> = Place {
    group: "authentication.k8s.io",
    version: "v1",
    plural: "selfsubjectreviews",
    namespace: None,
};

/// Who we are to the API server.
pub(super) async fn me(look: &Look) -> Result<String, Unseen> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = look.review(&SELF, &review).await?;
    let name = answer["status"]["userInfo"]["username"].as_str();
    Ok(name.unwrap_or("nobody").to_owned())
}

/// Whose rights are asked about: the managers' service account.
pub(super) struct Subject {
    /// Its name to the API server.
    user: String,
    namespace: String,
    /// Whether that is us, so that anybody may ask.
    own: bool,
}

impl Subject {
    pub(super) fn new(namespace: &str, account: &str, me: Option<&str>) -> Self {
        let user = format!("system:serviceaccount:{namespace}:{account}");
        Self {
            own: me == Some(&user),
            namespace: namespace.to_owned(),
            user,
        }
    }

    /// Whether it may do this.
    pub(super) async fn may(
        &self,
        look: &Look,
        right: &Right,
        name: Option<&str>,
        verb: Verb,
    ) -> Result<bool, Unseen> {
        let (resource, part) = match right.resource.split_once('/') {
            Some((resource, part)) => (resource, part),
            None => (right.resource, ""),
        };
        let namespace = match right.scope {
            Scope::Namespace => &self.namespace,
            Scope::Cluster => "",
        };
        let mut spec = json!({"resourceAttributes": {
            "group": right.group, "resource": resource, "subresource": part,
            "name": name.unwrap_or_default(), "namespace": namespace, "verb": verb.to_string(),
        }});
        let (kind, plural) = if self.own {
            ("SelfSubjectAccessReview", "selfsubjectaccessreviews")
        } else {
            spec["user"] = self.user.as_str().into();
            // As the API server has it of each service account.
            let of_the_namespace = format!("system:serviceaccounts:{}", self.namespace);
            spec["groups"] = json!([
                "system:serviceaccounts",
                of_the_namespace,
                "system:authenticated"
            ]);
            ("SubjectAccessReview", "subjectaccessreviews")
        };
        let place = Place {
            group: "authorization.k8s.io",
            version: "v1",
            plural,
            namespace: None,
        };
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
        let answer: Value = look.review(&place, &review).await?;
        Ok(answer["status"]["allowed"] == true)
    }
}
