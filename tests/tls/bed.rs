//! Managers and agents with certificates, and the directories that these are in.

use std::{
    fs,
    ops::Deref,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::common::{
    cluster::{Agent, Cluster, Manager, SOON, eventually, get},
    pki::{Authority, Leaf},
    process::{Process, free_tcp, free_udp},
};

/// The name that managers are called by.
pub(crate) const NAME: &str = "kubevirt-wol-grpc.test.svc";

/// A directory as kubelet keeps it: all files change in one moment.
/// Clones are the same one.
#[derive(Clone)]
pub(crate) struct Mount {
    directory: Arc<tempfile::TempDir>,
    version: Arc<AtomicU32>,
}

impl Mount {
    /// Without any file yet.
    pub(crate) fn empty() -> Self {
        Self {
            directory: Arc::new(tempfile::tempdir().unwrap()),
            version: Arc::default(),
        }
    }

    /// With a server's certificate by this authority.
    pub(crate) fn server(authority: &Authority) -> Self {
        let mount = Self::empty();
        mount.leaf(&authority.server(&[NAME]));
        mount
    }

    /// With the certificate of a node's agent.
    pub(crate) fn agent(authority: &Authority, node: &str) -> Self {
        let mount = Self::empty();
        mount.leaf(&authority.agent(node));
        mount
    }

    /// With a bundle of one authority.
    pub(crate) fn bundle(authority: &Authority) -> Self {
        let mount = Self::empty();
        mount.put(&[("ca.crt", &authority.pem)]);
        mount
    }

    pub(crate) fn leaf(&self, leaf: &Leaf) {
        self.put(&[("tls.crt", &leaf.pem), ("tls.key", &leaf.key_pem)]);
    }

    /// Replaces all files by these.
    pub(crate) fn put(&self, files: &[(&str, &str)]) {
        let version = self.version.fetch_add(1, Ordering::Relaxed);
        let root = self.directory.path();
        let data = format!("..{version}");
        fs::create_dir(root.join(&data)).unwrap();
        for (name, text) in files {
            fs::write(root.join(&data).join(name), text).unwrap();
            if !root.join(name).is_symlink() {
                symlink(Path::new("..data").join(name), root.join(name)).unwrap();
            }
        }
        symlink(&data, root.join("..new")).unwrap();
        fs::rename(root.join("..new"), root.join("..data")).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn text(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_kubevirt-wol");

/// A manager, and what it reads.
pub(crate) struct Serving {
    manager: Manager,
    _mount: Mount,
}

impl Deref for Serving {
    type Target = Manager;

    fn deref(&self) -> &Manager {
        &self.manager
    }
}

/// A manager with certificates in a directory, that is not waited for.
pub(crate) fn manager_at(c: &Cluster, mount: &Mount, flags: &[&str]) -> Serving {
    let directory = mount.text();
    let mut args = vec!["--tls-dir", &directory, "--tls-reload-interval", "50ms"];
    args.extend(flags);
    Serving {
        manager: bare_manager(c, &args),
        _mount: mount.clone(),
    }
}

/// A manager with these flags alone, that is not waited for.
pub(crate) fn bare_manager(c: &Cluster, flags: &[&str]) -> Manager {
    let (grpc, admin) = (free_tcp(), free_tcp());
    let (grpc_text, admin_text) = (grpc.to_string(), admin.to_string());
    let mut command = std::process::Command::new(PROGRAM);
    command.args(["manager", "--namespace", "default"]);
    command.args(["--grpc-bind", &grpc_text, "--admin-bind", &admin_text]);
    command.args(flags).env("KUBECONFIG", c.kubeconfig());
    Manager {
        process: Process::spawn_command("manager", command),
        grpc,
        admin,
    }
}

/// A manager with certificates in a directory, that is ready.
pub(crate) async fn manager(c: &Cluster, mount: &Mount) -> Serving {
    let manager = manager_at(c, mount, &[]);
    manager.ready().await;
    manager
}

/// An agent that checks managers by this bundle, and where it tells its metrics.
pub(crate) struct Checking {
    pub(crate) agent: Agent,
    admin: std::net::SocketAddr,
    /// What it reads.
    bundle: Option<Mount>,
}

/// An agent with the token of a pod of its own.
pub(crate) fn agent(
    c: &Cluster,
    node: &str,
    manager: &Manager,
    bundle: &Mount,
    flags: &[&str],
) -> Checking {
    let (pod, _) = c.security.of_agent(node);
    let token = pod.as_ref().unwrap().token_file();
    let file = bundle.file("ca.crt");
    let mut args = vec!["--ca-file", file.to_str().unwrap(), "--server-name", NAME];
    args.extend(["--token-file", token.to_str().unwrap()]);
    args.extend(flags);
    let mut checking = bare_agent(node, manager, &args);
    checking.agent.pod = pod;
    checking.bundle = Some(bundle.clone());
    checking
}

pub(crate) fn bare_agent(node: &str, manager: &Manager, flags: &[&str]) -> Checking {
    let (admin, port) = (free_tcp(), free_udp());
    let mut command = std::process::Command::new(PROGRAM);
    command.args(["agent", "--no-raw", "--node-name", node]);
    command.args(["--manager", &manager.grpc.to_string()]);
    command.args(["--wol-port", &port.to_string()]);
    command
        .args(["--admin-bind", &admin.to_string()])
        .args(flags);
    let agent = Agent {
        process: Process::spawn_command(node, command),
        node: node.to_owned(),
        port,
        pod: None,
    };
    Checking {
        agent,
        admin,
        bundle: None,
    }
}

impl Checking {
    /// Waits until it has said why it has no session, and has counted that.
    pub(crate) async fn complains(&self, words: &str, reason: &str) {
        let process = &self.agent.process;
        process.wait_for(words, SOON, |line| line.message().contains(words));
        eventually(&format!("{reason} is counted"), async || {
            self.failures(reason) > 0
        })
        .await;
        assert_eq!(get(self.admin, "/livez").unwrap().0, 200, "it lives on");
        assert_eq!(get(self.admin, "/readyz").unwrap().0, 503, "unready");
    }

    /// Sessions that failed for this reason.
    pub(crate) fn failures(&self, reason: &str) -> u64 {
        let series =
            format!(r#"kubevirt_wol_agent_connection_failures_total{{reason="{reason}"}}"#);
        self.metric(&series)
    }

    pub(crate) fn metric(&self, series: &str) -> u64 {
        let Some((_, text)) = get(self.admin, "/metrics") else {
            return 0;
        };
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.expect(series).parse().unwrap()
    }
}

/// Connections to a manager that began like this.
pub(crate) fn handshakes(manager: &Manager, outcome: &str) -> f64 {
    manager.metric(&format!(
        r#"kubevirt_wol_handshakes_total{{outcome="{outcome}"}}"#
    ))
}
