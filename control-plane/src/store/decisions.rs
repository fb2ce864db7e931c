use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::Store;
use super::error::StoreError;

/// A decision as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
pub struct DecisionRow {
    /// Its identity on every channel.
    pub id: Uuid,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// `weights`, `membership`, `replicas`, `shed` or `canary`.
    pub kind: String,
    /// The model's name.
    pub model: String,
    /// The pool's name, when it is about one pool.
    pub pool: Option<String>,
    /// One line for people.
    pub summary: String,
    /// What it was made from, with ages.
    pub inputs: Value,
    /// A list of what changed: target, from, to, reason.
    pub changes: Value,
}

/// Removes at most `$2` decisions from before `$1`. What was in force at that time stays, however old it is: of each model the
/// newest from before it about shares, zones, spare backends, refusals and the canary, as the queries here ask for them.
pub(super) const FORGET_DECISIONS: &str = "
    WITH RECURSIVE known (model) AS (
        (SELECT model FROM decision ORDER BY model LIMIT 1)
        UNION ALL
        SELECT (SELECT d.model FROM decision d WHERE d.model > known.model ORDER BY d.model LIMIT 1)
        FROM known WHERE known.model IS NOT NULL
    ), kept AS MATERIALIZED (
        SELECT in_force.id FROM known CROSS JOIN LATERAL (
            (SELECT id FROM decision
             WHERE model = known.model AND kind IN ('weights', 'membership') AND at < $1 AND NOT inputs ? 'part'
             ORDER BY at DESC, id DESC LIMIT 1)
            UNION ALL
            (SELECT id FROM decision
             WHERE model = known.model AND kind IN ('weights', 'membership') AND at < $1 AND inputs ? 'zones'
             ORDER BY at DESC, id DESC LIMIT 1)
            UNION ALL
            (SELECT id FROM decision
             WHERE model = known.model AND kind = 'membership' AND at < $1 AND inputs ->> 'part' = 'spare'
             ORDER BY at DESC, id DESC LIMIT 1)
            UNION ALL
            (SELECT id FROM decision WHERE model = known.model AND kind = 'shed' AND at < $1
             ORDER BY at DESC, id DESC LIMIT 1)
            UNION ALL
            (SELECT id FROM decision WHERE model = known.model AND kind = 'canary' AND at < $1
             ORDER BY at DESC, id DESC LIMIT 1)
        ) AS in_force
    )
    DELETE FROM decision WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM decision WHERE at < $1 AND id NOT IN (SELECT id FROM kept) LIMIT $2))";

/// Removes at most `$2` acknowledgements from before `$1`; those of decisions that stay do so, too.
pub(super) const FORGET_ACKNOWLEDGEMENTS: &str = "
    DELETE FROM acknowledgement WHERE ctid = ANY(ARRAY(
        SELECT a.ctid FROM acknowledgement a
        WHERE a.published_at < $1 AND NOT EXISTS (SELECT FROM decision d WHERE d.id = a.decision_id) LIMIT $2))";

impl DecisionRow {
    /// The rung on which it was made, when that was not `enforce`.
    pub fn rung(&self) -> Option<String> {
        self.inputs.get("rung").and_then(Value::as_str).map(str::to_owned)
    }

    /// Percent of the model's requests that went by predictions when it was made; none where that was not recorded.
    pub fn steered_percent(&self) -> Option<u64> {
        self.inputs.get("steered_percent").and_then(Value::as_u64)
    }

    /// The rung on which Envoys were told by it who takes requests, but with capacity shares; none where with its own.
    pub fn by_capacity_on(&self) -> Option<&str> {
        self.inputs.get("by_capacity_on").and_then(Value::as_str)
    }
}

impl Store {
    /// Writes a decision. One that is there already is left as it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn put_decision(&self, decision: &DecisionRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO decision (id, at, kind, model, pool, summary, inputs, changes)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING",
        )
        .bind(decision.id)
        .bind(decision.at)
        .bind(&decision.kind)
        .bind(&decision.model)
        .bind(&decision.pool)
        .bind(&decision.summary)
        .bind(&decision.inputs)
        .bind(&decision.changes)
        .execute(self.pool())
        .await
        .map_err(StoreError::query("write a decision"))?;
        Ok(())
    }

    /// Returns the newest decisions, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn decisions(&self, limit: u32) -> Result<Vec<DecisionRow>, StoreError> {
        sqlx::query_as(
            "SELECT id, at, kind, model, pool, summary, inputs, changes FROM decision ORDER BY at DESC, id DESC LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(self.pool())
        .await
        .map_err(StoreError::query("read decisions"))
    }

    /// Returns the decisions made in `from..to`, of one model or of all, as they were made.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn decisions_between(
        &self,
        model: Option<&str>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<DecisionRow>, StoreError> {
        sqlx::query_as(
            "SELECT id, at, kind, model, pool, summary, inputs, changes FROM decision
             WHERE at >= $2 AND at < $3 AND ($1::text IS NULL OR model = $1) ORDER BY at, id",
        )
        .bind(model)
        .bind(from)
        .bind(to)
        .fetch_all(self.pool())
        .await
        .map_err(StoreError::query("read decisions"))
    }

    /// Returns the decision about a model's shares that was in force at a time; none before the first that is kept.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn shares_in_force(
        &self,
        model: &str,
        at: DateTime<Utc>,
    ) -> Result<Option<DecisionRow>, StoreError> {
        let query = "SELECT id, at, kind, model, pool, summary, inputs, changes FROM decision
             WHERE model = $1 AND kind IN ('weights', 'membership') AND at <= $2 AND NOT inputs ? 'part'
             ORDER BY at DESC, id DESC LIMIT 1";
        self.in_force(query, model, at).await
    }

    /// Returns the decision about what the Envoys of single zones are told that was in force at a time; none when they all
    /// had the shares of the fleet.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn zones_in_force(
        &self,
        model: &str,
        at: DateTime<Utc>,
    ) -> Result<Option<DecisionRow>, StoreError> {
        let query = "SELECT id, at, kind, model, pool, summary, inputs, changes FROM decision
             WHERE model = $1 AND kind IN ('weights', 'membership') AND at <= $2 AND inputs ? 'zones'
             ORDER BY at DESC, id DESC LIMIT 1";
        self.in_force(query, model, at).await
    }

    /// Returns the decision about a model's spare backends that was in force at a time; none before the first that is kept.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn spare_in_force(
        &self,
        model: &str,
        at: DateTime<Utc>,
    ) -> Result<Option<DecisionRow>, StoreError> {
        let query = "SELECT id, at, kind, model, pool, summary, inputs, changes FROM decision
             WHERE model = $1 AND kind = 'membership' AND at <= $2 AND inputs ->> 'part' = 'spare'
             ORDER BY at DESC, id DESC LIMIT 1";
        self.in_force(query, model, at).await
    }

    /// Returns the decision about what is refused of a model's requests that was in force at a time; none before the first
    /// that is kept.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn shedding_in_force(
        &self,
        model: &str,
        at: DateTime<Utc>,
    ) -> Result<Option<DecisionRow>, StoreError> {
        let query = "SELECT id, at, kind, model, pool, summary, inputs, changes FROM decision
             WHERE model = $1 AND kind = 'shed' AND at <= $2 ORDER BY at DESC, id DESC LIMIT 1";
        self.in_force(query, model, at).await
    }

    /// The decision that a query finds for a model and a time.
    async fn in_force(
        &self,
        query: &'static str,
        model: &str,
        at: DateTime<Utc>,
    ) -> Result<Option<DecisionRow>, StoreError> {
        sqlx::query_as(query)
            .bind(model)
            .bind(at)
            .fetch_optional(self.pool())
            .await
            .map_err(StoreError::query("read a decision"))
    }

    /// Returns the newest decision up to a time by which the canary of a model stepped back or was resumed; none before the
    /// first that is kept.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn canary_in_force(
        &self,
        model: &str,
        at: DateTime<Utc>,
    ) -> Result<Option<DecisionRow>, StoreError> {
        sqlx::query_as(
            "SELECT id, at, kind, model, pool, summary, inputs, changes FROM decision
             WHERE model = $1 AND kind = 'canary' AND at <= $2 ORDER BY at DESC, id DESC LIMIT 1",
        )
        .bind(model)
        .bind(at)
        .fetch_optional(self.pool())
        .await
        .map_err(StoreError::query("read a decision"))
    }

    /// Returns one decision.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn decision(&self, id: Uuid) -> Result<Option<DecisionRow>, StoreError> {
        sqlx::query_as(
            "SELECT id, at, kind, model, pool, summary, inputs, changes FROM decision WHERE id = $1",
        )
        .bind(id)
        .fetch_optional(self.pool())
        .await
        .map_err(StoreError::query("read a decision"))
    }
}
