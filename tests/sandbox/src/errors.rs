//! Error answers, in the shapes the real server gives them.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

/// An error answer: a status and a JSON body.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub status: StatusCode,
    pub body: Value,
    pub headers: Vec<(&'static str, String)>,
}

/// One complaint about one field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FieldError {
    pub field: String,
    pub messages: Vec<String>,
}

impl FieldError {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> FieldError {
        FieldError {
            field: field.into(),
            messages: vec![message.into()],
        }
    }
}

/// The `errors` list of a draft's answer or of a validation error.
pub(crate) fn field_errors(errors: &[FieldError]) -> Value {
    errors
        .iter()
        .map(|error| json!({"field": error.field, "messages": error.messages}))
        .collect()
}

impl Problem {
    pub fn new(status: u16, message: impl Into<String>) -> Problem {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Problem {
            status,
            body: json!({"status": status.as_u16(), "message": message.into()}),
            headers: Vec::new(),
        }
    }

    pub fn validation(errors: &[FieldError]) -> Problem {
        let mut problem = Problem::new(400, "A validation error occurred.");
        problem.add("errors", field_errors(errors));
        problem
    }

    pub fn invalid(field: &str, message: impl Into<String>) -> Problem {
        Problem::validation(&[FieldError::new(field, message)])
    }

    /// A query string the server can't make sense of.
    pub fn query() -> Problem {
        Problem::new(400, "Invalid querystring parameters.")
    }

    pub fn denied() -> Problem {
        Problem::new(403, "Permission denied.")
    }

    pub fn locked() -> Problem {
        Problem::new(403, "Bucket is locked for modifications.")
    }

    pub fn files_disabled() -> Problem {
        Problem::new(403, "Files are not enabled.")
    }

    pub fn unknown_id() -> Problem {
        Problem::new(404, "The persistent identifier does not exist.")
    }

    /// A draft's id asked for as if it were published; strangers get this too.
    pub fn unregistered() -> Problem {
        Problem::new(404, "The persistent identifier is not registered.")
    }

    pub fn no_result() -> Problem {
        Problem::new(404, "Not found.")
    }

    pub fn no_file(record: &str, key: &str) -> Problem {
        Problem::new(404, format!("Record '{record}' has no file '{key}'."))
    }

    pub fn no_route() -> Problem {
        Problem::new(
            404,
            "The requested URL was not found on the server. If you entered the URL manually \
             please check your spelling and try again.",
        )
    }

    pub fn method() -> Problem {
        Problem::new(405, "The method is not allowed for the requested URL.")
    }

    pub fn not_acceptable(offered: &[&str]) -> Problem {
        Problem::new(
            406,
            format!("Invalid 'Accept' header. Expected one of: {}", offered.join(", ")),
        )
    }

    pub fn media_type(expected: &str) -> Problem {
        Problem::new(
            415,
            format!("Invalid 'Content-Type' header. Expected one of: {expected}"),
        )
    }

    pub fn too_large() -> Problem {
        Problem::new(413, "The data value transmitted exceeds the capacity limit.")
    }

    pub fn server_error(status: u16) -> Problem {
        let message = match status {
            502 => "Bad Gateway",
            503 => {
                "The server is temporarily unable to service your request due to maintenance \
                    downtime or capacity problems. Please try again later."
            }
            504 => "The connection to an upstream server timed out.",
            _ => {
                "The server encountered an internal error and was unable to complete your request. \
                 Either the server is overloaded or there is an error in the application."
            }
        };
        Problem::new(status, message)
    }

    pub fn gone(tombstone: &Value) -> Problem {
        let mut problem = Problem::new(410, "Record deleted");
        problem.add("tombstone", tombstone.clone());
        problem
    }

    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Problem {
        self.headers.push((name, value.into()));
        self
    }

    fn add(&mut self, key: &str, value: Value) {
        if let Some(body) = self.body.as_object_mut() {
            body.insert(key.to_string(), value);
        }
    }
}

/// Shorthand for an empty JSON object.
pub(crate) fn empty() -> Value {
    Value::Object(Map::new())
}
