//! Columns for people.

/// A line for each row of cells, every column as wide as its widest cell, and below a line what there is to note of it.
pub(super) fn table<const N: usize>(rows: &[[String; N]], notes: &[Option<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut lines = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let padded = row.iter().zip(&widths);
        let line: Vec<String> = padded
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        lines.push(line.join("  ").trim_end().to_owned());
        let note = notes.get(number).and_then(Option::as_ref);
        lines.extend(note.map(|note| format!("    -> {note}")));
    }
    lines.join("\n")
}
