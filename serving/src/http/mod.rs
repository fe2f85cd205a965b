//! Serving HTTP/1.1 within limits, and errors in upstream's form.

mod common;
mod error;
mod server;

pub use common::with_common_routes;
pub use error::ApiError;
pub use server::serve;
