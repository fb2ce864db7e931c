//! One Envoy as far as it balances: what it picks, and what it counts.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How a proxy picks.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    /// Localities by weight; in each the endpoint with the fewest active requests, or by its own weight where these differ.
    Groups(Vec<(f64, Vec<(usize, f64)>)>),
    /// Endpoints by weight.
    RoundRobin(Vec<(usize, f64)>),
    /// The better of two at random.
    LeastOfTwo(Vec<usize>),
    /// The one with the fewest active requests.
    FullScan(Vec<usize>),
}

/// A weighted round robin that begins anywhere, as Envoy's does: by earliest deadline.
#[derive(Debug)]
struct Wheel {
    deadlines: Vec<f64>,
    steps: Vec<f64>,
}

impl Wheel {
    fn new(weights: impl Iterator<Item = f64>, rng: &mut StdRng) -> Self {
        let steps: Vec<f64> = weights.map(|weight| 1.0 / weight.max(1e-9)).collect();
        // Each has gone some of its way.
        let deadlines = steps.iter().map(|step| step * rng.random::<f64>()).collect();
        Self { deadlines, steps }
    }

    /// The next of those that can be picked.
    fn next(&mut self, can: impl Fn(usize) -> bool) -> Option<usize> {
        let of = |index: &usize| self.deadlines[*index];
        let next =
            (0..self.steps.len()).filter(|index| can(*index)).min_by(|a, b| of(a).total_cmp(&of(b)))?;
        self.deadlines[next] += self.steps[next];
        Some(next)
    }
}

#[derive(Debug)]
pub(super) struct Proxy {
    rule: Rule,
    wheel: Wheel,
    rng: StdRng,
    active: Vec<u32>,
}

/// Envoy divides weights by active requests plus one to this power.
const ACTIVE_REQUEST_BIAS: i32 = 2;

impl Proxy {
    pub(super) fn new(rule: Rule, machines: usize, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let wheel = wheel(&rule, &mut rng);
        Self { rule, wheel, rng, active: vec![0; machines] }
    }

    pub(super) fn set(&mut self, rule: Rule) {
        self.wheel = wheel(&rule, &mut self.rng);
        self.rule = rule;
    }

    /// A machine that is up, which has a request more then.
    pub(super) fn pick(&mut self, is_up: &[bool]) -> Option<usize> {
        let picked = match &self.rule {
            Rule::RoundRobin(endpoints) => endpoints[self.wheel.next(|index| is_up[endpoints[index].0])?].0,
            Rule::Groups(groups) => {
                let has_any = |index: usize| groups[index].1.iter().any(|(machine, _)| is_up[*machine]);
                let (_, endpoints) = &groups[self.wheel.next(has_any)?];
                let up: Vec<_> = endpoints.iter().filter(|(machine, _)| is_up[*machine]).copied().collect();
                if up.iter().all(|(_, weight)| *weight == up[0].1) {
                    least(
                        &up.iter().map(|(machine, _)| *machine).collect::<Vec<_>>(),
                        &self.active,
                        &mut self.rng,
                    )?
                } else {
                    by_weight(&up, &self.active, &mut self.rng)?
                }
            }
            Rule::LeastOfTwo(machines) => {
                let up: Vec<usize> = machines.iter().copied().filter(|machine| is_up[*machine]).collect();
                let mut one = || (!up.is_empty()).then(|| up[self.rng.random_range(0..up.len())]);
                let (first, second) = (one()?, one()?);
                if self.active[second] < self.active[first] { second } else { first }
            }
            Rule::FullScan(machines) => {
                let up: Vec<usize> = machines.iter().copied().filter(|machine| is_up[*machine]).collect();
                least(&up, &self.active, &mut self.rng)?
            }
        };
        self.active[picked] += 1;
        Some(picked)
    }

    pub(super) fn ended(&mut self, machine: usize) {
        self.active[machine] = self.active[machine].saturating_sub(1);
    }
}

fn wheel(rule: &Rule, rng: &mut StdRng) -> Wheel {
    match rule {
        Rule::Groups(groups) => Wheel::new(groups.iter().map(|(weight, _)| *weight), rng),
        Rule::RoundRobin(endpoints) => Wheel::new(endpoints.iter().map(|(_, weight)| *weight), rng),
        Rule::LeastOfTwo(_) | Rule::FullScan(_) => Wheel::new(std::iter::empty(), rng),
    }
}

/// One of those with the fewest active requests.
fn least(machines: &[usize], active: &[u32], rng: &mut StdRng) -> Option<usize> {
    let fewest = machines.iter().map(|machine| active[*machine]).min()?;
    let fewest: Vec<usize> = machines.iter().copied().filter(|machine| active[*machine] == fewest).collect();
    Some(fewest[rng.random_range(0..fewest.len())])
}

fn by_weight(endpoints: &[(usize, f64)], active: &[u32], rng: &mut StdRng) -> Option<usize> {
    let weights: Vec<f64> = endpoints
        .iter()
        .map(|(machine, weight)| weight / f64::from(active[*machine] + 1).powi(ACTIVE_REQUEST_BIAS))
        .collect();
    let mut left = rng.random::<f64>() * weights.iter().sum::<f64>();
    for ((machine, _), weight) in endpoints.iter().zip(weights) {
        left -= weight;
        if left <= 0.0 {
            return Some(*machine);
        }
    }
    endpoints.last().map(|(machine, _)| *machine)
}
