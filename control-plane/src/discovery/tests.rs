mod merging;
mod properties;
mod rules;

use std::net::SocketAddr;

use chrono::{DateTime, TimeDelta, Utc};

use super::Answer;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(1_000_000 + seconds)
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8000))
}

fn listed(numbers: impl IntoIterator<Item = u8>) -> Answer {
    Answer::Backends(numbers.into_iter().map(address).collect())
}
