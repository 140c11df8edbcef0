//! Capture files for tcpdump and Wireshark: pcap with nanosecond time stamps, Ethernet link type.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;
/// Longest frame stored, in octets.
pub(crate) const SNAP_LENGTH: usize = 65536;

/// A capture file being written.
pub(crate) struct PcapWriter<W: Write> {
    out: W,
}

impl PcapWriter<BufWriter<File>> {
    /// Creates or replaces a file.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Self::new(BufWriter::new(File::create(path)?))
    }
}

impl<W: Write> PcapWriter<W> {
    /// Starts a capture with its file header, in this machine's byte order as the format allows.
    pub(crate) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC_NANOSECONDS.to_ne_bytes())?;
        out.write_all(&2u16.to_ne_bytes())?;
        out.write_all(&4u16.to_ne_bytes())?;
        out.write_all(&[0; 8])?;
        out.write_all(&(SNAP_LENGTH as u32).to_ne_bytes())?;
        out.write_all(&LINKTYPE_ETHERNET.to_ne_bytes())?;
        Ok(Self { out })
    }

    /// Adds a frame that had `wire_length` octets.
    pub(crate) fn frame(
        &mut self,
        time: SystemTime,
        octets: &[u8],
        wire_length: usize,
    ) -> io::Result<()> {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.out.write_all(&(since_epoch.as_secs() as u32).to_ne_bytes())?;
        self.out.write_all(&since_epoch.subsec_nanos().to_ne_bytes())?;
        self.out.write_all(&(octets.len() as u32).to_ne_bytes())?;
        self.out.write_all(&(wire_length as u32).to_ne_bytes())?;
        self.out.write_all(octets)
    }

    /// Hands everything to the operating system.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_file_has_a_header_and_its_frames() {
        let mut writer = PcapWriter::new(Vec::new()).unwrap();
        writer.frame(UNIX_EPOCH + Duration::new(5, 7), &[1, 2, 3], 1514).unwrap();
        let file = writer.out;
        assert_eq!(file.len(), 24 + 16 + 3);
        assert_eq!(file[..4], MAGIC_NANOSECONDS.to_ne_bytes());
        assert_eq!(file[24..28], 5u32.to_ne_bytes());
        assert_eq!(file[28..32], 7u32.to_ne_bytes());
        assert_eq!(file[36..40], 1514u32.to_ne_bytes());
        assert_eq!(file[40..], [1, 2, 3]);
    }
}
