use crate::decide::Zone;

use super::load::BEHIND_GATEWAY;

/// The name of the group of a gateway's Envoys in a zone that have shares of their own. The group of the others has the
/// gateway's name.
pub fn zone_group(gateway: &str, zone: &Zone) -> String {
    format!("{gateway}{BEHIND_GATEWAY}{zone}")
}

/// The gateway of a group, and its zone as `region/zone`, where it has one.
pub fn parts_of_group(group: &str) -> (&str, Option<&str>) {
    match group.split_once(BEHIND_GATEWAY) {
        Some((gateway, zone)) => (gateway, Some(zone)),
        None => (group, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_tells_its_gateway_and_its_zone() {
        let zone = "eu/a".parse().unwrap();
        assert_eq!(parts_of_group(&zone_group("edge", &zone)), ("edge", Some("eu/a")));
        assert_eq!(parts_of_group("edge"), ("edge", None));
    }
}
