//! A model of one shard of two nodes. What clients sent to a node and what it has yet to pass on to the
//! other are two buffers; a node that dies loses both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An event: its partition and offset.
pub(super) type Event = (i32, i64);

/// What travels to and between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Event(Event),
    Marker(Token),
    Ping(Token),
}

/// Who asked for a sign of life, in which session, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) forwarder: usize,
    pub(super) session: u64,
    pub(super) number: u64,
}

/// What a forwarder hears from a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// The node published to has read the bytes.
    Pong(Token),
    /// The second node has what was published before the marker.
    Witnessed(Token),
}

/// One node, and a client on it that drops what is not newer than what it has seen.
#[derive(Debug, Default)]
struct Node {
    from_clients: VecDeque<Message>,
    to_peer: VecDeque<Message>,
    handled: BTreeSet<Event>,
    newest: BTreeMap<i32, i64>,
    seen: BTreeSet<Event>,
    /// Whether its client could see everything: it never died, and nothing was lost on the way to it.
    whole: bool,
}

impl Node {
    fn take_in(&mut self, event: Event) {
        self.handled.insert(event);
        let newest = self.newest.entry(event.0).or_insert(-1);
        if event.1 > *newest {
            *newest = event.1;
            self.seen.insert(event);
        }
    }
}

/// Two nodes.
#[derive(Debug)]
pub(super) struct Shard {
    nodes: [Node; 2],
    /// Events that stood on both nodes at some time.
    on_both: BTreeSet<Event>,
    /// Whether the nodes do not pass on anything at present.
    apart: bool,
    /// Whether nobody can connect.
    pub(super) away: bool,
    /// Grows with every loss of a node: sessions of before have ended.
    pub(super) generation: u64,
}

impl Shard {
    pub(super) fn new() -> Self {
        let node = || Node {
            whole: true,
            ..Node::default()
        };
        Self {
            nodes: [node(), node()],
            on_both: BTreeSet::new(),
            apart: false,
            away: false,
            generation: 0,
        }
    }

    pub(super) fn publish(&mut self, node: usize, message: Message) {
        self.nodes[node].from_clients.push_back(message);
    }

    /// A node handles one message of a client; returns what its publisher hears.
    pub(super) fn handle(&mut self, node: usize) -> Option<Reply> {
        let message = self.nodes[node].from_clients.pop_front()?;
        match message {
            Message::Event(event) => self.take_in(node, event),
            Message::Ping(token) => return Some(Reply::Pong(token)),
            Message::Marker(_) => {}
        }
        if self.apart {
            self.nodes[1 - node].whole = false;
        } else {
            self.nodes[node].to_peer.push_back(message);
        }
        None
    }

    /// A node passes on one message; returns what a witness on the other hears.
    pub(super) fn pass_on(&mut self, node: usize) -> Option<Reply> {
        match self.nodes[node].to_peer.pop_front()? {
            Message::Event(event) => {
                self.take_in(1 - node, event);
                None
            }
            Message::Marker(token) => Some(Reply::Witnessed(token)),
            Message::Ping(_) => None,
        }
    }

    fn take_in(&mut self, node: usize, event: Event) {
        self.nodes[node].take_in(event);
        if self.nodes[1 - node].handled.contains(&event) {
            self.on_both.insert(event);
        }
    }

    /// A node dies with all it holds, and comes back empty. Its clients have to begin anew.
    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node] = Node::default();
        self.nodes[1 - node].to_peer.clear();
        self.generation += 1;
    }

    /// The way between the nodes breaks: what was on it is lost, and no client is told.
    pub(super) fn part(&mut self) {
        self.apart = true;
        for node in 0..2 {
            if !self.nodes[node].to_peer.is_empty() {
                self.nodes[node].to_peer.clear();
                self.nodes[1 - node].whole = false;
            }
        }
    }

    /// The way is there again. Connecting anew takes longer than handling what has already arrived.
    pub(super) fn join(&mut self) {
        if self.nodes.iter().all(|node| node.from_clients.is_empty()) {
            self.apart = false;
        }
    }

    /// Whether a second node has had an event.
    pub(super) fn has(&self, event: Event) -> bool {
        self.on_both.contains(&event)
    }

    /// An event that a client who could see everything has not seen.
    pub(super) fn unseen(&self, events: &(impl Iterator<Item = Event> + Clone)) -> Option<Event> {
        let whole = self.nodes.iter().filter(|node| node.whole);
        whole
            .filter_map(|node| events.clone().find(|event| !node.seen.contains(event)))
            .next()
    }
}
