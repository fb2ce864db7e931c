use garde::Path;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decide::{LatencyRule, OTHER_REGION_MS, SAME_REGION_MS, Zone};

use super::validate::Fault;
use super::{Config, Policy};

/// Longest round-trip time that can be configured, milliseconds.
const LONGEST_MS: f64 = 10_000.0;
/// Most rules: each of 64 zones to each other.
const MOST_RULES: usize = 4096;

/// How far apart zones are. It counts for models with a `zone_preference`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Zones {
    /// Round-trip times that differ from the two below; within a zone it is 0.
    pub rtt: Vec<Rtt>,
    /// Round-trip time between zones of one region, milliseconds (default 1).
    pub same_region_ms: f64,
    /// Round-trip time between regions, milliseconds (default 50).
    pub other_region_ms: f64,
}

/// The round-trip time between two places, in both directions unless the other one has a rule of its own.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rtt {
    /// A zone as `region/zone`, or a whole region. A rule for zones goes before one for regions.
    pub from: String,
    /// A zone or a region.
    pub to: String,
    /// Milliseconds.
    pub ms: f64,
}

impl Default for Zones {
    fn default() -> Self {
        Self { rtt: Vec::new(), same_region_ms: SAME_REGION_MS, other_region_ms: OTHER_REGION_MS }
    }
}

impl Zones {
    /// The rules, as the flows are decided by them.
    pub(crate) fn rules(&self) -> Vec<LatencyRule> {
        let rule = |rule: &Rtt| LatencyRule { from: rule.from.clone(), to: rule.to.clone(), ms: rule.ms };
        self.rtt.iter().map(rule).collect()
    }
}

impl Config {
    /// Whether Envoys of a zone may have shares of their own: some pool or rule is about its region.
    pub(crate) fn knows(&self, zone: &Zone) -> bool {
        let of_rule =
            |end: &String| end.split_once('/').map_or(end.as_str(), |(region, _)| region) == zone.region();
        self.pools.iter().any(|pool| pool.locality.region == zone.region())
            || self.zones.rtt.iter().any(|rule| of_rule(&rule.from) || of_rule(&rule.to))
    }

    /// Whether any model's Envoys prefer what is near.
    pub(crate) fn prefers_zones(&self) -> bool {
        self.models.iter().any(|model| model.balance.zone_preference > 0.0)
    }

    pub(super) fn check_zones(&self, root: &Path, fault: &mut Fault<'_>) {
        let path = root.join("zones");
        let is_time = |ms: f64| (0.0..=LONGEST_MS).contains(&ms);
        let times =
            [("same_region_ms", self.zones.same_region_ms), ("other_region_ms", self.zones.other_region_ms)];
        for (field, _) in times.iter().filter(|(_, ms)| !is_time(*ms)) {
            fault(path.join(*field), "must be 0 to 10000 milliseconds".to_owned());
        }
        let path = path.join("rtt");
        if self.zones.rtt.len() > MOST_RULES {
            fault(path.clone(), format!("more than {MOST_RULES} rules"));
        }
        for (index, rule) in self.zones.rtt.iter().enumerate() {
            let path = path.join(index);
            for (field, end) in [("from", &rule.from), ("to", &rule.to)] {
                let names = end.split_once('/').map_or((end.as_str(), ""), |(region, zone)| (region, zone));
                if end.is_empty() || Zone::new(names.0, names.1).is_none() {
                    fault(path.join(field), format!("{end:?} is neither `region/zone` nor a region"));
                }
            }
            if !is_time(rule.ms) {
                fault(path.join("ms"), "must be 0 to 10000 milliseconds".to_owned());
            }
            if rule.from == rule.to && rule.from.contains('/') {
                fault(path.join("to"), "within a zone the round-trip time is 0".to_owned());
            }
            let is_same = |other: &Rtt| other.from == rule.from && other.to == rule.to;
            if self.zones.rtt[..index].iter().any(is_same) {
                fault(path.join("from"), format!("{} to {} is there twice", rule.from, rule.to));
            }
        }
        for (index, model) in self.models.iter().enumerate() {
            self.check_zones_of_model(index, &root.join("models").join(index), fault);
            if model.balance.zone_preference > 0.0 && model.balance.policy != Policy::Predictive {
                let path = root.join("models").join(index).join("balance").join("zone_preference");
                fault(path, "is for the policy `predictive` only".to_owned());
            }
        }
    }

    fn check_zones_of_model(&self, index: usize, path: &Path, fault: &mut Fault<'_>) {
        let model = &self.models[index];
        let pools = || model.pools.iter().filter_map(|name| self.pool(name));
        if !(0.0..=1.0).contains(&model.balance.zone_preference) {
            fault(path.join("balance").join("zone_preference"), "must be 0 to 1".to_owned());
        }
        if model.balance.zone_preference > 0.0
            && let Some(pool) = pools().find(|pool| pool.locality.region.contains('/'))
        {
            let message = format!("pool `{}` is in a region with a `/` in its name", pool.name);
            fault(path.join("balance").join("zone_preference"), message);
        }
        if pools().any(|pool| pool.spare) {
            if pools().all(|pool| pool.spare) {
                fault(path.join("pools"), "at least one pool must not be `spare`".to_owned());
            }
            if !model.balance.policy.has_groups() {
                let message = "a spare pool needs the policy `predictive` or `static`: with others Envoy uses all backends";
                fault(path.join("balance").join("policy"), message.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn distances_are_read_and_faults_of_them_are_told() {
        let good = parse(
            "zones: { rtt: [{ from: eu, to: us, ms: 80 }, { from: eu/a, to: us/b, ms: 75.5 }], same_region_ms: 0.5 }\n\
             models: [{ name: m, pools: [p, q], balance: { zone_preference: 1 } }]\n\
             pools: [{ name: p, locality: { region: eu, zone: a } }, { name: q, spare: true }]\n",
        )
        .unwrap();
        assert_eq!(
            (good.zones.rtt.len(), good.zones.same_region_ms, good.zones.other_region_ms),
            (2, 0.5, 50.0)
        );
        assert!(good.prefers_zones() && good.pools[1].spare);
        for (known, is_known) in [("eu/x", true), ("us/", true), ("/", true), ("as/a", false)] {
            assert_eq!(good.knows(&known.parse().unwrap()), is_known, "{known}");
        }
        for (text, expected) in [
            ("zones: { rtt: [{ from: eu, to: us, ms: -1 }] }", "must be 0 to 10000"),
            ("zones: { same_region_ms: 20000 }", "must be 0 to 10000"),
            ("zones: { rtt: [{ from: eu/a, to: eu/a, ms: 1 }] }", "within a zone"),
            ("zones: { rtt: [{ from: \"\", to: eu/a, ms: 1 }] }", "neither"),
            ("zones: { rtt: [{ from: a, to: b, ms: 1 }, { from: a, to: b, ms: 2 }] }", "there twice"),
            (
                "models: [{ name: m, pools: [p], balance: { zone_preference: 2 } }]\npools: [{ name: p }]",
                "must be 0 to 1",
            ),
            (
                "models: [{ name: m, pools: [p], balance: { zone_preference: 1, policy: random } }]\npools: [{ name: p }]",
                "`predictive` only",
            ),
            (
                "models: [{ name: m, pools: [p], balance: { zone_preference: 1 } }]\npools: [{ name: p, locality: { region: a/b } }]",
                "a `/` in its name",
            ),
            ("models: [{ name: m, pools: [p] }]\npools: [{ name: p, spare: true }]", "must not be `spare`"),
            (
                "models: [{ name: m, pools: [p, q], balance: { policy: random } }]\npools: [{ name: p, spare: true }, { name: q }]",
                "a spare pool needs",
            ),
        ] {
            let faults = parse(&format!("{text}\n")).unwrap_err();
            assert!(faults.contains(expected), "{expected} is missing in:\n{faults}");
        }
    }
}
