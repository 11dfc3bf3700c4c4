use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use pilotlight_cache::{
    Backend, BackendExt, DiskBackend, DiskOptions, Durability, Entry, Inline, Key, Maintenance, Namespace,
    SystemClock, When,
};

use crate::{Failure, Value};

/// What the values' namespaces let see of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Siblings {
    /// Each has its own.
    None,
    /// All have one.
    All,
}

/// What a store of the values takes, and how fast they are read out of it.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Of all entries, records and heads included, without rounding to blocks.
    pub(crate) stored_bytes: u64,
    /// Of the log and the payload files, as `du` counts them.
    pub(crate) disk_bytes: u64,
    /// Artifacts by the time of one core that it took.
    pub(crate) recompress_mb_s: Option<f64>,
    /// Artifacts by the time of one core that it takes to get and verify them, the page cache being warm.
    pub(crate) read_gb_s: f64,
    pub(crate) deltas: u64,
}

/// How long reading is measured, in seconds of one core.
const READ_FOR_S: f64 = 2.0;

/// Puts the values into a store of their own, measures, recompresses, and measures again.
pub(crate) fn measure(values: &[Value], siblings: Siblings) -> Result<(Measured, Measured), Failure> {
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let values: Vec<Value> = values
        .iter()
        .enumerate()
        .map(|(number, value)| {
            let name = if siblings == Siblings::None { format!("own{number}") } else { "all".to_owned() };
            let key = Key::in_namespace(Namespace::new(&name)?, value.key.bytes().clone());
            Ok(Value { key, ..value.clone() })
        })
        .collect::<Result<_, Failure>>()?;
    let disk = open(dir.path())?;
    for value in &values {
        runtime.block_on(disk.put(&value.key, Entry::new(value.bytes.clone()), When::Always))?;
    }
    let put = look(&disk, dir.path(), &values, &runtime)?;
    let begin = cpu_s();
    let report = disk.recompress(u64::MAX, &mut |_| ControlFlow::Continue(()))?;
    let took_s = cpu_s() - begin;
    let mut recompressed = look(&disk, dir.path(), &values, &runtime)?;
    let len: usize = values.iter().map(|value| value.bytes.len()).sum();
    recompressed.recompress_mb_s = Some(artifact_len(len) / took_s / 1e6);
    recompressed.deltas = report.deltas;
    // A store that is opened again has the same to say.
    drop(disk);
    let reopened = open(dir.path())?;
    check(&reopened, &values, &runtime)?;
    Ok((put, recompressed))
}

fn open(dir: &Path) -> Result<Arc<DiskBackend>, Failure> {
    let options = DiskOptions {
        dir: dir.to_owned(),
        max_bytes: 10 << 30,
        durability: Durability::Relaxed,
        clock: Arc::new(SystemClock),
        blocking: Arc::new(Inline),
        signers: None,
    };
    Ok(DiskBackend::open(options)?)
}

fn look(
    disk: &DiskBackend,
    dir: &Path,
    values: &[Value],
    runtime: &tokio::runtime::Runtime,
) -> Result<Measured, Failure> {
    let mut stored_bytes = 0;
    let namespaces: std::collections::HashSet<&Namespace> =
        values.iter().map(|value| value.key.namespace()).collect();
    for namespace in namespaces {
        stored_bytes += runtime.block_on(disk.usage(Some(namespace)))?.stored_bytes;
    }
    let len = check(disk, values, runtime)?;
    let (begin, mut rounds) = (cpu_s(), 0u32);
    while cpu_s() - begin < READ_FOR_S {
        for value in values {
            let found = runtime.block_on(disk.get(&value.key))?.ok_or("an entry is gone")?;
            std::hint::black_box(found.entry.artifact.verify()?);
        }
        rounds += 1;
    }
    let read_gb_s = artifact_len(len) * f64::from(rounds) / (cpu_s() - begin) / 1e9;
    let disk_bytes = disk_use(&dir.join("log"))? + disk_use(&dir.join("blobs"))?;
    Ok(Measured { stored_bytes, disk_bytes, recompress_mb_s: None, read_gb_s, deltas: 0 })
}

/// What this process took of all cores so far, in seconds. Others may be at work meanwhile, and wall time would count them.
fn cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What is in base64 in so much JSON.
fn artifact_len(json_len: usize) -> f64 {
    json_len as f64 * 3.0 / 4.0
}

/// Every value is what was put; gives their length.
fn check(disk: &DiskBackend, values: &[Value], runtime: &tokio::runtime::Runtime) -> Result<usize, Failure> {
    for value in values {
        let found = runtime.block_on(disk.get(&value.key))?.ok_or("an entry is gone")?;
        if found.entry.artifact.verify()?.bytes() != &value.bytes {
            return Err(format!("{:?} is not what was put", value.key).into());
        }
    }
    Ok(values.iter().map(|value| value.bytes.len()).sum())
}

fn disk_use(dir: &Path) -> Result<u64, Failure> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        bytes += entry?.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}
