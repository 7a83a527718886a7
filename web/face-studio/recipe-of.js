/** The recipe that a generated picture's file holds, and pictures by the hashes that a recipe names them with. */

/** @import { Bytes } from "../engine/protocol.js" */
/** @import { Recipe } from "../engine/recipe.js" */

/** The text's name, as in `src/image/codec.rs`. */
const KEYWORD = "facestudio";

/** Where the first chunk begins. */
const SIGNATURE = 8;

/**
 * The recipe in a PNG; null where there is none that could be read.
 * @param {Uint8Array} png
 * @returns {Recipe | null}
 */
export function recipeOf(png) {
  try {
    const text = textOf(png);
    // A seed may be larger than a number of JSON.
    const found = JSON.parse(text.replace(/("seed":\s*)(\d{16,})/, '$1"$2"'));
    if (!Array.isArray(found.people) || typeof found.steps !== "number") {
      return null;
    }
    return { ...found, seed: typeof found.seed === "string" ? BigInt(found.seed) : found.seed };
  } catch {
    return null;
  }
}

/**
 * The text under the keyword: of a `tEXt` chunk, or of an `iTXt` chunk that is not compressed.
 * @param {Uint8Array} png
 */
function textOf(png) {
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  const latin = new TextDecoder("latin1");
  for (let at = SIGNATURE; at + 12 <= png.length; at += 12 + view.getUint32(at)) {
    const type = latin.decode(png.subarray(at + 4, at + 8));
    const data = png.subarray(at + 8, at + 8 + view.getUint32(at));
    const name = data.indexOf(0);
    if (latin.decode(data.subarray(0, Math.max(name, 0))) !== KEYWORD) {
      continue;
    }
    if (type === "tEXt") {
      return latin.decode(data.subarray(name + 1));
    }
    if (type === "iTXt" && data[name + 1] === 0) {
      const language = data.indexOf(0, name + 3);
      return new TextDecoder().decode(data.subarray(data.indexOf(0, language + 1) + 1));
    }
  }
  return "";
}

/**
 * The hash that a recipe has of a picture: of its sides as little-endian 32-bit numbers, and its pixels of three bytes each; null where
 * this browser cannot tell.
 * @param {Bytes} bytes
 * @returns {Promise<string | null>}
 */
async function pixelHash(bytes) {
  try {
    const bitmap = await createImageBitmap(new Blob([/** @type {BlobPart} */ (bytes)]), { colorSpaceConversion: "none" });
    const { width, height } = bitmap;
    const canvas = new OffscreenCanvas(width, height);
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const { data } = context.getImageData(0, 0, width, height);
    const hashed = new Uint8Array(8 + 3 * width * height);
    new DataView(hashed.buffer).setUint32(0, width, true);
    new DataView(hashed.buffer).setUint32(4, height, true);
    for (let from = 0, to = 8; from < data.length; from += 4, to += 3) {
      hashed[to] = data[from] ?? 0;
      hashed[to + 1] = data[from + 1] ?? 0;
      hashed[to + 2] = data[from + 2] ?? 0;
    }
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", hashed));
    return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  } catch {
    return null;
  }
}

/**
 * Pictures by their hashes.
 * @param {Iterable<Bytes>} pictures
 * @returns {Promise<Map<string, Bytes>>}
 */
export async function byHash(pictures) {
  const found = new Map();
  for (const picture of new Set(pictures)) {
    const hash = await pixelHash(picture);
    if (hash) {
      found.set(hash, picture);
    }
  }
  return found;
}
