//! LoRAs in every layout that trainers write, merged by `facestudio convert`, against diffusers' `fuse_lora` and peft's merge.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use facestudio::Error;
use facestudio::weights::{Component, Folder, Quantization, SafetensorsFile, TensorSource, Tensors};
use facestudio_convert::checkpoint::Checkpoint;
use facestudio_convert::ldm::{self, Blocks};
use facestudio_convert::{Plan, Slot, convert};

/// Sums of two to four products in another order.
const TOLERANCE: f32 = 2e-6;

fn path(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/parity/lora").join(name)
}

fn read(path: &Path) -> Tensors {
    SafetensorsFile::new(std::fs::read(path).unwrap()).unwrap().into_tensors().unwrap()
}

/// Both networks with a LoRA merged, named as the reference names them.
fn merged(lora: &Path, scale: f32) -> Result<Tensors, Error> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let base = path("../prompt/model");
    let parts = [(Slot::Unet, base.join("unet")), (Slot::TextEncoder, base.join("text_encoder"))];
    let plan = Plan {
        parts: parts.to_vec(),
        loras: vec![(lora.to_owned(), scale)],
        quantization: Quantization::None,
        ..Plan::default()
    };
    convert(&plan, &out, &AtomicBool::new(false), &|_, _| ())?;
    let files = Folder(out);
    let mut all = Tensors::default();
    for component in ["unet", "text_encoder"] {
        let tensors = Component::new(&files, component).tensors().unwrap().read_all().unwrap();
        all.0.extend(tensors.0.into_iter().map(|(name, tensor)| (format!("{component}.{name}"), tensor)));
    }
    Ok(all)
}

/// Fails unless the weights that the reference changed are its, and all others the base's.
#[track_caller]
pub fn assert_merged(lora: &str, scale: f32, expected: &str, network: &str) {
    let ours = merged(&path(lora), scale).unwrap_or_else(|e| panic!("{lora}: {e}"));
    let mut expected = read(&path(expected));
    expected.0.retain(|name, _| name.starts_with(network));
    assert!(!expected.0.is_empty());
    let base = ["unet", "text_encoder"].map(|component| {
        (component, read(&path("../prompt/model").join(component).join("model.safetensors")))
    });
    for (name, (shape, values)) in &ours.0 {
        let (component, inner) = name.split_once('.').unwrap();
        let before = base.iter().find(|(of, _)| *of == component).unwrap().1.0[inner].clone();
        let after = expected.0.remove(name);
        let (their_shape, theirs) = after.as_ref().unwrap_or(&before);
        assert_eq!(shape, their_shape, "{lora}: {name}");
        let worst = values.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(
            worst <= TOLERANCE && values.iter().all(|v| v.is_finite()),
            "{lora}: {name} is off by {worst}"
        );
    }
    assert!(expected.0.is_empty(), "{lora}: {:?}", expected.0.keys());
}

#[test]
fn the_strength_that_the_header_says_is_taken() {
    assert_merged("script.safetensors", 0.7, "script.out.safetensors", "");
    for case in ["rslora", "patterns", "bias"] {
        assert_merged(&format!("{case}.safetensors"), 1.0, &format!("{case}.out.safetensors"), "");
    }
}

#[test]
fn without_a_word_of_strength_an_update_counts_in_full_whatever_its_rank() {
    assert_merged("ranks.safetensors", 1.0, "ranks.out.safetensors", "");
}

#[test]
fn pefts_folders_say_their_strength_beside_the_weights() {
    for case in ["peft_unet", "peft_text"] {
        assert_merged(case, 1.0, &format!("{case}.out.safetensors"), "");
        assert_merged(
            &format!("{case}/adapter_model.safetensors"),
            1.0,
            &format!("{case}.out.safetensors"),
            "",
        );
    }
}

#[test]
fn the_same_numbers_are_merged_from_every_style_of_names() {
    for style in
        ["kohya", "kohya_peft", "original", "diffusers", "linear_layer", "processors", "bare", "peft"]
    {
        assert_merged(&format!("styles.{style}.safetensors"), 1.0, "styles.out.safetensors", "");
    }
    for style in ["comfy", "bare_processors"] {
        assert_merged(&format!("styles.{style}.safetensors"), 1.0, "styles.out.safetensors", "unet.");
    }
    assert_merged("styles.flat_text.safetensors", 1.0, "styles.out.safetensors", "text_encoder.");
}

#[test]
fn the_original_codes_names_are_those_that_its_checkpoints_have() {
    // Of sd1, whose first level going up has no attention, and of sd2.
    for file in ["sd1.ckpt", "sd2.safetensors"] {
        let checkpoint = Checkpoint::open(&path("../convert").join(file)).unwrap();
        let (_, unet) = ldm::unet(&checkpoint).unwrap();
        let blocks = Blocks::of(&unet);
        let mut modules = 0;
        for name in unet.names() {
            let Some((module, kind)) = name.rsplit_once('.') else { continue };
            let original = blocks.original(module).unwrap_or_else(|| panic!("{file}: {module}"));
            let original = checkpoint.read(&format!("model.diffusion_model.{original}.{kind}")).unwrap();
            assert!(original == unet.read(&name).unwrap(), "{file}: {name}");
            modules += 1;
        }
        assert!(modules > 100, "{modules}");
    }
}
