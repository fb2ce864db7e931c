use super::{Anomaly, AnomalyKind, AnomalyWatch, Verdict};

/// Backends of a class with a known pace, from which one can be told from the others.
const PEERS_MIN: usize = 3;

/// Observations of pace from which it is compared.
const PACES_MIN: f64 = 10.0;

/// Robust deviations from the median of the class beyond which a backend is slow, and the least factor.
const DEVIATIONS: f64 = 5.0;
const FACTOR_MIN: f64 = 1.2;

/// A median absolute deviation is this part of a standard deviation (normal distribution).
const MAD: f64 = 0.6745;

/// The least deviation within a class, as a logarithm: equal hardware differs by some per cent.
const DEVIATION_MIN: f64 = 0.03;

/// A backend started lately for this long, in seconds.
const WARM_UP_SECONDS: f64 = 600.0;

/// The share of prefix hits is low when it is below this part of what it was, or of its peers', and by this much.
const HITS_PART: f64 = 0.5;
const HITS_LOST: f64 = 0.1;

/// Scores end here.
const SCORE_MAX: f64 = 10.0;

/// Judges the backends of one class: same model, same hardware, same settings. The verdicts are in the order of the
/// watches.
///
/// Comparison with peers needs three of them whose pace is known; the rest is found on each backend by itself.
pub fn judge(class: &[&AnomalyWatch]) -> Vec<Verdict> {
    let paces = class.iter().filter_map(|watch| known_pace(watch));
    let pace = Typical::of(paces.collect());
    let hits = Typical::of(class.iter().filter_map(|watch| watch.hits_now.mean()).collect());
    let late = Typical::of(class.iter().map(|watch| watch.drift.score()).collect());
    let common = Common { pace, hits, late: late.map_or(0.0, |late| late.median) };
    class.iter().map(|watch| verdict(watch, &common)).collect()
}

/// What the backends of a class have in common.
struct Common {
    pace: Option<Typical>,
    hits: Option<Typical>,
    /// The score by which first tokens are late everywhere, which no single backend is to blame for: a surge of load is.
    late: f64,
}

fn known_pace(watch: &AnomalyWatch) -> Option<f64> {
    watch.pace_now.mean().filter(|_| watch.pace_now.weight >= PACES_MIN)
}

/// Median and robust deviation of a class.
struct Typical {
    median: f64,
    deviation: f64,
    count: usize,
}

impl Typical {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        if values.len() < PEERS_MIN {
            return None;
        }
        let median = median(&mut values);
        let mut distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
        Some(Self { median, deviation: self::median(&mut distances) / MAD, count: values.len() })
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 }
}

fn verdict(watch: &AnomalyWatch, common: &Common) -> Verdict {
    let mut found: Vec<Anomaly> = Vec::new();
    let mut slow = getting_slower(watch, common.late);
    if let Some(cold) = slow.as_ref().and_then(|slow| cold_cache(watch, common.hits.as_ref(), slow.score)) {
        slow = Some(cold);
    }
    found.extend(slow);
    found.extend(common.pace.as_ref().and_then(|pace| slower_than_peers(watch, pace)));
    found.extend(kv_leak(watch));
    found.extend(silent(watch));
    found.iter_mut().for_each(|anomaly| anomaly.score = anomaly.score.clamp(0.0, SCORE_MAX));
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.kind.cmp(&b.kind)));
    let score = found.first().map_or(0.0, |worst| worst.score);
    found.retain(|anomaly| anomaly.score >= 1.0);
    Verdict { score, anomalies: found }
}

fn getting_slower(watch: &AnomalyWatch, everywhere: f64) -> Option<Anomaly> {
    let score = watch.drift.score() - everywhere;
    let (level, usual) = watch.drift.levels();
    let reason = format!(
        "first tokens come later than its own wait model expects: off by {:.1} usual errors, {:.1} before",
        level.max(usual),
        usual
    );
    (score > 0.0).then_some(Anomaly { kind: AnomalyKind::GettingSlower, score, reason })
}

/// Late first tokens have a cause that goes away when the cache was lost or is still empty.
fn cold_cache(watch: &AnomalyWatch, hits: Option<&Typical>, score: f64) -> Option<Anomaly> {
    let now = watch.hits_now.mean();
    let low = |than: f64| now.is_some_and(|now| now < HITS_PART * than && than - now >= HITS_LOST);
    let percent = |share: f64| (100.0 * share).round();
    let why = if let Some(before) = watch.hits_usual.mean().filter(|usual| low(*usual)) {
        format!("prefix cache hits fell to {} % from {} %", percent(now?), percent(before))
    } else if let Some(peers) = hits.filter(|hits| low(hits.median)) {
        format!("prefix cache hits are {} %, {} % at its peers", percent(now?), percent(peers.median))
    } else {
        let up = watch.up_seconds.filter(|up| *up < WARM_UP_SECONDS)?;
        format!("it started {} s ago", up.round())
    };
    let reason =
        format!("{why}: prompts are computed anew and first tokens come late until the cache is warm");
    Some(Anomaly { kind: AnomalyKind::ColdCache, score, reason })
}

fn slower_than_peers(watch: &AnomalyWatch, class: &Typical) -> Option<Anomaly> {
    let own = known_pace(watch)?;
    let off = own - class.median;
    let score = (off / class.deviation.max(DEVIATION_MIN) / DEVIATIONS).min(off / FACTOR_MIN.ln());
    let milliseconds = |log: f64| 1000.0 * log.exp();
    let reason = format!(
        "it takes {:.1} ms where its {} peers take {:.1} ms: {:.1} times as long",
        milliseconds(own),
        class.count - 1,
        milliseconds(class.median),
        off.exp()
    );
    (score > 0.0).then_some(Anomaly { kind: AnomalyKind::SlowerThanPeers, score, reason })
}

fn kv_leak(watch: &AnomalyWatch) -> Option<Anomaly> {
    let growth = watch.leak.growth()?;
    let score = growth.score();
    let percent = |share: f64| (100.0 * share).round();
    let reason = format!(
        "KV cache use grew by {} points to {} % over {} scrapes at the same number of running requests",
        percent(growth.share),
        percent(growth.kv_used),
        growth.observations
    );
    (score > 0.0).then_some(Anomaly { kind: AnomalyKind::KvLeak, score, reason })
}

fn silent(watch: &AnomalyWatch) -> Option<Anomaly> {
    let score = watch.silence.score();
    let (seconds, load) = watch.silence.seen();
    let reason = format!("nothing came out for {} s while it had {} requests", seconds.round(), load.round());
    (score > 0.0).then_some(Anomaly { kind: AnomalyKind::Silent, score, reason })
}
