//! Which proxy, if any, a request goes through: the usual environment variables, but never for this machine itself.
//!
//! Read once when the client is made. There is one decision for the client and for what `mount` says about it.

use std::net::IpAddr;
use std::sync::Arc;

use reqwest::{NoProxy, Proxy, Url};

use crate::error::{Error, Kind, Result};

/// What the environment says about proxies.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    exempt: Vec<String>,
}

impl Proxies {
    /// Reads `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, each also in lower case.
    pub(super) fn from_env() -> Result<Self> {
        Proxies::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let first = |name: &str| {
            [name.to_owned(), name.to_lowercase()]
                .iter()
                .find_map(|name| variable(name).filter(|value| !value.trim().is_empty()))
        };
        let proxy = |name: &str| {
            first(name)
                .or_else(|| first("ALL_PROXY"))
                .map(|value| parse(&value, name))
                .transpose()
        };
        Ok(Proxies {
            http: proxy("HTTP_PROXY")?,
            https: proxy("HTTPS_PROXY")?,
            exempt: first("NO_PROXY")
                .unwrap_or_default()
                .split(',')
                .map(|part| part.trim().trim_start_matches('.').to_lowercase())
                .filter(|part| !part.is_empty())
                .collect(),
        })
    }

    /// The proxy for this URL.
    pub(super) fn for_url(&self, url: &Url) -> Option<&Url> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref(),
            _ => self.http.as_ref(),
        }?;
        let host = url.host_str()?.trim_matches(['[', ']']).to_lowercase();
        (!is_this_machine(&host) && !self.is_exempt(&host)).then_some(proxy)
    }

    fn is_exempt(&self, host: &str) -> bool {
        self.exempt.iter().any(|part| {
            part == "*"
                || part == host
                || host
                    .strip_suffix(part.as_str())
                    .is_some_and(|rest| rest.ends_with('.'))
                || in_network(host, part)
        })
    }

    /// The same decision as a rule for the HTTP library.
    pub(super) fn into_rule(self) -> Proxy {
        let proxies = Arc::new(self);
        Proxy::custom(move |url| proxies.for_url(url).cloned()).no_proxy(None::<NoProxy>)
    }
}

/// `host:3128` means `http://host:3128`, as everywhere.
fn parse(value: &str, name: &str) -> Result<Url> {
    let value = value.trim();
    let full = if value.contains("://") {
        value.to_owned()
    } else {
        format!("http://{value}")
    };
    // The value is not repeated: it may hold a password.
    match Url::parse(&full) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() => Ok(url),
        Ok(url) => Err(Error::new(
            Kind::Usage,
            format!(
                "the proxy in {name} (or ALL_PROXY) is of the kind {}, which is not supported",
                url.scheme()
            ),
        )
        .with_advice("Use an http:// proxy, or unset the variable.")),
        Err(error) => Err(Error::new(
            Kind::Usage,
            format!("the proxy in {name} (or ALL_PROXY) is no address: {error}"),
        )
        .with_advice("Correct or unset the variable.")),
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether `host` is an address in `network`, written `10.0.0.0/8`.
fn in_network(host: &str, network: &str) -> bool {
    let bits = |text: &str| -> Option<(u128, u32)> {
        match text.parse().ok()? {
            IpAddr::V4(address) => Some((u128::from(address.to_bits()), 32)),
            IpAddr::V6(address) => Some((address.to_bits(), 128)),
        }
    };
    let Some((address, prefix)) = network.split_once('/') else {
        return false;
    };
    match (bits(host), bits(address), prefix.parse::<u32>()) {
        (Some((host, width)), Some((net, net_width)), Ok(prefix))
            if width == net_width && prefix <= width =>
        {
            (host ^ net).checked_shr(width - prefix).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Result<Proxies> {
        Proxies::read(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn used(proxies: &Proxies, url: &str) -> Option<String> {
        proxies
            .for_url(&Url::parse(url).unwrap())
            .map(|url| url.to_string())
    }

    #[test]
    fn a_proxy_is_used_for_others_and_never_for_this_machine() {
        let proxies = proxies(&[
            ("https_proxy", "proxy.example:3128"),
            ("NO_PROXY", "intern.example, 10.0.0.0/8,fd00::/8"),
        ])
        .unwrap();
        assert_eq!(
            used(&proxies, "https://zenodo.org/api").as_deref(),
            Some("http://proxy.example:3128/")
        );
        for direct in [
            "http://zenodo.org",
            "https://localhost:5000",
            "https://127.0.0.2",
            "https://[::1]:1",
            "https://intern.example",
            "https://a.INTERN.example",
            "https://10.1.2.3",
            "https://[fd00::1]",
        ] {
            assert_eq!(used(&proxies, direct), None, "{direct}");
        }
        assert!(used(&proxies, "https://notintern.example").is_some());
        assert!(used(&proxies, "https://11.1.2.3").is_some());
    }

    #[test]
    fn all_proxy_serves_both_and_a_star_exempts_all() {
        let both = proxies(&[("ALL_PROXY", "http://p:1")]).unwrap();
        assert!(used(&both, "http://a.example").is_some() && used(&both, "https://a.example").is_some());
        let none = proxies(&[("ALL_PROXY", "http://p:1"), ("no_proxy", "*")]).unwrap();
        assert_eq!(used(&none, "https://a.example"), None);
    }

    #[test]
    fn a_proxy_that_can_not_be_used_is_said_and_its_password_is_not() {
        for value in ["socks5://u:hunter2@p:1", "http://u:hunter2@["] {
            let error = proxies(&[("ALL_PROXY", value)]).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
