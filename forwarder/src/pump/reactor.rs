//! The runtime of a forwarder's sockets, on the pump's own thread: it runs while the pump gives it a turn.
//!
//! So what is read, encoded and written stays in one processor's caches, and nobody is woken on another thread.

use std::panic::resume_unwind;
use std::time::Duration;

use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::timeout;

/// Reads from brokers and publishes to shards, whenever it is given a turn.
pub(crate) struct Reactor(Runtime);

impl Reactor {
    /// # Errors
    /// When the system gives no more file descriptors.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self(Builder::new_current_thread().enable_all().build()?))
    }

    /// What is spawned on this thread while the guard lives runs here.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.0.enter()
    }

    /// Runs to the end of a future.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.block_on(future)
    }

    /// Has the sockets' tasks run, then waits for a future for `at_most`.
    pub(crate) fn turn<F: Future>(&self, at_most: Duration, future: F) -> Option<F::Output> {
        self.0.block_on(async {
            // The first time those run that the pump has given something to do, then the sockets are asked; the second time
            // those run that the sockets have something for.
            yield_now().await;
            yield_now().await;
            if at_most.is_zero() {
                // A time limit would be the clock's next tick, a millisecond away.
                return tokio::select! {
                    biased;
                    done = future => Some(done),
                    () = std::future::ready(()) => None,
                };
            }
            timeout(at_most, future).await.ok()
        })
    }

    /// Does what blocks on a thread of its own, and has the sockets' tasks run meanwhile: nodes are to be answered, and what is on its
    /// way confirmed, however long Kafka takes.
    pub(crate) fn while_blocked<T: Send>(&self, blocks: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let (end, ended) = oneshot::channel::<()>();
            let thread = scope.spawn(move || {
                // Dropped at the end, also of a panic.
                let _end = end;
                blocks()
            });
            let _ = self.0.block_on(ended);
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Ends without waiting for names that are being looked up.
    pub(crate) fn close(self) {
        self.0.shutdown_background();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn tasks_run_while_the_pump_is_blocked() {
        let reactor = Reactor::new().unwrap();
        let _entered = reactor.enter();
        let (tell, told) = mpsc::channel();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            tell.send(7).unwrap();
        });
        assert_eq!(reactor.while_blocked(move || told.recv()), Ok(7));
    }

    #[test]
    fn a_turn_runs_what_was_given_to_do_though_the_future_is_ready() {
        let reactor = Reactor::new().unwrap();
        let _entered = reactor.enter();
        let task = tokio::spawn(async {});
        assert_eq!(reactor.turn(Duration::ZERO, std::future::ready(1)), Some(1));
        assert!(task.is_finished());
        let never = reactor.turn(Duration::ZERO, std::future::pending::<()>());
        assert_eq!(never, None);
    }
}
