//! An origin in object storage: S3, and what speaks its protocol.
//!
//! The library's own retries and timeouts are off: [`super::guard`] has one set of rules for every origin.

use std::error::Error as _;
use std::fmt::{self, Write};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    ClientOptions, Error as StoreError, GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutOptions, PutPayload, RetryConfig,
};

use super::{About, Fetched, FirstPut, Listing, ObjectName, Origin, OriginError, Tag};

/// S3's names end at 1024 bytes; ours below the prefix take up to 260.
const PREFIX_LEN_MAX: usize = 512;
/// What is shown of an answer that says what is wrong.
const WHAT_LEN_MAX: usize = 300;

/// Where the objects are, and who we are there.
#[derive(Clone)]
pub struct ObjectSettings {
    bucket: String,
    prefix: String,
    /// Where the service is; that of AWS in its region if absent.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// What else is known, by the names of the variables that AWS' own tools read (`AWS_ACCESS_KEY_ID`, ...), the secret among
    /// them. Unknown names are skipped, the last value of a name counts.
    pub variables: Vec<(String, String)>,
}

impl ObjectSettings {
    /// Those of `s3://BUCKET/PREFIX`.
    ///
    /// # Errors
    /// What was expected.
    pub fn of_url(url: &str) -> Result<Self, String> {
        let expected = || "expected s3://BUCKET or s3://BUCKET/PREFIX".to_owned();
        let rest = url.strip_prefix("s3://").ok_or_else(expected)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_plain =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte));
        let prefix = prefix.trim_end_matches('/');
        if bucket.is_empty() || !is_plain(bucket) {
            return Err(expected());
        }
        if !is_plain(prefix)
            || prefix.len() > PREFIX_LEN_MAX
            || prefix.split('/').any(|part| part == "." || part == "..")
        {
            return Err(format!("{}, PREFIX of letters, digits, `-`, `.`, `_` and `/`", expected()));
        }
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        Ok(Self { bucket, prefix, endpoint: None, region: None, variables: Vec::new() })
    }
}

impl fmt::Debug for ObjectSettings {
    /// Without the variables: secrets are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ObjectSettings(s3://{}/{}, {:?}, {:?})",
            self.bucket, self.prefix, self.endpoint, self.region
        )
    }
}

/// Objects in one bucket, below one prefix.
#[derive(Debug)]
pub struct ObjectOrigin {
    store: Arc<dyn ObjectStore>,
    bucket: String,
    prefix: String,
    endpoint: Option<String>,
}

impl ObjectOrigin {
    /// The origin that these settings say. Nothing is asked of it yet.
    ///
    /// # Errors
    /// What does not fit together, in words.
    pub fn open(settings: ObjectSettings) -> Result<Self, String> {
        // One provider for all TLS of the process; whoever was first is as good.
        _ = rustls::crypto::ring::default_provider().install_default();
        let ObjectSettings { bucket, prefix, endpoint, region, variables } = settings;
        let mut builder = AmazonS3Builder::new();
        for (name, value) in variables {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        if let Some(region) = region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &endpoint {
            builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
        }
        let in_use = builder
            .get_config_value(&AmazonS3ConfigKey::S3Endpoint)
            .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
        let is_plain = in_use.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        // Without TLS there is no need for the system's certificates, which a small container may not have.
        let client = ClientOptions::new()
            .with_allow_http(is_plain)
            .with_no_system_certificates(is_plain)
            .with_timeout_disabled()
            .with_connect_timeout_disabled();
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let store = builder
            .with_bucket_name(&bucket)
            .with_client_options(client)
            .with_retry(retry)
            // A request for many deletions at once is what half of the engines do not know.
            .with_disable_bulk_delete(true)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { store: Arc::new(store), bucket, prefix, endpoint: in_use })
    }

    fn path(&self, name: &str) -> Result<Path, OriginError> {
        let whole = if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Path::parse(whole).map_err(|error| OriginError::Rejected { what: error.to_string() })
    }

    /// The name of an object below our prefix.
    fn name(&self, path: &Path) -> Option<ObjectName> {
        let below = path.as_ref().strip_prefix(&self.prefix)?;
        Some(ObjectName::given(below.trim_start_matches('/')))
    }

    async fn put_with(
        &self,
        name: &ObjectName,
        object: Vec<Bytes>,
        mode: PutMode,
    ) -> Result<Option<Tag>, StoreError> {
        let path =
            self.path(name.as_str()).map_err(|error| StoreError::NotSupported { source: error.into() })?;
        let payload = PutPayload::from_iter(object);
        let put = self.store.put_opts(&path, payload, PutOptions::from(mode)).await?;
        Ok(put.e_tag.map(Tag))
    }
}

#[async_trait]
impl Origin for ObjectOrigin {
    async fn get(
        &self,
        name: &ObjectName,
        max_bytes: u64,
        unless: Option<&Tag>,
    ) -> Result<Fetched, OriginError> {
        let path = self.path(name.as_str())?;
        let options = GetOptions { if_none_match: unless.map(|tag| tag.0.clone()), ..GetOptions::default() };
        match self.store.get_opts(&path, options).await {
            Ok(found) => receive(found, max_bytes).await,
            Err(StoreError::NotModified { .. }) => Ok(Fetched::Unchanged),
            Err(error) => is_absent(error).map(|()| Fetched::Absent),
        }
    }

    async fn head(&self, name: &ObjectName) -> Result<Option<About>, OriginError> {
        match self.store.head(&self.path(name.as_str())?).await {
            Ok(meta) => Ok(Some(about(&meta))),
            Err(error) => is_absent(error).map(|()| None),
        }
    }

    async fn put(&self, name: &ObjectName, object: Vec<Bytes>) -> Result<Option<Tag>, OriginError> {
        self.put_with(name, object, PutMode::Overwrite).await.map_err(|error| failure(&error))
    }

    async fn put_if_absent(&self, name: &ObjectName, object: Vec<Bytes>) -> Result<FirstPut, OriginError> {
        match self.put_with(name, object, PutMode::Create).await {
            Ok(tag) => Ok(FirstPut::Stored(tag)),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(FirstPut::Taken),
            Err(error) => Err(failure(&error)),
        }
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), OriginError> {
        match self.store.delete(&self.path(name.as_str())?).await {
            Ok(()) => Ok(()),
            Err(error) => is_absent(error),
        }
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectName>,
        limit: usize,
    ) -> Result<Listing, OriginError> {
        let prefix = self.path(prefix.trim_end_matches('/'))?;
        let found = match after {
            None => self.store.list(Some(&prefix)),
            Some(after) => self.store.list_with_offset(Some(&prefix), &self.path(after.as_str())?),
        };
        let found: Vec<ObjectMeta> =
            found.take(limit).try_collect().await.or_else(|error| is_absent(error).map(|()| Vec::new()))?;
        let is_truncated = found.len() >= limit;
        let objects =
            found.iter().filter_map(|meta| Some((self.name(&meta.location)?, about(meta)))).collect();
        Ok(Listing { objects, is_truncated })
    }
}

impl fmt::Display for ObjectOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        match &self.endpoint {
            // What could be a secret in a URL stands in front of an `@`.
            Some(endpoint) => write!(f, " at {}", endpoint.rsplit('@').next().unwrap_or(endpoint)),
            None => Ok(()),
        }
    }
}

fn about(meta: &ObjectMeta) -> About {
    About {
        size_bytes: meta.size,
        modified_ms: u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0),
        tag: meta.e_tag.clone().map(Tag),
    }
}

/// The bytes as they come, into memory that was asked for only as far as the limit goes.
async fn receive(found: GetResult, max_bytes: u64) -> Result<Fetched, OriginError> {
    let about = about(&found.meta);
    let too_large = |size_bytes| OriginError::TooLarge { size_bytes, max_bytes };
    if about.size_bytes > max_bytes {
        return Err(too_large(about.size_bytes));
    }
    let mut pieces = found.into_stream();
    let mut whole = BytesMut::new();
    let expected = usize::try_from(about.size_bytes).unwrap_or(usize::MAX);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| failure(&error))?;
        if whole.is_empty() && piece.len() == expected {
            return Ok(Fetched::Object { bytes: piece, about });
        }
        if whole.is_empty() {
            whole.reserve(expected);
        }
        if (whole.len() + piece.len()) as u64 > max_bytes {
            return Err(too_large((whole.len() + piece.len()) as u64));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(Fetched::Object { bytes: whole.freeze(), about })
}

/// Whether it says no more than that the object is not there.
fn is_absent(error: StoreError) -> Result<(), OriginError> {
    match failure(&error) {
        no_bucket @ OriginError::NoBucket { .. } => Err(no_bucket),
        _ if matches!(error, StoreError::NotFound { .. }) => Ok(()),
        failure => Err(failure),
    }
}

/// The cause. The library tells statuses apart, and leaves what S3 says in its body as a text.
fn failure(error: &StoreError) -> OriginError {
    let said = chain(error);
    let code = between(&said, "<Code>", "</Code>").unwrap_or_default();
    let what = match between(&said, "<Message>", "</Message>") {
        Some(message) => format!("{code}: {message}"),
        None if !code.is_empty() => code.to_owned(),
        None => shown(&said),
    };
    let status = between(&said, "status code: ", " ").unwrap_or_default();
    let is_lost = said.contains("redirect without LOCATION");
    match (code, error) {
        ("NoSuchBucket", _) => OriginError::NoBucket { what },
        ("RequestTimeTooSkewed", _) => OriginError::Skewed { what },
        ("SlowDown" | "Throttling" | "RequestLimitExceeded", _) => OriginError::Throttled { what },
        // What some answer with 400, and is about who asks.
        (
            "AccessDenied"
            | "AuthorizationHeaderMalformed"
            | "ExpiredToken"
            | "InvalidAccessKeyId"
            | "InvalidToken"
            | "NotSignedUp"
            | "SignatureDoesNotMatch",
            _,
        ) => OriginError::Denied { what },
        ("NotImplemented", _) | (_, StoreError::NotImplemented { .. }) => {
            OriginError::Unsupported { what: "what was asked" }
        }
        (_, StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }) => {
            OriginError::Denied { what }
        }
        // Where there are no credentials, the library asks the machine for those of its role.
        _ if said.contains("169.254.169.254") => {
            OriginError::Denied { what: "there are no credentials".to_owned() }
        }
        _ if is_lost => OriginError::NoBucket { what: "it is in another region".to_owned() },
        _ if status.starts_with("503") || status.starts_with("429") => OriginError::Throttled { what },
        _ if status.starts_with("501") => OriginError::Unsupported { what: "what was asked" },
        _ if status.starts_with('4') => OriginError::Rejected { what },
        _ if status.starts_with('5') || !code.is_empty() => OriginError::Failed { what },
        (_, StoreError::Generic { .. }) => OriginError::Unreachable { what },
        _ => OriginError::Failed { what },
    }
}

/// What an error and its causes say.
fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a `String` cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// The last cause, which says most in the fewest words.
fn shown(said: &str) -> String {
    let last = said.rsplit(": ").find(|part| !part.trim().is_empty()).unwrap_or(said);
    last.chars().take(WHAT_LEN_MAX).collect()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = text.split_once(before)?.1;
    Some(rest.split_once(after)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    #[test]
    fn urls_are_understood_and_what_is_no_bucket_is_refused() {
        for (url, expected) in [
            ("s3://bucket", Some(("bucket", ""))),
            ("s3://bucket/", Some(("bucket", ""))),
            ("s3://bucket/a/b/", Some(("bucket", "a/b"))),
            ("s3://", None),
            ("s3:///x", None),
            ("bucket", None),
            ("https://bucket", None),
            ("s3://bucket/../x", None),
            ("s3://user:secret@bucket/x", None),
            ("s3://bucket/a b", None),
        ] {
            let settings = ObjectSettings::of_url(url).ok();
            let found =
                settings.as_ref().map(|settings| (settings.bucket.as_str(), settings.prefix.as_str()));
            assert_eq!(found, expected, "{url}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let mut settings = ObjectSettings::of_url("s3://bucket/prefix").unwrap();
        settings.endpoint = Some("http://user:hidden@127.0.0.1:9".to_owned());
        settings.variables = vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), "id".to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "hidden".to_owned()),
            ("AWS_SOMETHING_NEW".to_owned(), "hidden".to_owned()),
        ];
        let shown = format!("{:?}", ObjectSettings { endpoint: None, ..settings.clone() });
        assert!(!shown.contains("hidden"), "{shown}");
        let origin = ObjectOrigin::open(settings).unwrap();
        assert_eq!(origin.to_string(), "s3://bucket/prefix at 127.0.0.1:9");
    }

    #[test]
    fn names_stay_below_the_prefix_and_come_back() {
        for url in ["s3://bucket", "s3://bucket/a/b"] {
            let mut settings = ObjectSettings::of_url(url).unwrap();
            settings.variables = vec![
                ("aws_access_key_id".to_owned(), "id".to_owned()),
                ("aws_secret_access_key".to_owned(), "secret".to_owned()),
            ];
            let origin = ObjectOrigin::open(settings).unwrap();
            let namespace = crate::Namespace::new("a/../b é").unwrap();
            let name = ObjectName::of(&Key::in_namespace(namespace, "k"));
            let path = origin.path(name.as_str()).unwrap();
            assert!(
                path.as_ref().starts_with(&origin.prefix) && path.as_ref().ends_with(name.as_str()),
                "{path}"
            );
            assert_eq!(origin.name(&path), Some(name));
        }
    }

    #[test]
    fn what_the_service_says_decides_the_cause() {
        let generic = |text: &str| StoreError::Generic { store: "S3", source: text.into() };
        let body = |code: &str| format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        let status = |number: u16, code: &str| {
            generic(&format!("Server returned non-2xx status code: {number} Some Reason: {}", body(code)))
        };
        let denied =
            |code: &str| StoreError::PermissionDenied { path: "p".to_owned(), source: body(code).into() };
        let absent = |code: &str| StoreError::NotFound { path: "p".to_owned(), source: body(code).into() };
        let what = |text: &str| text.to_owned();
        for (error, expected) in [
            (status(503, "SlowDown"), OriginError::Throttled { what: what("SlowDown: m") }),
            (
                generic("status code: 503 Service Unavailable: "),
                OriginError::Throttled { what: what("503 Service Unavailable") },
            ),
            (status(500, "InternalError"), OriginError::Failed { what: what("InternalError: m") }),
            (status(400, "EntityTooLarge"), OriginError::Rejected { what: what("EntityTooLarge: m") }),
            (status(400, "ExpiredToken"), OriginError::Denied { what: what("ExpiredToken: m") }),
            (
                status(400, "SignatureDoesNotMatch"),
                OriginError::Denied { what: what("SignatureDoesNotMatch: m") },
            ),
            (denied("InvalidAccessKeyId"), OriginError::Denied { what: what("InvalidAccessKeyId: m") }),
            (denied("RequestTimeTooSkewed"), OriginError::Skewed { what: what("RequestTimeTooSkewed: m") }),
            (absent("NoSuchBucket"), OriginError::NoBucket { what: what("NoSuchBucket: m") }),
            (
                generic("tcp connect error: Connection refused"),
                OriginError::Unreachable { what: what("Connection refused") },
            ),
        ] {
            assert_eq!(failure(&error), expected);
        }
        assert!(is_absent(absent("NoSuchKey")).is_ok());
        assert!(is_absent(absent("NoSuchBucket")).is_err());
    }
}
