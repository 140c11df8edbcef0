//! The files of the journal: how a frame is written, and how frames are found again after a crash.
//!
//! ```text
//! segment  := magic (8) version (4) salt (4) base (8) checksum of these (4), then frames
//! frame    := magic (4) length of the changes (4) checksum (4) synced (8) changes
//! ```
//!
//! Numbers are big-endian. A *position* counts the octets of all frames ever written; `base` is that of a segment's first frame,
//! so that a missing segment shows. `synced` is the position up to which the disk had everything when the frame was written: it
//! tells damage (an error) from the tail that a power failure took (cut off). The salt, the position and `synced` are part of a
//! frame's checksum, so that a frame inside a value is not taken for one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::checksum::crc32c;
use crate::store::{Change, decode};

const MAGIC: [u8; 8] = *b"ISTHMUSJ";
const VERSION: u32 = 1;
const HEADER: usize = 28;
const FRAME_MAGIC: [u8; 4] = *b"FRM1";
const FRAME_HEADER: usize = 20;
const PREFIX: &str = "journal-";
/// What a new segment is called until its header is written.
const NEW: &str = "new-journal";

/// A segment on disk with all its frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) base: u64,
    pub(super) end: u64,
}

impl Segment {
    pub(super) fn octets(&self) -> u64 {
        self.end - self.base
    }

    /// The whole file, checked.
    pub(super) fn read(&self) -> io::Result<Contents> {
        let octets = read(&self.path)?;
        let salt = salt_of(&octets, self.base).map_err(|what| damaged(&self.path, 0, what))?;
        let contents = Contents { octets, base: self.base, salt };
        let mut end = HEADER;
        for frame in contents.frames() {
            end = frame.map_err(|at| damaged(&self.path, at, "the checksum is wrong"))?.end;
        }
        if self.base + (end - HEADER) as u64 != self.end {
            return Err(damaged(&self.path, end, "frames are missing"));
        }
        Ok(contents)
    }
}

/// The octets of a segment file.
pub(super) struct Contents {
    octets: Vec<u8>,
    base: u64,
    salt: u32,
}

/// A frame with a right checksum.
struct Frame {
    changes: std::ops::Range<usize>,
    synced: u64,
    end: usize,
}

impl Contents {
    /// Every change with the offset of its value in the file, oldest first.
    pub(super) fn changes(&self) -> impl Iterator<Item = (Change<'_>, usize)> {
        self.frames().map_while(Result::ok).flat_map(move |frame| {
            let mut at = frame.changes.start;
            let end = frame.changes.end;
            std::iter::from_fn(move || {
                let (change, rest) = decode(&self.octets[at..end])?;
                at = end - rest.len();
                Some((change, at - change.1.map_or(0, <[u8]>::len)))
            })
        })
    }

    /// Every frame up to the end of the file, or up to the offset where none is.
    fn frames(&self) -> impl Iterator<Item = Result<Frame, usize>> {
        let mut at = HEADER;
        std::iter::from_fn(move || {
            if at >= self.octets.len() {
                return None;
            }
            let frame = self.frame(at).ok_or(at);
            at = frame.as_ref().map_or(self.octets.len(), |frame| frame.end);
            Some(frame)
        })
    }

    fn frame(&self, at: usize) -> Option<Frame> {
        let (header, rest) = self.octets.get(at..)?.split_first_chunk::<FRAME_HEADER>()?;
        let (magic, length) = (&header[..4], word(&header[4..8]) as usize);
        if magic != FRAME_MAGIC || rest.len() < length {
            return None;
        }
        let position = self.base + (at - HEADER) as u64;
        let (synced, changes) = (&header[12..20], &rest[..length]);
        if checksum(self.salt, position, synced, changes) != word(&header[8..12]) {
            return None;
        }
        let start = at + FRAME_HEADER;
        Some(Frame { changes: start..start + length, synced: long(synced), end: start + length })
    }

    /// The position up to which frames at or behind the offset `from` say that the disk had everything.
    fn promise(&self, from: usize) -> u64 {
        let tail = self.octets.get(from..).unwrap_or_default();
        let starts = tail.windows(4).enumerate().filter(|(_, window)| *window == FRAME_MAGIC);
        let frames = starts.filter_map(|(at, _)| self.frame(from + at));
        frames.map(|frame| frame.synced).max().unwrap_or(0)
    }
}

/// The segment that is written.
pub(super) struct Writer {
    file: Arc<File>,
    segment: Segment,
    salt: u32,
    buffer: Vec<u8>,
    created: Instant,
    /// Octets of a failed write may be behind the end.
    torn: bool,
}

impl Writer {
    /// Starts a segment at the position `base`; an empty one that starts there is replaced.
    pub(super) fn create(directory: &Path, base: u64) -> io::Result<Self> {
        let salt = rand::random();
        let mut header = [MAGIC.as_slice(), &VERSION.to_be_bytes()].concat();
        header.extend_from_slice(&u32::to_be_bytes(salt));
        header.extend_from_slice(&base.to_be_bytes());
        let sum = crc32c(0, &header);
        header.extend_from_slice(&sum.to_be_bytes());
        let (new, path) = (directory.join(NEW), directory.join(format!("{PREFIX}{base:016x}")));
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new);
        let file = file.map_err(|error| named(&new, &error))?;
        file.write_all_at(&header, 0)?;
        fs::rename(&new, &path)?;
        Ok(Self {
            file: Arc::new(file),
            segment: Segment { path, base, end: base },
            salt,
            buffer: Vec::new(),
            created: Instant::now(),
            torn: false,
        })
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(super) fn created(&self) -> Instant {
        self.created
    }

    /// Writes encoded changes as one frame, whole or not at all.
    pub(super) fn append(&mut self, changes: &[u8], synced: u64) -> io::Result<()> {
        let length = u32::try_from(changes.len()).map_err(io::Error::other)?;
        let offset = HEADER as u64 + self.segment.octets();
        if self.torn {
            self.file.set_len(offset)?;
            self.torn = false;
        }
        let synced = synced.to_be_bytes();
        let sum = checksum(self.salt, self.segment.end, &synced, changes);
        self.buffer.clear();
        self.buffer.extend_from_slice(&FRAME_MAGIC);
        self.buffer.extend_from_slice(&length.to_be_bytes());
        self.buffer.extend_from_slice(&sum.to_be_bytes());
        self.buffer.extend_from_slice(&synced);
        self.buffer.extend_from_slice(changes);
        if let Err(error) = self.file.write_all_at(&self.buffer, offset) {
            // When this fails too, it is done before the next frame.
            self.torn = self.file.set_len(offset).is_err();
            return Err(error);
        }
        self.segment.end += self.buffer.len() as u64;
        Ok(())
    }
}

/// The segments of `directory` in order, with everything up to `folded` left out and the torn tail cut off.
///
/// # Errors
/// A segment is damaged, missing or of another version; the error names file and offset.
pub(super) fn recover(directory: &Path, folded: u64) -> io::Result<Vec<Segment>> {
    let mut files = list(directory)?;
    while files.get(1).is_some_and(|(base, _)| *base <= folded) {
        fs::remove_file(files.remove(0).1)?;
    }
    let mut segments = Vec::new();
    let mut position = folded;
    for (number, (base, path)) in files.iter().enumerate() {
        if *base != position {
            let what = format!("begins at position {base}; what starts at {position} is missing");
            return Err(damaged(path, 0, &what));
        }
        let (segment, torn) = check(path, *base, number + 1 == files.len())?;
        position = segment.end;
        segments.push(segment);
        if torn {
            cut(&files[number..], position)?;
            break;
        }
    }
    segments.retain(|segment| segment.octets() > 0);
    Ok(segments)
}

/// Whether there is any segment.
pub(super) fn any(directory: &Path) -> io::Result<bool> {
    Ok(!list(directory)?.is_empty())
}

fn list(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let base = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if let Some(base) = base.and_then(|base| u64::from_str_radix(base, 16).ok()) {
            files.push((base, entry.path()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// The good part of a segment, and whether something follows it that is not good.
fn check(path: &Path, base: u64, last: bool) -> io::Result<(Segment, bool)> {
    let octets = read(path)?;
    let segment = |end| Segment { path: path.to_owned(), base, end };
    let salt = match salt_of(&octets, base) {
        Ok(salt) => salt,
        // A power failure may take the header of a segment that was just begun.
        Err(_) if last && octets.iter().all(|octet| *octet == 0) => {
            return Ok((segment(base), true));
        }
        Err(what) => return Err(damaged(path, 0, what)),
    };
    let contents = Contents { octets, base, salt };
    let mut end = HEADER;
    let mut torn = false;
    for frame in contents.frames() {
        let Ok(frame) = frame else {
            torn = true;
            break;
        };
        let mut changes = &contents.octets[frame.changes.clone()];
        while !changes.is_empty() {
            let rest = decode(changes).map(|(_, rest)| rest);
            changes = rest.ok_or_else(|| damaged(path, end, "a change does not decode"))?;
        }
        end = frame.end;
    }
    let segment = segment(base + (end - HEADER) as u64);
    if torn && contents.promise(end) > segment.end {
        return Err(damaged(path, end, "the checksum is wrong"));
    }
    Ok((segment, torn))
}

/// Cuts off what lies behind `position`: the rest of the first file, and the other files.
fn cut(files: &[(u64, PathBuf)], position: u64) -> io::Result<()> {
    let Some(((base, first), others)) = files.split_first() else { return Ok(()) };
    let offset = HEADER + (position - base) as usize;
    for (base, path) in others {
        let octets = read(path)?;
        let salt = salt_of(&octets, *base);
        let promised = salt
            .is_ok_and(|salt| Contents { octets, base: *base, salt }.promise(HEADER) > position);
        if promised {
            return Err(damaged(first, offset, "the checksum is wrong"));
        }
    }
    let file = OpenOptions::new().write(true).open(first)?;
    let length = file.metadata()?.len();
    tracing::warn!(
        file = %first.display(),
        offset,
        octets = length.saturating_sub(offset as u64),
        "the last write before the crash was not complete; its remains are cut off"
    );
    others.iter().try_for_each(|(_, path)| fs::remove_file(path))?;
    if length > offset as u64 {
        file.set_len(offset as u64)?;
    }
    file.sync_all()
}

/// The salt of a segment whose header is right.
fn salt_of(octets: &[u8], base: u64) -> Result<u32, &'static str> {
    let header = octets.first_chunk::<HEADER>().ok_or("shorter than a header")?;
    if header[..8] != MAGIC {
        return Err("not a journal of isthmus");
    }
    if crc32c(0, &header[..24]) != word(&header[24..]) {
        return Err("the header's checksum is wrong");
    }
    if word(&header[8..12]) != VERSION {
        return Err("written by another version of isthmus");
    }
    if long(&header[16..24]) != base {
        return Err("the file has the name of another segment");
    }
    Ok(word(&header[12..16]))
}

fn checksum(salt: u32, position: u64, synced: &[u8], changes: &[u8]) -> u32 {
    let mut about = [0; 24];
    about[..4].copy_from_slice(&salt.to_be_bytes());
    about[4..12].copy_from_slice(&position.to_be_bytes());
    about[12..20].copy_from_slice(synced);
    about[20..].copy_from_slice(&(changes.len() as u32).to_be_bytes());
    crc32c(crc32c(0, &about), changes)
}

fn word(octets: &[u8]) -> u32 {
    octets.iter().fold(0, |word, octet| word << 8 | u32::from(*octet))
}

fn long(octets: &[u8]) -> u64 {
    octets.iter().fold(0, |long, octet| long << 8 | u64::from(*octet))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| named(path, &error))
}

/// An error with the file that it is about.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// An error about a file that is not as this program left it.
pub(super) fn damaged(path: &Path, offset: usize, what: &str) -> io::Error {
    let text = format!("{}: offset {offset}: {what}", path.display());
    io::Error::new(io::ErrorKind::InvalidData, text)
}
