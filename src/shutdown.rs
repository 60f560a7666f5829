//! Owns how the process ends: signals, and the tasks that must not end before it.

use std::{fmt::Display, future::Future};

use anyhow::{Context as _, anyhow};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Cancels `token` on the first SIGTERM or SIGINT and ends the process on the second.
///
/// # Errors
///
/// The signal handlers cannot be installed.
pub async fn on_signal(token: CancellationToken) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    for first in [true, false] {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        if first {
            tracing::info!("shutting down; a second signal aborts");
            token.cancel();
        }
    }
    tracing::warn!("aborted by a second signal");
    std::process::exit(1);
}

/// The long-lived tasks of a process. One that ends before shutdown takes the process with it:
/// half a manager that looks alive is worse than none.
pub struct Tasks {
    set: JoinSet<(String, anyhow::Result<()>)>,
    token: CancellationToken,
}

impl Tasks {
    /// Makes an empty set that ends when `token` is cancelled.
    #[must_use]
    pub fn new(token: CancellationToken) -> Self {
        Self {
            set: JoinSet::new(),
            token,
        }
    }

    /// Starts a task. It must return soon after the token is cancelled, and not before.
    pub fn spawn<F>(&mut self, name: impl Display, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let name = name.to_string();
        self.set.spawn(async move { (name, task.await) });
    }

    /// Waits until all tasks have ended.
    ///
    /// # Errors
    ///
    /// A task failed, panicked, or ended although nobody had asked it to; the first one is told.
    pub async fn join(mut self) -> anyhow::Result<()> {
        let mut first = Ok(());
        while let Some(ended) = self.set.join_next().await {
            let asked = self.token.is_cancelled();
            let result = match ended {
                Ok((name, Err(error))) => Err(error.context(format!("task {name} failed"))),
                Ok((name, Ok(()))) if !asked => Err(anyhow!("task {name} ended before shutdown")),
                Ok(_) => Ok(()),
                Err(error) => Err(anyhow!("a task panicked: {error}")),
            };
            if result.is_err() {
                self.token.cancel();
                if first.is_ok() {
                    first = result;
                }
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_early_ends_all_and_is_named() {
        let token = CancellationToken::new();
        let mut tasks = Tasks::new(token.clone());
        tasks.spawn("waker", async { Ok(()) });
        let other = token.clone();
        tasks.spawn("agents", async move {
            other.cancelled().await;
            Ok(())
        });
        let error = tasks.join().await.unwrap_err().to_string();
        assert_eq!(error, "task waker ended before shutdown");
        assert!(token.is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_fails_ends_all_and_is_named_with_its_reason() {
        let token = CancellationToken::new();
        let mut tasks = Tasks::new(token.clone());
        tasks.spawn("agents", async { Err(anyhow!("the port is gone")) });
        let error = format!("{:#}", tasks.join().await.unwrap_err());
        assert_eq!(error, "task agents failed: the port is gone");
        assert!(token.is_cancelled());
    }

    #[tokio::test]
    async fn tasks_that_end_when_asked_are_no_error() {
        let token = CancellationToken::new();
        let mut tasks = Tasks::new(token.clone());
        let asked = token.clone();
        tasks.spawn("waker", async move {
            asked.cancelled().await;
            Ok(())
        });
        token.cancel();
        tasks.join().await.unwrap();
    }
}
