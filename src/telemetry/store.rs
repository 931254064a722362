//! Samples on disk, `telemetry.bin` beside `timeline.bin`: a header of fixed size, the samples, and the CRC-32 of both.

use std::io::{self, Write};

use bytemuck::{Pod, Zeroable};

use super::Sample;

const MAGIC: [u8; 8] = *b"BENCHTM\0";
const BYTE_ORDER_MARK: u32 = 0x0102_0304;
/// Version of the layout. A quantity more makes it another one.
const VERSION: u32 = 1;
const CRC_BYTES: usize = 4;

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
pub fn write_samples(out: &mut impl Write, samples: &[Sample]) -> io::Result<()> {
    let header = Header {
        magic: MAGIC,
        byte_order: BYTE_ORDER_MARK,
        version: VERSION,
        sample_bytes: size_of::<Sample>() as u32,
        reserved: 0,
        samples: samples.len() as u64,
    };
    let mut crc = crc32fast::Hasher::new();
    for part in [bytemuck::bytes_of(&header), bytemuck::cast_slice(samples)] {
        crc.update(part);
        out.write_all(part)?;
    }
    out.write_all(&crc.finalize().to_ne_bytes())
}

/// Reads the content of the file.
///
/// # Errors
/// What is wrong with it, and what to do next.
pub fn read_samples(bytes: &[u8]) -> Result<Vec<Sample>, String> {
    let cut_off = || "it was cut off or is something else; measure the run again".to_owned();
    let (content, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or_else(cut_off)?;
    let (head, body) = content.split_at_checked(size_of::<Header>()).ok_or_else(cut_off)?;
    let header: Header = bytemuck::pod_read_unaligned(head);
    if header.magic != MAGIC {
        return Err("it is not telemetry of `bench`: it does not begin with the mark of it".to_owned());
    }
    if header.byte_order != BYTE_ORDER_MARK {
        return Err("it was written on a machine of the other byte order: read it there".to_owned());
    }
    if (header.version, header.sample_bytes as usize) != (VERSION, size_of::<Sample>()) {
        let (version, bytes) = (header.version, header.sample_bytes);
        return Err(format!(
            "its layout is version {version} of {bytes} bytes a sample, and this `bench` reads version {VERSION} of {}: \
             use the version that wrote it",
            size_of::<Sample>()
        ));
    }
    if u32::from_ne_bytes(*crc) != crc32fast::hash(content) {
        return Err(
            "its checksum does not agree with its content: the file was changed or damaged; take the run from \
                    a backup or measure it again"
                .to_owned(),
        );
    }
    if header.samples.checked_mul(size_of::<Sample>() as u64) != Some(body.len() as u64) {
        return Err(cut_off());
    }
    Ok(body.chunks_exact(size_of::<Sample>()).map(bytemuck::pod_read_unaligned).collect())
}
