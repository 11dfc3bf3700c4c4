//! From a request's URI to a key. The only place that decodes percent signs.

use axum::http::{StatusCode, Uri};
use percent_encoding::percent_decode_str;
use pilotlight_cache::{KEY_LEN_MAX, Key, Namespace};

use super::problem::Refusal;

/// What stands before every key.
pub(super) const PREFIX: &str = "/cache/";

/// The key that `uri` names in `namespace`: all of the path after the prefix, slashes and dots included, percent-decoded once.
pub(super) fn behind(prefix: &str, uri: &Uri, namespace: Namespace) -> Result<Key, Refusal> {
    let encoded = uri.path().strip_prefix(prefix).unwrap_or_default();
    let bytes: Vec<u8> = percent_decode_str(encoded).collect();
    if bytes.is_empty() {
        return Err(
            Refusal::bad_request("the key is empty").with_hint(format!("name an entry as `{prefix}KEY`"))
        );
    }
    if bytes.len() > KEY_LEN_MAX {
        return Err(Refusal::new(
            StatusCode::URI_TOO_LONG,
            format!("key of {} bytes, expected at most {KEY_LEN_MAX}", bytes.len()),
        ));
    }
    Ok(Key::in_namespace(namespace, bytes))
}

/// The namespace that `uri` names, if it names one: else it is the home of whoever asks.
pub(super) fn namespace(uri: &Uri) -> Result<Option<Namespace>, Refusal> {
    let name = parameter(uri, "namespace")?;
    Ok(name.map(|name| Namespace::new(&name)).transpose()?)
}

/// The value of the query parameter `name`. Of repeated ones the first counts; unknown ones are ignored.
pub(super) fn parameter(uri: &Uri, name: &str) -> Result<Option<String>, Refusal> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let Some(value) = pairs.filter_map(|pair| pair.split_once('=')).find(|(found, _)| *found == name) else {
        return Ok(None);
    };
    match percent_decode_str(value.1).decode_utf8() {
        Ok(value) => Ok(Some(value.into_owned())),
        Err(_) => Err(Refusal::bad_request(format!("`{name}` is not UTF-8"))),
    }
}

/// As [`parameter`], a number, with a default.
pub(super) fn number(uri: &Uri, name: &str, default: u64) -> Result<u64, Refusal> {
    match parameter(uri, name)? {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| Refusal::bad_request(format!("`{name}` is `{text}`, expected a whole number"))),
    }
}

/// The same, a yes or no; no where it is absent.
pub(super) fn flag(uri: &Uri, name: &str) -> Result<bool, Refusal> {
    match parameter(uri, name)?.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(text) => Err(Refusal::bad_request(format!("`{name}` is `{text}`, expected `true` or `false`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(uri: &'static str) -> Vec<u8> {
        behind(PREFIX, &Uri::from_static(uri), Namespace::default()).unwrap().bytes().to_vec()
    }

    #[test]
    fn a_key_is_every_byte_after_the_prefix() {
        assert_eq!(key("/cache/ac/0123"), b"ac/0123");
        assert_eq!(key("/cache/../../etc/passwd"), b"../../etc/passwd");
        assert_eq!(key("/cache/%00%ff%2F%25"), b"\x00\xff/%");
        assert_eq!(key("/cache//"), b"/");
        // Not a form: a plus is a plus.
        assert_eq!(key("/cache/a+b"), b"a+b");
        // A stray percent sign is kept as it came.
        assert_eq!(key("/cache/100%"), b"100%");
    }

    #[test]
    fn the_namespace_is_a_parameter() {
        let named = |uri| namespace(&Uri::from_static(uri));
        let name = |uri| named(uri).unwrap().map(|named| named.as_str().to_owned());
        assert_eq!(name("/cache/k?other=1&namespace=team%20a").as_deref(), Some("team a"));
        assert_eq!(name("/cache/k?namespace=").as_deref(), Some(""));
        assert_eq!(name("/cache/k?other=1"), None);
        assert!(named("/cache/k?namespace=%ff").is_err());
    }

    #[test]
    fn a_key_over_the_limit_is_414() {
        let uri: Uri = format!("/cache/{}", "k".repeat(KEY_LEN_MAX + 1)).parse().unwrap();
        assert_eq!(behind(PREFIX, &uri, Namespace::default()).unwrap_err().status, StatusCode::URI_TOO_LONG);
    }
}
