//! Who may ask: the holder of the password, where one is set.

use std::hint::black_box;

use axum::http::{HeaderMap, StatusCode, header};

use super::problem::Refusal;

/// Checks the `Authorization` header against `password`: `Bearer <password>`, or `Basic` with any user name.
pub(super) fn check(headers: &HeaderMap, password: &str) -> Result<(), Refusal> {
    let refusal = |error: &str| Refusal::new(StatusCode::UNAUTHORIZED, error);
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Err(refusal("a password is needed")
            .with_hint("send `Authorization: Bearer PASSWORD`, or the password with any user name"));
    };
    if offered(value.as_bytes()).is_some_and(|offered| is_equal(&offered, password.as_bytes())) {
        return Ok(());
    }
    Err(refusal("wrong password"))
}

/// The password that a header value carries.
fn offered(value: &[u8]) -> Option<Vec<u8>> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(space);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = base64_simd::STANDARD.decode_to_vec(rest).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.get(colon + 1..).map(<[u8]>::to_vec)
}

/// Compares without telling by its duration where the two differ. The length is no secret.
fn is_equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && black_box(left.iter().zip(right).fold(0, |seen, (left, right)| black_box(seen | (left ^ right))))
            == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: &str) -> Option<StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        check(&headers, "s3:cret").err().map(|refusal| refusal.status)
    }

    #[test]
    fn bearer_and_basic_carry_the_password() {
        let basic = |pair: &str| format!("Basic {}", base64_simd::STANDARD.encode_to_string(pair));
        assert_eq!(status("Bearer s3:cret"), None);
        assert_eq!(status("bearer  s3:cret"), None);
        assert_eq!(status(&basic("anyone:s3:cret")), None);
        assert_eq!(status(&basic(":s3:cret")), None);
        for wrong in
            ["Bearer s3:creT", "Bearer", "Bearer s3", "Digest s3:cret", "Basic !!!", &basic("s3cret")]
        {
            assert_eq!(status(wrong), Some(StatusCode::UNAUTHORIZED), "{wrong}");
        }
        assert!(check(&HeaderMap::new(), "s3:cret").is_err());
    }
}
