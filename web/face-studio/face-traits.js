/** The face maker's controls: which traits of `crates/synth/src/identity.rs` it offers, in groups. */

/** Names of traits by group; every continuous trait but the hair's and the frame's colour is in exactly one. */
export const GROUPS = /** @type {const} */ ({
  face: ["presentation", "age", "skull_width", "skull_height", "skull_depth", "face_length", "cheek", "fullness", "build"],
  jaw: ["jaw_width", "jaw_square", "chin", "chin_width", "ear_size", "ear_stick"],
  eyes: ["eye_size", "eye_open", "eye_spacing", "eye_tilt", "eye_height", "iris_hue", "iris_light", "lid_crease", "lashes"],
  brows: ["brow_thickness", "brow_arch", "brow_tilt", "brow_height"],
  nose: ["nose_length", "nose_width", "nose_tip", "nose_bridge", "nose_hook"],
  mouth: ["mouth_width", "lip_upper", "lip_lower", "lip_tint", "mouth_height"],
  skin: ["skin_tone", "skin_hue", "blush", "freckles"],
  hair: ["hair_volume", "hair_length", "hairline", "hair_wave", "hair_part"],
  glasses: ["glasses_size", "frame_thickness"],
});

/** @typedef {keyof typeof GROUPS} Group */
/** @typedef {(typeof GROUPS)[Group][number]} Trait */

/** The pose: name, smallest, largest and step. */
export const POSE = /** @type {const} */ ([
  ["yaw", -60, 60, 1],
  ["pitch", -20, 20, 1],
  ["roll", -15, 15, 1],
  ["smile", -1, 1, 0.05],
]);
