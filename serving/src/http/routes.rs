//! Routes that know their paths, so that the description of the interface can be held to them.

use axum::Router;
use axum::handler::Handler;
use axum::routing::get;

/// What a service answers. There are only questions: every route is a GET.
pub struct Routes<S> {
    router: Router<S>,
    paths: Vec<&'static str>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            router: Router::new(),
            paths: Vec::new(),
        }
    }

    /// Adds a path.
    #[must_use]
    pub fn get<T: 'static>(mut self, path: &'static str, handler: impl Handler<T, S>) -> Self {
        self.paths.push(path);
        self.router = self.router.route(path, get(handler));
        self
    }

    /// The paths, as they were added.
    #[must_use]
    pub fn paths(&self) -> &[&'static str] {
        &self.paths
    }

    /// The router, with what its handlers answer from.
    pub fn with_state(self, state: S) -> Router {
        self.router.with_state(state)
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}
