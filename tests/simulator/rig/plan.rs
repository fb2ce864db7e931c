//! What happens in a cell, and when. Times are seconds of the simulated world; 0 is when measuring begins.

use serde::{Deserialize, Serialize};

use super::capacity::Basis;
use super::cell::{Cell, Scenario, SizeSet};
use super::fleet::{Machine, capacity_rps};

/// The part of a cell after which something happens.
const EVENT_AT: f64 = 0.25;
/// How long the demand is doubled.
const SURGE_SECONDS: f64 = 60.0;
/// The least time of a cell with a surge, so that its end is seen.
const SURGE_CELL_SECONDS: f64 = 180.0;
/// The machine that joins. Without it the others have the load of the cell at first; demand rises to that load of them all
/// when measuring begins, and the machine is there after [`EVENT_AT`] of it.
const JOINING: usize = 0;
/// A throttled machine is this much slower.
const SLOW_FACTOR: f64 = 4.0;
/// Requests go on for so long after the last one that is measured, so that these do not end in a calm.
const AFTER_SECONDS: f64 = 8.0;

/// How long cells are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// Traffic before anything is measured, simulated seconds.
    pub warm_up_seconds: f64,
    /// The shortest cell, simulated seconds.
    pub least_seconds: f64,
    /// Requests of a cell at least, on average over seeds.
    pub requests: f64,
}

/// A time with one rate and one set of sizes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    /// Its begin.
    pub from: f64,
    /// Its end.
    pub until: f64,
    /// The sizes of its requests.
    pub sizes: SizeSet,
    /// Requests per second.
    pub rps: f64,
}

/// Something that happens to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// It becomes slower by this factor.
    Slow(f64),
    /// Its port opens.
    Open,
    /// It is killed.
    Die,
}

/// When something happens to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The moment.
    pub at: f64,
    /// The index of the machine.
    pub machine: usize,
    /// What happens.
    pub action: Action,
}

/// What happens in a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Requests that come within 0 and this time are measured.
    pub measured_seconds: f64,
    /// In order of time, without gaps.
    pub stretches: Vec<Stretch>,
    /// In order of time.
    pub events: Vec<Event>,
}

impl Plan {
    /// The plan of a cell. Loads are parts of what the whole, healthy fleet takes of the sizes of each stretch.
    pub fn new(cell: Cell, machines: &[Machine], lengths: Lengths, basis: impl Fn(SizeSet) -> Basis) -> Self {
        let rps = |sizes| cell.load * capacity_rps(machines, &basis(sizes).rps);
        let own = rps(cell.sizes);
        let (least, mean_rps) = match cell.scenario {
            Scenario::Mix => (2.0 * lengths.least_seconds, f64::midpoint(own, rps(cell.sizes.other()))),
            Scenario::Surge => (lengths.least_seconds.max(SURGE_CELL_SECONDS), own),
            _ => (lengths.least_seconds, own),
        };
        let measured_seconds = least.max((lengths.requests / mean_rps).ceil());
        let event_at = EVENT_AT * measured_seconds;
        let end = measured_seconds + AFTER_SECONDS;
        let changes = match cell.scenario {
            Scenario::Mix => vec![(measured_seconds / 2.0, cell.sizes.other(), rps(cell.sizes.other()))],
            Scenario::Surge => {
                vec![(event_at, cell.sizes, 2.0 * own), (event_at + SURGE_SECONDS, cell.sizes, own)]
            }
            Scenario::Join => vec![(0.0, cell.sizes, own)],
            _ => Vec::new(),
        };
        let before = match cell.scenario {
            Scenario::Join => {
                own - cell.load * capacity_rps(&machines[JOINING..=JOINING], &basis(cell.sizes).rps)
            }
            _ => own,
        };
        let mut stretches =
            vec![Stretch { from: -lengths.warm_up_seconds, until: end, sizes: cell.sizes, rps: before }];
        for (at, sizes, rps) in changes {
            if let Some(last) = stretches.last_mut() {
                last.until = at;
            }
            stretches.push(Stretch { from: at, until: end, sizes, rps });
        }
        let event = |machine, action| Event { at: event_at, machine, action };
        let events = match cell.scenario {
            Scenario::Slow => vec![event(0, Action::Slow(SLOW_FACTOR))],
            Scenario::Join => vec![event(JOINING, Action::Open)],
            Scenario::Zone => {
                let dying = machines.iter().enumerate().filter(|(_, machine)| machine.in_second_zone);
                dying.map(|(index, _)| event(index, Action::Die)).collect()
            }
            Scenario::Steady | Scenario::Alike | Scenario::Mix | Scenario::Surge => Vec::new(),
        };
        Self { measured_seconds, stretches, events }
    }

    /// When the first request may come.
    pub fn begin(&self) -> f64 {
        self.stretches.first().map_or(0.0, |stretch| stretch.from)
    }

    /// When the last request may come.
    pub fn end(&self) -> f64 {
        self.stretches.last().map_or(0.0, |stretch| stretch.until)
    }

    /// Machines whose port is closed at the beginning.
    pub fn closed_at_first(&self) -> Vec<usize> {
        let opened = self.events.iter().filter(|event| event.action == Action::Open);
        opened.map(|event| event.machine).collect()
    }

    /// When the first thing happens: an event, or a change of demand.
    pub fn first_change(&self) -> Option<f64> {
        self.events
            .first()
            .map(|event| event.at)
            .or_else(|| self.stretches.get(1).map(|stretch| stretch.from))
    }
}

#[cfg(test)]
mod tests {
    use super::super::capacity::Slo;
    use super::super::fleet::machines;
    use super::*;

    const LENGTHS: Lengths = Lengths { warm_up_seconds: 60.0, least_seconds: 100.0, requests: 2000.0 };

    fn plan(cell: &str) -> Plan {
        // A fleet that takes 32 requests/s of the one set and 8 of the other.
        let basis = |sizes| {
            let rps = if sizes == SizeSet::Code { [4.0, 2.0, 1.0, 1.0] } else { [1.0, 0.5, 0.25, 0.25] };
            Basis { sizes, rps, slo: Slo { ttft_seconds: 1.0, tpot_seconds: 0.1 } }
        };
        Plan::new(cell.parse().unwrap(), &machines(), LENGTHS, basis)
    }

    #[test]
    fn a_cell_is_long_enough_for_its_requests() {
        let steady = plan("steady-code-0.50");
        assert_eq!((steady.measured_seconds, steady.stretches[0].rps), (125.0, 16.0));
        assert_eq!((steady.begin(), steady.end(), steady.first_change()), (-60.0, 133.0, None));
        assert_eq!(plan("steady-code-1.00").measured_seconds, 100.0);
    }

    #[test]
    fn a_mix_keeps_the_load_and_not_the_rate() {
        let mix = plan("mix-code-0.50");
        let rates: Vec<f64> = mix.stretches.iter().map(|stretch| stretch.rps).collect();
        assert_eq!((rates, mix.measured_seconds), (vec![16.0, 4.0], 200.0));
        assert_eq!((mix.stretches[0].until, mix.stretches[1].from), (100.0, 100.0));
    }

    #[test]
    fn a_surge_lasts_a_minute() {
        let surge = plan("surge-code-0.50");
        let stretches: Vec<_> = surge.stretches.iter().map(|s| (s.from, s.until, s.rps)).collect();
        assert_eq!(stretches, [(-60.0, 45.0, 16.0), (45.0, 105.0, 32.0), (105.0, 188.0, 16.0)]);
    }

    #[test]
    fn a_zone_takes_one_machine_of_each_class_with_it() {
        let machines: Vec<usize> = plan("zone-code-0.70").events.iter().map(|event| event.machine).collect();
        assert_eq!(machines, [3, 7, 11, 15]);
    }

    #[test]
    fn a_machine_joins_after_the_demand_that_it_is_for_came() {
        let join = plan("join-code-0.50");
        assert_eq!(join.closed_at_first(), [0]);
        let stretches: Vec<_> = join.stretches.iter().map(|s| (s.from, s.until, s.rps)).collect();
        assert_eq!(stretches, [(-60.0, 0.0, 14.0), (0.0, 133.0, 16.0)]);
        assert_eq!(join.first_change(), Some(31.25));
    }
}
