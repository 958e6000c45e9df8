//! The names that alerts, dashboard and docs ask for are those that the code tells.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where the code gives a metric its name, without our prefix.
const NAMED_BY: [&str; 5] = [
    "gauge(\"",
    "tell(\"",
    "register(\"",
    "register_with_unit(\"",
    // Rows of a table of gauges.
    "(\"san_",
];
/// What the library puts behind a name, by the kind of its metric.
const ENDINGS: [&str; 4] = ["_total", "_seconds", "_seconds_bucket", ""];

#[test]
fn alerts_and_dashboard_ask_for_what_is_told() {
    let told = told();
    for file in [
        "deploy/monitoring/alerts.yaml",
        "deploy/monitoring/dashboard.json",
    ] {
        let asked = asked(file);
        assert!(asked.len() > 10, "{file} asks for {asked:?}");
        for name in asked {
            assert!(is_told(&told, &name), "{file} asks for {name}");
        }
    }
}

#[test]
fn docs_have_every_metric_and_no_other() {
    let told = told();
    let documented = asked("docs/metrics.md");
    for name in &documented {
        assert!(is_told(&told, name), "docs/metrics.md has {name}");
    }
    for name in &told {
        let has = |ending: &&str| documented.contains(&format!("{name}{ending}"));
        assert!(ENDINGS.iter().any(has), "docs/metrics.md lacks {name}");
    }
}

fn is_told(told: &BTreeSet<String>, name: &str) -> bool {
    let stems = ENDINGS.iter().filter_map(|it| name.strip_suffix(it));
    stems.into_iter().any(|stem| told.contains(stem))
}

fn told() -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for file in [
        "src/daemon/gauges.rs",
        "src/metrics/page.rs",
        "src/metrics/calls.rs",
    ] {
        let source = read(file);
        let code = source.split("#[cfg(test)]").next().unwrap();
        let dense: String = code.split_whitespace().collect();
        for opening in NAMED_BY {
            let kept = opening.rsplit('"').next().unwrap();
            for (at, _) in dense.match_indices(opening) {
                told.insert(format!(
                    "sanpath_{kept}{}",
                    word(&dense[at + opening.len()..])
                ));
            }
        }
    }
    assert!(told.contains("sanpath_volume_health") && told.contains("sanpath_calls"));
    told
}

fn asked(file: &str) -> BTreeSet<String> {
    let text = read(file);
    let found = text.match_indices("sanpath_");
    found.map(|(at, _)| word(&text[at..]).to_owned()).collect()
}

/// The word that a text begins with.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    &text[..end.unwrap_or(text.len())]
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}
