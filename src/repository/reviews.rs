//! Reviews: a draft that a community is asked to publish.
//!
//! Called by `cli/`. While a review is open, a draft can neither be published nor deleted by its owner.

use reqwest::{Method, Url};
use serde_json::json;

use super::Repository;
use super::model::RecordId;
use super::requests::{Request, comment_payload};
use super::transport::{Ask, JSON, Repeat};
use crate::error::{Kind, Result};

impl Repository {
    /// The review of a draft; `None` if it has none.
    ///
    /// # Errors
    /// `NotFound` if there is no such draft, `Denied`, else as any request.
    pub fn review(&self, id: &RecordId) -> Result<Option<Request>> {
        let ask = Ask::get(self.review_url(id)?, format!("read the review of draft {id}"));
        match self.one_request(ask) {
            Ok(request) => Ok(Some(request)),
            Err(error)
                if error.kind() == Kind::NotFound
                    && error
                        .server_message()
                        .is_some_and(|text| text.starts_with("Review")) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Chooses the community that a draft shall be submitted to, by its slug or UUID. Nobody is asked yet:
    /// [`Repository::submit_review`].
    ///
    /// # Errors
    /// `Refused` if the draft is under review already, or of a published record, `NotFound` for the draft or the
    /// community, `Denied`, else as any request.
    pub fn set_review(&self, id: &RecordId, community: &str) -> Result<Request> {
        // The server knows it by its UUID alone here.
        let community = self.community(community)?.id;
        let body = json!({"receiver": {"community": community}, "type": "community-submission"});
        let doing = format!("choose a community for draft {id}");
        let ask = Ask::new(Method::PUT, self.review_url(id)?, doing)
            .body(&body)
            .repeat(Repeat::Safe);
        self.one_request(ask)
    }

    /// Takes the choice back.
    ///
    /// # Errors
    /// `Refused` while the review is open (cancel its request), `NotFound` if there is none, `Denied`, else as any request.
    pub fn delete_review(&self, id: &RecordId) -> Result<()> {
        let doing = format!("drop the review of draft {id}");
        let mut ask = Ask::new(Method::DELETE, self.review_url(id)?, doing)
            .accept(JSON)
            .repeat(Repeat::Safe);
        ask.gone_is_done = true;
        self.ask(ask).map(drop)
    }

    /// Submits a draft to the community that was chosen. Where its policy lets the user in without a review, the draft is
    /// published at once: the request is accepted then. `publish_if_allowed` false asks for a review nevertheless. Not
    /// repeated: after a passing failure, [`Repository::review`] shows whether it was done.
    ///
    /// # Errors
    /// `Refused` with the fields that are missing, `NotReady` while files are in transfer, `ServerFailed` (500) if no
    /// community was chosen or it is submitted already, `NotFound`, `Denied`, else as any request.
    pub fn submit_review(
        &self,
        id: &RecordId,
        comment: Option<&str>,
        publish_if_allowed: bool,
    ) -> Result<Request> {
        let url = self.draft_url(id, "/actions/submit-review")?;
        let mut body = comment.map_or_else(|| json!({}), comment_payload);
        if !publish_if_allowed {
            body["require_review"] = json!(true);
        }
        self.one_request(Ask::new(Method::POST, url, format!("submit draft {id} for review")).body(&body))
    }

    fn review_url(&self, id: &RecordId) -> Result<Url> {
        self.draft_url(id, "/review")
    }
}
