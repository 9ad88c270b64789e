//! The sandbox's state, shared by all connections, and its users.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::blobs::DataDir;
use crate::faults::FaultList;
use crate::generated::Generated;
use crate::limits::Limiter;
use crate::link::Link;
use crate::objects::Links;
use crate::search::Index;
use crate::settings::{Flavour, Knobs, Options};
use crate::store::Store;
use crate::trace::Trace;
use crate::traffic::Traffic;

pub(crate) struct App {
    pub store: Mutex<Store>,
    pub index: Mutex<Index>,
    pub knobs: Mutex<Knobs>,
    pub faults: Mutex<FaultList>,
    pub limiter: Mutex<Limiter>,
    pub links: Mutex<Links>,
    pub link: Arc<Mutex<Link>>,
    pub generated: Option<Generated>,
    pub traffic: Arc<Traffic>,
    pub data: DataDir,
    /// Scheme, host and port as they stand in `links`.
    pub site: String,
    /// The second origin.
    pub objects: String,
}

impl App {
    pub fn new(options: &Options, trace: Trace, port: u16, objects_port: u16) -> std::io::Result<App> {
        let here = format!("http://127.0.0.1:{port}");
        Ok(App {
            store: Mutex::new(Store::new(options.knobs.flavour == Flavour::Zenodo)),
            index: Mutex::default(),
            knobs: Mutex::new(options.knobs.clone()),
            faults: Mutex::default(),
            limiter: Mutex::default(),
            links: Mutex::default(),
            link: Arc::default(),
            generated: options.generated.map(Generated::new),
            traffic: Arc::new(Traffic::traced(trace)),
            data: DataDir::new(options.data.clone())?,
            site: options.site_url.clone().unwrap_or(here),
            objects: format!("http://127.0.0.1:{objects_port}"),
        })
    }
}

/// Somebody with a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct User {
    pub id: u32,
    pub name: &'static str,
    pub token: &'static str,
    pub admin: bool,
    /// The number of the access link that the request came with.
    pub link: Option<u64>,
}

/// Somebody without a token, but with an access link.
pub(crate) const NOBODY: User = User {
    id: 0,
    name: "",
    token: "",
    admin: false,
    link: None,
};

pub(crate) const USERS: [User; 4] = [
    User {
        id: 2,
        name: "alice",
        token: "alice-token",
        admin: false,
        link: None,
    },
    User {
        id: 3,
        name: "bob",
        token: "bob-token",
        admin: false,
        link: None,
    },
    User {
        id: 4,
        name: "admin",
        token: "admin-token",
        admin: true,
        link: None,
    },
    User {
        id: 5,
        name: "newcomer",
        token: "newcomer-token",
        admin: false,
        link: None,
    },
];

/// The user of a token. An unknown token is no error: its bearer is a guest.
pub(crate) fn user_of_token(token: &str) -> Option<User> {
    USERS.into_iter().find(|user| user.token == token)
}

pub(crate) fn user_named(name: &str) -> Option<User> {
    USERS.into_iter().find(|user| user.name == name)
}
