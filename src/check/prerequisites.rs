//! Owns the checks of what has to be there before any manager runs: an API server, the definition
//! of `WolConfig`, KubeVirt, and the managers' rights.

use std::collections::BTreeSet;

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::{
    Cause, Check, Report,
    subject::{self, Subject},
};
use crate::{
    cli::Installation,
    cluster::{Look, Place, Unseen},
    crd,
    manager::rights::{MANAGER, RIGHTS, Right, Verb},
};

/// Rights that are asked about at once.
const CONCURRENCY: usize = 8;
/// Rights that are named at most.
const MAX_NAMED: usize = 6;
/// The group of virt-api, by which VMs are started.
const VIRT_API: &str = "subresources.kubevirt.io";

const DEFINITIONS: Place<'_> = Place {
    group: "apiextensions.k8s.io",
    version: "v1",
    plural: "customresourcedefinitions",
    namespace: None,
};

/// Whether the API server answers, and whom; none where nothing else can be looked at.
pub(super) async fn api(report: &mut Report) -> Option<(Look, Option<String>)> {
    let look = match Look::new().await {
        Ok(look) => look,
        Err(error) => {
            report.bad(Check::Api, Cause::NoCluster, format!("{error:#}"));
            return None;
        }
    };
    let server = &look.server;
    match look.path::<Value>("/version").await {
        Ok(version) => {
            let version = version["gitVersion"]
                .as_str()
                .unwrap_or("an unknown version");
            let me = subject::me(&look).await.ok();
            let whom = me.as_deref().unwrap_or("somebody that it does not name");
            let seen = format!("{server} answers ({version}), to {whom}");
            report.good(Check::Api, seen);
            Some((look, me))
        }
        Err(Unseen::Unauthorized) => {
            let seen = format!("{server} does not accept the credentials of the kubeconfig");
            report.bad(Check::Api, Cause::NotLoggedIn, seen);
            None
        }
        Err(why) => {
            report.bad(Check::Api, Cause::NoAnswer, format!("{server}: {why}"));
            None
        }
    }
}

/// Whether `WolConfig` is served as this program defines it.
pub(super) async fn crd(report: &mut Report, look: &Look) {
    let check = Check::Crd;
    let ours = json!(crd::definition());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, group) = (
        text(&ours["metadata"]["name"]),
        text(&ours["spec"]["group"]),
    );
    let version = text(&ours["spec"]["versions"][0]["name"]);
    let served = look
        .path::<Value>(&format!("/apis/{group}/{version}"))
        .await;
    let theirs = look.get::<Value>(&DEFINITIONS, &name).await;
    match (&served, &theirs) {
        (_, Err(Unseen::Absent)) | (Err(Unseen::NotServed), Err(Unseen::Forbidden(_))) => {
            let seen = "the API server does not know WolConfigs";
            report.bad(check, Cause::CrdMissing, seen);
        }
        (Err(Unseen::NotServed), _) => {
            let seen = format!("{name} is there, but {version} of it is not served");
            report.bad(check, Cause::CrdNotServed, seen);
        }
        (Err(why), _) => report.unseen(check, &name, why),
        (Ok(_), Ok(theirs)) => match difference(&ours, theirs, &version) {
            None => report.good(check, format!("{name} is that of this version")),
            Some(what) => {
                let seen = format!("{name} differs from that of this version, first in {what}");
                report.bad(check, Cause::CrdDiffers, seen);
            }
        },
        (Ok(_), Err(why)) => {
            let what = format!("{name} is served; whether it is that of this version");
            report.unseen(check, &what, why);
        }
    }
}

/// Where the version that we use differs.
fn difference(ours: &Value, theirs: &Value, version: &str) -> Option<String> {
    let find = |definition: &Value| {
        let versions = definition["spec"]["versions"].as_array()?;
        versions.iter().find(|one| one["name"] == version).cloned()
    };
    let (ours, theirs) = (find(ours)?, find(theirs)?);
    let parts = ["schema", "subresources", "additionalPrinterColumns"];
    parts.iter().find_map(|part| {
        let place = first_difference(&ours[part], &theirs[part])?;
        Some(format!("{part}{place}"))
    })
}

/// The path to the first place where two values differ. What is empty is as good as absent.
fn first_difference(ours: &Value, theirs: &Value) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(own), Value::Object(others)) => {
            let fields: BTreeSet<&String> = own.keys().chain(others.keys()).collect();
            fields.into_iter().find_map(|field| {
                let place = first_difference(&ours[field], &theirs[field])?;
                Some(format!(".{field}{place}"))
            })
        }
        (Value::Array(own), Value::Array(others)) if own.len() == others.len() => {
            let pairs = own.iter().zip(others).enumerate();
            let mut places = pairs.filter_map(|(at, (ours, theirs))| {
                let place = first_difference(ours, theirs)?;
                Some(format!("[{at}]{place}"))
            });
            places.next()
        }
        // An API server writes a whole number where we write one with a fraction of nothing.
        (Value::Number(own), Value::Number(others)) => {
            (own.as_f64() != others.as_f64()).then(String::new)
        }
        _ => (ours != theirs && !(is_empty(ours) && is_empty(theirs))).then(String::new),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}

/// Whether VMs, and the API that starts them, are served.
pub(super) async fn kubevirt(report: &mut Report, look: &Look) {
    let check = Check::Kubevirt;
    match look.path::<Value>("/apis/kubevirt.io/v1").await {
        Ok(_) => {}
        Err(Unseen::NotServed | Unseen::Absent) => {
            let seen = "the API server does not know VirtualMachines";
            return report.bad(check, Cause::KubevirtMissing, seen);
        }
        Err(why) => return report.unseen(check, "kubevirt.io/v1", &why),
    }
    match look.path::<Value>(&format!("/apis/{VIRT_API}/v1")).await {
        Ok(_) => report.good(
            check,
            format!("kubevirt.io/v1 and {VIRT_API}/v1 are served"),
        ),
        Err(Unseen::NotServed | Unseen::Absent) => {
            let seen = format!("the API server does not know {VIRT_API}/v1, by which VMs start");
            report.bad(check, Cause::StartApiMissing, seen);
        }
        Err(why) => {
            let seen = format!("{VIRT_API}/v1, by which VMs start: {why}");
            report.bad(check, Cause::StartApiUnavailable, seen);
        }
    }
}

/// Whether the managers have their rights: those to start VMs, and the others.
pub(super) async fn rights(
    report: &mut Report,
    look: &Look,
    installation: &Installation,
    me: Option<&str>,
) {
    let account = account(look, installation).await;
    let subject = Subject::new(&installation.namespace, &account, me);
    let (start, others): (Vec<_>, Vec<_>) = RIGHTS.iter().partition(|it| it.group == VIRT_API);
    for (check, cause, rights) in [
        (Check::Start, Cause::StartForbidden, start),
        (Check::Rights, Cause::RightsMissing, others),
    ] {
        match missing(look, &subject, &rights, installation).await {
            Ok(missing) if missing.is_empty() => {
                let seen = format!("service account {account} has all that it needs");
                report.good(check, seen);
            }
            Ok(missing) => {
                let named = missing.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>();
                let more = missing.len().saturating_sub(MAX_NAMED);
                let more = if more > 0 {
                    format!("; and {more} more")
                } else {
                    String::new()
                };
                let seen = format!(
                    "service account {account} may not {}{more}",
                    named.join("; ")
                );
                report.bad(check, cause, seen);
            }
            Err(why) => {
                let what = format!("what service account {account} may do");
                report.unseen(check, &what, &why);
            }
        }
    }
}

/// The account that managers run under; the one of the manifests where nobody says.
async fn account(look: &Look, installation: &Installation) -> String {
    let place = super::installed::deployments(&installation.namespace);
    let deployment = look.get::<Value>(&place, &installation.deployment).await;
    let deployment = deployment.unwrap_or_else(|_| json!({}));
    let account = &deployment["spec"]["template"]["spec"]["serviceAccountName"];
    account.as_str().unwrap_or(MANAGER).to_owned()
}

/// The rights that are missing, in words.
async fn missing(
    look: &Look,
    subject: &Subject,
    rights: &[&Right],
    installation: &Installation,
) -> Result<Vec<String>, Unseen> {
    let wanted = rights.iter().flat_map(|right| {
        let names = names(right, installation).into_iter();
        names.flat_map(move |name| {
            let verbs = right.verbs.iter();
            verbs.map(move |verb| (*right, name.clone(), *verb))
        })
    });
    let ask = async |(right, name, verb): (&Right, Option<String>, Verb)| {
        let may = subject.may(look, right, name.as_deref(), verb).await?;
        Ok::<_, Unseen>((!may).then(|| told(right, name.as_deref(), verb)))
    };
    let answers = stream::iter(wanted.collect::<Vec<_>>()).map(ask);
    let answers: Vec<_> = answers.buffered(CONCURRENCY).collect().await;
    let answers: Result<Vec<_>, Unseen> = answers.into_iter().collect();
    Ok(answers?.into_iter().flatten().collect())
}

/// The objects that a right is about, as this installation calls them; none means all.
fn names(right: &Right, installation: &Installation) -> Vec<Option<String>> {
    match right.name {
        None => vec![None],
        Some("kubevirt-wol-ca") => vec![Some(installation.ca_secret.clone())],
        Some("kubevirt-wol-ca-bundle") => vec![Some(installation.ca_bundle.clone())],
        Some("kubevirt-wol-agent") => vec![Some(installation.agent_daemon_set.clone())],
        Some("kubevirt-wol-secureon") => {
            let secrets = installation.secure_on_secrets.iter();
            secrets.cloned().map(Some).collect()
        }
        Some(name) => vec![Some(name.to_owned())],
    }
}

fn told(right: &Right, name: Option<&str>, verb: Verb) -> String {
    let group = match right.group {
        "" => String::new(),
        group => format!(".{group}"),
    };
    let name = name.map(|name| format!(" {name}")).unwrap_or_default();
    format!("{verb} {}{group}{name}", right.resource)
}
