use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::envoy::{LaneLog, LogSummary, NodeLoad, Tokens};

use super::lanes::LaneTraffic;
use super::{Fleet, LaneRates, Step};

/// Time over which present rates are taken, seconds; before everyone has reported for as long, they are not used.
const WINDOW_SECONDS: f64 = 10.0;
/// Samples of a second's end are still on their way when it ends.
const SAMPLES_LAG: TimeDelta = TimeDelta::milliseconds(500);
/// Servers that count more than this many times what Envoys report, and this many requests on top, get requests past
/// them: then the servers' count is the demand.
const PAST_ENVOYS_RATIO: f64 = 1.3;
const PAST_ENVOYS_REQUESTS: f64 = 5.0;
/// More requests in one report are no report, and longer intervals neither, seconds.
const MOST_REQUESTS: f64 = 1e8;
const LONGEST_INTERVAL_SECONDS: f64 = 3600.0;

/// Who counted a demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The Envoys, in their load reports.
    Envoys,
    /// The model servers, in their metrics.
    Servers,
}

/// The present demand of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Requests/s over ten seconds that were offered: refused ones, too, as far as access logs tell them, but for batch requests
    /// that come again.
    pub requests_per_second: f64,
    /// Those of them that Envoys refused because they were told to, and the lanes.
    pub lanes: LaneRates,
    /// Output tokens/s over the last ten seconds.
    pub tokens_per_second: f64,
    /// Prompt tokens/s over the last ten seconds; none where access logs tell none.
    pub prompt_tokens_per_second: Option<f64>,
    /// Who counted the output tokens: Envoys where their access logs tell any.
    pub tokens_source: Source,
    /// Who counted the requests.
    pub source: Source,
}

impl Demand {
    /// Requests/s that are to be shared out: those that are not refused.
    pub fn admitted_rps(&self) -> f64 {
        (self.requests_per_second - self.lanes.counted_rps).max(0.0)
    }
}

impl Fleet {
    /// Takes a load report.
    pub fn observe_load(&mut self, load: &NodeLoad) {
        if !self.reports.heard(load) {
            return;
        }
        for (model, load_of_model) in &load.models {
            let interval = load_of_model.interval_seconds.min(LONGEST_INTERVAL_SECONDS);
            if let Some(arrivals) = self.reported.get_mut(model)
                && load_of_model.requests <= MOST_REQUESTS
            {
                arrivals.count(load.at, load_of_model.requests, interval);
            }
        }
    }

    /// Takes a second of access logs, or a few, gathered up to `now`.
    pub fn observe_log(&mut self, summary: &LogSummary, now: DateTime<Utc>) {
        let mut mixes = BTreeMap::new();
        for (address, log) in &summary.backends {
            let Some(backend) = self.backends.get(address) else { continue };
            let mix = mixes.entry(backend.model.clone()).or_insert_with(|| self.mix(&backend.model, now));
            let Some(backend) = self.backends.get_mut(address) else { continue };
            backend.observe_log(log, summary.seconds, mix, now);
            if log.tokens != Tokens::default()
                && let Some(tokens) = self.logged_tokens.get_mut(&backend.model)
            {
                tokens.observe(log.tokens, now);
            }
        }
        self.observe_lanes(summary, now);
        self.observe_outcomes(summary, now);
        // No endpoint was sent these, so no load report has them.
        for (model, requests) in &summary.unplaced {
            if let Some(arrivals) = self.reported.get_mut(model) {
                arrivals.count(now, *requests, summary.seconds.min(LONGEST_INTERVAL_SECONDS));
            }
        }
    }

    /// Refused requests are demand all the same: without them what is offered would seem to be gone, now and in forecasts. Those
    /// that come again because they were refused are no further demand.
    fn observe_lanes(&mut self, summary: &LogSummary, now: DateTime<Utc>) {
        let seconds = summary.seconds.min(LONGEST_INTERVAL_SECONDS);
        for (model, log) in &summary.lanes {
            let Some(traffic) = self.lanes.get_mut(model) else { continue };
            let Some(counted) = traffic.observe(log, seconds, now) else { continue };
            if counted.all <= 0.0 {
                continue;
            }
            // Load reports have the requests that a cluster dropped, and none that a route refused.
            if let Some(arrivals) = self.reported.get_mut(model) {
                arrivals.count(now, counted.by_route, seconds);
            }
            if let Some(arrivals) = self.arrivals.get_mut(model) {
                arrivals.count(now, counted.all, seconds);
            }
        }
    }

    /// Says whether what a model's backends were seen to serve is kept as it is: while requests are refused.
    pub fn keep_capacities(&mut self, model: &str, is_kept: bool) {
        self.backends.change_of_model(model, |backend| backend.capacity.keep(is_kept));
    }

    /// Requests of each lane that access logs told of a model since the start.
    pub fn lane_totals(&self, model: &str) -> LaneLog {
        self.lanes.get(model).map(LaneTraffic::total).unwrap_or_default()
    }

    /// Looks which of the connected Envoys report: once a second.
    pub fn look_at_reports(&mut self, connected: &std::collections::BTreeSet<String>, now: DateTime<Utc>) {
        if let Some(seconds) = self.reports.look(connected, now) {
            self.reported.values_mut().for_each(|arrivals| arrivals.cover(now, seconds));
        }
    }

    /// The present demand of a model.
    pub fn demand(&self, model: &str, now: DateTime<Utc>) -> Demand {
        let told_until = self.told_until(model, now);
        let (counted, counted_tokens) =
            self.arrivals.get(model).map_or((0.0, 0.0), |arrivals| arrivals.rates(told_until));
        let logged = self.logged_tokens.get(model).and_then(|tokens| tokens.rates(now));
        let output = logged.map(|tokens| tokens.output).filter(|output| *output > 0.0);
        let lanes = |until| self.lanes.get(model).map(|lanes| lanes.rates(until, now)).unwrap_or_default();
        let servers = Demand {
            requests_per_second: counted,
            lanes: lanes(told_until),
            tokens_per_second: output.unwrap_or(counted_tokens),
            prompt_tokens_per_second: logged.map(|tokens| tokens.prompt).filter(|prompt| *prompt > 0.0),
            tokens_source: if output.is_some() { Source::Envoys } else { Source::Servers },
            source: Source::Servers,
        };
        let Some((until, arrivals)) = self.reports.known_until(WINDOW_SECONDS).zip(self.reported.get(model))
        else {
            return servers;
        };
        let reported = arrivals.rates(until).0;
        if self.servers_are_seen(model, now) && is_past(reported, counted, WINDOW_SECONDS) {
            return servers;
        }
        Demand { requests_per_second: reported, lanes: lanes(until), source: Source::Envoys, ..servers }
    }

    /// Whether all that arrives is counted: without that, what is measured is only a part of the demand.
    pub fn demand_is_complete(&self, model: &str, now: DateTime<Utc>) -> bool {
        self.demand(model, now).source == Source::Envoys || self.servers_are_seen(model, now)
    }

    /// Closes the forecast steps that are over and of which all that will be known is: model by model, oldest first.
    pub fn close_steps(&mut self, now: DateTime<Utc>) -> Vec<(String, Step)> {
        let lag = if self.reports.is_complete() { self.reports.lag().max(SAMPLES_LAG) } else { SAMPLES_LAG };
        let settled = now - lag;
        let mut closed = Vec::new();
        for (model, arrivals) in &mut self.arrivals {
            let of_model = self.backends.of_model(model).filter(|backend| backend.is_expected(now));
            let mut steps: BTreeMap<i64, Step> = BTreeMap::new();
            for step in arrivals.close(of_model.count(), settled) {
                steps.insert(step.index, step);
            }
            for reported in self.reported.get_mut(model).into_iter().flat_map(|one| one.close(1, settled)) {
                let counted = steps.entry(reported.index).or_insert(reported);
                *counted = better(*counted, reported, self.step_seconds);
            }
            closed.extend(steps.into_values().map(|step| (model.clone(), step)));
        }
        closed
    }
}

/// What Envoys reported of a step, unless the servers saw more.
fn better(counted: Step, reported: Step, step_seconds: u32) -> Step {
    match (counted.requests_per_second, reported.requests_per_second) {
        (_, None) => counted,
        (Some(counted_rps), Some(reported_rps))
            if is_past(reported_rps, counted_rps, f64::from(step_seconds)) =>
        {
            counted
        }
        _ => reported,
    }
}

fn is_past(reported_rps: f64, counted_rps: f64, seconds: f64) -> bool {
    counted_rps * seconds > PAST_ENVOYS_RATIO * reported_rps * seconds + PAST_ENVOYS_REQUESTS
}
