//! Tables and lists of members, for people.

use console::measure_text_width;

/// What stands between two columns.
const GAP: &str = "  ";

/// What a text tells by its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// It went well.
    Good,
    /// It is not over yet.
    Waiting,
    /// It went badly.
    Bad,
    /// It matters less.
    Quiet,
    /// It names what follows.
    Heading,
}

impl Tone {
    /// By the words that the API has for how something stands or went.
    pub(crate) fn of(word: &str) -> Self {
        match word {
            "active" | "delivered" | "completed" | "accepted" | "verified" => Self::Good,
            "pending" | "retrying" | "held" | "paused" | "queued" | "running" | "duplicate" => Self::Waiting,
            "failed" | "disabled" | "cancelled" | "conflict" | "invalid" | "refused" | "deleting" => {
                Self::Bad
            }
            _ => Self::Plain,
        }
    }

    /// Of an HTTP status.
    pub(crate) fn of_status(status: u64) -> Self {
        if (200..300).contains(&status) { Self::Good } else { Self::Bad }
    }

    /// ECMA-48, Select Graphic Rendition.
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Waiting => Some("33"),
            Self::Bad => Some("31"),
            Self::Quiet => Some("2"),
            Self::Heading => Some("1"),
        }
    }
}

/// One field of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A text with a tone.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: harmless(&text.into()), tone }
    }

    /// A word of the API that says how something stands, in its tone.
    pub(crate) fn word(word: impl Into<String>) -> Self {
        let word = word.into();
        let tone = Tone::of(&word);
        Self::toned(word, tone)
    }

    /// As it is written, filled up to a width.
    pub(crate) fn painted(&self, width: usize, colours: bool) -> String {
        let fill = " ".repeat(width.saturating_sub(measure_text_width(&self.text)));
        match self.tone.code().filter(|_| colours && !self.text.is_empty()) {
            Some(code) => format!("\u{1b}[{code}m{}\u{1b}[0m{fill}", self.text),
            None => format!("{}{fill}", self.text),
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// A table whose rows come a page at a time. A column never gets narrower from one page to the next.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<Cell>,
    widths: Vec<usize>,
    begun: bool,
}

impl Table {
    /// With these columns.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let headings = headings.iter().map(|text| Cell::toned(*text, Tone::Heading)).collect::<Vec<_>>();
        Self { widths: vec![0; headings.len()], headings, begun: false }
    }

    /// The lines of the next rows, behind the headings if these are the first.
    pub(crate) fn lines(&mut self, rows: &[Vec<Cell>], colours: bool) -> Vec<String> {
        let first = (!self.begun && !rows.is_empty()).then(|| self.headings.clone());
        self.begun |= first.is_some();
        let rows = first.iter().chain(rows).collect::<Vec<_>>();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row.iter()) {
                *width = (*width).max(measure_text_width(&cell.text));
            }
        }
        rows.into_iter().map(|row| self.line(row, colours)).collect()
    }

    fn line(&self, row: &[Cell], colours: bool) -> String {
        let cells = row.iter().zip(&self.widths).map(|(cell, width)| cell.painted(*width, colours));
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    }
}

/// Names and what they stand for, one a line.
#[derive(Debug, Default)]
pub(crate) struct Members(Vec<(&'static str, Cell)>);

impl Members {
    /// With one more.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Cell>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// With one more, if there is something to say.
    #[must_use]
    pub(crate) fn with_some(self, name: &'static str, value: Option<impl Into<Cell>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The lines.
    pub(crate) fn lines(&self, colours: bool) -> Vec<String> {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let line = |(name, value): &(&'static str, Cell)| {
            let name = Cell::toned(*name, Tone::Quiet).painted(width, colours);
            format!("{name}{GAP}{}", value.painted(0, colours)).trim_end().to_owned()
        };
        self.0.iter().map(line).collect()
    }
}

/// A text that moves no cursor and rings no bell: it may come from a receiver's answer.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<Cell> {
        cells.iter().map(|text| Cell::word(*text)).collect()
    }

    #[test]
    fn columns_stand_one_below_the_other() {
        let mut table = Table::new(&["ID", "STATUS", "TITLE"]);
        let lines = table.lines(&[row(&["sub_1", "active", "Ü"]), row(&["s", "failed", ""])], false);
        assert_eq!(lines, ["ID     STATUS  TITLE", "sub_1  active  Ü", "s      failed"]);
        // The next page has no headings and keeps the widths.
        assert_eq!(table.lines(&[row(&["s", "held", "日本"])], false), ["s      held    日本"]);
        assert!(Table::new(&["ID"]).lines(&[], false).is_empty());
    }

    #[test]
    fn colours_take_no_width() {
        let mut table = Table::new(&["STATUS", "N"]);
        let lines = table.lines(&[row(&["ok", "1"]), row(&["failed", "2"])], true);
        assert_eq!(lines[1], "ok      1");
        assert_eq!(lines[2], "\u{1b}[31mfailed\u{1b}[0m  2");
    }

    #[test]
    fn members() {
        let members = Members::default().with("id", "sub_1").with_some("title", None::<String>);
        let members = members.with("status", Cell::word("active"));
        assert_eq!(members.lines(false), ["id      sub_1", "status  active"]);
    }

    #[test]
    fn what_others_wrote_moves_no_cursor() {
        assert_eq!(Cell::from("a\u{1b}[2Jb\n\u{9b}c"), Cell::from("a [2Jb  c"));
    }
}
