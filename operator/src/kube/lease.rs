//! Leader election by a Lease of coordination.k8s.io: of several operators one acts, the others stand by.
//!
//! As in client-go, no two machines' clocks are compared: a holder counts as gone when its lease has not changed for its
//! duration by our own clock.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use tracing::{debug, info, warn};

/// How long a leader that says nothing keeps the others from acting; client-go's default.
const DURATION: Duration = Duration::from_secs(15);

/// A leader that could not renew for this long stops acting, well before others begin; client-go's default.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// Pause between two looks at the lease; client-go's default.
const RETRY: Duration = Duration::from_secs(2);

/// How long one request may take: several fit into the deadline.
const REQUEST: Duration = Duration::from_secs(3);

/// How long things last. Tests shorten them.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long a leader that says nothing keeps the others from acting.
    pub duration: Duration,
    /// A leader that could not renew for this long stops acting.
    pub renew_deadline: Duration,
    /// Pause between two looks at the lease.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: DURATION,
            renew_deadline: RENEW_DEADLINE,
            retry: RETRY,
        }
    }
}

/// The lease that operators of one installation share.
pub struct LeaderLock {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
    seen: Seen,
}

/// The lease as it was when it last changed, and when that was by our clock.
#[derive(Debug, Clone, Default)]
struct Seen {
    spec: Option<LeaseSpec>,
    at: Option<Instant>,
}

/// What to do about the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nobody has made it yet.
    Create,
    /// It is free, or its holder is gone.
    Take,
    /// It is ours.
    Renew,
    /// It is somebody else's.
    Wait,
}

impl LeaderLock {
    /// The lease `name` of `namespace`; `identity` tells this process from all others, dead ones included.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        timing: Timing,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            timing,
            seen: Seen::default(),
        }
    }

    /// Waits until this process leads.
    pub async fn acquire(&mut self) {
        loop {
            match self.try_hold().await {
                Ok(true) => {
                    info!(identity = self.identity, "leads");
                    return;
                }
                Ok(false) => {}
                Err(error) => {
                    warn!(%error, lease = self.name, "the lease cannot be read or written");
                }
            }
            tokio::time::sleep(self.timing.retry).await;
        }
    }

    /// Renews until leadership is lost: another one has it, or the API did not take a renewal for too long.
    pub async fn keep(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < self.timing.renew_deadline {
            tokio::time::sleep(self.timing.retry).await;
            match self.try_hold().await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => break,
                Err(error) => debug!(%error, lease = self.name, "the lease cannot be renewed"),
            }
        }
        warn!(identity = self.identity, "leads no longer");
    }

    /// Gives the lease back, so that another one need not wait until it runs out.
    pub async fn release(&mut self) {
        let Ok(Ok(Some(mut lease))) =
            tokio::time::timeout(REQUEST, self.api.get_opt(&self.name)).await
        else {
            return;
        };
        let Some(spec) = lease.spec.as_mut().filter(|spec| self.is_mine(spec)) else {
            return;
        };
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        let written = self
            .api
            .replace(&self.name, &PostParams::default(), &lease)
            .await;
        if let Err(error) = written {
            debug!(%error, lease = self.name, "the lease is not given back; it runs out");
        }
    }

    fn is_mine(&self, spec: &LeaseSpec) -> bool {
        spec.holder_identity.as_deref() == Some(self.identity.as_str())
    }

    /// One look: takes or renews the lease if that may be, and says whether it is ours.
    async fn try_hold(&mut self) -> Result<bool, kube::Error> {
        let attempt = async {
            let lease = self.api.get_opt(&self.name).await?;
            let now = Instant::now();
            self.seen
                .look(lease.as_ref().and_then(|lease| lease.spec.as_ref()), now);
            let step = step(
                lease.as_ref(),
                &self.seen,
                &self.identity,
                self.timing.duration,
                now,
            );
            match (step, lease) {
                (Step::Wait, _) => Ok(false),
                (_, Some(lease)) => self.write(lease, step).await,
                (_, None) => self.create().await,
            }
        };
        match tokio::time::timeout(REQUEST, attempt).await {
            // Somebody was faster.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(false),
            Ok(result) => result,
            Err(_) => Err(kube::Error::Service("no answer in time".into())),
        }
    }

    async fn create(&self) -> Result<bool, kube::Error> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(self.spec(None, Step::Create)),
        };
        self.api.create(&PostParams::default(), &lease).await?;
        Ok(true)
    }

    /// The resource version of what was read makes the API refuse if anybody has written since.
    async fn write(&self, mut lease: Lease, step: Step) -> Result<bool, kube::Error> {
        lease.spec = Some(self.spec(lease.spec.take(), step));
        self.api
            .replace(&self.name, &PostParams::default(), &lease)
            .await?;
        Ok(true)
    }

    fn spec(&self, old: Option<LeaseSpec>, step: Step) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let old = old.unwrap_or_default();
        let renews = step == Step::Renew;
        let transitions = old.lease_transitions.unwrap_or(0) + i32::from(step == Step::Take);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.duration.as_secs().max(1)).ok(),
            acquire_time: if renews {
                old.acquire_time
            } else {
                now.clone()
            },
            renew_time: now,
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

impl Seen {
    fn look(&mut self, spec: Option<&LeaseSpec>, now: Instant) {
        if self.at.is_none() || self.spec.as_ref() != spec {
            self.spec = spec.cloned();
            self.at = Some(now);
        }
    }
}

fn step(lease: Option<&Lease>, seen: &Seen, me: &str, duration: Duration, now: Instant) -> Step {
    let Some(lease) = lease else {
        return Step::Create;
    };
    let holder = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref());
    let quiet = seen.at.map_or(Duration::ZERO, |at| now.duration_since(at));
    // Another one's own duration counts, should it be longer than ours.
    let theirs = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_duration_seconds);
    let theirs = Duration::from_secs(theirs.and_then(|s| u64::try_from(s).ok()).unwrap_or(0));
    match holder.filter(|holder| !holder.is_empty()) {
        Some(holder) if holder == me => Step::Renew,
        Some(_) if quiet < duration.max(theirs) => Step::Wait,
        Some(_) | None => Step::Take,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: Option<&str>, renewed: i64) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: Some(15),
                renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    fn looked(seen: &mut Seen, lease: &Lease, now: Instant) -> Step {
        seen.look(lease.spec.as_ref(), now);
        step(Some(lease), seen, "me", DURATION, now)
    }

    #[test]
    fn a_lease_is_taken_when_free_and_renewed_when_ours() {
        let now = Instant::now();
        assert_eq!(
            step(None, &Seen::default(), "me", DURATION, now),
            Step::Create
        );
        assert_eq!(
            looked(&mut Seen::default(), &lease(None, 0), now),
            Step::Take
        );
        assert_eq!(
            looked(&mut Seen::default(), &lease(Some(""), 0), now),
            Step::Take
        );
        assert_eq!(
            looked(&mut Seen::default(), &lease(Some("me"), 0), now),
            Step::Renew
        );
    }

    #[test]
    fn a_holder_is_gone_only_when_it_is_quiet_by_our_own_clock() {
        let (mut seen, begin) = (Seen::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        // Its clock is years behind; it counts as alive all the same.
        assert_eq!(
            looked(&mut seen, &lease(Some("other"), 0), begin),
            Step::Wait
        );
        assert_eq!(
            looked(&mut seen, &lease(Some("other"), 0), at(14)),
            Step::Wait
        );
        assert_eq!(
            looked(&mut seen, &lease(Some("other"), 1), at(14)),
            Step::Wait
        );
        assert_eq!(
            looked(&mut seen, &lease(Some("other"), 1), at(28)),
            Step::Wait
        );
        assert_eq!(
            looked(&mut seen, &lease(Some("other"), 1), at(29)),
            Step::Take
        );
    }
}
