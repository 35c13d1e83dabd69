//! kube-controller-manager, with the controllers alone that make pods of Deployments and slices of Services.

use std::process::Command;

use anyhow::Result;

use super::server::ApiServer;
use crate::locate;
use crate::process::Process;

/// Which controllers run; no other is needed where pods name their node and nobody asks for their tokens.
const CONTROLLERS: &str = "--controllers=deployment,replicaset,endpointslice";

/// Where it runs; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Controllers(Process);

impl Controllers {
    /// Starts it for a cluster; nothing where it is not installed.
    pub(super) fn start(api: &ApiServer) -> Result<Option<Self>> {
        let program = api.beside("kube-controller-manager");
        if !program.exists() && std::env::var_os("KUBEBUILDER_ASSETS").is_some() {
            println!(
                "skipped: no kube-controller-manager beside the API server that KUBEBUILDER_ASSETS names"
            );
            return Ok(None);
        }
        let found = Some(program).filter(|path| path.exists());
        let Some(program) = locate::needed("kube-controller-manager", found)? else { return Ok(None) };
        let mut command = Command::new(program);
        command.arg("--kubeconfig").arg(api.admin()).arg(CONTROLLERS);
        command.args(["--leader-elect=false", "--port=0", "--secure-port=0", "--v=0"]);
        Ok(Some(Self(Process::start(&mut command)?)))
    }

    /// What it has to say when something that it should do is not done.
    pub(super) fn errors_so_far(&self) -> String {
        self.0.errors_so_far()
    }
}
