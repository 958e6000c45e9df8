//! `sanpath sanhosts`: the management addresses of the SANs, asked of the controller daemon that runs here.

use std::process::ExitCode;

use clap::Args;

use super::answer;
use super::node::Daemon;
use super::paths::{Form, age};
use super::table::table;
use crate::admin::{AddressRow, Answer, Question, SanhostRow, ask, controller_socket};

/// Arguments of `sanpath sanhosts`.
#[derive(Debug, Args)]
pub struct SanhostsArguments {
    /// Of this partition's SAN alone.
    partition: Option<String>,
    /// The form of the answer.
    #[arg(long, value_enum, default_value_t = Form::Table)]
    output: Form,
    #[command(flatten)]
    daemon: Daemon,
}

/// Asks and prints.
///
/// # Errors
/// When there is no answer, or no such partition.
pub fn run(arguments: &SanhostsArguments) -> anyhow::Result<ExitCode> {
    let socket = controller_socket(&arguments.daemon.runtime_dir);
    let partition = arguments.partition.clone();
    let question = Question::Sanhosts { partition };
    let rows = match ask(&socket, &question, arguments.daemon.patience)? {
        Answer::Sanhosts(rows) => rows,
        Answer::Refused(why) => return Err(anyhow::Error::msg(why)),
        _ => return Err(anyhow::anyhow!("the daemon answered something else")),
    };
    let text = match arguments.output {
        Form::Table => tables(&rows),
        Form::Json => serde_json::to_string_pretty(&rows)?,
    };
    answer::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn tables(rows: &[SanhostRow]) -> String {
    if rows.is_empty() {
        return "no partitions".to_owned();
    }
    let tables: Vec<String> = rows.iter().map(san_table).collect();
    tables.join("\n\n")
}

/// A line for the SAN, one for each address, and its last error below it.
fn san_table(row: &SanhostRow) -> String {
    let mut cells = vec![["ADDRESS", "STATE", "USE", "TRIED", "GOOD"].map(str::to_owned)];
    cells.extend(row.addresses.iter().map(columns));
    let mut notes = vec![None];
    notes.extend(row.addresses.iter().map(note));
    let san = row.san.as_deref().unwrap_or("unknown");
    let refused = row.refused.as_ref();
    let refused = refused.map(|why| format!("\n    -> no call is sent: {why}"));
    format!(
        "{}  SAN {san}{}\n{}",
        row.partition,
        refused.unwrap_or_default(),
        table(&cells, &notes)
    )
}

fn columns(row: &AddressRow) -> [String; 5] {
    let ago = |seconds: Option<u64>| seconds.map_or_else(|| "-".to_owned(), age);
    let more = match (row.cool_down, row.good_probes) {
        (Some(left), _) => format!(" {}", age(left)),
        (None, Some(good)) => format!(" {good}"),
        (None, None) => String::new(),
    };
    let in_use = if row.in_use { "in use" } else { "-" };
    [
        row.address.clone(),
        format!("{}{more}", row.state),
        in_use.to_owned(),
        ago(row.tried),
        ago(row.good),
    ]
}

fn note(row: &AddressRow) -> Option<String> {
    let error = row.error.as_ref()?;
    let ago = row
        .error_age
        .map(|seconds| format!("{} ago: ", age(seconds)));
    Some(format!("{}{error}", ago.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_says_how_it_stands_and_what_last_went_wrong() {
        let good = AddressRow {
            address: "10.0.0.2:7420".to_owned(),
            state: "good".to_owned(),
            in_use: true,
            cool_down: None,
            good_probes: None,
            san: None,
            tried: Some(2),
            good: Some(2),
            error: None,
            error_age: None,
        };
        let bad = AddressRow {
            address: "10.0.0.1:7420".to_owned(),
            state: "cooling down".to_owned(),
            in_use: false,
            cool_down: Some(17),
            good: None,
            error: Some("refused".to_owned()),
            error_age: Some(65),
            ..good.clone()
        };
        let row = SanhostRow {
            partition: "a".to_owned(),
            san: Some("one".to_owned()),
            refused: None,
            addresses: vec![bad, good],
        };
        let text = tables(std::slice::from_ref(&row));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "a  SAN one");
        assert_eq!(
            lines[2],
            "10.0.0.1:7420  cooling down 17s  -       2s     -"
        );
        assert_eq!(lines[3], "    -> 1m05s ago: refused");
        assert_eq!(
            lines[4],
            "10.0.0.2:7420  good              in use  2s     2s"
        );
        let refused = SanhostRow {
            refused: Some("two SANs".to_owned()),
            san: None,
            ..row
        };
        let text = tables(&[refused]);
        assert!(
            text.starts_with("a  SAN unknown\n    -> no call is sent: two SANs"),
            "{text}"
        );
        assert_eq!(tables(&[]), "no partitions");
    }
}
