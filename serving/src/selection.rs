//! What a client asks for: `asset_uuid=&id=`, repeated or separated by commas.
//!
//! A comma separates names where it stands as it is; `%2C` is a comma within a name. So any name can be asked
//! for, also by repeating the parameter.

use std::collections::BTreeSet;
use std::sync::Arc;

use thiserror::Error;

use crate::query::{QueryError, decode, values};

/// Most names in one request: a page of machines, not a plant.
const MAX_NAMES: usize = 1000;

/// A query that selects nothing that could be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SelectionError {
    /// No asset.
    #[error("name an asset: ?asset_uuid=<its UUID, percent-encoded>")]
    NoAsset,
    /// Not UTF-8.
    #[error(transparent)]
    Encoding(#[from] QueryError),
    /// Too much.
    #[error("at most {MAX_NAMES} assets and {MAX_NAMES} ids can be asked for in one request")]
    TooMany,
}

/// Assets, and which of their attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    assets: BTreeSet<Arc<str>>,
    ids: BTreeSet<Box<str>>,
}

impl Selection {
    /// Reads a query string.
    ///
    /// # Errors
    /// When it names no asset, too many, or is not UTF-8.
    pub fn from_query(query: Option<&str>) -> Result<Self, SelectionError> {
        let query = query.unwrap_or_default();
        let assets: BTreeSet<Arc<str>> = names(query, "asset_uuid")?;
        let ids: BTreeSet<Box<str>> = names(query, "id")?;
        if assets.is_empty() {
            return Err(SelectionError::NoAsset);
        }
        if assets.len() > MAX_NAMES || ids.len() > MAX_NAMES {
            return Err(SelectionError::TooMany);
        }
        Ok(Self { assets, ids })
    }

    /// The assets.
    pub fn assets(&self) -> impl Iterator<Item = &Arc<str>> {
        self.assets.iter()
    }

    /// Whether events of this asset are asked for.
    #[must_use]
    pub fn has_asset(&self, asset: &str) -> bool {
        self.assets.contains(asset)
    }

    /// Whether events of this attribute are asked for.
    #[must_use]
    pub fn has_id(&self, id: Option<&str>) -> bool {
        self.ids.is_empty() || id.is_some_and(|id| self.ids.contains(id))
    }
}

fn names<T: From<String>, C: FromIterator<T>>(
    query: &str,
    parameter: &str,
) -> Result<C, SelectionError> {
    values(query, parameter)
        .flat_map(|values| values.split(','))
        .filter(|name| !name.is_empty())
        .map(|name| Ok(decode(name)?.into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assets(query: &str) -> Vec<String> {
        let selection = Selection::from_query(Some(query)).unwrap();
        selection.assets().map(ToString::to_string).collect()
    }

    #[test]
    fn names_are_repeated_or_separated_by_commas() {
        assert_eq!(assets("asset_uuid=B,A&asset_uuid=C&id=x"), ["A", "B", "C"]);
        assert_eq!(assets("asset_uuid=a%2Cb"), ["a,b"]);
        assert_eq!(
            assets("asset_uuid=Halle+3,M%C3%BCller"),
            ["Halle 3", "Müller"]
        );
    }

    #[test]
    fn without_ids_all_are_asked_for() {
        let all = Selection::from_query(Some("asset_uuid=A&id=")).unwrap();
        assert!(all.has_id(Some("x")) && all.has_id(None));
        let some = Selection::from_query(Some("asset_uuid=A&id=x,y")).unwrap();
        assert!(some.has_id(Some("y")) && !some.has_id(Some("z")) && !some.has_id(None));
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        let refused = |query: &str| Selection::from_query(Some(query)).unwrap_err();
        assert_eq!(refused("id=x"), SelectionError::NoAsset);
        assert_eq!(refused("asset_uuid=,"), SelectionError::NoAsset);
        assert_eq!(
            refused("asset_uuid=%FF"),
            SelectionError::Encoding(QueryError)
        );
        let many: Vec<String> = (0..=MAX_NAMES).map(|name| name.to_string()).collect();
        let many = format!("asset_uuid={}", many.join(","));
        assert_eq!(refused(&many), SelectionError::TooMany);
    }
}
