//! Certificates from files.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The certificates of a PEM file; the error says why there are none.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    certificates.map_err(|error| error.to_string())
}

/// Trust in the authorities of a PEM file, and in nobody else.
pub(crate) fn trust(path: &Path) -> Result<RootCertStore, String> {
    trust_in(certificates(path)?)
}

/// Trust in the authorities of a PEM text, and in nobody else.
pub(crate) fn trust_text(pem: &str) -> Result<RootCertStore, String> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>();
    trust_in(certificates.map_err(|error| error.to_string())?)
}

fn trust_in(authorities: Vec<CertificateDer<'static>>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}
