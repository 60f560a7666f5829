//! Owns [`Readers`]: whether agents take what they are sent. A session is a stream that the transport
//! polls; one whose agent does not read is not polled and cannot end by itself, but keeps its place, its
//! events and its node's name among the connected ones. So its connection is cut.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A message that an agent has not taken after this time never will be.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// The sessions, and since when each has had something in hand for its agent.
#[derive(Debug, Default)]
pub struct Readers(Mutex<(u64, HashMap<u64, Arc<Reader>>)>);

/// Whether one agent reads.
#[derive(Debug)]
pub struct Reader {
    /// When it was handed the last message; none once the transport asks for the next.
    handed: Mutex<Option<Instant>>,
    /// Cuts the connection.
    cut: CancellationToken,
    late: AtomicBool,
}

impl Readers {
    /// Takes a session in whose connection `cut` ends.
    #[must_use]
    pub fn add(self: &Arc<Self>, cut: CancellationToken) -> Reading {
        let reader = Arc::new(Reader {
            handed: Mutex::default(),
            cut,
            late: AtomicBool::new(false),
        });
        let mut readers = self.lock();
        readers.0 += 1;
        let number = readers.0;
        readers.1.insert(number, reader.clone());
        Reading {
            readers: self.clone(),
            number,
            reader,
        }
    }

    /// Cuts the connections of those that have not taken a message for too long.
    pub fn cut_late(&self) {
        let now = Instant::now();
        for reader in self.lock().1.values() {
            let handed = *reader.handed();
            if handed.is_some_and(|at| now.saturating_duration_since(at) > TAKEN_WITHIN) {
                reader.late.store(true, Ordering::Relaxed);
                reader.cut.cancel();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<u64, Arc<Reader>>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    fn handed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session among the [`Readers`]; dropping it leaves.
#[derive(Debug)]
pub struct Reading {
    readers: Arc<Readers>,
    number: u64,
    reader: Arc<Reader>,
}

impl Reading {
    /// Whether the connection was cut because its agent does not read.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.reader.late.load(Ordering::Relaxed)
    }

    /// What watches over the messages of the session.
    #[must_use]
    pub fn tap(&self) -> Tap {
        Tap(self.reader.clone())
    }
}

/// Watches over messages.
#[derive(Debug)]
pub struct Tap(Arc<Reader>);

impl Tap {
    /// Hands `messages` on.
    pub fn over<S: Stream>(self, messages: S) -> Taken<S> {
        Taken {
            messages: Box::pin(messages),
            reader: self.0,
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.readers.lock().1.remove(&self.number);
    }
}

/// The messages of a session, of which is known when each is taken.
pub struct Taken<S> {
    messages: Pin<Box<S>>,
    reader: Arc<Reader>,
}

impl<S: Stream> Stream for Taken<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        *self.reader.handed() = None;
        let next = self.messages.as_mut().poll_next(context);
        if let Poll::Ready(Some(_)) = &next {
            *self.reader.handed() = Some(Instant::now());
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_who_does_not_take_what_is_in_hand_is_late() {
        let readers = Arc::new(Readers::default());
        let (cuts, mut messages): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| {
                let cut = CancellationToken::new();
                let reading = readers.add(cut.clone());
                let messages = reading
                    .tap()
                    .over(stream::iter(0..2).chain(stream::pending()));
                (cut, (reading, messages))
            })
            .unzip();
        for (_, messages) in &mut messages {
            messages.next().await;
        }
        // The first takes all there is, and then waits, as a session without news does.
        messages[0].1.next().await;
        assert!(futures::poll!(messages[0].1.next()).is_pending());
        tokio::time::advance(TAKEN_WITHIN).await;
        readers.cut_late();
        assert!(!cuts[1].is_cancelled());
        tokio::time::advance(Duration::from_millis(1)).await;
        readers.cut_late();
        assert!(!cuts[0].is_cancelled() && !messages[0].0.is_late());
        assert!(cuts[1].is_cancelled() && messages[1].0.is_late());
        drop(messages);
        assert!(readers.lock().1.is_empty());
    }
}
