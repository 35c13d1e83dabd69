//! The closed loop: wrk, whose connections each ask again as soon as an answer is there.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::keys::Keys;
use crate::comparison::plan::Load;
use crate::comparison::site::Site;
use crate::process::Process;
use crate::scratch::Scratch;

/// Targets in a list, which wrk goes through again and again.
const TARGETS: usize = 1 << 16;

/// What wrk runs: requests are made before they are needed, but for those whose target is new each time.
const SCRIPT: &str = r#"
local list, at, unique = {}, 0, 0
function init(args)
  local close = args[3] == "close" and { ["Connection"] = "close" } or nil
  for line in io.lines(args[1]) do
    if line:sub(-3) == "?u=" then
      local made = wrk.format("GET", line .. "@", close)
      local from = made:find("@", 1, true)
      list[#list + 1] = { made:sub(1, from - 1) .. args[2] .. ".", made:sub(from + 1) }
    else
      list[#list + 1] = wrk.format("GET", line, close)
    end
  end
  at = tonumber(args[4]) % #list
end
function request()
  at = at % #list + 1
  local one = list[at]
  if type(one) == "string" then return one end
  unique = unique + 1
  return one[1] .. unique .. one[2]
end
"#;

/// What one run did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Run {
    /// Requests in a second.
    pub per_second: f64,
    /// Requests, all in all.
    pub requests: u64,
    /// Those that failed or had another status.
    pub errors: u64,
}

/// A load's list of targets, and the script that asks for them.
#[derive(Debug)]
pub struct Closed {
    scratch: Scratch,
    load: Load,
    threads: u32,
    duration: Duration,
}

impl Closed {
    /// Writes both.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn new(load: Load, prefix: &str, threads: u32, duration: Duration) -> Result<Self> {
        let scratch = Scratch::new()?;
        scratch.write("load.lua", SCRIPT)?;
        scratch.write("targets", Keys::of(load, prefix).lines(TARGETS, 1)?)?;
        Ok(Self { scratch, load, threads, duration })
    }

    /// Starts wrk in a client pod; `salt` is a word that no other run has.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(&self, site: &Site, pod: usize, salt: &str) -> Result<Process> {
        let manner = if self.load.is_new_connection { "close" } else { "keep" };
        // Each round begins elsewhere in the list.
        let from = salt.bytes().fold(0_usize, |sum, byte| sum * 31 % TARGETS + usize::from(byte));
        let words = [
            "wrk".to_owned(),
            format!("-t{}", self.threads),
            format!("-c{}", self.load.connections.max(self.threads)),
            // Parts of a second are unknown to wrk.
            format!("-d{}s", self.duration.as_secs().max(1)),
            "--timeout".to_owned(),
            "10s".to_owned(),
            "-s".to_owned(),
            self.scratch.file("load.lua").display().to_string(),
            format!("{}://{}/", self.load.scheme(), site.addr_of(self.load)),
            "--".to_owned(),
            self.scratch.file("targets").display().to_string(),
            salt.to_owned(),
            manner.to_owned(),
            from.to_string(),
        ];
        Process::start(&mut site.client(pod, words)?)
    }

    /// Waits for its end and reads what it printed.
    ///
    /// # Errors
    /// If it failed or printed nothing that can be read.
    pub fn finish(&self, wrk: Process) -> Result<Run> {
        let text = wrk.finish(self.duration + Duration::from_secs(60))?.succeeded()?.text();
        read(&text).with_context(|| text)
    }
}

/// Reads what wrk prints.
fn read(text: &str) -> Result<Run> {
    let line = |word: &str| text.lines().find(|line| line.contains(word));
    let per_second = line("Requests/sec:").and_then(|line| line.split(':').nth(1)).context("no figure")?;
    let requests =
        line(" requests in ").and_then(|line| line.split_whitespace().next()).context("no count")?;
    let non_2xx =
        line("Non-2xx").and_then(|line| line.split(':').nth(1)).map_or(Ok(0), |n| n.trim().parse())?;
    let numbers =
        |line: &str| line.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).sum::<u64>();
    let errors = non_2xx + line("Socket errors").map_or(0, numbers);
    let run = Run { per_second: per_second.trim().parse()?, requests: requests.parse()?, errors };
    ensure!(run.requests > 0, "no request was answered");
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_read() -> Result<()> {
        let text = "Running 1s test @ http://10.77.1.2:80/\n  1 threads and 16 connections\n\
                    \x20 Thread Stats   Avg      Stdev     Max   +/- Stdev\n\
                    \x20 72043 requests in 1.00s, 91.5MB read\n\
                    \x20 Socket errors: connect 1, read 2, write 0, timeout 3\n\
                    \x20 Non-2xx or 3xx responses: 4\nRequests/sec:  71892.39\nTransfer/sec:     91.4MB\n";
        assert_eq!(read(text)?, Run { per_second: 71892.39, requests: 72043, errors: 10 });
        assert!(read("").is_err());
        Ok(())
    }
}
