//! A config file inside a Kubernetes ConfigMap: found in its manifest, and given back as a merge patch.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::edit::{is_printable, quoted};

/// The key under which a ConfigMap has the file.
const KEY: &str = "config.yaml";

/// A ConfigMap with a config file in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// Its namespace, when it names one.
    pub namespace: Option<String>,
    /// The text of the file.
    pub config: String,
}

/// The manifest is a ConfigMap and has no config file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the ConfigMap {0} has no {KEY} under data")]
pub struct NoConfig(String);

#[derive(Deserialize)]
struct ManifestForm {
    kind: String,
    metadata: MetadataForm,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct MetadataForm {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

impl Manifest {
    /// The manifest in `text`; `None` when it is no ConfigMap.
    ///
    /// # Errors
    /// [`NoConfig`]
    pub fn find(text: &str) -> Result<Option<Self>, NoConfig> {
        let form: Result<ManifestForm, _> = serde_saphyr::from_str(text);
        let Some(mut form) = form.ok().filter(|form| form.kind == "ConfigMap") else {
            return Ok(None);
        };
        let config = form.data.remove(KEY);
        let config = config.ok_or_else(|| NoConfig(form.metadata.name.clone()))?;
        Ok(Some(Self {
            name: form.metadata.name,
            namespace: form.metadata.namespace,
            config,
        }))
    }
}

/// The merge patch that gives a ConfigMap this config file, as JSON on one line.
#[must_use]
pub fn patch_json(config: &str) -> String {
    serde_json::json!({ "data": { KEY: config } }).to_string()
}

/// The same as YAML, the file in a block of its own where YAML can have it so.
#[must_use]
pub fn patch_yaml(config: &str) -> String {
    let plain = |c: char| c == '\n' || c == '\t' || is_printable(c);
    let body = config.trim_end_matches('\n');
    if body.is_empty() || !config.chars().all(plain) {
        return format!("data:\n  {KEY}: {}\n", quoted(config));
    }
    let first = body.chars().next();
    let depth = if first.is_some_and(char::is_whitespace) {
        "2"
    } else {
        ""
    };
    let ends = match config.len() - body.len() {
        0 => "-",
        1 => "",
        _ => "+",
    };
    let line = |line: &str| {
        if line.is_empty() {
            "\n".to_owned()
        } else {
            format!("    {line}\n")
        }
    };
    let lines: String = config.lines().map(line).collect();
    format!("data:\n  {KEY}: |{depth}{ends}\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Deserialize)]
    struct Patch {
        data: BTreeMap<String, String>,
    }

    fn read_back(patch: &str) -> String {
        let mut patch: Patch = serde_saphyr::from_str(patch).unwrap();
        patch.data.remove(KEY).unwrap()
    }

    #[test]
    fn our_own_manifest_has_a_config() {
        let text = include_str!("../../deploy/config.yaml");
        let manifest = Manifest::find(text).unwrap().unwrap();
        assert_eq!(manifest.name, "sanpath-config");
        assert!(crate::config::parse(&manifest.config).is_ok());
        let other = text.replace("config.yaml:", "other.yaml:");
        assert!(Manifest::find(&other).is_err());
        let file = include_str!("../../tests/binary/fixtures/config-v1.yaml");
        assert_eq!(Manifest::find(file), Ok(None));
    }

    #[test]
    fn a_file_is_a_block_in_its_patch() {
        assert_eq!(
            patch_yaml("version: 1\n\npartitions:\n  a:\n"),
            "data:\n  config.yaml: |\n    version: 1\n\n    partitions:\n      a:\n"
        );
        assert_eq!(patch_json("a: 1\n"), r#"{"data":{"config.yaml":"a: 1\n"}}"#);
    }

    proptest! {
        #[test]
        fn a_patch_carries_the_file_byte_by_byte(text in "([ a-z:#'\"\\\\-]{0,8}\n?){0,6}|(?s:.{0,20})") {
            prop_assert_eq!(read_back(&patch_yaml(&text)), text.clone());
            let json: serde_json::Value = serde_json::from_str(&patch_json(&text)).unwrap();
            prop_assert_eq!(&json["data"][KEY], &serde_json::Value::from(text));
        }
    }
}
