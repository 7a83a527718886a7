/** Boxes of a layout as fractions of the picture: where they start, how they move and grow. No interface. */

/** @typedef {{ x: number, y: number, width: number, height: number }} Box */

/** Smallest side of a box. */
export const SMALLEST = 0.1;

/**
 * Equal columns for so many people, from left to right.
 * @param {number} count
 * @returns {Box[]}
 */
export function columns(count) {
  return Array.from({ length: count }, (_, i) => ({ x: i / count, y: 0, width: 1 / count, height: 1 }));
}

/**
 * The box moved by a distance, and kept inside the picture.
 * @param {Box} box
 * @param {number} dx
 * @param {number} dy
 * @returns {Box}
 */
export function moved({ x, y, width, height }, dx, dy) {
  return { x: clamp(x + dx, 0, 1 - width), y: clamp(y + dy, 0, 1 - height), width, height };
}

/**
 * The box with one corner pulled by a distance; `corner` is `nw`, `ne`, `sw` or `se`.
 * @param {Box} box
 * @param {string} corner
 * @param {number} dx
 * @param {number} dy
 * @returns {Box}
 */
export function resized({ x, y, width, height }, corner, dx, dy) {
  let [left, top, right, bottom] = [x, y, x + width, y + height];
  if (corner.includes("w")) {
    left = clamp(left + dx, 0, right - SMALLEST);
  } else {
    right = clamp(right + dx, left + SMALLEST, 1);
  }
  if (corner.includes("n")) {
    top = clamp(top + dy, 0, bottom - SMALLEST);
  } else {
    bottom = clamp(bottom + dy, top + SMALLEST, 1);
  }
  return { x: left, y: top, width: right - left, height: bottom - top };
}

/**
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
function clamp(value, low, high) {
  return Math.min(Math.max(value, low), Math.max(low, high));
}
