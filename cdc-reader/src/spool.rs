//! Entries kept aside in their order, beyond what memory is for in a file without a name: it is gone, and its room
//! free, when it is dropped or this process ends.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use crate::error::ReaderError;

/// Entries beyond so many bytes are in a file.
const MEMORY_MAX: usize = 1 << 20;
const LENGTH_BYTES: usize = 4;

/// Where files without names are: `TMPDIR`; without it `/var/tmp`, which is for large files and is no memory, if it can
/// be written to; else the system's temporary folder.
pub fn folder() -> PathBuf {
    let large = Path::new("/var/tmp");
    if std::env::var_os("TMPDIR").is_none() && tempfile::tempfile_in(large).is_ok() {
        return large.to_owned();
    }
    std::env::temp_dir()
}

/// What to say when `what` cannot be kept in `folder`.
pub fn folder_failed(what: &str, folder: &Path, error: &io::Error) -> ReaderError {
    ReaderError::Transient {
        place: "this machine".into(),
        reason: format!(
            "{what} cannot be kept in {} ({error}): make room there, or set TMPDIR to a folder with room",
            folder.display()
        ),
    }
}

/// Entries, each its length and its bytes.
#[derive(Debug)]
pub struct Spool {
    /// What they are, for messages.
    what: String,
    folder: PathBuf,
    memory_max: usize,
    file: Option<File>,
    /// Those that are not in the file yet.
    memory: Vec<u8>,
    entries: u64,
    bytes: u64,
}

impl Spool {
    /// An empty one, whose file will be in `folder`.
    pub fn new(what: String, folder: &Path) -> Self {
        Self {
            what,
            folder: folder.to_owned(),
            memory_max: MEMORY_MAX,
            file: None,
            memory: Vec::new(),
            entries: 0,
            bytes: 0,
        }
    }

    /// Adds an entry, whose bytes `write` appends; none when it fails. [`Spool::spill_if_full`] is to follow.
    pub fn push<T, E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<T, E>) -> Result<T, E> {
        let start = self.memory.len();
        self.memory.extend_from_slice(&[0; LENGTH_BYTES]);
        let written = write(&mut self.memory);
        if written.is_err() {
            self.memory.truncate(start);
        } else {
            let length = self.memory.len() - start - LENGTH_BYTES;
            let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
            self.memory[start..start + LENGTH_BYTES].copy_from_slice(&length);
            self.entries += 1;
            self.bytes += (self.memory.len() - start) as u64;
        }
        written
    }

    /// Moves what is in memory into the file when it is much.
    pub fn spill_if_full(&mut self) -> Result<(), ReaderError> {
        if self.memory.len() < self.memory_max {
            return Ok(());
        }
        self.spill().map_err(|error| folder_failed(&self.what, &self.folder, &error))
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.folder)?),
        };
        file.write_all(&self.memory)?;
        if self.memory.capacity() > 4 * self.memory_max {
            self.memory = Vec::new();
        }
        self.memory.clear();
        Ok(())
    }

    /// How many entries there are.
    pub fn len(&self) -> u64 {
        self.entries
    }

    /// How many bytes they are.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// From the first entry on.
    pub fn into_entries(self) -> Result<SpooledEntries, ReaderError> {
        let Self { what, folder, file, memory, entries, .. } = self;
        let failed = |error| folder_failed(&what, &folder, &error);
        let file: Box<dyn Read + Send> = match file {
            Some(mut file) => {
                file.rewind().map_err(failed)?;
                Box::new(BufReader::with_capacity(MEMORY_MAX, file))
            }
            None => Box::new(io::empty()),
        };
        let bytes = Box::new(file.chain(io::Cursor::new(memory)));
        Ok(SpooledEntries { what, folder, bytes, left: entries })
    }
}

/// Entries on their way out.
pub struct SpooledEntries {
    what: String,
    folder: PathBuf,
    bytes: Box<dyn Read + Send>,
    left: u64,
}

impl SpooledEntries {
    /// Appends the next entry's bytes to `out`; answers where they are.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Result<Option<Range<usize>>, ReaderError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let start = out.len();
        self.read(out).map_err(|error| folder_failed(&self.what, &self.folder, &error))?;
        Ok(Some(start..out.len()))
    }

    fn read(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let mut length = [0; LENGTH_BYTES];
        self.bytes.read_exact(&mut length)?;
        let start = out.len();
        out.resize(start + u32::from_le_bytes(length) as usize, 0);
        self.bytes.read_exact(&mut out[start..])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn small(memory_max: usize) -> Spool {
        Spool { memory_max, ..Spool::new("test".into(), &std::env::temp_dir()) }
    }

    fn push(spool: &mut Spool, entry: &[u8]) {
        let written: Result<(), ()> = spool.push(|bytes| {
            bytes.extend_from_slice(entry);
            Ok(())
        });
        written.expect("in memory");
    }

    proptest! {
        #[test]
        fn entries_come_back_in_their_order(entries: Vec<Vec<u8>>, memory_max in 1usize..200) {
            let mut spool = small(memory_max);
            for entry in &entries {
                push(&mut spool, entry);
                let failed: Result<(), &str> = spool.push(|bytes| {
                    bytes.push(1);
                    Err("a bad row")
                });
                prop_assert_eq!(failed, Err("a bad row"));
                spool.spill_if_full().expect("written");
                prop_assert!(spool.memory.len() < memory_max);
            }
            prop_assert_eq!(spool.len(), entries.len() as u64);
            let mut back = spool.into_entries().expect("read");
            let mut out = vec![7];
            for entry in &entries {
                let place = back.next(&mut out).expect("read").expect("one more");
                prop_assert_eq!(&out[place], &entry[..]);
            }
            prop_assert!(back.next(&mut out).expect("read").is_none());
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_told() {
        let mut spool = Spool::new("the rows of d.t".into(), Path::new("/nowhere/at/all"));
        push(&mut spool, &vec![0; MEMORY_MAX]);
        let error = spool.spill_if_full().expect_err("no folder").to_string();
        assert!(error.contains("the rows of d.t cannot be kept in /nowhere/at/all"), "{error}");
    }
}
