//! Owns the way from what was named to the addresses that packets are for: virtual machines are
//! looked up in the cluster of the current kubeconfig.

use std::{collections::HashMap, time::Duration};

use anyhow::Context as _;
use futures::{StreamExt as _, stream};
use http::Uri;
use kube::{Api, Client};
use tokio::{runtime, time::Instant};

use super::Target;
use crate::{
    cluster,
    kubevirt::{VirtualMachine, VmKey},
    mac::MacAddr,
};

/// How long the API server may take for all that is asked of it.
const PATIENCE: Duration = Duration::from_secs(15);
/// Virtual machines that are read at once.
const CONCURRENCY: usize = 8;

/// Whom the packets are for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Recipients {
    pub(super) found: Vec<Recipient>,
    pub(super) unresolved: Vec<Unresolved>,
}

/// Whom one packet is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipient {
    pub(super) mac: MacAddr,
    /// The virtual machine that has the address, where it was named instead of the address.
    pub(super) vm: Option<VmKey>,
}

/// A virtual machine of which no address, or not every one, could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unresolved {
    pub(super) vm: VmKey,
    pub(super) reason: String,
}

/// The addresses of `targets`, in their order. The cluster is asked only where one of them is a
/// virtual machine.
pub(super) fn recipients(targets: Vec<Target>) -> anyhow::Result<Recipients> {
    let key = |target: &Target| match target {
        Target::Vm(key) => Some(key.clone()),
        Target::Mac(_) => None,
    };
    let keys: Vec<VmKey> = targets.iter().filter_map(key).collect();
    let mut answers = if keys.is_empty() {
        HashMap::new()
    } else {
        runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the async runtime")?
            .block_on(ask(keys))
    };
    let mut recipients = Recipients::default();
    for target in targets {
        match target {
            Target::Mac(mac) => recipients.found.push(Recipient { mac, vm: None }),
            Target::Vm(key) => {
                if let Some(answer) = answers.remove(&key) {
                    recipients.take(&key, answer);
                }
            }
        }
    }
    Ok(recipients)
}

/// A virtual machine, or why it cannot be read.
type Answer = Result<VirtualMachine, String>;

/// Reads virtual machines; each gets an answer.
async fn ask(keys: Vec<VmKey>) -> HashMap<VmKey, Answer> {
    match connect().await {
        Ok((client, server)) => read_all(&client, &server, keys).await,
        Err(error) => {
            let why = format!("{error:#}");
            let answer = |key| (key, Err(why.clone()));
            keys.into_iter().map(answer).collect()
        }
    }
}

async fn connect() -> anyhow::Result<(Client, Uri)> {
    let config = cluster::config().await?;
    let server = config.cluster_url.clone();
    Ok((cluster::client(config)?, server))
}

async fn read_all(client: &Client, server: &Uri, keys: Vec<VmKey>) -> HashMap<VmKey, Answer> {
    let deadline = Instant::now() + PATIENCE;
    let read = async |key: VmKey| {
        let api = Api::<VirtualMachine>::namespaced(client.clone(), &key.namespace);
        let answer = match tokio::time::timeout_at(deadline, api.get(&key.name)).await {
            Ok(Ok(vm)) => Ok(vm),
            Ok(Err(error)) => Err(describe(&error, &key, server)),
            Err(_) => Err(format!(
                "the API server at {server} did not answer within {PATIENCE:?}; is it the right \
                 cluster? KUBECONFIG names it"
            )),
        };
        (key, answer)
    };
    stream::iter(keys)
        .map(read)
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await
}

/// Why a virtual machine cannot be read, and what to do.
fn describe(error: &kube::Error, key: &VmKey, server: &Uri) -> String {
    let VmKey { namespace, name } = key;
    let kube::Error::Api(status) = error else {
        let why = cluster::chain(error);
        return format!(
            "cannot ask the API server at {server}: {why}; is it the right cluster? KUBECONFIG \
             names it"
        );
    };
    match status.code {
        404 if status.reason == "NotFound" => format!(
            "there is no virtual machine {name} in namespace {namespace} of the cluster at \
             {server}; list them with: kubectl get virtualmachines --all-namespaces"
        ),
        // In plain text: nobody serves this group.
        404 => format!(
            "KubeVirt is not installed in the cluster at {server}; is it the right one? \
             KUBECONFIG names it"
        ),
        401 => format!(
            "the API server at {server} does not accept the credentials of the kubeconfig: log in \
             again"
        ),
        403 => format!(
            "not allowed to read it: {}; ask for the right to get virtualmachines.kubevirt.io",
            status.message
        ),
        code => format!(
            "the API server at {server} answered {code}: {}",
            status.message
        ),
    }
}

impl Recipients {
    /// Takes in what is known of a virtual machine.
    fn take(&mut self, key: &VmKey, answer: Answer) {
        let why = match answer {
            Ok(vm) => self.take_addresses(key, &vm),
            Err(why) => Some(why),
        };
        self.unresolved.extend(why.map(|reason| Unresolved {
            vm: key.clone(),
            reason,
        }));
    }

    /// Takes in the addresses of a virtual machine; tells what is wrong with them.
    fn take_addresses(&mut self, key: &VmKey, vm: &VirtualMachine) -> Option<String> {
        let addresses = vm.addresses();
        self.found
            .extend(addresses.macs.iter().map(|&mac| Recipient {
                mac,
                vm: Some(key.clone()),
            }));
        let VmKey { namespace, name } = key;
        let edit = format!("kubectl --namespace {namespace} edit virtualmachine {name}");
        if !addresses.unusable.is_empty() {
            let texts = addresses.unusable.iter().map(|text| format!("{text:?}"));
            let texts = texts.collect::<Vec<_>>().join(", ");
            return Some(format!(
                "in its spec, {texts} cannot be a machine's MAC address; write one like \
                 52:54:00:12:34:56 with: {edit}"
            ));
        }
        if let Some(field) = vm.malformed {
            return Some(format!(
                "its {field} has not the type that it should have; correct it with: {edit}"
            ));
        }
        addresses.macs.is_empty().then(|| {
            format!(
                "its spec has no MAC address, so it gets a new one at each boot and no packet can \
                 name it; set spec.template.spec.domain.devices.interfaces[].macAddress with: \
                 {edit}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use http::{Request, Response};
    use kube::{Client, client::Body};
    use serde_json::{Value, json};

    use super::{PATIENCE, Recipients, VmKey, read_all, recipients};

    fn taken(spec: &Value) -> (Vec<String>, Vec<String>) {
        let devices = json!({"domain": {"devices": {"interfaces": spec}}});
        let vm = json!({"spec": {"template": {"spec": devices}}}).to_string();
        let mut recipients = Recipients::default();
        let vm = serde_json::from_str(&vm).unwrap();
        recipients.take(&VmKey::new("shop", "web"), Ok(vm));
        let macs = recipients.found.iter().map(|one| one.mac.to_string());
        let reasons = recipients.unresolved.into_iter().map(|one| one.reason);
        (macs.collect(), reasons.collect())
    }

    #[test]
    fn every_address_of_a_spec_gets_a_packet() {
        let (macs, reasons) = taken(&json!([
            {"macAddress": "52-54-00-00-00-01"},
            {},
            {"macAddress": "52:54:00:00:00:02"},
            {"macAddress": "52:54:00:00:00:01"},
            {"macAddress": "52:54:00:00:00:03", "state": "absent"},
        ]));
        assert_eq!(macs, ["52:54:00:00:00:01", "52:54:00:00:00:02"]);
        assert_eq!(reasons, [""; 0]);
    }

    #[test]
    fn what_is_wrong_with_a_spec_is_told_and_the_rest_is_used() {
        for (spec, sent, told) in [
            (json!([]), 0, "new one at each boot"),
            (
                json!([{"macAddress": "eth0"}]),
                0,
                r#"in its spec, "eth0" cannot be"#,
            ),
            (
                json!([{"macAddress": "52:54:00:00:00:01"}, {"macAddress": "ff:ff:ff:ff:ff:ff"}]),
                1,
                r#"in its spec, "ff:ff:ff:ff:ff:ff" cannot be"#,
            ),
            (
                json!([{"macAddress": "52:54:00:00:00:01"}, {"macAddress": 7}]),
                1,
                "interfaces[].macAddress has not the type",
            ),
        ] {
            let (macs, reasons) = taken(&spec);
            assert_eq!(macs.len(), sent, "{spec}");
            assert_eq!(reasons.len(), 1, "{spec}");
            assert!(reasons[0].contains(told), "{}", reasons[0]);
            let remedy = "kubectl --namespace shop edit virtualmachine web";
            assert!(reasons[0].ends_with(remedy), "{}", reasons[0]);
        }
    }

    #[test]
    fn addresses_need_no_cluster() {
        let target = "52:54:00:00:00:01".parse().unwrap();
        let recipients = recipients(vec![target]).unwrap();
        assert_eq!(recipients.found[0].vm, None);
        assert_eq!(recipients.unresolved, []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_waited_for_once_however_many_are_asked_for() {
        let hangs = tower::service_fn(|_: Request<Body>| pending::<Result<Response<Body>, _>>());
        let hangs = tower::ServiceBuilder::new()
            .map_err(|never: std::convert::Infallible| never)
            .service(hangs);
        let server = "https://api.example:6443/".parse().unwrap();
        let keys = (0..50).map(|i| VmKey::new("shop", &format!("web-{i}")));
        let begin = tokio::time::Instant::now();
        let answers = read_all(&Client::new(hangs, "default"), &server, keys.collect()).await;
        assert_eq!(begin.elapsed(), PATIENCE);
        assert_eq!(answers.len(), 50);
        for answer in answers.into_values() {
            let why = answer.unwrap_err();
            assert!(why.contains("https://api.example:6443/"), "{why}");
        }
    }
}
