//! What may be set, as the reference (docs/reference.md) tells it. Each table of these stands beside the code that reads what it tells of.

/// One thing that may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What it is called.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What holds without it; `required` when nothing does.
    pub default: &'static str,
    /// Of a number, what it counts.
    pub unit: &'static str,
}

impl Setting {
    /// Without a unit.
    #[must_use]
    pub const fn new(name: &'static str, default: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            meaning,
            default,
            unit: "",
        }
    }

    /// The same, as a number of these.
    #[must_use]
    pub const fn counting(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }
}
