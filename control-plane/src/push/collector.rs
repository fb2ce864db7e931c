use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::FixedState;
use tokio::sync::OwnedSemaphorePermit;

use crate::config::{Orca, Push};

use super::access::Access;
use super::batch::{Batch, Growth, MOST_BYTES, PointValue, Unknown};
use super::body::BodyLimits;
use super::directory::Directory;
use super::names::{Known, Names};
use super::refusal::{PointRefusal, RequestRefusal, Tally};

/// Longest text of a series: its name and its labels, in bytes.
const LONGEST_SERIES: usize = 512;
/// Most buckets of one histogram.
pub(super) const MOST_BUCKETS: usize = 64;
/// Most labels of a point, and most attributes of a resource.
pub(super) const MOST_LABELS: usize = 128;
/// Longest label value that can name a backend, in bytes.
const LONGEST_NAME: usize = 512;

/// Attributes of a resource by which OpenTelemetry tells processes apart, in the form of labels.
const PROCESSES: [&str; 9] = [
    "service_instance_id",
    "host_name",
    "host_id",
    "process_pid",
    "container_id",
    "container_name",
    "k8s_pod_uid",
    "k8s_pod_name",
    "k8s_container_name",
];
/// Most names that no engine has which are told of one request, and the longest, in bytes.
const MOST_UNKNOWN: usize = 1000;
const LONGEST_UNKNOWN: usize = 200;

/// A label or attribute.
pub(super) type Label<'a> = (Cow<'a, str>, Cow<'a, str>);

/// What all points of a metric have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape<'n> {
    pub(super) known: Known<'n>,
    /// Each point tells what was added since the one before.
    pub(super) delta: bool,
    /// Of a histogram: whether its buckets are read.
    pub(super) has_buckets: bool,
}

impl<'n> Shape<'n> {
    /// Single numbers that are told as they are.
    pub(super) fn of(known: Known<'n>) -> Self {
        Self { known, delta: false, has_buckets: false }
    }
}

/// What is the same for all requests: how names and labels are understood, and what is too old.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Labels that name the backend, or its host and its port: indices in `identity`.
    backends: Vec<(usize, Option<usize>)>,
    /// Labels that are no part of a series, in the form in which Prometheus has them.
    left_out: HashSet<String>,
    /// Those of them that name the backend.
    identity: Vec<String>,
    /// Attributes of a resource by which the processes of one backend differ.
    processes: Vec<String>,
    max_age_ms: i64,
    max_future_ms: i64,
    max_points: usize,
}

impl Rules {
    pub(super) fn new(options: &Push) -> Self {
        let mut identity: Vec<String> = Vec::new();
        let mut place = |name: &str| {
            let name = label_name(name).into_owned();
            identity.iter().position(|held| *held == name).unwrap_or_else(|| {
                identity.push(name);
                identity.len() - 1
            })
        };
        let backends = options
            .backend_labels
            .iter()
            .map(|text| match text.split_once('+') {
                Some((host, port)) => (place(host), Some(place(port))),
                None => (place(text), None),
            })
            .collect();
        let ignored = options.ignored_labels.iter().map(|name| label_name(name).into_owned());
        let ignored: HashSet<String> = ignored.collect();
        let processes =
            PROCESSES.iter().map(|name| (*name).to_owned()).filter(|name| !ignored.contains(name)).collect();
        let left_out = identity.iter().cloned().chain(ignored).collect();
        let milliseconds = |span: crate::config::Span| i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX);
        Self {
            backends,
            left_out,
            identity,
            processes,
            max_age_ms: milliseconds(options.max_age),
            max_future_ms: milliseconds(options.max_future),
            max_points: options.max_points,
        }
    }

    /// Takes out of labels what may name a backend.
    pub(super) fn identity<'l>(&self, labels: &[Label<'l>]) -> Identity<'l> {
        let mut found = Identity::default();
        for (name, value) in labels {
            if let Some(place) = self.identity.iter().position(|wanted| same_name(name, wanted)) {
                if found.values.is_empty() {
                    found.values.resize(self.identity.len(), None);
                }
                if value.len() <= LONGEST_NAME && found.values[place].is_none() {
                    found.values[place] = Some(value.clone());
                }
            }
        }
        found
    }

    /// A number for the process that a resource is of; 0 where it says no more than the backend's address.
    fn source(&self, resource: &[Label<'_>], backend: &str) -> u64 {
        let mut hasher = FixedState::default().build_hasher();
        let mut known = false;
        for (place, wanted) in self.processes.iter().enumerate() {
            if let Some((_, value)) = resource.iter().find(|(name, _)| same_name(name, wanted))
                && value != backend
            {
                (place, value).hash(&mut hasher);
                known = true;
            }
        }
        if known { hasher.finish().max(1) } else { 0 }
    }

    /// Tells which labels a refused point had, as far as they could have named a backend.
    fn shown(&self, own: &Identity<'_>, resource: &Identity<'_>) -> String {
        let named: Vec<String> = [own, resource]
            .into_iter()
            .flat_map(|identity| self.identity.iter().zip(&identity.values))
            .filter_map(|(name, value)| Some((name, value.as_ref()?)))
            .take(4)
            .map(|(name, value)| {
                let cut: String = value.chars().take(100).collect();
                format!("{name}={cut:?}")
            })
            .collect();
        if named.is_empty() { "no label that names a backend".to_owned() } else { named.join(", ") }
    }
}

/// Those of some labels that may name a backend; empty without any.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity<'l> {
    values: Vec<Option<Cow<'l, str>>>,
}

impl Identity<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn get(&self, place: usize) -> Option<&str> {
        self.values.get(place)?.as_deref()
    }
}

/// Takes the points of one request from a decoder: finds out whose they are, refuses what cannot be, and keeps the rest.
pub(super) struct Collector<'a> {
    rules: &'a Rules,
    directory: &'a Arc<Directory>,
    access: &'a Access,
    now_ms: i64,
    pub(super) batch: Batch,
    pub(super) tally: Tally,
    /// The member that was allowed last; neighbours mostly are of the same one.
    allowed: Option<u32>,
    scratch: String,
    /// The memory that all requests share; none: what is decoded is not counted.
    limits: Option<&'a BodyLimits>,
    /// The batch's part of it.
    pub(super) memory: Option<OwnedSemaphorePermit>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(
        rules: &'a Rules,
        directory: &'a Arc<Directory>,
        access: &'a Access,
        now_ms: i64,
    ) -> Self {
        let mut batch = Batch::new(Arc::clone(directory));
        batch.decoded_ms = now_ms;
        let tally = Tally::default();
        Self {
            rules,
            directory,
            access,
            now_ms,
            batch,
            tally,
            allowed: None,
            scratch: String::new(),
            limits: None,
            memory: None,
        }
    }

    /// Takes the memory for what is decoded from that which all requests share, as it grows.
    pub(super) fn within(self, limits: &'a BodyLimits) -> Self {
        Self { limits: Some(limits), ..self }
    }

    pub(super) fn names(&self) -> &'a Names {
        self.directory.series()
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Counts points with names that no engine has.
    pub(super) fn unknown(&mut self, points: usize) -> Result<(), RequestRefusal> {
        self.tally.unknown += points as u64;
        self.check_bounds()
    }

    /// Whether names that no engine has are wanted.
    pub(super) fn wants_unknown(&self) -> bool {
        self.batch.wants_unknown && self.batch.unknown.len() < MOST_UNKNOWN
    }

    /// Tells a name that no engine has, of the backend that labels and resource name.
    pub(super) fn note_unknown(
        &mut self,
        name: &str,
        kind: &'static str,
        value: f64,
        own: &Identity<'_>,
        resource: &Identity<'_>,
    ) {
        if let (Ok(member), false) = (self.find(own, resource), name.len() > LONGEST_UNKNOWN) {
            let allowed = |byte: char| byte.is_ascii_alphanumeric() || byte == '_' || byte == ':';
            let name: String = name.chars().map(|byte| if allowed(byte) { byte } else { '_' }).collect();
            self.batch.add_unknown(Unknown { member, name: name.into(), kind, value });
        }
    }

    /// Refuses points.
    pub(super) fn refuse(
        &mut self,
        points: usize,
        refusal: PointRefusal,
        detail: impl FnOnce() -> String,
    ) -> Result<(), RequestRefusal> {
        self.tally.refuse(points as u64, refusal, detail);
        self.check_bounds()
    }

    fn check_bounds(&mut self) -> Result<(), RequestRefusal> {
        let seen = self.tally.unknown + self.tally.refused() + self.batch.points.len() as u64;
        let limit = self.rules.max_points;
        if seen > limit as u64 {
            return Err(RequestRefusal::TooManyPoints { limit });
        }
        if self.batch.bytes() > MOST_BYTES {
            return Err(RequestRefusal::TooMuch { limit: MOST_BYTES });
        }
        let Some(limits) = self.limits else { return Ok(()) };
        let held = self.memory.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        match self.batch.memory().saturating_sub(held) {
            0 => Ok(()),
            more => limits.reserve(&mut self.memory, more),
        }
    }

    /// Refuses points whose labels name no backend that may be written to.
    pub(super) fn refuse_unnamed(
        &mut self,
        points: usize,
        refusal: PointRefusal,
        own: &Identity<'_>,
        resource: &Identity<'_>,
    ) -> Result<(), RequestRefusal> {
        let rules = self.rules;
        self.refuse(points, refusal, || rules.shown(own, resource))
    }

    pub(super) fn identity<'l>(&self, labels: &[Label<'l>]) -> Identity<'l> {
        self.rules.identity(labels)
    }

    /// A number for the process that a resource is of.
    pub(super) fn source(&self, resource: &[Label<'_>], member: Option<u32>) -> u64 {
        let member = member.and_then(|index| self.directory.member(index));
        self.rules.source(resource, member.map_or("", |member| &member.address))
    }

    /// Finds the backend that labels and, behind them, the resource's attributes name, and checks that the sender may write
    /// to it.
    pub(super) fn find(&mut self, own: &Identity<'_>, resource: &Identity<'_>) -> Result<u32, PointRefusal> {
        let value = |place: usize| own.get(place).or_else(|| resource.get(place));
        for (host, port) in &self.rules.backends {
            let Some(host) = value(*host) else { continue };
            let found = match port {
                None => self.directory.find(host, self.access),
                Some(port) => {
                    let Some(port) = value(*port) else { continue };
                    self.scratch.clear();
                    // Writing to a string does not fail.
                    let _ = match host.contains(':') && !host.starts_with('[') {
                        true => write!(self.scratch, "[{host}]:{port}"),
                        false => write!(self.scratch, "{host}:{port}"),
                    };
                    self.directory.find(&self.scratch, self.access)
                }
            };
            if let Some(index) = found {
                return self.allow(index);
            }
        }
        Err(PointRefusal::UnknownBackend)
    }

    /// Finds the backend of a given name.
    pub(super) fn find_named(&mut self, name: &str) -> Result<u32, PointRefusal> {
        self.directory
            .find(name, self.access)
            .map_or(Err(PointRefusal::UnknownBackend), |index| self.allow(index))
    }

    /// A backend by its address, and what is read of its answers.
    pub(super) fn orca_of(&self, address: &str) -> Option<(u32, Arc<Orca>)> {
        let index = self.directory.find(address, self.access)?;
        Some((index, Arc::clone(self.directory.member(index)?.orca.as_ref()?)))
    }

    fn allow(&mut self, index: u32) -> Result<u32, PointRefusal> {
        if self.allowed == Some(index) {
            return Ok(index);
        }
        let may = self.directory.member(index).is_some_and(|member| self.access.covers(&member.pool));
        if !may {
            return Err(PointRefusal::Forbidden);
        }
        self.allowed = Some(index);
        Ok(index)
    }

    /// Writes name and labels of a series; the labels come back sorted. Those that only name the backend are left out.
    pub(super) fn series(
        &mut self,
        known: Known<'_>,
        labels: &mut [Label<'_>],
    ) -> Result<Range<u32>, PointRefusal> {
        labels.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        let left_out = &self.rules.left_out;
        let range = self.batch.write_series(|text| {
            text.push_str(known.series);
            let mut opened = false;
            for (name, value) in labels.iter() {
                let name = label_name(name);
                if name == "__name__" || left_out.contains(name.as_ref()) {
                    continue;
                }
                text.push(if opened { ',' } else { '{' });
                opened = true;
                text.push_str(&name);
                text.push_str("=\"");
                push_escaped(text, value);
                text.push('"');
            }
            if opened {
                text.push('}');
            }
        });
        let range = range.ok_or(PointRefusal::LabelsTooLong)?;
        if range.len() > LONGEST_SERIES {
            self.batch.forget_series(&range);
            return Err(PointRefusal::LabelsTooLong);
        }
        Ok(range)
    }

    /// Adds a point if its time can be believed; 0 stands for now, but not where each point adds to the one before: one that
    /// is sent again would be another one then.
    pub(super) fn add(
        &mut self,
        member: u32,
        series: Range<u32>,
        at_ms: i64,
        shape: Shape<'_>,
        value: PointValue,
    ) -> Result<(), RequestRefusal> {
        if at_ms == 0 && shape.delta {
            return self.refuse(1, PointRefusal::NoTime, || shape.known.series.to_owned());
        }
        let at_ms = if at_ms == 0 { self.now_ms } else { at_ms };
        let ahead = at_ms.saturating_sub(self.now_ms);
        if ahead > self.rules.max_future_ms {
            return self.refuse(1, PointRefusal::Future, || format!("{ahead} ms ahead of this clock"));
        }
        if ahead < -self.rules.max_age_ms {
            return self.refuse(1, PointRefusal::TooOld, || format!("{} ms old", ahead.saturating_neg()));
        }
        let growth = match (shape.delta, shape.known.counts) {
            (true, _) => Growth::SinceBefore,
            (false, true) => Growth::SinceStart,
            (false, false) => Growth::None,
        };
        // One such value would stay in a sum for good.
        if growth != Growth::None && !value.is_countable(&self.batch, !shape.known.counts) {
            return self.refuse(1, PointRefusal::BadCount, || shape.known.series.to_owned());
        }
        self.batch.add(member, series, at_ms, growth, value);
        self.check_bounds()
    }
}

/// A label's name as a metrics page can have it; dots become underscores.
fn label_name(name: &str) -> Cow<'_, str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.bytes().all(allowed) && !name.bytes().next().is_none_or(|first| first.is_ascii_digit()) {
        return Cow::Borrowed(name);
    }
    let mut text: String =
        name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
    if !text.bytes().next().is_some_and(|first| allowed(first) && !first.is_ascii_digit()) {
        text.insert(0, '_');
    }
    Cow::Owned(text)
}

/// Whether a label has a name that is given in the form of [`label_name`].
fn same_name(label: &str, wanted: &str) -> bool {
    label.len() == wanted.len()
        && label
            .bytes()
            .zip(wanted.bytes())
            .all(|(left, right)| left == right || (right == b'_' && !left.is_ascii_alphanumeric()))
}

fn push_escaped(text: &mut String, value: &str) {
    if !value.bytes().any(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
        text.push_str(value);
        return;
    }
    for letter in value.chars() {
        match letter {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}
