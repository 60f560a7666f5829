//! The pods of the manifests, and what their containers say to the program.

use std::path::Path;

use clap::{CommandFactory as _, Parser as _};
use kubevirt_wol::cli::{Cli, Command};
use serde_json::Value;

/// Where all of it is.
pub(crate) const NAMESPACE: &str = "kubevirt-wol-system";

/// What the agents' pods are made from.
pub(crate) fn agent_pod() -> Value {
    super::agents()["spec"]["template"]["spec"].clone()
}

/// What the managers' pods are made from.
pub(crate) fn manager_pod() -> Value {
    super::managers()["spec"]["template"]["spec"].clone()
}

/// The arguments of its one container.
pub(crate) fn arguments(pod: &Value) -> Vec<String> {
    let [container] = &**pod["containers"].as_array().unwrap() else {
        panic!("one container: {pod}");
    };
    serde_json::from_value(container["args"].clone()).unwrap()
}

/// What the program makes of `words` and of the environment of the pod's container.
pub(crate) fn command(pod: &Value, words: &[String]) -> Command {
    let all = Cli::command();
    let subcommand = all.find_subcommand(&words[0]).expect("a subcommand");
    let container = &pod["containers"][0];
    let mut line = vec!["kubevirt-wol".to_owned()];
    line.extend_from_slice(words);
    for variable in container["env"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().unwrap();
        let is_twin = |a: &&clap::Arg| a.get_env().is_some_and(|env| env == name);
        match subcommand.get_arguments().find(is_twin) {
            Some(option) => {
                let long = option.get_long().unwrap();
                line.push(format!("--{long}={}", value(variable)));
            }
            // The manager's pod has it for `check`, which people run there.
            None => assert!(
                words[0] == "probe" || (words[0] == "manager" && name == "WOL_CA_FILE"),
                "{name} is no variable of {}",
                subcommand.get_name()
            ),
        }
    }
    let parsed = Cli::try_parse_from(&line);
    parsed
        .unwrap_or_else(|error| panic!("{line:?}: {error}"))
        .command
}

/// What kubelet makes of a variable.
fn value(variable: &Value) -> String {
    if let Some(value) = variable["value"].as_str() {
        return value.to_owned();
    }
    let path = &variable["valueFrom"]["fieldRef"]["fieldPath"];
    match path.as_str().unwrap() {
        "spec.nodeName" => "node-1".into(),
        "metadata.name" => "pod-1".into(),
        "metadata.namespace" => NAMESPACE.into(),
        other => panic!("what is {other}?"),
    }
}

/// The volume that is mounted at a directory.
pub(crate) fn volume(pod: &Value, directory: &Path) -> Value {
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    let at = |m: &&Value| Path::new(m["mountPath"].as_str().unwrap()) == directory;
    let mount = mounts.iter().find(at).expect("something is mounted there");
    let volumes = pod["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|v| v["name"] == mount["name"]);
    volume.expect("the volume is there").clone()
}
