//! The one error type: what happened, to what, what the server said, what the user can do, and the errno.
//!
//! Every floor returns it. Only `mount/` turns it into an errno for the kernel and only `cli/` into an exit code.
//! It is `Clone`, because several callers may wait for one request and all of them are told why it failed.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The result of everything that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What happened. Each kind has one errno and one piece of advice; the table is in `docs/SEMANTICS.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// No such record, draft or file, or a deleted record.
    NotFound,
    /// No token, a bad token, a restricted record, a locked draft.
    Denied,
    /// A write to anything published.
    Published,
    /// The record's quota is used up.
    Quota,
    /// The file is larger than the server or a proxy before it takes.
    TooLarge,
    /// The record has as many files as the server allows.
    TooMany,
    /// The server refused the content of the request: metadata, or a key it can't hold.
    Refused,
    /// This repository does not offer such a thing (a format, an endpoint of a later release or of another kind of
    /// installation).
    NotSupported,
    /// The thing changed on the server meanwhile.
    Changed,
    /// Not yet: a review is not accepted, or files are still in transfer.
    NotReady,
    /// Rate-limited for longer than we may wait.
    RateLimited,
    /// No connection, or it broke.
    Unreachable,
    /// Connected, but no answer within the limit.
    TimedOut,
    /// The server failed (5xx), or answered with something that is no answer (HTML where JSON was due).
    ServerFailed,
    /// What answered is no InvenioRDM repository.
    NotARepository,
    /// The bytes are not those that the checksum describes.
    Corrupt,
    /// The local disk is full.
    DiskFull,
    /// A local operation failed with this errno.
    Local(i32),
    /// The call makes no sense for this node; answered with this errno and not worth a log line.
    Call(i32),
    /// Wrong usage of a command or setting; exit code 2.
    Usage,
    /// A bug: a handler panicked or an invariant did not hold.
    Internal,
}

impl Kind {
    /// The errno a program sees.
    #[must_use]
    pub fn errno(self) -> i32 {
        match self {
            Kind::NotFound => libc::ENOENT,
            Kind::Denied => libc::EACCES,
            Kind::Published => libc::EROFS,
            Kind::Quota => libc::EDQUOT,
            Kind::TooLarge => libc::EFBIG,
            Kind::TooMany | Kind::DiskFull => libc::ENOSPC,
            Kind::Refused | Kind::Usage => libc::EINVAL,
            Kind::NotSupported => libc::EOPNOTSUPP,
            Kind::Changed => libc::ESTALE,
            Kind::NotReady => libc::EBUSY,
            Kind::RateLimited
            | Kind::Unreachable
            | Kind::TimedOut
            | Kind::ServerFailed
            | Kind::NotARepository
            | Kind::Corrupt
            | Kind::Internal => libc::EIO,
            Kind::Local(errno) | Kind::Call(errno) => errno,
        }
    }

    /// Whether the same request may succeed later without anybody doing anything.
    #[must_use]
    pub fn is_passing(self) -> bool {
        matches!(
            self,
            Kind::RateLimited | Kind::Unreachable | Kind::TimedOut | Kind::ServerFailed
        )
    }

    fn advice(self) -> &'static str {
        match self {
            Kind::NotFound => "Check the id or the name; a draft opens only for those who may edit it.",
            Kind::Denied => {
                "Check that the token is valid and that its user may do this (rdmfs doctor tells who it is)."
            }
            Kind::Published => "Published files never change; make a new version of the record instead.",
            Kind::Quota => "Remove files from the draft or ask the repository for more room.",
            Kind::TooLarge => "Ask the repository for its limit, or split the file.",
            Kind::TooMany => "Pack the files into an archive, or ask the repository for a higher limit.",
            Kind::Refused => "Correct what the message names and try again.",
            Kind::NotSupported => "This repository has no such thing; another one may.",
            Kind::Changed => "Open it again to see what is there now.",
            Kind::NotReady => "Wait until it is done and try again.",
            Kind::RateLimited => {
                "The repository limits requests; wait a while, and use a token if you have none."
            }
            Kind::Unreachable => {
                "Check the network and the address; what was not sent yet is kept and sent later."
            }
            Kind::TimedOut => "The repository is slow or stuck; try again later.",
            Kind::ServerFailed => {
                "This is the repository's own failure; try again later, or tell its operators."
            }
            Kind::NotARepository => {
                "Give the address of an InvenioRDM repository, such as https://zenodo.org."
            }
            Kind::Corrupt => "The wrong copy was dropped; opening the file again fetches it anew.",
            Kind::DiskFull => "Make room on the disk that holds the cache and the staged files.",
            Kind::Internal => "This is a bug in rdmfs; please report it with the log.",
            Kind::Usage | Kind::Local(_) | Kind::Call(_) => "",
        }
    }
}

/// A field that the server did not accept, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The path of the field, such as `metadata.title`; empty if the server named none.
    pub field: String,
    /// The server's messages.
    pub messages: Vec<String>,
}

/// Which request failed, and how hard it was tried. The URL carries no query: links may be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The HTTP method.
    pub method: &'static str,
    /// Scheme, host and path.
    pub url: String,
    /// The status of the last answer, if there was one.
    pub status: Option<u16>,
    /// How many times the request was sent.
    pub tries: u32,
    /// How long all tries took together.
    pub elapsed: Duration,
}

/// An error with all that a user or a log needs.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: Kind,
    what: Cow<'static, str>,
    server: Option<String>,
    fields: Vec<FieldError>,
    /// Of the server's words, what is not of a field.
    besides: Option<String>,
    advice: Option<Cow<'static, str>>,
    attempt: Option<Attempt>,
    retry_after: Option<Duration>,
    is_foreign: bool,
}

impl Error {
    /// An error of `kind`; `what` says what was being done, to what.
    pub fn new(kind: Kind, what: impl Into<Cow<'static, str>>) -> Self {
        Error(Box::new(Inner {
            kind,
            what: what.into(),
            server: None,
            fields: Vec::new(),
            besides: None,
            advice: None,
            attempt: None,
            retry_after: None,
            is_foreign: false,
        }))
    }

    /// A call that a node can't serve, answered with `errno` alone.
    #[must_use]
    pub fn call(errno: i32) -> Self {
        Error::new(Kind::Call(errno), "")
    }

    /// A local input or output error; a full disk is told apart from the rest.
    pub fn local(what: impl fmt::Display, source: &std::io::Error) -> Self {
        let errno = source.raw_os_error().unwrap_or(libc::EIO);
        let kind = match errno {
            libc::ENOSPC | libc::EDQUOT => Kind::DiskFull,
            other => Kind::Local(other),
        };
        Error::new(kind, format!("{what}: {source}"))
    }

    /// Adds the server's own words.
    #[must_use]
    pub fn with_server(mut self, message: impl Into<String>) -> Self {
        self.0.server = Some(message.into());
        self
    }

    /// Adds what the server said of single fields.
    #[must_use]
    pub fn with_fields(mut self, fields: Vec<FieldError>) -> Self {
        self.0.fields = fields;
        self
    }

    /// Adds what the server said of single fields, where its own words hold that too: `besides` is what they hold else.
    #[must_use]
    pub fn with_fields_of_words(mut self, fields: Vec<FieldError>, besides: impl Into<String>) -> Self {
        self.0.fields = fields;
        self.0.besides = Some(besides.into());
        self
    }

    /// Replaces the kind's general advice.
    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// Adds which request failed.
    #[must_use]
    pub fn with_attempt(mut self, attempt: Attempt) -> Self {
        self.0.attempt = Some(attempt);
        self
    }

    /// Adds how long the server wants to be left alone.
    #[must_use]
    pub fn with_retry_after(mut self, pause: Duration) -> Self {
        self.0.retry_after = Some(pause);
        self
    }

    /// It is not the repository that says so: a page for people, a proxy, whatever else is on the way to it.
    #[must_use]
    pub fn from_elsewhere(mut self) -> Self {
        self.0.is_foreign = true;
        self
    }

    /// Puts what was being done in front: `"upload a.csv"` + `"no connection"`.
    #[must_use]
    pub fn during(mut self, doing: impl fmt::Display) -> Self {
        self.0.what = if self.0.what.is_empty() {
            doing.to_string().into()
        } else {
            format!("{doing}: {}", self.0.what).into()
        };
        self
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The errno a program sees.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.0.kind.errno()
    }

    /// The server's own message, if it gave one.
    #[must_use]
    pub fn server_message(&self) -> Option<&str> {
        self.0.server.as_deref()
    }

    /// What the server said of single fields; empty if it did not.
    #[must_use]
    pub fn fields(&self) -> &[FieldError] {
        &self.0.fields
    }

    /// The message without what is said of single fields, for who shows those line by line.
    #[must_use]
    pub fn without_fields(&self) -> impl fmt::Display + '_ {
        let server = match &self.0.besides {
            Some(besides) if !self.0.fields.is_empty() => {
                Some(besides.as_str()).filter(|text| !text.is_empty())
            }
            _ => self.server_message(),
        };
        fmt::from_fn(move |f| self.say(f, server))
    }

    /// The request that failed, if one did.
    #[must_use]
    pub fn attempt(&self) -> Option<&Attempt> {
        self.0.attempt.as_ref()
    }

    /// How long the server wants to be left alone before the next try, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether what answered was not the repository.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.0.is_foreign
    }

    /// What the user can do; empty where there is nothing to say.
    #[must_use]
    pub fn advice(&self) -> &str {
        match &self.0.advice {
            Some(advice) => advice,
            None => self.0.kind.advice(),
        }
    }
}

impl Error {
    fn say(&self, f: &mut fmt::Formatter<'_>, server: Option<&str>) -> fmt::Result {
        let inner = &*self.0;
        if inner.what.is_empty() {
            write!(f, "{}", std::io::Error::from_raw_os_error(self.errno()))?;
        } else {
            f.write_str(&inner.what)?;
        }
        if let Some(server) = server {
            write!(f, ": the repository says \"{server}\"")?;
        }
        if let Some(attempt) = &inner.attempt {
            write!(f, " ({} {}", attempt.method, attempt.url)?;
            if let Some(status) = attempt.status {
                write!(f, ": {status}")?;
            }
            if attempt.tries > 1 {
                write!(
                    f,
                    ", tried {} times in {:.1} s",
                    attempt.tries,
                    attempt.elapsed.as_secs_f64()
                )?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.say(f, self.server_message())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_thing_the_servers_words_and_the_request() {
        let error = Error::new(Kind::Quota, "no room for data.bin in draft abcde-12345")
            .with_server("Bucket quota exceeded.")
            .with_attempt(Attempt {
                method: "PUT",
                url: "https://example.org/api/records/abcde-12345/draft/files/data.bin/content".into(),
                status: Some(400),
                tries: 2,
                elapsed: Duration::from_millis(1500),
            });
        assert_eq!(
            error.to_string(),
            "no room for data.bin in draft abcde-12345: the repository says \"Bucket quota exceeded.\" \
             (PUT https://example.org/api/records/abcde-12345/draft/files/data.bin/content: 400, tried 2 times in 1.5 s)"
        );
        assert_eq!(error.errno(), libc::EDQUOT);
        assert!(error.advice().contains("Remove files"));
    }

    #[test]
    fn who_shows_fields_line_by_line_has_a_message_without_them() {
        let field = FieldError {
            field: "metadata.title".into(),
            messages: vec!["Too short.".into()],
        };
        let error = Error::new(Kind::Refused, "can't publish it")
            .with_server("A validation error occurred.; metadata.title: Too short.")
            .with_fields_of_words(vec![field.clone()], "A validation error occurred.");
        assert!(error.to_string().contains("metadata.title: Too short."));
        assert_eq!(
            error.without_fields().to_string(),
            "can't publish it: the repository says \"A validation error occurred.\""
        );
        let wordless = Error::new(Kind::Refused, "can't publish it")
            .with_server("metadata.title: Too short.")
            .with_fields_of_words(vec![field], "");
        assert_eq!(wordless.without_fields().to_string(), "can't publish it");
        let plain = Error::new(Kind::Refused, "can't publish it").with_server("No.");
        assert_eq!(plain.without_fields().to_string(), plain.to_string());
    }

    #[test]
    fn a_full_disk_is_told_apart_from_other_local_errors() {
        let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
        assert_eq!(Error::local("write", &full).kind(), Kind::DiskFull);
        let denied = std::io::Error::from_raw_os_error(libc::EACCES);
        assert_eq!(Error::local("write", &denied).kind(), Kind::Local(libc::EACCES));
    }

    #[test]
    fn what_was_being_done_stands_first() {
        let error = Error::new(Kind::Unreachable, "connection reset").during("upload a.csv");
        assert_eq!(error.to_string(), "upload a.csv: connection reset");
    }
}
