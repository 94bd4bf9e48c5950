//! `sigma-origin pop list` and `pop delete`: the points of presence and who watches through them.

use super::client::Server;
use super::table::{cell, table};
use clap::Subcommand;
use serde_json::Value;
use sigma_shared::id::PopId;
use std::io::Write;

/// What can be done with POPs.
#[derive(Subcommand)]
pub(crate) enum PopCommand {
    /// List the POPs that ever reported: whether they are up, and how many watch through them
    List {
        #[command(flatten)]
        server: Server,
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget a POP that is no more: it leaves the list, and numbers are final without it; what came by it stays counted.
    /// One that is up is refused; one that reports again is there again
    Delete {
        /// The POP, as `pop list` names it
        #[arg(value_name = "ID")]
        id: PopId,
        #[command(flatten)]
        server: Server,
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: &PopCommand, out: &mut impl Write) -> Result<(), String> {
    let text = match command {
        PopCommand::List { server, json } => list(server, *json)?,
        PopCommand::Delete { id, server, json } => {
            let deleted = server.client()?.delete(&format!("/api/v1/pops/{id}"))?;
            if *json { format!("{deleted:#}\n") } else { format!("{id}: deleted\n") }
        }
    };
    // A reader that went away is no failure of ours.
    let _ = out.write_all(text.as_bytes());
    Ok(())
}

fn list(server: &Server, json: bool) -> Result<String, String> {
    let pops = server.client()?.list("/api/v1/pops")?;
    Ok(if json {
        format!("{:#}\n", Value::Array(pops))
    } else {
        let row = |pop: &Value| {
            let names = [
                "id",
                "status",
                "viewers",
                "capacity_viewers",
                "region",
                "name",
                "version",
                "clock_offset_ms",
            ];
            names.iter().map(|name| cell(&pop[*name])).collect()
        };
        let head = ["POP", "STATUS", "VIEWERS", "CAPACITY", "REGION", "NAME", "VERSION", "CLOCK ms"];
        table(&head, &pops.iter().map(row).collect::<Vec<Vec<String>>>())
    })
}
