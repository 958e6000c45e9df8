//! The arguments of a call.

use std::path::Path;

use super::{Done, No, PROCESSORS, SECURITY, no};

/// A call as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which storage processor was meant, counted from 0; `None` for what the program does by itself.
    pub processor: Option<usize>,
    /// Whether the login is the right one.
    pub is_trusted: bool,
    /// The command.
    pub words: Vec<String>,
    /// Whether it may change something.
    pub changes: bool,
}

const INVALID: &str = "Too few or invalid command line parameters";

pub fn invalid<T>() -> Result<T, No> {
    no(INVALID)
}

impl Asked {
    pub fn read(arguments: &[String]) -> Result<Self, No> {
        let mut rest = arguments.iter();
        let (mut processor, mut is_trusted) = (None, false);
        let mut words = Vec::new();
        while let Some(word) = rest.next() {
            match word.as_str() {
                "-h" => {
                    let address = rest.next().ok_or_else(|| No(INVALID.to_owned()))?;
                    let found = PROCESSORS.iter().position(|known| known == address);
                    processor = Some(found.ok_or_else(|| {
                        No(format!("Could not connect to the specified host {address}"))
                    })?);
                }
                "-secfilepath" => {
                    let folder = rest.next().map(Path::new);
                    let file = folder.map(|it| it.join("SecuredCLISecurityFile.xml"));
                    let text = file.and_then(|file| std::fs::read_to_string(file).ok());
                    is_trusted = text.as_deref() == Some(SECURITY);
                }
                "-t" | "-Port" | "-user" | "-password" | "-scope" => {
                    rest.next();
                }
                "-np" => {}
                _ => {
                    words = std::iter::once(word).chain(rest).cloned().collect();
                    break;
                }
            }
        }
        if words.is_empty() {
            return invalid();
        }
        let looks = [
            "-list",
            "-getport",
            "getagent",
            "-getLevel",
            "-info",
            "getsp",
            "ndu",
            "domain",
            "port",
        ];
        let changes = !words.iter().take(3).any(|word| looks.contains(&&**word));
        Ok(Self {
            processor: processor.filter(|_| words[0] != "security"),
            is_trusted,
            words,
            changes,
        })
    }

    /// The first two words, which are the command.
    pub fn command(&self) -> (&str, &str) {
        let word = |at: usize| self.words.get(at).map_or("", String::as_str);
        match (word(0), word(1), word(2)) {
            ("storagegroup", "-messner", action) => ("storagegroup", action),
            (command, action, _) => (command, action),
        }
    }

    pub fn has(&self, option: &str) -> bool {
        self.words.iter().any(|word| word == option)
    }

    /// What follows the option.
    pub fn find(&self, option: &str) -> Option<&str> {
        let at = self.words.iter().position(|word| word == option)?;
        self.words.get(at + 1).map(String::as_str)
    }

    pub fn need(&self, option: &str) -> Result<&str, No> {
        self.find(option).ok_or_else(|| No(INVALID.to_owned()))
    }

    pub fn number<N: std::str::FromStr>(&self, option: &str) -> Result<N, No> {
        let number = self.need(option)?.parse();
        number.map_err(|_| No(INVALID.to_owned()))
    }

    /// Without `-o` the program asks whether it is meant, and nobody answers.
    pub fn is_meant(&self) -> Result<(), No> {
        if self.has("-o") {
            return Ok(());
        }
        no("Do you want to perform this operation (y/n)? ")
    }
}

/// As the array says that it has done something: not at all.
pub fn silence() -> Done {
    Ok(String::new())
}
