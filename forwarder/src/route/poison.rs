//! Records that cannot be forwarded: they are counted, logged and passed, never a reason to stop.

use std::fmt::Write as _;

use ofa_crds::KeyError;
use ofa_crds::payload::PayloadError;
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use thiserror::Error;

/// Why a record cannot be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Poison {
    /// No key.
    #[error("the record has no key, so it belongs to no asset")]
    NullKey,
    /// Key without bytes.
    #[error("the record's key is empty, so it belongs to no asset")]
    EmptyKey,
    /// Key that is no text.
    #[error("the record's key is not UTF-8, so it belongs to no asset")]
    NonUtf8Key,
    /// No value.
    #[error("the record is a tombstone (null value)")]
    Tombstone,
    /// Value that is no JSON.
    #[error("the value is not valid JSON")]
    InvalidJson,
    /// JSON, but no object.
    #[error("the value is JSON but not an object")]
    NotAnObject,
    /// No usable id member.
    #[error("the event has no id (a member 'id' in any casing that is a text or a number)")]
    MissingId,
    /// `attributes` of another kind.
    #[error("the event's attributes are neither an object nor null")]
    AttributesNotAnObject,
    /// Larger than the shard's nodes take.
    #[error(
        "the event is larger than the shard's max_payload; raise spec.config.maxPayload of the NatsShard"
    )]
    TooLarge,
}

impl EncodeLabelValue for Poison {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        encoder.write_str(match self {
            Self::NullKey => "null_key",
            Self::EmptyKey => "empty_key",
            Self::NonUtf8Key => "non_utf8_key",
            Self::Tombstone => "tombstone",
            Self::InvalidJson => "invalid_json",
            Self::NotAnObject => "not_an_object",
            Self::MissingId => "missing_id",
            Self::AttributesNotAnObject => "attributes_not_an_object",
            Self::TooLarge => "too_large",
        })
    }
}

impl From<KeyError> for Poison {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Null => Self::NullKey,
            KeyError::Empty => Self::EmptyKey,
            KeyError::NotUtf8 => Self::NonUtf8Key,
        }
    }
}

impl From<PayloadError> for Poison {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::InvalidJson => Self::InvalidJson,
            PayloadError::NotAnObject => Self::NotAnObject,
            PayloadError::MissingId => Self::MissingId,
        }
    }
}
