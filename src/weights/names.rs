//! What Hugging Face's libraries call files of weights: `STEM.ENDING`, its pieces and variants, and their indices.

use std::collections::BTreeSet;

/// Endings of files that hold tensors, those that are preferred first.
pub const WEIGHT_ENDINGS: [&str; 5] = ["safetensors", "bin", "pt", "pth", "ckpt"];
/// The variant that is left out where there is another one: weights to train on with, beside those to draw with.
const TRAINING: &str = "non_ema";

/// A name of a file of weights, taken apart.
///
/// diffusers and transformers write `model.fp16.safetensors`, `model-00001-of-00002.safetensors`, and for a piece of a
/// variant either `model.fp16-00001-of-00002.safetensors` or, in older versions, `model-00001-of-00002.fp16.safetensors`.
/// An index of pieces is `model.safetensors.index.json`, with a variant `model.safetensors.index.fp16.json` or, in older
/// versions, `model.safetensors.fp16.index.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightName<'a> {
    /// The name itself.
    pub name: &'a str,
    /// What comes before all else.
    pub stem: &'a str,
    /// `fp16`, `non_ema` and so on; empty for none.
    pub variant: &'a str,
    /// A piece's number, counted from 1, and how many there are.
    pub piece: Option<(usize, usize)>,
    /// Whether it is the index of pieces.
    pub index: bool,
    /// One of [`WEIGHT_ENDINGS`], whatever its case in the name.
    pub ending: &'static str,
}

impl<'a> WeightName<'a> {
    /// Takes a name apart; `None` for files that hold no weights by their name.
    pub fn parse(name: &'a str) -> Option<Self> {
        if let Some(rest) = name.strip_suffix(".json") {
            let parts: Vec<&str> = rest.split('.').collect();
            let (stem, of, variant) = match parts[..] {
                [stem, of, "index"] => (stem, of, ""),
                [stem, of, "index", variant] | [stem, of, variant, "index"] => (stem, of, variant),
                _ => return None,
            };
            return Some(Self { name, stem, variant, piece: None, index: true, ending: ending(of)? });
        }
        let (rest, of) = name.rsplit_once('.')?;
        let ending = ending(of)?;
        let (rest, after) = without_piece(rest);
        let (stem, variant) = rest.split_once('.').unwrap_or((rest, ""));
        let (stem, before) = without_piece(stem);
        Some(Self { name, stem, variant, piece: after.or(before), index: false, ending })
    }

    /// The names of all pieces of the same file; none where it is whole.
    pub fn pieces(&self) -> Vec<String> {
        self.piece
            .map_or_else(Vec::new, |(_, count)| (1..=count).map(|number| self.sibling(number)).collect())
    }

    /// The name of another piece of the same file.
    fn sibling(&self, number: usize) -> String {
        let Some((own, count)) = self.piece else { return self.name.to_owned() };
        self.name.replace(&format!("-{own:05}-of-{count:05}"), &format!("-{number:05}-of-{count:05}"))
    }
}

fn ending(of: &str) -> Option<&'static str> {
    WEIGHT_ENDINGS.into_iter().find(|ending| of.eq_ignore_ascii_case(ending))
}

/// `model-00001-of-00002` as `model` and `(1, 2)`.
fn without_piece(name: &str) -> (&str, Option<(usize, usize)>) {
    let parse = || {
        let (rest, count) = name.rsplit_once("-of-")?;
        let (rest, index) = rest.rsplit_once('-')?;
        let number = |s: &str| (s.len() == 5).then(|| s.parse::<usize>().ok()).flatten();
        Some((rest, (number(index)?, number(count)?)))
    };
    parse().map_or((name, None), |(rest, piece)| (rest, Some(piece)))
}

/// Of the files of one stem and ending those to read: the ones without a variant, or of the only variant. Where several
/// variants are left, all of them.
pub fn preferred<'a>(files: &[WeightName<'a>]) -> Vec<WeightName<'a>> {
    let mut variants: BTreeSet<&str> = files.iter().map(|file| file.variant).collect();
    if variants.len() > 1 && !variants.contains("") {
        variants.remove(TRAINING);
    }
    let one = if variants.contains("") { Some("") } else { variants.first().copied() };
    let one = one.filter(|variant| variant.is_empty() || variants.len() == 1);
    let taken = |file: &&WeightName| one.map_or(variants.contains(file.variant), |one| file.variant == one);
    files.iter().filter(taken).copied().collect()
}

/// The first piece that `files` lack, where some of them are pieces.
pub fn missing_piece(files: &[WeightName]) -> Option<String> {
    files.iter().filter_map(|file| Some((file, file.piece?.1))).find_map(|(file, count)| {
        let mut names = (1..=count).map(|number| file.sibling(number));
        names.find(|name| !files.iter().any(|other| other.name == name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> (&str, &str, Option<(usize, usize)>, bool, &str) {
        let WeightName { stem, variant, piece, index, ending, .. } = WeightName::parse(name).unwrap();
        (stem, variant, piece, index, ending)
    }

    #[test]
    fn every_form_of_a_name_is_taken_apart() {
        let (model, piece) = ("diffusion_pytorch_model", Some((1, 2)));
        for (name, expected) in [
            ("diffusion_pytorch_model.safetensors", (model, "", None, false, "safetensors")),
            ("diffusion_pytorch_model.fp16.bin", (model, "fp16", None, false, "bin")),
            ("diffusion_pytorch_model.NON_EMA.SAFETENSORS", (model, "NON_EMA", None, false, "safetensors")),
            ("diffusion_pytorch_model-00001-of-00002.bin", (model, "", piece, false, "bin")),
            (
                "diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
                (model, "fp16", piece, false, "safetensors"),
            ),
            (
                "diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
                (model, "fp16", piece, false, "safetensors"),
            ),
            ("diffusion_pytorch_model.safetensors.index.json", (model, "", None, true, "safetensors")),
            (
                "diffusion_pytorch_model.safetensors.index.fp16.json",
                (model, "fp16", None, true, "safetensors"),
            ),
            ("diffusion_pytorch_model.bin.fp16.index.json", (model, "fp16", None, true, "bin")),
        ] {
            assert_eq!(parsed(name), expected, "{name}");
        }
        for name in ["config.json", "model.onnx", "safetensors", "model.index.json", ".json"] {
            assert_eq!(WeightName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_plain_variant_is_preferred_then_the_only_one() {
        let names = |names: &[&'static str]| {
            let files: Vec<_> = names.iter().filter_map(|name| WeightName::parse(name)).collect();
            preferred(&files).iter().map(|file| file.variant).collect::<Vec<_>>()
        };
        assert_eq!(names(&["m.bin", "m.fp16.bin"]), [""]);
        assert_eq!(names(&["m.fp16.bin", "m.non_ema.bin"]), ["fp16"]);
        assert_eq!(names(&["m.non_ema.bin"]), ["non_ema"]);
        assert_eq!(names(&["m.bf16.bin", "m.fp16.bin", "m.non_ema.bin"]), ["bf16", "fp16"]);
    }

    #[test]
    fn a_piece_that_is_not_there_is_named() {
        let missing = |names: &[&'static str]| {
            let files: Vec<_> = names.iter().filter_map(|name| WeightName::parse(name)).collect();
            missing_piece(&files)
        };
        assert_eq!(missing(&["m.bin"]), None);
        assert_eq!(missing(&["m-00001-of-00002.bin", "m-00002-of-00002.bin"]), None);
        let lacks = missing(&["m.fp16-00001-of-00002.bin"]);
        assert_eq!(lacks.as_deref(), Some("m.fp16-00002-of-00002.bin"));
    }
}
