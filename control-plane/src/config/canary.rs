use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What predictions steer of a model on the rung `canary`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, default)]
#[garde(allow_unvalidated)]
pub struct Canary {
    /// What is divided into a steered part and the rest (default `requests`).
    pub by: CanaryBy,
    /// The steered part, in steps of a hundredth (default 0.1).
    #[garde(range(min = 0.01, max = 0.9))]
    pub share: f64,
}

impl Default for Canary {
    fn default() -> Self {
        Self { by: CanaryBy::Requests, share: 0.1 }
    }
}

impl Canary {
    /// The steered part in percent, 1 to 90.
    pub fn percent(&self) -> u32 {
        ((100.0 * self.share).round() as u32).clamp(1, 90)
    }
}

/// What a canary divides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CanaryBy {
    /// Every Envoy steers a share of its requests, by chance.
    #[default]
    Requests,
    /// A share of the Envoys, chosen by their `node.id`, steers all of its requests, and the others none.
    Proxies,
}

/// The number of an Envoy, 0 to 99, that decides with which shares of proxies it is steered: those above its number. It is
/// made of its `node.id` alone, so an Envoy that is steered with a share is so with every larger one.
pub fn proxy_number(node_id: &str) -> u32 {
    let digest = Sha256::digest(node_id.as_bytes());
    let head = digest.iter().take(4).fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    head % 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_the_share_of_the_envoys_is_chosen_and_stays_so_with_a_larger_one() {
        let numbers: Vec<u32> = (0..10_000).map(|node| proxy_number(&format!("edge-{node}"))).collect();
        for percent in [1, 10, 50, 90] {
            let chosen = numbers.iter().filter(|number| **number < percent).count() as f64;
            let expected = 100.0 * f64::from(percent);
            assert!((chosen - expected).abs() < 5.0 * expected.sqrt(), "{percent} %: {chosen}");
        }
        assert_eq!(proxy_number("edge-1"), proxy_number("edge-1"));
    }
}
