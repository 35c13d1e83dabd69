//! The origin of a site: nginx with one worker, in a pod and a cgroup of its own.
//!
//! Files are fresh for an hour, and may not be stored below `/n/`; a query makes no difference to them, so that each one
//! is another key of the same content.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

use super::place::{Place, loopback};
use crate::cgroup::Cgroup;
use crate::netns::Pod;
use crate::process::{Process, call};
use crate::scratch::Scratch;
use crate::{admin, locate, nginx};

/// The port at which it is asked.
pub(super) const PORT: u16 = 8080;

/// The same by TLS.
pub(super) const ENCRYPTED_PORT: u16 = 8443;

/// The port of its 127.0.0.1 where it says how many requests it had: no sidecar is before that.
const STATUS_PORT: u16 = 8081;

/// A running origin.
#[derive(Debug)]
pub(super) struct Origin {
    _process: Process,
    addr: SocketAddr,
    /// How often it was asked how many requests it had, each of which it counts.
    questions: AtomicU64,
    cgroup: Cgroup,
    pod: Pod,
    _scratch: Scratch,
}

impl Origin {
    /// Starts it with files of these names and sizes.
    pub(super) fn start(pod: Pod, sizes: &[(&str, usize)]) -> Result<Self> {
        let program = locate::on_path("nginx").context("nginx is not installed")?;
        let scratch = Scratch::new()?;
        let files: Vec<(&str, Vec<u8>)> =
            sizes.iter().map(|(name, bytes)| (*name, vec![b'x'; *bytes])).collect();
        let root = nginx::root(&scratch, &files)?;
        let (root, addr) = (root.display(), SocketAddr::from((pod.address(), PORT)));
        let encrypted = SocketAddr::new(addr.ip(), ENCRYPTED_PORT);
        let certificate = certified(&scratch)?;
        let http = format!(
            "access_log off; sendfile on; {certificate}\n\
             server {{ listen {addr} backlog=4096; listen {encrypted} ssl backlog=4096; root {root}; expires 1h;\n\
             location /n/ {{ alias {root}/; expires off; add_header Cache-Control no-store; }} }}\n\
             server {{ listen {}; location = /status {{ stub_status; }} }}",
            loopback(STATUS_PORT)
        );
        let words = nginx::words(&program, &scratch, nginx::ONE_PROCESS, &http)?;
        let cgroup = Cgroup::new()?;
        let place = Place { pod: &pod, cgroup: &cgroup };
        let mut process = place.start(words)?;
        place.listens(&mut process, addr)?;
        Ok(Self { _process: process, addr, questions: AtomicU64::new(0), cgroup, pod, _scratch: scratch })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it is asked by TLS.
    pub(super) fn encrypted_addr(&self) -> SocketAddr {
        SocketAddr::new(self.addr.ip(), ENCRYPTED_PORT)
    }

    pub(super) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    pub(super) fn pod(&self) -> &Pod {
        &self.pod
    }

    /// How many requests it has had.
    pub(super) fn requests(&self) -> Result<u64> {
        let text = admin::text(self.pod.connect(loopback(STATUS_PORT))?, "/status")?;
        let questions = self.questions.fetch_add(1, Ordering::SeqCst) + 1;
        let requests = requests(&text).with_context(|| text.clone())?;
        requests.checked_sub(questions).context("fewer requests than were made")
    }
}

/// Makes a certificate that nobody checks; returns nginx's lines about it.
fn certified(scratch: &Scratch) -> Result<String> {
    let (key, certificate) = (scratch.file("key.pem"), scratch.file("certificate.pem"));
    let (key, certificate) = (key.display(), certificate.display());
    let words = format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=origin \
         -keyout {key} -out {certificate}"
    );
    call("openssl", words.split(' '), "")?;
    Ok(format!("ssl_certificate {certificate}; ssl_certificate_key {key};"))
}

/// The number of requests in what stub_status says.
fn requests(text: &str) -> Option<u64> {
    let numbers = text.lines().skip_while(|line| !line.starts_with("server accepts")).nth(1)?;
    numbers.split_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_requests_is_the_third() {
        let text = "Active connections: 2 \nserver accepts handled requests\n 16 15 31070 \nReading: 0 \n";
        assert_eq!(requests(text), Some(31_070));
        assert_eq!(requests("Active connections: 2 \n"), None);
    }
}
