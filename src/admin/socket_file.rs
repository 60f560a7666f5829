//! Owns [`SocketFile`]: a listener in the file system, which kubelet's probes reach without any port of
//! the node, so that two agents of one node can be asked at the same time.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use axum::serve::Listener;
use nix::errno::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream, unix::SocketAddr};

/// A socket that listens at a path; the file goes with this value.
#[derive(Debug)]
pub struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
}

impl SocketFile {
    /// Makes the file, which only the user of this process can use, in place of one that a dead
    /// process has left. To be called within the runtime.
    ///
    /// # Errors
    ///
    /// Another process listens there, the file is no socket, or it cannot be made.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path).with_context(|| {
            format!(
                "cannot make the socket {} for /livez and /readyz; --health-socket needs a directory \
                 that exists and that this user may write to",
                path.display()
            )
        })?;
        let file = Self {
            listener,
            path: path.to_owned(),
        };
        fs::set_permissions(path, Permissions::from_mode(0o600))
            .with_context(|| format!("cannot keep others from the socket {}", path.display()))?;
        Ok(file)
    }
}

impl Listener for SocketFile {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        Listener::accept(&mut self.listener).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // What stays is replaced by the next one.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes the socket of a process that has ended without doing so.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(format!("cannot look at {shown}")),
        Ok(file) if !file.file_type().is_socket() => {
            bail!("{shown} is there and is no socket; give another file with --health-socket")
        }
        Ok(_) if is_alive(path)? => {
            bail!("another agent listens on {shown}; give each its own with --health-socket")
        }
        Ok(_) => {}
    }
    fs::remove_file(path).with_context(|| format!("cannot remove {shown}, which a dead agent left"))
}

/// Whether somebody listens there, be it one who is too busy to answer.
fn is_alive(path: &Path) -> io::Result<bool> {
    let visitor = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let connected = visitor.connect(&SockAddr::unix(path)?);
    let refused = Some(Errno::ECONNREFUSED as i32);
    Ok(connected
        .err()
        .is_none_or(|error| error.raw_os_error() != refused))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdListener;

    use super::*;

    fn error(path: &Path) -> String {
        format!("{:#}", SocketFile::bind(path).unwrap_err())
    }

    #[tokio::test]
    async fn it_is_for_its_user_alone_and_goes_with_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health.sock");
        let socket = SocketFile::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_dead_agent_left_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health.sock");
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists(), "a process that was killed leaves it");
        let living = SocketFile::bind(&path).unwrap();
        let words = error(&path);
        assert!(
            words.contains("another agent listens on") && words.contains("--health-socket"),
            "{words}"
        );
        assert!(is_alive(&path).unwrap(), "it is left alone");
        drop(living);
    }

    #[tokio::test]
    async fn other_files_are_never_removed_and_missing_directories_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "dear diary").unwrap();
        assert!(error(&path).contains("is no socket"));
        assert!(path.exists());
        let nowhere = folder.path().join("missing/health.sock");
        let words = error(&nowhere);
        assert!(
            words.contains("missing/health.sock") && words.contains("directory"),
            "{words}"
        );
    }
}
