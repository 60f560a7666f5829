//! Owns how the process ends: signals, the tasks that must not end before it, and how long that may
//! take.

use std::{
    collections::HashMap, convert::Infallible, fmt::Display, future::Future, pin::pin,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::{Id, JoinError, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// What is under way when the end is asked for gets this long: calls in flight, and wakes on their
/// way to a manager.
pub const DRAIN: Duration = Duration::from_secs(10);

/// After this time the process ends, whoever still runs.
pub const WITHIN: Duration = Duration::from_secs(14);

/// What a manifest has to allow at least, in `terminationGracePeriodSeconds`: who is killed says
/// nothing.
pub const GRACE: Duration = Duration::from_secs(15);

/// SIGTERM and SIGINT, which kill the process no longer from the moment that this exists.
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Listens for them. To be called within the runtime, before anything begins that must not be
    /// left unfinished.
    ///
    /// # Errors
    ///
    /// The signal handlers cannot be installed.
    pub fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            int: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    /// Cancels `token` on the first and ends the process on the second.
    pub async fn obey(mut self, token: CancellationToken) -> Infallible {
        self.next().await;
        tracing::info!("shutting down; a second signal aborts");
        token.cancel();
        self.next().await;
        tracing::warn!("aborted by a second signal");
        std::process::exit(1);
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// The long-lived tasks of a process. One that ends before shutdown takes the process with it:
/// half a manager that looks alive is worse than none.
pub struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, String>,
    token: CancellationToken,
}

impl Tasks {
    /// Makes an empty set that ends when `token` is cancelled.
    #[must_use]
    pub fn new(token: CancellationToken) -> Self {
        Self {
            set: JoinSet::new(),
            names: HashMap::new(),
            token,
        }
    }

    /// Starts a task. It must return soon after the token is cancelled, and not before.
    pub fn spawn<F>(&mut self, name: impl Display, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let task = self.set.spawn(task);
        self.names.insert(task.id(), name.to_string());
    }

    /// Waits until all tasks have ended, after the end was asked for no longer than [`WITHIN`].
    ///
    /// # Errors
    ///
    /// A task failed, panicked, ended although nobody had asked it to, or did not end in time; the
    /// first one is told.
    pub async fn join(mut self) -> anyhow::Result<()> {
        let mut first = Ok(());
        let token = self.token.clone();
        let mut late = pin!(async {
            token.cancelled().await;
            sleep(crate::pace::of(WITHIN)).await;
        });
        loop {
            let ended = tokio::select! {
                biased;
                ended = self.set.join_next_with_id() => ended,
                () = &mut late => return first.and(Err(self.late())),
            };
            let Some(ended) = ended else { return first };
            let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            let name = self.names.remove(&id).unwrap_or_default();
            let asked = self.token.is_cancelled();
            let result = match ended {
                Ok((_, Err(error))) => Err(error.context(format!("task {name} failed"))),
                Ok((_, Ok(()))) if !asked => Err(anyhow!("task {name} ended before shutdown")),
                Ok(_) => Ok(()),
                Err(error) => Err(anyhow!("task {name} panicked: {error}")),
            };
            if result.is_err() {
                self.token.cancel();
                if first.is_ok() {
                    first = result;
                }
            }
        }
    }

    /// Tells who still runs.
    fn late(&self) -> anyhow::Error {
        let mut tasks: Vec<_> = self.names.values().map(String::as_str).collect();
        tasks.sort_unstable();
        let tasks = tasks.join(", ");
        tracing::error!(
            tasks,
            "these tasks did not end in time; ending without them"
        );
        let within = crate::pace::of(WITHIN);
        anyhow!("not ended within {within:?} of being asked to: {tasks}")
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

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

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_named_and_not_waited_for_without_end() {
        let token = CancellationToken::new();
        let mut tasks = Tasks::new(token.clone());
        let asked = token.clone();
        tasks.spawn("waker", async move {
            asked.cancelled().await;
            Ok(())
        });
        for name in ["status", "leader"] {
            tasks.spawn(name, std::future::pending());
        }
        // However long it has run before.
        let ask = async {
            sleep(WITHIN * 2).await;
            token.cancel();
            Instant::now()
        };
        let (result, asked) = tokio::join!(tasks.join(), ask);
        let error = result.unwrap_err().to_string();
        assert_eq!(
            error,
            "not ended within 14s of being asked to: leader, status"
        );
        assert_eq!(asked.elapsed(), WITHIN);
    }

    #[tokio::test]
    async fn a_task_that_panics_is_named() {
        let token = CancellationToken::new();
        let mut tasks = Tasks::new(token.clone());
        tasks.spawn("waker", async { panic!("it broke") });
        let error = tasks.join().await.unwrap_err().to_string();
        assert!(error.starts_with("task waker panicked"), "{error}");
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
