/** What the interface tells and keeps of a picture: its recipe, which holds none of its pictures. */

import { SAMPLERS } from "../engine/protocol.js";

/** @import { GenerateRequest, Picture, Sampler } from "../engine/protocol.js" */
/** @import { Recipe } from "../engine/recipe.js" */

/**
 * The sampler of that name; the first one where there is none.
 * @param {unknown} name
 */
export function samplerOf(name) {
  const names = /** @type {Sampler[]} */ (Object.keys(SAMPLERS));
  return names.find((own) => own === name) ?? names[0];
}

/**
 * What is read of a recipe.
 * @typedef {Pick<Recipe, "alpha" | "seed" | "steps" | "guidance_scale" | "sampler" | "width" | "height" | "style">
 *   & Required<Pick<Recipe, "prompt" | "negative_prompt">>} Settings
 */

/**
 * A picture's recipe, with the words of its request: its file may leave them out.
 * @param {GenerateRequest} request
 * @param {Picture} picture
 * @returns {Settings}
 */
export function settingsOf({ prompt = "", negative_prompt = "" }, { recipe }) {
  return { ...recipe, prompt, negative_prompt };
}

/**
 * Settings as they were kept, whatever has become of them: what is of another type counts as left out.
 * @param {unknown} kept
 * @returns {Settings}
 */
export function settingsFrom(kept) {
  const record = /** @type {Record<string, unknown>} */ (Object(kept));
  const text = (/** @type {string} */ key) => (typeof record[key] === "string" ? record[key] : "");
  const number = (/** @type {string} */ key, /** @type {number} */ otherwise) =>
    typeof record[key] === "number" && Number.isFinite(record[key]) ? record[key] : otherwise;
  return {
    prompt: text("prompt"),
    negative_prompt: text("negative_prompt"),
    alpha: number("alpha", 0),
    seed: typeof record.seed === "bigint" ? record.seed : number("seed", 0),
    steps: number("steps", 25),
    guidance_scale: number("guidance_scale", 3),
    sampler: samplerOf(record.sampler),
    width: number("width", 0),
    height: number("height", 0),
    style: text("style"),
  };
}
