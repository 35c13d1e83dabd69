//! The command `sidestep`: parses its arguments and runs one subcommand.

use std::process::ExitCode;

use clap::Parser;
use sidestep::cli::{check::Check, exec::Exec, explain::Explain, node::Node, status::Status, switch};

/// An HTTP cache that programs never notice.
#[derive(Parser)]
#[command(name = "sidestep", version, about)]
enum Command {
    /// Runs one command behind the cache; no cluster needed.
    Exec(Exec),
    /// Runs the daemon of a node.
    Node(Node),
    /// Sends new connections direct, without a restart.
    Off(switch::Off),
    /// Sends new connections to the cache again.
    On(switch::On),
    /// Says whether this machine offers what Sidestep needs, and what to do where it does not.
    Check(Check),
    /// Shows what a running daemon does.
    Status(Status),
    /// Says why a request would or would not be answered from the cache.
    Explain(Explain),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Exec(exec) => exec.run(),
        Command::Node(node) => node.run(),
        Command::Off(off) => off.run(),
        Command::On(on) => on.run(),
        Command::Check(check) => check.run(),
        Command::Status(status) => status.run(),
        Command::Explain(explain) => explain.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("sidestep: {error:#}");
        ExitCode::FAILURE
    })
}
