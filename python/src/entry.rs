//! An entry as Python sees it.

use pilotlight_cache::Details;
use pilotlight_cache::envelope::Bare;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// An artifact whose digest was checked, and what is known about it.
#[pyclass(frozen, module = "pilotlight._native")]
#[derive(Debug)]
pub(crate) struct Entry(pub(crate) Bare);

impl Entry {
    fn details(&self) -> Option<&Details> {
        self.0.metadata.details.as_deref()
    }
}

#[pymethods]
impl Entry {
    #[getter]
    fn artifact<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.artifact)
    }

    #[getter]
    fn torch_json(&self) -> bool {
        self.0.frame.is_some()
    }

    #[getter]
    fn compile_ms(&self) -> u32 {
        self.0.metadata.compile_ms
    }

    #[getter]
    fn created_ms(&self) -> u64 {
        self.0.metadata.created_ms
    }

    #[getter]
    fn producer(&self) -> Option<&str> {
        self.details()?.producer.as_deref()
    }

    #[getter]
    fn fingerprint<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        Some(PyBytes::new(py, &self.details()?.fingerprint?))
    }

    #[getter]
    fn variant(&self) -> Option<u64> {
        self.details()?.variant
    }

    #[getter]
    fn components(&self) -> Vec<(u64, u64)> {
        self.details().map(|details| details.components.clone()).unwrap_or_default()
    }

    fn __repr__(&self) -> String {
        let shape = if self.0.frame.is_some() { ", torch_json" } else { "" };
        format!("<Entry of {} bytes{shape}>", self.0.artifact.len())
    }
}
