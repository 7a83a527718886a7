/** What is kept of a request beside its picture: every setting, and none of its pictures. */

/** @import { Abilities, GenerateRequest, Picture } from "../engine/protocol.js" */

/**
 * The settings that make a picture again from the same people and style picture.
 * @typedef {object} Settings
 * @property {string} prompt
 * @property {string} negative_prompt
 * @property {number} alpha as it counted: 1 without words, 0 without a style picture
 * @property {number} seed
 * @property {number} steps
 * @property {number} guidance_scale
 * @property {NonNullable<GenerateRequest["sampler"]>} sampler
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
    people: request.people.length,
    styled,
  };
}
