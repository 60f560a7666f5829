//! The real kubectl, which lies beside the programs of a real API server.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{cluster::Cluster, skip::skipped};

/// The program, and a folder for what it keeps.
pub struct Kubectl {
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Kubectl {
    /// The program; none, told loudly, where there is none.
    pub fn find() -> Option<Self> {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS");
        let program = assets.map(|assets| Path::new(&assets).join("kubectl"));
        let Some(program) = program.filter(|program| program.is_file()) else {
            skipped("KUBEBUILDER_ASSETS names no directory with kubectl");
            return None;
        };
        let folder = tempfile::tempdir().expect("a directory can be made");
        Some(Self { program, folder })
    }

    /// A folder that goes with this value.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// It, run by an administrator of `cluster` in the folder of the project.
    pub fn command(&self, cluster: &Cluster) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("KUBECONFIG", cluster.kubeconfig())
            // Where it keeps what it has learnt of the API.
            .env("KUBECACHEDIR", self.folder())
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    }

    /// What it prints, run by an administrator of `cluster` in the folder of the project.
    ///
    /// # Panics
    ///
    /// It fails, or warns.
    pub fn run(&self, cluster: &Cluster, args: &[&str]) -> String {
        let output = self.command(cluster).args(args).output();
        let output = output.expect("kubectl can be started");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {args:?}: {errors}");
        assert_eq!(errors, "", "kubectl {args:?} warns");
        String::from_utf8(output.stdout).expect("it prints UTF-8")
    }
}
