//! Where settings come from besides flags: the env file, the environment, `config.toml` and its profiles.
//!
//! Each source becomes a [`Layer`]; `settings` lays them over each other.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cli::terminal;
use crate::cli::units::{Size, Span};
use crate::error::{Error, Kind, Result};
use crate::repository::Token;

/// Nothing that holds a secret is longer; a file that is was named by mistake.
const LONGEST_SECRET: u64 = 64 << 10;

/// What one source says; `None` where it says nothing.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// What the user calls the source; for messages.
    #[serde(skip)]
    pub name: String,
    /// The repository's address.
    pub url: Option<String>,
    /// The token itself; only the environment and env files hold one.
    #[serde(skip)]
    pub token: Option<String>,
    /// A file that holds the token.
    pub token_file: Option<PathBuf>,
    /// A file with `INVENIORDM_URL=` and `INVENIORDM_TOKEN=`.
    pub env_file: Option<PathBuf>,
    /// The link to a shared record; only the command line, the environment and env files hold one.
    #[serde(skip)]
    pub share_link: Option<String>,
    /// A file that holds the link to a shared record.
    pub share_link_file: Option<PathBuf>,
    /// Where published bytes are cached.
    pub cache_dir: Option<PathBuf>,
    /// Bytes of cache at most.
    pub cache_size: Option<Size>,
    /// Where written files are staged.
    pub state_dir: Option<PathBuf>,
    /// How long close() waits for the upload.
    pub close_wait: Option<Span>,
    /// How long what is known of published records counts as current.
    pub metadata_ttl: Option<Span>,
    /// How long what is known of drafts counts as current.
    pub draft_ttl: Option<Span>,
    /// Parallel connections for reading.
    pub connections: Option<usize>,
    /// How far sequential readers are read ahead of.
    pub read_ahead: Option<Size>,
    /// Bytes fetched ahead for all readers together.
    pub memory: Option<Size>,
    /// Uploads at the same time.
    pub uploads: Option<usize>,
    /// Patterns for names of files that are never sent, instead of the built-in ones.
    pub junk: Option<Vec<String>>,
    /// Let the kernel read verified files of the cache by itself.
    pub passthrough: Option<bool>,
    /// As many records of a search are listed.
    pub search_limit: Option<usize>,
    /// Refuse every write.
    pub read_only: Option<bool>,
    /// Let other users in.
    pub allow_other: Option<bool>,
    /// A CA certificate to trust.
    pub ca_certificate: Option<PathBuf>,
    /// Don't check certificates.
    pub insecure: Option<bool>,
    /// Where the daemon logs.
    pub log_file: Option<PathBuf>,
    /// Options for the kernel.
    #[serde(skip)]
    pub kernel: Vec<String>,
}

/// `config.toml`: the settings at its top, and named sets of them.
#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    top: toml::Table,
    #[serde(default)]
    profile: BTreeMap<String, Layer>,
}

/// `INVENIORDM_URL`, `INVENIORDM_TOKEN` and `INVENIORDM_SHARE_LINK` of the environment.
#[must_use]
pub fn environment() -> Layer {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    Layer {
        name: "the environment".into(),
        url: variable("INVENIORDM_URL"),
        token: variable("INVENIORDM_TOKEN"),
        share_link: variable("INVENIORDM_SHARE_LINK"),
        ..Layer::default()
    }
}

/// Reads an env file: lines `NAME=value`, with comments, `export` and quotes as a shell has them. Other names are
/// left alone, so that a file made for something else as well can be used.
///
/// # Errors
/// If it can't be read or a line is neither.
pub fn env_file(path: &Path) -> Result<Layer> {
    let text = read_secret(path, "env file")?;
    let mut layer = Layer {
        name: path.display().to_string(),
        ..Layer::default()
    };
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            // The line itself is not shown: it may be a token.
            return Err(Error::new(
                Kind::Usage,
                format!("line {} of {} is not NAME=value", number + 1, path.display()),
            ));
        };
        let value = Some(unquote(value.trim()).to_owned()).filter(|value| !value.is_empty());
        match name.trim() {
            "INVENIORDM_URL" => layer.url = value,
            "INVENIORDM_TOKEN" => layer.token = value,
            "INVENIORDM_SHARE_LINK" => layer.share_link = value,
            _ => {}
        }
    }
    Ok(layer)
}

/// In quotes everything counts; without, a blank and `#` begin a comment.
fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            return rest.split(quote).next().unwrap_or(rest);
        }
    }
    value.split(" #").next().unwrap_or(value).trim_end()
}

/// Reads a token file: the token alone, blanks around it don't count.
///
/// # Errors
/// If it can't be read or holds no token.
pub fn token_file(path: &Path) -> Result<String> {
    let text = read_secret(path, "token file")?;
    let token = text.trim();
    Token::new(token).map_err(|error| {
        error
            .during(format!("token file {}", path.display()))
            .with_advice("It should hold one line, the token, as the repository's account settings show it.")
    })?;
    Ok(token.to_owned())
}

/// Reads a file that holds the link to a shared record: the link alone, blanks around it don't count. `-` is stdin.
///
/// # Errors
/// If it can't be read.
pub fn share_link_file(path: &Path) -> Result<String> {
    let text = match path.as_os_str() == "-" {
        true => read_small(std::io::stdin())
            .map_err(|error| Error::local("can't read the link from stdin", &error))?,
        false => read_secret(path, "link file")?,
    };
    Ok(text.trim().to_owned())
}

/// Reads a text of which the beginning is enough to tell that it is too long to be meant.
fn read_small(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(LONGEST_SECRET).read_to_string(&mut text)?;
    Ok(text)
}

/// Reads a small file that holds a secret, and warns if others can read it too.
fn read_secret(path: &Path, kind: &str) -> Result<String> {
    let shown = path.display();
    let text = std::fs::File::open(path)
        .and_then(read_small)
        .map_err(|error| Error::local(format!("can't read the {kind} {shown}"), &error))?;
    let mode = path
        .metadata()
        .map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        terminal::note(format_args!(
            "warning: others can read the {kind} {shown}; chmod 600 {shown} keeps it private"
        ));
    }
    Ok(text)
}

/// Reads `config.toml`: the profile's settings, if one is asked for, over those at the top. No file is no error,
/// unless a profile is asked for.
///
/// # Errors
/// If it can't be read or understood, or has no such profile.
pub fn config(path: &Path, profile: Option<&str>) -> Result<Vec<Layer>> {
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && profile.is_none() => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::local(format!("can't read {shown}"), &error)),
    };
    let wrong = |error: toml::de::Error| {
        Error::new(
            Kind::Usage,
            format!("{shown} can't be understood: {}", error.message()),
        )
        .with_advice("The README lists the settings it may hold.")
    };
    let mut config: Config = toml::from_str(&text).map_err(wrong)?;
    let mut top: Layer = config.top.try_into().map_err(wrong)?;
    top.name = shown.to_string();
    let mut layers = Vec::new();
    if let Some(profile) = profile {
        let mut chosen = config.profile.remove(profile).ok_or_else(|| {
            let known: Vec<&str> = config.profile.keys().map(String::as_str).collect();
            Error::new(Kind::Usage, format!("{shown} has no profile '{profile}'")).with_advice(format!(
                "It has: {}.",
                if known.is_empty() {
                    "none".into()
                } else {
                    known.join(", ")
                }
            ))
        })?;
        chosen.name = format!("profile {profile} of {shown}");
        layers.push(chosen);
    }
    layers.push(top);
    // A leading ~/ is what people write; no shell is there to expand it.
    for layer in &mut layers {
        for path in [
            &mut layer.token_file,
            &mut layer.share_link_file,
            &mut layer.env_file,
            &mut layer.cache_dir,
            &mut layer.state_dir,
            &mut layer.ca_certificate,
            &mut layer.log_file,
        ] {
            if let (Some(given), Some(home)) = (path.as_mut(), std::env::home_dir())
                && let Ok(rest) = given.strip_prefix("~")
            {
                *given = home.join(rest);
            }
        }
    }
    Ok(layers)
}

/// What is after `-o`: our own settings by their names, and what mount(8) hands to every helper.
///
/// # Errors
/// `Usage` for an option that neither we nor the kernel know.
pub fn mount_options(options: &[String]) -> Result<Layer> {
    let mut layer = Layer {
        name: "-o".into(),
        ..Layer::default()
    };
    for option in options.iter().flat_map(|list| list.split(',')).map(str::trim) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            // For mount(8), systemd and the boot process, not for us; we keep no access times.
            "" | "defaults" | "_netdev" | "noauto" | "auto" | "nofail" | "user" | "users" | "nouser"
            | "owner" | "group" | "comment" | "relatime" | "norelatime" | "strictatime" | "lazytime"
            | "nodiratime" | "diratime" => {}
            _ if name.starts_with("x-") || name.starts_with("X-") => {}
            "ro" => layer.read_only = Some(true),
            "rw" => layer.read_only = Some(false),
            "allow_other" => layer.allow_other = Some(true),
            "no_passthrough" => layer.passthrough = Some(false),
            "insecure" => layer.insecure = Some(true),
            "dev" | "nodev" | "suid" | "nosuid" | "exec" | "noexec" | "atime" | "noatime" | "sync"
            | "async" | "dirsync" => layer.kernel.push(name.into()),
            "token_file" => layer.token_file = Some(value.into()),
            "share_link_file" => layer.share_link_file = Some(value.into()),
            "env_file" => layer.env_file = Some(value.into()),
            "cache_dir" => layer.cache_dir = Some(value.into()),
            "state_dir" => layer.state_dir = Some(value.into()),
            "ca_certificate" => layer.ca_certificate = Some(value.into()),
            "log_file" => layer.log_file = Some(value.into()),
            "cache_size" => layer.cache_size = Some(parsed(name, value)?),
            "close_wait" => layer.close_wait = Some(parsed(name, value)?),
            "metadata_ttl" => layer.metadata_ttl = Some(parsed(name, value)?),
            "draft_ttl" => layer.draft_ttl = Some(parsed(name, value)?),
            "connections" => layer.connections = Some(parsed(name, value)?),
            "read_ahead" => layer.read_ahead = Some(parsed(name, value)?),
            "memory" => layer.memory = Some(parsed(name, value)?),
            "uploads" => layer.uploads = Some(parsed(name, value)?),
            "search_limit" => layer.search_limit = Some(parsed(name, value)?),
            _ => {
                // Only the name: the value may be a secret that was put in the wrong place.
                return Err(Error::new(Kind::Usage, format!("unknown mount option '{name}'"))
                    .with_advice("rdmfs mount --help lists the options."));
            }
        }
    }
    Ok(layer)
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str, value: &str) -> Result<T> {
    value
        .parse()
        .map_err(|error| Error::new(Kind::Usage, format!("-o {name}={value}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn an_env_file_is_read_as_a_shell_reads_it() {
        let file = file(
            "# my repository\n\nexport INVENIORDM_URL='https://example.org'  # the test one\nOTHER=1\n\
             INVENIORDM_TOKEN=abc123 # mine\n",
        );
        let layer = env_file(file.path()).unwrap();
        assert_eq!(layer.url.as_deref(), Some("https://example.org"));
        assert_eq!(layer.token.as_deref(), Some("abc123"));
    }

    #[test]
    fn a_wrong_line_is_numbered_and_not_shown() {
        let file = file("INVENIORDM_URL=https://example.org\nsecret-token\n");
        let error = env_file(file.path()).err().unwrap();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn a_token_file_holds_one_word() {
        assert_eq!(token_file(file("  abc\n").path()).unwrap(), "abc");
        for wrong in ["", "\n", "two words", "line\nline"] {
            assert_eq!(
                token_file(file(wrong).path()).unwrap_err().kind(),
                Kind::Usage,
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_profile_lies_over_the_top_of_the_config() {
        let file = file(
            "cache_size = \"5G\"\nconnections = 2\n[profile.tuw]\nurl = \"https://example.org\"\nconnections = 8\n",
        );
        let layers = config(file.path(), Some("tuw")).unwrap();
        assert_eq!(layers[0].url.as_deref(), Some("https://example.org"));
        assert_eq!(layers[0].connections, Some(8));
        assert_eq!(layers[1].connections, Some(2));
        assert_eq!(layers[1].cache_size, Some(Size(5 << 30)));
        assert!(
            config(file.path(), Some("other"))
                .err()
                .unwrap()
                .advice()
                .contains("none")
                || !layers.is_empty()
        );
    }

    #[test]
    fn a_mistyped_or_secret_setting_is_an_error() {
        for wrong in [
            "cache_sise = 1",
            "token = \"abc\"",
            "[profile.a]\nnope = 1",
            "cache_size = \"many\"",
            "= 3",
        ] {
            assert_eq!(
                config(file(wrong).path(), None).err().unwrap().kind(),
                Kind::Usage,
                "{wrong}"
            );
        }
        assert!(
            config(Path::new("/nonexistent/config.toml"), None)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn mount_options_are_ours_the_kernels_or_for_somebody_else() {
        let layer = mount_options(&[
            "ro,nodev,_netdev,x-systemd.automount".into(),
            "cache_size=1G,user=me".into(),
        ])
        .unwrap();
        assert_eq!(layer.read_only, Some(true));
        assert_eq!(layer.cache_size, Some(Size(1 << 30)));
        assert_eq!(layer.kernel, ["nodev"]);
        let error = mount_options(&["token=secret".into()]).err().unwrap();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(!error.to_string().contains("secret"));
    }
}
