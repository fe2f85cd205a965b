//! A connection to one broker: requests and their answers, one at a time.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{
    Decodable, HeaderVersion, Request, StrBytes, encode_request_header_into_buffer,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::BrokerError;
use super::security::Security;

/// How long connecting and authenticating may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take beyond what the request itself allows.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer that is believed: far more than is ever asked for, far less than memory.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// Room for a request's length and header, whose client id alone may be long.
const HEADER_ROOM: usize = 1024;

/// Every broker speaks this version, and it tells the others.
const API_VERSIONS_VERSION: i16 = 0;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// An open, authenticated connection.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    client_id: StrBytes,
    correlation_id: i32,
    /// Largest version of each request that the broker takes, and the smallest.
    versions: BTreeMap<i16, (i16, i16)>,
}

impl Connection {
    /// Connects to `address` (`host:port`), secures the connection and authenticates.
    pub(crate) async fn open(
        address: &str,
        client_id: &str,
        security: &Security,
    ) -> Result<Self, BrokerError> {
        let opened = timeout(OPEN_TIMEOUT, Self::handshake(address, client_id, security)).await;
        opened.map_err(|_| BrokerError::Timeout)?
    }

    async fn handshake(
        address: &str,
        client_id: &str,
        security: &Security,
    ) -> Result<Self, BrokerError> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let mut connection = Self {
            stream: security.encrypt(tcp, address).await?,
            client_id: StrBytes::from_string(client_id.to_owned()),
            correlation_id: 0,
            versions: BTreeMap::new(),
        };
        connection.ask_versions().await?;
        security.authenticate(&mut connection).await?;
        Ok(connection)
    }

    async fn ask_versions(&mut self) -> Result<(), BrokerError> {
        let request = ApiVersionsRequest::default();
        let answer = self
            .send(&request, API_VERSIONS_VERSION, Duration::ZERO)
            .await?;
        let versions = answer.api_keys.iter();
        self.versions = versions
            .map(|it| (it.api_key, (it.min_version, it.max_version)))
            .collect();
        Ok(())
    }

    /// Sends a request in the newest of these versions that the broker takes, and waits for the answer; the broker may think
    /// about it for `patience`.
    pub(crate) async fn call<R: Request>(
        &mut self,
        request: &R,
        versions: RangeInclusive<i16>,
        patience: Duration,
    ) -> Result<R::Response, BrokerError> {
        let version = self.version(R::KEY, versions)?;
        self.send(request, version, patience).await
    }

    /// The version that [`Self::call`] would use.
    pub(crate) fn version(
        &self,
        key: i16,
        versions: RangeInclusive<i16>,
    ) -> Result<i16, BrokerError> {
        let (oldest, newest) = versions.into_inner();
        let known = self.versions.get(&key).copied();
        let common = known.filter(|(from, to)| *from <= newest && *to >= oldest);
        let (_, broker_newest) = common.ok_or(BrokerError::Version {
            key,
            oldest,
            newest,
        })?;
        Ok(broker_newest.min(newest))
    }

    async fn send<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        patience: Duration,
    ) -> Result<R::Response, BrokerError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame = self
            .frame(request, version)
            .map_err(BrokerError::Protocol)?;
        let answered = timeout(patience + ANSWER_TIMEOUT, async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await?;
            self.read_frame().await
        });
        let mut answer = answered.await.map_err(|_| BrokerError::Timeout)??;
        let header = R::Response::header_version(version);
        let header = ResponseHeader::decode(&mut answer, header).map_err(BrokerError::Protocol)?;
        if header.correlation_id != self.correlation_id {
            return Err(BrokerError::OutOfStep);
        }
        R::Response::decode(&mut answer, version).map_err(BrokerError::Protocol)
    }

    fn frame<R: Request>(&self, request: &R, version: i16) -> anyhow::Result<BytesMut> {
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(self.client_id.clone()));
        let size = request.compute_size(version)?;
        let mut frame = BytesMut::with_capacity(HEADER_ROOM + size);
        frame.put_i32(0);
        encode_request_header_into_buffer(&mut frame, &header)?;
        request.encode(&mut frame, version)?;
        let len = i32::try_from(frame.len() - 4)?;
        frame[..4].copy_from_slice(&len.to_be_bytes());
        Ok(frame)
    }

    async fn read_frame(&mut self) -> Result<Bytes, BrokerError> {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).await?;
        let len = usize::try_from((&prefix[..]).get_i32()).unwrap_or(usize::MAX);
        if len > MAX_ANSWER {
            return Err(BrokerError::TooLong(len));
        }
        let mut answer = BytesMut::with_capacity(len);
        while answer.len() < len {
            let room = len - answer.len();
            if (&mut self.stream)
                .take(room as u64)
                .read_buf(&mut answer)
                .await?
                == 0
            {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(answer.freeze())
    }
}
