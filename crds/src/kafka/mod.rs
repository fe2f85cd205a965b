//! How every program of the project reaches Kafka, and the control topic.

mod control_state;
mod control_topic;
mod settings;
mod uns_map;

pub use control_state::ControlState;
pub use control_topic::{ControlError, ControlTopic};
pub use settings::{KafkaSettings, KafkaSettingsError};
pub use uns_map::{DirectoryReader, FollowError};
