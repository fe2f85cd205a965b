//! A meter between the operator and the API: counts, notes which rights are used, and can cut the line.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::{Method, Request, Response, StatusCode, Uri};
use kube::client::Body;
use parking_lot::Mutex;
use tower::{BoxError, Layer, Service};

/// Counts requests, and lets through only so many writes.
#[derive(Clone)]
pub(crate) struct Meter {
    counts: Arc<Counts>,
    /// What is asked of all namespaces is asked of this one only: other tests have theirs.
    only: Option<String>,
}

struct Counts {
    requests: AtomicU64,
    writes: AtomicU64,
    left: AtomicI64,
    dead: AtomicBool,
    rights: Mutex<BTreeSet<String>>,
    refused: Mutex<BTreeSet<String>>,
}

impl Meter {
    pub(crate) fn unlimited() -> Self {
        Self::with_budget(i64::MAX)
    }

    /// The process is as good as dead in place of its next write. Between two writes all requests are reads, after
    /// which nothing has changed.
    pub(crate) fn with_budget(writes: i64) -> Self {
        Self {
            counts: Arc::new(Counts {
                requests: AtomicU64::new(0),
                writes: AtomicU64::new(0),
                left: AtomicI64::new(writes),
                dead: AtomicBool::new(false),
                rights: Mutex::default(),
                refused: Mutex::default(),
            }),
            only: None,
        }
    }

    pub(crate) fn only(self, namespace: &str) -> Self {
        Self {
            only: Some(namespace.to_owned()),
            ..self
        }
    }

    /// Requests so far, those for the lease left out.
    pub(crate) fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Writes so far, those of the lease left out.
    pub(crate) fn writes(&self) -> u64 {
        self.counts.writes.load(Ordering::SeqCst)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.counts.dead.load(Ordering::SeqCst)
    }

    /// `group resource verb` of every right that was used.
    pub(crate) fn rights(&self) -> BTreeSet<String> {
        self.counts.rights.lock().clone()
    }

    /// What the API server has refused for want of a right.
    pub(crate) fn refused(&self) -> BTreeSet<String> {
        self.counts.refused.lock().clone()
    }
}

impl Counts {
    /// Whether the request may pass.
    fn count(&self, request: &Request<Body>) -> bool {
        if self.dead.load(Ordering::SeqCst) {
            return false;
        }
        // The lease is renewed for as long as the operator lives; that is no work on the resources.
        if request.uri().path().contains("/leases") {
            return true;
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        if request.method() == Method::GET {
            return true;
        }
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.dead.store(true, Ordering::SeqCst);
            return false;
        }
        self.writes.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// By the answer it is known what was needed: what is applied is created only where it is not there.
    fn note(&self, asked: &Asked, status: StatusCode) {
        if status == StatusCode::FORBIDDEN {
            self.refused.lock().insert(asked.right(asked.verb));
            return;
        }
        let mut rights = self.rights.lock();
        rights.insert(asked.right(asked.verb));
        if asked.verb == "patch" && status == StatusCode::CREATED {
            rights.insert(asked.right("create"));
        }
    }
}

/// What a request asks for, as the API server's authorizer sees it.
struct Asked {
    group: String,
    resource: String,
    verb: &'static str,
}

impl Asked {
    /// `None` for what is no resource.
    fn of(request: &Request<Body>) -> Option<Self> {
        let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
        let (group, rest) = match path.as_slice() {
            ["api", "v1", rest @ ..] => ("", rest),
            ["apis", group, _, rest @ ..] => (*group, rest),
            _ => return None,
        };
        let rest = match rest {
            ["namespaces", _, rest @ ..] => rest,
            rest => rest,
        };
        let (resource, named) = match rest {
            [resource] => ((*resource).to_owned(), false),
            [resource, _] => ((*resource).to_owned(), true),
            [resource, _, part, ..] => (format!("{resource}/{part}"), true),
            [] => return None,
        };
        let query = request.uri().query().unwrap_or_default();
        let verb = match *request.method() {
            Method::GET if query.contains("watch=true") => "watch",
            Method::GET if named => "get",
            Method::GET => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            _ => "delete",
        };
        let group = group.to_owned();
        Some(Self {
            group,
            resource,
            verb,
        })
    }

    fn right(&self, verb: &str) -> String {
        format!("{} {} {verb}", self.group, self.resource)
    }
}

/// The same question about all namespaces, answered for one of them.
fn narrowed(uri: &Uri, namespace: &str) -> Uri {
    let query = uri.query().unwrap_or_default();
    let selector = format!("fieldSelector=metadata.namespace%3D{namespace}");
    format!("{}?{query}&{selector}", uri.path())
        .parse()
        .map(|path| {
            let mut parts = uri.clone().into_parts();
            parts.path_and_query = Some(path);
            Uri::from_parts(parts).unwrap()
        })
        .unwrap()
}

impl<S> Layer<S> for Meter {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered {
            inner,
            meter: self.clone(),
        }
    }
}

pub(crate) struct Metered<S> {
    inner: S,
    meter: Meter,
}

impl<S, B> Service<Request<Body>> for Metered<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let counts = self.meter.counts.clone();
        if !counts.count(&request) {
            return Box::pin(async { Err("killed".into()) });
        }
        let asked = Asked::of(&request);
        let everywhere = !request.uri().path().contains("/namespaces/");
        if let (Some(namespace), true, Some(_)) = (&self.meter.only, everywhere, &asked) {
            *request.uri_mut() = narrowed(request.uri(), namespace);
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await.map_err(Into::into)?;
            if let Some(asked) = asked {
                counts.note(&asked, answer.status());
            }
            Ok(answer)
        })
    }
}
