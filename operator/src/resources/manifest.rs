//! One object of any kind that a folder may hold.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ofa_crds::api::{
    AssetGroup, Condition, ConditionStatus, ForwarderPool, NatsShard, set_condition,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plain::{Deployment, Service, StatefulSet};

/// Kinds, in the order in which they are reconciled: what others need comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// v1 Service.
    Service,
    /// apps/v1 StatefulSet.
    StatefulSet,
    /// apps/v1 Deployment.
    Deployment,
    /// Ours.
    NatsShard,
    /// Ours.
    ForwarderPool,
    /// Ours.
    AssetGroup,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Service,
        Self::StatefulSet,
        Self::Deployment,
        Self::NatsShard,
        Self::ForwarderPool,
        Self::AssetGroup,
    ];

    /// The name in manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::StatefulSet => "StatefulSet",
            Self::Deployment => "Deployment",
            Self::NatsShard => "NatsShard",
            Self::ForwarderPool => "ForwarderPool",
            Self::AssetGroup => "AssetGroup",
        }
    }

    /// The group and version in manifests.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Service => "v1",
            Self::StatefulSet | Self::Deployment => "apps/v1",
            Self::NatsShard | Self::ForwarderPool | Self::AssetGroup => {
                "fanout.openfactory.io/v1alpha1"
            }
        }
    }

    /// The kind of that group, version and name.
    #[must_use]
    pub fn find(api_version: &str, name: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.filter(|kind| kind.api_version() == api_version)
    }
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Kind.
    pub kind: Kind,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}

/// One object: as it stands in a file, with the metadata and status an API server would add.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Manifest {
    /// v1 Service.
    Service(Box<Service>),
    /// apps/v1 StatefulSet.
    StatefulSet(Box<StatefulSet>),
    /// apps/v1 Deployment.
    Deployment(Box<Deployment>),
    /// Ours.
    NatsShard(Box<NatsShard>),
    /// Ours.
    ForwarderPool(Box<ForwarderPool>),
    /// Ours.
    AssetGroup(Box<AssetGroup>),
}

/// Does the same with the object inside, whatever its kind.
macro_rules! each {
    ($manifest:expr, $object:ident => $body:expr) => {
        match $manifest {
            Manifest::Service($object) => $body,
            Manifest::StatefulSet($object) => $body,
            Manifest::Deployment($object) => $body,
            Manifest::NatsShard($object) => $body,
            Manifest::ForwarderPool($object) => $body,
            Manifest::AssetGroup($object) => $body,
        }
    };
}

impl Manifest {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::StatefulSet(_) => Kind::StatefulSet,
            Self::Deployment(_) => Kind::Deployment,
            Self::NatsShard(_) => Kind::NatsShard,
            Self::ForwarderPool(_) => Kind::ForwarderPool,
            Self::AssetGroup(_) => Kind::AssetGroup,
        }
    }

    /// Its metadata.
    #[must_use]
    pub fn meta(&self) -> &ObjectMeta {
        each!(self, object => &object.metadata)
    }

    /// Its metadata.
    pub fn meta_mut(&mut self) -> &mut ObjectMeta {
        each!(self, object => &mut object.metadata)
    }

    /// Which object it is.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        let meta = self.meta();
        ObjectKey {
            kind: self.kind(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }

    /// The whole object as `kubectl get -o json` shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        // Only maps with keys that are not text cannot be written, and there are none.
        each!(self, object => serde_json::to_value(object)).unwrap_or_default()
    }

    /// Whether both want the same, whatever their metadata and status.
    #[must_use]
    pub fn same_spec(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Service(a), Self::Service(b)) => a.spec == b.spec,
            (Self::StatefulSet(a), Self::StatefulSet(b)) => a.spec == b.spec,
            (Self::Deployment(a), Self::Deployment(b)) => a.spec == b.spec,
            (Self::NatsShard(a), Self::NatsShard(b)) => a.spec == b.spec,
            (Self::ForwarderPool(a), Self::ForwarderPool(b)) => a.spec == b.spec,
            (Self::AssetGroup(a), Self::AssetGroup(b)) => a.spec == b.spec,
            _ => false,
        }
    }

    /// Takes over the status of an earlier version of the object.
    pub fn take_status(&mut self, old: Self) {
        match (self, old) {
            (Self::Service(a), Self::Service(b)) => a.status = b.status,
            (Self::StatefulSet(a), Self::StatefulSet(b)) => a.status = b.status,
            (Self::Deployment(a), Self::Deployment(b)) => a.status = b.status,
            (Self::NatsShard(a), Self::NatsShard(b)) => a.status = b.status,
            (Self::ForwarderPool(a), Self::ForwarderPool(b)) => a.status = b.status,
            (Self::AssetGroup(a), Self::AssetGroup(b)) => a.status = b.status,
            _ => {}
        }
    }

    /// Removes what only the server may write.
    pub fn clear_status(&mut self) {
        match self {
            Self::Service(object) => object.status = None,
            Self::StatefulSet(object) => object.status = None,
            Self::Deployment(object) => object.status = None,
            Self::NatsShard(object) => object.status = None,
            Self::ForwarderPool(object) => object.status = None,
            Self::AssetGroup(object) => object.status = None,
        }
    }

    /// Puts a condition that is true into its status, beside the others.
    pub fn set_condition(&mut self, kind: &str, message: &str) {
        let condition = Condition {
            kind: kind.to_owned(),
            status: ConditionStatus::True,
            observed_generation: self.meta().generation,
            last_transition_time: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            reason: kind.to_owned(),
            message: message.to_owned(),
        };
        each!(self, object => {
            set_condition(&mut object.status.get_or_insert_default().conditions, condition);
        });
    }

    /// The conditions of its status.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        fn of<S>(status: Option<&S>, conditions: impl Fn(&S) -> &Vec<Condition>) -> &[Condition] {
            status.map_or(&[], |status| conditions(status).as_slice())
        }
        match self {
            Self::Service(o) => of(o.status.as_ref(), |s| &s.conditions),
            Self::StatefulSet(o) => of(o.status.as_ref(), |s| &s.conditions),
            Self::Deployment(o) => of(o.status.as_ref(), |s| &s.conditions),
            Self::NatsShard(o) => of(o.status.as_ref(), |s| &s.conditions),
            Self::ForwarderPool(o) => of(o.status.as_ref(), |s| &s.conditions),
            Self::AssetGroup(o) => of(o.status.as_ref(), |s| &s.conditions),
        }
    }
}
