/** The made-up people that the page offers: drawn in the tab, the same on every visit. */

/** @import { Key } from "./messages.js" */

/** Side of the sample pictures in pixels. */
export const SAMPLE_SIZE = 192;

/** Seeds of the sample faces, chosen for variety. */
export const SAMPLE_FACES = [3, 8, 14, 21, 27, 33];

/** The sample style pictures: the renderer's style, seed, name. */
export const SAMPLE_STYLES = /** @type {[string, number, Key][]} */ ([
  ["watercolor", 101, "style.watercolor"],
  ["flat_cartoon", 102, "style.flat_cartoon"],
  ["ink_sketch", 103, "style.ink_sketch"],
  ["oil", 104, "style.oil"],
  ["pop_art", 105, "style.pop_art"],
  ["pixel_art", 106, "style.pixel_art"],
  ["neon", 107, "style.neon"],
]);
