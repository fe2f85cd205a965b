//! Serving HTTP/1.1 within limits, and errors in upstream's form.

mod error;
mod server;

pub use error::ApiError;
pub use server::serve;
