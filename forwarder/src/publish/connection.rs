//! A connection to one NATS node: bytes out as they are, operations in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use ofa_crds::ShardAccess;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

use super::protocol::{self, ProtocolError, ServerInfo, ServerOp};
use crate::credentials::{Access, CredentialsError};
use crate::tls;

/// How long a node has to answer while a connection is made. A healthy one needs milliseconds; one that
/// is stopped or cut off must not hold up the way to its neighbours.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// Port of a URL without one: NATS' own.
const DEFAULT_PORT: u16 = 4222;

/// Why a node cannot be used.
#[derive(Debug, Error)]
pub(crate) enum ConnectionError {
    #[error("'{0}' is no NATS URL; write nats://host:port or tls://host:port")]
    Url(String),
    #[error("no answer within {} s", OPEN_TIMEOUT.as_secs())]
    Timeout,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("the node refused the connection: {0}")]
    Refused(String),
    #[error("the node closed the connection")]
    Closed,
    #[error("the node has headers switched off; this needs nats-server with headers enabled")]
    NoHeaders,
    #[error(transparent)]
    Access(#[from] CredentialsError),
    #[error("the shard's caCertificate in NATS_CREDENTIALS_FILE cannot be used: {0}")]
    Authorities(String),
    #[error("the node asks for TLS; name the shard's caCertificate in NATS_CREDENTIALS_FILE")]
    NoAuthorities,
}

/// The address of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    host: String,
    port: u16,
    tls: bool,
}

impl Node {
    /// Reads `nats://host:port`, `tls://host:port` or `host:port`.
    pub(crate) fn parse(text: &str) -> Result<Self, ConnectionError> {
        let bad = || ConnectionError::Url(text.to_owned());
        let full = if text.contains("://") {
            text.to_owned()
        } else {
            format!("nats://{text}")
        };
        let url = Url::parse(&full).map_err(|_| bad())?;
        let tls = match url.scheme() {
            "nats" => false,
            "tls" => true,
            _ => return Err(bad()),
        };
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or_else(bad)?;
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self {
            host,
            port: url.port().unwrap_or(DEFAULT_PORT),
            tls,
        })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// An open, authenticated connection.
pub(crate) struct Connection {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    inbox: BytesMut,
    info: ServerInfo,
}

impl Connection {
    /// Connects, authenticates, and waits until the node has answered a PING.
    pub(crate) async fn open(
        node: &Node,
        access: &Access,
        name: &str,
    ) -> Result<Self, ConnectionError> {
        timeout(OPEN_TIMEOUT, Self::handshake(node, access, name))
            .await
            .map_err(|_| ConnectionError::Timeout)?
    }

    async fn handshake(node: &Node, access: &Access, name: &str) -> Result<Self, ConnectionError> {
        // For each connection anew: passwords change, and so may the file while the forwarder runs.
        let access = access.read()?;
        let tcp = TcpStream::connect((node.host.as_str(), node.port)).await?;
        tcp.set_nodelay(true)?;
        let mut connection = Self::over(Box::new(tcp));
        let ServerOp::Info(info) = connection.next().await? else {
            return Err(ConnectionError::Refused(
                "it did not introduce itself".to_owned(),
            ));
        };
        if info.tls_required || node.tls {
            connection = connection.encrypt(node, access.as_ref()).await?;
        }
        if !info.headers {
            return Err(ConnectionError::NoHeaders);
        }
        connection.info = *info;
        connection
            .write(connect_line(access.as_ref(), name).as_bytes(), b"PING\r\n")
            .await?;
        loop {
            match connection.next().await? {
                ServerOp::Pong => return Ok(connection),
                ServerOp::Error(reason) => return Err(ConnectionError::Refused(reason)),
                _ => {}
            }
        }
    }

    fn over(stream: Box<dyn Stream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader,
            writer,
            inbox: BytesMut::with_capacity(4096),
            info: ServerInfo::default(),
        }
    }

    /// NATS begins in plain text and turns to TLS behind the INFO line.
    async fn encrypt(
        self,
        node: &Node,
        access: Option<&ShardAccess>,
    ) -> Result<Self, ConnectionError> {
        let stream = self.reader.unsplit(self.writer);
        let name = ServerName::try_from(node.host.clone())
            .map_err(|_| ConnectionError::Url(node.host.clone()))?;
        let connector = TlsConnector::from(Arc::new(tls_config(access)?));
        Ok(Self::over(Box::new(connector.connect(name, stream).await?)))
    }

    /// What the node said of itself.
    pub(crate) fn info(&self) -> &ServerInfo {
        &self.info
    }

    /// The next operation. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<ServerOp, ConnectionError> {
        loop {
            if let Some(op) = protocol::parse(&mut self.inbox)? {
                return Ok(op);
            }
            if self.reader.read_buf(&mut self.inbox).await? == 0 {
                return Err(ConnectionError::Closed);
            }
        }
    }

    /// Writes all bytes of both parts. The caller keeps frames whole.
    pub(crate) async fn write(
        &mut self,
        first: &[u8],
        second: &[u8],
    ) -> Result<(), ConnectionError> {
        let mut both = Buf::chain(first, second);
        self.writer.write_all_buf(&mut both).await?;
        Ok(self.writer.flush().await?)
    }
}

fn connect_line(access: Option<&ShardAccess>, name: &str) -> String {
    let mut connect = serde_json::json!({
        "verbose": false, "pedantic": false, "headers": true, "no_responders": false, "echo": true,
        "protocol": 1, "lang": "rust", "version": env!("CARGO_PKG_VERSION"), "name": name,
    });
    if let Some(access) = access {
        connect["user"] = access.username.as_str().into();
        connect["pass"] = access.password.as_str().into();
    }
    format!("CONNECT {connect}\r\n")
}

fn tls_config(access: Option<&ShardAccess>) -> Result<rustls::ClientConfig, ConnectionError> {
    let pem = access.and_then(|access| access.ca_certificate.as_deref());
    let pem = pem.ok_or(ConnectionError::NoAuthorities)?;
    let roots = tls::trust_text(pem).map_err(ConnectionError::Authorities)?;
    Ok(rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_nats_clients_read_them() {
        let node = |host: &str, port, tls| Node {
            host: host.into(),
            port,
            tls,
        };
        assert_eq!(Node::parse("nats://h:1").unwrap(), node("h", 1, false));
        assert_eq!(Node::parse("h").unwrap(), node("h", 4222, false));
        assert_eq!(Node::parse("tls://h:1").unwrap(), node("h", 1, true));
        assert_eq!(
            Node::parse("nats://[::1]:5").unwrap(),
            node("::1", 5, false)
        );
        for bad in ["", "http://h", "nats://", "nats://h:x"] {
            assert!(Node::parse(bad).is_err(), "{bad}");
        }
    }
}
