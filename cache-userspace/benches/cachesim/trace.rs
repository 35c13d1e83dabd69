//! Traces: read, written, and generated with popularity after Zipf and sizes that are uniform in their logarithm.
//!
//! The format is text, one request a line: `time key bytes [namespace]`. Time is in seconds and only its order matters;
//! key and namespace are words without white space; empty lines and what follows a # are left out.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result};
use clap::Args;

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) key: u64,
    pub(crate) bytes: u64,
    pub(crate) namespace: u64,
}

/// Requests in their order.
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) requests: Vec<Request>,
}

/// What a generated trace looks like.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Requests.
    #[arg(long, default_value_t = 400_000)]
    requests: usize,
    /// Keys asked for again and again.
    #[arg(long, default_value_t = 50_000)]
    keys: usize,
    /// Exponent of Zipf's law.
    #[arg(long, default_value_t = 0.9)]
    alpha: f64,
    /// Share of the requests that belong to a scan, which asks for each key once.
    #[arg(long, default_value_t = 0.2)]
    scan: f64,
    /// Bytes of the smallest response.
    #[arg(long, default_value_t = 256)]
    bytes_min: u64,
    /// Bytes of the largest response.
    #[arg(long, default_value_t = 1 << 20)]
    bytes_max: u64,
    /// Makes another trace of the same shape.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Shape {
    /// The same without a scan.
    pub(crate) fn without_scan(self) -> Self {
        Self { scan: 0.0, ..self }
    }
}

/// Keys of scans begin here.
const SCANNED: u64 = 1 << 40;

/// The numbers of SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Trace {
    /// Makes a trace.
    pub(crate) fn generate(shape: &Shape) -> Self {
        let mut sum = 0.0;
        let popularity: Vec<f64> = (1..=shape.keys)
            .map(|rank| {
                sum += (rank as f64).powf(-shape.alpha);
                sum
            })
            .collect();
        let (min, max) = (shape.bytes_min.max(1) as f64, shape.bytes_max.max(1) as f64);
        let mut random = Random(shape.seed);
        let mut scanned = SCANNED;
        let requests = (0..shape.requests).map(|_| {
            let key = if random.fraction() < shape.scan {
                scanned += 1;
                scanned
            } else {
                let at = random.fraction() * sum;
                popularity.partition_point(|sum| *sum < at) as u64
            };
            let size = Random(key ^ shape.seed << 48).fraction();
            Request { key, bytes: (min * (max / min).powf(size)) as u64, namespace: 0 }
        });
        let scan =
            if shape.scan > 0.0 { format!(" + {:.0} % scan", shape.scan * 100.0) } else { String::new() };
        Self { name: format!("Zipf({}){scan}", shape.alpha), requests: requests.collect() }
    }

    /// Reads a trace.
    ///
    /// # Errors
    /// If the file cannot be read, or the line that is none.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let mut words = HashMap::new();
        let mut number = |word: &str| {
            let next = words.len() as u64;
            *words.entry(word.to_owned()).or_insert(next)
        };
        let mut requests = Vec::new();
        for (index, line) in
            BufReader::new(File::open(path).with_context(|| name.clone())?).lines().enumerate()
        {
            let line = line?;
            let mut fields = line.split('#').next().unwrap_or_default().split_whitespace();
            if fields.next().is_none() {
                continue;
            }
            let key = fields.next().map(&mut number);
            let request = key.zip(fields.next().and_then(|bytes| bytes.parse().ok()));
            let (key, bytes) =
                request.with_context(|| format!("{name}:{}: not `time key bytes [namespace]`", index + 1))?;
            requests.push(Request { key, bytes, namespace: number(fields.next().unwrap_or_default()) });
        }
        Ok(Self { name, requests })
    }

    /// Writes the trace, a second between requests.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn write(&self, file: File) -> Result<()> {
        let mut out = BufWriter::new(file);
        writeln!(out, "# {}: time key bytes namespace", self.name)?;
        for (time, Request { key, bytes, namespace }) in self.requests.iter().enumerate() {
            writeln!(out, "{time} {key} {bytes} {namespace}")?;
        }
        Ok(out.flush()?)
    }
}
