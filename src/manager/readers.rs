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
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures::Stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A session that has had something to say for so long, and was not asked for it, never will be.
const ASKED_WITHIN: Duration = Duration::from_secs(10);

/// The sessions, and since when each waits to be asked for what it has to say.
#[derive(Debug, Default)]
pub struct Readers(Mutex<(u64, HashMap<u64, Arc<Reader>>)>);

/// Whether one agent reads.
#[derive(Debug)]
pub struct Reader {
    /// Since when there is something to do for the session; none while the transport has asked it.
    waits: Mutex<Option<Instant>>,
    /// Who polls the session.
    transport: Mutex<Option<Waker>>,
    /// Cuts the connection.
    cut: CancellationToken,
    late: AtomicBool,
}

impl Readers {
    /// Takes a session in whose connection `cut` ends.
    #[must_use]
    pub fn add(self: &Arc<Self>, cut: CancellationToken) -> Reading {
        let reader = Arc::new(Reader {
            waits: Mutex::default(),
            transport: Mutex::default(),
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

    /// Cuts the connections of those that have waited for too long.
    pub fn cut_late(&self) {
        let now = Instant::now();
        for reader in self.lock().1.values() {
            let waits = *reader.waits();
            if waits.is_some_and(|since| {
                now.saturating_duration_since(since) > crate::pace::of(ASKED_WITHIN)
            }) {
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
    fn waits(&self) -> MutexGuard<'_, Option<Instant>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transport(&self) -> MutexGuard<'_, Option<Waker>> {
        self.transport
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What wakes the session wakes the transport, which asks it unless the agent does not read.
impl Wake for Reader {
    fn wake(self: Arc<Self>) {
        self.waits().get_or_insert_with(Instant::now);
        let transport = self.transport().clone();
        if let Some(transport) = transport {
            transport.wake();
        }
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
            waker: self.0.clone().into(),
            reader: self.0,
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.readers.lock().1.remove(&self.number);
    }
}

/// The messages of a session, of which is known whether somebody asks for them.
pub struct Taken<S> {
    messages: Pin<Box<S>>,
    waker: Waker,
    reader: Arc<Reader>,
}

impl<S: Stream> Stream for Taken<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let Self {
            messages,
            waker,
            reader,
        } = &mut *self;
        *reader.waits() = None;
        let transport = Some(context.waker().clone());
        *reader.transport() = transport;
        let next = messages.as_mut().poll_next(&mut Context::from_waker(waker));
        if let Poll::Ready(Some(_)) = &next {
            reader.waits().get_or_insert_with(Instant::now);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_who_is_not_asked_for_what_it_has_to_say_is_late() {
        let readers = Arc::new(Readers::default());
        let session = || {
            let (cut, (sender, messages)) = (CancellationToken::new(), mpsc::channel(8));
            let reading = readers.add(cut.clone());
            let messages = reading.tap().over(ReceiverStream::new(messages));
            (cut, reading, sender, messages)
        };
        let (mut idle, mut told, mut woken) = (session(), session(), session());
        for (_, _, sender, messages) in [&mut idle, &mut told, &mut woken] {
            sender.send(1).await.unwrap();
            assert_eq!(messages.next().await, Some(1));
        }
        // One is asked for the next and has none; one is asked, and then has one; one is not asked.
        assert!(futures::poll!(idle.3.next()).is_pending());
        assert!(futures::poll!(woken.3.next()).is_pending());
        woken.2.send(2).await.unwrap();
        let cut = || [&idle, &told, &woken].map(|one| one.0.is_cancelled());
        tokio::time::advance(ASKED_WITHIN).await;
        readers.cut_late();
        assert_eq!(cut(), [false; 3]);
        tokio::time::advance(Duration::from_millis(1)).await;
        readers.cut_late();
        assert_eq!(cut(), [false, true, true]);
        assert!(!idle.1.is_late() && told.1.is_late() && woken.1.is_late());
        drop((idle, told, woken));
        assert!(readers.lock().1.is_empty());
    }
}
