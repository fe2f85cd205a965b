//! How every program of the project reaches Kafka, and the control topic.

mod clock;
mod control_state;
mod control_topic;
mod headers;
mod settings;
mod uns_map;
mod whole_topic;

pub use clock::now_ms;
pub use control_state::ControlState;
pub use control_topic::{ControlError, ControlTopic};
pub use headers::header_from_end;
pub use settings::{KafkaSettings, KafkaSettingsError, SaslCredentials};
pub use uns_map::{DirectoryReader, FollowError};
pub use whole_topic::{Polled, Quiet, TopicEnds, WholeTopic, WholeTopicError};
