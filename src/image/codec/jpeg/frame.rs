//! The frame header: size, and how the components are sampled (ITU-T T.81, section B.2.2).

use super::super::{damaged, unsupported};
use crate::error::Result;

/// What a frame header says.
pub(super) struct Frame {
    pub progressive: bool,
    pub width: u32,
    pub height: u32,
    pub components: Vec<Component>,
}

/// One component.
pub(super) struct Component {
    pub id: u8,
    /// Sampling factors, 1 to 4.
    pub h: u32,
    pub v: u32,
    /// Blocks of 8×8 samples that cover the picture, where the component has a scan of its own.
    pub columns: u32,
    pub rows: u32,
}

impl Frame {
    /// Reads the segment of a baseline, extended or progressive frame.
    pub fn read(segment: &[u8], progressive: bool) -> Result<Self> {
        let &[precision, h0, h1, w0, w1, count, ref components @ ..] = segment else {
            return Err(damaged("the JPEG file's frame header is too short"));
        };
        if precision != 8 {
            return Err(unsupported(&format!("JPEG with {precision} bits a sample")));
        }
        let (components, rest) = components.as_chunks::<3>();
        if components.len() != usize::from(count) || !rest.is_empty() {
            return Err(damaged("the JPEG file's frame header has another length than it says"));
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(unsupported(&format!("JPEG with {count} components")));
        }
        let width = u32::from(u16::from_be_bytes([w0, w1]));
        let height = u32::from(u16::from_be_bytes([h0, h1]));
        let sampling = |[_, sampling, _]: &[u8; 3]| (u32::from(sampling >> 4), u32::from(sampling & 15));
        if components.iter().map(sampling).any(|(h, v)| !(1..=4).contains(&h) || !(1..=4).contains(&v)) {
            return Err(damaged("the JPEG file's sampling factors are not 1 to 4"));
        }
        let h_max = components.iter().map(|c| sampling(c).0).max().unwrap_or(1);
        let v_max = components.iter().map(|c| sampling(c).1).max().unwrap_or(1);
        let components = components.iter().map(|component| {
            let (h, v) = sampling(component);
            let columns = (width * h).div_ceil(h_max).div_ceil(8);
            let rows = (height * v).div_ceil(v_max).div_ceil(8);
            Component { id: component[0], h, v, columns, rows }
        });
        Ok(Self { progressive, width, height, components: components.collect() })
    }

    /// Columns and rows of minimum coded units in a scan of several components.
    pub fn units(&self) -> (u32, u32) {
        let h_max = self.components.iter().map(|c| c.h).max().unwrap_or(1);
        let v_max = self.components.iter().map(|c| c.v).max().unwrap_or(1);
        (self.width.div_ceil(8 * h_max), self.height.div_ceil(8 * v_max))
    }

    /// Whether the decoder takes as many blocks as there are from a scan of this component alone. It counts those of whole
    /// units, up to the picture's own edge, which is more where a component is sampled between the least and the most.
    pub fn is_read_alone(&self, component: &Component) -> bool {
        let (columns, rows) = self.units();
        (columns * component.h).min(self.width.div_ceil(8)) == component.columns
            && (rows * component.v).min(self.height.div_ceil(8)) == component.rows
    }
}
