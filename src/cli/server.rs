//! Whether the repository answers and takes the token: asked before a daemon is started, so that a wrong address or
//! token is a plain error and not a mount that shows nothing.

use crate::catalog::{Catalog, is_silence};
use crate::config::MountSettings;
use crate::error::{Error, Kind, Result};
use crate::mount;
use crate::repository::{Repository, SharedLink};

/// What a person wants to know of the connection.
pub struct Server {
    /// Who we are there.
    pub user: String,
    /// Where in the mount the shared record is.
    pub shared: Vec<String>,
    /// Why it can't be reached, if what is known of it can be shown all the same.
    pub offline: Option<Error>,
}

/// Asks the repository who it is and whether the token is good.
///
/// # Errors
/// If it can't be reached and nothing is known of it, is none, or does not take the token.
pub fn check(settings: &MountSettings) -> Result<Server> {
    let repository = mount::connect(settings)?;
    let link = settings
        .share_link
        .as_deref()
        .map(SharedLink::parse)
        .transpose()?;
    let server = |user: &str, shared, offline| Server {
        user: match &link {
            Some(link) => format!("{user}, {} shared by a link", link.id),
            None => user.to_owned(),
        },
        shared,
        offline,
    };
    let guest = match link {
        Some(_) => "without a token",
        None => "without a token: published records only",
    };
    let asked = repository
        .identify()
        .map_err(connection_advice)
        .and_then(|_| match settings.token {
            Some(_) => repository.check_token().map_err(token_advice),
            None => Ok(()),
        })
        .and_then(|()| {
            link.as_ref()
                .map_or(Ok(Vec::new()), |link| shared(&repository, link))
        });
    match asked {
        Ok(shared) => Ok(server(
            settings.token.as_ref().map_or(guest, |_| "signed in"),
            shared,
            None,
        )),
        Err(error) if is_silence(&error) && Catalog::is_kept(&mount::keeping(settings, repository.url())) => {
            let user = settings
                .token
                .as_ref()
                .map_or(guest, |_| "with a token that is not checked");
            Ok(server(user, Vec::new(), Some(error)))
        }
        Err(error) => Err(error),
    }
}

/// Where in the mount that is which a link opens.
fn shared(repository: &Repository, link: &SharedLink) -> Result<Vec<String>> {
    let record = repository.record(&link.id);
    let draft = repository.draft(&link.id);
    let found = [
        record
            .as_ref()
            .ok()
            .map(|record| format!("records/{}", record.id)),
        draft.as_ref().ok().map(|draft| format!("drafts/{}", draft.id)),
    ];
    let found: Vec<String> = found.into_iter().flatten().collect();
    match record {
        Err(error) if found.is_empty() => Err(match error.kind() {
            Kind::Denied | Kind::NotFound => error.during("the link opens nothing").with_advice(
                "It may be revoked, expired or mistyped: ask whoever shared the record for another.",
            ),
            _ => error,
        }),
        _ => Ok(found),
    }
}

/// Advice that fits the commands there are.
#[must_use]
pub fn token_advice(error: Error) -> Error {
    if error.kind() == Kind::Denied {
        error.with_advice(
            "It may be mistyped, expired, or made for another repository. Make a new one in the repository's account \
             settings (Applications, Personal access tokens); without a token, published records can be read.",
        )
    } else {
        error
    }
}

/// Advice for somebody who is only just giving the address.
#[must_use]
pub fn connection_advice(error: Error) -> Error {
    if error.kind() != Kind::Unreachable {
        return error;
    }
    // A certificate that isn't trusted looks like any other broken connection; the way out is another.
    if error.to_string().to_lowercase().contains("certificate") {
        return error.with_advice(
            "If the repository has a certificate of its own authority, give that with --ca-certificate; otherwise \
             check the address and this machine's clock.",
        );
    }
    error.with_advice("Check the network, the address and the proxy settings.")
}
