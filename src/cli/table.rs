//! Lists as commands print them: a table for people, cut to the terminal's width, and lines with tabs for a pipe.
//!
//! Used by all commands that list things. What stands in a cell may come from anybody: it is made printable here. Widths
//! are in columns of a terminal, of which an ideograph or an emoji takes two and an accent none.

use std::io::IsTerminal;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::cli::terminal::{self, printable};

/// No column is cut to less.
const LEAST: usize = 8;
/// A column of no more than this is not cut at all: ids of records, days, states.
const KEPT: usize = 12;
/// Between two columns.
const GAP: &str = "  ";

/// Prints rows under a head. In a pipe there is no head, and nothing is cut.
pub fn show<const N: usize>(head: [&str; N], rows: &[[String; N]]) {
    let rows: Vec<[String; N]> = rows
        .iter()
        .map(|row| row.each_ref().map(|cell| printable(cell)))
        .collect();
    if rows.is_empty() {
        return;
    }
    if std::io::stdout().is_terminal() {
        terminal::print(&laid_out(head, &rows, width_of_terminal()));
    } else {
        rows.iter().for_each(|row| terminal::say(row.join("\t")));
    }
}

/// A table of at most this width, if its columns can be made as narrow: the widest are cut first. The first column is never
/// cut: it holds the ids, which commands take whole.
fn laid_out<const N: usize>(head: [&str; N], rows: &[[String; N]], width: usize) -> String {
    let mut widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].width())
            .chain([head[column].width()])
            .max()
            .unwrap_or_default()
    });
    let room = width.saturating_sub(GAP.len() * N.saturating_sub(1));
    let may_be_cut = widths.map(|width| width > KEPT);
    while widths.iter().sum::<usize>() > room {
        let candidates = widths.iter_mut().zip(may_be_cut).skip(1);
        let candidates = candidates.filter_map(|(width, may)| may.then_some(width));
        let Some(widest) = candidates.max_by_key(|width| **width) else {
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
            .map(|(cell, width)| {
                let shown = cut(cell, width);
                let blanks = width.saturating_sub(shown.width());
                format!("{shown}{:blanks$}", "")
            })
            .collect();
        format!("{}\n", cells.join(GAP).trim_end())
    };
    let lines = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    std::iter::once(line(head)).chain(lines).collect()
}

/// A text in at most so many columns.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let shown: String = text
        .chars()
        .take_while(|c| {
            let needed = c.width().unwrap_or_default();
            let fits = needed <= room;
            room = room.saturating_sub(needed);
            fits
        })
        .collect();
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
        assert!(line.width() <= 50, "{line}");
        assert!(
            line.starts_with("abcde-12345  A very long") && line.contains('…') && line.ends_with("Somebody"),
            "{line}"
        );
        let narrow = laid_out(["ID", "TITLE", "BY"], &rows, 5);
        assert!(narrow.contains("\nabcde-12345  "), "{narrow}");
        assert!(narrow.lines().last().unwrap().contains("A very…"), "{narrow}");
    }

    #[test]
    fn an_id_is_never_cut_however_narrow_the_terminal() {
        let id = "43b14e4f-05eb-4903-87b6-b80b225383ed";
        let title = "A title that is long enough to be cut";
        let rows = [[id, "submitted", "community-submission", "abcde-12345", title].map(str::to_owned)];
        let table = laid_out(["ID", "STATUS", "KIND", "ABOUT", "TITLE"], &rows, 80);
        let line = table.lines().last().unwrap();
        assert_eq!(line, format!("{id}  submitted  communi…  abcde-12345  A title…"));
        assert_eq!(line.width(), 80);
    }

    #[test]
    fn columns_stand_below_each_other_whatever_script_is_in_them() {
        let rows = [
            row(["a", "雪の深さの観測", "x"]),
            row(["b", "Ha\u{308}user 👩\u{200d}🔬", "y"]),
            row(["c", "שלום", "z"]),
        ];
        let table = laid_out(["ID", "TITLE", "BY"], &rows, 80);
        for line in table.lines().skip(1) {
            assert_eq!(line.width(), table.lines().nth(1).unwrap().width(), "{table}");
        }
        let cut = cut("雪の深さの観測", 8);
        assert_eq!((cut.as_str(), cut.width()), ("雪の深…", 7));
    }
}
