//! What the balancing by prediction has to show, and whether it did.

use super::cell::{Cell, Scenario};
use super::outcome::{CellResult, Served};
use super::statistics::{Pair, Sample, geometric_ratio};
use super::summary::Summary;

/// The policy that is judged.
const OURS: &str = "predictive";
/// The same where it may refuse requests.
const OURS_SHEDDING: &str = "predictive-shedding";
/// Part of the requests within the objective that makes a load one that the fleet holds.
const HELD: f64 = 0.95;
/// So many times the load that round robin holds is to be held.
const HELD_TIMES: f64 = 1.45;
/// Up to this load plain round robin still answers, so that its mean latency means something.
const ROUND_ROBIN_LOAD: f64 = 0.5;
/// Up to this load the objective has to be kept as well as by the best.
const SLO_LOAD: f64 = 0.85;

/// Whether a goal is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    Missed,
    /// What it takes was not measured.
    Unmeasured,
}

/// A goal and what was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    /// The figure.
    pub what: String,
    /// What is wanted of it.
    pub wanted: String,
    /// What it is.
    pub measured: String,
    /// The comparison.
    pub verdict: Verdict,
}

/// Judges the results whose rig kept up. Intervals come from `rounds` draws.
pub fn judge(results: &[CellResult], rounds: usize) -> Vec<Goal> {
    let results: Vec<&CellResult> = results.iter().filter(|result| result.health.is_good()).collect();
    let judge = Judge { results: &results, rounds };
    let mut goals = vec![judge.against("exact-rr", &[], 0.6, Some(0.8))];
    goals.extend(["lr2", "full-scan"].map(|policy| judge.against(policy, &[], 0.1, None)));
    goals.push(judge.against("orca", &[], 0.3, None));
    goals.push(judge.never_worse_than("static-locality", |_| true));
    goals.push(judge.never_worse_than("full-scan", |scenario| scenario == Scenario::Alike));
    let changing = [Scenario::Mix, Scenario::Slow, Scenario::Join];
    goals.push(judge.against("static-locality", &changing, 0.7, None));
    goals.push(judge.slo_as_good_as_the_best());
    goals.push(judge.slo_better_in(&[Scenario::Mix, Scenario::Slow]));
    goals.push(judge.slo_while_shedding());
    goals.push(judge.latency_of_round_robin());
    goals.push(judge.load_of_round_robin());
    goals.extend(judge.throttled());
    goals.extend(judge.throttled_beside_steady());
    goals
}

struct Judge<'a> {
    results: &'a [&'a CellResult],
    rounds: usize,
}

impl<'a> Judge<'a> {
    fn of<'b>(&'b self, policy: &'b str) -> impl Iterator<Item = &'a CellResult> + use<'a, 'b> {
        self.results.iter().copied().filter(move |result| result.policy == policy)
    }

    /// Our results and those of another policy for the same arrivals.
    fn pairs(&self, policy: &str) -> Vec<(&'a CellResult, &'a CellResult)> {
        let same = |a: &CellResult, b: &CellResult| {
            a.cell == b.cell && a.seed == b.seed && a.plan == b.plan && a.served.len() == b.served.len()
        };
        let matching = |ours| self.of(policy).find(|theirs| same(ours, theirs));
        self.of(OURS).filter_map(|ours| Some((ours, matching(ours)?))).collect()
    }

    fn against(&self, policy: &str, scenarios: &[Scenario], limit: f64, upper: Option<f64>) -> Goal {
        let chosen = |ours: &CellResult| {
            let usual = scenarios.is_empty() && ours.cell.scenario != Scenario::Alike;
            !ours.cell.is_probe() && (usual || scenarios.contains(&ours.cell.scenario))
        };
        let pairs = self.pairs(policy).into_iter().filter(|(ours, _)| chosen(ours));
        let pairs: Vec<Pair> = pairs.map(|(ours, theirs)| pair(ours, theirs, true)).collect();
        let within = match scenarios {
            [] => String::new(),
            some => format!(", {}", names(some)),
        };
        let what = format!("TTFT p99 above the floor, in parts of `{policy}`{within}");
        let wanted = match upper {
            Some(upper) => format!("≤ {limit}×, interval < {upper}×"),
            None => format!("≤ {limit}×"),
        };
        let Some(ratio) = geometric_ratio(&pairs, 0.99, self.rounds, 1) else {
            return unmeasured(what, wanted);
        };
        let measured =
            format!("{:.2}× ({:.2}–{:.2}), cells: {}", ratio.estimate, ratio.low, ratio.high, pairs.len());
        goal(what, wanted, measured, ratio.estimate <= limit && upper.is_none_or(|upper| ratio.high < upper))
    }

    fn never_worse_than(&self, policy: &str, chosen: impl Fn(Scenario) -> bool) -> Goal {
        let which = if chosen(Scenario::Steady) { "" } else { "machines alike: " };
        let (what, wanted) =
            (format!("{which}cells with a TTFT p99 surely above that of `{policy}`"), "none".to_owned());
        let mut pairs = self.pairs(policy);
        pairs.retain(|(ours, _)| chosen(ours.cell.scenario));
        if pairs.is_empty() {
            return unmeasured(what, wanted);
        }
        // Seeds of a cell are judged together: from one run to the next the luck of who meets whom moves a p99 by a tenth.
        let mut cells: Vec<Cell> = pairs.iter().map(|(ours, _)| ours.cell).collect();
        cells.dedup();
        let count = cells.len();
        let worse = cells.into_iter().filter_map(|cell| {
            let of_cell = pairs.iter().filter(|(ours, _)| ours.cell == cell);
            let of_cell: Vec<Pair> = of_cell.map(|(ours, theirs)| pair(ours, theirs, false)).collect();
            let ratio = geometric_ratio(&of_cell, 0.99, self.rounds, 1)?;
            (ratio.low > 1.0).then(|| format!("{cell} {:.2}×", ratio.estimate))
        });
        let worse: Vec<String> = worse.collect();
        let told = if worse.is_empty() { format!("none of {count}") } else { worse.join(", ") };
        goal(what, wanted, told, worse.is_empty())
    }

    /// For each cell of a policy of ours our part within the objective, and the best of Envoy's own with its policy.
    fn slo_beside_best(&self, policy: &str) -> Vec<(&'a CellResult, f64, f64, &'a str)> {
        let beside = self.of(policy).filter_map(|ours| {
            let others = self.results.iter().filter(|other| {
                ![OURS, OURS_SHEDDING].contains(&other.policy.as_str())
                    && other.cell == ours.cell
                    && other.seed == ours.seed
            });
            let best = others.max_by(|a, b| within_slo(a).total_cmp(&within_slo(b)))?;
            Some((ours, within_slo(ours), within_slo(best), best.policy.as_str()))
        });
        beside.collect()
    }

    fn slo_as_good_as_the_best(&self) -> Goal {
        let what = format!("requests within the objective, beside the best policy, loads up to {SLO_LOAD}");
        let wanted = "at most 1 point below in any cell".to_owned();
        let cells: Vec<_> =
            self.slo_beside_best(OURS).into_iter().filter(|(ours, ..)| ours.cell.load <= SLO_LOAD).collect();
        let difference = |&(_, ours, best, _): &(&CellResult, f64, f64, &str)| 100.0 * (ours - best);
        let Some(worst) = cells.iter().min_by(|a, b| difference(a).total_cmp(&difference(b))) else {
            return unmeasured(what, wanted);
        };
        let points = difference(worst);
        let told = format!("{points:+.1} points at worst ({}, `{}`)", worst.0.cell, worst.3);
        goal(what, wanted, told, points >= -1.0)
    }

    fn slo_better_in(&self, scenarios: &[Scenario]) -> Goal {
        let what = format!("the same, {}", names(scenarios));
        let cells = self.slo_beside_best(OURS).into_iter();
        let cells = cells.filter(|(ours, ..)| scenarios.contains(&ours.cell.scenario));
        above_the_best(cells.collect(), what, 2.0)
    }

    fn slo_while_shedding(&self) -> Goal {
        let what = format!("the same above {SLO_LOAD} and when the demand doubles, `{OURS_SHEDDING}`");
        above_the_best(self.slo_beside_best(OURS_SHEDDING), what, 0.0)
    }

    fn latency_of_round_robin(&self) -> Goal {
        let what = format!("mean latency, in parts of `rr`, steady code at loads up to {ROUND_ROBIN_LOAD}");
        let wanted = "≤ 0.7×".to_owned();
        let mean = |result: &CellResult| {
            let latencies = result.served.iter().map(Served::latency_seconds);
            latencies.sum::<f64>() / result.served.len() as f64
        };
        let pairs = self
            .pairs("rr")
            .into_iter()
            .filter(|(ours, _)| is_steady_code(ours) && ours.cell.load <= ROUND_ROBIN_LOAD);
        let logs: Vec<f64> = pairs.map(|(ours, theirs)| (mean(ours) / mean(theirs)).ln()).collect();
        if logs.is_empty() {
            return unmeasured(what, wanted);
        }
        let ratio = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
        goal(what, wanted, format!("{ratio:.2}×, cells: {}", logs.len()), ratio <= 0.7)
    }

    fn load_of_round_robin(&self) -> Goal {
        let what =
            format!("highest load with {:.0} % within the objective, in parts of `rr`'s", 100.0 * HELD);
        let wanted = format!("≥ {HELD_TIMES}×");
        let measured = |policy: &str| -> Vec<(f64, f64)> {
            let of = self.results.iter().filter(|result| result.policy == policy && is_steady_code(result));
            of.map(|result| (result.cell.load, within_slo(result))).collect()
        };
        let theirs = measured("rr");
        let least = theirs.iter().map(|(load, _)| *load).min_by(f64::total_cmp);
        let (Some(ours), Some(least)) = (highest_held(measured(OURS)), least) else {
            return unmeasured(what, wanted);
        };
        if let Some(theirs) = highest_held(theirs) {
            let told = format!("{:.2}× ({ours:.2} to {theirs:.2})", ours / theirs);
            return goal(what, wanted, told, ours / theirs >= HELD_TIMES);
        }
        // It holds less than the least that was measured; how much less is not known.
        let told = format!(
            "more than {:.2}× ({ours:.2}; `rr` holds not even {least:.2}, the least measured)",
            ours / least
        );
        if ours / least >= HELD_TIMES {
            return goal(what, wanted, told, true);
        }
        Goal { measured: told, ..unmeasured(what, wanted) }
    }

    fn throttled(&self) -> Vec<Goal> {
        let slow = self.of(OURS).filter(|result| result.cell.scenario == Scenario::Slow);
        let told = slow.map(|result| {
            let what = format!("share that is told for the slow backend 8 s later, {}", result.cell);
            // One draw: only the share is read.
            let Some(share) = Summary::new(result, 1).slow_share else {
                return unmeasured(what, "within 20 % of its last".to_owned());
            };
            let wanted = format!("within 20 % of its last, {:.1} %", 100.0 * share.settled);
            let told = format!("{:.1} % (before {:.1} %)", 100.0 * share.after, 100.0 * share.before);
            let met = (share.after - share.settled).abs() <= 0.2 * share.settled;
            goal(what, wanted, told, met)
        });
        told.collect()
    }

    /// From the moment when one becomes slow on, beside the same load on a healthy fleet.
    fn throttled_beside_steady(&self) -> Vec<Goal> {
        let told = self.of(OURS).filter(|result| result.cell.scenario == Scenario::Slow).map(|slow| {
            let healthy = Cell { scenario: Scenario::Steady, ..slow.cell };
            let what = format!("TTFT p99 since one became slow, in parts of that of {healthy}");
            let wanted = "≤ 1.5×".to_owned();
            let steady = self.of(OURS).find(|steady| steady.cell == healthy && steady.seed == slow.seed);
            let Some((since, steady)) = slow.plan.first_change().zip(steady) else {
                return unmeasured(what, wanted);
            };
            let after = slow.served.iter().filter(|one| one.at >= since).map(Served::ttft_seconds);
            let p99 = |values: Vec<f64>| Sample::new(&values).quantile(0.99);
            let (after, usual) = (p99(after.collect()), p99(steady.ttfts()));
            let told = format!("{:.2}× ({after:.2} to {usual:.2} s)", after / usual);
            goal(what, wanted, told, after <= 1.5 * usual)
        });
        told.collect()
    }
}

/// Whether ours has so many points more than the best in each cell, or just more.
fn above_the_best(cells: Vec<(&CellResult, f64, f64, &str)>, what: String, least: f64) -> Goal {
    let wanted = match least {
        0.0 => "more than any other in each cell".to_owned(),
        least => format!("{least} points above in each cell"),
    };
    let told: Vec<(f64, String)> = cells
        .into_iter()
        .map(|(ours, our, best, policy)| {
            let points = 100.0 * (our - best);
            (points, format!("{} {points:+.1} (`{policy}`)", ours.cell))
        })
        .collect();
    if told.is_empty() {
        return unmeasured(what, wanted);
    }
    let met = told.iter().all(|(points, _)| *points >= least && *points > 0.0);
    goal(what, wanted, told.into_iter().map(|(_, told)| told).collect::<Vec<_>>().join(", "), met)
}

fn pair(ours: &CellResult, theirs: &CellResult, above_floor: bool) -> Pair {
    Pair {
        requests: ours.served.len().min(theirs.served.len()),
        ours: Sample::new(&ours.ttfts()),
        theirs: Sample::new(&theirs.ttfts()),
        idle: above_floor.then(|| ours.idle()),
    }
}

fn is_steady_code(result: &CellResult) -> bool {
    result.cell.scenario == Scenario::Steady && result.cell.sizes == super::SizeSet::Code
}

fn within_slo(result: &CellResult) -> f64 {
    let within = result.served.iter().filter(|served| result.is_within_slo(served)).count();
    within as f64 / result.served.len().max(1) as f64
}

/// The highest load that is held, linear between the loads that were measured; none when even the lowest is not.
fn highest_held(mut cells: Vec<(f64, f64)>) -> Option<f64> {
    cells.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut highest = None;
    for (index, &(load, part)) in cells.iter().enumerate() {
        if part >= HELD {
            highest = Some(load);
            continue;
        }
        if let Some(&(before, held)) = index.checked_sub(1).and_then(|index| cells.get(index)) {
            highest = Some(before + (load - before) * (held - HELD) / (held - part));
        }
        break;
    }
    highest
}

fn names(scenarios: &[Scenario]) -> String {
    scenarios.iter().map(|scenario| scenario.name()).collect::<Vec<_>>().join(", ")
}

fn goal(what: String, wanted: String, measured: String, is_met: bool) -> Goal {
    let verdict = if is_met { Verdict::Met } else { Verdict::Missed };
    Goal { what, wanted, measured, verdict }
}

fn unmeasured(what: String, wanted: String) -> Goal {
    Goal { what, wanted, measured: String::new(), verdict: Verdict::Unmeasured }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::result;
    use super::*;

    fn steady(cell: &str, policy: &str, ttft: f64) -> CellResult {
        result(cell, policy, Vec::new(), |at| (0, ttft * (1.0 + (at / 20.0).fract() / 10.0)))
    }

    fn find<'a>(goals: &'a [Goal], part: &str) -> &'a Goal {
        goals.iter().find(|goal| goal.what.contains(part)).unwrap_or_else(|| panic!("no {part}: {goals:#?}"))
    }

    #[test]
    fn goals_are_met_by_numbers() {
        let ours = steady("steady-code-0.70", "predictive", 0.6);
        let goals = judge(&[ours.clone(), steady("steady-code-0.70", "exact-rr", 1.0)], 20);
        let found = find(&goals, "`exact-rr`");
        assert_eq!(found.verdict, Verdict::Met, "{found:?}");
        assert!(found.measured.starts_with("0.27×"), "{found:?}");
        assert_eq!(find(&goals, "`lr2`").verdict, Verdict::Unmeasured);
        let goals = judge(&[ours, steady("steady-code-0.70", "static-locality", 0.5)], 20);
        let found = find(&goals, "surely above");
        assert_eq!(found.verdict, Verdict::Missed);
        assert!(found.measured.contains("steady-code-0.70 1.20×"), "{found:?}");
    }

    #[test]
    fn a_rig_that_was_late_proves_nothing() {
        let mut late = steady("steady-code-0.70", "predictive", 0.6);
        late.health.servers_late_p99 = 0.5;
        let goals = judge(&[late, steady("steady-code-0.70", "exact-rr", 1.0)], 20);
        assert!(goals.iter().all(|goal| goal.verdict == Verdict::Unmeasured), "{goals:#?}");
    }

    #[test]
    fn the_objective_is_compared_with_the_best() {
        let half = |policy: &str, part: f64| {
            result("slow-code-0.70", policy, Vec::new(), |at| (0, if at < 200.0 * part { 1.0 } else { 3.0 }))
        };
        let goals = judge(&[half("predictive", 0.9), half("rr", 0.2), half("orca", 0.85)], 20);
        let found = find(&goals, "the same, mix, slow");
        assert_eq!((found.verdict, found.measured.as_str()), (Verdict::Met, "slow-code-0.70 +5.0 (`orca`)"));
        assert_eq!(find(&goals, "beside the best").verdict, Verdict::Met);
    }

    #[test]
    fn a_load_that_round_robin_never_holds_is_a_bound() {
        let ours = ["steady-code-0.20", "steady-code-0.70"].map(|cell| steady(cell, "predictive", 1.0));
        let rr = |load: &str, ttft: f64| steady(&format!("steady-code-{load}"), "rr", ttft);
        let judged = |ours: &[CellResult], rr: CellResult| {
            let goals = judge(&[ours, &[rr]].concat(), 20);
            find(&goals, "highest load").clone()
        };
        let found = judged(&ours, rr("0.20", 3.0));
        assert_eq!(found.verdict, Verdict::Met, "{found:?}");
        assert!(found.measured.starts_with("more than 3.50× (0.70; `rr` holds not even 0.20"), "{found:?}");
        let found = judged(&ours[..1], rr("0.20", 3.0));
        assert_eq!(found.verdict, Verdict::Unmeasured, "more than 1.00× may be any: {found:?}");
        let found = judged(&ours, rr("0.20", 1.0));
        assert_eq!((found.verdict, found.measured.as_str()), (Verdict::Met, "3.50× (0.70 to 0.20)"));
    }

    #[test]
    fn the_highest_load_lies_between_those_measured() {
        assert_eq!(highest_held(vec![(0.5, 0.99), (0.7, 0.97), (0.9, 0.99)]), Some(0.9));
        let between = highest_held(vec![(0.5, 1.0), (0.7, 0.9)]).unwrap();
        assert!((between - 0.6).abs() < 1e-9, "{between}");
        assert_eq!(highest_held(vec![(0.5, 0.5)]), None);
    }
}
