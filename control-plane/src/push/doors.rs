use clairvoy_xds::Bounds;

pub(super) use clairvoy_xds::{Doors, Full};

/// Counts the connections of senders, in whole and by peer.
pub(super) fn for_senders(most: usize, most_of_peer: usize) -> Doors {
    Doors::new(Bounds {
        most,
        most_of_peer,
        who: "senders of telemetry",
        most_setting: "telemetry.push.max_connections",
        most_of_peer_setting: "telemetry.push.max_connections_per_peer",
    })
}
