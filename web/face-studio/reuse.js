/**
 * Takes all that a recipe holds into the form: its numbers, words and places, and those of its pictures that are at hand. Loaded when
 * somebody wants that.
 */

import { byHash } from "./recipe-of.js";

export { recipeOf } from "./recipe-of.js";

/** @import { Bytes, GenerateRequest } from "../engine/protocol.js" */
/** @import { Recipe } from "../engine/recipe.js" */
/** @import { Advanced } from "./advanced.js" */
/** @import { LayoutPanel } from "./layout.js" */
/** @import { People } from "./people.js" */
/** @import { StartPicture } from "./start-picture.js" */
/** @import { Style } from "./style.js" */
/** @import { Words } from "./words.js" */

/**
 * The form's panels.
 * @typedef {{ people: People, style: Style, words: Words, layout: LayoutPanel, start: StartPicture, advanced: Advanced }} Panels
 */

/**
 * @param {Recipe} recipe
 * @param {Panels} panels
 * @param {Bytes[]} pictures that are at hand
 * @param {GenerateRequest} [request] where it is known: it holds masks, which are found in no other way
 * @returns {Promise<number>} how many of its pictures are not at hand
 */
export async function restore(recipe, { people, style, words, layout, start, advanced }, pictures, request) {
  const known = await byHash(pictures);
  let missing = 0;
  const find = (/** @type {string} */ hash) => {
    const found = known.get(hash);
    missing += found ? 0 : 1;
    return found;
  };
  words.prompt = recipe.prompt ?? "";
  if (recipe.prompt && recipe.style) {
    words.alpha = recipe.alpha;
  }
  advanced.write({ ...recipe, negative_prompt: recipe.negative_prompt ?? "" });
  people.set(
    recipe.people.map(({ identities }) => ({
      active: 0,
      identities: identities.map(({ photos, beta = 1 }) => ({
        beta,
        photos: photos.flatMap(({ sha256, landmarks }) => {
          const bytes = find(sha256);
          return bytes ? [{ bytes, real: true, ...(landmarks ? { landmarks } : {}) }] : [];
        }),
      })),
    })),
  );
  style.choose((recipe.style && find(recipe.style)) || null);
  const image = recipe.init && find(recipe.init.image);
  start.write(image ?? null, recipe.init?.strength, recipe.background === "hold");
  const place = recipe.layout;
  if (place === "whole") {
    layout.write("whole");
  } else if ("boxes" in place) {
    layout.write({ boxes: place.boxes });
  } else if ("content" in place) {
    layout.write({ content: find(place.content) ?? null });
  } else {
    const masks = request?.layout;
    const painted = typeof masks === "object" && "masks" in masks ? masks.masks : null;
    missing += painted ? 0 : place.masks.length;
    await layout.paint(painted ?? []);
  }
  return missing;
}
