//! Walks through a scan's entropy-coded data, and so knows whether all of its blocks are there.

use super::super::{damaged, unsupported};
use super::frame::{Component, Frame};
use super::standard_tables::STANDARD_TABLES;
use crate::error::Result;

/// A Huffman table.
#[derive(Default, Clone)]
struct Huffman {
    /// Of each length, the first code that is longer, in 16 bits.
    ends: [u32; 16],
    /// Of each length, its first code, and the place of that code's value.
    starts: [(u32, usize); 16],
    values: Vec<u8>,
}

impl Huffman {
    /// The value and length of the code at the front of 16 bits.
    fn value(&self, bits: u32) -> Option<(u8, u32)> {
        let length = self.ends.iter().position(|end| bits < *end)?;
        let (code, place) = self.starts[length];
        let value = self.values.get(place + ((bits >> (15 - length)) - code) as usize)?;
        Some((*value, length as u32 + 1))
    }
}

/// What scans are coded with.
pub(super) struct Tables {
    dc: [Huffman; 4],
    ac: [Huffman; 4],
    /// Units between restarts; 0 is none.
    restart_interval: u32,
}

impl Default for Tables {
    fn default() -> Self {
        let mut tables = Self { dc: Default::default(), ac: Default::default(), restart_interval: 0 };
        // They are well-formed.
        let _ = tables.define_huffman(STANDARD_TABLES);
        tables
    }
}

impl Tables {
    /// Reads a segment of Huffman tables (section B.2.4.2).
    pub fn define_huffman(&mut self, mut segment: &[u8]) -> Result<()> {
        let broken = || damaged("the JPEG file's Huffman tables are broken");
        while let Some((kind, rest)) = segment.split_first() {
            let (counts, rest) = rest.split_at_checked(16).ok_or_else(broken)?;
            let count = counts.iter().map(|count| usize::from(*count)).sum();
            let (values, rest) = rest.split_at_checked(count).ok_or_else(broken)?;
            let mut table = Huffman { values: values.to_vec(), ..Huffman::default() };
            let (mut code, mut place) = (0, 0);
            for (length, count) in counts.iter().enumerate() {
                table.starts[length] = (code, place);
                code += u32::from(*count);
                place += usize::from(*count);
                table.ends[length] = code << (15 - length);
                if code > 2 << length {
                    return Err(broken());
                }
                code <<= 1;
            }
            let class = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(broken()),
            };
            *class.get_mut(usize::from(kind & 15)).ok_or_else(broken)? = table;
            segment = rest;
        }
        Ok(())
    }

    /// Reads a restart interval.
    pub fn define_restarts(&mut self, segment: &[u8]) -> Result<()> {
        let &[high, low] = segment else { return Err(damaged("the JPEG file's restart interval is broken")) };
        self.restart_interval = u16::from_be_bytes([high, low]).into();
        Ok(())
    }
}

/// Which coefficients the scans so far have told.
pub(super) struct Coefficients {
    /// Of each component and coefficient, how many low bits are still unknown; [`UNKNOWN`] is all.
    missing: Vec<[u8; 64]>,
    /// Of each component and block, which coefficients are not zero; for progressive pictures.
    nonzero: Vec<Vec<u64>>,
}

const UNKNOWN: u8 = u8::MAX;

impl Coefficients {
    pub fn new(frame: &Frame) -> Self {
        let count = frame.components.len();
        Self { missing: vec![[UNKNOWN; 64]; count], nonzero: vec![Vec::new(); count] }
    }

    pub fn are_complete(&self) -> bool {
        self.missing.iter().flatten().all(|missing| *missing == 0)
    }

    /// Whether each component's means are known, though not to the last bit.
    pub fn have_brightness(&self) -> bool {
        self.missing.iter().all(|component| component[0] != UNKNOWN)
    }
}

/// Bits of entropy-coded data, up to the next marker.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Bits that have been read and not taken, from the top.
    window: u32,
    count: u32,
}

impl Bits<'_> {
    /// Has 16 bits at the top of the window; zeros after the data's end, which are not counted.
    fn fill(&mut self) {
        while self.count < 16 {
            let byte = match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xFF), Some(0)) => {
                    self.at += 2;
                    0xFF
                }
                (Some(0xFF) | None, _) => return,
                (Some(byte), _) => {
                    self.at += 1;
                    *byte
                }
            };
            self.window |= u32::from(byte) << (24 - self.count);
            self.count += 8;
        }
    }

    /// Takes up to 16 bits; `None` where the data end.
    fn take(&mut self, count: u32) -> Option<u32> {
        self.fill();
        self.count = self.count.checked_sub(count)?;
        // Two shifts: one by 32 is not defined.
        let bits = self.window >> 1 >> (31 - count);
        self.window <<= count;
        Some(bits)
    }

    fn symbol(&mut self, table: &Huffman) -> Option<u8> {
        self.fill();
        let (value, length) = table.value(self.window >> 16)?;
        self.take(length)?;
        Some(value)
    }

    /// Passes over the marker of restart `number`.
    fn restart(&mut self, number: u32) -> Option<()> {
        (self.window, self.count) = (0, 0);
        let fill = self.bytes.get(self.at..)?.iter().take_while(|byte| **byte == 0xFF).count();
        let marker = self.bytes.get(self.at + fill)?;
        if fill == 0 || u32::from(*marker) != 0xD0 + number % 8 {
            return None;
        }
        self.at += fill + 1;
        Some(())
    }
}

/// What a scan header says of a component.
struct ScanComponent<'a> {
    index: usize,
    component: &'a Component,
    dc: &'a Huffman,
    ac: &'a Huffman,
}

/// What a scan header says of its coefficients (section G.1.1.1).
struct Band {
    first: usize,
    last: usize,
    /// Low bits that were missing before and are after.
    high: u8,
    low: u8,
}

/// Walks from `at` through the scan of this header; returns where its data end.
pub(super) fn walk(
    bytes: &[u8],
    at: usize,
    header: &[u8],
    frame: &Frame,
    tables: &Tables,
    coefficients: &mut Coefficients,
) -> Result<usize> {
    let (parts, band) = read_header(header, frame, tables)?;
    for part in &parts {
        let missing = &mut coefficients.missing[part.index];
        if !frame.progressive && missing[0] != UNKNOWN {
            return Err(damaged("the JPEG file has two scans of a component"));
        }
        missing[band.first..=band.last].fill(band.low);
    }
    let mut bits = Bits { bytes, at, window: 0, count: 0 };
    let (columns, rows) = match parts.as_slice() {
        [part] if !frame.is_read_alone(part.component) => {
            return Err(unsupported("JPEG with a scan for each component and this sampling"));
        }
        [part] => (part.component.columns, part.component.rows),
        _ => frame.units(),
    };
    let units = columns * rows;
    let mut run = 0;
    for unit in 0..units {
        let broken = || damaged(&format!("the JPEG file's data end after {unit} of {units} units of a scan"));
        if tables.restart_interval > 0 && unit > 0 && unit % tables.restart_interval == 0 {
            bits.restart(unit / tables.restart_interval - 1).ok_or_else(broken)?;
            run = 0;
        }
        for part in &parts {
            let blocks = if parts.len() == 1 { 1 } else { part.component.h * part.component.v };
            for _ in 0..blocks {
                let read = if frame.progressive {
                    let nonzero = &mut coefficients.nonzero[part.index];
                    if band.first > 0 && nonzero.is_empty() {
                        nonzero.resize(units as usize, 0);
                    }
                    let nonzero = nonzero.get_mut(unit as usize);
                    progressive_block(&mut bits, part, &band, &mut run, nonzero)
                } else {
                    block(&mut bits, part)
                };
                read.ok_or_else(broken)?;
            }
        }
    }
    Ok(bits.at)
}

fn read_header<'a>(
    header: &[u8],
    frame: &'a Frame,
    tables: &'a Tables,
) -> Result<(Vec<ScanComponent<'a>>, Band)> {
    let broken = || damaged("the JPEG file has a broken scan header");
    let (count, rest) = header.split_first().ok_or_else(broken)?;
    let (parts, rest) = rest.split_at_checked(2 * usize::from(*count)).ok_or_else(broken)?;
    let part = |[id, tables_of]: &[u8; 2]| {
        let index = frame.components.iter().position(|component| component.id == *id)?;
        let table = |tables: &'a [Huffman; 4], place: u8| tables.get(usize::from(place));
        let (dc, ac) = (table(&tables.dc, tables_of >> 4)?, table(&tables.ac, tables_of & 15)?);
        Some(ScanComponent { index, component: &frame.components[index], dc, ac })
    };
    let parts = parts.as_chunks().0.iter().map(part).collect::<Option<Vec<_>>>().ok_or_else(broken)?;
    let blocks: u32 = parts.iter().map(|part| part.component.h * part.component.v).sum();
    let in_order = parts.is_sorted_by(|a, b| a.index < b.index);
    if parts.is_empty() || !in_order || parts.len() > 1 && blocks > 10 {
        return Err(broken());
    }
    if !frame.progressive {
        return Ok((parts, Band { first: 0, last: 63, high: 0, low: 0 }));
    }
    let &[first, last, approximation] = rest else { return Err(broken()) };
    let (high, low) = (approximation >> 4, approximation & 15);
    let band = Band { first: first.into(), last: last.into(), high, low };
    let whole_or_ac = if first == 0 { last == 0 } else { first <= last && last < 64 && parts.len() == 1 };
    if !whole_or_ac || low > 13 || high != 0 && high != low + 1 {
        return Err(broken());
    }
    Ok((parts, band))
}

/// A block of a sequential picture: section F.2.2.
fn block(bits: &mut Bits, part: &ScanComponent) -> Option<()> {
    dc(bits, part)?;
    let mut k = 1;
    while k < 64 {
        let symbol = bits.symbol(part.ac)?;
        let (zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        match (zeros, size) {
            (15, 0) => k += 16,
            (_, 0) => break,
            _ if k + zeros > 63 => return None,
            _ => {
                k += zeros + 1;
                bits.take(size)?;
            }
        }
    }
    Some(())
}

fn dc(bits: &mut Bits, part: &ScanComponent) -> Option<()> {
    let size = bits.symbol(part.dc)?;
    if size > 11 {
        return None;
    }
    bits.take(size.into()).map(|_| ())
}

/// A block of one scan of a progressive picture: section G.2. `run` is how many blocks of zeros follow.
fn progressive_block(
    bits: &mut Bits,
    part: &ScanComponent,
    band: &Band,
    run: &mut u32,
    nonzero: Option<&mut u64>,
) -> Option<()> {
    match (band.first, band.high, nonzero) {
        (0, 0, _) => dc(bits, part),
        (0, _, _) => bits.take(1).map(|_| ()),
        (_, 0, Some(nonzero)) => ac_first(bits, part.ac, band, run, nonzero),
        (_, _, Some(nonzero)) => ac_refined(bits, part.ac, band, run, nonzero),
        (_, _, None) => None,
    }
}

/// Blocks of zeros, this one among them.
fn run_of_blocks(bits: &mut Bits, size: u32) -> Option<u32> {
    Some((1 << size) + bits.take(size)?)
}

fn ac_first(bits: &mut Bits, table: &Huffman, band: &Band, run: &mut u32, nonzero: &mut u64) -> Option<()> {
    if *run > 0 {
        *run -= 1;
        return Some(());
    }
    let mut k = band.first;
    while k <= band.last {
        let symbol = bits.symbol(table)?;
        let (zeros, size) = (symbol >> 4, u32::from(symbol & 15));
        match (zeros, size) {
            (15, 0) => k += 16,
            (_, 0) => {
                *run = run_of_blocks(bits, zeros.into())? - 1;
                break;
            }
            _ => {
                k += usize::from(zeros);
                if k > band.last {
                    return None;
                }
                bits.take(size)?;
                *nonzero |= 1 << k;
                k += 1;
            }
        }
    }
    Some(())
}

fn ac_refined(bits: &mut Bits, table: &Huffman, band: &Band, run: &mut u32, nonzero: &mut u64) -> Option<()> {
    let mut k = band.first;
    while *run == 0 && k <= band.last {
        let symbol = bits.symbol(table)?;
        let (mut zeros, size) = (symbol >> 4, symbol & 15);
        match size {
            0 if zeros < 15 => {
                *run = run_of_blocks(bits, zeros.into())?;
                break;
            }
            // The sign.
            1 => drop(bits.take(1)?),
            0 => {}
            _ => return None,
        }
        // Passes over as many zeros; what is not zero has a bit of correction each.
        while k <= band.last {
            if *nonzero >> k & 1 == 1 {
                bits.take(1)?;
            } else if zeros == 0 {
                break;
            } else {
                zeros -= 1;
            }
            k += 1;
        }
        if size == 1 {
            if k > band.last {
                return None;
            }
            *nonzero |= 1 << k;
        }
        k += 1;
    }
    if *run > 0 {
        let rest = (k..=band.last).filter(|k| *nonzero >> k & 1 == 1).count();
        (0..rest).try_for_each(|_| bits.take(1).map(|_| ()))?;
        *run -= 1;
    }
    Some(())
}
