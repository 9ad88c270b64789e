//! `vocabularies/<type>/<id>.json`: the words that metadata may use, each as the server gives it.

use std::sync::Arc;

use super::pages::Source;
use super::{Spot, is_nothing};
use crate::error::{Kind, Result};
use crate::tree::node::{Access, Attributes, Node};
use crate::tree::view::{Line, Listing};
use crate::tree::{Tree, names};

/// What the name of a word ends with.
const END: &str = ".json";

impl Tree {
    pub(super) fn vocabulary_named(&self, name: &str) -> Result<Option<Spot>> {
        let Some(kind) = names::id_of_name(name, "") else {
            return Ok(None);
        };
        let catalog = &self.floors.catalog;
        let types = if is_nothing(name) {
            catalog.known_vocabulary_types()
        } else {
            Some(catalog.vocabulary_types()?)
        };
        let Some(types) = types else { return Ok(None) };
        let known = types.what.iter().find(|known| ***known == *kind);
        Ok(known.map(|kind| Spot::Vocabulary(Arc::clone(kind))))
    }

    pub(super) fn term_named(&self, kind: &Arc<str>, name: &str) -> Result<Option<Spot>> {
        let Some(id) = names::id_of_name(name, END).filter(|_| !is_nothing(name)) else {
            return Ok(None);
        };
        let id: Arc<str> = id.into();
        if self.floors.catalog.known_term(kind, &id).is_none() {
            match self.floors.catalog.term(kind, &id) {
                Ok(_) => {}
                Err(error) if error.kind() == Kind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Spot::Term(Arc::clone(kind), id)))
    }

    pub(super) fn list_vocabularies(&self) -> Result<Listing> {
        let types = self.floors.catalog.vocabulary_types()?;
        let lines = types.what.iter().filter_map(|kind| {
            let name = names::name_of_id(kind, "");
            if name.is_none() {
                log::warn!("a vocabulary is not shown: its name has {} bytes", kind.len());
            }
            let name = name?;
            Some(self.line_of_folder(&name, Spot::Vocabulary(Arc::clone(kind))))
        });
        Ok(Listing::of(lines.collect()))
    }

    pub(super) fn list_terms(&self, kind: &Arc<str>) -> Result<Listing> {
        self.begin(Source::Terms(Arc::clone(kind)), self.rules.search_limit)
    }

    pub(super) fn term_attributes(&self, kind: &Arc<str>, id: &Arc<str>) -> Result<Attributes> {
        let size = self.floors.catalog.term(kind, id)?.len() as u64;
        Ok(self.attributes_of_term(kind, id, size))
    }

    /// The lines of words. An id that is too long for a name is left out.
    pub(super) fn lines_of_terms(&self, kind: &Arc<str>, ids: &[Arc<str>]) -> Vec<Line> {
        let line = |id: &Arc<str>| {
            let name = names::name_of_id(id, END);
            if name.is_none() {
                log::warn!("a word of {kind} is not shown: its id has {} bytes", id.len());
            }
            let size = self.floors.catalog.known_term(kind, id)?.len() as u64;
            Some(Line {
                name: name?,
                attributes: self.attributes_of_term(kind, id, size),
                node: Node::Around(Spot::Term(Arc::clone(kind), Arc::clone(id))),
            })
        };
        ids.iter().filter_map(line).collect()
    }

    fn attributes_of_term(&self, kind: &Arc<str>, id: &Arc<str>, size: u64) -> Attributes {
        let spot = Spot::Term(Arc::clone(kind), Arc::clone(id));
        Attributes {
            size,
            ..self.plain(&spot, Access::Open, None, self.rules.times.records)
        }
    }
}
