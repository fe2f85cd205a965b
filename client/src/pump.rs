//! Moves messages from shards to a subscription's queue, at the consumer's pace. What the shard sends meanwhile waits in
//! the connection's buffer; beyond that it is asked for, as what an interruption has taken.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::client::Shared;
use crate::connection::{LinkState, ShardConnection};
use crate::error::ClientError;
use crate::event;
use crate::item::{Cause, Gap, Item};
use crate::outbox::{Closed, Outbox};
use crate::replay::{Join, Part, ReplayError};
use crate::router::Route;
use crate::sequencer::Origin;
use crate::subscription::{SubscribeOptions, Subscription};

/// How long the former shard is listened to after a move. Forwarders are told of a new map before clients
/// are, so what is still on its way through the former shard arrives well within this.
const MOVE_GRACE: Duration = Duration::from_secs(3);

/// Rest before a shard that could not be subscribed to is tried again.
const OPEN_RETRY: Duration = Duration::from_secs(1);

/// A subscription on one shard, and what was last known about its connection.
pub(crate) struct Source {
    connection: Arc<ShardConnection>,
    subscriber: Subscriber,
    link: watch::Receiver<LinkState>,
    reported: LinkState,
    connects: u64,
}

impl Source {
    pub(crate) async fn open(
        connection: Arc<ShardConnection>,
        subject: &str,
    ) -> Result<Self, ClientError> {
        let subscriber = connection.subscribe(subject).await?;
        let link = connection.link();
        // A connection that is still being made is no loss: nothing was subscribed before.
        let reported = LinkState {
            connected: true,
            ..*link.borrow()
        };
        Ok(Self {
            subscriber,
            reported,
            link,
            connects: connection.connects(),
            connection,
        })
    }

    /// Waits until the subscription is written to the node.
    pub(crate) async fn flush(&self) {
        self.connection.flush().await;
    }

    fn shard(&self) -> &str {
        &self.connection.shard
    }

    /// Whether another connection than before delivers from here on.
    fn delivers_anew(&mut self) -> Option<Anew> {
        let connects = self.connection.connects();
        let before = std::mem::replace(&mut self.connects, connects);
        match before {
            _ if connects == before => None,
            0 => Some(Anew::First),
            _ => Some(Anew::Again),
        }
    }

    /// What happened to the connection since it was last asked.
    fn news(&mut self) -> Vec<Item> {
        let now = *self.link.borrow_and_update();
        let before = std::mem::replace(&mut self.reported, now);
        let shard = || self.shard().to_owned();
        let mut news = Vec::new();
        if now.losses > before.losses {
            news.push(Item::Disconnected { shard: shard() });
        }
        if now.connected && (!before.connected || now.losses > before.losses) {
            news.push(Item::Reconnected {
                shard: shard(),
                node: self.connection.node(),
            });
        }
        if now.overflows > before.overflows {
            news.push(Item::Gap(Gap::unknown(Cause::SlowConsumer)));
        }
        news
    }
}

/// A connection that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anew {
    /// It interrupts nothing.
    First,
    /// What was sent since the former one was lost did not arrive.
    Again,
}

/// What the pump is woken by.
enum Wake {
    Message(Origin, Option<Message>),
    Link,
    Route,
    MoveIsOver,
    Consumer(Result<(), Closed>),
    /// A piece of an answer of the replay service.
    Part(Part),
    /// Something of what [`Join`] decides is due.
    Join,
}

pub(crate) struct Pump {
    shared: Arc<Shared>,
    current: Source,
    former: Option<(Source, Instant)>,
    routes: Option<watch::Receiver<Route>>,
    join: Join,
    answer: Option<mpsc::Receiver<Part>>,
    outbox: Outbox,
    options: SubscribeOptions,
    due: Vec<Item>,
}

impl Pump {
    /// Starts the task that feeds the subscription.
    pub(crate) fn start(
        shared: Arc<Shared>,
        source: Source,
        routes: Option<watch::Receiver<Route>>,
        join: Join,
        options: &SubscribeOptions,
    ) -> Subscription {
        let (sender, items) = mpsc::channel(options.queue.max(1));
        let pump = Self {
            shared,
            current: source,
            former: None,
            routes,
            join,
            answer: None,
            outbox: Outbox::new(sender),
            options: options.clone(),
            due: Vec::new(),
        };
        tokio::spawn(pump.run());
        Subscription::new(items)
    }

    async fn run(mut self) {
        loop {
            let wake = self.wait().await;
            let done = match wake {
                Wake::Message(origin, Some(message)) => self.message(origin, message),
                Wake::Message(Origin::Former, None) | Wake::MoveIsOver => self.end_move(),
                Wake::Message(Origin::Current, None) => self.reopen().await,
                Wake::Link => self.report_link(),
                Wake::Route => self.follow_route().await,
                Wake::Consumer(attended) => self.attended(attended),
                Wake::Part(part) => self.part(part),
                Wake::Join => self.tick().await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn wait(&mut self) -> Wake {
        let Self {
            current,
            former,
            routes,
            outbox,
            answer,
            join,
            ..
        } = self;
        let keeps_up = !outbox.is_behind();
        let deadline = former.as_ref().map(|(_, deadline)| *deadline);
        tokio::select! {
            biased;
            () = changed(&mut current.link) => Wake::Link,
            () = sleep_until(deadline) => Wake::MoveIsOver,
            () = route_changed(routes) => Wake::Route,
            () = sleep_until(join.deadline()), if keeps_up => Wake::Join,
            part = next_part(answer.as_mut()), if keeps_up => Wake::Part(part),
            message = next_of(former), if keeps_up => Wake::Message(Origin::Former, message),
            message = current.subscriber.next(), if keeps_up => Wake::Message(Origin::Current, message),
            attended = outbox.attend() => Wake::Consumer(attended),
        }
    }

    fn message(&mut self, origin: Origin, message: Message) -> Result<(), Closed> {
        let anew = match (origin, &mut self.former) {
            (Origin::Former, Some((source, _))) => source.delivers_anew(),
            _ => self.current.delivers_anew(),
        };
        if let Some(anew) = anew {
            self.connected(anew)?;
        }
        match event::decode(message, Timestamp::now()) {
            Ok(event) => {
                self.join.live(event, origin, Instant::now(), &mut self.due);
                self.send_due()
            }
            Err(error) => {
                debug!(%error, "a message is passed over");
                Ok(())
            }
        }
    }

    fn connected(&mut self, anew: Anew) -> Result<(), Closed> {
        if self.shared.replayer.is_there() {
            self.join.connected(Instant::now());
        } else if anew == Anew::Again {
            self.join.interrupted(Instant::now());
        }
        self.report_news()
    }

    fn report_link(&mut self) -> Result<(), Closed> {
        // An asset that is quiet has no message to show that the connection is another.
        match self.current.delivers_anew() {
            Some(anew) => self.connected(anew),
            None => self.report_news(),
        }
    }

    fn report_news(&mut self) -> Result<(), Closed> {
        let mut news = self.current.news();
        if news.iter().any(|item| matches!(item, Item::Gap(_))) {
            self.join.interrupted(Instant::now());
            // What was thrown away is asked for: it is not missing yet.
            if self.shared.replayer.is_there() {
                news.retain(|item| !matches!(item, Item::Gap(_)));
            }
        }
        self.due.extend(news);
        self.send_due()
    }

    /// Asks, or gives up asking.
    async fn tick(&mut self) -> Result<(), Closed> {
        if let Some(question) = self.join.tick(Instant::now(), &mut self.due) {
            if self.current.link.borrow().connected {
                self.current.flush().await;
            }
            self.answer = Some(self.shared.replayer.ask(question));
        }
        self.send_due()
    }

    fn part(&mut self, part: Part) -> Result<(), Closed> {
        if matches!(part, Part::End | Part::Failed(_)) {
            self.answer = None;
        }
        self.join.part(part, Instant::now(), &mut self.due);
        self.send_due()
    }

    fn attended(&mut self, attended: Result<(), Closed>) -> Result<(), Closed> {
        if !self.outbox.is_behind() {
            self.join.consumer_is_back(Instant::now());
        }
        attended
    }

    /// The asset has a new route: listen there, and to the former shard until what it still has is here.
    async fn follow_route(&mut self) -> Result<(), Closed> {
        let Some(routes) = &mut self.routes else {
            return Ok(());
        };
        let route = routes.borrow_and_update().clone();
        let source = match self.shared.open(&route).await {
            Ok(source) => source,
            Err(error) => {
                warn!(asset = route.asset_id, %error, "the asset's new shard cannot be used; staying with the old one");
                return Ok(());
            }
        };
        if source.shard() == self.current.shard() {
            // Only addresses changed, and the connection knows them now.
            return Ok(());
        }
        self.end_move()?;
        let moved = Item::Moved {
            from: self.current.shard().to_owned(),
            to: source.shard().to_owned(),
            epoch: route.epoch,
        };
        let former = std::mem::replace(&mut self.current, source);
        self.former = Some((former, Instant::now() + MOVE_GRACE));
        self.join.sequencer.begin_move();
        if self.shared.replayer.is_there() {
            self.join.connected(Instant::now());
        }
        self.due.push(moved);
        self.send_due()
    }

    fn end_move(&mut self) -> Result<(), Closed> {
        self.former = None;
        self.join.sequencer.end_move(&mut self.due);
        self.send_due()
    }

    /// The connection ended for good, which async-nats only does when told to: begin anew.
    async fn reopen(&mut self) -> Result<(), Closed> {
        tokio::time::sleep(OPEN_RETRY).await;
        self.join.interrupted(Instant::now());
        let Some(routes) = &self.routes else {
            return Err(Closed);
        };
        let route = routes.borrow().clone();
        match self.shared.open(&route).await {
            Ok(source) => self.current = source,
            Err(error) => {
                warn!(asset = route.asset_id, %error, "the shard cannot be used; trying on");
            }
        }
        Ok(())
    }

    fn send_due(&mut self) -> Result<(), Closed> {
        for item in self.due.drain(..) {
            if self.options.want(&item) {
                self.outbox.push(item)?;
            }
        }
        Ok(())
    }
}

async fn next_of(former: &mut Option<(Source, Instant)>) -> Option<Message> {
    match former {
        Some((source, _)) => source.subscriber.next().await,
        None => std::future::pending().await,
    }
}

/// An answer that ends without having been completed was broken off.
async fn next_part(answer: Option<&mut mpsc::Receiver<Part>>) -> Part {
    match answer {
        Some(answer) => {
            let part = answer.recv().await;
            part.unwrap_or_else(|| Part::Failed(Arc::new(ReplayError::Silent)))
        }
        None => std::future::pending().await,
    }
}

/// A connection that is gone for good has no more news.
async fn changed(link: &mut watch::Receiver<LinkState>) {
    if link.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn route_changed(routes: &mut Option<watch::Receiver<Route>>) {
    match routes {
        Some(routes) => {
            if routes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
