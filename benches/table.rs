//! How benches print what they measured.

/// Prints a table with a title; the first row is its head.
pub fn table(title: &str, rows: &[Vec<String>]) {
    println!("\n{title}");
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| {
                if column == 0 {
                    format!("{cell:<w$}", w = width(column))
                } else {
                    format!("{cell:>w$}", w = width(column))
                }
            })
            .collect();
        println!("  {}", cells.join("  "));
    }
}

/// A whole number with spaces between thousands.
pub fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(' ');
        }
        shown.push(digit);
    }
    shown
}

macro_rules! row {
    ($($cell:expr),+ $(,)?) => { vec![$($cell.to_string()),+] };
}
pub(crate) use row;
