//! Moves messages from shards to a subscription's queue, at the consumer's pace. What comes meanwhile waits, in order; what
//! there is no room for is asked for, as what an interruption has taken.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::arrivals::{Arrival, Arrivals};
use crate::client::Shared;
use crate::connection::LinkState;
use crate::event;
use crate::grace::Grace;
use crate::item::{Cause, Gap, Item};
use crate::outbox::{Closed, Outbox};
use crate::replay::{Join, Part, ReplayError};
use crate::router::Route;
use crate::sequencer::Origin;
use crate::source::{Anew, Source};
use crate::subscription::{SubscribeOptions, Subscription};

/// Rest before a shard that could not be subscribed to is tried again.
const OPEN_RETRY: Duration = Duration::from_secs(1);

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

/// The shard that the asset moves away from.
struct Former {
    source: Source,
    grace: Grace,
}

pub(crate) struct Pump {
    shared: Arc<Shared>,
    current: Source,
    former: Option<Former>,
    routes: Option<watch::Receiver<Route>>,
    /// When a route is followed again that could not be.
    again: Option<Instant>,
    join: Join,
    answer: Option<mpsc::Receiver<Part>>,
    arrivals: Arrivals,
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
            again: None,
            join,
            answer: None,
            arrivals: Arrivals::default(),
            outbox: Outbox::new(sender),
            options: options.clone(),
            due: Vec::new(),
        };
        tokio::spawn(pump.run());
        Subscription::new(items)
    }

    async fn run(mut self) {
        while self.step().await.is_ok() {}
    }

    async fn step(&mut self) -> Result<(), Closed> {
        match self.wait().await {
            Wake::Message(origin, Some(message)) => self.message(origin, message),
            Wake::Message(Origin::Former, None) | Wake::MoveIsOver => self.end_move(),
            Wake::Message(Origin::Current, None) => self.reopen().await?,
            Wake::Link => self.report_link(),
            Wake::Route => self.follow_route().await,
            Wake::Consumer(attended) => self.attended(attended)?,
            Wake::Part(part) => self.part(part),
            Wake::Join => self.tick().await,
        }
        self.send_due()?;
        self.take_arrivals()
    }

    async fn wait(&mut self) -> Wake {
        let Self {
            current,
            former,
            routes,
            again,
            outbox,
            answer,
            join,
            ..
        } = self;
        let keeps_up = !outbox.is_behind();
        let deadline = former.as_ref().map(|former| former.grace.ends());
        tokio::select! {
            biased;
            attended = outbox.attend() => Wake::Consumer(attended),
            () = changed(&mut current.link), if keeps_up => Wake::Link,
            () = sleep_until(deadline) => Wake::MoveIsOver,
            () = route_changed(routes) => Wake::Route,
            () = sleep_until(*again) => Wake::Route,
            () = sleep_until(join.deadline()), if keeps_up => Wake::Join,
            part = next_part(answer.as_mut()), if keeps_up => Wake::Part(part),
            message = next_of(former) => Wake::Message(Origin::Former, message),
            message = current.subscriber.next() => Wake::Message(Origin::Current, message),
        }
    }

    fn message(&mut self, origin: Origin, message: Message) {
        let source = match (origin, &mut self.former) {
            (Origin::Former, Some(former)) => &mut former.source,
            _ => &mut self.current,
        };
        note_breaks(source, origin, &mut self.arrivals);
        match event::decode(message, Timestamp::now()) {
            Ok(event) => self.arrivals.push(event, origin, Instant::now()),
            Err(error) => debug!(%error, "a message is passed over"),
        }
    }

    /// Takes in what has come, for as long as the consumer does.
    fn take_arrivals(&mut self) -> Result<(), Closed> {
        while !self.outbox.is_behind()
            && let Some(arrival) = self.arrivals.next()
        {
            let now = Instant::now();
            match arrival {
                Arrival::Event(event, origin, arrived) => {
                    self.join.live(event, origin, (arrived, now), &mut self.due);
                }
                Arrival::Connected(anew, origin) => self.connected(anew, origin),
                Arrival::LetGo => self.let_go(),
                Arrival::Moved(moved) => {
                    self.join.sequencer.begin_move();
                    self.due.push(moved);
                }
                Arrival::MoveIsOver => {
                    let asks = self.shared.replayer.is_there();
                    self.join.end_move(asks, now, &mut self.due);
                }
            }
            self.send_due()?;
        }
        if !self.outbox.is_behind() {
            self.need_former_no_longer();
        }
        Ok(())
    }

    fn connected(&mut self, anew: Anew, origin: Origin) {
        let begins_to_move = self.join.sequencer.begins_to_move(anew, origin);
        if let Some(former) = self.former.as_mut().filter(|_| begins_to_move) {
            // Until the move is over the former shard delivers, and then is asked.
            former.grace.begin(Instant::now());
            self.report_news();
            return;
        }
        if self.shared.replayer.is_there() {
            self.join.connected(Instant::now());
        } else if anew == Anew::Again {
            self.join.interrupted(Instant::now());
        }
        self.report_news();
    }

    /// Events were thrown away. They are asked for, and only where nobody can be asked they are missing.
    fn let_go(&mut self) {
        if self.shared.replayer.is_there() {
            self.join.let_go(Instant::now());
        } else {
            self.join.interrupted(Instant::now());
            self.due.push(Item::Gap(Gap::unknown(Cause::SlowConsumer)));
        }
    }

    fn report_link(&mut self) {
        // An asset that is quiet has no message to show that the connection is another.
        note_breaks(&mut self.current, Origin::Current, &mut self.arrivals);
        self.report_news();
    }

    fn report_news(&mut self) {
        self.due.extend(self.current.news());
    }

    /// Asks, or gives up asking.
    async fn tick(&mut self) {
        if let Some(question) = self.join.tick(Instant::now(), &mut self.due) {
            if self.current.link.borrow().connected {
                self.current.flush().await;
            }
            self.answer = Some(self.shared.replayer.ask(question));
        }
    }

    fn part(&mut self, part: Part) {
        if matches!(part, Part::End | Part::Failed(_)) {
            self.answer = None;
        }
        self.join.part(part, Instant::now(), &mut self.due);
    }

    fn attended(&mut self, attended: Result<(), Closed>) -> Result<(), Closed> {
        if !self.outbox.is_behind() {
            self.join.wait_anew(Instant::now());
        }
        attended
    }

    /// The asset has a new route: listen there, and to the former shard until what it still has is here.
    async fn follow_route(&mut self) {
        let Some(routes) = &mut self.routes else {
            return;
        };
        let route = routes.borrow_and_update().clone();
        let first = self.again.take().is_none();
        let source = match self.shared.open(&route).await {
            Ok(source) => source,
            Err(error) => {
                if first {
                    warn!(asset = route.asset_id, %error, "the asset's new shard cannot be used; staying with the old one for now");
                }
                self.again = Some(Instant::now() + OPEN_RETRY);
                return;
            }
        };
        if source.shard() == self.current.shard() {
            // Only addresses changed, and the connection knows them now.
            return;
        }
        self.end_move();
        let moved = Item::Moved {
            from: self.current.shard().to_owned(),
            to: source.shard().to_owned(),
            epoch: route.epoch,
        };
        let former = std::mem::replace(&mut self.current, source);
        self.former = Some(Former {
            source: former,
            grace: Grace::new(Instant::now()),
        });
        self.arrivals.note(Arrival::Moved(moved));
    }

    /// To be asked when all that has come is taken in, moves too.
    fn need_former_no_longer(&mut self) {
        if let Some(former) = &mut self.former
            && self.join.sequencer.has_arrived()
        {
            former.grace.shorten();
        }
    }

    fn end_move(&mut self) {
        if self.former.take().is_some() {
            self.arrivals.note(Arrival::MoveIsOver);
        }
    }

    /// The connection ended for good, which async-nats only does when told to: begin anew.
    async fn reopen(&mut self) -> Result<(), Closed> {
        tokio::time::sleep(OPEN_RETRY).await;
        self.arrivals.note(Arrival::LetGo);
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

/// Notes where what a source delivers does not follow what it delivered before.
fn note_breaks(source: &mut Source, origin: Origin, arrivals: &mut Arrivals) {
    if let Some(anew) = source.delivers_anew() {
        arrivals.note(Arrival::Connected(anew, origin));
    }
    if source.has_thrown_away() {
        arrivals.note(Arrival::LetGo);
    }
}

async fn next_of(former: &mut Option<Former>) -> Option<Message> {
    match former {
        Some(former) => former.source.subscriber.next().await,
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
