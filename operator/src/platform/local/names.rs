//! The names of services and instances, as a cluster's DNS would answer them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::platform::{Workload, WorkloadId};

/// One service and the instances behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    instances: Vec<(String, Ipv4Addr)>,
    ports: BTreeMap<u16, u16>,
}

/// All names of all namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    services: BTreeMap<(String, String), Service>,
}

impl Names {
    /// Adds the services of a workload whose instances have these addresses.
    pub fn add(&mut self, workload: &Workload, addresses: &[Ipv4Addr]) {
        let WorkloadId { namespace, .. } = &workload.id;
        let instances = (0u16..)
            .zip(addresses)
            .map(|(ordinal, &address)| (workload.id.instance(ordinal), address));
        let instances: Vec<_> = instances.collect();
        for service in &workload.services {
            let ports = service.ports.iter().map(|port| (port.port, port.target));
            self.services.insert(
                (namespace.clone(), service.name.clone()),
                Service {
                    instances: instances.clone(),
                    ports: ports.collect(),
                },
            );
        }
    }

    /// Address and port behind a name used in `namespace`: `kafka`, `kafka.ns`, `kafka.ns.svc`,
    /// `kafka.ns.svc.cluster.local`, or one of these behind `<instance>.`.
    #[must_use]
    pub fn resolve(
        &self,
        namespace: &str,
        name: &str,
        port: Option<u16>,
    ) -> Option<(Ipv4Addr, Option<u16>)> {
        let name = name.strip_suffix(".cluster.local").unwrap_or(name);
        let name = name.strip_suffix(".svc").unwrap_or(name);
        let parts: Vec<&str> = name.split('.').collect();
        let (instance, service) = match parts[..] {
            [service] => (None, self.service(namespace, service)),
            [first, second] => match self.service(second, first) {
                Some(service) => (None, Some(service)),
                None => (Some(first), self.service(namespace, second)),
            },
            [instance, service, namespace] => (Some(instance), self.service(namespace, service)),
            _ => return None,
        };
        let service = service?;
        let found = match instance {
            None => service.instances.first(),
            Some(wanted) => service.instances.iter().find(|(name, _)| name == wanted),
        };
        let target = port.map(|port| service.ports.get(&port).copied().unwrap_or(port));
        Some((found?.1, target))
    }

    fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(&(namespace.to_owned(), name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_as_a_cluster_would() {
        let mut names = Names::default();
        let (a, b) = (Ipv4Addr::new(127, 64, 0, 1), Ipv4Addr::new(127, 64, 0, 2));
        names.services.insert(
            ("plant".into(), "kafka".into()),
            Service {
                instances: vec![("kafka-0".into(), a), ("kafka-1".into(), b)],
                ports: BTreeMap::from([(80, 9092)]),
            },
        );
        let address = |namespace, name| names.resolve(namespace, name, None).map(|(ip, _)| ip);
        assert_eq!(address("plant", "kafka"), Some(a));
        assert_eq!(address("other", "kafka"), None);
        assert_eq!(address("other", "kafka.plant"), Some(a));
        assert_eq!(address("other", "kafka.plant.svc.cluster.local"), Some(a));
        assert_eq!(address("plant", "kafka-1.kafka"), Some(b));
        assert_eq!(address("other", "kafka-1.kafka.plant.svc"), Some(b));
        assert_eq!(address("plant", "kafka-2.kafka"), None);
        assert_eq!(
            names.resolve("plant", "kafka", Some(80)),
            Some((a, Some(9092)))
        );
    }
}
