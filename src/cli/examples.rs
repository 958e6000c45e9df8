//! Below a command's help, what one writes. Each line is proven to be understood.

use clap::Command;

/// A command's words and its examples: the line and what it is for.
type Taught = (
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);

/// What follows the examples of a command whose exit code says something.
const EXIT_CODES: [(&str, &str); 3] = [
    (
        "doctor",
        "Ends with 0 when all is well, 1 for warnings, 2 for problems.",
    ),
    (
        "host-setup",
        "Ends with 0 when all is as it should be or was written, 1 for something to write, 2 for a file of ours that somebody edited.",
    ),
    (
        "trace",
        "Ends with 0 when all that could be looked at is well, 1 for a hop that is degraded, 2 for one that is broken.",
    ),
];

const TAUGHT: &[Taught] = &[
    (
        &[],
        &[
            (
                "sanpath doctor node",
                "what is wrong with this node, and what mends it",
            ),
            (
                "sanpath trace pvc-6f0c",
                "where one volume stops being right",
            ),
            (
                "sanpath properties list",
                "the settings under Eucalyptus' names",
            ),
            (
                "sanpath try mount data /mnt",
                "a volume without an orchestrator (docs/quick-start.md)",
            ),
        ],
    ),
    (
        &["controller"],
        &[(
            "sanpath controller --endpoint unix:///run/sanpath/csi-controller.sock --metrics 127.0.0.1:9812",
            "as a systemd unit would start it; Kubernetes: deploy/",
        )],
    ),
    (
        &["archiver"],
        &[(
            "sanpath archiver --name archiver-1 --listen 0.0.0.0:7430 --tls /etc/sanpath/archiver-tls",
            "as a systemd unit would start it (docs/archiver.md)",
        )],
    ),
    (
        &["node"],
        &[
            (
                "sanpath node --endpoint unix:///run/sanpath/csi-node.sock --node-name n1 --storage-interfaces iface0=eth1,iface1=eth2",
                "be the daemon",
            ),
            ("sanpath node volumes", "ask the one that runs"),
        ],
    ),
    (
        &["node", "recover"],
        &[("sanpath node recover pvc-6f0c", "once its users have ended")],
    ),
    (
        &["node", "release"],
        &[
            (
                "sanpath node release pvc-6f0c",
                "tell what would be lost, and do nothing",
            ),
            (
                "sanpath node release pvc-6f0c --accept-data-loss",
                "lose it",
            ),
        ],
    ),
    (
        &["san"],
        &[
            ("sanpath san init", "once, before the first start"),
            (
                "sanpath san issue --role controller --name c1 --out /root/c1",
                "the folder that a partition's tls names",
            ),
            (
                "sanpath san --pool /srv/pool --listen 10.0.0.1:7420 --portal 10.1.0.1 --portal 10.2.0.1",
                "be the daemon, with two paths",
            ),
        ],
    ),
    (
        &["doctor"],
        &[
            ("sanpath doctor node --quiet", "only what is to be mended"),
            (
                "sanpath doctor node --host-root /host",
                "from the node plugin's container",
            ),
            ("sanpath doctor controller --output json", "for a program"),
            (
                "sanpath doctor san --pool /srv/pool --listen 10.0.0.1:7420 --portal 10.1.0.1 --portal 10.2.0.1",
                "a SAN box, with its daemon's own arguments",
            ),
        ],
    ),
    (
        &["host-setup"],
        &[
            ("sanpath host-setup --check", "what would be written"),
            ("sanpath host-setup --apply", "show it and write it"),
        ],
    ),
    (
        &["paths"],
        &[
            ("sanpath paths", "of all volumes here"),
            (
                "sanpath paths pvc-6f0c --watch",
                "of one, again at each change",
            ),
        ],
    ),
    (
        &["sanhosts"],
        &[("sanpath sanhosts PARTI00", "of one partition")],
    ),
    (
        &["trace"],
        &[
            (
                "sanpath trace pvc-6f0c",
                "on one machine with node and controller",
            ),
            (
                "sanpath trace 36001405f0123456789abcdef01234567 --host-root /host",
                "from the node plugin's container; then in the controller's with the id that this prints",
            ),
        ],
    ),
    (
        &["properties"],
        &[
            (
                "sanpath properties list PARTI00",
                "what is set, and what it means",
            ),
            (
                "sanpath properties set PARTI00.storage.ncpaths=iface0:10.1.0.1,iface1:10.2.0.1",
                "change it in the file; the daemons take it up by themselves",
            ),
            ("sanpath properties check", "is the file good?"),
        ],
    ),
    (
        &["archives"],
        &[
            ("sanpath archives list", "the snapshots that are there"),
            ("sanpath archives verify", "fetch and prove every chunk"),
            (
                "sanpath archives transfers",
                "what the archiver of this machine carries, and how far it is",
            ),
        ],
    ),
    (
        &["completions"],
        &[
            (
                "sanpath completions bash",
                "to be kept as /usr/share/bash-completion/completions/sanpath",
            ),
            (
                "sanpath completions zsh",
                "to be kept as _sanpath in a folder of $fpath",
            ),
            (
                "sanpath completions fish",
                "to be kept as ~/.config/fish/completions/sanpath.fish",
            ),
        ],
    ),
];

/// The command line with its examples.
pub(super) fn taught(mut command: Command) -> Command {
    for (words, examples) in TAUGHT {
        let text = text(words, examples);
        command = within(command, words, |command| command.after_help(text));
    }
    command
}

fn text(words: &[&str], examples: &[(&str, &str)]) -> String {
    let lines = examples
        .iter()
        .map(|(line, what)| format!("  {line}\n      {what}"));
    let lines: Vec<String> = lines.collect();
    let code = EXIT_CODES.iter().find(|(word, _)| words == [*word]);
    let code = code.map_or_else(String::new, |(_, text)| format!("\n\n{text}"));
    format!("Examples:\n{}{code}", lines.join("\n"))
}

fn within(
    command: Command,
    words: &[&'static str],
    teach: impl FnOnce(Command) -> Command,
) -> Command {
    match words {
        [] => teach(command),
        [first, rest @ ..] => command.mut_subcommand(first, |inner| within(inner, rest, teach)),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Arguments;

    #[test]
    fn every_example_is_understood() {
        for (words, examples) in TAUGHT {
            for (line, _) in *examples {
                let parsed = Arguments::try_parse_from(line.split(' '));
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                let start = [&["sanpath"], *words].concat().join(" ");
                assert!(line.starts_with(&start), "{line} under {start}");
            }
        }
    }

    #[test]
    fn the_examples_stand_below_the_help() {
        let mut command = taught(Arguments::command());
        command.clone().debug_assert();
        let trace = command.find_subcommand_mut("trace").unwrap();
        let help = trace.render_long_help().to_string();
        assert!(help.contains("sanpath trace pvc-6f0c"), "{help}");
        assert!(help.contains("2 for one that is broken"), "{help}");
    }
}
