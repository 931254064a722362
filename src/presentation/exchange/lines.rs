//! Counts the lines of a CSV file, and bounds a row of it.
//!
//! A line ends with `\n`, `\r\n` or `\r`. The `csv` crate counts the line end of `\r\n`, and the ends of blank lines, to the row behind them: the line of a row
//! follows from the bytes instead.

use std::collections::VecDeque;
use std::io::{self, Read};

/// Longest row, in bytes: a row of events has about 100, and a quote that is not closed would take in the whole file.
pub(super) const MAX_ROW_BYTES: u64 = 1 << 20;

/// Passes on what it reads, and remembers the line ends that are not yet [passed](Lines::line_of).
pub(super) struct Lines<R> {
    input: R,
    /// Bytes read.
    read: u64,
    /// Behind the last byte that ends no line.
    content_end: u64,
    /// Whether the last byte is a `\r`: a line end of its own, unless a `\n` follows.
    after_return: bool,
    /// Line ends from the row on that was looked up last.
    ends: VecDeque<LineEnd>,
    /// Line ends before them.
    passed: u64,
    /// First byte of the row that was looked up last, and its line; 0 before the first.
    row_begin: u64,
    line: u64,
}

struct LineEnd {
    at: u64,
    /// Behind the last byte before it that ends no line.
    content_end: u64,
}

impl<R: Read> Lines<R> {
    /// Of a whole file.
    pub(super) fn new(input: R) -> Lines<R> {
        Lines {
            input,
            read: 0,
            content_end: 0,
            after_return: false,
            ends: VecDeque::new(),
            passed: 0,
            row_begin: 0,
            line: 0,
        }
    }

    /// The 1-based line of the row that begins at the byte `begin`, or behind it after line ends alone. Rows are looked up
    /// in the order of the file.
    pub(super) fn line_of(&mut self, begin: u64) -> u64 {
        self.row_begin = begin;
        while let Some(end) = self.ends.front().filter(|end| end.at < begin || end.content_end <= begin) {
            self.row_begin = self.row_begin.max(end.at + 1);
            self.ends.pop_front();
            self.passed += 1;
        }
        self.line = self.passed + 1;
        self.line
    }
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read - self.row_begin > MAX_ROW_BYTES {
            let problem = format!(
                "the row behind line {} is longer than {MAX_ROW_BYTES} bytes, which no event is: is a quote not closed?",
                self.line
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        let count = self.input.read(buffer)?;
        for byte in &buffer[..count] {
            let content_end = self.content_end;
            match byte {
                b'\n' => self.ends.push_back(LineEnd { at: self.read, content_end }),
                _ if self.after_return => self.ends.push_back(LineEnd { at: self.read - 1, content_end }),
                _ => {}
            }
            if !matches!(byte, b'\n' | b'\r') {
                self.content_end = self.read + 1;
            }
            self.after_return = *byte == b'\r';
            self.read += 1;
        }
        Ok(count)
    }
}
