//! `sidestep off` and `sidestep on`: redirection without a restart, confirmed by the daemons in under a second.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Output, print, runtime, sockets};
use crate::admin::client::{AdminClient, ClientError};
use crate::admin::switch::{set_machine, state_dir};
use crate::admin::{Position, Status, Subject};

/// Time for all daemons to confirm.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);
const CONFIRM_POLL: Duration = Duration::from_millis(20);

/// What both commands take.
#[derive(Debug, clap::Args)]
pub struct SwitchArgs {
    /// Switch only the daemon with this admin socket, by default all of this machine.
    #[arg(long, value_name = "SOCK")]
    pub admin: Option<PathBuf>,
    /// Switch only hits inside the kernel; connections are redirected as before.
    #[arg(long)]
    pub acceleration: bool,
    /// How to print.
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    pub output: Output,
}

/// Sends connections direct from now on, also after a restart of the daemon.
#[derive(Debug, clap::Args)]
pub struct Off {
    /// Which daemons.
    #[command(flatten)]
    pub args: SwitchArgs,
}

/// Redirects connections again.
#[derive(Debug, clap::Args)]
pub struct On {
    /// Which daemons.
    #[command(flatten)]
    pub args: SwitchArgs,
}

impl Off {
    /// Switches off; ends with 1 where a daemon did not confirm.
    ///
    /// # Errors
    /// Where the switch cannot be kept, or the named daemon does not answer.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        self.args.run(Position::Off)
    }
}

impl On {
    /// Switches on; ends with 1 where a daemon did not confirm.
    ///
    /// # Errors
    /// Where the switch cannot be kept, or the named daemon does not answer.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        self.args.run(Position::On)
    }
}

impl SwitchArgs {
    fn run(self, to: Position) -> anyhow::Result<ExitCode> {
        let subject = if self.acceleration { Subject::Acceleration } else { Subject::Redirection };
        let daemons = match &self.admin {
            Some(socket) => vec![runtime()?.block_on(switch_one(subject, socket, to))?],
            None => {
                let dir = state_dir();
                set_machine(subject, &dir, to).with_context(|| {
                    format!("the switch cannot be kept in {}; run as root", dir.display())
                })?;
                runtime()?.block_on(confirmations(subject, &dir, to))
            }
        };
        print(&match self.output {
            Output::Text => text(to, &daemons),
            Output::Json => format!("{:#}\n", json(to, &daemons)),
        })?;
        let all = daemons.iter().all(|one| one.refusal.is_none());
        Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What one daemon made of it.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    socket: PathBuf,
    /// Why it did not follow, where it did not.
    refusal: Option<String>,
}

async fn switch_one(subject: Subject, socket: &Path, to: Position) -> anyhow::Result<Answer> {
    let answer = AdminClient::new(socket).switch(subject, to).await?;
    let refusal = (answer.state != to).then(|| refusal(answer.switched_off_by.as_deref()));
    Ok(Answer { socket: socket.to_owned(), refusal })
}

fn refusal(switched_off_by: Option<&Path>) -> String {
    match switched_off_by {
        Some(file) => format!("{} keeps it off", file.display()),
        None => "its heartbeat has not followed".to_owned(),
    }
}

/// Asks every daemon of the machine at once, until each has followed or the time is over.
async fn confirmations(subject: Subject, dir: &Path, to: Position) -> Vec<Answer> {
    let deadline = Instant::now() + CONFIRM_TIMEOUT;
    let asked: Vec<_> = sockets(dir)
        .into_iter()
        .map(|socket| tokio::spawn(confirmation(subject, socket, to, deadline)))
        .collect();
    let mut answers = Vec::new();
    for one in asked {
        answers.extend(one.await.ok().flatten());
    }
    answers
}

/// Returns nothing for a socket whose daemon is gone.
async fn confirmation(subject: Subject, socket: PathBuf, to: Position, deadline: Instant) -> Option<Answer> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let client = AdminClient::new(&socket).with_timeout(left);
        let refusal = match client.status().await {
            Ok(status) => match position(subject, &status) {
                // A daemon without hits inside the kernel has nothing to switch.
                None => None,
                Some((position, _)) if position == to => None,
                Some((_, switched_off_by)) => Some(refusal(switched_off_by)),
            },
            Err(ClientError::Unreachable { .. }) => return None,
            Err(error) => Some(error.to_string()),
        };
        if refusal.is_none() || Instant::now() + CONFIRM_POLL >= deadline {
            return Some(Answer { socket, refusal });
        }
        sleep(CONFIRM_POLL).await;
    }
}

/// What a daemon says of its switch: its position, and the file that keeps it off.
fn position(subject: Subject, status: &Status) -> Option<(Position, Option<&Path>)> {
    match subject {
        Subject::Redirection => Some((status.switch, status.switched_off_by.as_deref())),
        Subject::Acceleration => {
            status.acceleration.as_ref().map(|one| (one.switch, one.switched_off_by.as_deref()))
        }
    }
}

fn text(to: Position, daemons: &[Answer]) -> String {
    let confirmed = daemons.iter().filter(|one| one.refusal.is_none()).count();
    let mut text = match daemons.len() {
        0 => format!("{}: no daemon runs now; the next one starts so\n", to.word()),
        1 if confirmed == 1 => format!("{}: the daemon confirmed\n", to.word()),
        all => format!("{}: {confirmed} of {all} daemons confirmed\n", to.word()),
    };
    for one in daemons {
        if let Some(refusal) = &one.refusal {
            text.push_str(&format!("  {}: {refusal}\n", one.socket.display()));
        }
    }
    text
}

fn json(to: Position, daemons: &[Answer]) -> serde_json::Value {
    let confirmed = daemons.iter().filter(|one| one.refusal.is_none()).count();
    let daemons: Vec<_> =
        daemons.iter().map(|one| json!({ "admin": one.socket, "refusal": one.refusal })).collect();
    json!({ "state": to, "confirmed": confirmed, "daemons": daemons })
}

#[cfg(test)]
#[path = "switch_tests.rs"]
mod tests;
