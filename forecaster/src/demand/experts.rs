use serde::{Deserialize, Serialize};

use super::features::back_to_known;
use super::history::History;

/// Where a median of a forecast can come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expert {
    /// The newest observed rate.
    LastValue,
    /// The rate at the same phase of the newest season.
    SeasonalNaive,
    /// Exponential smoothing with a gain of 0.1.
    SmoothedSlow,
    /// Exponential smoothing with a gain of 0.3.
    Smoothed,
    /// Exponential smoothing with a gain of 0.9: the last value, a little calmed. Speaks within the first season.
    Calmed,
    /// The newest rate, and how rates have moved on after moves like those of the newest steps. Speaks within the first
    /// season.
    Autoregression,
    /// Holt's linear trend, damped.
    DampedTrend,
    /// Mean of five steps around the same phase of the newest season.
    SeasonalSmooth,
    /// Median of the same phase in the newest three seasons.
    SeasonalMedian,
    /// Median of the same phase in the newest seven seasons, or as many as there are.
    SevenSeasonsMedian,
    /// The median of three seasons, times half of how the newest quarter of a season compares with it, as a power.
    SeasonalMedianScaled,
    /// The same phase seven seasons ago.
    SevenSeasonsAgo,
    /// The seasonal naive, times how the newest three steps compare with those a season before.
    SeasonalScaledShort,
    /// The same with a twelfth of a season.
    SeasonalScaled,
    /// The rate at the same phase of the newest hour.
    HourNaive,
    /// Median of the same phase in the newest six hours.
    HoursMedian,
    /// Median of the newest half of a season, for targets that far.
    HalfSeasonMedian,
    /// Median of the newest season.
    SeasonMedian,
    /// Median of the newest three seasons.
    ThreeSeasonsMedian,
    /// Mean of the newest season.
    SeasonMean,
    /// The series' own regression on a logarithmic scale.
    Regression,
    /// The median of all others.
    Median,
}

impl Expert {
    /// The two that every forecast has to beat.
    pub(super) const BASELINES: [Self; 2] = [Self::LastValue, Self::SeasonalNaive];

    /// How many there are.
    pub const COUNT: usize = 22;

    /// Every expert.
    pub const ALL: [Self; Self::COUNT] = [
        Self::LastValue,
        Self::SeasonalNaive,
        Self::SmoothedSlow,
        Self::Smoothed,
        Self::Calmed,
        Self::Autoregression,
        Self::DampedTrend,
        Self::SeasonalSmooth,
        Self::SeasonalMedian,
        Self::SevenSeasonsMedian,
        Self::SeasonalMedianScaled,
        Self::SevenSeasonsAgo,
        Self::SeasonalScaledShort,
        Self::SeasonalScaled,
        Self::HourNaive,
        Self::HoursMedian,
        Self::HalfSeasonMedian,
        Self::SeasonMedian,
        Self::ThreeSeasonsMedian,
        Self::SeasonMean,
        Self::Regression,
        Self::Median,
    ];

    /// Returns the name used in saved states, such as `seasonal_naive`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LastValue => "last_value",
            Self::SeasonalNaive => "seasonal_naive",
            Self::SmoothedSlow => "smoothed_slow",
            Self::Smoothed => "smoothed",
            Self::Calmed => "calmed",
            Self::Autoregression => "autoregression",
            Self::DampedTrend => "damped_trend",
            Self::SeasonalSmooth => "seasonal_smooth",
            Self::SeasonalMedian => "seasonal_median",
            Self::SevenSeasonsMedian => "seven_seasons_median",
            Self::SeasonalMedianScaled => "seasonal_median_scaled",
            Self::SevenSeasonsAgo => "seven_seasons_ago",
            Self::SeasonalScaledShort => "seasonal_scaled_short",
            Self::SeasonalScaled => "seasonal_scaled",
            Self::HourNaive => "hour_naive",
            Self::HoursMedian => "hours_median",
            Self::HalfSeasonMedian => "half_season_median",
            Self::SeasonMedian => "season_median",
            Self::ThreeSeasonsMedian => "three_seasons_median",
            Self::SeasonMean => "season_mean",
            Self::Regression => "regression",
            Self::Median => "median",
        }
    }
}

/// What every expert says, in the order of [`Expert::ALL`]; NaN from one that has nothing to say.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Points(#[serde(with = "crate::silent")] [f32; Expert::COUNT]);

impl PartialEq for Points {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Points {
    fn silent() -> Self {
        Self([f32::NAN; Expert::COUNT])
    }

    pub(super) fn get(&self, expert: Expert) -> Option<f64> {
        let point = self.0[expert as usize];
        point.is_finite().then(|| f64::from(point))
    }

    pub(super) fn set(&mut self, expert: Expert, point: Option<f64>) {
        self.0[expert as usize] = point.filter(|point| *point >= 0.0).map_or(f32::NAN, |point| point as f32);
    }

    /// The points by place; NaN for silence.
    pub(super) fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Standard deviation of what is said.
    pub(super) fn disagreement(&self) -> f64 {
        let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for (_, point) in self.iter() {
            count += 1.0;
            sum += point;
            squares += point * point;
        }
        let mean = sum / f64::max(count, 1.0);
        (squares / f64::max(count, 1.0) - mean * mean).max(0.0).sqrt()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Expert, f64)> + '_ {
        Expert::ALL.into_iter().filter_map(|expert| Some((expert, self.get(expert)?)))
    }

    /// Lets the median speak.
    pub(super) fn close(&mut self) {
        let mut all: Vec<f32> = self.0.iter().copied().filter(|point| point.is_finite()).collect();
        self.set(Expert::Median, median(&mut all));
    }
}

/// Gains of the exponential smoothing.
const GAINS: [f64; 3] = [0.1, 0.3, 0.9];

/// Gains of level and trend, and what is left of the trend after a step.
const HOLT: (f64, f64, f64) = (0.7, 0.2, 0.85);

/// Ratios of today to yesterday are held between a quarter and four.
const RATIO_MAX: f64 = 4.0;

/// Exponential filters of a series, of filled values too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Filters {
    smoothed: Option<[f64; 3]>,
    level: f64,
    trend: f64,
}

impl Filters {
    pub(super) fn push(&mut self, value: f64) {
        let Some(smoothed) = &mut self.smoothed else {
            *self = Self { smoothed: Some([value; 3]), level: value, trend: 0.0 };
            return;
        };
        for (smoothed, gain) in smoothed.iter_mut().zip(GAINS) {
            *smoothed += gain * (value - *smoothed);
        }
        let (gain, trend_gain, damping) = HOLT;
        let level = gain * value + (1.0 - gain) * (self.level + damping * self.trend);
        self.trend = trend_gain * (level - self.level) + (1.0 - trend_gain) * damping * self.trend;
        self.level = level;
    }

    fn damped_trend(&self, steps: i64) -> f64 {
        let (_, _, damping) = HOLT;
        let sum = damping * (1.0 - damping.powf(steps as f64)) / (1.0 - damping);
        (self.level + self.trend * sum).max(0.0)
    }
}

/// What the experts of all horizons share at one origin.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    points: Points,
    filters: Filters,
    /// Means of the newest steps and of those a season before, for the windows of the scaled experts.
    ratios: [Option<f64>; 2],
    /// How the newest quarter of a season compares with the median of the three before.
    median_ratio: Option<f64>,
    /// What losses are multiplied by, so that a busy time does not drown a quiet one.
    pub(super) unit: f64,
    /// The highest rate that is remembered.
    pub(super) highest: f64,
    half_season_median: Option<f64>,
}

impl Origin {
    pub(super) fn new(history: &History, filters: &Filters) -> Self {
        let (newest, season) = (history.newest_step(), history.season());
        let mut points = Points::silent();
        points.set(Expert::LastValue, history.last_known());
        for (i, expert) in [Expert::SmoothedSlow, Expert::Smoothed, Expert::Calmed].into_iter().enumerate() {
            points.set(expert, filters.smoothed.map(|smoothed| smoothed[i]));
        }
        if history.len() >= season {
            points.set(Expert::SeasonMean, history.mean(newest, season));
            points.set(Expert::SeasonMedian, median(&mut history.window(newest, season).collect::<Vec<_>>()));
        }
        if history.len() >= 3 * season {
            let mut window: Vec<_> = history.window(newest, 3 * season).collect();
            points.set(Expert::ThreeSeasonsMedian, median(&mut window));
        }
        let ratios = [3, season.div_ceil(12)].map(|steps| {
            history.value(newest - season as i64 - steps as i64 + 1)?;
            let before = history.mean(newest - season as i64, steps)?;
            Some(level_ratio(history.mean(newest, steps)?, before))
        });
        let median_ratio = median_ratio(history);
        let mut half: Vec<_> = history.window(newest, season.div_ceil(2)).collect();
        Self {
            points,
            filters: filters.clone(),
            ratios,
            median_ratio,
            unit: unit(history),
            highest: history.window(newest, history.len()).fold(0.0, f32::max).into(),
            half_season_median: median(&mut half),
        }
    }

    /// What the experts without a regression say about the step `horizon` after the newest.
    pub(super) fn points(&self, history: &History, horizon: i64, hour: Option<i64>) -> Points {
        let mut points = self.points;
        let season = history.season() as i64;
        let target = history.newest_step() + horizon;
        if self.filters.smoothed.is_some() && horizon < season {
            points.set(Expert::DampedTrend, Some(self.filters.damped_trend(horizon)));
        }
        if history.len() >= history.season() {
            points.set(Expert::Calmed, None);
        }
        if let Some(hour) = hour {
            let newest = target - hour * back_to_known(horizon, hour);
            if horizon % hour != 0 {
                points.set(Expert::HourNaive, history.value(newest));
            }
            let hours = (0..6).filter_map(|hours| history.value(newest - hours * hour));
            points.set(Expert::HoursMedian, median(&mut hours.map(|value| value as f32).collect::<Vec<_>>()));
        }
        let newest = target - season * back_to_known(horizon, season);
        let Some(naive) = history.value(newest) else { return points };
        // Where it is the last value itself, it would have two votes.
        points.set(Expert::SeasonalNaive, Some(naive).filter(|_| newest < history.newest_step()));
        let near = (-2..=2).map(|offset| history.value((newest + offset).min(history.newest_step())));
        points.set(Expert::SeasonalSmooth, near.sum::<Option<f64>>().map(|sum| sum / 5.0));
        let three = seasons_median(history, newest);
        points.set(Expert::SeasonalMedian, three);
        let scaled = three.zip(self.median_ratio).map(|(median, ratio)| median * ratio.sqrt());
        points.set(Expert::SeasonalMedianScaled, scaled);
        let seven = (0..7).filter_map(|seasons| history.value(newest - seasons * season));
        points.set(
            Expert::SevenSeasonsMedian,
            median(&mut seven.map(|value| value as f32).collect::<Vec<_>>()),
        );
        if horizon >= season {
            points.set(Expert::HalfSeasonMedian, self.half_season_median);
        } else {
            points.set(Expert::SevenSeasonsAgo, history.value(newest - 6 * season));
            let scaled = [Expert::SeasonalScaledShort, Expert::SeasonalScaled];
            for (expert, ratio) in scaled.into_iter().zip(self.ratios) {
                points.set(expert, ratio.map(|ratio| naive * ratio));
            }
        }
        points
    }
}

/// The median of a step and of those one and two seasons before.
fn seasons_median(history: &History, newest: i64) -> Option<f64> {
    let season = history.season() as i64;
    let (first, second) = (history.value(newest)?, history.value(newest - season)?);
    let third = history.value(newest - 2 * season)?;
    Some(first.min(second).max(first.max(second).min(third)))
}

/// How the newest quarter of a season compares with the median of the three seasons before it.
fn median_ratio(history: &History) -> Option<f64> {
    let (newest, season) = (history.newest_step(), history.season() as i64);
    let steps = (season + 3) / 4;
    let medians = (0..steps).map(|back| seasons_median(history, newest - season - back));
    let before = medians.sum::<Option<f64>>()? / steps as f64;
    Some(level_ratio(history.mean(newest, steps as usize)?, before))
}

/// One over the root of the level: losses grow with demand, but not in proportion.
fn unit(history: &History) -> f64 {
    let mean = |steps: usize| history.mean(history.newest_step(), steps).unwrap_or(0.0);
    let level = mean(history.season().div_ceil(4)).max(0.05 * mean(history.len()));
    if level > 0.0 { 1.0 / level.sqrt() } else { 1.0 }
}

fn level_ratio(now: f64, before: f64) -> f64 {
    if now <= 0.0 && before <= 0.0 {
        return 1.0;
    }
    // A season that was silent tells nothing but that there is more now.
    if before <= 0.0 { RATIO_MAX } else { (now / before).clamp(1.0 / RATIO_MAX, RATIO_MAX) }
}

/// The middle value, or the mean of the two in the middle.
fn median(values: &mut [f32]) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let even = values.len().is_multiple_of(2);
    let (below, upper, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    let upper = f64::from(*upper);
    let lower = below.iter().copied().max_by(f32::total_cmp).map(f64::from).filter(|_| even);
    Some(lower.map_or(upper, |lower| 0.5 * (lower + upper)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expert_has_its_place_and_name() {
        for (place, expert) in Expert::ALL.into_iter().enumerate() {
            assert_eq!(expert as usize, place);
            assert_eq!(serde_json::to_string(&expert).unwrap(), format!("\"{}\"", expert.name()));
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_survive_silence() {
        assert_eq!(level_ratio(0.0, 0.0), 1.0);
        assert_eq!(level_ratio(5.0, 0.0), 4.0);
        assert_eq!(level_ratio(0.0, 5.0), 0.25);
        assert_eq!(level_ratio(6.0, 3.0), 2.0);
    }
}
