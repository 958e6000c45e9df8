//! Reads a daemon's page of numbers as Prometheus does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// A daemon answers within six seconds; the rest is an emulated machine's.
const PATIENCE: Duration = Duration::from_secs(90);

/// One answer.
#[derive(Debug)]
pub struct Page(String);

impl Page {
    /// Scrapes the daemon at `address`.
    pub fn read(address: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        ensure!(page.starts_with("HTTP/1.1 200 "), "{page}");
        Ok(Page(page))
    }

    /// Whether it has this line.
    pub fn has_line(&self, line: &str) -> bool {
        self.0.lines().any(|one| one == line)
    }

    /// The value of the one row of `name` that has all these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let start = format!("{name}{{");
        let fits = |line: &&str| {
            let has =
                |(label, value): &(&str, &str)| line.contains(&format!("{label}=\"{value}\""));
            line.starts_with(&start) && labels.iter().all(has)
        };
        let mut rows = self.0.lines().filter(fits);
        let row = rows
            .next()
            .with_context(|| format!("no {name} {labels:?} in {}", self.0))?;
        ensure!(
            rows.next().is_none(),
            "two of {name} {labels:?} in {}",
            self.0
        );
        let value = row.rsplit(' ').next().context("no value")?;
        Ok(value.parse()?)
    }
}
