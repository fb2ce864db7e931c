//! The same cells without Envoys and without waiting: engines as they are simulated, Envoys as they are modelled here, and the
//! decisions of the controller's own core on a clock of its own.
//!
//! It is there to work on the law, which takes many tries: a cell takes seconds. No figure of it stands for a real one.

mod proxy;
mod world;

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};

use clairvoy_tests::{
    Basis, Cell, CellResult, Gpu, Health, Lengths, Machine, Plan, RIG_VERSION, Scenario, SizeSet,
    capacity_shares, schedule,
};

use crate::clairvoy::{Setup, config};
use crate::policies::Policy;
use crate::site::ENVOYS;

use self::proxy::Rule;
use self::world::World;

/// Plays each cell under each policy.
pub(crate) fn run(
    cells: &[Cell],
    policies: &[Policy],
    seeds: &[u64],
    lengths: Lengths,
) -> Result<Vec<CellResult>> {
    let mut results = Vec::new();
    for &cell in cells {
        let bases = SizeSet::ALL.map(|set| Basis::measure(set, &cell.machines()));
        let bases = bases.into_iter().collect::<Result<Vec<_>, _>>()?;
        for &seed in seeds {
            for &policy in policies {
                results.push(play(cell, policy, seed, lengths, &bases)?);
            }
        }
    }
    Ok(results)
}

fn play(cell: Cell, policy: Policy, seed: u64, lengths: Lengths, bases: &[Basis]) -> Result<CellResult> {
    let machines = cell.machines();
    let basis = |sizes| bases.iter().find(|basis| basis.sizes == sizes).unwrap_or(&bases[0]).clone();
    let plan = Plan::new(cell, &machines, lengths, basis);
    let arrivals = schedule(&plan, ENVOYS, seed)?;
    let has_zones = cell.scenario == Scenario::Zone;
    let rule = rule(policy, &machines, &basis(cell.sizes).rps, has_zones)?;
    let mut world = World::new(&machines, rule, seed);
    if policy == Policy::Predictive {
        world.steer(core_config(&machines, has_zones)?);
    }
    let (served, told) = world.play(&plan, &arrivals);
    Ok(CellResult {
        version: RIG_VERSION,
        cell,
        policy: policy.name().to_owned(),
        seed,
        speed: 1.0,
        plan,
        machines,
        bases: bases.to_vec(),
        health: Health { generator_late_p99: 0.0, servers_late_p99: 0.0, cpu_busy: 0.0 },
        served,
        told,
        clairvoy: None,
    })
}

/// Where a machine would listen.
fn address(machine: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 8000 + u16::try_from(machine).unwrap_or_default()))
}

fn core_config(machines: &[Machine], has_zones: bool) -> Result<clairvoy::config::Config> {
    let servers: Vec<SocketAddr> = (0..machines.len()).map(address).collect();
    let nowhere = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let setup = Setup {
        folder: "/nowhere".as_ref(),
        api: nowhere(1),
        xds: nowhere(2),
        gateways: &[],
        machines,
        servers: &servers,
        has_zones,
        may_refuse: false,
        postgres_bin: None,
    };
    let text = config(&setup).replace("gateways:\n", "");
    clairvoy::config::parse(&text)
        .map_err(|error| anyhow::anyhow!("{error}"))
        .context("the rig's own configuration")
}

fn rule(policy: Policy, machines: &[Machine], rps: &[f64; Gpu::ALL.len()], has_zones: bool) -> Result<Rule> {
    let shares = capacity_shares(machines, rps);
    let all: Vec<usize> = (0..machines.len()).collect();
    Ok(match policy {
        Policy::Predictive | Policy::StaticLocality => {
            let group = |zone: bool, class: Gpu| {
                let is_in = |index: &usize| {
                    let machine = &machines[*index];
                    machine.class == class && (has_zones && machine.in_second_zone) == zone
                };
                let members: Vec<usize> = all.iter().copied().filter(is_in).collect();
                let weight: f64 = members.iter().map(|index| shares[*index]).sum();
                (weight, members.into_iter().map(|index| (index, 1.0)).collect::<Vec<_>>())
            };
            let zones = [false, true].into_iter();
            let groups = zones.flat_map(|zone| Gpu::ALL.map(|class| group(zone, class)));
            Rule::Groups(groups.filter(|(_, members)| !members.is_empty()).collect())
        }
        Policy::ExactRr => Rule::RoundRobin(all.iter().copied().zip(shares).collect()),
        Policy::Rr => Rule::RoundRobin(all.iter().map(|index| (*index, 1.0)).collect()),
        Policy::Lr2 => Rule::LeastOfTwo(all),
        Policy::FullScan => Rule::FullScan(all),
        Policy::Orca | Policy::PredictiveShedding => {
            bail!("neither load reports nor refusals are modelled: leave `{}` out", policy.name())
        }
    })
}
