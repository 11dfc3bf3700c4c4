//! The result as JSON. Written by hand: it is one flat object of numbers.

use std::fmt::Write as _;

use crate::options::{Operation, Options};
use crate::run::Measured;

pub(crate) fn json(options: &Options, measured: &Measured) -> String {
    let seconds = measured.elapsed.as_secs_f64().max(1e-9);
    let operation = match options.operation {
        Operation::Fill => "fill",
        Operation::Get => "get",
        Operation::Set => "set",
    };
    let mut numbers: Vec<(&str, f64)> = vec![
        ("clients", options.clients as f64),
        ("pipeline", options.pipeline as f64),
        ("operations", measured.operations as f64),
        ("seconds", seconds),
        ("ops_per_s", measured.operations as f64 / seconds),
        ("mb_per_s", measured.bytes as f64 / seconds / 1e6),
        ("misses", measured.misses as f64),
        ("refused", measured.refused as f64),
        ("verified", measured.verified as f64),
    ];
    if options.operation != Operation::Fill {
        for (name, fraction) in [("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999)] {
            numbers.push((name, measured.latency.percentile_us(fraction)));
        }
    }
    if let Some(cpu) = measured.server_cpu {
        numbers
            .push(("server_cpu_us_per_op", cpu.as_secs_f64() * 1e6 / (measured.operations as f64).max(1.0)));
    }
    let mut text = format!("{{\"op\": \"{operation}\"");
    for (name, number) in numbers {
        // Writing to a String cannot fail.
        let _ = write!(text, ", \"{name}\": {}", (number * 1000.0).round() / 1000.0);
    }
    text.push('}');
    text
}
