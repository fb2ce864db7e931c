use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who is told about replica plans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Signals {
    /// Webhooks: CloudEvents bodies with Standard Webhooks signatures.
    #[garde(dive)]
    pub webhooks: Vec<Webhook>,
}

/// One receiver of replica plans.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Webhook {
    /// `http` or `https` URL.
    #[garde(length(min = 1, max = 2000))]
    pub url: String,
    /// Environment variable that holds the signing secret, `whsec_…`.
    #[garde(length(min = 1))]
    pub secret_env: String,
}
