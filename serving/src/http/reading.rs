//! A service that reads a topic for as long as it answers.

use anyhow::Context as _;
use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::serve;

/// Serves `app` while `read` reads on a thread of its own, since librdkafka blocks. Ends when `shutdown` completes or the
/// reader ends; `stop` then ends streams and the reader.
///
/// # Errors
/// When the reader failed.
pub(crate) async fn serve_while_reading<E>(
    listener: TcpListener,
    app: Router,
    read: impl FnOnce() -> Result<(), E> + Send + 'static,
    stop: CancellationToken,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let mut reading = tokio::task::spawn_blocking(read);
    let mut ended = None;
    let end = async {
        tokio::select! {
            () = shutdown => {}
            result = &mut reading => ended = Some(result),
        }
        // Streams end first: nothing else ends a connection that is in the middle of one.
        stop.cancel();
    };
    serve(listener, app, end).await;
    let result = match ended {
        Some(result) => result,
        None => reading.await,
    };
    result.context("the reader broke down; this is a defect, please report it with the log")??;
    Ok(())
}
