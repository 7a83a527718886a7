/** What is kept of a request beside its picture: every setting, and none of its pictures. */

import { SAMPLERS } from "../engine/protocol.js";

/** @import { Abilities, GenerateRequest, Picture, Sampler } from "../engine/protocol.js" */

/**
 * The sampler of that name; the first one where there is none.
 * @param {unknown} name
 */
export function samplerOf(name) {
  const names = /** @type {Sampler[]} */ (Object.keys(SAMPLERS));
  return names.find((own) => own === name) ?? names[0];
}

/**
 * The settings that make a picture again from the same people and style picture.
 * @typedef {object} Settings
 * @property {string} prompt
 * @property {string} negative_prompt
 * @property {number} alpha as it counted: 1 without words, 0 without a style picture
 * @property {number} seed
 * @property {number} steps
 * @property {number} guidance_scale
 * @property {Sampler} sampler
 * @property {number} width
 * @property {number} height
 * @property {number} people
 * @property {boolean} styled whether there was a style picture
 */

/**
 * @param {GenerateRequest} request
 * @param {Picture} picture
 * @param {Abilities} abilities of the model that made it
 * @returns {Settings}
 */
export function settingsOf(request, picture, abilities) {
  const prompt = request.prompt ?? "";
  const styled = Boolean(request.style);
  return {
    prompt,
    negative_prompt: request.negative_prompt ?? "",
    alpha: styled && prompt.trim() ? (request.alpha ?? 0.5) : Number(styled),
    seed: Number(picture.seed),
    steps: request.steps ?? abilities.steps,
    guidance_scale: request.guidance_scale ?? abilities.guidance_scale,
    sampler: request.sampler ?? abilities.sampler,
    width: picture.width,
    height: picture.height,
    people: request.people?.length ?? 0,
    styled,
  };
}

/**
 * Settings as they were kept, whatever has become of them: what is of another type counts as left out.
 * @param {unknown} kept
 * @returns {Settings}
 */
export function settingsFrom(kept) {
  const record = /** @type {Record<string, unknown>} */ (Object(kept));
  const text = (/** @type {keyof Settings} */ key) => (typeof record[key] === "string" ? record[key] : "");
  const number = (/** @type {keyof Settings} */ key, /** @type {number} */ otherwise) =>
    typeof record[key] === "number" && Number.isFinite(record[key]) ? record[key] : otherwise;
  return {
    prompt: text("prompt"),
    negative_prompt: text("negative_prompt"),
    alpha: number("alpha", 0),
    seed: number("seed", 0),
    steps: number("steps", 25),
    guidance_scale: number("guidance_scale", 3),
    sampler: samplerOf(record.sampler),
    width: number("width", 0),
    height: number("height", 0),
    people: number("people", 0),
    styled: record.styled === true,
  };
}
