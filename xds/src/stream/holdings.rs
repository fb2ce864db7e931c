//! What a client is believed to hold of one type: a table that it was brought to, and exceptions.
//!
//! Streams that are up to date share their table and have no exceptions, so they cost nothing per resource.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::wants::Wants;
use crate::snapshot::{Resource, Table};
use crate::version::Version;

/// A version that a client has.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) version: Version,
    /// `None` for what the client brought from an earlier stream.
    pub(crate) resource: Option<Arc<Resource>>,
}

impl Mark {
    pub(super) fn of(resource: &Arc<Resource>) -> Self {
        Self { version: resource.version, resource: Some(resource.clone()) }
    }

    /// A version that is equal to none.
    pub(super) fn unknown() -> Self {
        Self { version: Version::default(), resource: None }
    }
}

/// What a client is believed to have under a name.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// It was told nothing.
    Nothing,
    /// It was sent this, or brought it from an earlier stream.
    Has(Mark),
    /// It refused a response with this version, and may hold what it had before. The response had this many
    /// resources: with 1, this is the one that was refused.
    Refused { version: Version, had: Option<Mark>, company: usize },
    /// It knows that there is no such resource.
    Absent,
}

impl Held {
    /// What the client may be using.
    pub(crate) fn mark(&self) -> Option<&Mark> {
        match self {
            Self::Has(mark) => Some(mark),
            Self::Refused { had, .. } => had.as_ref(),
            Self::Nothing | Self::Absent => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Exception {
    pub(super) held: Held,
    /// To be answered even though nothing changed.
    pub(super) owed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Holdings {
    /// Under every name that it wants, the client has what this table has, unless there is an exception.
    base: Option<Arc<Table>>,
    exceptions: BTreeMap<Arc<str>, Exception>,
}

impl Holdings {
    pub(super) fn base(&self) -> Option<&Arc<Table>> {
        self.base.as_ref()
    }

    pub(super) fn has_exceptions(&self) -> bool {
        !self.exceptions.is_empty()
    }

    pub(super) fn exceptions(&self) -> impl Iterator<Item = (&Arc<str>, &Exception)> {
        self.exceptions.iter()
    }

    /// The number of names that only this stream remembers.
    pub(super) fn own_names(&self) -> usize {
        self.exceptions.len()
    }

    /// True when the client has all of the table, and nothing else is to be said.
    pub(super) fn is_exactly(&self, newest: &Arc<Table>) -> bool {
        self.exceptions.is_empty() && self.is_at(newest)
    }

    /// True when the base is this table.
    pub(super) fn is_at(&self, newest: &Arc<Table>) -> bool {
        let same =
            |base: &Arc<Table>| Arc::ptr_eq(base, newest) || base.fingerprint() == newest.fingerprint();
        self.base.as_ref().is_some_and(same)
    }

    /// What the client refuses of the table with a fingerprint, once there is nothing of it that it is still to be sent or to
    /// answer.
    pub(super) fn refused_of(&self, fingerprint: Version) -> Option<Vec<Arc<str>>> {
        let table = self.base.as_ref().filter(|base| base.fingerprint() == fingerprint)?;
        let mut refused = Vec::new();
        for (name, exception) in &self.exceptions {
            let Some(resource) = table.get(name) else { continue };
            match &exception.held {
                Held::Has(mark) if mark.version == resource.version => {}
                Held::Refused { version, company: 1, .. } if *version == resource.version => {
                    refused.push(name.clone());
                }
                _ => return None,
            }
        }
        Some(refused)
    }

    pub(crate) fn held(&self, wants: &Wants, name: &str) -> Held {
        match self.exceptions.get(name) {
            Some(exception) => exception.held.clone(),
            None => self.in_base(wants, name),
        }
    }

    pub(super) fn is_owed(&self, name: &str) -> bool {
        self.exceptions.get(name).is_some_and(|exception| exception.owed)
    }

    fn in_base(&self, wants: &Wants, name: &str) -> Held {
        match &self.base {
            Some(base) if wants.covers(name) => match base.get(name) {
                Some(resource) => Held::Has(Mark::of(resource)),
                // Names that do not exist are answered before a table becomes the base.
                None if wants.names.contains(name) => Held::Absent,
                None => Held::Nothing,
            },
            _ => Held::Nothing,
        }
    }

    /// Everything that the client has or was told, by name.
    pub(crate) fn all(&self, wants: &Wants) -> BTreeMap<Arc<str>, Held> {
        let mut all = BTreeMap::new();
        if let Some(base) = &self.base {
            if wants.wildcard {
                all.extend(
                    base.iter().map(|resource| (resource.name.clone(), Held::Has(Mark::of(resource)))),
                );
            }
            all.extend(wants.names.iter().map(|name| (name.clone(), self.in_base(wants, name))));
        }
        all.extend(self.exceptions.iter().map(|(name, exception)| (name.clone(), exception.held.clone())));
        all
    }

    pub(super) fn set(&mut self, name: Arc<str>, held: Held) {
        self.exceptions.insert(name, Exception { held, owed: false });
    }

    /// Notes that the client, which wants the name from now on, was told nothing of it. Without a table that goes
    /// without saying, and the stream stays like all others that begin.
    pub(super) fn lack(&mut self, name: Arc<str>) {
        if self.base.is_some() {
            self.set(name, Held::Nothing);
        } else {
            self.exceptions.remove(&name);
        }
    }

    /// Has the name answered even though nothing changed.
    pub(super) fn owe(&mut self, wants: &Wants, name: Arc<str>) {
        let held = self.held(wants, &name);
        self.exceptions.insert(name, Exception { held, owed: true });
    }

    pub(super) fn forget_unless(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.exceptions.retain(|name, _| keep(name));
    }

    /// Says of each name what the client has, without a table, so that the client can come to want more.
    pub(super) fn spell_out(&mut self, wants: &Wants) {
        for (name, held) in self.all(wants) {
            self.exceptions.entry(name).or_insert(Exception { held, owed: false });
        }
        self.base = None;
    }

    /// After everything that a table has beyond the base has been sent, and nothing was an exception.
    pub(super) fn jump(&mut self, newest: Arc<Table>) {
        self.base = Some(newest);
    }

    /// Makes a table the base. What the client does not have of it becomes an exception, but for what is `sent`
    /// now or `removed`.
    pub(super) fn advance<'a>(
        &mut self,
        wants: &Wants,
        newest: &Arc<Table>,
        sent: impl Iterator<Item = &'a Arc<str>>,
        removed: impl Iterator<Item = &'a Arc<str>>,
    ) {
        if !self.is_at(newest) {
            let mut differing: Vec<Arc<str>> = Vec::new();
            match &self.base {
                Some(base) => {
                    let diff = newest.diff(base);
                    let names = diff.changed.iter().chain(&diff.removed).map(|resource| &resource.name);
                    differing.extend(names.filter(|name| wants.covers(name)).cloned());
                }
                None => {
                    differing.extend(wants.names.iter().cloned());
                    if wants.wildcard {
                        differing.extend(newest.iter().map(|resource| resource.name.clone()));
                    }
                }
            }
            for name in differing {
                if !self.exceptions.contains_key(&name) {
                    let held = self.in_base(wants, &name);
                    self.exceptions.insert(name, Exception { held, owed: false });
                }
            }
            self.base = Some(newest.clone());
        }
        for name in sent.chain(removed) {
            self.exceptions.remove(name);
        }
        let Self { base: Some(base), exceptions } = self else { return };
        exceptions.retain(|name, exception| {
            let is_as_base_says = match (&exception.held, base.get(name)) {
                (Held::Has(mark), Some(resource)) => mark.version == resource.version,
                (Held::Absent, None) => wants.names.contains(name),
                (Held::Nothing, None) => !wants.names.contains(name),
                _ => false,
            };
            exception.owed || !is_as_base_says
        });
    }
}
