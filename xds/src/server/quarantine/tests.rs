use super::*;
use crate::fixtures::{assignment, cluster, listener, routes};
use crate::snapshot::SnapshotBuilder;
use crate::stream::Variant;

/// A cluster of a version with endpoints at a port, and a listener of a version with routes to it and `more`.
fn state(settings: u64, port: u16, front: u16, more: &[&str]) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster("a", settings)).assignment(assignment("a", port));
    for name in more {
        builder.cluster(cluster(name, settings)).assignment(assignment(name, port));
    }
    builder.listener(listener("front", front, "routes"));
    builder.route_configuration(routes("routes", more.iter().copied().chain(["a"])));
    builder.build().unwrap()
}

fn members(count: u64) -> HashMap<ClientId, Service> {
    let service = Service { variant: Variant::Delta, only: None };
    (0..count).map(|id| (ClientId(id), service)).collect()
}

fn poison(snapshot: &Snapshot, resource_type: ResourceType, name: &str) -> Poison {
    let version = snapshot.version(resource_type, name).unwrap();
    Poison { resource_type, name: name.into(), version }
}

/// Refused by these clients of four. True if it goes into quarantine.
fn refuse(quarantine: &mut Quarantine, poison: &Poison, clients: &[u64], wanted: &Snapshot) -> bool {
    let refused = [poison.clone()];
    clients.iter().any(|id| quarantine.note_refused(ClientId(*id), &refused, &members(4), 0.5, wanted))
}

#[test]
fn f9_a_refused_version_is_replaced_and_weights_go_on() {
    let (good, bad) = (state(1, 1, 80, &[]), state(1, 2, 81, &[]));
    let mut quarantine = Quarantine::default();
    quarantine.note_good(&good);
    let listener = poison(&bad, ResourceType::Listener, "front");
    assert!(!refuse(&mut quarantine, &listener, &[0], &bad), "one of four is not many");
    assert!(refuse(&mut quarantine, &listener, &[1], &bad));
    let served = quarantine.apply(&bad);
    let version = |s: &Snapshot, t, name| s.version(t, name).unwrap();
    assert_eq!(
        version(&served, ResourceType::Listener, "front"),
        version(&good, ResourceType::Listener, "front")
    );
    let endpoints = ResourceType::ClusterLoadAssignment;
    assert_eq!(version(&served, endpoints, "a"), version(&bad, endpoints, "a"));
    let healed = state(1, 2, 82, &[]);
    assert_eq!(
        quarantine.apply(&healed).fingerprint(ResourceType::Listener),
        healed.fingerprint(ResourceType::Listener)
    );
    assert!(quarantine.quarantined().is_empty());
}

#[test]
fn f9_what_half_of_the_clients_took_is_not_taken_from_them() {
    let (good, next) = (state(1, 1, 80, &[]), state(1, 1, 81, &[]));
    let mut quarantine = Quarantine::default();
    quarantine.note_good(&good);
    quarantine.note_good(&next);
    let listener = poison(&next, ResourceType::Listener, "front");
    assert!(!refuse(&mut quarantine, &listener, &[0, 1], &next));
}

#[test]
fn f9_clients_that_are_gone_do_not_count() {
    let (good, bad) = (state(1, 1, 80, &[]), state(1, 1, 81, &[]));
    let mut quarantine = Quarantine::default();
    quarantine.note_good(&good);
    let listener = poison(&bad, ResourceType::Listener, "front");
    assert!(!refuse(&mut quarantine, &listener, &[7], &bad), "a stream that is not open");
    assert!(!refuse(&mut quarantine, &listener, &[0], &bad));
}

#[test]
fn f9_where_names_would_dangle_the_last_state_is_served_with_new_endpoints() {
    let (good, bad) = (state(1, 1, 80, &[]), state(1, 2, 80, &["b"]));
    let mut quarantine = Quarantine::default();
    quarantine.note_good(&good);
    assert!(refuse(&mut quarantine, &poison(&bad, ResourceType::Cluster, "b"), &[0, 1], &bad));
    let served = quarantine.apply(&bad);
    assert_eq!(served.fingerprint(ResourceType::Cluster), good.fingerprint(ResourceType::Cluster));
    assert_eq!(
        served.fingerprint(ResourceType::RouteConfiguration),
        good.fingerprint(ResourceType::RouteConfiguration)
    );
    let endpoints = ResourceType::ClusterLoadAssignment;
    assert_eq!(served.version(endpoints, "a"), bad.version(endpoints, "a"));
}
