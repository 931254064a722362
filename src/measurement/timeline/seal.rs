//! The seal of a stored record: checksums because of which no byte of a record or of its binary files changes unnoticed.
//!
//! A record is a JSON object. Its last two keys, on lines of their own, are `stored_files`, with length and CRC-32 of the binary
//! files that belong to the record, and `sha256`, the digest of all bytes of the file before the digest. Records of older
//! versions have neither.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::base::checked_file::{CHANGED, FileSum};

/// Between the last value of the record and the object of the files. A record is written with an indentation of two, so that
/// only a key of its outermost object stands like this.
const FILES: &[u8] = b",\n  \"stored_files\": ";
/// Between that and the digest; all before its end is what the digest is of.
const DIGEST: &[u8] = b",\n  \"sha256\": \"";
/// After the digest, to the end of the file.
const END: &[u8] = b"\"\n}\n";
/// Hexadecimal digits of a digest.
const DIGEST_BYTES: usize = 64;

/// The binary files that belong to a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Files {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) events: Option<FileSum>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) telemetry: Option<FileSum>,
}

/// A record with the files that it is sealed with; none in the record of an older version.
pub(crate) struct Opened<T> {
    pub(crate) record: T,
    pub(crate) files: Option<Files>,
}

/// The bytes of a file with this record.
///
/// # Errors
/// A record that JSON cannot hold.
pub(crate) fn seal(record: &impl Serialize, files: Files) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(record)?;
    bytes.truncate(bytes.len() - b"\n}".len());
    bytes.extend_from_slice(FILES);
    serde_json::to_writer(&mut bytes, &files)?;
    bytes.extend_from_slice(DIGEST);
    let digest = hex_digest(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes.extend_from_slice(END);
    Ok(bytes)
}

/// The record in the bytes of a file, and what it was sealed with.
///
/// # Errors
/// A sentence that says what is wrong: another byte than was written, a key that this version does not know.
pub(crate) fn open<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<Opened<T>, String> {
    let Some(at) = bytes.windows(FILES.len()).rposition(|window| window == FILES) else {
        return Ok(Opened { record: parse(bytes)?, files: None });
    };
    let (record, sealed) = bytes.split_at(at);
    let files = files_of(bytes, sealed).ok_or(CHANGED)?;
    let files = serde_json::from_slice(files).map_err(not_ours)?;
    // The digest is of what this version wrote: no key of it is unknown.
    let record = serde_json::from_slice(&[record, b"\n}"].concat()).map_err(not_ours)?;
    Ok(Opened { record, files: Some(files) })
}

/// The object of the files in `sealed`, the end of a file of these bytes; `None` if the digest is of other bytes.
fn files_of<'a>(bytes: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let rest = sealed.strip_suffix(END)?;
    let (files, digest) = rest.split_at_checked(rest.len().checked_sub(DIGEST_BYTES)?)?;
    let digest_of = &bytes[..bytes.len() - END.len() - DIGEST_BYTES];
    let is_whole = digest == hex_digest(digest_of).as_bytes();
    files.strip_suffix(DIGEST)?.strip_prefix(FILES).filter(|_| is_whole)
}

fn not_ours(error: serde_json::Error) -> String {
    format!("not what `bench` wrote: {error}")
}

/// A record from its JSON, in which no key may be unknown: that of an optional value would be ignored.
fn parse<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let record: T = serde_json::from_slice(bytes).map_err(not_ours)?;
    let stored: Value = serde_json::from_slice(bytes).map_err(not_ours)?;
    match unknown_key(&stored, &serde_json::to_value(&record).map_err(not_ours)?) {
        None => Ok(record),
        Some(key) => Err(format!("not what `bench` wrote: unknown key `{key}`: the file was changed or damaged")),
    }
}

/// The first key of `stored` with a value that `understood` has not.
fn unknown_key(stored: &Value, understood: &Value) -> Option<String> {
    match (stored, understood) {
        (Value::Object(stored), Value::Object(understood)) => stored.iter().find_map(|(key, value)| {
            let below = |below: String| format!("{key}.{below}");
            match understood.get(key) {
                Some(known) => unknown_key(value, known).map(below),
                None => (!is_default(value)).then(|| key.clone()),
            }
        }),
        (Value::Array(stored), Value::Array(understood)) => {
            stored.iter().zip(understood).find_map(|(stored, understood)| unknown_key(stored, understood))
        }
        _ => None,
    }
}

/// What a key that is left out where it says nothing may hold all the same.
fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.values().all(is_default),
        _ => false,
    }
}

fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Record {
        number: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        optional: Option<String>,
    }

    const SUM: FileSum = FileSum { bytes: 10, crc32: 7 };

    #[test]
    fn a_sealed_record_comes_back_with_its_files() {
        let record = Record { number: 3, optional: Some("a,\n  \"stored_files\": b".to_owned()) };
        for files in [
            Files::default(),
            Files { events: Some(SUM), telemetry: None },
            Files { events: Some(SUM), telemetry: Some(SUM) },
        ] {
            let bytes = seal(&record, files).unwrap();
            let opened: Opened<Record> = open(&bytes).unwrap();
            assert_eq!(
                (opened.record, opened.files),
                (Record { number: 3, optional: record.optional.clone() }, Some(files))
            );
            let value: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(value["sha256"].as_str().unwrap().len(), DIGEST_BYTES, "the file is JSON, seal included");
        }
    }

    #[test]
    fn any_other_byte_and_any_cut_is_noticed() {
        let bytes = seal(&Record { number: 3, optional: None }, Files { events: Some(SUM), telemetry: None }).unwrap();
        let is_sealed = |bytes: &[u8]| open::<Record>(bytes).is_ok_and(|opened| opened.files.is_some());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(!is_sealed(&changed), "bit {bit} of byte {at}");
            }
            assert!(!is_sealed(&bytes[..at]), "cut off after {at} bytes");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_in_a_record_without_a_seal() {
        assert!(open::<Record>(br#"{"number": 3}"#).is_ok_and(|opened| opened.files.is_none()));
        let error = open::<Record>(br#"{"number": 3, "optionaL": "x"}"#).err().unwrap();
        assert!(error.contains("unknown key `optionaL`"), "{error}");
    }
}
