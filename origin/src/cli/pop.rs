//! `sigma-origin pop list`: the points of presence and who watches through them.

use super::client::Server;
use super::table::{cell, table};
use clap::Subcommand;
use serde_json::Value;
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
}

pub(super) fn run(command: &PopCommand, out: &mut impl Write) -> Result<(), String> {
    let PopCommand::List { server, json } = command;
    let pops = server.client()?.list("/api/v1/pops")?;
    let text = if *json {
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
    };
    // A reader that went away is no failure of ours.
    let _ = out.write_all(text.as_bytes());
    Ok(())
}
