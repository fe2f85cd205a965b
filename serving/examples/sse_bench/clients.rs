//! Clients that take in little more than is to be counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

pub(crate) const PORT: u16 = 15_555;

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// Waits until the program that listens on this port says that it is ready.
pub(crate) async fn wait_ready(port: u16) -> Result<()> {
    let begun = Instant::now();
    while connect_to(port, 0, "/ready", "").await?.1 != 200 {
        ensure!(begun.elapsed() < LIMIT, "port {port} does not get ready");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

pub(crate) async fn wait_for(counted: &AtomicU64, wanted: u64, begun: Instant) -> Result<()> {
    while counted.load(Ordering::Relaxed) < wanted {
        ensure!(begun.elapsed() < LIMIT, "{counted:?} of {wanted}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

pub(crate) async fn listen(client: u32, asset: u32, headers: &str) -> Result<TcpStream> {
    let path = format!("/asset_stream?asset_uuid={asset}");
    let (stream, status) = connect(client, &path, headers).await?;
    ensure!(status == 200, "client {client}: {status}");
    Ok(stream)
}

/// Sends a request, from one of many addresses since one has too few ports, and reads the answer's first bytes.
pub(crate) async fn connect(client: u32, path: &str, headers: &str) -> Result<(TcpStream, u16)> {
    connect_to(PORT, client, path, headers).await
}

async fn connect_to(port: u16, client: u32, path: &str, headers: &str) -> Result<(TcpStream, u16)> {
    let begun = Instant::now();
    let mut stream = loop {
        let socket = TcpSocket::new_v4()?;
        socket.bind(format!("127.0.0.{}:0", 2 + client % 100).parse()?)?;
        match socket.connect(format!("127.0.0.1:{port}").parse()?).await {
            Ok(stream) => break stream,
            Err(error) if begun.elapsed() > LIMIT => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await?;
    let status = std::str::from_utf8(&first[9..])?.parse()?;
    Ok((stream, status))
}

/// Counts events as they come.
pub(crate) async fn count(mut stream: TcpStream, counted: Arc<AtomicU64>) {
    const MARK: &[u8] = b"event: asset_update";
    let mut buffer = vec![0; 16 * 1024];
    let mut kept = 0;
    while let Ok(read) = stream.read(&mut buffer[kept..]).await {
        if read == 0 {
            return;
        }
        let end = kept + read;
        let found = buffer[..end]
            .windows(MARK.len())
            .filter(|part| *part == MARK);
        counted.fetch_add(found.count() as u64, Ordering::Relaxed);
        // A mark may come in two parts; what is kept is too short for one that was counted.
        kept = (MARK.len() - 1).min(end);
        buffer.copy_within(end - kept..end, 0);
    }
}
