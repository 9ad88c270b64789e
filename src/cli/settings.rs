//! The settings of a mount: flags over the env file over the environment over `config.toml` over the defaults.
//!
//! One rule is stricter than "the highest wins": a token is only sent to the repository it stands beside. A source
//! that names one repository and holds a token gives that token to no other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reqwest::Url;

use crate::cli::address::{folder_name, parse_url};
use crate::cli::sources::{self, Layer};
use crate::cli::units::{Size, Span};
use crate::cli::{fuse, terminal};
use crate::config::MountSettings;
use crate::error::{Error, Kind, Result};
use crate::repository::{SharedLink, Token};
use crate::staging::{JUNK, Rules};
use crate::status::Access;

/// How far sequential readers are read ahead of. A range for each connection has to find room in it, of a length that makes
/// up for the round trip before it.
const READ_AHEAD: u64 = 32 << 20;
const READ_AHEAD_EACH: u64 = 8 << 20;
/// No repository lists more of a search.
const LARGEST_SEARCH: usize = 10_000;
/// For all readers together: four of them have full windows.
const MEMORY: u64 = 128 << 20;

/// Where the token comes from, and what is trusted; every command that talks to a repository has these.
#[derive(Args, Clone, Default)]
pub struct Credentials {
    /// File that holds the token, alone on a line
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// File with lines INVENIORDM_URL=... and INVENIORDM_TOKEN=...
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Profile of config.toml to use
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Trust this CA certificate (PEM) besides the system's
    #[arg(long, value_name = "FILE")]
    pub ca_certificate: Option<PathBuf>,
    /// Don't check the server's certificate; anybody on the way can then read and change everything
    #[arg(long)]
    pub insecure: bool,
}

impl Credentials {
    /// As the topmost layer.
    #[must_use]
    pub fn layer(&self) -> Layer {
        Layer {
            name: COMMAND_LINE.into(),
            token_file: self.token_file.clone(),
            env_file: self.env_file.clone(),
            ca_certificate: self.ca_certificate.clone(),
            insecure: self.insecure.then_some(true),
            ..Layer::default()
        }
    }
}

/// Where the repository's address, the token and the local directories come from; `mount` and `doctor` share these.
#[derive(Args, Default)]
pub struct SourceArgs {
    #[command(flatten)]
    pub credentials: Credentials,
    /// Where files once read are kept [default: ~/.cache/rdmfs/HOST]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Where written files wait for their upload [default: ~/.local/state/rdmfs]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

impl SourceArgs {
    /// As the topmost layer.
    #[must_use]
    pub fn layer(&self) -> Layer {
        Layer {
            cache_dir: self.cache_dir.clone(),
            state_dir: self.state_dir.clone(),
            ..self.credentials.layer()
        }
    }
}

/// What the command line's own layer is called.
const COMMAND_LINE: &str = "the command line";
/// What the layer of a link to a shared record is called.
const LINK: &str = "the link to the shared record";

/// All sources, the one that wins first.
pub struct Sources {
    layers: Vec<Layer>,
}

impl Sources {
    /// Reads what the given layers, which come from the command line, lead to: env file, environment, config.
    ///
    /// # Errors
    /// If a file can't be read or understood.
    pub fn read(mut layers: Vec<Layer>, profile: Option<&str>) -> Result<Self> {
        let configured = match user_dir("XDG_CONFIG_HOME", ".config", "/etc") {
            Ok(base) => sources::config(&base.join("config.toml"), profile)?,
            // Without a home there is no config to read.
            Err(_) if profile.is_none() => Vec::new(),
            Err(error) => return Err(error),
        };
        let env_file = layers
            .iter()
            .chain(&configured)
            .find_map(|layer| layer.env_file.clone());
        if let Some(path) = env_file {
            layers.push(sources::env_file(&path)?);
        }
        layers.push(sources::environment());
        layers.extend(configured);
        Ok(Sources { layers })
    }

    /// These layers alone, the one that wins first.
    #[must_use]
    pub fn of(layers: Vec<Layer>) -> Self {
        Sources { layers }
    }

    /// If one of them has a link to a shared record: what mounts the repository that it leads to. Links come from others,
    /// so no token goes there that names no repository, unless it is given beside the link.
    ///
    /// # Errors
    /// `Usage` if the link is none, or leads elsewhere than the address that wins over it.
    pub fn follow_link(mut self) -> Result<Self> {
        let has_link = |layer: &Layer| layer.share_link.is_some() || layer.share_link_file.is_some();
        let Some(at) = self.layers.iter().position(has_link) else {
            return Ok(self);
        };
        let layer = &self.layers[at];
        let text = match (&layer.share_link, &layer.share_link_file) {
            (Some(text), _) => text.clone(),
            (None, Some(file)) => sources::share_link_file(file)?,
            (None, None) => return Ok(self),
        };
        let link = SharedLink::parse(&text).map_err(|error| error.during(&layer.name))?;
        let leads_to = |url: &str| parse_url(url).is_ok_and(|url| trimmed(&url) == link.url);
        let named = self.layers[..=at].iter().find_map(|layer| layer.url.as_deref());
        if let Some(url) = named
            && !leads_to(url)
        {
            return Err(Error::new(
                Kind::Usage,
                format!("the link leads to {}, not to {url}", link.url),
            )
            .with_advice("The link names its repository: leave the address out."));
        }
        for layer in &mut self.layers {
            let holds_token = layer.token.is_some() || layer.token_file.is_some();
            if holds_token && layer.url.is_none() && ![COMMAND_LINE, "-o"].contains(&&*layer.name) {
                terminal::note(format_args!(
                    "the token of {} names no repository and is not sent to where the link leads; --token-file sends one",
                    layer.name
                ));
                (layer.token, layer.token_file) = (None, None);
            }
        }
        self.layers.insert(
            0,
            Layer {
                name: LINK.into(),
                url: Some(link.url.clone()),
                share_link: Some(link.address()),
                ..Layer::default()
            },
        );
        Ok(self)
    }

    fn get<T>(&self, field: impl Fn(&Layer) -> Option<T>) -> Option<T> {
        self.layers.iter().find_map(field)
    }

    /// Whether any source names a repository.
    #[must_use]
    pub fn names_one(&self) -> bool {
        self.get(|layer| layer.url.clone()).is_some()
    }

    /// The repository's address.
    ///
    /// # Errors
    /// `Usage` if there is none or it is no web address.
    pub fn url(&self) -> Result<Url> {
        let text = self.get(|layer| layer.url.clone()).ok_or_else(|| {
            Error::new(Kind::Usage, "no repository given").with_advice(
                "Name it (rdmfs mount https://zenodo.org MOUNTPOINT), or set INVENIORDM_URL, or url in config.toml.",
            )
        })?;
        parse_url(&text)
    }

    /// The token that belongs to `url`, if there is one.
    ///
    /// # Errors
    /// If a token file can't be read, or the token can't be one.
    pub fn token(&self, url: &Url) -> Result<Option<String>> {
        for layer in &self.layers {
            if layer.token.is_none() && layer.token_file.is_none() {
                continue;
            }
            let beside = layer.url.as_deref().and_then(|text| parse_url(text).ok());
            if beside.is_some_and(|beside| beside.origin() != url.origin()) {
                terminal::note(format_args!(
                    "the token of {} is for another repository and is not used",
                    layer.name
                ));
                continue;
            }
            let token = match (&layer.token, &layer.token_file) {
                (Some(token), _) => token.trim().to_owned(),
                (None, Some(file)) => sources::token_file(file)?,
                (None, None) => continue,
            };
            Token::new(&token).map_err(|error| error.during(&layer.name))?;
            return Ok(Some(token));
        }
        Ok(None)
    }

    /// Where the token is to be found again, and what is trusted: for commands on a path in the mount.
    #[must_use]
    pub fn access(&self) -> Access {
        Access {
            token_file: self.get(|layer| layer.token_file.clone()).map(absolute),
            env_file: self.get(|layer| layer.env_file.clone()).map(absolute),
            ca_certificate: self.ca_certificate(),
            insecure: self.insecure(),
        }
    }

    /// A CA certificate to trust.
    #[must_use]
    pub fn ca_certificate(&self) -> Option<PathBuf> {
        self.get(|layer| layer.ca_certificate.clone()).map(absolute)
    }

    /// Whether certificates are not checked.
    #[must_use]
    pub fn insecure(&self) -> bool {
        self.get(|layer| layer.insecure).unwrap_or(false)
    }

    /// Where published bytes are cached: one directory a repository, so that two mounts don't fight for one.
    ///
    /// # Errors
    /// If none is given and there is no home.
    pub fn cache_dir(&self, url: &Url) -> Result<PathBuf> {
        match self.get(|layer| layer.cache_dir.clone()) {
            Some(given) => Ok(absolute(given)),
            None => Ok(user_dir("XDG_CACHE_HOME", ".cache", "/var/cache")?.join(folder_name(url))),
        }
    }

    /// Where written files wait. `staging` keeps a folder in it for each repository and account.
    ///
    /// # Errors
    /// If none is given and there is no home.
    pub fn state_dir(&self) -> Result<PathBuf> {
        match self.get(|layer| layer.state_dir.clone()) {
            Some(given) => Ok(absolute(given)),
            None => user_state(),
        }
    }

    /// Where the daemon of a mount logs.
    ///
    /// # Errors
    /// If none is given and there is no home.
    pub fn log_file(&self, mountpoint: &Path) -> Result<PathBuf> {
        if let Some(given) = self.get(|layer| layer.log_file.clone()) {
            return Ok(absolute(given));
        }
        let name = mountpoint.to_string_lossy().trim_matches('/').replace('/', "-");
        Ok(user_state()?.join("log").join(format!("{name}.log")))
    }

    /// As many records of a search are listed.
    ///
    /// # Errors
    /// `Usage` for more than any repository lists, or none.
    fn search_limit(&self) -> Result<usize> {
        let limit = self.get(|layer| layer.search_limit).unwrap_or(500);
        if (1..=LARGEST_SEARCH).contains(&limit) {
            return Ok(limit);
        }
        Err(Error::new(
            Kind::Usage,
            format!("search_limit must be between 1 and {LARGEST_SEARCH}, not {limit}"),
        ))
    }

    /// Everything the daemon needs.
    ///
    /// # Errors
    /// If something is missing or makes no sense.
    pub fn mount_settings(&self, mountpoint: PathBuf) -> Result<MountSettings> {
        let url = self.url()?;
        let token = self.token(&url)?;
        warn_of_insecurity(&url, token.is_some(), self.insecure());
        let cache_dir = self.cache_dir(&url)?;
        let cache_size = self
            .get(|layer| layer.cache_size)
            .map_or_else(|| default_cache_size(&cache_dir), |size| size.0);
        let span = |field: fn(&Layer) -> Option<Span>, default| {
            self.get(field)
                .map_or(Duration::from_secs(default), |span| span.0)
        };
        let junk = self
            .get(|layer| layer.junk.clone())
            .unwrap_or_else(|| JUNK.map(str::to_owned).into());
        // Told here, where there is somebody to tell.
        Rules::new(&junk)?;
        let connections = self.count("connections", |layer| layer.connections)?;
        let size =
            |field: fn(&Layer) -> Option<Size>, default| self.get(field).map_or(default, |size| size.0);
        Ok(MountSettings {
            token,
            mountpoint,
            ca_certificate: self.ca_certificate(),
            insecure: self.insecure(),
            cache_dir,
            cache_size,
            state_dir: self.state_dir()?,
            close_wait: span(|layer| layer.close_wait, 30),
            metadata_ttl: span(|layer| layer.metadata_ttl, 60),
            draft_ttl: span(|layer| layer.draft_ttl, 5),
            connections,
            read_ahead: size(
                |layer| layer.read_ahead,
                READ_AHEAD.max(READ_AHEAD_EACH * connections as u64),
            ),
            memory: size(|layer| layer.memory, MEMORY),
            passthrough: self.get(|layer| layer.passthrough).unwrap_or(true),
            uploads: self.count("uploads", |layer| layer.uploads)?,
            junk,
            search_limit: self.search_limit()?,
            read_only: self.get(|layer| layer.read_only).unwrap_or(false),
            allow_other: self.get(|layer| layer.allow_other).unwrap_or(false),
            begin_offline: false,
            access: self.access(),
            options: self
                .layers
                .iter()
                .flat_map(|layer| layer.kernel.clone())
                .collect(),
            share_link: self
                .layers
                .first()
                .filter(|layer| layer.name == LINK)
                .and_then(|layer| layer.share_link.clone()),
            url: trimmed(&url).to_owned(),
        })
    }

    /// Repositories cut off clients with more than a few connections, so the limit is low.
    fn count(&self, name: &str, field: impl Fn(&Layer) -> Option<usize>) -> Result<usize> {
        let count = self.get(field).unwrap_or(4);
        if (1..=16).contains(&count) {
            return Ok(count);
        }
        Err(Error::new(
            Kind::Usage,
            format!("{name} must be between 1 and 16, not {count}"),
        ))
    }
}

/// The address as it is written everywhere: without a slash at its end.
fn trimmed(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

fn warn_of_insecurity(url: &Url, signed_in: bool, insecure: bool) {
    if insecure {
        terminal::note(
            "WARNING: --insecure: the server's certificate is not checked; anybody on the way can read the token and change the data",
        );
    }
    let host = url.host_str().unwrap_or_default();
    let local = host == "localhost" || host.starts_with("127.") || host == "[::1]";
    if signed_in && url.scheme() == "http" && !local {
        terminal::note(format_args!(
            "WARNING: {url} is not encrypted; anybody on the way can read the token. Use https:// if the server has it"
        ));
    }
}

/// Every directory in which a repository's cache may be, unless another was given.
///
/// # Errors
/// If there is no home.
pub fn cache_dirs() -> Result<Vec<PathBuf>> {
    let base = user_dir("XDG_CACHE_HOME", ".cache", "/var/cache")?;
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.sort();
    Ok(found)
}

fn user_state() -> Result<PathBuf> {
    user_dir("XDG_STATE_HOME", ".local/state", "/var/lib")
}

/// `$variable/rdmfs`, or below the home, or, for root without a home (mounting at boot), a place of the system's.
fn user_dir(variable: &str, below_home: &str, of_system: &str) -> Result<PathBuf> {
    let given = std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let base = match (given, home) {
        (Some(given), _) => given,
        (None, Some(home)) => home.join(below_home),
        (None, None) if fuse::is_root() => of_system.into(),
        (None, None) => {
            return Err(Error::new(
                Kind::Usage,
                "HOME is not set, so there is no place for rdmfs's files",
            )
            .with_advice("Set HOME, or give --cache-dir, --state-dir and --log-file."));
        }
    };
    Ok(base.join("rdmfs"))
}

/// The smaller of 20 GiB and a tenth of the disk.
fn default_cache_size(directory: &Path) -> u64 {
    let most = 20 << 30;
    disk(directory).map_or(most, |(total, _)| most.min(total / 10))
}

/// Bytes in all and free on the disk that holds, or will hold, a directory.
#[must_use]
pub fn disk(directory: &Path) -> Option<(u64, u64)> {
    directory.ancestors().find_map(|folder| {
        let stat = rustix::fs::statvfs(folder).ok()?;
        Some((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
    })
}

/// The daemon runs in `/`, so a path relative to here must not reach it.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, url: Option<&str>, token: Option<&str>) -> Layer {
        Layer {
            name: name.into(),
            url: url.map(Into::into),
            token: token.map(Into::into),
            ..Layer::default()
        }
    }

    #[test]
    fn the_first_source_that_says_something_wins() {
        let sources = Sources {
            layers: vec![
                layer("flags", None, None),
                layer("env file", Some("https://a.example"), Some("first")),
                layer("environment", None, Some("second")),
            ],
        };
        let url = sources.url().unwrap();
        assert_eq!(url.host_str(), Some("a.example"));
        assert_eq!(sources.token(&url).unwrap().as_deref(), Some("first"));
    }

    #[test]
    fn a_token_goes_only_to_the_repository_it_stands_beside() {
        let sources = Sources {
            layers: vec![
                layer("flags", Some("https://other.example"), None),
                layer("config", Some("https://a.example"), Some("secret")),
            ],
        };
        assert_eq!(sources.token(&sources.url().unwrap()).unwrap(), None);
    }

    fn with_link(link: &str, below: Vec<Layer>) -> Result<Sources> {
        let mut layers = vec![Layer {
            share_link: Some(link.into()),
            ..layer(COMMAND_LINE, None, None)
        }];
        layers.extend(below);
        Sources { layers }.follow_link()
    }

    const SHARED: &str = "https://a.example/records/abcde-12345?preview=1&token=s3cret";

    #[test]
    fn a_link_names_its_repository_and_wins_over_what_stands_below_it() {
        let below = vec![layer("config", Some("https://other.example"), Some("theirs"))];
        let sources = with_link(SHARED, below).unwrap();
        let url = sources.url().unwrap();
        assert_eq!(url.as_str(), "https://a.example/");
        assert_eq!(sources.token(&url).unwrap(), None);
        let settings = sources.mount_settings("/mnt".into()).unwrap();
        assert_eq!(
            settings.share_link.as_deref(),
            Some("https://a.example/records/abcde-12345?token=s3cret")
        );
        assert!(!format!("{settings:?}").contains("s3cret"));
    }

    #[test]
    fn a_link_that_leads_elsewhere_than_the_address_is_refused_without_repeating_it() {
        let layers = vec![Layer {
            share_link: Some(SHARED.into()),
            ..layer(COMMAND_LINE, Some("https://b.example"), None)
        }];
        let error = Sources { layers }.follow_link().err().unwrap();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert!(with_link("https://a.example/nothing", Vec::new()).is_err());
    }

    #[test]
    fn a_link_takes_no_token_along_that_names_no_repository() {
        let token = |below| {
            let sources = with_link(SHARED, below).unwrap();
            sources.token(&sources.url().unwrap()).unwrap()
        };
        assert_eq!(token(vec![layer("environment", None, Some("mine"))]), None);
        let beside = vec![layer("environment", Some("https://a.example/"), Some("mine"))];
        assert_eq!(token(beside).as_deref(), Some("mine"));
    }

    #[test]
    fn counts_are_kept_polite() {
        let sources = |uploads| Sources {
            layers: vec![Layer {
                uploads,
                ..Layer::default()
            }],
        };
        assert_eq!(sources(None).count("uploads", |l| l.uploads).unwrap(), 4);
        for wrong in [0, 17] {
            assert!(sources(Some(wrong)).count("uploads", |l| l.uploads).is_err());
        }
    }
}
