//! A publishing connection to one node of a shard and a witnessing one to another.
//!
//! What is published on the first and comes back on the second has crossed two nodes: the loss of either
//! loses nothing. With a single node the witness listens on the same one, which is weaker and said so.

use std::time::Duration;

use rand::Rng as _;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};

use super::connection::{Connection, ConnectionError, Node};
use super::protocol::ServerOp;
use crate::credentials::Access;

/// How often a probe is published until the witness hears one: interest has to travel between the nodes.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);

/// How long two nodes have to pass on a probe before the session is given up.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a write may make no progress before the node counts as stuck.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes written at once under one [`WRITE_TIMEOUT`], so that a slow node is not taken for a stuck one.
const WRITE_PIECE: usize = 256 * 1024;

/// How often a session with a single node looks for a second.
const SECOND_NODE_INTERVAL: Duration = Duration::from_secs(3);

/// Number of a probe's marker: no batch stands behind it.
const PROBE: &str = "probe";

/// Where markers are heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum WitnessMode {
    /// On another node than the one published to.
    SecondNode,
    /// On the same node: no other can be reached.
    SameNode,
}

/// Why there is no session, or none any more.
#[derive(Debug, Error)]
pub(crate) enum SessionError {
    #[error("no node can be reached; last: {node}: {error}")]
    NoNode {
        node: String,
        error: ConnectionError,
    },
    #[error(
        "the nodes take messages of {max} bytes only, but one of {needed} is waiting; raise max_payload"
    )]
    TooSmall { max: usize, needed: usize },
    #[error(
        "nodes {publisher} and {witness} do not pass messages to each other; check the shard's routes"
    )]
    Apart { publisher: String, witness: String },
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("the node has taken no bytes for {} s", WRITE_TIMEOUT.as_secs())]
    WriteStalled,
}

/// Which connection a PING came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PingFrom {
    Publisher,
    Witness,
}

/// What a session heard.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A marker came back.
    Marker(u64),
    /// A node wants to be answered ([`Session::answer`]).
    Ping(PingFrom),
    /// The node is about to stop.
    LameDuck,
    /// The node objected to something.
    Objection(String),
    /// Nothing that matters.
    Nothing,
}

/// One pair of connections.
pub(crate) struct Session {
    publisher: Connection,
    witness: Connection,
    subject: String,
    mode: WitnessMode,
}

impl Session {
    /// Connects to a node that takes `needed` bytes a message, and to another as the witness.
    pub(crate) async fn open(
        nodes: &[Node],
        access: &Access,
        member: &str,
        needed: usize,
    ) -> Result<Self, SessionError> {
        let (at, publisher) = open_first(nodes, access, member).await?;
        let max = publisher.info().max_payload;
        if max < needed {
            return Err(SessionError::TooSmall { max, needed });
        }
        let (witness, mode) = open_witness(nodes, at, &publisher, access, member).await?;
        // New with each session, so that a marker of an earlier one is never taken for one of this.
        let subject = format!(
            "{}.witness.{member}.{:016x}",
            ofa_crds::subject::CONTROL_PREFIX,
            rand::rng().random::<u64>()
        );
        let mut session = Self {
            publisher,
            witness,
            subject,
            mode,
        };
        session.subscribe().await?;
        session.probe().await?;
        Ok(session)
    }

    /// Where markers are heard.
    pub(crate) fn mode(&self) -> WitnessMode {
        self.mode
    }

    /// Largest message of the node published to, in bytes.
    pub(crate) fn max_payload(&self) -> usize {
        self.publisher.info().max_payload
    }

    /// Names of the two nodes, for people.
    pub(crate) fn nodes(&self) -> (&str, &str) {
        (
            &self.publisher.info().server_name,
            &self.witness.info().server_name,
        )
    }

    /// Waits for either connection to say something. Cancelling loses nothing.
    pub(crate) async fn heard(&mut self) -> Result<Heard, SessionError> {
        let (op, from) = tokio::select! {
            biased;
            op = self.witness.next() => (op?, PingFrom::Witness),
            op = self.publisher.next() => (op?, PingFrom::Publisher),
        };
        Ok(match op {
            ServerOp::Message { subject } => self
                .marker_number(&subject)
                .map_or(Heard::Nothing, Heard::Marker),
            ServerOp::Ping => Heard::Ping(from),
            ServerOp::Info(info) if info.ldm => Heard::LameDuck,
            ServerOp::Error(objection) => Heard::Objection(objection),
            ServerOp::Info(_) | ServerOp::Pong | ServerOp::Ok => Heard::Nothing,
        })
    }

    /// Answers a PING. To be awaited to its end, as every write.
    pub(crate) async fn answer(&mut self, from: PingFrom) -> Result<(), SessionError> {
        let connection = match from {
            PingFrom::Publisher => &mut self.publisher,
            PingFrom::Witness => &mut self.witness,
        };
        write(connection, b"PONG\r\n", b"").await
    }

    /// Publishes whole frames and a marker's behind them, which is empty where none is due.
    pub(crate) async fn publish(
        &mut self,
        frames: &[u8],
        marker: &[u8],
    ) -> Result<(), SessionError> {
        // The last piece goes with the marker: a write less, and for the node a read.
        let last = frames.len().saturating_sub(1) / WRITE_PIECE * WRITE_PIECE;
        for piece in frames[..last].chunks(WRITE_PIECE) {
            write(&mut self.publisher, piece, b"").await?;
        }
        write(&mut self.publisher, &frames[last..], marker).await
    }

    /// Appends a marker's frame.
    pub(crate) fn push_marker(&self, out: &mut Vec<u8>, number: u64) {
        push_marker(out, &self.subject, itoa::Buffer::new().format(number));
    }

    fn marker_number(&self, subject: &str) -> Option<u64> {
        subject
            .strip_prefix(&self.subject)?
            .strip_prefix('.')?
            .parse()
            .ok()
    }

    async fn subscribe(&mut self) -> Result<(), SessionError> {
        let line = format!("SUB {}.* 1\r\nPING\r\n", self.subject);
        self.witness.write(line.as_bytes(), b"").await?;
        loop {
            match self.witness.next().await? {
                ServerOp::Pong => return Ok(()),
                ServerOp::Error(reason) => return Err(ConnectionError::Refused(reason).into()),
                _ => {}
            }
        }
    }

    /// Publishes probes until one has come back: from then on markers do too.
    async fn probe(&mut self) -> Result<(), SessionError> {
        let deadline = Instant::now() + PROBE_TIMEOUT;
        let mut frame = Vec::new();
        push_marker(&mut frame, &self.subject, PROBE);
        while Instant::now() < deadline {
            self.publish(&frame, b"").await?;
            let pause = sleep(PROBE_INTERVAL);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    biased;
                    op = self.witness.next() => if matches!(op?, ServerOp::Message { .. }) { return Ok(()) },
                    () = &mut pause => break,
                }
            }
        }
        let (publisher, witness) = self.nodes();
        Err(SessionError::Apart {
            publisher: publisher.to_owned(),
            witness: witness.to_owned(),
        })
    }
}

/// Writes two parts at once. A node that has not taken them within [`WRITE_TIMEOUT`] counts as stuck.
async fn write(
    connection: &mut Connection,
    first: &[u8],
    second: &[u8],
) -> Result<(), SessionError> {
    let written = timeout(WRITE_TIMEOUT, connection.write(first, second)).await;
    Ok(written.map_err(|_| SessionError::WriteStalled)??)
}

/// Returns as soon as a node other than the one named can be reached, for a session that has only one.
pub(crate) async fn second_node(nodes: &[Node], access: &Access, member: &str, first: &str) {
    loop {
        sleep(SECOND_NODE_INTERVAL).await;
        for node in nodes {
            if let Ok(connection) = Connection::open(node, access, member).await
                && connection.info().server_name != first
            {
                return;
            }
        }
    }
}

async fn open_first(
    nodes: &[Node],
    access: &Access,
    member: &str,
) -> Result<(usize, Connection), SessionError> {
    let mut last = None;
    for (at, node) in nodes.iter().enumerate() {
        match Connection::open(node, access, member).await {
            Ok(connection) if !connection.info().ldm => return Ok((at, connection)),
            Ok(_) => {
                last = Some((
                    node,
                    ConnectionError::Refused("it is about to stop".to_owned()),
                ));
            }
            Err(error) => last = Some((node, error)),
        }
    }
    let (node, error) = last.map_or_else(
        || (String::new(), ConnectionError::Closed),
        |(node, error)| (node.to_string(), error),
    );
    Err(SessionError::NoNode { node, error })
}

/// The witness: on a node that is not the publisher's, or else on the publisher's own.
async fn open_witness(
    nodes: &[Node],
    publisher_at: usize,
    publisher: &Connection,
    access: &Access,
    member: &str,
) -> Result<(Connection, WitnessMode), SessionError> {
    for (at, node) in nodes.iter().enumerate() {
        if at == publisher_at {
            continue;
        }
        if let Ok(connection) = Connection::open(node, access, member).await
            && connection.info().server_id != publisher.info().server_id
            && !connection.info().ldm
        {
            return Ok((connection, WitnessMode::SecondNode));
        }
    }
    let connection = Connection::open(&nodes[publisher_at], access, member).await?;
    let same = connection.info().server_id == publisher.info().server_id;
    // One URL may lead to several nodes, by DNS or a load balancer.
    Ok((
        connection,
        if same {
            WitnessMode::SameNode
        } else {
            WitnessMode::SecondNode
        },
    ))
}

fn push_marker(out: &mut Vec<u8>, subject: &str, number: &str) {
    out.extend_from_slice(b"PUB ");
    out.extend_from_slice(subject.as_bytes());
    out.push(b'.');
    out.extend_from_slice(number.as_bytes());
    out.extend_from_slice(b" 0\r\n\r\n");
}
