//! The one TLS provider of the process.

/// Makes `ring` the provider of every TLS client. May be called again.
pub fn install_provider() {
    // An error says that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
