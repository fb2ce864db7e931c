use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use clairvoy::config::Config;
use clairvoy::run::{Rehearsal, RehearsedGroup};
use clairvoy::telemetry::{Limit, LimitSource, Limits, Sample};
use clairvoy_tests::{
    Action, Arrival, Effects, Engine, EngineConfig, Iteration, Machine, NewRequest, Plan, RequestId, Served,
    TokenGap, Told, idle_seconds, profile,
};

use crate::clairvoy::MODEL;
use crate::site::ENVOYS;

use super::address;
use super::proxy::{Proxy, Rule};

/// Between two scrapes of a backend, and two decisions.
const SECOND: f64 = 1.0;
/// Backends are scraped one after the other within the second, not all at once.
const PHASES: usize = 16;
/// From a decision to the Envoys.
const PUSH_SECONDS: f64 = 0.05;
/// Requests that have not ended so long after the last one came are given up.
const PATIENCE_SECONDS: f64 = 300.0;

/// A machine with what it counts for its next page.
struct Backend {
    engine: Engine,
    counted: Sample,
    in_flight_before: f64,
    token_gaps: (f64, f64),
    ttfts: f64,
}

struct Request {
    arrival: usize,
    proxy: usize,
    first_at: Option<f64>,
}

pub(super) struct World {
    backends: Vec<Backend>,
    is_up: Vec<bool>,
    proxies: Vec<Proxy>,
    core: Option<Rehearsal>,
    /// What Envoys are about to be told, and when.
    pushed: Option<(f64, Rule)>,
    published: Vec<RehearsedGroup>,
    running: HashMap<(usize, RequestId), Request>,
    served: Vec<Option<Served>>,
    told: Vec<Told>,
}

fn time(at: f64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(10_000) + TimeDelta::microseconds((at * 1e6) as i64)
}

impl World {
    pub(super) fn new(machines: &[Machine], rule: Rule, seed: u64) -> Self {
        let backend = |(index, machine): (usize, &Machine)| {
            let (profile, seed) = (profile(machine.class, 1.0), seed.wrapping_add(index as u64));
            Backend {
                engine: Engine::new(EngineConfig { profile, effects: Effects::all(), seed }),
                counted: Sample::default(),
                in_flight_before: 0.0,
                token_gaps: (0.0, 0.0),
                ttfts: 0.0,
            }
        };
        let proxy = |index| Proxy::new(rule.clone(), machines.len(), seed.wrapping_add(1000 + index));
        Self {
            backends: machines.iter().enumerate().map(backend).collect(),
            is_up: vec![true; machines.len()],
            proxies: (0..ENVOYS as u64).map(proxy).collect(),
            core: None,
            pushed: None,
            published: Vec::new(),
            running: HashMap::new(),
            served: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Has the core decide.
    pub(super) fn steer(&mut self, config: Config) {
        self.core = Some(Rehearsal::new(config, time(-1000.0)));
    }

    pub(super) fn play(mut self, plan: &Plan, arrivals: &[Arrival]) -> (Vec<Served>, Vec<Told>) {
        for machine in plan.closed_at_first() {
            self.is_up[machine] = false;
        }
        if self.core.is_some() {
            // The core starts with the traffic.
            for index in 0..self.backends.len() {
                self.tell_limits(index);
            }
        }
        let idle = idle_seconds(arrivals);
        self.served = vec![None; arrivals.len()];
        let begin = plan.begin();
        let (mut next_arrival, mut next_event, mut phases) = (0, 0, 0_usize);
        loop {
            let arrival = arrivals.get(next_arrival).map_or(f64::INFINITY, |arrival| arrival.at);
            let event = plan.events.get(next_event).map_or(f64::INFINITY, |event| event.at);
            let push = self.pushed.as_ref().map_or(f64::INFINITY, |(at, _)| *at);
            let phase = begin + phases as f64 * (SECOND / PHASES as f64);
            let now = arrival.min(event).min(push).min(phase);
            let is_over =
                arrival.is_infinite() && (self.running.is_empty() || now > plan.end() + PATIENCE_SECONDS);
            if is_over {
                break;
            }
            self.advance(now, arrivals, &idle);
            if now == push {
                if let Some((_, rule)) = self.pushed.take() {
                    self.proxies.iter_mut().for_each(|proxy| proxy.set(rule.clone()));
                }
            } else if now == event {
                let event = plan.events[next_event];
                next_event += 1;
                self.act(event.machine, event.action, now, arrivals, &idle);
            } else if now == phase {
                self.scrape(phases % PHASES, now);
                phases += 1;
                if phases % PHASES == 0 {
                    self.decide(now);
                }
            } else {
                self.send(next_arrival, arrivals, &idle);
                next_arrival += 1;
            }
        }
        let measured = arrivals.iter().zip(self.served).filter(|(arrival, _)| arrival.is_measured(plan));
        let served = measured.map(|(arrival, served)| {
            served.unwrap_or_else(|| unanswered(arrival, plan.end() + PATIENCE_SECONDS, "Timeout"))
        });
        (served.collect(), self.told)
    }

    fn send(&mut self, index: usize, arrivals: &[Arrival], idle: &[[f64; 4]]) {
        let arrival = &arrivals[index];
        let proxy = arrival.gateway;
        let Some(machine) = self.proxies[proxy].pick(&self.is_up) else { return };
        let request = NewRequest {
            prompt_tokens: arrival.size.prompt_tokens,
            output_tokens: arrival.size.output_tokens,
        };
        match self.backends[machine].engine.submit(arrival.at, request) {
            Ok(id) => {
                self.running.insert((machine, id), Request { arrival: index, proxy, first_at: None });
            }
            Err(_) => {
                self.proxies[proxy].ended(machine);
                self.served[index] =
                    Some(Served { idle: idle[index], ..unanswered(arrival, arrival.at, "Refused") });
            }
        }
    }

    fn act(&mut self, machine: usize, action: Action, now: f64, arrivals: &[Arrival], idle: &[[f64; 4]]) {
        match action {
            Action::Slow(factor) => self.backends[machine].engine.set_slow_factor(factor),
            Action::Open => self.is_up[machine] = true,
            Action::Die => {
                self.is_up[machine] = false;
                let mut lost: Vec<_> =
                    self.running.keys().filter(|(of, _)| *of == machine).copied().collect();
                lost.sort_unstable_by_key(|(_, id)| format!("{id:?}"));
                for key in lost {
                    let Some(request) = self.running.remove(&key) else { continue };
                    self.backends[machine].engine.cancel(key.1);
                    self.proxies[request.proxy].ended(machine);
                    let (arrival, index) = (&arrivals[request.arrival], request.arrival);
                    self.served[index] =
                        Some(Served { idle: idle[index], ..unanswered(arrival, now, "Reset") });
                }
            }
        }
    }

    /// Takes what engines have done up to now.
    fn advance(&mut self, now: f64, arrivals: &[Arrival], idle: &[[f64; 4]]) {
        for machine in 0..self.backends.len() {
            for iteration in self.backends[machine].engine.advance(now) {
                self.count(machine, &iteration);
                for output in &iteration.outputs {
                    let key = (machine, output.id);
                    let Some(request) = self.running.get_mut(&key) else { continue };
                    let first_at = *request.first_at.get_or_insert(iteration.ended_at);
                    let Some(completion) = output.completion else { continue };
                    let (index, proxy) = (request.arrival, request.proxy);
                    self.running.remove(&key);
                    self.proxies[proxy].ended(machine);
                    let (at, gaps) = (arrivals[index].at, f64::from(completion.output_tokens) - 1.0);
                    self.served[index] = Some(Served {
                        at,
                        sizes: arrivals[index].sizes,
                        machine: Some(machine),
                        ttft: Some(first_at - at),
                        tpot: (gaps > 0.0).then(|| (iteration.ended_at - first_at) / gaps),
                        latency: iteration.ended_at - at,
                        failure: None,
                        idle: idle[index],
                    });
                }
            }
        }
    }

    fn count(&mut self, machine: usize, iteration: &Iteration) {
        let backend = &mut self.backends[machine];
        let counted = &mut backend.counted;
        counted.iterations += 1.0;
        counted.iteration_tokens += f64::from(iteration.prefill_tokens) + iteration.outputs.len() as f64;
        counted.output_tokens += iteration.outputs.len() as f64;
        for output in &iteration.outputs {
            match output.gap {
                TokenGap::First { ttft_seconds, prompt_tokens, .. } => {
                    counted.ttft_count += 1.0;
                    counted.prompt_tokens += f64::from(prompt_tokens);
                    backend.ttfts += ttft_seconds;
                }
                TokenGap::Next { seconds } => {
                    backend.token_gaps = (backend.token_gaps.0 + seconds, backend.token_gaps.1 + 1.0);
                }
            }
            counted.completed += f64::from(u8::from(output.completion.is_some()));
        }
    }

    /// Scrapes those whose turn it is.
    fn scrape(&mut self, phase: usize, at: f64) {
        let Some(mut core) = self.core.take() else { return };
        for machine in (phase..self.backends.len()).step_by(PHASES) {
            if self.is_up[machine] {
                core.observe(self.page(machine, at).as_kept(), time(at));
            } else {
                core.refused(address(machine));
            }
        }
        self.core = Some(core);
    }

    fn decide(&mut self, at: f64) {
        let Some(mut core) = self.core.take() else { return };
        core.tick(time(at));
        let groups = core.groups(MODEL);
        if groups != self.published {
            let endpoints = |group: &RehearsedGroup| {
                let place = |(of, weight): &(std::net::SocketAddr, u32)| {
                    ((0..self.backends.len()).find(|index| address(*index) == *of), f64::from(*weight))
                };
                let placed = group.endpoints.iter().map(place);
                placed.filter_map(|(index, weight)| Some((index?, weight))).collect::<Vec<_>>()
            };
            let groups_of = groups.iter().map(|group| (f64::from(group.weight), endpoints(group)));
            self.pushed = Some((at + PUSH_SECONDS, Rule::Groups(groups_of.collect())));
            self.published = groups;
        }
        self.told.push(Told { at, shares: self.shares() });
        self.core = Some(core);
    }

    /// What the published weights give to each machine.
    fn shares(&self) -> Vec<f64> {
        let mut shares = vec![0.0; self.backends.len()];
        let all: f64 = self.published.iter().map(|group| f64::from(group.weight)).sum();
        for group in &self.published {
            let of_group: f64 = group.endpoints.iter().map(|(_, weight)| f64::from(*weight)).sum();
            for (of, weight) in &group.endpoints {
                if let Some(index) = (0..shares.len()).find(|index| address(*index) == *of) {
                    shares[index] += f64::from(group.weight) / all * f64::from(*weight) / of_group;
                }
            }
        }
        shares
    }

    fn page(&mut self, machine: usize, at: f64) -> Sample {
        let backend = &mut self.backends[machine];
        let state = backend.engine.state();
        let counted = std::mem::take(&mut backend.counted);
        let in_flight = (state.running + state.waiting) as f64;
        let (gap_seconds, gaps) = std::mem::take(&mut backend.token_gaps);
        let ttfts = std::mem::take(&mut backend.ttfts);
        let mean = |sum: f64, count: f64| (count > 0.0).then(|| sum / count);
        let arrived = (counted.completed + in_flight - backend.in_flight_before).max(0.0);
        backend.in_flight_before = in_flight;
        Sample {
            at: time(at),
            backend: address(machine).to_string().into(),
            interval_seconds: SECOND,
            queue_depth: Some(state.waiting as f64),
            running: Some(state.running as f64),
            kv_used: Some(state.kv_used),
            ttft_seconds: mean(ttfts, counted.ttft_count),
            inter_token_seconds: mean(gap_seconds, gaps),
            arrived,
            simulated: true,
            ..counted
        }
    }

    fn tell_limits(&mut self, machine: usize) {
        let profile = *self.backends[machine].engine.profile();
        let exported = |value: f64| Some(Limit { value, source: LimitSource::Exported });
        let limits = Limits {
            block_size: exported(f64::from(profile.block_tokens)),
            blocks: exported(f64::from(profile.num_blocks)),
            ..Limits::default()
        };
        if let Some(core) = &mut self.core {
            core.limit(address(machine), limits);
        }
    }
}

fn unanswered(arrival: &Arrival, at: f64, why: &str) -> Served {
    Served {
        at: arrival.at,
        sizes: arrival.sizes,
        machine: None,
        ttft: None,
        tpot: None,
        latency: at - arrival.at,
        failure: Some(why.to_owned()),
        idle: [0.0; 4],
    }
}
