//! Asks one broker for all that is wanted of the partitions it leads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::error::{ParseResponseErrorCode as _, ResponseError};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    ApiKey, BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::table::Wanted;
use super::transactions::AbortedTransactions;
use super::{Answer, Records, Shared, batch};
use crate::kafka::{BrokerError, Connection};

/// Newest version of the Fetch request that is spoken: with topics by name, and told where a log was cut off
/// (KIP-595).
const FETCH_VERSION: i16 = 12;

/// Versions from which on these can be said: the leader's epoch (KIP-320), and the epoch last read.
const LEADER_EPOCH_SINCE: i16 = 9;
const LAST_EPOCH_SINCE: i16 = 12;

/// Newest version of the `ListOffsets` request that is spoken.
const LIST_OFFSETS_VERSION: i16 = 5;

/// Times that mean the oldest and the newest offset.
const OLDEST: i64 = -2;
const NEWEST: i64 = -1;

/// How long a broker waits for the first record: a new partition waits for as long at most.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Only what committed transactions have written.
const READ_COMMITTED: i8 = 1;

/// No session of incremental requests (KIP-227): each request says everything.
const NO_SESSION: (i32, i32) = (0, -1);

/// Rest after a broker failed, or does not lead a partition any more.
const REST: Duration = Duration::from_millis(200);

/// Rest after a broker refused a partition for a reason that people have to remove.
const LONG_REST: Duration = Duration::from_secs(5);

/// Runs until dropped.
pub(super) async fn run(shared: Arc<Shared>, id: i32) {
    let broker = Broker {
        room: Arc::new(Semaphore::new(shared.settings.read_ahead.answers)),
        topic: TopicName(StrBytes::from_string(shared.settings.topic.clone())),
        shared,
        id,
    };
    loop {
        if let Err(error) = broker.read().await {
            debug!(broker = id, %error, "the connection to a broker ended");
            broker.shared.outdated.notify_one();
        }
        sleep(REST).await;
    }
}

struct Broker {
    shared: Arc<Shared>,
    id: i32,
    topic: TopicName,
    room: Arc<Semaphore>,
}

impl Broker {
    /// Connects when something is wanted, and reads until something fails.
    async fn read(&self) -> Result<(), BrokerError> {
        self.wanted().await;
        let settings = &self.shared.settings;
        let address = {
            let table = self.shared.table.lock();
            table.cluster().brokers.get(&self.id).cloned()
        };
        let Some(address) = address else {
            return Ok(());
        };
        let mut connection =
            Connection::open(&address, &settings.client_id, &self.shared.security).await?;
        loop {
            // Whoever drops the semaphore drops this task too.
            let Ok(room) = self.room.clone().acquire_owned().await else {
                return Ok(());
            };
            let wanted = self.wanted().await;
            let unplaced = wanted.iter().any(|wanted| wanted.next.is_none());
            if unplaced {
                self.place(&mut connection, &wanted).await?;
                continue;
            }
            let request = self.request(&connection, &wanted)?;
            let answer = connection
                .call(&request, 0..=FETCH_VERSION, MAX_WAIT)
                .await?;
            self.take(&mut connection, answer, &wanted, room).await?;
        }
    }

    /// Waits until something is wanted of this broker.
    async fn wanted(&self) -> Vec<Wanted> {
        let mut changes = self.shared.changes.subscribe();
        loop {
            let wanted = self.shared.table.lock().wanted(self.id, Instant::now());
            if !wanted.is_empty() {
                return wanted;
            }
            // The time limit is for what gets due later.
            let _ = timeout(MAX_WAIT, changes.changed()).await;
        }
    }

    fn request(
        &self,
        connection: &Connection,
        wanted: &[Wanted],
    ) -> Result<FetchRequest, BrokerError> {
        let version = connection.version(ApiKey::Fetch as i16, 0..=FETCH_VERSION)?;
        let bytes = self.shared.settings.read_ahead.bytes;
        let partition = |wanted: &Wanted| {
            let mut partition = FetchPartition::default()
                .with_partition(wanted.partition)
                .with_fetch_offset(wanted.next.unwrap_or_default())
                .with_partition_max_bytes(bytes);
            if version >= LEADER_EPOCH_SINCE {
                partition.current_leader_epoch = wanted.leader_epoch;
            }
            if version >= LAST_EPOCH_SINCE {
                partition.last_fetched_epoch = wanted.last_epoch;
            }
            partition
        };
        let topic = FetchTopic::default()
            .with_topic(self.topic.clone())
            .with_partitions(wanted.iter().map(partition).collect());
        let mut request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(i32::try_from(MAX_WAIT.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(1)
            .with_max_bytes(bytes)
            .with_isolation_level(READ_COMMITTED)
            .with_topics(vec![topic]);
        (request.session_id, request.session_epoch) = NO_SESSION;
        Ok(request)
    }

    /// Hands over what a broker has sent, and goes after what it has refused.
    async fn take(
        &self,
        connection: &mut Connection,
        answer: FetchResponse,
        wanted: &[Wanted],
        room: OwnedSemaphorePermit,
    ) -> Result<(), BrokerError> {
        if let Some(error) = answer.error_code.err() {
            return Err(BrokerError::Refused(error));
        }
        let room = Arc::new(room);
        let (mut out_of_range, mut refused) = (Vec::new(), false);
        for partition in answer.responses.into_iter().flat_map(|it| it.partitions) {
            let Some(wanted) = wanted
                .iter()
                .find(|wanted| wanted.partition == partition.partition_index)
            else {
                continue;
            };
            match partition.error_code.err() {
                None => self.take_partition(wanted, partition, &room),
                Some(ResponseError::OffsetOutOfRange) => out_of_range.push(*wanted),
                Some(error) => {
                    refused = true;
                    self.refused(wanted, error);
                }
            }
        }
        drop(room);
        if !out_of_range.is_empty() {
            self.place(connection, &out_of_range).await?;
        }
        if refused {
            self.shared.outdated.notify_one();
            sleep(REST).await;
        }
        Ok(())
    }

    fn take_partition(
        &self,
        wanted: &Wanted,
        partition: PartitionData,
        room: &Arc<OwnedSemaphorePermit>,
    ) {
        let cut_at = partition.diverging_epoch.end_offset;
        if cut_at >= 0 {
            self.go_back(wanted, cut_at);
            return;
        }
        let data = partition.records.unwrap_or_default();
        let next = batch::end_of(&data);
        // What a transaction still under way has written lies behind the last stable offset.
        let ends = [partition.last_stable_offset, partition.high_watermark];
        let end = ends.into_iter().find(|end| *end >= 0);
        let awaited = self.shared.table.lock().advance(wanted, next, end);
        if !awaited || next.is_none() {
            return;
        }
        let aborted = partition.aborted_transactions.unwrap_or_default();
        let aborted = aborted.iter().map(|it| (it.producer_id.0, it.first_offset));
        self.shared.tell(Answer::Records(Records {
            partition: wanted.partition,
            generation: wanted.generation,
            from: wanted.next.unwrap_or_default(),
            data,
            aborted: AbortedTransactions::new(aborted.collect()),
            _room: room.clone(),
        }));
    }

    /// The log was cut off behind us by an election: what was read beyond is no more, and other records took
    /// its place.
    fn go_back(&self, wanted: &Wanted, cut_at: i64) {
        warn!(
            partition = wanted.partition,
            cut_at,
            read_to = wanted.next,
            "an election has cut off the partition's log; going on from there"
        );
        self.move_to(wanted, wanted.next.unwrap_or(cut_at).min(cut_at));
    }

    fn refused(&self, wanted: &Wanted, error: ResponseError) {
        let partition = wanted.partition;
        if error.is_retriable() {
            debug!(partition, %error, "a broker does not have a partition now");
        } else {
            self.tell_problem(
                wanted,
                format!("the broker refuses to be read from: {error}"),
            );
            let due = Instant::now() + LONG_REST;
            self.shared.table.lock().postpone(wanted, due);
        }
    }

    /// Finds out where partitions begin and end, for those that begin at the oldest record and for those whose
    /// position is in neither.
    async fn place(
        &self,
        connection: &mut Connection,
        wanted: &[Wanted],
    ) -> Result<(), BrokerError> {
        let oldest = self.offsets(connection, wanted, OLDEST).await?;
        let newest = self.offsets(connection, wanted, NEWEST).await?;
        for wanted in wanted {
            let find = |offsets: &[(i32, i64)]| {
                let mut offsets = offsets.iter();
                offsets.find_map(|(id, offset)| (*id == wanted.partition).then_some(*offset))
            };
            let (Some(oldest), Some(newest)) = (find(&oldest), find(&newest)) else {
                continue;
            };
            match wanted.next {
                None => self.move_to(wanted, oldest),
                Some(next) if next < oldest => {
                    self.tell_problem(
                        wanted,
                        format!("retention has removed offsets {next} to {} before they were read; going on at {oldest}", oldest - 1),
                    );
                    self.move_to(wanted, oldest);
                }
                Some(next) if next > newest => {
                    self.tell_problem(
                        wanted,
                        format!("the log ends at {newest}, before the position {next}: it was cut off or made anew; going on at its end"),
                    );
                    self.move_to(wanted, newest);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn offsets(
        &self,
        connection: &mut Connection,
        wanted: &[Wanted],
        time: i64,
    ) -> Result<Vec<(i32, i64)>, BrokerError> {
        let partition = |wanted: &Wanted| {
            ListOffsetsPartition::default()
                .with_partition_index(wanted.partition)
                .with_timestamp(time)
        };
        let topic = ListOffsetsTopic::default()
            .with_name(self.topic.clone())
            .with_partitions(wanted.iter().map(partition).collect());
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(READ_COMMITTED)
            .with_topics(vec![topic]);
        let answer = connection
            .call(&request, 0..=LIST_OFFSETS_VERSION, Duration::ZERO)
            .await?;
        let partitions = answer.topics.into_iter().flat_map(|it| it.partitions);
        partitions
            .map(|partition| match partition.error_code.err() {
                None => Ok((partition.partition_index, partition.offset)),
                Some(error) => Err(BrokerError::Refused(error)),
            })
            .collect()
    }

    fn tell_problem(&self, wanted: &Wanted, problem: String) {
        let partition = wanted.partition;
        self.shared.tell(Answer::Problem { partition, problem });
    }

    fn move_to(&self, wanted: &Wanted, offset: i64) {
        let mut table = self.shared.table.lock();
        table.advance(wanted, Some((offset, -1)), None);
    }
}
