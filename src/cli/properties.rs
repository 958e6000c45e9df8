//! `sanpath properties`: the config file under the names and in the form that Eucalyptus' operators know. `config/` computes, here it is asked and printed.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};

use super::answer::print;
use super::duration;
use crate::config::{
    self, Change, Changed, Config, InterfaceSource, Manifest, Probed, PropertyName, edit,
    patch_json, patch_yaml, properties,
};
use crate::fabric::Interfaces;
use crate::host::{FileKind, Host};

/// How many links are followed to the file itself.
const MOST_LINKS: u32 = 8;
/// The link by which the kubelet replaces what it mounts.
const MOUNTED: &str = "..data";
/// Where Kubernetes has the file unless told otherwise.
const CONFIGMAP: &str = "sanpath-config";

/// Arguments of `sanpath properties`.
#[derive(Debug, Args)]
pub struct PropertiesArguments {
    #[command(subcommand)]
    command: PropertiesCommand,
    /// The config file, or the manifest of a Kubernetes ConfigMap that holds it.
    #[arg(long, global = true, default_value = "/etc/sanpath/config.yaml")]
    config: PathBuf,
}

/// What is asked of the config file.
#[derive(Debug, Subcommand)]
enum PropertiesCommand {
    /// List the properties of all partitions.
    List(ListArguments),
    /// Set properties in the file, in place. For a ConfigMap the merge patch is printed instead.
    Set(SetArguments),
    /// Put properties back to their defaults.
    Unset(UnsetArguments),
    /// Say whether the file is good, and what it lacks on this machine.
    Check(CheckArguments),
    /// Make a config file of a saved listing of `euca-describe-properties --verbose`.
    Import(ImportArguments),
}

#[derive(Debug, Args)]
struct ListArguments {
    /// With a line for each that says what it is.
    #[arg(long, short)]
    verbose: bool,
    /// The form of the answer.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Only those whose names begin with one of these, for example `PARTI00` or `PARTI00.storage.ncpaths`.
    prefixes: Vec<String>,
}

/// The forms of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Lines with tabs, as Eucalyptus printed them.
    Text,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

#[derive(Debug, Args)]
struct SetArguments {
    /// `PARTITION.storage.NAME=VALUE`, for example `PARTI00.storage.ncpaths=iface0:192.168.1.100,iface1:192.168.1.101`.
    #[arg(required = true, value_name = "NAME=VALUE")]
    assignments: Vec<String>,
    #[command(flatten)]
    patch: PatchArguments,
}

#[derive(Debug, Args)]
struct UnsetArguments {
    /// `PARTITION.storage.NAME`.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    patch: PatchArguments,
}

#[derive(Debug, Args)]
struct PatchArguments {
    /// Write nothing and print the merge patch for the ConfigMap of this name.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = CONFIGMAP)]
    configmap: Option<String>,
    /// The patch as JSON on one line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CheckArguments {
    /// What the interface keys mean here: `iface0=br0,iface1=eth1`.
    #[arg(long, env = "STORAGE_INTERFACES", value_name = "KEY=INTERFACE,…")]
    storage_interfaces: Option<String>,
    /// A file whose first line `STORAGE_INTERFACES="…"` says it instead.
    #[arg(long, value_name = "FILE", conflicts_with = "storage_interfaces")]
    storage_interfaces_file: Option<PathBuf>,
    /// Try to connect to every address from this machine, through the interface that the list names.
    #[arg(long)]
    probe: bool,
    /// How long each address may take.
    #[arg(long, default_value = "3s", value_parser = duration)]
    patience: Duration,
}

#[derive(Debug, Args)]
struct ImportArguments {
    /// The listing; `-` for standard input.
    listing: PathBuf,
    /// Where to put the config file; else standard output.
    #[arg(long)]
    to: Option<PathBuf>,
    /// Even when there is a file.
    #[arg(long, requires = "to")]
    force: bool,
}

/// Does it, and tells by the exit code whether all is well.
///
/// # Errors
/// When it is refused. Nothing was changed then.
pub fn run(arguments: PropertiesArguments) -> anyhow::Result<ExitCode> {
    let host = Host::real(Path::new("/"));
    let path = &arguments.config;
    match arguments.command {
        PropertiesCommand::List(asked) => list(&Source::read(&host, path)?, &asked),
        PropertiesCommand::Set(asked) => {
            let changes = asked.assignments.iter().map(|text| assignment(text));
            change(
                &host,
                path,
                &changes.collect::<Result<Vec<_>, _>>()?,
                &asked.patch,
            )
        }
        PropertiesCommand::Unset(asked) => {
            let named = |text: &String| {
                let name = text.parse::<PropertyName>();
                name.map(|name| (name, Change::Unset))
            };
            let changes = asked.names.iter().map(named);
            change(
                &host,
                path,
                &changes.collect::<Result<Vec<_>, _>>()?,
                &asked.patch,
            )
        }
        PropertiesCommand::Check(asked) => check(&host, &Source::read(&host, path)?, &asked),
        PropertiesCommand::Import(asked) => import(&host, &asked),
    }
}

fn assignment(text: &str) -> anyhow::Result<(PropertyName, Change)> {
    let pair = text.split_once('=');
    let (name, value) = pair.with_context(|| {
        format!("{text:?} sets nothing; write PARTITION.storage.NAME=VALUE, or use unset")
    })?;
    let name = name.trim().parse::<PropertyName>()?;
    Ok((name, Change::Set(value.to_owned())))
}

/// Where the config's text stands.
struct Source {
    /// Without links.
    path: PathBuf,
    text: String,
    /// When it is not a file of its own.
    manifest: Option<Manifest>,
}

impl Source {
    fn read(host: &Host, path: &Path) -> anyhow::Result<Self> {
        let path = followed(host, path);
        let bytes = host.read(&path);
        let bytes = bytes.with_context(|| format!("{} cannot be read", path.display()))?;
        let text = String::from_utf8(bytes).with_context(|| format!("{}", path.display()))?;
        let manifest = Manifest::find(&text).with_context(|| format!("{}", path.display()))?;
        Ok(Self {
            path,
            text: manifest.as_ref().map_or(text, |it| it.config.clone()),
            manifest,
        })
    }

    fn parsed(&self) -> anyhow::Result<config::Read> {
        config::read(&self.text).with_context(|| format!("{} is refused", self.path.display()))
    }
}

/// The file that links lead to, so that an edit changes it and not the link.
fn followed(host: &Host, path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let is_link = host.find_stat(&path).ok().flatten();
        if is_link.is_none_or(|stat| stat.kind != FileKind::Link) {
            break;
        }
        let Ok(target) = host.read_link(&path) else {
            break;
        };
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    path
}

fn list(source: &Source, asked: &ListArguments) -> anyhow::Result<ExitCode> {
    let config = source.parsed()?.config;
    let rows = rows(&config, &asked.prefixes);
    ensure!(
        !rows.is_empty(),
        "no property begins with {}",
        asked.prefixes.join(" or ")
    );
    let verbose = asked.verbose;
    print(&match asked.output {
        Output::Text => lines(&rows, verbose),
        Output::Json => serde_json::to_string_pretty(&values(&rows, verbose))?,
        Output::Yaml => yaml(&rows, verbose),
    })?;
    Ok(ExitCode::SUCCESS)
}

type Row = (PropertyName, Option<String>);

fn rows(config: &Config, prefixes: &[String]) -> Vec<Row> {
    let wanted = |row: &Row| {
        let name = row.0.to_string().to_ascii_lowercase();
        let begins = |prefix: &String| name.starts_with(&prefix.to_ascii_lowercase());
        prefixes.is_empty() || prefixes.iter().any(begins)
    };
    properties(config).into_iter().filter(wanted).collect()
}

fn lines(rows: &[Row], verbose: bool) -> String {
    let mut lines = Vec::new();
    for (name, value) in rows {
        lines.push(format!("PROPERTY\t{name}\t{}", shown(value.as_deref())));
        if verbose {
            let description = name.property.description();
            lines.push(format!("DESCRIPTION\t{name}\t{description}"));
        }
    }
    lines.join("\n")
}

/// As Eucalyptus has it where nothing is set.
fn shown(value: Option<&str>) -> &str {
    value.unwrap_or("<unset>")
}

fn values(rows: &[Row], verbose: bool) -> Vec<serde_json::Value> {
    let of = |(name, value): &Row| {
        let mut object = serde_json::json!({ "name": name.to_string(), "value": value });
        if verbose {
            object["description"] = name.property.description().into();
        }
        object
    };
    rows.iter().map(of).collect()
}

/// JSON's texts are YAML's too.
fn yaml(rows: &[Row], verbose: bool) -> String {
    let of = |object: &serde_json::Value| {
        let fields = ["name", "value", "description"].into_iter();
        let fields = fields.filter_map(|field| Some((field, object.get(field)?)));
        let lines: Vec<String> = fields
            .map(|(field, value)| format!("{field}: {value}"))
            .collect();
        format!("- {}", lines.join("\n  "))
    };
    let objects: Vec<String> = values(rows, verbose).iter().map(of).collect();
    objects.join("\n")
}

fn change(
    host: &Host,
    path: &Path,
    changes: &[(PropertyName, Change)],
    patch: &PatchArguments,
) -> anyhow::Result<ExitCode> {
    let source = Source::read(host, path)?;
    let edited =
        edit(&source.text, changes).with_context(|| format!("{}", source.path.display()))?;
    let told: Vec<String> = edited.changed.iter().map(changed).collect();
    let configmap = patch.configmap.as_ref();
    let configmap = configmap.or(source.manifest.as_ref().map(|it| &it.name));
    if let Some(name) = configmap {
        let namespace = source
            .manifest
            .as_ref()
            .and_then(|it| it.namespace.as_ref());
        let place = namespace.map_or_else(String::new, |it| format!(" -n {it}"));
        tell(&told.join("\n"));
        tell(&format!(
            "nothing is written; apply the patch with: kubectl patch configmap {name}{place} --type merge --patch-file FILE"
        ));
        print(&if patch.json {
            patch_json(&edited.text)
        } else {
            patch_yaml(&edited.text).trim_end_matches('\n').to_owned()
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    if edited.text != source.text {
        refuse_mounted(host, path)?;
        let is_same = host
            .read(&source.path)
            .is_ok_and(|now| now == source.text.as_bytes());
        ensure!(
            is_same,
            "{} was changed by somebody else meanwhile; look, and try again",
            source.path.display()
        );
        let written = host.edit_file(&source.path, edited.text.as_bytes());
        written.with_context(|| format!("{} cannot be written", source.path.display()))?;
    }
    print(&told.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// The kubelet would put the ConfigMap's own text back.
fn refuse_mounted(host: &Host, path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if host.read_link(&folder.join(MOUNTED)).is_ok() {
        bail!(
            "{} is mounted from a ConfigMap; change that, with the patch that --configmap prints",
            path.display()
        );
    }
    Ok(())
}

/// As `euca-modify-property` tells it.
fn changed(changed: &Changed) -> String {
    let Changed { name, now, was } = changed;
    format!(
        "PROPERTY\t{name}\t{} was {}",
        shown(now.as_deref()),
        shown(was.as_deref())
    )
}

fn check(host: &Host, source: &Source, asked: &CheckArguments) -> anyhow::Result<ExitCode> {
    let read = source.parsed()?;
    let interfaces = asked.interfaces(host)?;
    let findings = config::check(&read, interfaces.as_ref());
    for finding in &findings {
        let word = if finding.is_problem {
            "PROBLEM"
        } else {
            "NOTE"
        };
        print(&format!("{word}\t{}", finding.text))?;
    }
    let mut problems = findings.iter().filter(|it| it.is_problem).count();
    if asked.probe {
        let none = Interfaces::default();
        let interfaces = interfaces.as_ref().unwrap_or(&none);
        let probed = config::probe(
            host,
            &read.config,
            interfaces,
            &config::ADDRESSES,
            asked.patience,
        );
        problems += probed.iter().filter(|it| it.outcome.is_err()).count();
        for probe in &probed {
            print(&probe_line(probe))?;
        }
    }
    if problems > 0 {
        tell(&format!("{}: {problems} to mend", source.path.display()));
        return Ok(ExitCode::FAILURE);
    }
    let count = read.config.partitions.len();
    let partitions = if count == 1 {
        "partition"
    } else {
        "partitions"
    };
    print(&format!("OK\t{count} {partitions}"))?;
    Ok(ExitCode::SUCCESS)
}

impl CheckArguments {
    fn interfaces(&self, host: &Host) -> anyhow::Result<Option<Interfaces>> {
        let source = match (&self.storage_interfaces, &self.storage_interfaces_file) {
            (Some(text), _) => InterfaceSource::Value(text.clone()),
            (None, Some(path)) => InterfaceSource::File(path.clone()),
            (None, None) => return Ok(None),
        };
        Ok(Some(source.read(host)?))
    }
}

fn probe_line(probe: &Probed) -> String {
    let through = probe.through.as_ref();
    let through = through.map_or_else(String::new, |netdev| format!(" through {netdev}"));
    let outcome = match &probe.outcome {
        Ok(took) => format!("answers{through} after {} ms", took.as_millis()),
        Err(why) => format!("does not answer{through}: {why}"),
    };
    format!("PROBE\t{}\t{}\t{outcome}", probe.name, probe.element)
}

fn import(host: &Host, asked: &ImportArguments) -> anyhow::Result<ExitCode> {
    let listing = if asked.listing == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin()
            .read_to_end(&mut text)
            .context("standard input")?;
        text
    } else {
        let read = host.read(&asked.listing);
        read.with_context(|| format!("{} cannot be read", asked.listing.display()))?
    };
    let imported = config::import(&String::from_utf8_lossy(&listing))?;
    if let Some(to) = &asked.to {
        let is_there = host.find_stat(to)?.is_some();
        ensure!(
            asked.force || !is_there,
            "{} is there already; nothing is written without --force",
            to.display()
        );
        let written = if is_there {
            host.edit_file(to, imported.text.as_bytes())
        } else {
            host.replace_file(to, imported.text.as_bytes())
        };
        written.with_context(|| format!("{} cannot be written", to.display()))?;
    } else {
        print(imported.text.trim_end_matches('\n'))?;
    }
    for left in &imported.left {
        tell(&format!("NOT CARRIED OVER\t{}\t{}", left.name, left.why));
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "what is beside a command's answer")]
fn tell(text: &str) {
    eprintln!("{text}");
}
