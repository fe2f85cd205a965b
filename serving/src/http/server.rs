//! One HTTP/1.1 server for all services: bounded in connections, header bytes and waiting time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::clients::{ClientLimits, Clients, Peer};
use super::streams::{self, MAX_HEADERS};

/// Most connections at a time; further ones wait in the kernel's queue. An idle one costs a few KiB.
const MAX_CONNECTIONS: usize = 20_000;

/// Longest request line and headers together: a thousand assets, and an id that names how far each has come.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// How long a connection may take for its request's headers, and stay idle between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long running requests may take to end at shutdown: under Kubernetes' grace period of 30 s.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// How long a client may take none of the bytes it was sent: one that is stopped is cut off, and resumes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that the kernel takes for a client that takes none, and as many for its own account of them. Unasked it takes megabytes, which
/// count as this program's memory and are filled at the others' cost. A client a tenth of a second away still gets a megabyte a second.
const SEND_BUFFER: usize = 128 * 1024;

/// Rest after a failed accept: at the limit of open files it fails at once, again and again.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Serves `app` until `shutdown` completes, then lets running requests end.
pub async fn serve(listener: TcpListener, app: Router, shutdown: impl Future<Output = ()>) {
    let anybody = Clients::new(ClientLimits::default());
    serve_clients(listener, app, &anybody, shutdown).await;
}

/// The same, with bounds for each client.
pub async fn serve_clients(
    listener: TcpListener,
    app: Router,
    clients: &Arc<Clients>,
    shutdown: impl Future<Output = ()>,
) {
    // Connections have it from the listener. A failure only costs memory.
    let _ = SockRef::from(&listener).set_send_buffer_size(SEND_BUFFER);
    let connections = GracefulShutdown::new();
    let closing = CancellationToken::new();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (stream, peer, permit) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        // One too many is closed at once: an answer would cost what is to be saved.
        let Some(seat) = clients.seat(peer) else {
            continue;
        };
        let connection = Connection {
            peer,
            app: app.clone(),
            watcher: connections.watcher(),
            closing: closing.clone(),
        };
        tokio::spawn(async move {
            let (_permit, _seat) = (permit, seat);
            connection.serve(stream).await;
        });
    }
    drop(listener);
    closing.cancel();
    // Also waits for those that hyper does not know: each holds its watcher.
    let end = connections.shutdown();
    if tokio::time::timeout(SHUTDOWN_GRACE, end).await.is_err() {
        warn!("some requests did not end in time and are cut off");
    }
}

struct Connection {
    peer: IpAddr,
    app: Router,
    watcher: Watcher,
    /// Ends connections that have not asked for anything yet.
    closing: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let first = tokio::time::timeout(HEADER_TIMEOUT, streams::first_request(&stream));
        match self.closing.run_until_cancelled(first).await {
            Some(Ok(Some((mut request, length)))) => {
                request.extensions_mut().insert(Peer(self.peer));
                let answered = streams::answer(stream, (request, length), self.app);
                if let Err(error) = answered.await {
                    debug!(%error, "a stream ended early");
                }
                drop(self.watcher);
            }
            // Boxed, since every connection has the size of its largest part.
            Some(Ok(None)) => Box::pin(self.serve_with_hyper(stream)).await,
            Some(Err(_)) | None => {}
        }
    }

    async fn serve_with_hyper(self, stream: TcpStream) {
        let service = TowerToHyperService::new(self.app);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(self.peer));
            service.call(request)
        });
        let connection = builder().serve_connection(TokioIo::new(stream), service);
        if let Err(error) = self.watcher.watch(connection).await {
            debug!(%error, "a connection ended early");
        }
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    builder
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, IpAddr, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed, so there always is a permit in the end.
    let permit = Arc::clone(permits).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are one small segment each; a failure only costs delay.
                let _ = stream.set_nodelay(true);
                let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(WRITE_TIMEOUT));
                return (stream, peer.ip(), permit);
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection; trying on");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}
