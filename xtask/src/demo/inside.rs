//! What the demo runs under `sidestep exec`: real HTTP clients of this machine, none of which knows of a cache.
//!
//! Each exchange is written to stdout as a line of JSON, for the demo outside to print and to judge.

use std::{fmt, fs, os::unix::fs::MetadataExt, path::Path, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::origin;
use crate::machine;

/// How often each client asks for its URL: once for the origin, once for the cache.
const REQUESTS_EACH: usize = 2;

/// Where the origin is, and where files may be written.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    folder: PathBuf,
}

/// A client: the program it needs, its name in the table and in its URL, its arguments before URL and file.
///
/// Each takes a URL and a file, writes the content into the file, and prints seconds, status and Cache-Status.
struct Client {
    program: &'static str,
    title: &'static str,
    word: &'static str,
    script: [&'static str; 2],
}

const CLIENTS: [Client; 4] = [
    Client { program: "sh", title: "curl", word: "curl", script: ["-c", CURL] },
    Client { program: "python3", title: "Python urllib", word: "python", script: ["-c", PYTHON] },
    Client { program: "node", title: "Node fetch", word: "node", script: ["-e", NODE] },
    Client { program: "perl", title: "Perl HTTP::Tiny", word: "perl", script: ["-e", PERL] },
];

const CURL: &str = r#"curl -sS --noproxy '*' -o "$1" -D "$1.head" -w '%{time_total} %{http_code} ' "$0" &&
sed -n 's/^[Cc]ache-[Ss]tatus: *//p' "$1.head""#;

const PYTHON: &str = "
import sys, time, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
start = time.perf_counter()
answer = opener.open(sys.argv[1])
content = answer.read()
print(time.perf_counter() - start, answer.status, answer.headers.get('Cache-Status', ''))
open(sys.argv[2], 'wb').write(content)
";

const NODE: &str = "
const [url, file] = process.argv.slice(1);
(async () => {
    await fetch('data:,'); // Node loads its HTTP client at the first use: 30 ms that are nobody's answer
    const start = performance.now();
    const answer = await fetch(url);
    const content = Buffer.from(await answer.arrayBuffer());
    const seconds = (performance.now() - start) / 1000;
    console.log(seconds, answer.status, answer.headers.get('cache-status') ?? '');
    require('fs').writeFileSync(file, content);
})();
";

const PERL: &str = r#"
use HTTP::Tiny; use Time::HiRes 'time';
my $client = HTTP::Tiny->new(http_proxy => undef, proxy => undef);
my $start = time;
my $answer = $client->get($ARGV[0]);
printf "%f %d %s\n", time - $start, $answer->{status}, $answer->{headers}{'cache-status'} // '';
open my $file, '>:raw', $ARGV[1] or die; print $file $answer->{content};
"#;

/// How to find out whether a client's library is there as well; `true` where the program is enough.
fn is_here(client: &Client) -> bool {
    let probe: &[&str] = match client.word {
        "curl" => &["-c", "command -v curl"],
        "node" => &["-e", "fetch"],
        "perl" => &["-MHTTP::Tiny", "-MTime::HiRes", "-e", "1"],
        _ => &["--version"],
    };
    machine::has(client.program)
        && Command::new(client.program).args(probe).output().is_ok_and(|output| output.status.success())
}

/// Lets every client that is here ask for its own URL, and reports each exchange.
///
/// # Errors
/// If no client is here, or one of them fails.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (path, id) = own_cgroup()?;
    println!("{}", json!({ "cgroup": path, "cgroup_id": id }));
    let mut clients = 0;
    for client in CLIENTS.iter().filter(|client| is_here(client)) {
        clients += 1;
        for _ in 0..REQUESTS_EACH {
            println!("{}", ask(client, arguments)?.to_json());
        }
    }
    if clients == 0 {
        bail!("none of curl, Python, Node and Perl is here: install one of them");
    }
    Ok(())
}

fn ask(client: &Client, arguments: &Arguments) -> Result<Exchange> {
    let target = format!("/hello?from={}", client.word);
    let url = format!("http://127.0.0.1:{}{target}", arguments.port);
    let file = arguments.folder.join(client.word);
    let mut command = Command::new(client.program);
    command.args(client.script).arg(url).arg(&file);
    // A proxy of this machine's configuration would be asked instead of the origin.
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "NODE_USE_ENV_PROXY"] {
        command.env_remove(name);
    }
    let output = command.output().with_context(|| format!("{} did not start", client.title))?;
    if !output.status.success() {
        bail!("{}: {}: {}", client.title, output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut fields = said.trim().splitn(3, ' ');
    let mut field = || fields.next().with_context(|| format!("{} printed {said:?}", client.title));
    let (seconds, status) = (field()?.parse()?, field()?.parse()?);
    let cache_status = fields.next().unwrap_or_default().to_owned();
    let identical = fs::read(&file)? == origin::content(&target);
    Ok(Exchange { client: client.title.to_owned(), target, seconds, status, cache_status, identical })
}

/// The cgroup2 folder that this process is in, and the kernel's number for it.
fn own_cgroup() -> Result<(PathBuf, u64)> {
    let memberships = fs::read_to_string("/proc/self/cgroup")?;
    let path = memberships.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup2")?;
    let folder: PathBuf = machine::cgroup2().context("cgroup2 is not mounted")?.join(Path::new(path));
    let id = fs::metadata(&folder).with_context(|| folder.display().to_string())?.ino();
    Ok((folder, id))
}

/// One request and its answer, as the client saw them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Exchange {
    /// The client's name.
    pub(super) client: String,
    /// The request target.
    pub(super) target: String,
    /// From before the connection to the last byte, in seconds, by the client's own clock.
    pub(super) seconds: f64,
    /// The status code.
    pub(super) status: u64,
    /// The value of Cache-Status (RFC 9211); empty without one.
    pub(super) cache_status: String,
    /// Whether the content is the origin's, byte by byte.
    pub(super) identical: bool,
}

/// Who answered a request, by its Cache-Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnsweredBy {
    Origin,
    Cache,
    Unknown,
}

impl fmt::Display for AnsweredBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Origin => "origin",
            Self::Cache => "cache",
            Self::Unknown => "?",
        })
    }
}

impl Exchange {
    /// Who answered, by Sidestep's parameters in Cache-Status.
    pub(super) fn answered_by(&self) -> AnsweredBy {
        let mut parts = self.cache_status.split(';').map(str::trim);
        if parts.next() != Some("sidestep") {
            return AnsweredBy::Unknown;
        }
        parts
            .find_map(|part| match part {
                "hit" => Some(AnsweredBy::Cache),
                part if part.starts_with("fwd=") => Some(AnsweredBy::Origin),
                _ => None,
            })
            .unwrap_or(AnsweredBy::Unknown)
    }

    fn to_json(&self) -> Value {
        json!({
            "client": self.client, "target": self.target, "seconds": self.seconds, "status": self.status,
            "cache_status": self.cache_status, "identical": self.identical,
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name)?.as_str().map(str::to_owned);
        Some(Self {
            client: text("client")?,
            target: text("target")?,
            seconds: value.get("seconds")?.as_f64()?,
            status: value.get("status")?.as_u64()?,
            cache_status: text("cache_status")?,
            identical: value.get("identical")?.as_bool()?,
        })
    }
}

/// What the inside told the outside.
#[derive(Debug, PartialEq)]
pub(super) struct Report {
    /// The folder of the cgroup that the clients ran in.
    pub(super) cgroup: PathBuf,
    /// The kernel's number for it.
    pub(super) cgroup_id: u64,
    /// Every exchange, in order.
    pub(super) exchanges: Vec<Exchange>,
}

impl Report {
    /// Reads what `run` printed.
    ///
    /// # Errors
    /// If a line is not of it.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let lines: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
        let lines = lines.with_context(|| format!("the inside printed {text:?}"))?;
        let first = lines.first().context("the inside printed nothing")?;
        let cgroup = first.get("cgroup").and_then(Value::as_str).context("no cgroup")?.into();
        let cgroup_id = first.get("cgroup_id").and_then(Value::as_u64).context("no cgroup id")?;
        let exchanges: Option<Vec<Exchange>> = lines.iter().skip(1).map(Exchange::from_json).collect();
        Ok(Self { cgroup, cgroup_id, exchanges: exchanges.context("an exchange lacks a field")? })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An exchange of this client with this Cache-Status and nothing wrong.
    pub(crate) fn exchange(client: &str, cache_status: &str) -> Exchange {
        Exchange {
            client: client.into(),
            target: "/hello".into(),
            seconds: 0.001,
            status: 200,
            cache_status: cache_status.into(),
            identical: true,
        }
    }

    #[test]
    fn cache_status_says_who_answered() {
        assert_eq!(exchange("a", "sidestep; hit; ttl=59").answered_by(), AnsweredBy::Cache);
        assert_eq!(exchange("a", "sidestep; fwd=uri-miss; stored").answered_by(), AnsweredBy::Origin);
        assert_eq!(exchange("a", "").answered_by(), AnsweredBy::Unknown);
        assert_eq!(exchange("a", "other; hit").answered_by(), AnsweredBy::Unknown);
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let one = exchange("curl", "sidestep; hit");
        let text = format!("{}\n{}\n", json!({ "cgroup": "/c/sidestep-1", "cgroup_id": 7 }), one.to_json());
        let expected = Report { cgroup: "/c/sidestep-1".into(), cgroup_id: 7, exchanges: vec![one] };
        assert_eq!(Report::parse(&text).unwrap(), expected);
    }
}
