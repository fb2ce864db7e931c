use crate::decide::Zone;

use super::load::BEHIND_GATEWAY;

/// Begins what tells canaries from the others; no region begins with it.
const CANARY: &str = "!canary ";

/// The name of the group of a gateway's Envoys in a zone that have shares of their own. The group of the others has the
/// gateway's name.
pub fn zone_group(gateway: &str, zone: &Zone) -> String {
    format!("{gateway}{BEHIND_GATEWAY}{zone}")
}

/// The name of the group of those Envoys of another group, a gateway's or a zone's, that are steered with shares of proxies of
/// this many percent and more, and with no smaller one.
pub fn canary_group(group: &str, percent: u32) -> String {
    format!("{group}{BEHIND_GATEWAY}{CANARY}{percent}")
}

/// The gateway of a group, and its zone as `region/zone`, where it has one.
pub fn parts_of_group(group: &str) -> (&str, Option<&str>) {
    let Some((gateway, rest)) = group.split_once(BEHIND_GATEWAY) else { return (group, None) };
    let zone = rest.split_once(BEHIND_GATEWAY).map_or(rest, |(zone, _)| zone);
    (gateway, (!zone.starts_with(CANARY)).then_some(zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_tells_its_gateway_and_its_zone() {
        let zone = "eu/a".parse().unwrap();
        assert_eq!(parts_of_group(&zone_group("edge", &zone)), ("edge", Some("eu/a")));
        assert_eq!(parts_of_group("edge"), ("edge", None));
        assert_eq!(parts_of_group(&canary_group("edge", 10)), ("edge", None));
        assert_eq!(parts_of_group(&canary_group(&zone_group("edge", &zone), 10)), ("edge", Some("eu/a")));
    }
}
