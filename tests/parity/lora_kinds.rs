//! LoHa, LoKr, DoRA, LoRAs with a core, and differences, merged by `facestudio convert`, against LyCORIS', peft's and diffusers' own
//! arithmetic.

use crate::lora::assert_merged;

/// What the script takes of each file.
const SCALE: f32 = 0.6;

#[track_caller]
fn assert_kind(case: &str, scale: f32) {
    let input = if case.starts_with("peft") { case.to_owned() } else { format!("{case}.safetensors") };
    assert_merged(
        &format!("../lora_kinds/{input}"),
        scale,
        &format!("../lora_kinds/{case}.out.safetensors"),
        "",
    );
}

#[test]
fn lycoris_kinds_are_merged_as_lycoris_does() {
    for case in ["loha", "lokr", "differences", "dora"] {
        assert_kind(case, SCALE);
    }
}

#[test]
fn pefts_kinds_are_merged_as_peft_does() {
    for case in ["peft_loha", "peft_loha_core", "peft_lokr", "peft_lokr_core", "peft_dora"] {
        assert_kind(case, 1.0);
    }
}

#[test]
fn a_part_of_pefts_magnitudes_is_a_part_of_the_update() {
    assert_kind("diffusers_dora", SCALE);
}
