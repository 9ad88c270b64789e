//! The way of a request: counted, delayed, broken on demand, limited, handled and answered.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, Request, Response, StatusCode};

use crate::app::{App, NOBODY, User, user_of_token};
use crate::body::{HangUp, Manner, ReplyBody, Stop};
use crate::errors::Problem;
use crate::faults::{Decided, Effect};
use crate::limits::{self, Headers};
use crate::parts::Mishap;
use crate::reply::{Call, Failure, Payload, Reply, decode, encode_key, parse_query};
use crate::routes::{self, Miss, Route, Target};
use crate::server::{Connection, Origin};
use crate::settings::{Flavour, Knobs};
use crate::traffic::{self, InFlight};
use crate::upload::{Cut, RequestBody};
use crate::{communities, containers, content, control, drafts, files, flavours, links, objects, parts};
use crate::{plain, records, requests, reviews, search, upload, words};

const HTML: &str = "<!DOCTYPE html>\n<html><head><title>Please wait</title></head>\n<body><h1>Unusual traffic</h1>\
                    <p>Our systems have detected unusual traffic from your network.</p></body></html>\n";

/// Answers a request, or has the connection cut.
pub(crate) async fn answer(
    app: Arc<App>,
    connection: Connection,
    request: Request<Incoming>,
    origin: Origin,
) -> Result<Response<ReplyBody>, HangUp> {
    let (parts, incoming) = request.into_parts();
    let path = decode(parts.uri.path());
    if origin == Origin::Api
        && let Some(path) = path.as_deref().filter(|path| path.starts_with("/sandbox"))
    {
        let reply = control::answer(&app, &parts.method, path, incoming).await;
        return Ok(response(
            reply,
            Manner::default(),
            &parts.method,
            None,
            connection.reset.clone(),
            &[],
        ));
    }
    let query = parse_query(parts.uri.query().unwrap_or_default());
    let found = match origin {
        Origin::Objects => Ok(object(&app, &parts.method, &parts.uri)),
        Origin::Api => match path.as_deref() {
            Some(path) => match (path.strip_prefix("/api"), path.strip_prefix("/plain/")) {
                (Some(path), _) => routes::find(&parts.method, path),
                (None, Some(path)) => plain::find(&parts.method, path),
                (None, None) => routes::page(&parts.method, path),
            },
            None => Err(Miss::NotFound),
        },
    };
    let route = found.as_ref().map_or(Route::Other, |target| target.route);
    let in_flight = app.traffic.begin(
        route,
        logged(&parts.method, &parts.uri.to_string(), &parts.headers, route),
    );
    let decided = {
        let (id, key) = found
            .as_ref()
            .map_or(("", ""), |target| (&target.id, &target.key));
        app.faults.lock().decide(route, id, key)
    };
    let knobs = app.knobs.lock().clone();
    let pause = knobs.latency + decided.delay;
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    let user = with_link(&app, user_of(&parts.headers, &query), &query);
    let is_search = matches!(route, Route::Search | Route::CommunityRecords);
    let (extra, limited) = match (knobs.rate_limit, origin) {
        (Some(limit), Origin::Api) => {
            let who = who(user, &parts.headers);
            let mut limiter = app.limiter.lock();
            match limiter.take(limit, &who) {
                (_, Ok(())) if is_search && knobs.flavour == Flavour::Zenodo => {
                    limiter.take(flavours::SEARCHES, &format!("searches of {who}"))
                }
                taken => taken,
            }
        }
        _ => (Headers::new(), Ok(())),
    };
    let meter = in_flight.meter.clone();
    let cut = match decided.effect {
        Some(Effect::ResetUpload { after }) => Some((after, Cut::Kill)),
        Some(Effect::CloseUpload { after }) => Some((after, Cut::Close)),
        Some(Effect::StallUpload { after }) => Some((after, Cut::Stall)),
        _ => None,
    };
    // The second origin has limits of its own.
    let limit = knobs.max_body.filter(|_| origin == Origin::Api);
    let mut body = RequestBody::new(incoming, &parts.headers, limit, cut, meter);
    let waits_for_go = parts.headers.contains_key(header::EXPECT);
    let blocked = (origin == Origin::Api && knobs.flavour == Flavour::Zenodo)
        .then(|| flavours::blocked(&parts.headers))
        .flatten();
    let (outcome, body) = match instead(&decided).or(blocked.map(Ok)) {
        Some(outcome) => (outcome, body),
        None => match (limited, found) {
            (Err(problem), _) => (Err(problem.into()), body),
            (_, Err(miss)) => (Err(missed(&app, miss, &parts.uri).into()), body),
            (Ok(()), Ok(target)) if target.route == Route::Object => (
                Ok(objects::answer(&app, &parts.method, &parts.uri, &parts.headers)),
                body,
            ),
            (Ok(()), Ok(target)) if target.route == Route::PutObjectPart => {
                let (uri, headers) = (&parts.uri, &parts.headers);
                let mishap = mishap(&decided);
                let outcome = parts::put_object(&app, &parts.method, uri, headers, &mut body, mishap).await;
                (after(&decided, outcome), body)
            }
            (Ok(()), Ok(target)) => {
                let headers = parts.headers;
                let method = match parts.method {
                    Method::HEAD => Method::GET,
                    ref method => method.clone(),
                };
                let mut call = Call {
                    method,
                    target,
                    query,
                    headers,
                    user,
                    body,
                };
                let outcome = match flavours::refused(&app, &call, knobs.flavour) {
                    Some(problem) => Err(problem.into()),
                    None => handle(&app, &mut call, mishap(&decided)).await,
                };
                let outcome = outcome.map(|reply| flavours::shaped(reply, route, knobs.flavour));
                (after(&decided, outcome), call.body)
            }
        },
    };
    let reply = match outcome {
        Ok(reply) => reply,
        Err(Failure::Problem(problem)) => Reply::from(problem),
        Err(Failure::HangUp { reset }) => {
            connection.reset.store(reset, Ordering::Relaxed);
            drop(in_flight);
            return Err(HangUp);
        }
        Err(Failure::Stall) => {
            // Only the client can end this. The unread body stays where it is meanwhile.
            connection.gone().await;
            drop(body);
            return Err(HangUp);
        }
    };
    // Closed without `Connection: close`: whoever uses the connection again fails.
    let last = reply.status == StatusCode::PAYLOAD_TOO_LARGE;
    if last {
        connection.last_answer();
    }
    let reset = connection.reset.clone();
    tokio::spawn(async move {
        if !waits_for_go {
            body.drain().await;
        }
        if last {
            // The answer itself has to be out first.
            tokio::time::sleep(Duration::from_millis(50)).await;
            connection.end();
        }
    });
    let manner = manner(&decided, &knobs, &app, &reply);
    in_flight.answered(reply.status.as_u16());
    Ok(response(
        reply,
        manner,
        &parts.method,
        Some(in_flight),
        reset,
        &extra,
    ))
}

async fn handle(app: &App, call: &mut Call, mishap: Mishap) -> Result<Reply, Failure> {
    if let Some(generated) = &app.generated {
        generated.provide(&mut app.store.lock(), &call.target.id);
    }
    match call.target.route {
        Route::Ping => Ok(records::ping()),
        Route::Me => records::me(call),
        Route::Search => search::records(app, call),
        Route::UserRecords => search::of_user(app, call),
        Route::Record => records::read(app, call),
        Route::Versions => search::versions(app, call),
        Route::LatestVersion => records::latest(app, call),
        Route::RecordFiles => files::list_record(app, call),
        Route::RecordFile => files::read_record(app, call),
        Route::Content | Route::Plain => content::get(app, call, false),
        Route::PlainIndex => plain::index(app, call),
        Route::DeleteRecord => records::delete(app, call).await,
        Route::CreateDraft => drafts::create(app, call).await,
        Route::GetDraft => drafts::read(app, call),
        Route::PutDraft => drafts::update(app, call).await,
        Route::DeleteDraft => drafts::delete(app, call),
        Route::EditRecord => drafts::edit(app, call),
        Route::NewVersion => drafts::new_version(app, call),
        Route::Publish => drafts::publish(app, call),
        Route::FilesImport => files::import(app, call),
        Route::ReserveDoi => drafts::doi_of_draft(app, call, true),
        Route::DropDoi => drafts::doi_of_draft(app, call, false),
        Route::DraftFiles => files::list_draft(app, call),
        Route::StartFiles => files::start(app, call).await,
        Route::DeleteFiles => files::delete_all(app, call),
        Route::DraftFile => files::read_draft(app, call),
        Route::PutFile => files::update(app, call).await,
        Route::DeleteFile => files::delete(app, call),
        Route::DraftContent => content::get(app, call, true),
        Route::PutContent => upload::put_content(app, call, mishap == Mishap::Lost).await,
        Route::PutPart => parts::put_part(app, call, mishap).await,
        Route::Commit => upload::commit(app, call),
        Route::Communities => communities::search(app, call),
        Route::UserCommunities => communities::of_user(app, call),
        Route::CreateCommunity => communities::create(app, call).await,
        Route::Community => communities::read(app, call),
        Route::PutCommunity => communities::update(app, call).await,
        Route::DeleteCommunity => communities::delete(app, call),
        Route::RenameCommunity => communities::rename(app, call).await,
        Route::Logo => communities::logo(app, call),
        Route::PutLogo => communities::put_logo(app, call).await,
        Route::DeleteLogo => communities::delete_logo(app, call),
        Route::CommunityRecords => search::of_community(app, call),
        Route::CommunityRequests => requests::of_community(app, call),
        Route::RecordCommunities => communities::of_record(app, call),
        Route::AddToCommunities => communities::add(app, call).await,
        Route::TakeFromCommunities => communities::take(app, call).await,
        Route::Requests | Route::UserRequests => requests::search(app, call),
        Route::Request => requests::read(app, call),
        Route::Act => requests::act(app, call).await,
        Route::Timeline => requests::timeline(app, call),
        Route::Comment => requests::comment(app, call).await,
        Route::GetComment | Route::PutComment | Route::DeleteComment => {
            requests::one_comment(app, call).await
        }
        Route::Review => reviews::read(app, call),
        Route::PutReview => reviews::set(app, call).await,
        Route::DeleteReview => reviews::delete(app, call),
        Route::SubmitReview => reviews::submit(app, call).await,
        Route::Curations => reviews::curations(app, call),
        Route::Curate => reviews::curate(app, call).await,
        Route::CurationData => reviews::curation_data(app, call),
        Route::Plans => reviews::plans(app, call),
        Route::LinkPlan => reviews::link_plan(app, call),
        Route::Links => links::list(app, call),
        Route::CreateLink => links::create(app, call).await,
        Route::GetLink => links::read(app, call),
        Route::PatchLink => links::update(app, call).await,
        Route::DeleteLink => links::delete(app, call),
        Route::VocabularyTypes => words::types(app, call),
        Route::Vocabulary => words::search(app, call),
        Route::Word => words::read(app, call),
        Route::Container => containers::list(app, call),
        Route::Member => containers::extract(app, call),
        Route::PageContent => content::get(app, call, false),
        Route::Object | Route::PutObjectPart | Route::Other => Err(Problem::no_route().into()),
    }
}

/// What a request to the second origin is about.
fn object(app: &App, method: &Method, uri: &hyper::Uri) -> Target {
    let part = (method == Method::PUT)
        .then(|| parts::of_link(app, uri))
        .flatten();
    let route = match method {
        &Method::PUT => Route::PutObjectPart,
        _ => Route::Object,
    };
    let (id, key, part) = part.unwrap_or_default();
    Target {
        route,
        id,
        key,
        part,
        member: String::new(),
        draft: false,
    }
}

/// What goes wrong with the bytes of an upload.
fn mishap(decided: &Decided) -> Mishap {
    match decided.effect {
        Some(Effect::UploadLost) => Mishap::Lost,
        Some(Effect::KeepOnly { bytes }) => Mishap::KeepOnly(bytes),
        _ => Mishap::None,
    }
}

/// Effects that take the place of doing anything.
fn instead(decided: &Decided) -> Option<Result<Reply, Failure>> {
    let html = |status| Ok(Reply::new(status, "text/html; charset=utf-8", HTML));
    Some(match decided.effect.as_ref()? {
        Effect::TooManyRequests { retry_after } => {
            let problem = limits::exceeded(5, "1 minute").with_header("retry-after", retry_after.to_string());
            Err(problem.into())
        }
        Effect::ServerError(status) => Err(Problem::server_error(*status).into()),
        Effect::Reset => Err(Failure::HangUp { reset: true }),
        Effect::Stall => Err(Failure::Stall),
        Effect::HtmlPage => html(200),
        Effect::HtmlError(status) => html(*status),
        _ => return None,
    })
}

/// Effects on the answer to what was done.
fn after(decided: &Decided, outcome: Result<Reply, Failure>) -> Result<Reply, Failure> {
    let good = matches!(&outcome, Ok(reply) if reply.status.is_success());
    match &decided.effect {
        Some(Effect::ErrorAfterSuccess(status)) if good => Err(Problem::server_error(*status).into()),
        Some(Effect::ResetAfterSuccess) if good => Err(Failure::HangUp { reset: true }),
        Some(Effect::StallAfterSuccess) if good => Err(Failure::Stall),
        _ => outcome,
    }
}

fn manner(decided: &Decided, knobs: &Knobs, app: &App, reply: &Reply) -> Manner {
    let stop = match decided.effect {
        Some(Effect::ResetBody { after }) => Some((after, Stop::Reset)),
        Some(Effect::ShortBody { after }) => Some((after, Stop::Close)),
        Some(Effect::StallBody { after }) => Some((after, Stop::Stall)),
        _ => None,
    };
    let content = matches!(reply.body, Payload::File(..));
    let general = knobs.bandwidth.filter(|_| content);
    let link = knobs.link.filter(|_| content);
    Manner {
        trickle: decided.trickle,
        bandwidth: decided.bandwidth.or(general),
        link: link.map(|rate| (rate, app.link.clone())),
        flip: decided.flip,
        stop,
    }
}

fn missed(app: &App, miss: Miss, uri: &hyper::Uri) -> Problem {
    match miss {
        Miss::NotFound => Problem::no_route(),
        Miss::Method => Problem::method(),
        Miss::Moved(path) => {
            let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
            let location = format!("{}/api{}{query}", app.site, encode_key(&path));
            let mut problem = Problem::new(308, "Permanent Redirect");
            problem.headers.push(("location", location));
            problem
        }
    }
}

fn logged(method: &Method, path: &str, headers: &HeaderMap, route: Route) -> traffic::Request {
    let text = |name: HeaderName| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    traffic::Request {
        method: method.to_string(),
        path: path.to_string(),
        route: route.name().to_string(),
        status: 0,
        range: text(header::RANGE),
        user_agent: text(header::USER_AGENT),
        accept: text(header::ACCEPT),
        authorization: headers.contains_key(header::AUTHORIZATION),
        sent: 0,
        received: 0,
        in_flight: true,
        began_ms: 0,
        ended_ms: None,
    }
}

/// The user of a bearer token (the scheme in any case) or of `?access_token=`.
fn user_of(headers: &HeaderMap, query: &[(String, String)]) -> Option<User> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| user_of_token(token.trim()))
            .flatten();
    }
    let (_, token) = query.iter().find(|(name, _)| name == "access_token")?;
    user_of_token(token)
}

/// With the access link that the request came with, if it is good.
fn with_link(app: &App, user: Option<User>, query: &[(String, String)]) -> Option<User> {
    let Some((_, token)) = query.iter().find(|(name, _)| name == "token") else {
        return user;
    };
    let link = links::number_of(&app.store.lock(), token);
    match link {
        None => user,
        link => Some(User {
            link,
            ..user.unwrap_or(NOBODY)
        }),
    }
}

fn who(user: Option<User>, headers: &HeaderMap) -> String {
    match user {
        Some(user) if user.id != 0 => user.name.to_string(),
        _ => {
            let agent = headers
                .get(header::USER_AGENT)
                .map(|value| String::from_utf8_lossy(value.as_bytes()));
            format!("{} {}", Ipv4Addr::LOCALHOST, agent.unwrap_or_default())
        }
    }
}

fn response(
    reply: Reply,
    manner: Manner,
    method: &Method,
    in_flight: Option<InFlight>,
    reset: Arc<AtomicBool>,
    extra: &[(&'static str, String)],
) -> Response<ReplyBody> {
    let mut reply = reply;
    for (name, value) in extra {
        // A fault's own `Retry-After` stays.
        if !reply.headers.contains_key(*name) {
            reply.set(HeaderName::from_static(name), value);
        }
    }
    let bodiless = matches!(reply.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !bodiless {
        reply.set(header::CONTENT_LENGTH, reply.body.length().to_string());
    }
    let body = if bodiless || method == Method::HEAD {
        ReplyBody::none(in_flight, reset)
    } else {
        ReplyBody::new(reply.body, manner, in_flight, reset)
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}
