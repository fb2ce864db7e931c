//! What backends say of themselves in their answers (ORCA), brought by Envoys with their load reports.

use crate::config::Orca;
use crate::envoy::OrcaReading;

use super::batch::PointValue;
use super::collector::{Collector, Shape};
use super::names::Known;
use super::refusal::RequestRefusal;

/// Adds the points of backends whose pools read ORCA; those of other pools are passed over, since their telemetry comes
/// by another way.
pub(super) fn take(readings: &[OrcaReading], collector: &mut Collector<'_>) -> Result<(), RequestRefusal> {
    let at_ms = collector.now_ms();
    for reading in readings {
        let Some((member, orca)) = collector.orca_of(&reading.address.to_string()) else { continue };
        for (known, delta, value) in points(reading, &orca) {
            match collector.series(known, &mut []) {
                Ok(text) => {
                    let shape = Shape { delta, ..Shape::of(known) };
                    collector.add(member, text, at_ms, shape, PointValue::Number(value))?;
                }
                Err(refusal) => collector.refuse(1, refusal, || known.series.to_owned())?,
            }
        }
    }
    Ok(())
}

fn points(reading: &OrcaReading, orca: &Orca) -> impl Iterator<Item = (Known<'static>, bool, f64)> {
    let mean = |name: &Option<String>| reading.means.get(name.as_deref()?).copied();
    let queue_depth = mean(&orca.queue_depth);
    let running = match &orca.running {
        Some(_) => mean(&orca.running),
        None => queue_depth.map(|waiting| (reading.in_progress - waiting).max(0.0)),
    };
    let gauge = |series, value: Option<f64>| value.map(|value| (series, false, value));
    [
        gauge("clairvoy:queue_depth", queue_depth),
        gauge("clairvoy:running", running),
        gauge("clairvoy:kv_used", mean(&orca.kv_used)),
        gauge("clairvoy:gpu_utilisation", mean(&orca.gpu_utilisation)),
        Some(("clairvoy:completed", true, reading.ended)),
    ]
    .into_iter()
    .flatten()
    .map(|(series, counts, value)| (Known { series, counts, factor: 1.0 }, counts, value))
}
