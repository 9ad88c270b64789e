//! The members of a ZIP file as the server lists and extracts them (version 14 and later).
//!
//! Called by `content/`, where it costs less than reading the archive through ranges. Not every server has it, and none
//! lists more than some thousand members.

use std::time::Instant;

use reqwest::Method;
use serde_json::Value;

use super::model::{FilePlace, Owner};
use super::transport::{Ask, JSON, Repeat};
use super::urls::encode_key;
use super::{Download, Repository};
use crate::error::{Error, Kind, Result};

/// What is in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its members, files only.
    pub members: Vec<Member>,
    /// How many there are in all.
    pub total: u64,
    /// Whether the list is not all of them.
    pub truncated: bool,
}

/// A file in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path in the archive; anything at all.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Bytes in the archive.
    pub compressed_size: Option<u64>,
    /// Its CRC-32.
    pub crc: Option<u32>,
    /// As guessed by the server from its name.
    pub mimetype: Option<String>,
}

impl Repository {
    /// The members of an archive.
    ///
    /// # Errors
    /// `NotSupported` if the server has no such list, or makes nothing of this file, `NotFound`, `Denied`, else as any
    /// request.
    pub fn container(&self, place: &FilePlace) -> Result<Container> {
        let doing = format!("list the members of {place}");
        let url = self.transport.base.api(&container_path(place, None)?)?;
        // 500 is what a file that is no archive is answered with.
        let ask = Ask::get(url, doing.as_str())
            .accept(JSON)
            .repeat(Repeat::SafeBut500);
        let answer = self.ask(ask).map_err(|error| no_container(error, &doing))?;
        let Some(Value::Array(entries)) = answer.value.get("entries") else {
            return Err(Error::new(
                Kind::ServerFailed,
                format!("can't {doing}: the answer is JSON, but no list of members"),
            ));
        };
        let members: Vec<Member> = entries.iter().filter_map(member).collect();
        let number = |name: &str| answer.value.get(name).and_then(Value::as_u64);
        Ok(Container {
            total: number("total").unwrap_or(members.len() as u64),
            truncated: answer.value.get("truncated").and_then(Value::as_bool) == Some(true),
            members,
        })
    }

    /// Begins to read a member of an archive, from its start. The server does no ranges of it.
    ///
    /// # Errors
    /// `NotSupported`, `NotFound`, `Denied`, `Refused` for a path that no request can reach, else as any request.
    pub fn open_member(&self, place: &FilePlace, member: &str) -> Result<Download> {
        let doing = format!("read {} in {place}", super::model::on_one_line(member));
        let url = self.transport.base.api(&container_path(place, Some(member))?)?;
        let begun = Instant::now();
        let attempt = async |_tries| {
            let reply = self.transport.get(&doing, &url, "*/*", None).await?;
            self.judge(reply, &doing, None, begun).await
        };
        self.engine
            .wait(
                self.transport
                    .persist(&Method::GET, &url, Repeat::SafeBut500, &doing, attempt),
            )
            .map_err(|error| no_container(error, &doing))
    }
}

fn container_path(place: &FilePlace, member: Option<&str>) -> Result<String> {
    let key = encode_key(&place.key)?;
    let files = match &place.owner {
        Owner::Record(id) => format!("records/{id}/files"),
        Owner::Draft(id) => format!("records/{id}/draft/files"),
    };
    Ok(match member {
        None => format!("{files}/{key}/container"),
        Some(member) => format!("{files}/{key}/container/{}", encode_key(member)?),
    })
}

fn member(entry: &Value) -> Option<Member> {
    let number = |name: &str| entry.get(name).and_then(Value::as_u64);
    Some(Member {
        key: entry.get("key")?.as_str()?.to_owned(),
        size: number("size")?,
        compressed_size: number("compressed_size"),
        crc: number("crc").and_then(|crc| u32::try_from(crc).ok()),
        mimetype: entry.get("mimetype").and_then(Value::as_str).map(str::to_owned),
    })
}

/// Version 12 takes `KEY/container` for a key, and later ones fail on what is no archive.
fn no_container(error: Error, doing: &str) -> Error {
    let status = error.attempt().and_then(|attempt| attempt.status);
    let unknown_key = error.server_message().is_some_and(|words| {
        words.contains("/container'")
            || words.contains("/container/")
            || words.contains("requested URL was not found")
    });
    if status == Some(500) || (status == Some(404) && unknown_key) {
        let mut unsupported = Error::new(
            Kind::NotSupported,
            format!("can't {doing}: the repository does not look into this file"),
        );
        if let Some(attempt) = error.attempt() {
            unsupported = unsupported.with_attempt(attempt.clone());
        }
        return unsupported;
    }
    error
}
