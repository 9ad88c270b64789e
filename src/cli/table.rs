//! Lists as commands print them: a table for people, cut to the terminal's width, and lines with tabs for a pipe.
//!
//! Used by all commands that list things. What stands in a cell may come from anybody: it is made printable here.

use std::io::IsTerminal;

use crate::cli::terminal::{self, printable};

/// No column is cut to less.
const LEAST: usize = 8;
/// Between two columns.
const GAP: &str = "  ";

/// Prints rows under a head. In a pipe there is no head, and nothing is cut.
pub fn show<const N: usize>(head: [&str; N], rows: &[[String; N]]) {
    let rows: Vec<[String; N]> = rows
        .iter()
        .map(|row| row.each_ref().map(|cell| printable(cell)))
        .collect();
    if std::io::stdout().is_terminal() {
        terminal::print(&laid_out(head, &rows, width_of_terminal()));
    } else {
        rows.iter().for_each(|row| terminal::say(row.join("\t")));
    }
}

/// A table of at most this width, if its columns can be made as narrow: the widest are cut first.
fn laid_out<const N: usize>(head: [&str; N], rows: &[[String; N]], width: usize) -> String {
    let mut widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([head[column].chars().count()])
            .max()
            .unwrap_or_default()
    });
    let room = width.saturating_sub(GAP.len() * N.saturating_sub(1));
    while widths.iter().sum::<usize>() > room {
        let Some(widest) = widths.iter_mut().max_by_key(|width| **width) else {
            break;
        };
        if *widest <= LEAST {
            break;
        }
        *widest -= 1;
    }
    let line = |cells: [&str; N]| {
        let cells: Vec<String> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{:width$}", cut(cell, width)))
            .collect();
        format!("{}\n", cells.join(GAP).trim_end())
    };
    let lines = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    std::iter::once(line(head)).chain(lines).collect()
}

/// A text in at most so many characters.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let shown: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", shown.trim_end())
}

/// 80 where it is unknown.
fn width_of_terminal() -> usize {
    // SAFETY: a winsize is plain numbers, for which zero is a value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize to where the pointer leads, which lives until the call is over.
    let done = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    match usize::from(size.ws_col) {
        0 => 80,
        _ if done != 0 => 80,
        columns => columns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: [&str; 3]) -> [String; 3] {
        cells.map(str::to_owned)
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [row(["abcde-12345", "Größe", "x"]), row(["b", "Snow depths", "y"])];
        assert_eq!(
            laid_out(["ID", "TITLE", "BY"], &rows, 80),
            "ID           TITLE        BY\nabcde-12345  Größe        x\nb            Snow depths  y\n"
        );
    }

    #[test]
    fn the_widest_column_is_cut_first_and_none_vanishes() {
        let long = "A very long title of a data set that nobody can read at once";
        let rows = [row(["abcde-12345", long, "Somebody"])];
        let table = laid_out(["ID", "TITLE", "BY"], &rows, 50);
        let line = table.lines().last().unwrap();
        assert!(line.chars().count() <= 50, "{line}");
        assert!(
            line.starts_with("abcde-12345  A very long") && line.contains('…') && line.ends_with("Somebody"),
            "{line}"
        );
        let narrow = laid_out(["ID", "TITLE", "BY"], &rows, 5);
        assert!(narrow.lines().last().unwrap().contains("A very…"), "{narrow}");
    }
}
