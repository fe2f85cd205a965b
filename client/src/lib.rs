//! Watching assets, wherever their events come from.
//!
//! A [`Client`] asks the routing layer which NATS shard has an asset, subscribes there, and follows
//! when the asset moves or a node dies. What NATS did not deliver meanwhile it asks of the replay service. A
//! [`Subscription`] yields each event once and in order, and says where events can no longer be had: never silence.
//!
//! ```no_run
//! # async fn watch() -> Result<(), Box<dyn std::error::Error>> {
//! use ofa_client::{Client, Item};
//!
//! let client = Client::new("http://127.0.0.1:8002")?;
//! let mut events = client.subscribe(&"PROVER3018".parse()?).await?;
//! while let Some(item) = events.next_item().await {
//!     match item {
//!         Item::Event(event) => drop(event.parsed()?),
//!         Item::Gap(gap) => eprintln!("{gap}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod arrivals;
mod client;
mod connection;
mod error;
mod event;
mod follow;
mod grace;
mod item;
mod map_state;
mod outbox;
mod pump;
mod replay;
mod source;
mod subscription;

pub mod audit;
pub mod positions;
pub mod produce;
pub mod router;
pub mod sequencer;
pub mod simulator;

pub use client::{Client, ClientOptions, Credentials};
pub use error::ClientError;
pub use event::{DecodeError, Event};
pub use item::{Cause, Extent, Gap, Item};
pub use replay::ReplayError;
pub use router::{Route, RouterClient, RouterError};
pub use subscription::{Since, SubscribeOptions, Subscription};
