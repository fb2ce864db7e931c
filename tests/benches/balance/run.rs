//! Cells under policies, one after the other. What is finished is kept, so that a run can be interrupted and goes on.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep_until};

use clairvoy_tests::{
    Arrival, Basis, Cell, CellResult, Health, LATENESS_BOUND_SECONDS, Lengths, Machine, Plan, RIG_VERSION,
    Scenario, SizeSet, Summary, Told, loopback_client, machines, machines_alike, per_second, schedule,
};

use crate::clairvoy::MODEL;
use crate::machine::cpu_times;
use crate::play::{Stage, play};
use crate::policies::Policy;
use crate::programs::Programs;
use crate::site::{Cast, ENVOYS, Site};

/// Draws behind the interval of a progress line.
const ROUNDS: usize = 100;
/// Real time that starting and stopping takes about, for the estimate of what is left.
const AROUND_SECONDS: f64 = 20.0;

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) cells: Vec<Cell>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) seeds: Vec<u64>,
    pub(crate) speed: f64,
    pub(crate) lengths: Lengths,
    pub(crate) folder: PathBuf,
    /// Measure what is there already again.
    pub(crate) again: bool,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Run {
    cell: Cell,
    policy: Policy,
    seed: u64,
}

/// What is measured once for all cells of a fleet.
struct World {
    machines: Vec<Machine>,
    bases: Vec<Basis>,
}

/// The fleet of a cell, and the one of machines that are alike.
struct Worlds([World; 2]);

impl Worlds {
    fn measure() -> Result<Self> {
        let world = |machines: Vec<Machine>| -> Result<World> {
            let bases = SizeSet::ALL.map(|set| Basis::measure(set, &machines));
            Ok(World { bases: bases.into_iter().collect::<Result<_, _>>()?, machines })
        };
        Ok(Self([world(machines())?, world(machines_alike())?]))
    }

    fn of(&self, cell: Cell) -> &World {
        let [usual, alike] = &self.0;
        if cell.scenario == Scenario::Alike { alike } else { usual }
    }
}

impl World {
    fn basis(&self, sizes: SizeSet) -> Basis {
        // One is measured for each set.
        let found = self.bases.iter().find(|basis| basis.sizes == sizes).unwrap_or(&self.bases[0]);
        found.clone()
    }

    fn plan(&self, order: &Order, cell: Cell) -> Plan {
        Plan::new(cell, &self.machines, order.lengths, |sizes| self.basis(sizes))
    }
}

/// Measures what is missing, and returns all results that the order asks for.
pub(crate) async fn run(order: &Order, programs: &Programs) -> Result<Vec<CellResult>> {
    fs::create_dir_all(&order.folder).with_context(|| format!("cannot create {}", order.folder.display()))?;
    let (worlds, clairvoy) = (Worlds::measure()?, fingerprint(programs)?);
    let mut missing = Vec::new();
    for run in runs(order) {
        if order.again || read(order, worlds.of(run.cell), &clairvoy, run).is_none() {
            missing.push(run);
        }
    }
    println!(
        "{} measurements, {} of them to do; results in {}",
        runs(order).len(),
        missing.len(),
        order.folder.display()
    );
    let seconds = |run: &Run| {
        let plan = worlds.of(run.cell).plan(order, run.cell);
        (plan.end() - plan.begin()) / order.speed + AROUND_SECONDS
    };
    for (index, run) in missing.iter().enumerate() {
        let left: f64 = missing[index..].iter().map(seconds).sum();
        println!(
            "{}/{} {} {} (about {:.0} min left)",
            index + 1,
            missing.len(),
            run.cell,
            run.policy.name(),
            left / 60.0
        );
        let result = measure(order, programs, worlds.of(run.cell), *run).await;
        let result = result.with_context(|| format!("{} under {}", run.cell, run.policy.name()))?;
        write(order, *run, &result)?;
        println!("  {}", line(&result));
    }
    let kept = |run: Run| read(order, worlds.of(run.cell), &clairvoy, run);
    Ok(runs(order).into_iter().filter_map(kept).collect())
}

fn runs(order: &Order) -> Vec<Run> {
    let mut runs = Vec::new();
    for &cell in &order.cells {
        for &seed in &order.seeds {
            let wanted = order.policies.iter().filter(|policy| policy.is_for(cell));
            runs.extend(wanted.map(|&policy| Run { cell, policy, seed }));
        }
    }
    runs
}

async fn measure(order: &Order, programs: &Programs, world: &World, run: Run) -> Result<CellResult> {
    let Run { cell, policy, seed } = run;
    let speed = order.speed;
    let plan = world.plan(order, cell);
    let arrivals = arrivals(order, run, &plan)?;
    let cast = Cast {
        policy,
        machines: &world.machines,
        rps: world.basis(cell.sizes).rps,
        has_zones: cell.scenario == Scenario::Zone,
        speed,
        seed,
        closed: plan.closed_at_first(),
    };
    let client = loopback_client(Duration::from_secs(10))?;
    let mut site = Site::start(programs, &cast, client).await?;
    let stage = Stage {
        model: MODEL.to_owned(),
        gateways: site.gateways.clone(),
        machines: site
            .servers
            .iter()
            .copied()
            .enumerate()
            .map(|(index, server)| (server, index))
            .collect::<HashMap<_, _>>(),
        speed,
        begin: Instant::now() + Duration::from_millis(200),
    };
    let (played, cpu_busy, (), told) = tokio::try_join!(
        async {
            let (stage, plan) = (stage.clone(), plan.clone());
            tokio::spawn(async move { play(&stage, &plan, &arrivals).await }).await?
        },
        cpu_busy(&stage, &plan),
        events(&site, &stage, &plan),
        told(&site, &stage, &plan),
    )?;
    site.check()?;
    let health = Health {
        generator_late_p99: played.late_p99,
        servers_late_p99: site.servers_late_p99().await?,
        cpu_busy,
    };
    site.stop().await;
    Ok(CellResult {
        version: RIG_VERSION,
        cell,
        policy: policy.name().to_owned(),
        seed,
        speed,
        plan,
        machines: world.machines.clone(),
        bases: world.bases.clone(),
        health,
        served: played.served,
        told,
        clairvoy: policy.is_steered().then(|| fingerprint(programs)).transpose()?,
    })
}

/// By which one Clairvoy is told from another.
fn fingerprint(programs: &Programs) -> Result<String> {
    let path = &programs.clairvoy;
    let file = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Has the events of the plan happen.
async fn events(site: &Site, stage: &Stage, plan: &Plan) -> Result<()> {
    for event in &plan.events {
        sleep_until(stage.moment(plan, event.at)).await;
        site.act(event.machine, event.action).await?;
    }
    Ok(())
}

/// The shares that Clairvoy tells, once a second; none where nobody does.
async fn told(site: &Site, stage: &Stage, plan: &Plan) -> Result<Vec<Told>> {
    let mut told = Vec::new();
    if !site.is_steered() {
        return Ok(told);
    }
    let mut at = 0.0;
    while at < plan.measured_seconds {
        sleep_until(stage.moment(plan, at)).await;
        told.push(Told { at, shares: site.shares().await? });
        at += stage.speed;
    }
    Ok(told)
}

/// The part of all cores that is busy while requests are measured.
async fn cpu_busy(stage: &Stage, plan: &Plan) -> Result<f64> {
    sleep_until(stage.moment(plan, 0.0)).await;
    let (busy, all) = cpu_times()?;
    sleep_until(stage.moment(plan, plan.measured_seconds)).await;
    let (busy_then, all_then) = cpu_times()?;
    Ok((busy_then - busy) / (all_then - all).max(1.0))
}

/// The requests of a cell, which are kept beside its results. They depend on the seed alone, so all policies get the same.
fn arrivals(order: &Order, run: Run, plan: &Plan) -> Result<Vec<Arrival>> {
    let name = format!("schedule_{}_seed{}_x{}_v{RIG_VERSION}.jsonl", run.cell, run.seed, order.speed);
    let path = order.folder.join(name);
    let drawn = schedule(plan, ENVOYS, run.seed)?;
    let lines = drawn.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?.join("\n");
    put(&path, &lines)?;
    Ok(drawn)
}

fn file(order: &Order, run: Run) -> PathBuf {
    order.folder.join(CellResult::file_name(run.cell, run.policy.name(), run.seed, order.speed))
}

/// The result that is there, unless it is one of an older rig, of a cell of another length, or of another Clairvoy.
fn read(order: &Order, world: &World, clairvoy: &str, run: Run) -> Option<CellResult> {
    let result: CellResult = serde_json::from_slice(&fs::read(file(order, run)).ok()?).ok()?;
    let is_current = result.version == RIG_VERSION && result.plan == world.plan(order, run.cell);
    let is_whole =
        !run.policy.is_steered() || (!result.told.is_empty() && result.clairvoy.as_deref() == Some(clairvoy));
    (is_current && is_whole).then_some(result)
}

/// Writes the result, and beside it its seconds as JSON lines.
fn write(order: &Order, run: Run, result: &CellResult) -> Result<()> {
    let path = file(order, run);
    let seconds = per_second(result).iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    put(&path.with_extension("seconds.jsonl"), &seconds.join("\n"))?;
    put(&path, &serde_json::to_string(result)?)
}

/// At once, so that an interrupted run leaves no half file.
fn put(path: &Path, text: &str) -> Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, text)
        .and_then(|()| fs::rename(&part, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn line(result: &CellResult) -> String {
    let summary = Summary::new(result, ROUNDS);
    let health = &result.health;
    let note = if health.is_good() {
        String::new()
    } else {
        format!(" — does not count: late by more than {:.0} ms", LATENESS_BOUND_SECONDS * 1e3)
    };
    format!(
        "TTFT p99 {:.2} s ({:.2}–{:.2}), floor {:.2}; TPOT p95 {:.0} ms; within SLO {:.1} %; {} requests, {} failed; \
         late {:.1} ms, servers {:.1} ms; CPU {:.0} %{note}",
        summary.ttft_p99.estimate,
        summary.ttft_p99.low,
        summary.ttft_p99.high,
        result.floor_seconds(),
        summary.tpot_p95 * 1e3,
        summary.within_slo * 100.0,
        summary.requests,
        summary.failures,
        health.generator_late_p99 * 1e3,
        health.servers_late_p99 * 1e3,
        health.cpu_busy * 100.0,
    )
}
