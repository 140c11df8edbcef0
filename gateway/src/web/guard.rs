//! PURE. Who may see the page. A loopback address keeps other hosts out, but not other sites in a browser of this host: those are told by
//! the name they call us by, and by what their browser says of them.

use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode};

use super::WebConfig;

/// Why a request gets no answer.
pub(super) type Refusal = (StatusCode, &'static str);

const READ_ONLY: Refusal = (StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD: this page only reads");
const NO_HOST: Refusal = (StatusCode::BAD_REQUEST, "no Host");
const WRONG_HOST: Refusal = (
    StatusCode::MISDIRECTED_REQUEST,
    "not the name of this page: use localhost or the address it listens on, or name this one in [web] hosts",
);
const OTHER_SITE: Refusal = (StatusCode::FORBIDDEN, "not for other sites");

/// Whether somebody at `peer` may connect.
pub(super) fn admits(config: &WebConfig, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback() || config.accept_from.iter().any(|prefix| prefix.contains(&peer))
}

/// Whether to answer a request that came to the address `local`.
pub(super) fn check(
    config: &WebConfig,
    local: IpAddr,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(READ_ONLY);
    }
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(HOST).ok_or(NO_HOST)?;
    // A name that an attacker's DNS lets point here is not ours.
    if !is_own_name(config, local, host) {
        return Err(WRONG_HOST);
    }
    if text(ORIGIN).is_some_and(|origin| origin != format!("http://{host}")) {
        return Err(OTHER_SITE);
    }
    let fetch = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match fetch("sec-fetch-site") {
        None | Some("same-origin" | "none") => Ok(()),
        // A link elsewhere may lead here; it learns nothing.
        Some(_) if path == "/" && fetch("sec-fetch-mode") == Some("navigate") => {
            let is_page = fetch("sec-fetch-dest") == Some("document");
            if is_page { Ok(()) } else { Err(OTHER_SITE) }
        }
        Some(_) => Err(OTHER_SITE),
    }
}

/// Whether `host`, whatever its port, is what this page is called.
fn is_own_name(config: &WebConfig, local: IpAddr, host: &str) -> bool {
    let Some(name) = without_port(host) else { return false };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(name).parse::<IpAddr>() {
        return address.is_loopback() || address == local.to_canonical();
    }
    let name = name.to_ascii_lowercase();
    name == "localhost" || config.hosts.contains(&name)
}

fn without_port(host: &str) -> Option<&str> {
    match host.rsplit_once(':') {
        // An IPv6 address has colons of its own.
        Some((name, _)) if host.starts_with('[') && !name.ends_with(']') => Some(host),
        Some((name, port)) => port.bytes().all(|b| b.is_ascii_digit()).then_some(name),
        None => Some(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> WebConfig {
        WebConfig {
            listen: "127.0.0.1:8043".parse().unwrap(),
            accept_from: vec!["192.0.2.0/24".parse().unwrap()],
            hosts: vec!["pxtr1.example.net".to_owned()],
        }
    }

    fn ask(path: &str, headers: &[(&'static str, &str)]) -> Result<(), StatusCode> {
        let headers = headers.iter().map(|(name, value)| {
            (axum::http::HeaderName::from_static(name), value.parse().unwrap())
        });
        let local = "127.0.0.1".parse().unwrap();
        check(&config(), local, &Method::GET, path, &headers.collect()).map_err(|refusal| refusal.0)
    }

    #[test]
    fn op_01_only_this_host_and_those_named_may_connect() {
        let admits = |peer: &str| admits(&config(), peer.parse().unwrap());
        assert!(admits("127.0.0.1") && admits("::1") && admits("192.0.2.9"));
        assert!(admits("::ffff:192.0.2.9"));
        assert!(!admits("198.51.100.1") && !admits("2001:db8::1"));
    }

    #[test]
    fn op_01_names_that_point_here_from_elsewhere_are_not_answered() {
        for host in [
            "localhost",
            "localhost:8043",
            "127.0.0.1:9000",
            "[::1]:8043",
            "[::1]",
            "PXTR1.example.net:80",
        ] {
            assert_eq!(ask("/", &[("host", host)]), Ok(()), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8043", "198.51.100.1:8043", "localhost.evil.example", ""]
        {
            let refused = Err(StatusCode::MISDIRECTED_REQUEST);
            assert_eq!(ask("/", &[("host", host)]), refused, "{host}");
        }
        assert_eq!(ask("/", &[]), Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn op_01_other_sites_are_not_answered() {
        let host = ("host", "localhost:8043");
        let from = |origin| ask("/api/live", &[host, ("origin", origin)]);
        assert_eq!(from("http://localhost:8043"), Ok(()));
        for origin in
            ["null", "http://evil.example", "http://localhost:8044", "https://localhost:8043"]
        {
            assert_eq!(from(origin), Err(StatusCode::FORBIDDEN), "{origin}");
        }
        let fetched = |path, site, mode, dest| {
            let said =
                [("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
            ask(path, &[&[host], &said[..]].concat())
        };
        let refused = Err(StatusCode::FORBIDDEN);
        assert_eq!(fetched("/api/live", "same-origin", "cors", "empty"), Ok(()));
        assert_eq!(fetched("/", "none", "navigate", "document"), Ok(()));
        assert_eq!(fetched("/", "cross-site", "navigate", "document"), Ok(()));
        assert_eq!(fetched("/", "cross-site", "navigate", "iframe"), refused);
        assert_eq!(fetched("/", "cross-site", "no-cors", "script"), refused);
        assert_eq!(fetched("/api/live", "cross-site", "navigate", "document"), refused);
        assert_eq!(fetched("/api/live", "same-site", "cors", "empty"), refused);
    }

    #[test]
    fn op_01_nothing_can_be_changed() {
        let headers = HeaderMap::new();
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            let refused = check(&config(), "127.0.0.1".parse().unwrap(), &method, "/", &headers);
            assert_eq!(refused, Err(READ_ONLY), "{method}");
        }
    }
}
