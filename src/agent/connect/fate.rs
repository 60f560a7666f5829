//! Owns [`Fate`]: how an encrypted connection ended. TLS 1.3 tells a client what is wrong with its
//! certificate only after the handshake, and what is above does not pass that on.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::failure::Refusal;

/// The alert by which the manager ended the connection, if it did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fate {
    alert: Arc<OnceLock<AlertDescription>>,
    /// Whether the connection is not encrypted.
    plain: bool,
}

impl Fate {
    /// Of a connection that has just been opened.
    pub(super) fn new(plain: bool) -> Self {
        Self {
            plain,
            ..Self::default()
        }
    }

    /// Why the connection failed: the alert where there was one, else what is known above.
    pub(crate) fn explain(&self, error: impl Into<anyhow::Error>) -> anyhow::Error {
        let error = error.into();
        match self.alert.get() {
            Some(alert) => Refusal::alert(*alert).into(),
            // The connection broke; a manager's own answer has no source. Whether its words came
            // through is a matter of luck in HTTP/2.
            None if self.plain && error.source().is_some() => error.context(
                "the connection broke before there was a session; if the manager speaks only TLS, \
                 leave out --insecure",
            ),
            None => error,
        }
    }
}

/// Bytes whose fate is kept.
pub(super) struct Kept<T> {
    pub(super) bytes: T,
    pub(super) fate: Fate,
}

impl<T> Kept<T> {
    fn note<R>(&self, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if let Poll::Ready(Err(error)) = &result
            && let Some(reason) = error.get_ref()
            && let Some(rustls::Error::AlertReceived(alert)) = reason.downcast_ref()
        {
            // The first one counts.
            let _ = self.fate.alert.set(*alert);
        }
        result
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Kept<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.bytes).poll_read(context, buffer);
        self.note(result)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Kept<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.bytes).poll_write(context, bytes);
        self.note(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.bytes).poll_flush(context);
        self.note(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(context)
    }
}
