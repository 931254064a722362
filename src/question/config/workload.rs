//! The named workloads, and the factor by which they are made smaller for a small model.

use std::fmt;

/// Lengths under a name, in tokens; the shared prefix lies inside the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What `workload:` calls it.
    pub name: &'static str,
    /// Prompt tokens.
    pub input_len: u32,
    /// Output tokens.
    pub output_len: u32,
    /// Leading prompt tokens that all requests share.
    pub prefix_len: u32,
}

/// All named workloads.
pub const WORKLOADS: [Workload; 6] = [
    Workload { name: "reasoning", input_len: 2048, output_len: 8192, prefix_len: 0 },
    Workload { name: "text-generation", input_len: 1024, output_len: 4096, prefix_len: 0 },
    Workload { name: "chatbot", input_len: 1024, output_len: 1024, prefix_len: 0 },
    Workload { name: "code-generation", input_len: 8192, output_len: 2048, prefix_len: 7900 },
    Workload { name: "summarization", input_len: 2048, output_len: 256, prefix_len: 1800 },
    Workload { name: "summarization-4k", input_len: 4096, output_len: 256, prefix_len: 3800 },
];

impl Workload {
    /// The same shape with each length times `scale`, rounded down; a length may become 0.
    pub fn scaled(self, scale: Scale) -> Workload {
        Workload {
            name: self.name,
            input_len: scale.of(self.input_len),
            output_len: scale.of(self.output_len),
            prefix_len: scale.of(self.prefix_len),
        }
    }
}

/// A factor of lengths, of two whole numbers so that it says exactly what was done: `1/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    numerator: u32,
    denominator: u32,
}

impl Scale {
    /// The lengths as they are.
    pub const FULL: Scale = Scale { numerator: 1, denominator: 1 };
    /// Largest number on either side of the stroke.
    const MAX: u32 = 1_000;

    /// Reads `1/8`; `None` for anything but two whole numbers from 1 to 1,000.
    pub(super) fn parse(text: &str) -> Option<Scale> {
        let (numerator, denominator) = text.split_once('/')?;
        let number = |text: &str| text.trim().parse().ok().filter(|number| (1..=Scale::MAX).contains(number));
        Some(Scale { numerator: number(numerator)?, denominator: number(denominator)? })
    }

    fn of(self, length: u32) -> u32 {
        // The lengths of workloads are below 10,000, and the numerator is at most 1,000.
        length * self.numerator / self.denominator
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.numerator, self.denominator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_two_whole_numbers() {
        let shown = |text| Scale::parse(text).map(|scale| scale.to_string());
        assert_eq!(shown("1/8"), Some("1/8".into()));
        assert_eq!(shown(" 3 / 4 "), Some("3/4".into()));
        for text in ["", "1", "0/8", "1/0", "-1/8", "1/1001", "1/8/2", "0.5/1"] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    #[test]
    fn lengths_are_rounded_down() {
        let code = WORKLOADS[3].scaled(Scale::parse("1/8").unwrap());
        assert_eq!((code.input_len, code.output_len, code.prefix_len), (1024, 256, 987));
        assert_eq!(WORKLOADS[3].scaled(Scale::FULL), WORKLOADS[3]);
    }
}
