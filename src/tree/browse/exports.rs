//! `records/<id>/exports/`: a record in other forms, each fetched when it is opened.
//!
//! Until then its size is not known: 0 is shown, and the kernel asks again with every look. An open one is read to its
//! end, whatever was shown.

use std::time::Duration;

use super::{Spot, is_nothing};
use crate::error::{Error, Result};
use crate::repository::ExportFormat;
use crate::repository::model::RecordId;
use crate::tree::Tree;
use crate::tree::node::{Attributes, Node};
use crate::tree::view::{Line, Listing};

impl Tree {
    pub(super) fn export_child(&self, id: &RecordId, name: &str) -> Result<Option<Spot>> {
        let Some(format) = ExportFormat::named(name).filter(|_| !is_nothing(name)) else {
            return Ok(None);
        };
        let has_it = self.floors.catalog.forms(id)?.contains(&format);
        Ok(has_it.then(|| Spot::Export(id.clone(), format.name)))
    }

    pub(super) fn list_exports(&self, id: &RecordId) -> Result<Listing> {
        let formats = self.floors.catalog.forms(id)?;
        let line = |format: ExportFormat| {
            let spot = Spot::Export(id.clone(), format.name);
            Ok(Line {
                name: format.name.to_owned(),
                attributes: self.export_attributes(id, format.name)?,
                node: Node::Around(spot),
            })
        };
        Ok(Listing::of(formats.into_iter().map(line).collect::<Result<_>>()?))
    }

    pub(super) fn export_attributes(&self, id: &RecordId, name: &'static str) -> Result<Attributes> {
        let format = ExportFormat::named(name).ok_or_else(|| Error::call(libc::ENOENT))?;
        let known = self.floors.catalog.known_form(id, format);
        let (size, valid) = known.unwrap_or((0, Duration::ZERO));
        // The record as it is known, whole or not: its forms cost nothing until one is opened.
        let entry = match self.floors.catalog.known_record(id) {
            Some(entry) => entry,
            None => self.floors.catalog.record(id)?,
        };
        let node = Node::Around(Spot::Export(id.clone(), name));
        Ok(Attributes {
            size,
            valid,
            ..self.entry_attributes(&node, &entry)
        })
    }
}
