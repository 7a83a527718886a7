/** Whether a generated picture is meant for its settings. Loaded when one may be. */

import { openDialog } from "./dialog.js";
import { readFile } from "./pictures.js";
import { recipeOf } from "./recipe-of.js";

/** @import { Recipe } from "../engine/recipe.js" */
/** @import { Builder } from "./builder.js" */

/**
 * Asks what is meant with one generated picture: the recipe where its settings are, else null; undefined where nothing is.
 * @param {Builder} builder
 * @param {ParentNode} root
 * @param {File[]} files
 * @returns {Promise<{ recipe: Recipe, png: Uint8Array } | null | undefined>}
 */
export async function askFor(builder, root, files) {
  const [file, second] = files;
  const png = file && !second ? await readFile(file) : null;
  const recipe = png && recipeOf(png);
  if (!png || !recipe) {
    return null;
  }
  const h = builder.h.bind(builder);
  return new Promise((resolve) => {
    /** @type {{ recipe: Recipe, png: Uint8Array } | null | undefined} */
    let answer;
    const choose = (/** @type {typeof answer} */ chosen) => () => {
      answer = chosen;
      close();
    };
    const close = openDialog(
      builder,
      root,
      { title: "reuse.title", className: "narrow", closed: () => resolve(answer) },
      h("p", { text: "reuse.text" }),
      h(
        "div",
        { class: "dialog-actions" },
        h("button", { type: "button", id: "reuse-picture", text: "reuse.picture", on: { click: choose(null) } }),
        h("button", {
          type: "button",
          class: "primary",
          id: "reuse-settings",
          text: "reuse.settings",
          on: { click: choose({ recipe, png }) },
        }),
      ),
    );
  });
}
