//! What is printed: for people, or for scripts.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::value::RawValue;

use crate::failure::{Failure, Refusal};
use crate::table::{Cell, Members, Table, Tone};

/// How things are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    colours: bool,
    colours_of_notes: bool,
}

impl Output {
    /// With JSON for scripts or texts for people. Colours are for terminals alone, and for those who want them
    /// (<https://no-color.org>).
    pub(crate) fn new(json: bool, no_colour: bool) -> Self {
        Self {
            json,
            colours: !json && !no_colour && io::stdout().is_terminal(),
            colours_of_notes: !no_colour && io::stderr().is_terminal(),
        }
    }

    /// Whether scripts read it.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// A line for people, which scripts do not see.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { write_lines(&[text]) }
    }

    /// A line for people, of parts that each have a tone.
    pub(crate) fn toned_line(self, parts: &[Cell]) -> Result<(), Failure> {
        let parts = parts.iter().map(|part| part.painted(0, self.colours));
        self.line(&parts.collect::<Vec<_>>().join("  "))
    }

    /// Names and what they stand for.
    pub(crate) fn members(self, members: &Members) -> Result<(), Failure> {
        write_lines(&members.lines(self.colours))
    }

    /// Rows of a table.
    pub(crate) fn rows(self, table: &mut Table, rows: &[Vec<Cell>]) -> Result<(), Failure> {
        write_lines(&table.lines(rows, self.colours))
    }

    /// JSON as it came, on a line of its own.
    #[expect(clippy::unused_self, reason = "printed as everything else is")]
    pub(crate) fn json(self, text: &str) -> Result<(), Failure> {
        write_lines(&[one_line(text)])
    }

    /// JSON values as they came, one a line.
    #[expect(clippy::unused_self, reason = "printed as everything else is")]
    pub(crate) fn json_lines(self, values: &[Box<RawValue>]) -> Result<(), Failure> {
        write_lines(&values.iter().map(|value| one_line(value.get())).collect::<Vec<_>>())
    }

    /// A word to the user that is no part of the result.
    pub(crate) fn note(self, text: &str) {
        self.tell(text, Tone::Quiet);
    }

    /// Says why the command failed. Scripts get a problem as it came.
    pub(crate) fn failure(self, failure: &Failure) {
        match failure {
            Failure::Refused(Refusal { body, .. }) if self.json && is_object(body) => {
                self.tell(&one_line(&String::from_utf8_lossy(body)), Tone::Plain);
            }
            other => {
                let heading = Cell::toned("error:", Tone::Bad).painted(0, self.colours_of_notes);
                // Lines are of our making; what stands in them may not be.
                let text = other.to_string();
                let lines = text.lines().map(crate::table::harmless).collect::<Vec<_>>();
                self.tell(&format!("{heading} {}", lines.join("\n")), Tone::Plain);
            }
        }
    }

    /// Shows how far something is, where somebody sees it.
    pub(crate) fn progress(self, what: &str, total: Option<u64>) -> ProgressBar {
        if self.json {
            return ProgressBar::hidden();
        }
        // Where no terminal is, the bar draws nothing.
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = if total.is_some() {
            "{msg} {bar:30} {pos}/{len} ({per_sec}, {eta} left)"
        } else {
            "{msg} {spinner} {pos} ({per_sec})"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar
    }

    fn tell(self, text: &str, tone: Tone) {
        let text = match tone {
            Tone::Plain => text.to_owned(),
            tone => Cell::toned(text, tone).painted(0, self.colours_of_notes),
        };
        // Nobody is left to hear of it.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

fn write_lines(lines: &[impl AsRef<str>]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    for line in lines {
        writeln!(stdout, "{}", line.as_ref())?;
    }
    Ok(stdout.flush()?)
}

/// Without the line breaks between its tokens. JSON has none within them (RFC 8259, section 7).
fn one_line(json: &str) -> String {
    json.lines().map(str::trim).collect()
}

fn is_object(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_as_it_came_but_for_line_breaks() {
        assert_eq!(
            one_line("{\n  \"b\": 1.10,\n  \"a\": \"x  y\\n\"\n}\n"),
            "{\"b\": 1.10,\"a\": \"x  y\\n\"}"
        );
        assert!(is_object(b"{\"title\": \"x\"}") && !is_object(b"[]") && !is_object(b"<html>"));
    }
}
