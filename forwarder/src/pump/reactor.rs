//! The runtime of a forwarder's sockets, on the pump's own thread: it runs while the pump gives it a turn.
//!
//! So what is read, encoded and written stays in one processor's caches, and nobody is woken on another thread.

use std::rc::Rc;
use std::time::Duration;

use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::task::yield_now;
use tokio::time::timeout;

/// Reads from brokers and publishes to shards, whenever it is given a turn.
#[derive(Clone)]
pub(crate) struct Reactor(Rc<Runtime>);

impl Reactor {
    /// # Errors
    /// When the system gives no more file descriptors.
    pub(crate) fn new() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self(runtime.into()))
    }

    /// What is spawned on this thread while the guard lives runs here.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.0.enter()
    }

    /// Runs to the end of a future.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.block_on(future)
    }

    /// Has all tasks run that can, then waits for a future for `at_most`.
    pub(crate) fn turn<F: Future>(&self, at_most: Duration, future: F) -> Option<F::Output> {
        self.0.block_on(async {
            // The first time those run that the pump has given something to do, then the sockets are asked; the second time
            // those run that the sockets have something for.
            yield_now().await;
            yield_now().await;
            timeout(at_most, future).await.ok()
        })
    }
}
