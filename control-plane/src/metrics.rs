//! Metrics of the control plane itself, in Prometheus' text form on `/metrics`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::decide::Verdict;
use crate::view::{BackendState, ProfileView, ProxyState, RecordView, State};

type Number = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfModel {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLane {
    model: String,
    lane: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfForecast {
    model: String,
    quantile: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfHorizon {
    model: String,
    horizon_seconds: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBound {
    model: String,
    horizon_seconds: u32,
    quantile: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    model: String,
    pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBackend {
    model: String,
    pool: String,
    backend: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCapacity {
    model: String,
    pool: String,
    backend: String,
    bound: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPart {
    model: String,
    pool: String,
    backend: String,
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

/// The series that follow the live picture. They are set anew each second, so what left the fleet leaves the page.
#[derive(Clone, Debug)]
pub struct ControlMetrics {
    demand: Family<OfModel, Number>,
    predictive: Family<OfModel, Number>,
    stepped_back: Family<OfModel, Number>,
    refused_ratio: Family<OfLane, Number>,
    refused: Family<OfLane, Number>,
    forecast: Family<OfForecast, Number>,
    forecast_error: Family<OfHorizon, Number>,
    forecast_skill: Family<OfHorizon, Number>,
    forecast_baseline: Family<OfHorizon, Number>,
    forecast_coverage: Family<OfBound, Number>,
    ready: Family<OfPool, Gauge>,
    planned: Family<OfPool, Gauge>,
    share: Family<OfBackend, Number>,
    advised_share: Family<OfBackend, Number>,
    wait: Family<OfBackend, Number>,
    age: Family<OfBackend, Number>,
    capacity: Family<OfCapacity, Number>,
    slowdown: Family<OfBackend, Number>,
    profile_capacity: Family<OfBackend, Number>,
    profile_error: Family<OfBackend, Number>,
    iteration: Family<OfPart, Number>,
    anomaly_score: Family<OfBackend, Number>,
    anomalous: Family<OfBackend, Number>,
    sick: Family<OfBackend, Number>,
    backends: Family<OfState, Gauge>,
    proxies: Family<OfState, Gauge>,
    totals: Family<OfTotal, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTotal {
    what: &'static str,
}

/// What one reading needs.
pub struct Reading<'a> {
    /// The live picture.
    pub state: &'a State,
    /// Journal entries dropped because their queue was full.
    pub journal_dropped: u64,
    /// Lessons dropped because the learner was too far behind.
    pub lessons_dropped: u64,
}

impl ControlMetrics {
    /// Registers the series.
    pub fn register(registry: &mut Registry) -> Self {
        let mut gauge = |name: &str, help: &str| {
            let family = Family::<_, Number>::default();
            registry.register(name, help, family.clone());
            family
        };
        let demand =
            gauge("clairvoy_demand_requests_per_second", "Requests/s offered to a model over the last 10 s");
        let predictive = gauge(
            "clairvoy_model_predictive_ratio",
            "Part of a model's requests that Envoys are told to send by predictions, 0 to 1; the others go by capacity",
        );
        let stepped_back = gauge(
            "clairvoy_model_canary_stepped_back",
            "1 while predictions steer nothing of a canary because the steered part did worse than the rest, else 0",
        );
        let mut of_lane = |name: &str, help: &str| {
            let family = Family::<OfLane, Number>::default();
            registry.register(name, help, family.clone());
            family
        };
        let refused_ratio = of_lane(
            "clairvoy_model_refused_ratio",
            "Part of the requests of a lane that Envoys are told to refuse, 0 to 1",
        );
        let refused = of_lane(
            "clairvoy_model_refused_requests",
            "Requests of a lane that Envoys logged as refused because of overload, since the start",
        );
        let forecast = {
            let family = Family::<OfForecast, Number>::default();
            let help = "Forecast demand at now + cold start, by quantile";
            registry.register("clairvoy_forecast_requests_per_second", help, family.clone());
            family
        };
        let mut of_horizon = |name: &str, help: &str| {
            let family = Family::<OfHorizon, Number>::default();
            registry.register(name, help, family.clone());
            family
        };
        let forecast_error = of_horizon(
            "clairvoy_forecast_error_ratio",
            "Absolute error of the medians that were forecast, per unit of demand, over the last days",
        );
        let forecast_skill = of_horizon(
            "clairvoy_forecast_skill_ratio",
            "The same error in parts of that of the better of last value and last season; below 1 is skill",
        );
        let forecast_baseline = of_horizon(
            "clairvoy_forecast_baseline",
            "1 while a baseline carries the forecast because all experts together have done worse, else 0",
        );
        let forecast_coverage = Family::<OfBound, Number>::default();
        registry.register(
            "clairvoy_forecast_coverage_ratio",
            "Share of outcomes at or below a bound that was forecast, over the last days",
            forecast_coverage.clone(),
        );
        let mut of_backend = |name: &str, help: &str| {
            let family = Family::<OfBackend, Number>::default();
            registry.register(name, help, family.clone());
            family
        };
        let share = of_backend(
            "clairvoy_backend_share",
            "Share of the model's traffic that a backend is given, 0 to 1",
        );
        let advised_share = of_backend(
            "clairvoy_backend_advised_share",
            "Share of the model's traffic that a backend would be given, 0 to 1, for models on the rung advise",
        );
        let wait = of_backend(
            "clairvoy_backend_predicted_wait_seconds",
            "Predicted time to first token of the next request",
        );
        let age =
            of_backend("clairvoy_backend_telemetry_age_seconds", "Age of the newest telemetry of a backend");
        let anomaly_score = of_backend(
            "clairvoy_backend_anomaly_score",
            "Highest score of any anomaly detector at this moment, 0 to 10; from 1 on something looks wrong",
        );
        let anomalous = of_backend(
            "clairvoy_backend_anomalous",
            "1 while an anomaly of a backend has lasted and is not over, else 0",
        );
        let sick = of_backend(
            "clairvoy_backend_sick",
            "1 while a backend is taken for sick and kept at a probing share, else 0",
        );
        let slowdown = of_backend(
            "clairvoy_backend_slowdown_ratio",
            "How many times longer than usual the iterations of a backend's engine take",
        );
        let profile_capacity = of_backend(
            "clairvoy_backend_profile_capacity_requests_per_second",
            "Requests of the present kind that a backend completes with a full batch at its usual speed, by its profile",
        );
        let profile_error = of_backend(
            "clairvoy_backend_profile_error_ratio",
            "Standard error of the modelled time of an iteration, in parts of it",
        );
        let iteration = Family::<OfPart, Number>::default();
        registry.register(
            "clairvoy_backend_iteration_seconds",
            "What an iteration costs at the usual speed, learned: as such (fixed), for each sequence, prompt token and \
             token in the KV cache",
            iteration.clone(),
        );
        let capacity = Family::<OfCapacity, Number>::default();
        registry.register(
            "clairvoy_backend_capacity_requests_per_second",
            "Learned rate at which a backend keeps its objective: in half of the windows of load (median), in nine of \
             ten (lower), in one of ten (upper)",
            capacity.clone(),
        );
        let mut of_pool = |name: &str, help: &str| {
            let family = Family::<OfPool, Gauge>::default();
            registry.register(name, help, family.clone());
            family
        };
        let ready = of_pool("clairvoy_pool_replicas_ready", "Replicas of a pool that serve");
        let planned = of_pool("clairvoy_pool_replicas_planned", "Replicas that a pool should have");
        let mut of_state = |name: &str, help: &str| {
            let family = Family::<OfState, Gauge>::default();
            registry.register(name, help, family.clone());
            family
        };
        let backends = of_state("clairvoy_backends", "Backends by state");
        let proxies = of_state("clairvoy_proxies", "Connected Envoys by state");
        let totals = Family::<OfTotal, Gauge>::default();
        registry.register("clairvoy_events", "Counts since the start, by what was counted", totals.clone());
        Self {
            demand,
            predictive,
            stepped_back,
            refused_ratio,
            refused,
            forecast,
            forecast_error,
            forecast_skill,
            forecast_baseline,
            forecast_coverage,
            ready,
            planned,
            share,
            advised_share,
            wait,
            age,
            capacity,
            slowdown,
            profile_capacity,
            profile_error,
            iteration,
            anomaly_score,
            anomalous,
            sick,
            backends,
            proxies,
            totals,
        }
    }

    /// Sets every series from the live picture.
    pub fn read(&self, reading: &Reading<'_>) {
        self.read_models(reading.state);
        self.read_backends(reading.state);
        self.proxies.clear();
        for (state, name) in [
            (ProxyState::InSync, "in_sync"),
            (ProxyState::Pending, "pending"),
            (ProxyState::Nacked, "nacked"),
        ] {
            let count = reading.state.proxies.iter().filter(|proxy| proxy.state == state).count();
            self.proxies.get_or_create(&OfState { state: name }).set(count as i64);
        }
        let totals = &reading.state.totals;
        for (what, count) in [
            ("telemetry_rows_written", totals.telemetry_rows),
            ("telemetry_rows_dropped", totals.telemetry_dropped),
            ("telemetry_rows_spooled", totals.telemetry_spooled),
            ("forecasts", totals.forecasts),
            ("decisions", totals.decisions),
            ("weight_changes", totals.weight_changes),
            ("webhooks_delivered", totals.webhooks_delivered),
            ("webhooks_failed", totals.webhooks_failed),
            ("journal_entries_dropped", reading.journal_dropped),
            ("lessons_dropped", reading.lessons_dropped),
        ] {
            self.totals.get_or_create(&OfTotal { what }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn read_models(&self, state: &State) {
        self.demand.clear();
        self.predictive.clear();
        self.stepped_back.clear();
        self.refused_ratio.clear();
        self.refused.clear();
        self.forecast.clear();
        self.forecast_error.clear();
        self.forecast_skill.clear();
        self.forecast_baseline.clear();
        self.forecast_coverage.clear();
        for model in &state.models {
            let labels = OfModel { model: model.name.clone() };
            self.demand.get_or_create(&labels).set(model.demand_rps);
            self.predictive.get_or_create(&labels).set(model.predictive_ratio);
            if let Some(canary) = &model.canary {
                let is_back = f64::from(u8::from(canary.stepped_back.is_some()));
                self.stepped_back.get_or_create(&labels).set(is_back);
            }
            let shed = &model.shed;
            for (lane, ratio, refused) in [
                ("batch", shed.batch_ratio, shed.batch_refused),
                ("interactive", shed.interactive_ratio, shed.interactive_refused),
            ] {
                let labels = OfLane { model: model.name.clone(), lane };
                self.refused_ratio.get_or_create(&labels).set(ratio);
                self.refused.get_or_create(&labels).set(refused);
            }
            if let Some(forecast) = &model.forecast {
                for (quantile, value) in [("0.5", forecast.cold_start.q50), ("0.9", forecast.cold_start.q90)]
                {
                    self.forecast
                        .get_or_create(&OfForecast { model: model.name.clone(), quantile })
                        .set(value);
                }
                forecast.record.iter().for_each(|record| self.read_record(&model.name, record));
            }
        }
        self.ready.clear();
        self.planned.clear();
        for pool in &state.pools {
            let labels = OfPool { model: pool.model.clone(), pool: pool.name.clone() };
            self.ready.get_or_create(&labels).set(i64::from(pool.replicas.ready));
            self.planned.get_or_create(&labels).set(i64::from(pool.replicas.planned));
        }
    }

    fn read_record(&self, model: &str, record: &RecordView) {
        let horizon_seconds = record.horizon_seconds;
        let labels = OfHorizon { model: model.to_owned(), horizon_seconds };
        let set = |family: &Family<OfHorizon, Number>, value: Option<f64>| {
            if let Some(value) = value {
                family.get_or_create(&labels).set(value);
            }
        };
        set(&self.forecast_error, record.error_ratio);
        set(&self.forecast_skill, record.skill_ratio);
        set(&self.forecast_baseline, Some(f64::from(record.baseline.is_some())));
        for (quantile, coverage) in [("0.9", record.coverage_q90), ("0.95", record.coverage_q95)] {
            if let Some(coverage) = coverage {
                let labels = OfBound { model: model.to_owned(), horizon_seconds, quantile };
                self.forecast_coverage.get_or_create(&labels).set(coverage);
            }
        }
    }

    fn read_profile(&self, labels: &OfBackend, profile: &ProfileView) {
        self.profile_capacity.get_or_create(labels).set(profile.capacity_rps);
        self.profile_error.get_or_create(labels).set(profile.relative_error);
        for (part, seconds) in [
            ("fixed", profile.fixed_seconds),
            ("sequence", profile.per_sequence_seconds),
            ("prompt_token", profile.per_prompt_token_seconds),
            ("kv_token", profile.per_kv_token_seconds),
        ] {
            let OfBackend { model, pool, backend } = labels.clone();
            self.iteration.get_or_create(&OfPart { model, pool, backend, part }).set(seconds);
        }
    }

    fn read_backends(&self, state: &State) {
        self.share.clear();
        self.advised_share.clear();
        self.wait.clear();
        self.age.clear();
        self.capacity.clear();
        self.slowdown.clear();
        self.profile_capacity.clear();
        self.profile_error.clear();
        self.iteration.clear();
        self.anomaly_score.clear();
        self.anomalous.clear();
        self.sick.clear();
        self.backends.clear();
        for backend in &state.backends {
            let labels = OfBackend {
                model: backend.model.clone(),
                pool: backend.pool.clone(),
                backend: backend.address.clone(),
            };
            self.share.get_or_create(&labels).set(backend.share);
            if let Some(share) = backend.advised_share {
                self.advised_share.get_or_create(&labels).set(share);
            }
            self.slowdown.get_or_create(&labels).set(backend.slowdown);
            if let Some(profile) = &backend.profile {
                self.read_profile(&labels, profile);
            }
            if let Some(wait) = backend.predicted_wait_seconds {
                self.wait.get_or_create(&labels).set(wait);
            }
            if let Some(age) = backend.telemetry_age_seconds {
                self.age.get_or_create(&labels).set(age);
            }
            self.sick.get_or_create(&labels).set(f64::from(backend.verdict == Verdict::Sick.name()));
            if let Some(anomaly) = &backend.anomaly {
                self.anomaly_score.get_or_create(&labels).set(anomaly.score);
                self.anomalous.get_or_create(&labels).set(f64::from(anomaly.kind.is_some()));
            }
            if let Some(capacity) = &backend.capacity {
                let OfBackend { model, pool, backend } = labels;
                for (bound, rps) in
                    [("median", capacity.rps), ("lower", capacity.lower_rps), ("upper", capacity.upper_rps)]
                {
                    let (model, pool, backend) = (model.clone(), pool.clone(), backend.clone());
                    if let Some(rps) = rps {
                        self.capacity.get_or_create(&OfCapacity { model, pool, backend, bound }).set(rps);
                    }
                }
            }
        }
        for (state_is, name) in [
            (BackendState::Ready, "ready"),
            (BackendState::Draining, "draining"),
            (BackendState::Waiting, "waiting"),
            (BackendState::Stale, "stale"),
            (BackendState::Down, "down"),
        ] {
            let count = state.backends.iter().filter(|backend| backend.state == state_is).count();
            self.backends.get_or_create(&OfState { state: name }).set(count as i64);
        }
    }
}
