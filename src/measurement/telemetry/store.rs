//! Samples on disk, `telemetry.bin` beside `timeline.bin`: a header of fixed size, the samples, and the CRC-32 of both.

use std::io::{self, Read, Write};

use bytemuck::{Pod, Zeroable};

use super::Sample;
use crate::base::checked_file::{CHANGED, CRC_BYTES, CheckedReader, FileSum, write_parts};

const MAGIC: [u8; 8] = *b"BENCHTM\0";
const BYTE_ORDER_MARK: u32 = 0x0102_0304;
/// Version of the layout. A quantity more makes it another one.
const VERSION: u32 = 1;

/// The first bytes of the file.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    byte_order: u32,
    version: u32,
    sample_bytes: u32,
    reserved: u32,
    samples: u64,
}

/// Writes the content of the file.
///
/// # Errors
/// Those of the writer.
pub fn write_samples(out: &mut impl Write, samples: &[Sample]) -> io::Result<FileSum> {
    let header = Header {
        magic: MAGIC,
        byte_order: BYTE_ORDER_MARK,
        version: VERSION,
        sample_bytes: size_of::<Sample>() as u32,
        reserved: 0,
        samples: samples.len() as u64,
    };
    write_parts(out, &[bytemuck::bytes_of(&header), bytemuck::cast_slice(samples)])
}

/// Reads a file of so many bytes: its samples, and its checksum.
///
/// # Errors
/// Those of the reader; the inner error says what is wrong with the content, and what to do next.
pub fn read_samples(input: impl Read, length: u64) -> io::Result<Result<(Vec<Sample>, u32), String>> {
    if length < AROUND_SAMPLES {
        return Ok(Err(CUT_OFF.to_owned()));
    }
    let mut input = CheckedReader::new(input);
    let header: Header = input.record()?;
    if let Err(problem) = header.check(length) {
        return Ok(Err(problem));
    }
    let samples = input.records(header.samples)?;
    Ok(input.finish()?.map(|crc32| (samples, crc32)).ok_or(CHANGED.to_owned()))
}

/// Bytes of a file without samples.
const AROUND_SAMPLES: u64 = size_of::<Header>() as u64 + CRC_BYTES;
const CUT_OFF: &str = "it was cut off or is something else; measure the run again";

impl Header {
    /// Against this version and the file's length.
    fn check(&self, length: u64) -> Result<(), String> {
        if self.magic != MAGIC {
            return Err("it is not telemetry of `bench`: it does not begin with the mark of it".to_owned());
        }
        if self.byte_order != BYTE_ORDER_MARK {
            return Err("it was written on a machine of the other byte order: read it there".to_owned());
        }
        if (self.version, self.sample_bytes as usize) != (VERSION, size_of::<Sample>()) {
            let (version, bytes) = (self.version, self.sample_bytes);
            return Err(format!(
                "its layout is version {version} of {bytes} bytes a sample, and this `bench` reads version {VERSION} of {}: \
                 use the version that wrote it",
                size_of::<Sample>()
            ));
        }
        let of_samples = self.samples.checked_mul(size_of::<Sample>() as u64);
        let expected = of_samples.and_then(|bytes| bytes.checked_add(AROUND_SAMPLES));
        if expected == Some(length) { Ok(()) } else { Err(CUT_OFF.to_owned()) }
    }
}
