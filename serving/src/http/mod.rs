//! Serving HTTP/1.1 within limits, and errors in upstream's form.

mod clients;
mod common;
mod error;
mod server;

pub use clients::{ClientLimits, Clients, bound};
pub use common::with_common_routes;
pub use error::ApiError;
pub use server::{serve, serve_clients};
