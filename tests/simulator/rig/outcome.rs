//! What was measured in a cell under a policy.

use serde::{Deserialize, Serialize};

use super::capacity::{Basis, class_shares};
use super::cell::{Cell, SizeSet};
use super::fleet::Machine;
use super::gpu::Gpu;
use super::plan::Plan;
use super::statistics::Sample;

/// Results of another version are measured again.
pub const RIG_VERSION: u32 = 3;
/// Above this, a cell says more about the machine that runs it than about the policy: seconds of real time.
pub const LATENESS_BOUND_SECONDS: f64 = 0.025;
/// A request without an answer counts with this much time more, so that a quick refusal is no success: what a client that
/// asks again loses about; simulated seconds.
const FAILURE_SECONDS: f64 = 10.0;

/// One request. Times are simulated seconds, counted from when it should have been sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// When it should have been sent.
    pub at: f64,
    /// From which set its size is.
    pub sizes: SizeSet,
    /// The index of the machine that answered, if one did.
    pub machine: Option<usize>,
    /// Time to the first token, if there was one.
    pub ttft: Option<f64>,
    /// Mean time between two tokens, of an answer with two or more.
    pub tpot: Option<f64>,
    /// Time to the end, good or bad.
    pub latency: f64,
    /// Why there is no whole answer.
    pub failure: Option<String>,
    /// Time to the first token on an idle machine of each class.
    pub idle: [f64; Gpu::ALL.len()],
}

impl Served {
    /// Time to the first token, or what its lack counts.
    pub fn ttft_seconds(&self) -> f64 {
        self.ttft.unwrap_or(self.latency + FAILURE_SECONDS)
    }

    /// Time to the last token, or what its lack counts.
    pub fn latency_seconds(&self) -> f64 {
        self.latency + if self.failure.is_some() { FAILURE_SECONDS } else { 0.0 }
    }
}

/// The shares that Envoys were told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// When, simulated seconds.
    pub at: f64,
    /// Of each machine, 0 to 1.
    pub shares: Vec<f64>,
}

/// Whether the rig itself kept up, in real seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// 99th percentile of how late requests were sent.
    pub generator_late_p99: f64,
    /// The same of how late the engines of the simulated servers woke up, of the worst one.
    pub servers_late_p99: f64,
    /// Part of all cores that was busy while it was measured, whoever had them.
    pub cpu_busy: f64,
}

impl Health {
    /// True when what was measured counts.
    pub fn is_good(&self) -> bool {
        self.generator_late_p99 <= LATENESS_BOUND_SECONDS && self.servers_late_p99 <= LATENESS_BOUND_SECONDS
    }
}

/// A cell under a policy: what is kept of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// [`RIG_VERSION`] when it was measured.
    pub version: u32,
    /// The cell.
    pub cell: Cell,
    /// The name of the policy.
    pub policy: String,
    /// Seed of arrivals and servers.
    pub seed: u64,
    /// Simulated seconds per real one.
    pub speed: f64,
    /// What happened.
    pub plan: Plan,
    /// The fleet.
    pub machines: Vec<Machine>,
    /// Its figures for the sizes of the cell.
    pub bases: Vec<Basis>,
    /// Whether the rig kept up.
    pub health: Health,
    /// The measured requests, in the order in which they should have been sent.
    pub served: Vec<Served>,
    /// What Clairvoy told the Envoys in each second, where it steers.
    #[serde(default)]
    pub told: Vec<Told>,
    /// SHA-256 of the Clairvoy that steered, where one did: another one is measured again.
    #[serde(default)]
    pub clairvoy: Option<String>,
}

impl CellResult {
    /// The file of a result, in the folder of results.
    pub fn file_name(cell: Cell, policy: &str, seed: u64, speed: f64) -> String {
        format!("{cell}_{policy}_seed{seed}_x{speed}_v{RIG_VERSION}.json")
    }

    /// Times to the first token, in order of arrival.
    pub fn ttfts(&self) -> Vec<f64> {
        self.served.iter().map(Served::ttft_seconds).collect()
    }

    /// The same requests on idle machines, spread over the classes by capacity: what no way of balancing that knows nothing of
    /// sizes gets below for long.
    pub fn idle(&self) -> Sample {
        let mut values = Vec::with_capacity(self.served.len() * Gpu::ALL.len());
        for basis in &self.bases {
            let shares = class_shares(&self.machines, &basis.rps);
            for (index, served) in self.served.iter().enumerate().filter(|(_, one)| one.sizes == basis.sizes)
            {
                values.extend(served.idle.iter().zip(shares).map(|(ttft, share)| (*ttft, share, index)));
            }
        }
        Sample::weighted(values)
    }

    /// The 99th percentile of TTFT on idle machines.
    pub fn floor_seconds(&self) -> f64 {
        self.idle().quantile(0.99)
    }

    /// True when a request is within the objective for its sizes.
    pub fn is_within_slo(&self, served: &Served) -> bool {
        let Some(basis) = self.bases.iter().find(|basis| basis.sizes == served.sizes) else { return false };
        served.failure.is_none()
            && served.ttft_seconds() <= basis.slo.ttft_seconds
            && served.tpot.is_none_or(|tpot| tpot <= basis.slo.tpot_seconds)
    }
}
