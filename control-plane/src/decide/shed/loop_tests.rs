//! The whole loop: requests come, Envoys refuse what they were told, servers serve, and what shows is counted late.

use proptest::prelude::*;

use super::tests::{at, overload};
use super::*;

#[derive(Clone, Copy, Debug)]
struct Second {
    /// Requests of each lane: batch, interactive.
    admitted: [f64; 2],
    refused: [f64; 2],
}

struct World {
    capacity_rps: f64,
    batch_part: f64,
    most_interactive: f64,
    /// Whether refusals are counted.
    counts: bool,
    /// After so many seconds what happened is known.
    lag: usize,
    /// Requests that wait.
    waiting: f64,
    seconds: Vec<Second>,
    state: ShedState,
    /// What Envoys refuse.
    told: (f64, f64),
}

impl World {
    fn new(batch_part: f64, counts: bool, lag: usize) -> Self {
        Self {
            capacity_rps: 100.0,
            batch_part,
            most_interactive: 1.0,
            counts,
            lag,
            waiting: 0.0,
            seconds: Vec::new(),
            state: ShedState::default(),
            told: (0.0, 0.0),
        }
    }

    /// Requests/s over ten seconds.
    fn rate(&self, of: impl Fn(&Second) -> f64) -> f64 {
        let end = self.seconds.len().saturating_sub(self.lag);
        self.seconds[end.saturating_sub(10)..end].iter().map(of).sum::<f64>() / 10.0
    }

    /// A second in which so many requests come.
    fn second(&mut self, offered_rps: f64) {
        self.second_of([self.batch_part * offered_rps, (1.0 - self.batch_part) * offered_rps]);
    }

    /// A second in which so many requests of each lane come: batch, interactive.
    fn second_of(&mut self, lanes: [f64; 2]) {
        let refused = [lanes[0] * self.told.0, lanes[1] * self.told.1];
        let admitted = [lanes[0] - refused[0], lanes[1] - refused[1]];
        self.seconds.push(Second { admitted, refused });
        self.waiting = (self.waiting + admitted[0] + admitted[1] - self.capacity_rps).max(0.0);
        let busy = (admitted[0] + admitted[1]) / self.capacity_rps;
        let now = at(self.seconds.len() as f64);
        let input = ShedInput {
            admitted_rps: self.rate(|second| second.admitted[0] + second.admitted[1]),
            refused: self.counts.then(|| Refused {
                batch_rps: self.rate(|second| second.refused[0]),
                interactive_rps: self.rate(|second| second.refused[1]),
            }),
            batch_part: Some(self.batch_part),
            by_request: true,
            in_force: InForce { at: now, batch: self.told.0, interactive: self.told.1 },
            capacity_rps: Some(self.capacity_rps),
            in_flight: Some(self.waiting + 200.0 * busy.min(1.0)),
            waiting: self.waiting,
            most_interactive: self.most_interactive,
            ..overload()
        };
        let decision = decide_shed(&input, &self.state, &ShedLaw::default(), now);
        self.told = (decision.batch, decision.interactive);
        self.state = decision.state;
    }

    fn admitted_rps(&self) -> f64 {
        let last = self.seconds.last().unwrap();
        last.admitted[0] + last.admitted[1]
    }
}

/// The largest and the smallest of what Envoys are told in a time.
fn swing(world: &mut World, offered_rps: f64, seconds: usize) -> f64 {
    let told: Vec<f64> = (0..seconds)
        .map(|_| {
            world.second(offered_rps);
            let (batch, interactive) = world.told;
            world.batch_part * batch + (1.0 - world.batch_part) * interactive
        })
        .collect();
    told.iter().copied().fold(0.0, f64::max) - told.iter().copied().fold(1.0, f64::min)
}

proptest! {
    #[test]
    fn a_constant_overload_converges_and_one_that_ends_leaves_nothing(
        offered in 120.0..400.0f64, part in 0.0..=1.0f64, counts: bool, lag in 0usize..4,
    ) {
        let mut world = World::new(part, counts, lag);
        (0..60).for_each(|_| world.second(50.0));
        prop_assert_eq!(world.told, (0.0, 0.0));
        (0..180).for_each(|_| world.second(offered));
        let swing_now = swing(&mut world, offered, 60);
        prop_assert!(swing_now < 0.02, "{} {:?}", swing_now, world.told);
        // Where refusals are not counted, a few of the batch requests always come through.
        let least = if counts { 0.0 } else { 0.05 * part * offered };
        let aim = 85.0f64.max(least);
        prop_assert!((world.admitted_rps() - aim).abs() < 0.03 * aim, "{} {:?}", world.admitted_rps(), world.told);
        prop_assert!(world.waiting < 1.0, "{}", world.waiting);
        (0..15).for_each(|_| world.second(50.0));
        prop_assert_eq!(world.told, (0.0, 0.0));
        let after = swing(&mut world, 50.0, 60);
        prop_assert_eq!((after, world.state.is_on), (0.0, false));
    }

    #[test]
    fn batch_that_comes_by_chance_and_seldom_keeps_nobody_from_his_turn(
        chances in prop::collection::vec(0.0..1.0f64, 420), a_minute in 1.0..8.0f64, lag in 0usize..4,
    ) {
        let mut world = World::new(0.0, true, lag);
        (0..60).for_each(|_| world.second_of([0.0, 50.0]));
        let (mut recent, mut admitted, mut told) = ((0.0, 0.0), 0.0, Vec::new());
        for (second, chance) in chances.iter().enumerate() {
            let batch = f64::from(u8::from(60.0 * chance < a_minute));
            // As access logs tell it: each request counts half after 30 s.
            let kept = (-1.0f64 / 30.0).exp2();
            recent = (kept * recent.0 + batch, kept * recent.1 + batch + 150.0);
            world.batch_part = recent.0 / recent.1;
            world.second_of([batch, 150.0]);
            if second >= 180 {
                admitted += world.admitted_rps();
                told.push(world.told);
            }
        }
        prop_assert!(told.iter().all(|told| told.0 == 1.0), "{:?}", told);
        let mean = admitted / told.len() as f64;
        prop_assert!((mean - 85.0).abs() < 2.0, "{}", mean);
        prop_assert!(world.waiting < 1.0, "{}", world.waiting);
    }

    #[test]
    fn as_long_as_batch_is_enough_nothing_interactive_is_refused(
        offered in 120.0..200.0f64, part in 0.65..1.0f64, lag in 0usize..4,
    ) {
        let mut world = World::new(part, true, lag);
        (0..60).for_each(|_| world.second(50.0));
        for _ in 0..240 {
            world.second(offered);
            // While a queue is worked off, more than the excess is refused.
            prop_assert!(world.told.1 == 0.0 || world.told.0 == 1.0, "{:?}", world.told);
        }
        prop_assert_eq!(world.told.1, 0.0);
    }

    #[test]
    fn a_load_that_wavers_around_the_limit_does_not_switch_it_on_and_off(
        depth in 0.0..0.08f64, period in 20usize..120, lag in 0usize..4,
    ) {
        let mut world = World::new(0.5, true, lag);
        let (mut switches, mut was_on) = (0, false);
        for second in 0..600 {
            let phase = std::f64::consts::TAU * second as f64 / period as f64;
            world.second(93.0 * (1.0 + depth * phase.sin()));
            switches += usize::from(world.state.is_on != was_on);
            was_on = world.state.is_on;
        }
        prop_assert!(switches <= 1, "{}", switches);
    }
}
