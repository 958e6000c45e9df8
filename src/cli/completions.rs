//! `sanpath completions`: what a shell needs to complete our words.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use clap_complete::generate;

use super::answer;

/// Arguments of `sanpath completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// Whose.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the shell's script.
///
/// # Errors
/// When it cannot be printed.
pub fn run(asked: &CompletionsArguments) -> anyhow::Result<ExitCode> {
    let script = script(asked.shell)?;
    answer::print(script.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> anyhow::Result<String> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut super::command(), "sanpath", &mut script);
    Ok(String::from_utf8(script)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_knows_the_commands_and_their_options() {
        for shell in Shell::value_variants() {
            let script = script(*shell).unwrap();
            for word in ["trace", "portal-groups", "accept-data-loss", "runtime-dir"] {
                assert!(script.contains(word), "{shell:?} knows no {word}");
            }
        }
    }
}
