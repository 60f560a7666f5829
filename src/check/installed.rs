//! Owns the checks of what is installed and runs: managers, their Service, their certificates, the
//! Lease, and the agents.

use std::{collections::BTreeSet, time::SystemTime};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Cause, Check, Report, words::lasting};
use crate::{
    cli::Installation,
    cluster::{Look, Place, Unseen},
    manager::{
        authority::{certificate::Certificate, state::BUNDLE_KEY},
        leader,
    },
};

/// Pods and nodes that are named at most.
const MAX_NAMED: usize = 4;
/// Clocks differ: a Lease that has expired for longer than this is held by nobody.
const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// The label of the agents' pods.
const AGENTS: &str = "labelSelector=app%3Dwol-agent";

pub(super) const fn deployments(namespace: &str) -> Place<'_> {
    Place {
        group: "apps",
        version: "v1",
        plural: "deployments",
        namespace: Some(namespace),
    }
}

const fn core<'a>(plural: &'a str, namespace: &'a str) -> Place<'a> {
    Place {
        group: "",
        version: "v1",
        plural,
        namespace: Some(namespace),
    }
}

/// Whether managers run.
pub(super) async fn managers(report: &mut Report, look: &Look, names: &Installation) {
    let (check, name) = (Check::Managers, &names.deployment);
    let found = look
        .get::<Value>(&deployments(&names.namespace), name)
        .await;
    let deployment = match found {
        Ok(deployment) => deployment,
        Err(Unseen::Absent) => {
            let seen = format!(
                "there is no Deployment {name} in namespace {}",
                names.namespace
            );
            return report.bad(check, Cause::DeploymentMissing, seen);
        }
        Err(why) => return report.unseen(check, &format!("Deployment {name}"), &why),
    };
    let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    let ready = deployment["status"]["readyReplicas"].as_i64().unwrap_or(0);
    let seen = format!("{ready} of {wanted} managers are ready");
    match ready {
        0 => report.bad(check, Cause::NoManagerReady, seen),
        _ if ready < wanted => report.bad(check, Cause::ManagersNotReady, seen),
        _ => report.good(check, seen),
    }
}

/// Whether the Service leads to managers.
pub(super) async fn service(report: &mut Report, look: &Look, names: &Installation) {
    let (check, name) = (Check::Service, &names.service);
    let what = format!("Service {name}");
    let place = core("services", &names.namespace);
    let service = match look.get::<Value>(&place, name).await {
        Ok(service) => service,
        Err(Unseen::Absent) => {
            let seen = format!("there is no {what} in namespace {}", names.namespace);
            return report.bad(check, Cause::ServiceMissing, seen);
        }
        Err(why) => return report.unseen(check, &what, &why),
    };
    match endpoints(look, names).await {
        Err(why) => report.unseen(check, &format!("the endpoints of {what}"), &why),
        Ok(ready) if ready.is_empty() => {
            let seen = format!("{what} has no endpoint that is ready");
            report.bad(check, Cause::NoEndpointReady, seen);
        }
        Ok(ready) if service["spec"]["clusterIP"] != "None" => {
            let seen = format!(
                "{what} leads to {}, by one address of its own",
                ready.join(", ")
            );
            report.bad(check, Cause::ServiceNotHeadless, seen);
        }
        Ok(ready) => report.good(check, format!("{what} leads to {}", ready.join(", "))),
    }
}

/// Where ready managers are, as the Service has it.
pub(crate) async fn endpoints(look: &Look, names: &Installation) -> Result<Vec<String>, Unseen> {
    let place = Place {
        group: "discovery.k8s.io",
        version: "v1",
        plural: "endpointslices",
        namespace: Some(&names.namespace),
    };
    let query = format!(
        "labelSelector=kubernetes.io/service-name%3D{}",
        names.service
    );
    let slices = look.list::<Value>(&place, &query).await?;
    let mut found = BTreeSet::new();
    for slice in &slices {
        let mut ports = slice["ports"].as_array().into_iter().flatten();
        let port = ports.find_map(|port| port["port"].as_u64());
        let port = port.unwrap_or(super::PORT.into());
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            // Not said is as good as ready.
            if endpoint["conditions"]["ready"] == false {
                continue;
            }
            for address in endpoint["addresses"].as_array().into_iter().flatten() {
                let address = address.as_str().unwrap_or_default();
                found.insert(if address.contains(':') {
                    format!("[{address}]:{port}")
                } else {
                    format!("{address}:{port}")
                });
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The certificates that agents trust, as PEM, where they are any good.
pub(super) async fn bundle(
    report: &mut Report,
    look: &Look,
    names: &Installation,
) -> Option<String> {
    let (check, name) = (Check::CaBundle, &names.ca_bundle);
    let what = format!("ConfigMap {name}");
    let place = core("configmaps", &names.namespace);
    let map = match look.get::<Value>(&place, name).await {
        Ok(map) => map,
        Err(Unseen::Absent) => {
            let seen = format!("there is no {what} in namespace {}", names.namespace);
            report.bad(check, Cause::BundleMissing, seen);
            return None;
        }
        Err(why) => {
            report.unseen(check, &what, &why);
            return None;
        }
    };
    let pem = map["data"][BUNDLE_KEY].as_str().unwrap_or_default();
    if pem.trim().is_empty() {
        report.bad(check, Cause::BundleEmpty, format!("{what} is empty"));
        return None;
    }
    let certificates = Certificate::all_from_pem(pem.as_bytes()).unwrap_or_default();
    let now = SystemTime::now();
    let longest = certificates.iter().max_by_key(|one| one.not_after);
    let Some(longest) = longest else {
        let seen = format!("{BUNDLE_KEY} in {what} cannot be read as certificates in PEM");
        report.bad(check, Cause::BundleUnreadable, seen);
        return None;
    };
    match longest.not_after.duration_since(now) {
        Err(_) => {
            let seen = format!("all certificates in {what} have expired");
            report.bad(check, Cause::BundleExpired, seen);
        }
        Ok(left) => {
            let seen = format!("{what} holds for {}", lasting(left));
            if left < longest.life() / 4 {
                report.bad(check, Cause::BundleExpiring, seen);
            } else {
                report.good(check, seen);
            }
        }
    }
    Some(pem.to_owned())
}

/// Whether the Secret of the CA is there. What it holds is not read.
pub(super) async fn secret(report: &mut Report, look: &Look, names: &Installation) {
    let (check, name) = (Check::CaSecret, &names.ca_secret);
    let what = format!("Secret {name}");
    match look
        .metadata(&core("secrets", &names.namespace), name)
        .await
    {
        Ok(_) => report.good(check, format!("{what} is there")),
        Err(Unseen::Absent) => {
            let seen = format!("there is no {what} in namespace {}", names.namespace);
            report.bad(check, Cause::SecretMissing, seen);
        }
        Err(why) => report.unseen(check, &what, &why),
    }
}

/// Who writes the statuses.
pub(super) async fn leader(report: &mut Report, look: &Look, names: &Installation) {
    let check = Check::Leader;
    match holder(look, &names.namespace).await {
        Ok(Some(holder)) => report.good(check, format!("{holder} writes the statuses")),
        Ok(None) | Err(Unseen::Absent) => {
            let seen = format!("nobody holds Lease {}", leader::NAME);
            report.bad(check, Cause::NoLeader, seen);
        }
        Err(why) => report.unseen(check, &format!("Lease {}", leader::NAME), &why),
    }
}

/// The manager that holds the Lease.
pub(crate) async fn holder(look: &Look, namespace: &str) -> Result<Option<String>, Unseen> {
    let place = Place {
        group: "coordination.k8s.io",
        version: "v1",
        plural: "leases",
        namespace: Some(namespace),
    };
    let lease = look.get::<Value>(&place, leader::NAME).await?;
    let spec = &lease["spec"];
    let holder = spec["holderIdentity"].as_str().filter(|it| !it.is_empty());
    let renewed = spec["renewTime"]
        .as_str()
        .and_then(|text| text.parse().ok());
    let renewed: Timestamp = renewed.unwrap_or(Timestamp::UNIX_EPOCH);
    let life = spec["leaseDurationSeconds"].as_i64().unwrap_or_default();
    let age = Timestamp::now().duration_since(renewed);
    let held = age < SignedDuration::from_secs(life) + SKEW;
    Ok(holder.filter(|_| held).map(str::to_owned))
}

/// Whether agents run on the nodes.
pub(super) async fn agents(report: &mut Report, look: &Look, names: &Installation) {
    let (check, name) = (Check::Agents, &names.agent_daemon_set);
    let set = match daemon_set(look, names).await {
        Ok(set) => set,
        Err(Unseen::Absent) => {
            let seen = format!(
                "there is no DaemonSet {name} in namespace {}",
                names.namespace
            );
            return report.bad(check, Cause::DaemonSetMissing, seen);
        }
        Err(why) => return report.unseen(check, &format!("DaemonSet {name}"), &why),
    };
    if set["spec"]["template"]["spec"]["hostNetwork"] != true {
        let seen = format!("the pods of DaemonSet {name} are not on their nodes' network");
        report.bad(check, Cause::NotOnHostNetwork, seen);
    }
    let number = |field: &str| set["status"][field].as_i64().unwrap_or_default();
    let (desired, ready) = (number("desiredNumberScheduled"), number("numberReady"));
    let seen = format!("{ready} of {desired} nodes have an agent that is ready");
    if desired == 0 {
        report.bad(
            check,
            Cause::NoNodes,
            format!("DaemonSet {name} is for no node"),
        );
    } else if ready == 0 {
        report.bad(check, Cause::NoAgentReady, seen);
    } else if ready < desired {
        let nodes = without_agent(look, &names.namespace).await;
        report.bad(check, Cause::AgentsNotReady, format!("{seen}{nodes}"));
    } else {
        report.good(check, seen);
    }
}

/// The agents' DaemonSet.
pub(crate) async fn daemon_set(look: &Look, names: &Installation) -> Result<Value, Unseen> {
    let place = Place {
        plural: "daemonsets",
        ..deployments(&names.namespace)
    };
    look.find(&place, &names.agent_daemon_set).await
}

/// The nodes whose agent is not ready, as far as its pod can be seen.
async fn without_agent(look: &Look, namespace: &str) -> String {
    let pods = look.list::<Value>(&core("pods", namespace), AGENTS).await;
    let mut nodes: BTreeSet<String> = BTreeSet::new();
    for pod in pods.unwrap_or_default() {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let mut of_readiness = conditions.filter(|it| it["type"] == "Ready");
        if of_readiness.any(|it| it["status"] == "True") {
            continue;
        }
        let node = pod["spec"]["nodeName"].as_str();
        nodes.extend(node.map(str::to_owned));
    }
    if nodes.is_empty() {
        return String::new();
    }
    let named: Vec<_> = nodes.iter().take(MAX_NAMED).cloned().collect();
    let more = if nodes.len() > MAX_NAMED { ", ..." } else { "" };
    format!(", and those of {}{more} are not", named.join(", "))
}
