use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A token that is good for some pools only.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolToken {
    /// Environment variable with the bearer token, 16 characters or more.
    pub token_env: String,
    /// The pools that it is good for.
    pub pools: Vec<String>,
}
