//! What one scrape tells.

use prometheus_client::encoding::text;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Before every name.
const PREFIX: &str = "sanpath";

type Labels = Vec<(&'static str, String)>;

/// Gauges of one moment, by name. A name that is said again takes more labels.
pub struct Board {
    registry: Registry,
    families: Vec<(&'static str, Family<Labels, Gauge>)>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            registry: Registry::with_prefix(PREFIX),
            families: Vec::new(),
        }
    }
}

impl Board {
    /// Says that `name` (without our prefix) has this value under these labels. Counts above the largest `i64` are told as that.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[(&'static str, &str)],
        value: u64,
    ) {
        let labels = labels.iter();
        let labels: Labels = labels.map(|&(key, value)| (key, escaped(value))).collect();
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.family(name, help).get_or_create(&labels).set(value);
    }

    fn family(&mut self, name: &'static str, help: &str) -> Family<Labels, Gauge> {
        if let Some((_, family)) = self.families.iter().find(|(known, _)| *known == name) {
            return family.clone();
        }
        let family = Family::<Labels, Gauge>::default();
        self.registry.register(name, help, family.clone());
        self.families.push((name, family.clone()));
        family
    }

    pub(super) fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The page.
    ///
    /// # Errors
    /// Never, in practice: the text grows in memory.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// As the text format wants a label's value; the library writes it as it is.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', r#"\""#);
    value.replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_help_and_many_labels() {
        let mut board = Board::default();
        for (portal, active) in [("10.1.0.1:3260", 1), ("[fd00::1]:3260", 0)] {
            let labels = [("volume", "v \"1\"\n"), ("portal", portal)];
            board.gauge("path_active", "Whether it serves", &labels, active);
        }
        let text = board.text().unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines[2..4].sort_unstable();
        let wanted = [
            "# HELP sanpath_path_active Whether it serves.",
            "# TYPE sanpath_path_active gauge",
            r#"sanpath_path_active{volume="v \"1\"\n",portal="10.1.0.1:3260"} 1"#,
            r#"sanpath_path_active{volume="v \"1\"\n",portal="[fd00::1]:3260"} 0"#,
            "# EOF",
        ];
        assert_eq!(lines, wanted);
    }
}
