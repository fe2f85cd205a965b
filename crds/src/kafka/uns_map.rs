//! Keeps the directory as the compacted UNS map is.

use std::sync::Arc;

use parking_lot::RwLock;
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;
use thiserror::Error;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{KafkaSettings, Polled, WholeTopic, WholeTopicError};
use crate::groups::{Directory, GroupingStrategy, UnsEntry};
use crate::names::asset_of_key;

/// The UNS map cannot be followed.
#[derive(Debug, Error)]
pub enum FollowError {
    /// Its topic cannot be read.
    #[error("the UNS map cannot be followed: {0}")]
    Topic(#[from] WholeTopicError),
    /// No thread is to be had.
    #[error("the UNS map cannot be followed: {0}; allow this program more threads")]
    Thread(#[from] std::io::Error),
}

/// Assets and their groups, kept as the UNS map is for as long as this is held.
#[derive(Clone)]
pub struct DirectoryReader {
    /// What is known.
    pub directory: Arc<RwLock<Directory>>,
    /// A number that changes whenever something else is known.
    pub news: watch::Receiver<u64>,
}

impl DirectoryReader {
    /// Begins to read the compacted topic of the map, on a thread of its own. A topic that is not there is waited for.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub fn follow(
        kafka: &KafkaSettings,
        topic: &str,
        strategy: impl GroupingStrategy + 'static,
    ) -> Result<Self, FollowError> {
        let reader = WholeTopic::new(kafka, topic, "ofa_uns_map_reader")?;
        let (sender, news) = watch::channel(0);
        let directory = Arc::new(RwLock::new(Directory::new(strategy)));
        let follower = Follower {
            reader,
            topic: topic.to_owned(),
            directory: Arc::clone(&directory),
            news: sender,
        };
        std::thread::Builder::new()
            .name("uns-map".to_owned())
            .spawn(move || follower.run())?;
        Ok(Self { directory, news })
    }
}

struct Follower {
    reader: WholeTopic,
    topic: String,
    directory: Arc<RwLock<Directory>>,
    news: watch::Sender<u64>,
}

impl Follower {
    fn run(mut self) {
        while !self.news.is_closed() {
            self.step();
        }
    }

    fn step(&mut self) {
        match self.reader.poll() {
            Polled::Nothing => return,
            Polled::Missing(error) => {
                debug!(%error, topic = self.topic, "the UNS map is not there yet");
                return;
            }
            Polled::Failed(error) => {
                warn!(%error, "the UNS map cannot be read at the moment; what is known of it stays");
                return;
            }
            Polled::Record(record) => {
                if let Err(reason) = apply(&self.directory, &record) {
                    let (partition, offset) = (record.partition(), record.offset());
                    warn!(
                        partition,
                        offset, reason, "a record of the UNS map says nothing usable"
                    );
                }
            }
            Polled::CaughtUp => {
                self.directory.write().set_caught_up();
                info!(topic = self.topic, "the UNS map is read");
            }
        }
        self.news.send_modify(|count| *count += 1);
    }
}

fn apply(directory: &RwLock<Directory>, record: &BorrowedMessage<'_>) -> Result<(), String> {
    let asset = asset_of_key(record.key()).map_err(|error| error.to_string())?;
    let entry = UnsEntry::parse(record.payload()).map_err(|error| error.to_string())?;
    let mut directory = directory.write();
    let applied = directory.apply(asset, entry.as_ref());
    applied.map_err(|error| error.to_string())
}
