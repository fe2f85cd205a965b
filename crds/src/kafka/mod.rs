//! How every program of the project reaches Kafka, and the control topic.

mod control_topic;
mod settings;

pub use control_topic::{ControlError, ControlState, ControlTopic};
pub use settings::{KafkaSettings, KafkaSettingsError};
