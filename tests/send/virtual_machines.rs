//! `send` to virtual machines, on the API stand-in.

use std::{fs, io, net::Ipv4Addr, path::Path, process::Output};

use serde_json::Value;

use super::{
    PROGRAM, VM, command,
    common::{
        apiserver::{Fault, When},
        cluster::Cluster,
        kubevirt::vm::vm,
    },
    heard, listener, magic, stderr, stdout,
};

/// One copy to a listener on loopback, with this kubeconfig.
fn send_with(kubeconfig: &Path, port: &str, args: &[&str]) -> Output {
    let mut command = command(&["--broadcast=127.0.0.1", "--count=1", "--port", port]);
    command.args(args).env("KUBECONFIG", kubeconfig);
    command.output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_machine_gets_a_packet_for_each_of_its_addresses() {
    let cluster = Cluster::stand_in(Path::new(PROGRAM)).await;
    cluster.namespace("shop").await;
    let web = vm("shop", "web")
        .mac("52-54-00-00-00-01")
        .interface_without_mac()
        .mac("52:54:00:00:00:02")
        .unplugged("52:54:00:00:00:03");
    let db = vm("shop", "db").mac("52:54:00:00:00:04");
    cluster.kubevirt.add(&web).await;
    cluster.kubevirt.add(&db).await;
    let (socket, port) = listener(Ipv4Addr::LOCALHOST);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "# the shop\nvm/shop/db\nvm/shop/web\n").unwrap();
    let list = file.path().to_str().unwrap();

    let args = ["vm/shop/web", VM, "--file", list];
    let output = send_with(cluster.kubeconfig(), &port, &args);
    assert!(output.status.success(), "{}", stderr(&output));
    let line = |mac: &str| format!("sent    {mac} to 127.0.0.1:{port}, 1 x 102 bytes\n");
    let told = [
        line("52:54:00:00:00:01 (vm/shop/web)"),
        line("52:54:00:00:00:02 (vm/shop/web)"),
        line(VM),
        line("52:54:00:00:00:04 (vm/shop/db)"),
    ];
    assert_eq!(stdout(&output), told.concat());
    for last in [1, 2] {
        assert_eq!(heard(&socket), magic([0x52, 0x54, 0, 0, 0, last]));
    }
    assert_eq!(heard(&socket), magic([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    assert_eq!(heard(&socket), magic([0x52, 0x54, 0, 0, 0, 4]));

    let args = ["vm/shop/db", "--dry-run", "--json"];
    let output = send_with(cluster.kubeconfig(), &port, &args);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["results"][0]["status"], "planned");
    assert_eq!(report["results"][0]["vm"], "shop/db");
    assert_eq!(report["results"][0]["target"], "52:54:00:00:00:04");
    socket.set_nonblocking(true).unwrap();
    let error = socket.recv(&mut [0; 2048]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_machine_that_cannot_be_woken_is_told_and_the_others_are_sent_to() {
    let cluster = Cluster::stand_in(Path::new(PROGRAM)).await;
    cluster.namespace("shop").await;
    let bare = vm("shop", "bare").interface_without_mac();
    let odd = vm("shop", "odd").mac("ff:ff:ff:ff:ff:ff");
    cluster.kubevirt.add(&bare).await;
    cluster.kubevirt.add(&odd).await;
    let (socket, port) = listener(Ipv4Addr::LOCALHOST);
    let told = [
        (
            "vm/shop/nope",
            "there is no virtual machine nope in namespace shop",
        ),
        ("vm/shop/bare", "its spec has no MAC address"),
        (
            "vm/shop/odd",
            "in its spec, \"ff:ff:ff:ff:ff:ff\" cannot be a machine's MAC address",
        ),
    ];
    for (target, why) in told {
        let output = send_with(cluster.kubeconfig(), &port, &[target]);
        assert_eq!(output.status.code(), Some(1), "{target}");
        let line = format!("failed  {target}: {why}");
        assert!(stdout(&output).starts_with(&line), "{}", stdout(&output));
        assert!(stderr(&output).contains("nothing could be sent"));
    }

    let targets = ["vm/shop/nope", "vm/shop/bare", "vm/shop/odd", VM, "--json"];
    let output = send_with(cluster.kubeconfig(), &port, &targets);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(heard(&socket), magic([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["results"].as_array().unwrap().len(), 1);
    let named = |at: usize| report["unresolvedVms"][at]["vm"].clone();
    assert_eq!(
        [named(0), named(1), named(2)],
        ["shop/nope", "shop/bare", "shop/odd"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_cluster_is_told_with_what_to_do() {
    let cluster = Cluster::stand_in(Path::new(PROGRAM)).await;
    let server = cluster.server().unwrap();
    let (_socket, port) = listener(Ipv4Addr::LOCALHOST);
    let tell = || {
        let output = send_with(cluster.kubeconfig(), &port, &["vm/shop/web"]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        stdout(&output)
    };
    let unauthorized = server
        .faults()
        .add(When::path("virtualmachines"), Fault::unauthorized());
    let told = tell();
    assert!(told.contains("does not accept the credentials"), "{told}");
    server.faults().remove(unauthorized);

    cluster.kubevirt.uninstall().await;
    let told = tell();
    assert!(told.contains("KubeVirt is not installed"), "{told}");
    assert!(told.contains(&server.url()), "{told}");

    server.kill().await;
    let told = tell();
    assert!(told.contains("Connection refused"), "{told}");
    assert!(told.contains("KUBECONFIG"), "{told}");
}

#[test]
fn without_a_kubeconfig_the_variable_is_named_and_addresses_are_sent_to() {
    let (socket, port) = listener(Ipv4Addr::LOCALHOST);
    let missing = Path::new("/nonexistent/kubeconfig");
    let output = send_with(missing, &port, &["vm/shop/web", VM]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(heard(&socket).len(), 102);
    let told = stdout(&output);
    let line = "failed  vm/shop/web: cannot use kubeconfig /nonexistent/kubeconfig";
    assert!(told.contains(line), "{told}");

    let home = tempfile::tempdir().unwrap();
    let output = command(&["vm/shop/web"])
        .env_remove("KUBECONFIG")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env("HOME", home.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = stdout(&output);
    assert!(
        told.contains("set KUBECONFIG to a kubeconfig file"),
        "{told}"
    );
}
