//! What one client, by its address, may take of a service: connections at a time and requests a second.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;

use super::ApiError;

/// Requests that may come at once: this many seconds' worth, as when a page opens.
const BURST_SECONDS: f64 = 2.0;

/// What one client may take; none is no bound.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientLimits {
    /// Connections at a time.
    pub connections: Option<u32>,
    /// Requests a second.
    pub rate: Option<u32>,
}

/// Who sends a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// All clients that are there or were a short time ago.
pub struct Clients {
    limits: ClientLimits,
    known: Mutex<HashMap<IpAddr, Client>>,
}

struct Client {
    connections: u32,
    /// Requests that may come now.
    allowance: f64,
    at: Instant,
}

/// A client's connection; it counts until this is dropped.
pub(super) struct Seat(Arc<Clients>, IpAddr);

impl Drop for Seat {
    fn drop(&mut self) {
        let mut known = self.0.known.lock();
        if let Some(client) = known.get_mut(&self.1) {
            client.connections -= 1;
            // A client without connections and with its full allowance is as good as unknown.
            if client.connections == 0 && client.at.elapsed() > Duration::from_secs(2) {
                known.remove(&self.1);
            }
        }
    }
}

impl Clients {
    /// Nobody yet.
    #[must_use]
    pub fn new(limits: ClientLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            known: Mutex::default(),
        })
    }

    /// A place for one more connection; `None` when the client has as many as it may.
    pub(super) fn seat(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let mut known = self.known.lock();
        let client = self.client(&mut known, address);
        if self
            .limits
            .connections
            .is_some_and(|most| client.connections >= most)
        {
            return None;
        }
        client.connections += 1;
        Some(Seat(Arc::clone(self), address))
    }

    fn client<'a>(
        &self,
        known: &'a mut HashMap<IpAddr, Client>,
        address: IpAddr,
    ) -> &'a mut Client {
        known.entry(address).or_insert_with(|| Client {
            connections: 0,
            allowance: self.burst(),
            at: Instant::now(),
        })
    }

    fn burst(&self) -> f64 {
        f64::from(self.limits.rate.unwrap_or_default()) * BURST_SECONDS
    }

    /// Takes one request of the client's allowance; otherwise how long to wait for the next.
    fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.limits.rate.map(f64::from) else {
            return Ok(());
        };
        let mut known = self.known.lock();
        let client = self.client(&mut known, address);
        let since = now.saturating_duration_since(client.at).as_secs_f64();
        client.allowance = (client.allowance + since * rate).min(self.burst());
        client.at = now;
        if client.allowance < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - client.allowance) / rate));
        }
        client.allowance -= 1.0;
        Ok(())
    }
}

/// Answers 429 to a client that asks more often than it may.
pub async fn bound(State(clients): State<Arc<Clients>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    match peer.map(|Peer(address)| clients.take(address, Instant::now())) {
        Some(Err(wait)) => ApiError::too_many(wait).into_response(),
        _ => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_its_rate_and_the_others_theirs() {
        let clients = Clients::new(ClientLimits {
            connections: None,
            rate: Some(10),
        });
        let [one, other]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
        let now = Instant::now();
        let taken = |address, now| {
            (0..100)
                .take_while(|_| clients.take(address, now).is_ok())
                .count()
        };
        assert_eq!(taken(one, now), 20);
        assert_eq!(taken(other, now), 20);
        assert_eq!(taken(one, now + Duration::from_millis(550)), 5);
    }

    #[test]
    fn a_client_gets_its_connections_and_no_more() {
        let clients = Clients::new(ClientLimits {
            connections: Some(2),
            rate: None,
        });
        let one: IpAddr = "10.0.0.1".parse().unwrap();
        let seats = (clients.seat(one), clients.seat(one));
        assert!(seats.1.is_some() && clients.seat(one).is_none());
        drop(seats.0);
        assert!(clients.seat(one).is_some());
    }
}
