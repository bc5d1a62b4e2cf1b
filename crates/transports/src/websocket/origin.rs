//! Whose pages may connect: browsers say in `Origin` where the page that opens a WebSocket is from,
//! since nothing else keeps it from doing so with the user's cookies.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Uri};

/// Whether a request may become a WebSocket.
pub(super) fn allows(origins: &[String], headers: &HeaderMap, authority: Option<&str>) -> bool {
    let mut given = headers.get_all(ORIGIN).iter();
    let Some(origin) = given.next() else {
        // no browser: nothing else has cookies that are not its own
        return true;
    };
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    if given.next().is_some() {
        return false;
    }
    let host = authority.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
    origins.iter().any(|allowed| match allowed.as_str() {
        "*" => true,
        "same" => host.is_some_and(|host| is_same(origin, host)),
        allowed => allowed.eq_ignore_ascii_case(origin),
    })
}

/// Whether an origin is the host and port that were asked for.
fn is_same(origin: &str, host: &str) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else {
        return false;
    };
    let usual = match origin.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    let Ok(host) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let Some(theirs) = origin.authority() else {
        return false;
    };
    theirs.host().eq_ignore_ascii_case(host.host())
        && theirs.port_u16().unwrap_or(usual) == host.port_u16().unwrap_or(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(origins: &[&str], origin: Option<&str>, host: &str) -> bool {
        let origins: Vec<String> = origins.iter().map(|&o| o.to_owned()).collect();
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        allows(&origins, &headers, None)
    }

    #[test]
    fn pages_of_the_same_host_and_programs_may_connect() {
        let same = &["same"][..];
        assert!(asks(same, None, "example.org"));
        assert!(asks(same, Some("https://example.org"), "example.org"));
        assert!(asks(
            same,
            Some("http://EXAMPLE.org:8080"),
            "example.org:8080"
        ));
        assert!(asks(same, Some("http://example.org"), "example.org:80"));
        assert!(asks(same, Some("http://[::1]:8080"), "[::1]:8080"));
        for other in [
            "https://example.org.evil.com",
            "https://evil.com",
            "http://example.org:8080",
            "null",
            "",
            "file://example.org",
        ] {
            assert!(!asks(same, Some(other), "example.org"), "{other}");
        }
    }

    #[test]
    fn others_that_are_named_may_too() {
        let list = &["https://a.example", "https://b.example:8443"][..];
        assert!(asks(list, Some("https://a.example"), "example.org"));
        assert!(asks(list, Some("https://b.example:8443"), "example.org"));
        assert!(!asks(list, Some("https://b.example"), "example.org"));
        assert!(!asks(list, Some("https://example.org"), "example.org"));
        assert!(asks(&["*"], Some("null"), "example.org"));
        assert!(!asks(&[], Some("https://a.example"), "example.org"));
    }

    #[test]
    fn two_origins_are_none() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "a".parse().unwrap());
        headers.append(ORIGIN, "http://a".parse().unwrap());
        headers.append(ORIGIN, "http://b".parse().unwrap());
        assert!(!allows(&["same".to_owned()], &headers, None));
    }
}
