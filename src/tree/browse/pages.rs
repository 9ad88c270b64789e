//! Listings that the repository tells by the page: each page is asked for when somebody reads that far.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Link, Spot};
use crate::catalog::{Question, Scope};
use crate::error::Result;
use crate::repository::Search;
use crate::repository::model::RecordId;
use crate::tree::Tree;
use crate::tree::node::Node;
use crate::tree::view::{Line, Lines, Listing};

/// What is told by the page.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Links to records, from so many folders below the top. The search says which page is the first.
    Hits { scope: Scope, search: Search, up: u8 },
    /// Communities: all, or links to the user's own.
    Communities { own: bool },
    /// Words of a vocabulary.
    Terms(Arc<str>),
}

/// A listing that grows while it is read. It is of one handle; its lock is a leaf.
pub struct Growing {
    source: Source,
    limit: usize,
    state: Mutex<State>,
}

struct State {
    pages: Vec<Arc<Vec<Line>>>,
    names: HashSet<String>,
    /// Which page comes next, counted from 0.
    next: Option<u32>,
}

/// A page, and whether another follows.
type Page = (Vec<Line>, bool);

impl Growing {
    pub(super) fn new(source: Source, limit: usize) -> Self {
        let state = State {
            pages: Vec::new(),
            names: HashSet::new(),
            next: Some(0),
        };
        Growing {
            source,
            limit,
            state: Mutex::new(state),
        }
    }

    /// How many lines are held.
    pub fn count(&self) -> usize {
        self.state.lock().names.len()
    }

    /// The page that holds a line, or which page is to be asked for.
    fn look(&self, start: usize) -> Place {
        let state = self.state.lock();
        let mut before = 0;
        for page in &state.pages {
            if start < before + page.len() {
                return Place::Here(Arc::clone(page), start - before);
            }
            before += page.len();
        }
        state.next.map_or(Place::End, Place::Ask)
    }

    /// Adds a page. What moved there from an earlier one while it was read is not told twice.
    fn add(&self, number: u32, (mut lines, has_next): Page) {
        let mut state = self.state.lock();
        if state.next != Some(number) {
            return;
        }
        lines.retain(|line| state.names.len() < self.limit && state.names.insert(line.name.clone()));
        state.next = (has_next && state.names.len() < self.limit).then_some(number + 1);
        if !lines.is_empty() {
            state.pages.push(Arc::new(lines));
        }
    }
}

enum Place {
    Here(Arc<Vec<Line>>, usize),
    Ask(u32),
    End,
}

impl Tree {
    /// Begins a listing with its first page, so that whoever opens the folder hears what is wrong.
    pub(super) fn begin(&self, source: Source, limit: usize) -> Result<Listing> {
        let growing = Growing::new(source, limit);
        self.grown(&growing, 0)?;
        Ok(Listing::growing(growing))
    }

    /// The lines from the `start`th on.
    pub(in crate::tree) fn grown(&self, growing: &Growing, start: usize) -> Result<Lines<'static>> {
        loop {
            match growing.look(start) {
                Place::Here(lines, from) => return Ok(Lines::Page(lines, from)),
                Place::End => return Ok(Lines::Here(&[])),
                Place::Ask(number) => growing.add(number, self.page(&growing.source, number)?),
            }
        }
    }

    /// The records that the links in a folder lead to.
    pub(in crate::tree) fn records_in(&self, folder: &Spot) -> Result<Vec<RecordId>> {
        let listing = self.list_around(folder)?;
        let (mut ids, mut start) = (Vec::new(), 0);
        loop {
            let lines = self.lines_from(&listing, start)?;
            if lines.is_empty() {
                return Ok(ids);
            }
            start += lines.len();
            ids.extend(lines.iter().filter_map(|line| match &line.node {
                Node::Around(Spot::Link(link)) => link.record().cloned(),
                _ => None,
            }));
        }
    }

    /// The line of a name, in what is known or else in what the repository says.
    pub(super) fn find(&self, source: &Source, limit: usize, name: &str) -> Result<Option<Spot>> {
        let found = |(lines, _): &Page| {
            let line = lines.iter().find(|line| line.name == name)?;
            match &line.node {
                Node::Around(spot) => Some(spot.clone()),
                _ => None,
            }
        };
        // A page that was told a while ago is good enough to say that a link is there.
        let mut number = 0;
        while let Some(page) = self.known_page(source, number) {
            if let Some(spot) = found(&page) {
                return Ok(Some(spot));
            }
            if !page.1 {
                break;
            }
            number += 1;
        }
        let (mut number, mut count) = (0, 0);
        while count < limit {
            let page = self.page(source, number)?;
            if let Some(spot) = found(&page) {
                return Ok(Some(spot));
            }
            if !page.1 {
                break;
            }
            number += 1;
            count += page.0.len().max(1);
        }
        Ok(None)
    }

    fn page(&self, source: &Source, number: u32) -> Result<Page> {
        let catalog = &self.floors.catalog;
        Ok(match source {
            Source::Hits { scope, search, up } => {
                let told = catalog.hits(&self.question(scope, search, number))?;
                (self.lines_of_hits(&told.what.items, *up), told.what.has_next)
            }
            Source::Communities { own } => {
                let told = catalog.communities(*own, number + 1)?;
                (
                    self.lines_of_communities(&told.what.items, *own),
                    told.what.has_next,
                )
            }
            Source::Terms(kind) => {
                let told = catalog.terms(kind, number + 1)?;
                (self.lines_of_terms(kind, &told.what.items), told.what.has_next)
            }
        })
    }

    fn known_page(&self, source: &Source, number: u32) -> Option<Page> {
        let Source::Hits { scope, search, up } = source else {
            return None;
        };
        let told = self
            .floors
            .catalog
            .known_hits(&self.question(scope, search, number))?;
        Some((self.lines_of_hits(&told.what.items, *up), told.what.has_next))
    }

    fn lines_of_hits(&self, ids: &[RecordId], up: u8) -> Vec<Line> {
        let line = |id: &RecordId| self.line_of_link(id.as_str(), Link::to_record(up.into(), id.clone()));
        ids.iter().map(line).collect()
    }

    fn question(&self, scope: &Scope, search: &Search, number: u32) -> Question {
        Question {
            scope: scope.clone(),
            search: Search {
                page: search.page.saturating_add(number),
                // As long as it will be asked for, so that one page has one name.
                size: search.size.min(self.floors.repository.largest_page()),
                ..search.clone()
            },
        }
    }

    /// A line of a link.
    pub(super) fn line_of_link(&self, name: &str, spot: Spot) -> Line {
        let attributes = match &spot {
            Spot::Link(link) => self.link_attributes(link),
            other => self.standing(other),
        };
        Line {
            name: name.to_owned(),
            attributes,
            node: Node::Around(spot),
        }
    }
}
