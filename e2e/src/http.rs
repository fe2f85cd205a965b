//! What processes tell over HTTP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

/// Everything asked is on this machine and answered from memory, unless the process is stopped.
const TIMEOUT: Duration = Duration::from_secs(2);

/// For what is nice to know only.
const BRIEF: Duration = Duration::from_millis(500);

/// The status and the body of a GET.
///
/// # Errors
/// When nobody answers.
pub async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let url = format!("http://{address}{path}");
    let response = client()?
        .get(&url)
        .send()
        .await
        .with_context(|| format!("{url} does not answer"))?;
    Ok((response.status().as_u16(), response.text().await?))
}

/// Made once, since it reads the machine's certificates; and without a pool, since a connection must not outlive the
/// runtime of the test that opened it.
fn client() -> Result<&'static reqwest::Client> {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client);
    }
    // reqwest wants a provider even for plain HTTP; one that is installed already stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .pool_max_idle_per_host(0)
        .build()?;
    Ok(CLIENT.get_or_init(|| client))
}

/// The answer to a GET, headers included, without a runtime and without patience: for a process on its way out.
///
/// # Errors
/// When nobody answers at once.
pub fn last_words(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, BRIEF)?;
    stream.set_read_timeout(Some(BRIEF))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The JSON body of a GET.
///
/// # Errors
/// When nobody answers, or with something else.
pub async fn get_json(address: SocketAddr, path: &str) -> Result<Value> {
    let (_, body) = get(address, path).await?;
    serde_json::from_str(&body).with_context(|| format!("{address}{path} answers no JSON: {body}"))
}

/// The sum of a metric's samples whose labels contain `labels` (`kind="tombstone"` say).
#[must_use]
pub fn metric(text: &str, name: &str, labels: &str) -> f64 {
    let samples = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let found = series.split('{').next()? == name && series.contains(labels);
        found.then(|| value.parse::<f64>().ok())?
    });
    samples.sum()
}
