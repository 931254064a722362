//! Binary files of fixed-size records that end with the CRC-32 of all that stands before it.

use std::io::{self, Read, Write};

use bytemuck::Pod;
use serde::{Deserialize, Serialize};

/// Records that are read at once, so that a file that is shorter than its header says takes no memory for the rest.
const AT_ONCE: usize = 1 << 16;
/// Length of the checksum at the end.
pub const CRC_BYTES: u64 = 4;
/// What is wrong with a file of other bytes than were written.
pub const CHANGED: &str = "its checksum does not agree with its content: the file was changed or damaged; take the run from a \
                           backup or measure it again";

/// Length and checksum of a file, as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSum {
    /// Length of the whole file.
    pub bytes: u64,
    /// CRC-32 of all of it but the last four bytes, which hold the same.
    pub crc32: u32,
}

/// Writes the parts of a file and their CRC-32.
///
/// # Errors
/// Those of the writer.
pub fn write_parts(out: &mut impl Write, parts: &[&[u8]]) -> io::Result<FileSum> {
    let mut crc = crc32fast::Hasher::new();
    for part in parts {
        crc.update(part);
        out.write_all(part)?;
    }
    let crc32 = crc.finalize();
    out.write_all(&crc32.to_ne_bytes())?;
    let bytes = parts.iter().map(|part| part.len()).sum::<usize>() + size_of_val(&crc32);
    Ok(FileSum { bytes: bytes as u64, crc32 })
}

/// Reads such a file part by part.
pub struct CheckedReader<R> {
    input: R,
    crc: crc32fast::Hasher,
}

impl<R: Read> CheckedReader<R> {
    /// From the begin of a file.
    pub fn new(input: R) -> CheckedReader<R> {
        CheckedReader { input, crc: crc32fast::Hasher::new() }
    }

    /// The next record.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn record<T: Pod>(&mut self) -> io::Result<T> {
        let mut record = T::zeroed();
        self.input.read_exact(bytemuck::bytes_of_mut(&mut record))?;
        self.crc.update(bytemuck::bytes_of(&record));
        Ok(record)
    }

    /// So many records.
    ///
    /// # Errors
    /// Those of the reader; [`io::ErrorKind::OutOfMemory`] for more records than there is memory for.
    pub fn records<T: Pod>(&mut self, count: u64) -> io::Result<Vec<T>> {
        let no_room = |_| {
            let problem = format!("there is no memory for its {count} records of {} bytes", size_of::<T>());
            io::Error::new(io::ErrorKind::OutOfMemory, problem)
        };
        let mut records: Vec<T> = Vec::new();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        records.try_reserve_exact(count).map_err(no_room)?;
        while records.len() < count {
            let begin = records.len();
            records.resize(count.min(begin + AT_ONCE), T::zeroed());
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut records[begin..]);
            self.input.read_exact(bytes)?;
            self.crc.update(bytes);
        }
        Ok(records)
    }

    /// The checksum of all that was read, if the file ends with the same.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn finish(mut self) -> io::Result<Option<u32>> {
        let crc32 = self.crc.finalize();
        let mut stored = [0; CRC_BYTES as usize];
        self.input.read_exact(&mut stored)?;
        Ok((u32::from_ne_bytes(stored) == crc32).then_some(crc32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_with_their_checksum() {
        let numbers: Vec<u64> = (0..AT_ONCE as u64 + 3).collect();
        let mut file = Vec::new();
        let sum = write_parts(&mut file, &[bytemuck::cast_slice(&numbers)]).unwrap();
        assert_eq!(sum.bytes, file.len() as u64);
        let mut reader = CheckedReader::new(file.as_slice());
        assert_eq!(reader.record::<u64>().unwrap(), 0);
        assert_eq!(reader.records::<u64>(numbers.len() as u64 - 1).unwrap(), numbers[1..]);
        assert_eq!(reader.finish().unwrap(), Some(sum.crc32));
        file[9] ^= 1;
        let mut reader = CheckedReader::new(file.as_slice());
        reader.records::<u64>(numbers.len() as u64).unwrap();
        assert_eq!(reader.finish().unwrap(), None);
    }

    #[test]
    fn more_records_than_there_is_memory_for_are_refused() {
        for count in [u64::MAX, u64::MAX / 16, 1 << 58] {
            let error = CheckedReader::new([].as_slice()).records::<[u64; 2]>(count).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
        }
    }
}
