//! Reads `tests/fault_cases.txt`, the list of what may go wrong and of the tests that make it so. Used by the lab, which writes the table of it, and
//! by `tests/binary`, which checks it. The invariant: every line is understood, or reading fails and names it.

/// The list as it stands in the repository.
pub const TEXT: &str = include_str!("../../fault_cases.txt");

/// Where a fault is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Lab,
    Fake,
}

/// A test that injects a fault.
#[derive(Clone, Debug)]
pub struct Proof {
    pub place: Place,
    /// A lab case's name, or a unit test's path.
    pub test: String,
}

/// One thing that may go wrong.
#[derive(Clone, Debug)]
pub struct FaultCase {
    pub group: String,
    pub number: u32,
    pub injection: String,
    pub proofs: Vec<Proof>,
    /// What is not injected; empty when all of it is.
    pub missing: String,
}

/// All cases, in order.
pub fn parse(text: &str) -> Result<Vec<FaultCase>, String> {
    let mut group = "";
    let mut cases: Vec<FaultCase> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line.strip_prefix("= ") {
            group = name;
        } else if let Some(detail) = line.strip_prefix("  ") {
            let case = cases.last_mut().ok_or_else(|| unknown(line))?;
            add_detail(case, detail).ok_or_else(|| unknown(line))?;
        } else {
            cases.push(begin(group, line).ok_or_else(|| unknown(line))?);
        }
    }
    Ok(cases)
}

fn unknown(line: &str) -> String {
    format!("not understood: {line}")
}

fn begin(group: &str, line: &str) -> Option<FaultCase> {
    let (number, injection) = line.split_once(' ')?;
    Some(FaultCase {
        group: group.to_owned(),
        number: number.parse().ok()?,
        injection: injection.to_owned(),
        proofs: Vec::new(),
        missing: String::new(),
    })
}

fn add_detail(case: &mut FaultCase, detail: &str) -> Option<()> {
    let (word, rest) = detail.split_once(' ')?;
    let place = match word {
        "lab" => Place::Lab,
        "fake" => Place::Fake,
        "not:" if case.missing.is_empty() => {
            rest.clone_into(&mut case.missing);
            return Some(());
        }
        _ => return None,
    };
    case.proofs.push(Proof {
        place,
        test: rest.to_owned(),
    });
    Some(())
}
