//! Listeners and connections: hyper over sockets that can also be reset, cut short or left hanging.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::answer;
use crate::app::App;
use crate::body::{HangUp, ReplyBody};

/// Which of the two servers a request came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Origin {
    Api,
    Objects,
}

/// What can be done to a connection besides answering on it.
#[derive(Clone)]
pub(crate) struct Connection {
    /// Resets the connection when it ends, in place of closing it.
    pub reset: Arc<AtomicBool>,
    end: Arc<End>,
    socket: Weak<TcpStream>,
}

/// Some answers are followed by a close without a warning.
#[derive(Default)]
struct End {
    /// No further request is answered.
    near: AtomicBool,
    reached: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl Connection {
    /// Answers no further request on this connection.
    pub fn last_answer(&self) {
        self.end.near.store(true, Ordering::Release);
    }

    /// Ends the connection as if the peer had; the last answer has to be out.
    pub fn end(&self) {
        self.end.reached.store(true, Ordering::Release);
        if let Some(reader) = self.end.reader.lock().take() {
            reader.wake();
        }
    }

    /// Waits until the peer has left. It is looked for on the socket itself, since nobody reads
    /// from that while a body lies there unread.
    pub async fn gone(&self) {
        loop {
            let Some(socket) = self.socket.upgrade() else {
                return;
            };
            let look = tokio::time::timeout(Duration::from_millis(10), socket.ready(Interest::READABLE));
            match look.await {
                Ok(Ok(ready)) if ready.is_read_closed() => return,
                Ok(Err(_)) => return,
                Ok(Ok(_)) | Err(_) => {}
            }
            drop(socket);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A socket that is reset instead of closed if that was asked for.
struct Wire {
    socket: Arc<TcpStream>,
    reset: Arc<AtomicBool>,
    end: Arc<End>,
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        *self.end.reader.lock() = Some(cx.waker().clone());
        loop {
            if self.end.reached.load(Ordering::Acquire) {
                return Poll::Ready(Ok(()));
            }
            ready!(self.socket.poll_read_ready(cx))?;
            match self.socket.try_read(into.initialize_unfilled()) {
                Ok(read) => {
                    into.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(from)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.socket.try_write_vectored(from) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Nothing: the socket is closed, or reset, when this is dropped a moment later.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // Closing a socket that must not linger resets it. A failure means it is reset already.
            let _ = self.socket.set_zero_linger();
        }
    }
}

/// Serves connections until the runtime ends.
pub(crate) async fn accept(app: Arc<App>, listener: TcpListener, origin: Origin) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(app.clone(), stream, origin));
            }
            Err(error) => {
                // Out of file descriptors, most likely; others may be closed meanwhile.
                eprintln!("rdm-sandbox: accept: {error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn serve(app: Arc<App>, stream: TcpStream, origin: Origin) {
    let _ = stream.set_nodelay(true);
    let connecting = app.knobs.lock().connect;
    if !connecting.is_zero() {
        tokio::time::sleep(connecting).await;
    }
    let socket = Arc::new(stream);
    let connection = Connection {
        reset: Arc::default(),
        end: Arc::default(),
        socket: Arc::downgrade(&socket),
    };
    let wire = Wire {
        socket,
        reset: connection.reset.clone(),
        end: connection.end.clone(),
    };
    let service = service_fn(move |request: Request<Incoming>| {
        handle(app.clone(), connection.clone(), request, origin)
    });
    let server = http1::Builder::new().serve_connection(TokioIo::new(wire), service);
    // Errors are clients that left and connections cut on purpose.
    let _ = server.await;
}

async fn handle(
    app: Arc<App>,
    connection: Connection,
    request: Request<Incoming>,
    origin: Origin,
) -> Result<Response<ReplyBody>, HangUp> {
    if connection.end.near.load(Ordering::Acquire) {
        return Err(HangUp);
    }
    // In a task of its own, so that what was asked for is done even if the client leaves meanwhile.
    let task = tokio::spawn(answer::answer(app, connection, request, origin));
    match task.await {
        Ok(response) => response,
        Err(_) => Err(HangUp),
    }
}
