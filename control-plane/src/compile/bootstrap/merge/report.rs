use super::{Map, Tree};

/// What is found while merging.
#[derive(Debug)]
pub(super) struct Report {
    force: bool,
    changes: Vec<String>,
    warnings: Vec<String>,
    faults: Vec<String>,
}

impl Report {
    pub(super) fn new(force: bool) -> Self {
        Self { force, changes: Vec::new(), warnings: Vec::new(), faults: Vec::new() }
    }

    pub(super) fn change(&mut self, text: impl Into<String>) {
        self.changes.push(text.into());
    }

    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    pub(super) fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    /// Whether something that the user has may be replaced; if not, that is a fault. `clash` says what stands against what.
    pub(super) fn may_replace(&mut self, clash: &str, other_way: &str) -> bool {
        if !self.force {
            self.fault(format!("{clash}: {other_way}, or replace it with --force"));
        }
        self.force
    }

    /// Changes and warnings, or the faults.
    pub(super) fn finish(self) -> Result<(Vec<String>, Vec<String>), Vec<String>> {
        if self.faults.is_empty() { Ok((self.changes, self.warnings)) } else { Err(self.faults) }
    }

    /// The map of a field; made when absent, a fault when it is something else.
    pub(super) fn child<'a>(&mut self, parent: &'a mut Map, path: &str, field: &str) -> Option<&'a mut Map> {
        if parent.get(field).is_none() {
            parent.set(field, Tree::Map(Map::default()));
        }
        match parent.get_mut(field) {
            Some(Tree::Map(map)) => Some(map),
            found => {
                let kind = found.map_or("nothing", |tree| tree.kind());
                self.fault(format!("{} is {kind}, and has to be a map", join(path, field)));
                None
            }
        }
    }

    /// The list of a field; made when absent, a fault when it is something else.
    pub(super) fn list<'a>(
        &mut self,
        parent: &'a mut Map,
        path: &str,
        field: &str,
    ) -> Option<&'a mut Vec<Tree>> {
        if parent.get(field).is_none() {
            parent.set(field, Tree::List(Vec::new()));
        }
        match parent.get_mut(field) {
            Some(Tree::List(list)) => Some(list),
            found => {
                let kind = found.map_or("nothing", |tree| tree.kind());
                self.fault(format!("{} is {kind}, and has to be a list", join(path, field)));
                None
            }
        }
    }

    /// Sets a text that an option asks for, unless the user has another one.
    pub(super) fn settle(&mut self, map: &mut Map, path: &str, field: &str, wanted: &str, option: &str) {
        let place = join(path, field);
        match map.get(field) {
            Some(Tree::Text(found)) if found == wanted => {}
            None => {
                map.set(field, wanted.into());
                self.change(format!("{place}: set to {wanted:?}"));
            }
            Some(Tree::Text(found)) if found.is_empty() => {
                map.set(field, wanted.into());
                self.change(format!("{place}: set to {wanted:?}"));
            }
            Some(found) => {
                let found = show(found);
                let clash = format!("{place} is {found}, and {option} says {wanted:?}");
                if self.may_replace(&clash, &format!("leave {option} out")) {
                    map.set(field, wanted.into());
                    self.change(format!("{place}: set to {wanted:?}, was {found}"));
                }
            }
        }
    }
}

pub(super) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// A value in a message: scalars as they are, the others by their kind.
pub(super) fn show(tree: &Tree) -> String {
    match tree {
        Tree::Text(text) => format!("{text:?}"),
        Tree::Number(number) => number.to_string(),
        Tree::Bool(value) => value.to_string(),
        other => other.kind().to_owned(),
    }
}
