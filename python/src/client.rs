//! The client as Python sees it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pilotlight_cache::Details;
use pilotlight_cache::client::{self, Label, Part, Settings, Signing, SigningNames, TlsFiles};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{IntoPyDict, PyBytes, PyDict};

use crate::entry::Entry;

/// A remote cache: a Pilotlight, a Redis, or a directory.
#[pyclass(frozen, module = "pilotlight._native")]
#[derive(Debug)]
pub(crate) struct Client(client::Client);

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (url, *, connect_timeout = 1.0, stall_timeout = 1.0, total_timeout = 10.0, trouble_budget = 2.0,
        max_bytes = 0, client_cert = None, client_key = None, server_ca = None, namespace = None, signing_key = None,
        verify = None, trust = None))]
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn new(
        url: &str,
        connect_timeout: f64,
        stall_timeout: f64,
        total_timeout: f64,
        trouble_budget: f64,
        max_bytes: u64,
        client_cert: Option<PathBuf>,
        client_key: Option<PathBuf>,
        server_ca: Option<PathBuf>,
        namespace: Option<String>,
        signing_key: Option<PathBuf>,
        verify: Option<String>,
        trust: Option<PathBuf>,
    ) -> PyResult<Self> {
        let settings = Settings {
            connect_timeout: seconds("connect_timeout", connect_timeout)?,
            stall_timeout: seconds("stall_timeout", stall_timeout)?,
            total_timeout: seconds("total_timeout", total_timeout)?,
            trouble_budget: seconds("trouble_budget", trouble_budget)?,
            max_bytes: if max_bytes == 0 { Settings::default().max_bytes } else { max_bytes },
            tls: TlsFiles { certificate: client_cert, key: client_key, authorities: server_ca },
        };
        let signing = Signing::of_names(&SigningNames { namespace, key: signing_key, verify, trust });
        let client = client::Client::signing(url, settings, signing);
        Ok(Self(client.map_err(|error| PyValueError::new_err(error.to_string()))?))
    }

    #[getter]
    fn url(&self) -> &str {
        self.0.url()
    }

    fn ping(&self, py: Python<'_>) -> Option<f64> {
        quietly(py, || self.0.ping()).map(|took| took.as_secs_f64())
    }

    fn get_many(&self, py: Python<'_>, keys: Vec<PyBackedBytes>) -> Vec<Option<Entry>> {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let entries = quietly(py, || self.0.get_many(&keys));
        let entries = if entries.len() == keys.len() { entries } else { vec![None; keys.len()] };
        entries.into_iter().map(|bare| bare.map(Entry)).collect()
    }

    fn has(&self, py: Python<'_>, keys: Vec<PyBackedBytes>) -> Option<Vec<bool>> {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        quietly(py, || self.0.has(&keys))
    }

    #[pyo3(signature = (key, fingerprint))]
    fn candidates(&self, key: &[u8], fingerprint: Option<&[u8]>) -> PyResult<Candidates> {
        Ok(Candidates(self.0.candidates(key, fingerprint.map(digest).transpose()?)))
    }

    #[pyo3(signature = (key, artifact, *, torch_json = false, compile_ms = 0, producer = None, fingerprint = None,
        components = Vec::new()))]
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn put(
        &self,
        py: Python<'_>,
        key: &[u8],
        artifact: PyBackedBytes,
        torch_json: bool,
        compile_ms: u64,
        producer: Option<String>,
        fingerprint: Option<&[u8]>,
        components: Vec<(u64, u64)>,
    ) -> PyResult<bool> {
        let label = label(torch_json, compile_ms, producer, fingerprint, components)?;
        let held = Held::new(artifact);
        let artifact = held.bytes();
        Ok(quietly(py, || self.0.put(key, artifact, label)))
    }

    #[pyo3(signature = (key, variant, artifact, *, torch_json = false, compile_ms = 0, producer = None,
        fingerprint = None, components = Vec::new()))]
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn put_variant(
        &self,
        py: Python<'_>,
        key: &[u8],
        variant: u64,
        artifact: PyBackedBytes,
        torch_json: bool,
        compile_ms: u64,
        producer: Option<String>,
        fingerprint: Option<&[u8]>,
        components: Vec<(u64, u64)>,
    ) -> PyResult<bool> {
        let label = label(torch_json, compile_ms, producer, fingerprint, components)?;
        let held = Held::new(artifact);
        let artifact = held.bytes();
        Ok(quietly(py, || self.0.put_variant(key, variant, artifact, label)))
    }

    fn get_raw<'py>(&self, py: Python<'py>, key: &[u8]) -> Option<Bound<'py, PyBytes>> {
        quietly(py, || self.0.get_raw(key)).map(|value| PyBytes::new(py, &value))
    }

    #[pyo3(signature = (key, value, *, compile_ms = 0))]
    fn put_raw(&self, py: Python<'_>, key: &[u8], value: PyBackedBytes, compile_ms: u64) -> bool {
        let held = Held::new(value);
        let value = held.bytes();
        quietly(py, || self.0.put_raw(key, value, saturated(compile_ms)))
    }

    fn lease(&self, py: Python<'_>, key: &[u8], limit: f64) -> PyResult<(&'static str, Option<Lease>)> {
        let limit = seconds("limit", limit)?;
        let mut interrupted = None;
        let goes_on = || {
            // Whoever waits for minutes must be able to stop it.
            interrupted = Python::attach(|py| py.check_signals()).err();
            interrupted.is_none()
        };
        let part = quietly(py, || Some(self.0.lease_while(key, limit, goes_on)));
        if let Some(error) = interrupted {
            return Err(error);
        }
        Ok(match part {
            Some(Part::Lead(lease)) => ("lead", Some(Lease(Some(lease)))),
            Some(Part::Look) => ("look", None),
            Some(Part::TimedOut) => ("timeout", None),
            Some(Part::Alone) | None => ("alone", None),
        })
    }

    fn delete(&self, py: Python<'_>, key: &[u8]) -> bool {
        quietly(py, || self.0.delete(key))
    }

    fn group(&self, py: Python<'_>, leader: &[u8], keys: Vec<PyBackedBytes>) -> usize {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        quietly(py, || self.0.group(leader, &keys))
    }

    fn quarantine(&self, py: Python<'_>, key: &[u8]) {
        quietly(py, || self.0.quarantine(key));
    }

    fn quarantine_variant(&self, py: Python<'_>, key: &[u8], entry: &Entry) {
        quietly(py, || self.0.quarantine_variant(key, &entry.0));
    }

    fn notice(&self) -> Option<String> {
        caught(|| self.0.notice())
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        caught(|| self.0.stats()).into_py_dict(py)
    }

    fn thread_stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        caught(|| self.0.thread_stats()).into_py_dict(py)
    }

    fn close(&self) {
        caught(|| self.0.close());
    }

    fn __repr__(&self) -> String {
        format!("<Client of {}>", self.0.url())
    }
}

/// See `Client.candidates`.
#[pyclass(module = "pilotlight._native")]
#[derive(Debug)]
pub(crate) struct Candidates(client::Candidates);

#[pymethods]
impl Candidates {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> Option<Entry> {
        quietly(py, || self.0.next()).map(Entry)
    }
}

/// See `Client.lease`.
#[pyclass(module = "pilotlight._native")]
#[derive(Debug)]
pub(crate) struct Lease(Option<client::Lease>);

#[pymethods]
impl Lease {
    fn put(&mut self, py: Python<'_>) {
        let lease = self.0.take();
        quietly(py, || lease.map(client::Lease::put));
    }

    fn release(&mut self, py: Python<'_>) {
        let lease = self.0.take();
        quietly(py, || drop(lease));
    }
}

/// Does `work` without the GIL, and survives it.
fn quietly<T: Default + Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    py.detach(|| caught(work))
}

/// A panic in `work` would be a defect of ours, and to Python an exception that `except Exception` lets through, into the user's
/// compile: here it is said by the panic hook, and the answer is that nothing was found or done.
fn caught<T: Default>(work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_default()
}

/// Python's bytes, lent to the client without a copy.
///
/// The last owner must give them back while it holds the GIL: without it pyo3 would note that behind a lock, which a fork
/// amid threads could leave locked for ever. So one owner stays outside of `detach`.
#[derive(Clone)]
struct Held(Arc<PyBackedBytes>);

impl Held {
    fn new(bytes: PyBackedBytes) -> Self {
        Self(Arc::new(bytes))
    }

    fn bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn label(
    is_torch_json: bool,
    compile_ms: u64,
    producer: Option<String>,
    fingerprint: Option<&[u8]>,
    components: Vec<(u64, u64)>,
) -> PyResult<Label> {
    let fingerprint = fingerprint.map(digest).transpose()?;
    let details = Details { producer, fingerprint, components, variant: None };
    Ok(Label { is_torch_json, compile_ms: saturated(compile_ms), details })
}

fn saturated(compile_ms: u64) -> u32 {
    u32::try_from(compile_ms).unwrap_or(u32::MAX)
}

fn digest(fingerprint: &[u8]) -> PyResult<[u8; 32]> {
    let len = fingerprint.len();
    let wrong = |_| PyValueError::new_err(format!("fingerprint of {len} bytes, expected 32"));
    fingerprint.try_into().map_err(wrong)
}

/// A timeout in seconds. The system knows none below a millisecond, and years are as good as for ever.
fn seconds(name: &str, seconds: f64) -> PyResult<Duration> {
    const MAX: f64 = 1e9;
    match Duration::try_from_secs_f64(seconds.min(MAX)) {
        Ok(duration) if !seconds.is_nan() => Ok(duration),
        Ok(_) | Err(_) => Err(PyValueError::new_err(format!("{name} of {seconds} s, expected 0 or more"))),
    }
}
