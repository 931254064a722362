//! `--ab KEY=A,B`: a comparison that the command line asks for, over whatever a configuration measures.

use std::path::PathBuf;
use std::sync::Arc;

use super::amount::Bounds;
use super::reader::Reader;
use super::settings::LENGTH_KEYS;
use super::suggest::quoted;
use super::{Config, ConfigError, Location, matrix, node};

impl Config {
    /// The same with an axis of two values in every entry, whose points are compared in pairs. `text` is `KEY=A,B`.
    ///
    /// # Errors
    /// What is wrong with `text`, or an entry that gives the key itself.
    pub fn compared(mut self, text: &str) -> Result<Config, ConfigError> {
        let from = PathBuf::from(format!("--ab {text}"));
        let refuse =
            |message: String| ConfigError::single(Location { file: Some(from.clone()), line: 0, column: 0 }, message);
        let parts = text.split_once('=').map(|(key, values)| (key.trim(), split(values)));
        let Some((key, [a, b])) = parts.as_ref().map(|(key, values)| (*key, values.as_slice())) else {
            return Err(refuse(
                "give KEY=A,B: an axis of `matrix` and its two values, such as quantization=none,fp8; a value with a \
                 comma goes in double quotes"
                    .into(),
            ));
        };
        let [a, b] = [a, b].map(|value| scalar(value));
        let yaml = format!("{{{key}: [{a}, {b}], compare: {key}}}");
        let parsed = node::parse(&yaml, &Bounds::CONFIG, |_, _| ()).map_err(|(_, message)| refuse(message))?;
        let mut reader = Reader::new(Some(from.clone()));
        let added = matrix::read(&mut reader, &parsed);
        let added = reader.problems.into_result(added)?;
        let mut problems = super::error::Problems::default();
        for entry in &mut self.entries {
            let in_lengths = LENGTH_KEYS.contains(&key) && !entry.length_configs.is_empty();
            let in_sizes = key == "tensor_parallel_size" && !entry.tensor_parallel_sizes.is_empty();
            let is_axis = entry.matrix.axes.iter().any(|axis| axis.keys.iter().any(|(given, _)| *given == key));
            if is_axis || in_lengths || in_sizes || entry.matrix.compare.is_some() {
                let place = entry.name.place;
                let location = Location { file: self.file.clone(), line: place.line, column: place.column };
                let name = quoted(&entry.name.value);
                problems.add(
                    location,
                    format!(
                        "--ab compares `{key}`, and the entry {name} has values of it, or a comparison, of its own"
                    ),
                );
                continue;
            }
            let axes = [&entry.matrix.axes[..], &added.axes[..]].concat();
            entry.matrix = Arc::new(matrix::Matrix {
                axes,
                compare: added.compare.clone(),
                ..matrix::Matrix::clone(&entry.matrix)
            });
        }
        self.is_compared = true;
        problems.into_result(self)
    }
}

/// The values of a list with commas between them, each without its quotes. Quotes hide a comma, and so do the brackets of
/// JSON.
fn split(text: &str) -> Vec<String> {
    let (mut values, mut begin, mut depth) = (Vec::new(), 0, 0usize);
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match (character, quote) {
            ('\\', Some('"')) => drop(characters.next()),
            (_, Some(open)) if character == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) => quote = Some(character),
            ('[' | '{', None) => depth += 1,
            (']' | '}', None) => depth = depth.saturating_sub(1),
            (',', None) if depth == 0 => {
                values.push(unquoted(text[begin..index].trim()));
                begin = index + 1;
            }
            _ => {}
        }
    }
    values.push(unquoted(text[begin..].trim()));
    values
}

/// A value that is one text in double quotes, as JSON writes it, or in single ones; any other as it stands.
fn unquoted(value: &str) -> String {
    let single =
        value.strip_prefix('\'').and_then(|value| value.strip_suffix('\'')).filter(|value| !value.contains('\''));
    single.map(str::to_owned).or_else(|| serde_json::from_str(value).ok()).unwrap_or_else(|| value.to_owned())
}

/// A value as YAML: a number as it is, anything else as text.
fn scalar(value: &str) -> String {
    match value.parse::<f64>() {
        Ok(_) => value.to_owned(),
        Err(_) => serde_json::Value::from(value).to_string(),
    }
}
