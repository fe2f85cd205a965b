//! Serving HTTP/1.1 within limits, and errors in upstream's form.

mod clients;
mod common;
mod error;
mod reading;
mod routes;
mod server;
mod streams;

pub use clients::{ClientLimits, Clients, bound};
pub use common::{common_routes, with_common_routes};
pub use error::ApiError;
pub(crate) use reading::serve_while_reading;
pub use routes::Routes;
pub use server::{serve, serve_clients};
