//! Data management plans (invenio-damap, TU Wien): naming a published record in a plan.
//!
//! Called by `cli/`. The repository passes these calls on to a DAMAP server.

use reqwest::Method;
use serde_json::{Map, Value};

use super::model::{RecordId, on_one_line, text_of};
use super::transport::{Ask, JSON};
use super::urls::encode_part;
use super::{Listing, Repository, Search};
use crate::error::{Error, Kind, Result};

/// A plan of the user's.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Its id there.
    pub id: String,
    /// The title of the plan or its project.
    pub title: String,
    /// The document as the server sent it.
    pub document: Map<String, Value>,
}

impl Plan {
    fn from_value(value: Value) -> Option<Self> {
        let id = match value.get("id")? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        let title = text_of(&value, "title")
            .or_else(|| text_of(value.get("project")?, "title"))
            .unwrap_or_default();
        match value {
            Value::Object(document) => Some(Plan { id, title, document }),
            _ => None,
        }
    }
}

impl Repository {
    /// The user's plans.
    ///
    /// # Errors
    /// `NotSupported` where there are none to be had, `ServerFailed` if the DAMAP server can't be reached or does not know
    /// the user, else as any request.
    pub fn plans(&self, search: &Search) -> Result<Listing<Plan>> {
        let doing = "list data management plans";
        self.list("invenio_damap/damap/dmp", search, &[], doing, Plan::from_value)
            .map_err(|error| no_plans(error, doing))
    }

    /// Names a published record in a plan. Not repeated.
    ///
    /// # Errors
    /// `NotFound` for a record that is not published or a plan there isn't, `NotSupported` where there are no plans,
    /// `ServerFailed` as for [`Repository::plans`], else as any request.
    pub fn link_to_plan(&self, plan: &str, id: &RecordId) -> Result<()> {
        let doing = format!("name record {id} in plan {}", on_one_line(plan));
        let plan = encode_part("plan", plan)?;
        let url = self
            .transport
            .base
            .api(&format!("invenio_damap/damap/dmp/{plan}/dataset/{id}"))?;
        let mut ask = Ask::new(Method::POST, url, doing.as_str()).accept(JSON);
        ask.json = false;
        self.ask(ask).map(drop).map_err(|error| no_plans(error, &doing))
    }
}

fn no_plans(error: Error, doing: &str) -> Error {
    let no_route = error.kind() == Kind::NotFound
        && error
            .server_message()
            .is_some_and(|text| text.contains("requested URL was not found"));
    if !no_route {
        return error;
    }
    Error::new(
        Kind::NotSupported,
        format!("can't {doing}: this repository knows of no data management plans"),
    )
}
