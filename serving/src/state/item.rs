//! One attribute's latest values, and what changes them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::Columns;

/// The latest of each column of an attribute, in upstream's order and names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The attribute's id.
    pub id: String,
    /// Its value as text.
    pub value: Option<String>,
    /// Samples, Events, Condition and others.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What the value is.
    pub tag: Option<String>,
    /// The device's timestamp.
    pub timestamp: Option<String>,
}

impl Item {
    pub(super) fn merge(&mut self, newer: Columns) {
        let Columns {
            id: _,
            value,
            kind,
            tag,
            timestamp,
        } = newer;
        self.value = value.or(self.value.take());
        self.kind = kind.or(self.kind.take());
        self.tag = tag.or(self.tag.take());
        self.timestamp = timestamp.or(self.timestamp.take());
    }
}

/// One event for the store.
#[derive(Debug, Clone)]
pub struct Change {
    /// The asset.
    pub asset: Arc<str>,
    /// What the event says; one without id changes nothing.
    pub columns: Columns,
}
