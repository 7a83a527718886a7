//! Pictures that were decoded of late: who looks at a file searches it for faces next, and draws from it.

use std::collections::VecDeque;
use std::sync::Arc;

use ::image::RgbImage;

use super::codec;
use crate::error::Result;

/// Files and their pictures, as far as the pixels do not take too much memory.
#[derive(Debug)]
pub struct DecodedImages {
    /// The oldest first.
    entries: VecDeque<(Vec<u8>, Arc<RgbImage>)>,
    /// Most bytes of all pixels.
    most: usize,
}

impl DecodedImages {
    /// None, of at most so many bytes of pixels.
    pub const fn new(most: usize) -> Self {
        Self { entries: VecDeque::new(), most }
    }

    /// The picture of a file: as it was decoded before, or by [`codec::decode`].
    pub fn decode(&mut self, file: &[u8]) -> Result<Arc<RgbImage>> {
        let known = self.entries.iter().find(|(other, _)| other == file);
        let picture = match known {
            Some((_, picture)) => picture.clone(),
            None => codec::decode(file)?.into(),
        };
        self.keep(file, picture.clone());
        Ok(picture)
    }

    /// Keeps the picture of a file in the place of the oldest; one that is larger than all that may be kept is not.
    pub fn keep(&mut self, file: &[u8], picture: Arc<RgbImage>) {
        let size = |picture: &RgbImage| picture.as_raw().len();
        if size(&picture) > self.most {
            return;
        }
        self.entries.retain(|(other, _)| other != file);
        self.entries.push_back((file.to_vec(), picture));
        let mut sum: usize = self.entries.iter().map(|(_, picture)| size(picture)).sum();
        while sum > self.most
            && let Some((_, oldest)) = self.entries.pop_front()
        {
            sum -= size(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::image::Rgb;

    /// A picture of `side × side` pixels, and its file.
    fn picture(side: u32) -> (RgbImage, Vec<u8>) {
        let image = RgbImage::from_pixel(side, side, Rgb([side as u8; 3]));
        let png = codec::encode_png(&image, &[]).unwrap();
        (image, png)
    }

    #[test]
    fn a_file_is_decoded_once_while_there_is_room() {
        let mut images = DecodedImages::new(3 * (4 * 4 + 3 * 3));
        let [(four, file), (_, third), (_, large)] = [4, 3, 6].map(picture);
        let first = images.decode(&file).unwrap();
        assert_eq!(*first, four);
        assert!(Arc::ptr_eq(&first, &images.decode(&file).unwrap()));
        // There is room for both; one that is larger than all of it pushes nobody out.
        let other = images.decode(&third).unwrap();
        images.decode(&large).unwrap();
        assert!(Arc::ptr_eq(&first, &images.decode(&file).unwrap()));
        assert!(Arc::ptr_eq(&other, &images.decode(&third).unwrap()));
        // The one that was asked for longest ago gives way.
        let two = picture(2).1;
        let small = images.decode(&two).unwrap();
        assert!(Arc::ptr_eq(&other, &images.decode(&third).unwrap()), "it fits beside the new one");
        assert!(Arc::ptr_eq(&small, &images.decode(&two).unwrap()));
        assert!(!Arc::ptr_eq(&first, &images.decode(&file).unwrap()));
    }

    /// A large one takes the places of as many as it needs, the oldest first, and of no more.
    #[test]
    fn as_many_give_way_as_are_in_the_way() {
        let files = [1, 2, 3, 4].map(|side| picture(side).1);
        let mut images = DecodedImages::new(3 * (1 + 4 + 9));
        let kept: Vec<_> = files[..3].iter().map(|file| images.decode(file).unwrap()).collect();
        // 48 bytes are more than the 42 that there are.
        images.decode(&files[3]).unwrap();
        for (file, kept) in files.iter().zip(&kept) {
            assert!(Arc::ptr_eq(kept, &images.decode(file).unwrap()));
        }
        // Of 3, 12 and 27 bytes the first two make room for 12.
        images.keep(b"another", Arc::new(picture(2).0));
        let held = |images: &DecodedImages| -> Vec<usize> {
            images.entries.iter().map(|(_, picture)| picture.as_raw().len()).collect()
        };
        assert_eq!(held(&images), [27, 12]);
    }

    #[test]
    fn what_is_kept_beside_its_file_is_not_decoded_at_all() {
        let mut images = DecodedImages::new(1000);
        let kept = Arc::new(picture(5).0);
        images.keep(b"no picture", kept.clone());
        assert!(Arc::ptr_eq(&kept, &images.decode(b"no picture").unwrap()));
        assert_eq!(images.decode(b"another").unwrap_err().code, "image-format");
    }

    #[test]
    fn a_picture_of_all_the_room_there_is_is_kept() {
        let mut images = DecodedImages::new(3 * 4 * 4);
        let (_, file) = picture(4);
        let first = images.decode(&file).unwrap();
        assert!(Arc::ptr_eq(&first, &images.decode(&file).unwrap()));
    }
}
