use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use clairvoy_forecaster::FleetFits;

use crate::config::Forecast;
use crate::packed::packed;

use super::{Learner, backends, demand, wait};

/// What decisions depend on: demand, waits, and what tells the sick from the well. Capacities within the objective and the
/// paces of peers are only shown, and start over.
#[derive(Serialize, Deserialize)]
struct State<'a> {
    fleet: Cow<'a, Option<FleetFits>>,
    fleet_fitted_at: Option<DateTime<Utc>>,
    demand: Vec<(Cow<'a, str>, Cow<'a, demand::Lessons>)>,
    waits: Vec<(SocketAddr, Cow<'a, wait::Lessons>)>,
    #[serde(default)]
    watched: Vec<(SocketAddr, backends::Watched)>,
}

impl Learner {
    pub(super) fn checkpoint(&self) -> Option<Vec<u8>> {
        let demand =
            self.demand.iter().map(|(model, lessons)| (Cow::Borrowed(&**model), Cow::Borrowed(lessons)));
        let state = State {
            fleet: Cow::Borrowed(&self.fleet),
            fleet_fitted_at: self.fleet_fitted_at,
            demand: demand.collect(),
            waits: self
                .backends
                .waits()
                .map(|(address, lessons)| (address, Cow::Borrowed(lessons)))
                .collect(),
            watched: self.backends.watched().collect(),
        };
        packed(&state)
    }

    /// Goes on from a checkpoint, unpacked; the demand models are left out where they were made for another grid.
    ///
    /// # Errors
    /// What is no checkpoint of this version.
    pub fn resume(forecast: &Forecast, state: serde_json::Value) -> Result<Self, serde_json::Error> {
        let state: State<'static> = serde_json::from_value(state)?;
        let mut learner = Self::new(forecast);
        let usable = state.demand.into_iter().filter(|(_, lessons)| lessons.is_for(&learner.settings));
        let demand: BTreeMap<_, _> =
            usable.map(|(model, lessons)| (model.into_owned(), lessons.into_owned())).collect();
        learner.demand = demand;
        learner.fleet_fitted_at = state.fleet_fitted_at;
        if let Some(fleet) = state.fleet.into_owned() {
            learner.demand.values_mut().for_each(|lessons| lessons.resume(&fleet));
            learner.fleet = Some(fleet);
        }
        let waits = state.waits.into_iter().map(|(address, lessons)| (address, lessons.into_owned()));
        learner.backends = backends::Backends::resume(waits, state.watched);
        Ok(learner)
    }
}
