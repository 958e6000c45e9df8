//! One talk with a group's command line: what is sent, and what of the transcript answers which command.
//!
//! The command line is made for people. It greets, prints a prompt, prints what is typed at it, and ends whenever it likes. All commands of a talk are typed ahead; an
//! answer counts only when the next prompt came after it.

/// Before the commands, so that answers have one form. What a firmware does not know of them it refuses, and is read all the same.
const SETTINGS: &[&str] = &[
    "stty columns 255",
    "stty hardwrap off",
    "cli-settings confirmation off",
    "cli-settings paging off",
    "cli-settings events off",
    "cli-settings formatoutput off",
    "cli-settings displayinMB on",
];
/// Who answers.
const IDENTITY: &str = "grpparams show";
/// Asked before the commands and after them: the same answer twice says that every answer between is whole and in its place.
const WHO: &str = "whoami";
const END: &[&str] = &[WHO, "logout"];
/// No group's name is longer.
const LONGEST_NAME: usize = 54;

/// What the group said to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said(pub(super) Vec<String>);

impl Said {
    /// Why it was not done, if it was not.
    pub(super) fn refusal(&self) -> Option<&str> {
        let is_refusal = |line: &&String| line.starts_with("% Error") || line.starts_with("Error:");
        self.0.iter().find(is_refusal).map(String::as_str)
    }

    /// What stands behind `label`, which begins a line.
    pub(super) fn after(&self, label: &str) -> Option<&str> {
        let mut found = self.0.iter().filter_map(|line| line.strip_prefix(label));
        found.next().map(str::trim)
    }
}

/// A whole talk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Talk {
    /// The group's name, as the prompt has it.
    pub(super) group: String,
    /// What it says of itself.
    pub(super) identity: Said,
    /// To each command.
    pub(super) said: Vec<Said>,
}

/// How a talk ended too early.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cut {
    /// No command was read.
    #[error("the session ended before the group's prompt: {0:?}")]
    BeforePrompt(String),
    /// Some were, and it is not known which.
    #[error("the session ended before the answer to {0:?}")]
    Before(String),
    /// There are answers, and it cannot be told whose they are.
    #[error("the session has {prompts} prompts for {commands} commands")]
    Unclear { prompts: usize, commands: usize },
}

/// All that is typed for these commands, in order.
fn typed(commands: &[String]) -> Vec<String> {
    let owned = |text: &&str| (*text).to_owned();
    let before = SETTINGS.iter().chain([&WHO, &IDENTITY]).map(owned);
    let commands = commands.iter().cloned();
    before
        .chain(commands)
        .chain(END.iter().map(owned))
        .collect()
}

/// The bytes of it: each command ends with a carriage return, as a terminal sends it.
pub(super) fn input(commands: &[String]) -> Vec<u8> {
    let lines = typed(commands).into_iter().map(|line| line + "\r");
    lines.collect::<String>().into_bytes()
}

/// What the transcript `text` of a talk answers to each of `commands`.
pub(super) fn read(text: &str, commands: &[String]) -> Result<Talk, Cut> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = text.lines().collect();
    let typed = typed(commands);
    let Some(group) = lines.iter().find_map(|line| prompted(line, &typed[0])) else {
        let last = lines.iter().rev().find(|line| !line.trim().is_empty());
        return Err(Cut::BeforePrompt((*last.unwrap_or(&"")).to_owned()));
    };
    let sections = sections(&lines, &format!("{group}>"));
    let mut said = answers(&sections, &typed)?.split_off(SETTINGS.len() + 1);
    said.truncate(commands.len() + 1);
    Ok(Talk {
        group: group.to_owned(),
        identity: said.remove(0),
        said,
    })
}

/// The group's name, if the line is its prompt, with nothing behind it, the first command or what came of it, or the next prompt.
fn prompted<'l>(line: &'l str, first: &str) -> Option<&'l str> {
    let (name, rest) = line.split_once('>')?;
    let may_stand = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let is_name = (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(may_stand);
    let rest = rest.trim();
    let again = format!("{name}>");
    let is_prompt = first.starts_with(rest) || rest.starts_with(&again) || again.starts_with(rest);
    (is_name && is_prompt).then_some(name)
}

/// What came after each prompt.
fn sections<'l>(lines: &[&'l str], prompt: &str) -> Vec<Vec<&'l str>> {
    let mut sections: Vec<Vec<&str>> = Vec::new();
    for line in lines {
        let mut rest = *line;
        while let Some(after) = rest.strip_prefix(prompt) {
            sections.push(Vec::new());
            rest = after.strip_prefix(' ').unwrap_or(after);
        }
        if let Some(section) = sections.last_mut() {
            section.push(rest);
        }
    }
    sections
}

/// The answer to each of `typed` but the last, which none needs.
fn answers(sections: &[Vec<&str>], typed: &[String]) -> Result<Vec<Said>, Cut> {
    let echoes = |section: &Vec<&str>, command: &str| {
        section
            .first()
            .is_some_and(|first| first.trim_end() == command)
    };
    let wanted = typed.len() - 1;
    let is_echoed = sections.iter().any(|section| echoes(section, &typed[0]));
    let mut found: Vec<Vec<&str>> = Vec::new();
    for section in sections {
        let next = typed.get(found.len());
        match next.filter(|_| is_echoed) {
            // What was printed in between, with a prompt after it, is no answer.
            Some(next) if !echoes(section, next) => {
                if let Some(last) = found.last_mut() {
                    last.extend(section);
                }
            }
            Some(_) => found.push(section[1..].to_vec()),
            None => found.push(section.clone()),
        }
    }
    if !is_echoed && found.len() >= typed.len() && !is_in_step(&found, typed) {
        return Err(Cut::Unclear {
            prompts: found.len(),
            commands: typed.len(),
        });
    }
    // The next prompt, with the next command if that is printed, is what ends an answer.
    if found.len() <= wanted {
        let cut = found.len().saturating_sub(1);
        return Err(Cut::Before(typed[cut].clone()));
    }
    let said = found.into_iter().take(wanted);
    Ok(said.map(|lines| Said(cleaned(lines, typed))).collect())
}

/// Whether each of `found`, which says nothing of whose it is, is the answer to the command of its number. A prompt that came of itself puts all that follow one off.
fn is_in_step(found: &[Vec<&str>], typed: &[String]) -> bool {
    let answer = |at: usize| cleaned(found[at].clone(), typed);
    let first = answer(SETTINGS.len());
    !first.is_empty() && first == answer(typed.len() - END.len())
}

/// Without what is no answer: empty lines, events, and commands that were printed as they came.
fn cleaned(lines: Vec<&str>, typed: &[String]) -> Vec<String> {
    let is_said = |line: &&str| {
        let text = line.trim();
        !text.is_empty() && !is_event(text) && !typed.iter().any(|command| command == text)
    };
    let said = lines.into_iter().filter(is_said);
    said.map(|line| line.trim_end().to_owned()).collect()
}

/// An event, which comes when it likes: `NUMBER:NUMBER:MEMBER:…:LEVEL:…`.
fn is_event(line: &str) -> bool {
    const LEVELS: [&str; 5] = [":INFO:", ":WARNING:", ":ERROR:", ":FATAL:", ":AUDIT:"];
    let mut parts = line.splitn(3, ':');
    let is_number =
        |part: &str| !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
    let numbered = parts.next().is_some_and(is_number) && parts.next().is_some_and(is_number);
    numbered && LEVELS.iter().any(|level| line.contains(level))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn commands(of: &[&str]) -> Vec<String> {
        of.iter().map(|it| (*it).to_owned()).collect()
    }

    /// A transcript as a group makes it.
    fn transcript(commands: &[String], answer: impl Fn(&str) -> String, is_echoed: bool) -> String {
        let mut text = "Welcome to Group Manager\r\n\r\n     Copyright\r\n\r\n".to_owned();
        for command in typed(commands) {
            text += "group-0> ";
            if is_echoed {
                text += &format!("{command}\r\n");
            }
            let answer = answer(&command);
            text += &answer;
            if !answer.is_empty() {
                text += "\r\n";
            }
        }
        text
    }

    fn answer(command: &str) -> String {
        match command {
            "grpparams show" => "Name: group-0\r\nGroup-Ipaddress: 10.0.1.6".to_owned(),
            "a" => "first\r\n\r\nsecond".to_owned(),
            "b" => "% Error - volume x does not exist.".to_owned(),
            "whoami" => "grpadmin".to_owned(),
            _ => String::new(),
        }
    }

    #[test]
    fn each_command_gets_its_answer_with_and_without_echo() {
        let asked = commands(&["a", "b", "c"]);
        for is_echoed in [true, false] {
            let talk = read(&transcript(&asked, answer, is_echoed), &asked).unwrap();
            assert_eq!(talk.group, "group-0");
            assert_eq!(talk.identity.after("Group-Ipaddress:"), Some("10.0.1.6"));
            let said: Vec<_> = talk.said.iter().map(|it| it.0.clone()).collect();
            assert_eq!(said[0], ["first", "second"]);
            assert_eq!(
                talk.said[1].refusal(),
                Some("% Error - volume x does not exist.")
            );
            assert_eq!((said[2].len(), said.len()), (0, 3));
        }
    }

    #[test]
    fn events_and_the_prompts_behind_them_are_no_answers() {
        let asked = commands(&["a", "b"]);
        let event = "27:114:m1:SP:18-Sep-2013 10:15:28.06:x.cc:446:INFO:8.2.5:Deleted.";
        let whole = transcript(&asked, answer, true);
        let plain = read(&whole, &asked).unwrap();
        let between = whole.replace(
            "group-0> b",
            &format!("group-0> {event}\r\ngroup-0> b\r\n{event}"),
        );
        assert_eq!(read(&between, &asked).unwrap(), plain);
        let within = whole.replace("second", &format!("{event}\r\nsecond"));
        assert_eq!(read(&within, &asked).unwrap(), plain);
    }

    /// Nobody can tell whose the answers are when a prompt came of itself and no command is printed: a refusal would be the next command's.
    #[test]
    fn a_prompt_too_many_among_silent_answers_is_unclear() {
        let asked = commands(&["a", "b", "c"]);
        let event = "27:114:m1:SP:18-Sep-2013 10:15:28.06:x.cc:446:INFO:8.2.5:Deleted.\r\n";
        let whole = transcript(&asked, answer, false);
        let plain = read(&whole, &asked).unwrap();
        let prompts: Vec<usize> = whole.match_indices("group-0> ").map(|it| it.0).collect();
        for at in prompts {
            let mut more = whole.clone();
            more.insert_str(at, &format!("group-0> {event}"));
            for end in at..=more.len() {
                if let Ok(talk) = read(&more[..end], &asked) {
                    assert_eq!(talk, plain, "{at} {end}");
                }
            }
        }
        let and_one_behind = format!("{whole}group-0> ");
        assert_eq!(read(&and_one_behind, &asked).unwrap(), plain);
    }

    #[test]
    fn a_talk_that_was_cut_is_no_answer() {
        let asked = commands(&["a", "b"]);
        for is_echoed in [true, false] {
            let whole = transcript(&asked, answer, is_echoed);
            let plain = read(&whole, &asked).unwrap();
            for end in 0..whole.len() {
                match read(&whole[..end], &asked) {
                    Ok(talk) => assert_eq!(talk, plain, "{end}"),
                    Err(Cut::BeforePrompt(_)) => assert!(!whole[..end].contains("group-0> ")),
                    Err(_) => {}
                }
            }
        }
        let full = "Maximum number of sessions reached.\r\n";
        let cut = read(full, &asked).unwrap_err();
        assert_eq!(
            cut,
            Cut::BeforePrompt("Maximum number of sessions reached.".to_owned())
        );
    }

    proptest! {
        #[test]
        fn no_transcript_panics(text in "(group-0> |a|whoami|\r\n|: |% Error){0,40}") {
            let _ = read(&text, &commands(&["a"]));
        }
    }
}
