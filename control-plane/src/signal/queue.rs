use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::event::ReplicaPlanEvent;
use super::report::DeliveryOutcome;
use super::retry::{Schedule, Verdict};

/// What waits for one endpoint: at most one plan per pool, the newest. One is under way at a time.
///
/// Pure: every change is a function of the queue, its arguments and `now`.
#[derive(Debug)]
pub(super) struct EndpointQueue {
    waiting: BTreeMap<String, Waiting>,
    under_way: Option<Waiting>,
    limit: usize,
    disabled: bool,
}

/// An event with the attempts made so far, and when the next one is due.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waiting {
    pub(super) event: Arc<ReplicaPlanEvent>,
    pub(super) attempts: u32,
    due: DateTime<Utc>,
}

/// An event whose delivery took a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) event: Arc<ReplicaPlanEvent>,
    pub(super) attempts: u32,
    pub(super) outcome: DeliveryOutcome,
}

/// What the endpoint's worker does next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// Sends this event, then tells the queue by [`EndpointQueue::finish`].
    Send(Waiting),
    /// Waits until this time, or until something is pushed.
    Sleep(DateTime<Utc>),
    /// Waits until something is pushed.
    Idle,
}

impl EndpointQueue {
    pub(super) fn new(limit: usize) -> Self {
        Self { waiting: BTreeMap::new(), under_way: None, limit, disabled: false }
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.disabled
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.under_way.is_some())
    }

    /// Takes an event in; returns the one that lost its place, if any, which may be the new one itself.
    pub(super) fn push(
        &mut self,
        event: Arc<ReplicaPlanEvent>,
        schedule: &Schedule,
        now: DateTime<Utc>,
    ) -> Option<Step> {
        let waiting =
            Waiting { due: now + schedule.delay(event.id, 0).unwrap_or_default(), event, attempts: 0 };
        if self.disabled {
            return Some(waiting.ended(DeliveryOutcome::Disabled));
        }
        if waiting.event.expires_at <= now {
            return Some(waiting.ended(DeliveryOutcome::Expired));
        }
        let newer_or_same =
            |held: &Waiting| held.event.pool == waiting.event.pool && held.event.at >= waiting.event.at;
        let rival = self.waiting.get(&waiting.event.pool).or(self.under_way.as_ref());
        if let Some(rival) = rival.filter(|held| newer_or_same(held)) {
            let same = rival.event.id == waiting.event.id;
            return if same { None } else { Some(waiting.ended(DeliveryOutcome::Superseded)) };
        }
        if !self.waiting.contains_key(&waiting.event.pool) && self.waiting.len() >= self.limit {
            return Some(waiting.ended(DeliveryOutcome::Dropped));
        }
        let replaced = self.waiting.insert(waiting.event.pool.clone(), waiting);
        replaced.map(|old| old.ended(DeliveryOutcome::Superseded))
    }

    /// Chooses what to do at `now`; events whose time has passed are taken out and returned.
    ///
    /// Asking again while one is under way means that its attempt was given up: it is due at once.
    pub(super) fn next(&mut self, now: DateTime<Utc>) -> (Vec<Step>, Next) {
        let mut ended: Vec<Step> =
            self.under_way.take().and_then(|given_up| self.put_back(given_up)).into_iter().collect();
        let expired = self.waiting.extract_if(.., |_, held| held.event.expires_at <= now);
        ended.extend(expired.map(|(_, held)| held.ended(DeliveryOutcome::Expired)));
        let Some(first) = self.waiting.values().min_by_key(|held| held.due) else {
            return (ended, Next::Idle);
        };
        if first.due > now {
            let wake = self.waiting.values().map(|held| held.due.min(held.event.expires_at)).min();
            return (ended, wake.map_or(Next::Idle, Next::Sleep));
        }
        let pool = first.event.pool.clone();
        let Some(mut chosen) = self.waiting.remove(&pool) else { return (ended, Next::Idle) };
        chosen.attempts += 1;
        self.under_way = Some(chosen.clone());
        (ended, Next::Send(chosen))
    }

    /// Takes in how the event under way fared; returns the steps that follow from it.
    pub(super) fn finish(&mut self, verdict: Verdict, schedule: &Schedule, now: DateTime<Utc>) -> Vec<Step> {
        let Some(mut held) = self.under_way.take() else { return Vec::new() };
        let at_least = match verdict {
            Verdict::Delivered => return vec![held.ended(DeliveryOutcome::Delivered)],
            Verdict::Gone => {
                self.disabled = true;
                let others = std::mem::take(&mut self.waiting).into_values();
                return std::iter::once(held)
                    .chain(others)
                    .map(|held| held.ended(DeliveryOutcome::Disabled))
                    .collect();
            }
            Verdict::TryAgain(at_least) => at_least,
        };
        let Some(delay) = schedule.delay(held.event.id, held.attempts) else {
            return vec![held.ended(DeliveryOutcome::Failed)];
        };
        held.due = now + delay.max(at_least);
        if held.due >= held.event.expires_at {
            return vec![held.ended(DeliveryOutcome::Expired)];
        }
        let retrying = held.clone().ended(DeliveryOutcome::Retrying(held.due));
        vec![self.put_back(held).unwrap_or(retrying)]
    }

    /// Lets an event wait again, unless a newer one of its pool came meanwhile.
    fn put_back(&mut self, held: Waiting) -> Option<Step> {
        if self.waiting.contains_key(&held.event.pool) {
            return Some(held.ended(DeliveryOutcome::Superseded));
        }
        self.waiting.insert(held.event.pool.clone(), held);
        None
    }
}

impl Waiting {
    fn ended(self, outcome: DeliveryOutcome) -> Step {
        Step { event: self.event, attempts: self.attempts, outcome }
    }

    /// How long an attempt may take at `now`: not beyond the end of the plan.
    pub(super) fn patience(&self, timeout: Duration, now: DateTime<Utc>) -> Duration {
        timeout.min((self.event.expires_at - now).to_std().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
