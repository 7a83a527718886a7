/** The face maker's controls: which traits of `crates/synth/src/identity.rs` it offers, in groups. */

/** Names of traits by group; every continuous trait but the hair's and the frame's colour is in exactly one. */
export const GROUPS = /** @type {const} */ ({
  face: [
    "presentation", "age", "skull_width", "skull_height", "skull_depth", "face_length", "cheek", "fullness", "build",
  ],
  jaw: ["jaw_width", "jaw_square", "chin", "chin_width", "ear_size", "ear_stick"],
  eyes: [
    "eye_size", "eye_open", "eye_spacing", "eye_tilt", "eye_height", "iris_hue", "iris_light", "lid_crease", "lashes",
  ],
  brows: ["brow_thickness", "brow_arch", "brow_tilt", "brow_height"],
  nose: ["nose_length", "nose_width", "nose_tip", "nose_bridge", "nose_hook"],
  mouth: ["mouth_width", "lip_upper", "lip_lower", "lip_tint", "mouth_height"],
  skin: ["skin_tone", "skin_hue", "blush", "freckles"],
  hair: ["hair_volume", "hair_length", "hairline", "hair_wave", "hair_part"],
  glasses: ["glasses_size", "frame_thickness"],
});

/** @typedef {keyof typeof GROUPS} Group */
/** @typedef {(typeof GROUPS)[Group][number]} Trait */

export const HAIR_STYLES = /** @type {const} */ ([
  "bald", "buzz", "short", "side_part", "quiff", "curly", "afro", "bob", "bob_bangs", "long", "long_bangs", "long_wavy",
  "ponytail", "bun", "pixie", "receding",
]);
export const BEARDS = /** @type {const} */ (["none", "stubble", "moustache", "goatee", "short", "full"]);
/** The first stands for no glasses. */
export const GLASSES = /** @type {const} */ (["none", "round", "square", "cat_eye", "wide", "sun"]);
export const STYLES = /** @type {const} */ ([
  "photo", "flat_cartoon", "ink_sketch", "watercolor", "oil", "pop_art", "pixel_art", "neon",
]);
export const BACKGROUNDS = /** @type {const} */ ([
  "plain", "gradient", "sky", "forest", "city", "room", "beach", "stripes", "stars", "sunset", "mountains", "bokeh",
]);
/** The pose: name, smallest, largest and step. */
export const POSE = /** @type {const} */ ([
  ["yaw", -60, 60, 1],
  ["pitch", -20, 20, 1],
  ["roll", -15, 15, 1],
  ["smile", -1, 1, 0.05],
]);
