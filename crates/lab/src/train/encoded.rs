//! What the frozen networks say about every training picture, computed once: latents, style and identity.
//!
//! The diffusion stage trains neither the VAE nor the encoders, so each picture's inputs are constants.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use rayon::prelude::*;

use super::data::{Picture, Pictures};
use super::run::Event;
use super::{Setup, style};
use crate::read_back::read_back;
use facestudio::encoders::face::FaceEncoder;
use facestudio::encoders::vision::{VisionEncoder, VisionEnsemble};
use facestudio::error::{Error, Result};
use facestudio::image::align::{align, from_corner};
use facestudio::image::preprocess::signed_tensor;
use facestudio::vae::Vae;
use facestudio::weights::{
    CheckedFolder, Component, Files, Quantization, SafetensorsFile, Tensors, encode, sha256, write_file,
};

/// Pixels of the pictures that go through a network at once: 32 of `mini`'s.
const BATCH: usize = 32 * 128 * 128;
/// People of a picture whose identities are kept, those with the largest faces.
pub const PEOPLE: usize = 3;
/// Changes when the cache's layout does, or how pictures are encoded: older caches are then left alone.
const VERSION: u32 = 4;

/// One row a picture.
pub struct Encoded {
    /// Normalised latents, `[n][channels · height · width]`.
    pub latents: Vec<f32>,
    /// `[channels, height, width]` of the latents.
    pub latent_dims: [usize; 3],
    /// The vision ensemble's embedding of the picture with its faces hidden, `[n][image_embed_dim]`.
    pub image_embeds: Vec<f32>,
    /// The same of the picture as it is, `[n][image_embed_dim]`: what words may ask for without a photo.
    pub whole_embeds: Vec<f32>,
    /// Unit-norm identities of the largest faces, largest first, zero where there is none (paper section 3.1),
    /// `[n][PEOPLE · id_embed_dim]`.
    pub id_embeds: Vec<f32>,
    /// Pictures.
    pub len: usize,
}

impl Encoded {
    /// Width of a row of [`Encoded::image_embeds`].
    pub fn image_embed_dim(&self) -> usize {
        self.image_embeds.len() / self.len.max(1)
    }

    /// Width of an identity.
    pub fn id_embed_dim(&self) -> usize {
        self.id_embeds.len() / (PEOPLE * self.len).max(1)
    }

    /// The `k`-th identities of `indices`, `[n, id_embed_dim]`.
    pub fn identities(&self, k: usize, indices: &[usize], device: &Device) -> Tensor<2> {
        let rows: Vec<usize> = indices.iter().map(|i| PEOPLE * i + k).collect();
        Self::rows(&self.id_embeds, self.id_embed_dim(), &rows, device)
    }

    /// Rows `indices` of one of the matrices, `width` wide.
    pub fn rows(values: &[f32], width: usize, indices: &[usize], device: &Device) -> Tensor<2> {
        let picked: Vec<f32> =
            indices.iter().flat_map(|i| &values[i * width..(i + 1) * width]).copied().collect();
        Tensor::from_data(TensorData::new(picked, [indices.len(), width]), device)
    }

    /// Latents of `indices`, `[n, channels, height, width]`.
    pub fn latents(&self, indices: &[usize], device: &Device) -> Tensor<4> {
        let [c, h, w] = self.latent_dims;
        Self::rows(&self.latents, c * h * w, indices, device).reshape([indices.len(), c, h, w])
    }
}

/// How many pictures of a side go through a network at once.
pub fn at_once(side: usize) -> usize {
    (BATCH / (side * side).max(1)).max(1)
}

/// The style ensemble of a model folder.
pub struct Styles {
    ensemble: VisionEnsemble,
}

impl Styles {
    /// Names of the ensemble's folders; none in a model that reads no style.
    pub fn folders(model: &Path) -> Vec<String> {
        (0..).map(style::folder).take_while(|name| model.join(name).join("config.json").exists()).collect()
    }

    /// What tells a model's encoders from others: the hashes of their files.
    pub fn key(model: &Path) -> Result<Vec<u8>> {
        let files = CheckedFolder::new(model.to_owned());
        let keys = Self::folders(model).into_iter().map(|folder| hashes(&files, &folder));
        Ok(keys.collect::<Result<Vec<_>>>()?.concat())
    }

    /// Loads the encoders.
    pub fn load(model: &Path, device: &Device) -> Result<Self> {
        let files = CheckedFolder::new(model.to_owned());
        let folders = Self::folders(model);
        let load = |folder: &String| VisionEncoder::load(&Component::new(&files, folder), device);
        Ok(Self { ensemble: VisionEnsemble { encoders: folders.iter().map(load).collect::<Result<_>>()? } })
    }

    /// Width of an embedding.
    pub fn width(&self) -> usize {
        self.ensemble.embed_dim()
    }

    /// Embeddings of pictures, with their heads hidden or as they are, row by row.
    pub fn embed(
        &self,
        pictures: &Pictures,
        indices: &[usize],
        hide: bool,
        dtype: DType,
        device: &Device,
    ) -> Result<Vec<f32>> {
        let encoders: Vec<_> = self.ensemble.encoders.iter().map(VisionEncoder::preprocessing).collect();
        let pixels = style::pixels(pictures, indices, &vec![hide; indices.len()], &encoders, device)?;
        let pixels = pixels.into_iter().map(|p| p.cast(dtype)).collect();
        read_back(self.ensemble.forward(pixels)?, "embeddings")
    }
}

fn hashes(files: &CheckedFolder, folder: &str) -> Result<Vec<u8>> {
    let mut hashes = Vec::new();
    for name in files.list(folder)? {
        hashes.extend_from_slice(sha256(&files.read(&format!("{folder}/{name}"))?).as_bytes());
    }
    Ok(hashes)
}

/// What tells the networks of a model folder that encode pictures from others: the hashes of their files.
pub fn fingerprint(model: &Path) -> Result<Vec<u8>> {
    let files = CheckedFolder::new(model.to_owned());
    let mut key = Styles::key(model)?;
    for folder in ["vae", "face_encoder"] {
        key.extend(hashes(&files, folder)?);
    }
    Ok(key)
}

/// Encodes every picture with the networks of `setup.out`, or reads what was encoded with these very weights.
pub fn encode_all(setup: &Setup, pictures: &Pictures, log: &mut dyn FnMut(Event)) -> Result<Encoded> {
    let files = CheckedFolder::new(setup.out.clone());
    let mut key = fingerprint(&setup.out)?;
    key.extend_from_slice(pictures.name().as_bytes());
    let name = format!("encoded-v{VERSION}-{}-{}.safetensors", pictures.len(), &sha256(&key)[..16]);
    let path = setup.cache.join(name);
    if path.exists() {
        return read(&path);
    }

    let device = setup.run.backend.device()?.without_autodiff();
    let dtype = setup.run.backend.dtype();
    let vae = Vae::load(&Component::new(&files, "vae"), &device)?;
    let face = FaceEncoder::load(&Component::new(&files, "face_encoder"), &device)?;
    let styles = Styles::load(&setup.out, &device)?;

    let mut out = Encoded {
        latents: Vec::new(),
        latent_dims: [0; 3],
        image_embeds: Vec::new(),
        whole_embeds: Vec::new(),
        id_embeds: Vec::new(),
        len: pictures.len(),
    };
    let all: Vec<usize> = (0..pictures.len()).collect();
    for indices in all.chunks(at_once(pictures.size())) {
        if setup.run.stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        let latents = vae.encode_latents(pictures.tensor(indices, &device).cast(dtype))?;
        let [_, c, h, w] = latents.dims();
        out.latent_dims = [c, h, w];
        out.latents.extend(read_back(latents, "latents")?);
        for (rows, hide) in [(&mut out.image_embeds, true), (&mut out.whole_embeds, false)] {
            rows.extend(styles.embed(pictures, indices, hide, dtype, &device)?);
        }
        out.id_embeds.extend(identities(&face, pictures, indices, dtype, &device)?);
        log(Event::Prepared(out.image_embeds.len() / styles.width(), pictures.len()));
    }
    write(&path, &out)?;
    Ok(out)
}

fn identities(
    face: &FaceEncoder,
    pictures: &Pictures,
    indices: &[usize],
    dtype: DType,
    device: &Device,
) -> Result<Vec<f32>> {
    let crops: Vec<Option<::image::RgbImage>> = indices
        .par_iter()
        .map(|i| faces(&pictures.get(*i), face.image_size()))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    let known: Vec<&::image::RgbImage> = crops.iter().flatten().collect();
    if known.is_empty() {
        // The width is known from another batch's rows; a batch without any face still needs it.
        let blank = ::image::RgbImage::new(face.image_size() as u32, face.image_size() as u32);
        let width = face.embed(signed_tensor(&[&blank], device)?.cast(dtype))?.dims()[1];
        return Ok(vec![0.0; width * crops.len()]);
    }
    let embeds = face.embed(signed_tensor(&known, device)?.cast(dtype))?;
    let width = embeds.dims()[1];
    let embeds = read_back(embeds, "embeddings")?;
    let mut rows = embeds.chunks_exact(width);
    let zero = vec![0.0; width];
    Ok(crops
        .iter()
        .flat_map(|crop| crop.as_ref().and_then(|_| rows.next()).unwrap_or(&zero).to_vec())
        .collect())
}

/// Numbers of a picture's people, the largest face first.
pub fn by_face(picture: &Picture) -> Vec<usize> {
    let area = |i: &usize| {
        let [left, top, right, bottom] = picture.meta.people[*i].face_box;
        (right - left) * (bottom - top)
    };
    let mut order: Vec<usize> = (0..picture.meta.people.len()).collect();
    order.sort_by(|a, b| area(b).total_cmp(&area(a)));
    order.truncate(PEOPLE);
    order
}

/// The largest faces, aligned to `size × size`.
fn faces(picture: &Picture, size: usize) -> Result<[Option<::image::RgbImage>; PEOPLE]> {
    let rgb = style::rgb(picture);
    let mut out = [const { None }; PEOPLE];
    for (face, person) in out.iter_mut().zip(by_face(picture)) {
        *face = Some(align(&rgb, &from_corner(&picture.meta.people[person].landmarks), size)?);
    }
    Ok(out)
}

fn write(path: &Path, encoded: &Encoded) -> Result<()> {
    let mut tensors = Tensors::default();
    let n = encoded.len;
    let [c, h, w] = encoded.latent_dims;
    for (name, shape, values) in [
        ("latents", vec![n, c, h, w], &encoded.latents),
        ("image_embeds", vec![n, encoded.image_embed_dim()], &encoded.image_embeds),
        ("whole_embeds", vec![n, encoded.image_embed_dim()], &encoded.whole_embeds),
        ("id_embeds", vec![n, PEOPLE * encoded.id_embed_dim()], &encoded.id_embeds),
    ] {
        tensors.0.insert(name.to_owned(), (shape, values.clone()));
    }
    super::private::folder(path.parent().unwrap_or(Path::new(".")))?;
    write_file(path, &encode(&tensors, Quantization::None, &Default::default())?)?;
    std::fs::File::open(path)
        .and_then(|file| super::private::file(&file))
        .map_err(|e| Error::io(path.display(), &e))
}

fn read(path: &Path) -> Result<Encoded> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path.display(), &e))?;
    let mut tensors = SafetensorsFile::new(bytes)?.into_tensors()?.0;
    let mut take = |name: &str| {
        tensors.remove(name).ok_or_else(|| {
            Error::input(
                "cache",
                format!("{} lacks {name}", path.display()),
                "delete the file; it will be made again",
            )
        })
    };
    let (shape, latents) = take("latents")?;
    let [len, c, h, w] = shape[..] else {
        return Err(Error::input(
            "cache",
            format!("{}: latents {shape:?}", path.display()),
            "delete the file",
        ));
    };
    Ok(Encoded {
        latents,
        latent_dims: [c, h, w],
        image_embeds: take("image_embeds")?.1,
        whole_embeds: take("whole_embeds")?.1,
        id_embeds: take("id_embeds")?.1,
        len,
    })
}

#[cfg(test)]
mod tests {
    use facestudio::internal::aligned;
    use facestudio_synth::{Identity, IdentitySplit, Scene, render};

    use super::super::data::{View, planes};
    use super::super::portraits::owned;
    use super::*;

    /// Of one scene at a size: its first person's face as a request's is cut out, given the renderer's landmarks, after it was found
    /// to be what the diffusion and the identity stage cut out; and what it would be if those counted from a pixel's centre.
    fn crops(scene: &Scene, size: u32) -> [::image::RgbImage; 2] {
        const CROP: usize = 64;
        let rendered = render(scene, size);
        let owned = owned(&rendered, size as usize, 0);
        let picture = Picture {
            size: size as usize,
            rgb: &owned.rgb,
            people: &owned.people,
            faces: &owned.faces,
            meta: &owned.meta,
        };
        let person = &rendered.people[0];
        let inference = aligned(&rendered.image, &person.landmarks, CROP).unwrap();
        assert_eq!(faces(&picture, CROP).unwrap()[0].as_ref(), Some(&inference));
        let mut seen = vec![0.0; 3 * CROP * CROP];
        planes(inference.as_raw(), CROP, View::whole(CROP), &mut seen);
        assert_eq!(super::super::face::crop(&picture, CROP, None).unwrap(), seen);
        [inference, align(&rendered.image, &person.landmarks, CROP).unwrap()]
    }

    #[test]
    fn training_and_requests_cut_out_the_same_face() {
        let off = |a: &::image::RgbImage, b: &::image::RgbImage| -> u64 {
            a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
        };
        for n in 0..4 {
            let scene = Scene::photo_of(Identity::from_pool(IdentitySplit::HeldOut, n), n);
            let ([small, small_off], [large, large_off]) = (crops(&scene, 96), crops(&scene, 384));
            // The renderer's landmarks count from the corner: only so is a face in the same place at every size.
            assert!(off(&small, &large) < off(&small_off, &large_off), "scene {n}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn embeddings_of_faces_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache/encoded.safetensors");
        let encoded = Encoded {
            latents: vec![0.5; 4],
            latent_dims: [1, 2, 2],
            image_embeds: vec![0.5; 3],
            whole_embeds: vec![0.5; 3],
            id_embeds: vec![0.5; 2 * PEOPLE],
            len: 1,
        };
        write(&path, &encoded).unwrap();
        use super::super::private;
        assert_eq!((private::mode(path.parent().unwrap()), private::mode(&path)), (0o700, 0o600));
        assert_eq!(read(&path).unwrap().id_embeds, encoded.id_embeds);
    }

    #[test]
    fn the_largest_faces_come_first_and_rows_are_a_pictures_own() {
        let face = |face_box| super::super::data::Person { face_box, ..Default::default() };
        let people = vec![
            face([10.0, 10.0, 14.0, 20.0]),
            face([0.0, 0.0, 7.0, 7.0]),
            face([50.0, 0.0, 59.0, 4.0]),
            face([90.0, 90.0, 95.0, 100.0]),
        ];
        let meta = super::super::data::Meta { people, ..Default::default() };
        let picture = Picture { size: 100, rgb: &[], people: &[], faces: &[], meta: &meta };
        assert_eq!(by_face(&picture), [3, 1, 0]);

        let numbers = |n: usize| (0..n).map(|v| v as f32).collect::<Vec<f32>>();
        let encoded = Encoded {
            latents: numbers(3 * 4),
            latent_dims: [2, 1, 2],
            image_embeds: numbers(6),
            whole_embeds: numbers(6),
            id_embeds: numbers(3 * PEOPLE * 2),
            len: 3,
        };
        assert_eq!((encoded.image_embed_dim(), encoded.id_embed_dim()), (2, 2));
        let device = Device::flex();
        let second: Vec<f32> = encoded.identities(1, &[2, 0], &device).try_into_vec_as().unwrap();
        assert_eq!(second, [14.0, 15.0, 2.0, 3.0]);
        let latents = encoded.latents(&[1], &device);
        assert_eq!(latents.dims(), [1, 2, 1, 2]);
        assert_eq!(latents.try_into_vec_as::<f32>().unwrap(), [4.0, 5.0, 6.0, 7.0]);
    }
}
