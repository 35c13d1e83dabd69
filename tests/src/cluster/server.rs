//! etcd and kube-apiserver, on loopback and of this test alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::proxy::Proxy;

use crate::process::{self, Process, call};
use crate::scratch::Scratch;
use crate::{locate, port, wait};

/// The name of the node.
pub const NODE: &str = "node-1";

/// How long both may take to start on a busy machine.
const STARTING: Duration = Duration::from_secs(90);
/// How long a command to it may take.
const ASKING: Duration = Duration::from_secs(60);
/// Who may do everything.
const ADMIN_TOKEN: &str = "administrator";

/// A running API server, with its etcd.
#[derive(Debug)]
pub struct ApiServer {
    // Dropped first.
    proxy: Option<Proxy>,
    server: Process,
    etcd: Process,
    ports: Ports,
    program: PathBuf,
    scratch: Scratch,
}

/// Where they listen, on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
struct Ports {
    etcd: u16,
    peers: u16,
    server: u16,
}

impl ApiServer {
    /// Starts one without any object of its own but the namespaces that are always there; nothing where it is not
    /// installed.
    pub fn start() -> Result<Option<Self>> {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let named = assets.map(|folder| folder.join("kube-apiserver")).filter(|path| path.exists());
        let built = std::env::var_os("SIDESTEP_TOOLS")
            .map(|tools| PathBuf::from(tools).join("cluster/kube-apiserver"))
            .filter(|path| path.exists());
        let Some(program) = locate::needed("kube-apiserver", named.or(built))? else { return Ok(None) };
        let etcd = locate::tool("etcd").or_else(|| locate::on_path("etcd"));
        let Some(etcd) = locate::needed("etcd", etcd)? else { return Ok(None) };
        if locate::needed("kubectl", locate::on_path("kubectl"))?.is_none() {
            return Ok(None);
        }
        let scratch = Scratch::new()?;
        let key = scratch.file("sa.key");
        call("openssl", ["genrsa", "-out", &key.display().to_string(), "2048"], "")?;
        scratch.write("tokens.csv", format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))?;
        let ports = Ports { etcd: port::unused()?, peers: port::unused()?, server: port::unused()? };
        let etcd = start_etcd(&etcd, &scratch, ports)?;
        let server = start_server(&program, &scratch, ports)?;
        let mut cluster = Self { proxy: None, server, etcd, ports, program, scratch };
        let admin = cluster.kubeconfig_of("admin", ADMIN_TOKEN)?;
        cluster.ready()?;
        cluster.proxy = Some(Proxy::start(&admin)?);
        Ok(Some(cluster))
    }

    fn ready(&mut self) -> Result<()> {
        let admin = self.scratch.file("admin.yaml");
        let ready = wait::poll(STARTING, "an API server that is ready", || {
            let answer = kubectl(&admin, &["get", "namespace", "default"], "");
            match answer {
                Ok(_) => Some(Ok(())),
                Err(_) if self.server.running() && self.etcd.running() => None,
                Err(error) => Some(Err(error)),
            }
        });
        ready.and_then(|ready| ready).with_context(|| self.server.errors_so_far())
    }

    /// The kubeconfig of somebody who may do everything.
    pub fn admin(&self) -> PathBuf {
        self.scratch.file("admin.yaml")
    }

    /// Runs kubectl as somebody who may do everything; returns what it printed.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        kubectl(&self.admin(), words, "")
    }

    /// Sends a request as somebody who may do everything.
    pub fn send(&self, method: &str, path: &str, object: Option<&Value>) -> Result<Value> {
        self.proxy.as_ref().context("no proxy")?.send(method, path, object)
    }

    /// Makes an object at the path of its kind; returns it as it is then.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.send("POST", path, Some(object))
    }

    /// Applies a manifest as an operator would; returns what kubectl printed.
    pub fn apply(&self, manifest: &str, words: &[&str]) -> Result<String> {
        kubectl(&self.admin(), &[&["apply", "-f", "-"], words].concat(), manifest)
    }

    /// A kubeconfig of a service account, with a token as a pod of it would have.
    pub fn service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": { "expirationSeconds": 3600 },
        });
        let answer = self.create(&path, &request)?;
        let token = answer["status"]["token"].as_str().context("no token")?.to_owned();
        self.kubeconfig_of(&format!("{namespace}-{name}"), &token)
    }

    fn kubeconfig_of(&self, user: &str, token: &str) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.ports.server),
                "certificate-authority": self.scratch.file("certificates/apiserver.crt"),
            } }],
            "users": [{ "name": user, "user": { "token": token } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": user } }],
        });
        self.scratch.write(&format!("{user}.yaml"), config.to_string())
    }

    /// Kills the API server; etcd keeps what it had.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Starts it again at the same port.
    pub fn restart(&mut self) -> Result<()> {
        self.server = start_server(&self.program, &self.scratch, self.ports)?;
        self.ready()
    }

    /// Where another program would be that was built with it.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.program.with_file_name(name)
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.server
    }
}

fn start_etcd(program: &Path, scratch: &Scratch, ports: Ports) -> Result<Process> {
    let at = |port| format!("http://127.0.0.1:{port}");
    let (clients, peers) = (at(ports.etcd), at(ports.peers));
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(scratch.file("etcd")).args(["--name", "test", "--unsafe-no-fsync"]);
    command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command.args(["--initial-cluster", &format!("test={peers}"), "--log-level", "error"]);
    Process::start(&mut command)
}

fn start_server(program: &Path, scratch: &Scratch, ports: Ports) -> Result<Process> {
    let certificates = scratch.file("certificates");
    fs::create_dir_all(&certificates)?;
    let mut command = Command::new(program);
    command.arg(format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd));
    command.args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--insecure-port=0"]);
    command.arg(format!("--secure-port={}", ports.server)).arg("--cert-dir").arg(&certificates);
    for option in ["--service-account-key-file", "--service-account-signing-key-file"] {
        command.arg(option).arg(scratch.file("sa.key"));
    }
    command.arg("--service-account-issuer=https://kubernetes.default.svc");
    command.arg("--token-auth-file").arg(scratch.file("tokens.csv"));
    command.args(["--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16", "--v=0"]);
    // No controller makes service accounts here.
    command.arg("--disable-admission-plugins=ServiceAccount");
    Process::start(&mut command)
}

fn kubectl(config: &Path, words: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(config).args(words);
    Ok(process::run_with(&mut command, input, ASKING)?.succeeded()?.text())
}
