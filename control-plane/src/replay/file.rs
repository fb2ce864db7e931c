use std::cell::Cell;
use std::io::{self, BufRead, Read, Write};
use std::rc::Rc;

use chrono::{DateTime, Utc};
use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize, de::DeserializeOwned, de::IgnoredAny};
use sha2::{Digest, Sha256};

use crate::run::Input;
use crate::telemetry::Sample;

use super::row::{Kind, Row};

/// The first cell of a file: the name of the column with the kinds of rows, and the version of the format.
const MAGIC: &str = "clairvoy_export_";
const VERSION: u32 = 1;
const DATA: &str = "data";
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Longest row that is read, in bytes. Checkpoints are long, but packed bytes may grow a thousand times.
const LONGEST_ROW_BYTES: u64 = 256 * 1024 * 1024;
/// Cells of a row that are read: more than a sample has fields.
const MOST_CELLS: u32 = 256;

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Another kind of file.
    #[error("this is no export of clairvoy: it begins with `{0}`; write one with `clairvoy export`")]
    Foreign(String),
    /// A format of another version.
    #[error(
        "the file has format {found}, and this clairvoy reads format {VERSION}: use the clairvoy that wrote it, or export \
         the time again"
    )]
    OtherVersion {
        /// The version in the file.
        found: String,
    },
    /// The end is missing.
    #[error(
        "the file breaks off after {rows} rows: it was not copied or written whole; copy or export it again"
    )]
    Truncated {
        /// Rows that are there.
        rows: u64,
    },
    /// It was changed.
    #[error(
        "the file is not what was exported: rows were changed, added or lost since; copy or export it again"
    )]
    Changed,
    /// A row makes no sense.
    #[error("row {row} is damaged: {why}; copy or export the file again")]
    Damaged {
        /// Number of the row, the header not counted.
        row: u64,
        /// What is wrong.
        why: String,
    },
    /// It cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The last row.
#[derive(Serialize, Deserialize)]
struct End {
    rows: u64,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Learned {
    waits: u32,
    forecasts: u32,
    #[serde(default)]
    signs: u32,
}

/// Writes rows as CSV: a header with the version, rows, and an end that tells how many there were and their hash.
pub struct Writer<W: Write> {
    csv: csv::Writer<W>,
    cells: usize,
    rows: u64,
    digest: Sha256,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn new(out: W) -> Result<Self, FileError> {
        let mut header = vec![format!("{MAGIC}{VERSION}")];
        header.extend(sample_columns()?);
        header.push(DATA.to_owned());
        let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(out);
        csv.write_record(&header).map_err(io::Error::from)?;
        Ok(Self { csv, cells: header.len(), rows: 0, digest: Sha256::new() })
    }

    /// Writes a row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, row: &Row) -> Result<(), FileError> {
        let cells = match &row.0 {
            Kind::Sample(at, sample) => self.sample(*at, sample)?,
            Kind::Scope(scope) => self.other("scope", json(scope)?),
            Kind::Checkpoint(state) => self.other("checkpoint", state.clone()),
            Kind::Learned { waits, forecasts, signs } => {
                let learned = Learned { waits: *waits, forecasts: *forecasts, signs: *signs };
                self.other("learned", json(&learned)?)
            }
            Kind::Input(input) => self.other("input", json(input)?),
            Kind::Decision(decision) => self.other("decision", json(decision)?),
            Kind::Gap(gap) => self.other("gap", json(gap)?),
        };
        cells.write(self)
    }

    /// Writes the end; returns how many rows there are, and the inner writer.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<(u64, W), FileError> {
        let end = End { rows: self.rows, sha256: hex(&self.digest.clone().finalize()) };
        self.other("end", json(&end)?).write(&mut self)?;
        let inner = self.csv.into_inner().map_err(|error| io::Error::from(error.error().kind()))?;
        Ok((end.rows, inner))
    }

    fn sample(&self, at: DateTime<Utc>, sample: &Sample) -> Result<Cells, FileError> {
        let mut line = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        line.serialize(("sample", sample, json(&at)?)).map_err(io::Error::from)?;
        let line = line.into_inner().map_err(|error| io::Error::from(error.error().kind()))?;
        let mut record = csv::StringRecord::new();
        csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(line.as_slice())
            .read_record(&mut record)
            .map_err(io::Error::from)?;
        Ok(Cells(record))
    }

    fn other(&self, kind: &str, data: String) -> Cells {
        let mut cells = vec![""; self.cells];
        cells[0] = kind;
        if let Some(last) = cells.last_mut() {
            *last = &data;
        }
        Cells(csv::StringRecord::from(cells))
    }
}

struct Cells(csv::StringRecord);

impl Cells {
    fn write<W: Write>(&self, writer: &mut Writer<W>) -> Result<(), FileError> {
        take_in(&mut writer.digest, &self.0);
        writer.rows += 1;
        writer.csv.write_record(&self.0).map_err(io::Error::from)?;
        Ok(())
    }
}

/// Reads what [`Writer`] wrote, packed by gzip or not.
pub struct Reader<'a> {
    csv: csv::Reader<Box<dyn Read + 'a>>,
    header: csv::StringRecord,
    rows: u64,
    digest: Sha256,
    ended: bool,
    /// Bytes that may be read for the present row.
    left: Rc<Cell<u64>>,
    longest_row_bytes: u64,
}

/// Reads no more than what is left, and no row of more cells than there may be: each costs memory beside its bytes.
struct Limited<R> {
    inner: R,
    left: Rc<Cell<u64>>,
    place: Place,
    cells: u32,
}

/// Where in CSV the next byte is.
#[derive(Clone, Copy)]
enum Place {
    Begin,
    Plain,
    Quoted,
    /// After a quotation mark that ends a cell, or is the first of two.
    Closing,
}

impl<R> Limited<R> {
    /// Counts the cells of the present row.
    fn step(&mut self, byte: u8) {
        self.place = match (self.place, byte) {
            (Place::Begin | Place::Closing, b'"') | (Place::Quoted, 0..b'"' | b'#'..) => Place::Quoted,
            (Place::Quoted, b'"') => Place::Closing,
            (_, b',') => {
                self.cells += 1;
                Place::Begin
            }
            (_, b'\n' | b'\r') => {
                self.cells = 0;
                Place::Begin
            }
            _ => Place::Plain,
        };
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(read as u64);
        let too_long =
            || io::Error::new(io::ErrorKind::FileTooLarge, "a row is too long to be one of an export");
        self.left.set(left.ok_or_else(too_long)?);
        for byte in &buffer[..read] {
            self.step(*byte);
            if self.cells > MOST_CELLS {
                return Err(too_long());
            }
        }
        Ok(read)
    }
}

impl<'a> Reader<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// A file of something else, or of another version.
    pub fn new(input: impl BufRead + 'a) -> Result<Self, FileError> {
        Self::limited(input, LONGEST_ROW_BYTES)
    }

    pub(super) fn limited(mut input: impl BufRead + 'a, longest_row_bytes: u64) -> Result<Self, FileError> {
        let packed = input.fill_buf()?.starts_with(&GZIP);
        let input: Box<dyn Read + 'a> =
            if packed { Box::new(MultiGzDecoder::new(input)) } else { Box::new(input) };
        let left = Rc::new(Cell::new(longest_row_bytes));
        let input: Box<dyn Read + 'a> = {
            let left = Rc::clone(&left);
            Box::new(Limited { inner: input, left, place: Place::Begin, cells: 0 })
        };
        let mut csv = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(input);
        let mut header = csv::StringRecord::new();
        let begun = csv.read_record(&mut header);
        let first: String = header.get(0).unwrap_or_default().chars().take(40).collect();
        match first.strip_prefix(MAGIC) {
            Some(version) if version == VERSION.to_string() => {}
            Some(version) => return Err(FileError::OtherVersion { found: version.to_owned() }),
            None => match begun {
                Err(error) if !error.is_io_error() => return Err(FileError::Foreign("no text".to_owned())),
                Err(error) => return Err(io::Error::from(error).into()),
                Ok(_) => return Err(FileError::Foreign(first)),
            },
        }
        // The end has no hash of the header, and columns of other names would be left out unnoticed.
        // Those of an older version may be fewer, in the same order: exchanged ones would be read as each other.
        let known = sample_columns()?;
        let mut known = known.iter();
        let mut columns = header.iter().skip(1).take(header.len().saturating_sub(2));
        if header.iter().next_back() != Some(DATA) {
            return Err(FileError::Truncated { rows: 0 });
        }
        if !columns.all(|name| known.any(|known| known == name)) {
            return Err(FileError::Changed);
        }
        let (rows, digest) = (0, Sha256::new());
        Ok(Self { csv, header, rows, digest, ended: false, left, longest_row_bytes })
    }

    /// Returns the next row; none after the last one, when the file is whole.
    ///
    /// # Errors
    /// A file that breaks off, was changed or is damaged.
    pub fn next_row(&mut self) -> Result<Option<Row>, FileError> {
        let mut record = csv::StringRecord::new();
        while !self.ended {
            self.left.set(self.longest_row_bytes);
            let read = self.csv.read_record(&mut record).map_err(|error| match error.kind() {
                // Of a packed file that breaks off.
                csv::ErrorKind::Io(inner) if inner.kind() == io::ErrorKind::UnexpectedEof => {
                    FileError::Truncated { rows: self.rows }
                }
                csv::ErrorKind::Io(inner) if inner.kind() == io::ErrorKind::FileTooLarge => {
                    self.damaged(error)
                }
                csv::ErrorKind::Io(_) => io::Error::from(error).into(),
                _ => self.damaged(error),
            })?;
            if !read || record.len() < self.header.len() {
                return Err(FileError::Truncated { rows: self.rows });
            }
            if record.len() > self.header.len() {
                return Err(self.damaged("a row has more cells than there are columns"));
            }
            let data = record.get(record.len() - 1).unwrap_or_default();
            let kind = match record.get(0).unwrap_or_default() {
                "end" => {
                    let end: End = self.parse(data)?;
                    if end.rows != self.rows || end.sha256 != hex(&self.digest.clone().finalize()) {
                        return Err(FileError::Changed);
                    }
                    self.ended = true;
                    continue;
                }
                "checkpoint" => {
                    self.parse::<IgnoredAny>(data)?;
                    Kind::Checkpoint(data.to_owned())
                }
                "sample" => {
                    let sample =
                        record.deserialize(Some(&self.header)).map_err(|error| self.damaged(error))?;
                    Kind::Sample(self.parse(data)?, Box::new(sample))
                }
                "scope" => Kind::Scope(self.parse(data)?),
                "learned" => {
                    let Learned { waits, forecasts, signs } = self.parse(data)?;
                    Kind::Learned { waits, forecasts, signs }
                }
                "input" => Kind::Input(Box::new(self.parse::<Input>(data)?)),
                "decision" => Kind::Decision(Box::new(self.parse(data)?)),
                "gap" => Kind::Gap(self.parse(data)?),
                other => return Err(self.damaged(format!("there are no rows of kind `{other}`"))),
            };
            self.count(&record);
            return Ok(Some(Row(kind)));
        }
        Ok(None)
    }

    fn count(&mut self, record: &csv::StringRecord) {
        take_in(&mut self.digest, record);
        self.rows += 1;
    }

    fn parse<T: DeserializeOwned>(&self, data: &str) -> Result<T, FileError> {
        serde_json::from_str(data).map_err(|error| {
            if error.is_eof() { FileError::Truncated { rows: self.rows } } else { self.damaged(error) }
        })
    }

    fn damaged(&self, why: impl ToString) -> FileError {
        FileError::Damaged { row: self.rows + 1, why: why.to_string() }
    }
}

fn take_in(digest: &mut Sha256, record: &csv::StringRecord) {
    for cell in record {
        digest.update((cell.len() as u64).to_be_bytes());
        digest.update(cell);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn json(value: &impl Serialize) -> Result<String, FileError> {
    Ok(serde_json::to_string(value).map_err(io::Error::from)?)
}

/// The names of a sample's fields, in their order.
fn sample_columns() -> Result<Vec<String>, FileError> {
    let mut line = csv::Writer::from_writer(Vec::new());
    line.serialize(Sample::default()).map_err(io::Error::from)?;
    let line = line.into_inner().map_err(|error| io::Error::from(error.error().kind()))?;
    let mut lines = csv::Reader::from_reader(line.as_slice());
    Ok(lines.headers().map_err(io::Error::from)?.iter().map(str::to_owned).collect())
}
