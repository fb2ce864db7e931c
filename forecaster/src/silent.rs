//! Numbers of which NaN is an ordinary value, silence, in formats that have none: saved as nothing.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) fn serialize<S: Serializer, const N: usize>(values: &[f32; N], to: S) -> Result<S::Ok, S::Error> {
    values.iter().map(|value| value.is_finite().then_some(*value)).collect::<Vec<_>>().serialize(to)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(from: D) -> Result<[f32; N], D::Error> {
    let values: Vec<Option<f32>> = Vec::deserialize(from)?;
    let count = values.len();
    let values: Vec<f32> = values.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect();
    values.try_into().map_err(|_| D::Error::invalid_length(count, &"as many values as are saved"))
}
