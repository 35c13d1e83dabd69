//! Network namespaces that stand for a node and its pods, joined by veth pairs; the machine's own is not touched.
//!
//! The node's namespace holds the origins at [`NODE_V4`] and [`NODE_V6`]; each pod has a link of its own to it.
//! Commands enter by `nsenter --net=`, since `ip netns exec` would hide the cgroup mount.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::process::call;
use crate::scratch::unique_name;

/// The node's address, reached by every pod through its default route.
pub const NODE_V4: Ipv4Addr = Ipv4Addr::new(10, 254, 0, 1);

/// The node's IPv6 address.
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

/// A named network namespace, deleted when dropped.
#[derive(Debug)]
struct Netns(String);

impl Netns {
    fn new() -> Result<Self> {
        let name = unique_name();
        call("ip", ["netns", "add", &name], "")?;
        Ok(Self(name))
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    fn ip(&self, script: &str) -> Result<()> {
        call("ip", ["-n", &self.0, "-batch", "-"], script).map(drop)
    }

    fn bind(&self, addr: SocketAddr) -> Result<TcpListener> {
        self.within(move || TcpListener::bind(addr)).with_context(|| format!("bind {addr}"))
    }

    /// Makes a socket in here.
    fn within<T: Send + 'static>(&self, make: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
        let file = File::open(self.path())?;
        // A namespace belongs to a thread: this one enters, leaves the socket behind and ends.
        let made = thread::spawn(move || -> Result<T> {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            Ok(make()?)
        });
        made.join().map_err(|_| anyhow!("making a socket panicked"))?
    }

    fn enter(&self) -> Vec<OsString> {
        let mut net = OsString::from("--net=");
        net.push(self.path());
        vec!["nsenter".into(), net, "--".into()]
    }

    fn set(&self, parameter: &str, value: &str) -> Result<()> {
        let mut words = self.enter();
        let script = format!("echo {value} > /proc/sys/net/{parameter}");
        words.extend(["sh".into(), "-c".into(), script.into()]);
        let mut words = words.into_iter();
        let program = words.next().context("no program")?.to_string_lossy().into_owned();
        call(&program, words, "").map(drop)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = call("ip", ["netns", "del", &self.0], "");
    }
}

/// The namespace that stands for a node.
#[derive(Debug)]
pub struct NodeNet(Netns);

impl NodeNet {
    /// Makes the node's namespace.
    pub fn new() -> Result<Self> {
        sweep();
        let netns = Netns::new()?;
        netns.ip(&format!(
            "link set lo up\naddr add {NODE_V4}/32 dev lo\naddr add {NODE_V6}/128 dev lo nodad\n"
        ))?;
        Ok(Self(netns))
    }

    /// Makes `count` pods, each with a veth pair, an IPv4 and an IPv6 address.
    pub fn pods(&self, count: u8) -> Result<Vec<Pod>> {
        self.pods_numbered(1..=count)
    }

    /// Makes the pod with this number: its addresses and its link are made of it.
    pub fn pod_numbered(&self, number: u8) -> Result<Pod> {
        self.pods_numbered(number..=number)?.pop().context("no pod")
    }

    fn pods_numbered(&self, numbers: RangeInclusive<u8>) -> Result<Vec<Pod>> {
        let mut pods = Vec::new();
        let (mut links, mut addresses) = (String::new(), String::new());
        for n in numbers {
            let netns = Netns::new()?;
            links.push_str(&format!(
                "link add v{n} netns {} type veth peer name eth0 netns {}\n",
                self.0.0, netns.0
            ));
            addresses.push_str(&format!(
                "link set v{n} up\naddr add 10.77.{n}.1/24 dev v{n}\naddr add fd77:0:0:{n:x}::1/64 dev v{n} nodad\n"
            ));
            pods.push(Pod { netns, n });
        }
        call("ip", ["-batch", "-"], &links)?;
        self.0.ip(&addresses)?;
        for pod in &pods {
            let n = pod.n;
            pod.netns.ip(&format!(
                "link set lo up\nlink set eth0 up\naddr add 10.77.{n}.2/24 dev eth0\n\
                 addr add fd77:0:0:{n:x}::2/64 dev eth0 nodad\n\
                 route add default via 10.77.{n}.1\nroute add default via fd77:0:0:{n:x}::1\n"
            ))?;
        }
        Ok(pods)
    }

    /// Gives the node a further IPv4 address, such as a Service's, and binds a listener there.
    pub fn listen_as(&self, address: Ipv4Addr, port: u16) -> Result<TcpListener> {
        self.0.ip(&format!("addr replace {address}/32 dev lo\n"))?;
        self.0.bind(SocketAddr::from((address, port)))
    }

    /// Binds a listener at the node's IPv4 address, on a free port.
    pub fn listen(&self) -> Result<TcpListener> {
        self.0.bind(SocketAddr::from((NODE_V4, 0)))
    }

    /// Binds a listener at the node's IPv4 address, on this port.
    pub fn listen_at(&self, port: u16) -> Result<TcpListener> {
        self.0.bind(SocketAddr::from((NODE_V4, port)))
    }

    /// Binds a listener at the node's IPv6 address, on a free port.
    pub fn listen_v6(&self) -> Result<TcpListener> {
        self.0.bind(SocketAddr::from((NODE_V6, 0)))
    }

    /// Connects from inside.
    pub fn connect(&self, addr: SocketAddr) -> Result<TcpStream> {
        self.0.within(move || TcpStream::connect(addr))
    }

    /// The words that, put before a command, run it in here.
    pub fn enter(&self) -> Vec<OsString> {
        self.0.enter()
    }

    /// Carries out lines of `ip -batch` in it.
    pub fn ip(&self, script: &str) -> Result<()> {
        self.0.ip(script)
    }

    /// Passes packets on from one pod to another, as the kernel of a node does.
    pub fn forward(&self) -> Result<()> {
        self.0.set("ipv4/ip_forward", "1")
    }
}

/// The namespace that stands for a pod.
#[derive(Debug)]
pub struct Pod {
    netns: Netns,
    n: u8,
}

impl Pod {
    /// Its IPv4 address.
    pub fn address(&self) -> IpAddr {
        Ipv4Addr::new(10, 77, self.n, 2).into()
    }

    /// Its IPv6 address.
    pub fn address_v6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd77, 0, 0, u16::from(self.n), 0, 0, 0, 2).into()
    }

    /// The file by which it is entered.
    pub fn path(&self) -> PathBuf {
        self.netns.path()
    }

    /// The words that, put before a command, run it in here.
    pub fn enter(&self) -> Vec<OsString> {
        self.netns.enter()
    }

    /// Carries out lines of `ip -batch` in it.
    pub fn ip(&self, script: &str) -> Result<()> {
        self.netns.ip(script)
    }

    /// Sets a network parameter of the kernel in it, by its path below `/proc/sys/net`.
    pub fn set(&self, parameter: &str, value: &str) -> Result<()> {
        self.netns.set(parameter, value)
    }

    /// Binds a listener in the pod itself, on a free port of 127.0.0.1.
    pub fn listen(&self) -> Result<TcpListener> {
        self.netns.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Binds a listener at the pod's IPv4 address, on this port.
    pub fn listen_at(&self, port: u16) -> Result<TcpListener> {
        self.netns.bind(SocketAddr::from((self.address(), port)))
    }

    /// Connects from inside.
    pub fn connect(&self, addr: SocketAddr) -> Result<TcpStream> {
        self.netns.within(move || TcpStream::connect(addr))
    }
}

/// Deletes the namespaces of tests that were killed before they could.
fn sweep() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("sst-").and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = call("ip", ["netns", "del", &name], "");
        }
    }
}
