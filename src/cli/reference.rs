//! `sanpath reference`: docs/reference.md, from the tables beside the code that reads what they tell of, and from the command line itself.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Arg, Command};

use super::answer;
use crate::config::{ARCHIVE_FIELDS, ARCHIVER_FIELDS, FILE_FIELDS, Property};
use crate::controller::{MUTABLE_PARAMETERS, PARAMETERS, SNAPSHOT_PARAMETERS};
use crate::volume::{ATTRIBUTES, Setting};

const START: &str = "# Reference

Everything that may be set. This page is made of the code by `make reference`, and a test fails while it is stale: change the code, not the page.
";

/// The commands that go on running.
const DAEMONS: [&str; 4] = ["controller", "node", "san", "archiver"];

/// Prints the page.
///
/// # Errors
/// When it cannot be printed.
pub fn run() -> anyhow::Result<ExitCode> {
    answer::print(reference().trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// The page.
#[must_use]
pub fn reference() -> String {
    let mut page = START.to_owned();
    for section in sections() {
        page.push_str(&section.text());
    }
    page.push_str(&daemons());
    page
}

struct Section {
    title: &'static str,
    /// What stands between title and table.
    about: &'static str,
    read_in: &'static str,
    settings: Vec<Setting>,
}

fn sections() -> [Section; 8] {
    let section = |title, read_in, about, settings: &[Setting]| Section {
        title,
        about,
        read_in,
        settings: settings.to_vec(),
    };
    [
        section(
            "Config file",
            "src/config/file.rs",
            "The file of `--config`, YAML. A field that nobody knows is refused.",
            &FILE_FIELDS,
        ),
        section(
            "Partitions",
            "src/config/partition.rs",
            "Fields of `partitions.PARTITION` in the config file, which `sanpath properties` calls PARTITION.storage.NAME. docs/paths.md and docs/sanhost.md explain the lists.",
            &Property::ALL.map(Property::setting),
        ),
        section(
            "Archives",
            "src/config/archive.rs",
            "Fields of `archives.NAME` in the config file; docs/archives.md.",
            &ARCHIVE_FIELDS,
        ),
        section(
            "Archivers",
            "src/config/archiver.rs",
            "Fields of `archivers.NAME` in the config file.",
            &ARCHIVER_FIELDS,
        ),
        section(
            "StorageClass parameters",
            "src/controller/parameters.rs",
            "Keys under `csi.storage.k8s.io/` are the sidecars' own. Any other key is refused.",
            &PARAMETERS,
        ),
        section(
            "VolumeAttributesClass parameters",
            "src/controller/modify.rs",
            "What may change in a volume's life. Any other key is refused.",
            &MUTABLE_PARAMETERS,
        ),
        section(
            "VolumeSnapshotClass and VolumeGroupSnapshotClass parameters",
            "src/controller/parameters.rs",
            "As above, any other key is refused.",
            &SNAPSHOT_PARAMETERS,
        ),
        section(
            "VolumeAttributes of volumes written by hand",
            "src/volume/by_hand.rs",
            "Of a PersistentVolume whose handle begins with `sp1:static:`; docs/static-volumes.md. `encryption` and `noPathRetry` as in a StorageClass.",
            &ATTRIBUTES,
        ),
    ]
}

impl Section {
    fn text(&self) -> String {
        let mut text = format!(
            "\n## {}\n\n{} Read in `{}`.\n",
            self.title, self.about, self.read_in
        );
        if self.settings.is_empty() {
            text.push_str("\nThere are none.\n");
            return text;
        }
        text.push_str("\n| name | meaning | default | unit |\n|---|---|---|---|\n");
        for it in &self.settings {
            let (meaning, default) = (cell(it.meaning), cell(it.default));
            let _ = writeln!(
                text,
                "| `{}` | {meaning} | {default} | {} |",
                it.name, it.unit
            );
        }
        text
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn daemons() -> String {
    let mut text =
        "\n# Options of the daemons\n\nRead in `src/cli/mod.rs`. Every other command tells its own with `--help`.\n".to_owned();
    let mut program = super::command();
    program.build();
    for name in DAEMONS {
        if let Some(daemon) = program.find_subcommand(name) {
            let _ = write!(text, "\n## sanpath {name}\n\n{}.\n", about(daemon));
            text.push_str("\n| option | meaning | default | environment |\n|---|---|---|---|\n");
            daemon
                .get_arguments()
                .filter_map(row)
                .for_each(|row| text.push_str(&row));
        }
    }
    text
}

fn about(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string);
    about.unwrap_or_default()
}

fn row(arg: &Arg) -> Option<String> {
    let long = arg
        .get_long()
        .filter(|it| !["help", "version"].contains(it))?;
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let defaults = arg.get_default_values().iter();
    let defaults: Vec<String> = defaults
        .map(|it| format!("`{}`", it.to_string_lossy()))
        .collect();
    let default = match (defaults.is_empty(), arg.is_required_set()) {
        (false, _) => defaults.join(", "),
        (true, true) => "required".to_owned(),
        (true, false) => String::new(),
    };
    let env = arg
        .get_env()
        .map(|it| format!("`{}`", it.to_string_lossy()));
    let env = env.unwrap_or_default();
    Some(format!(
        "| `--{long}` | {} | {default} | {env} |\n",
        cell(&help)
    ))
}
