/** Writes pkg/recipes.json: every recipe of models/recipes, whole, with its parts in their places. */

import { readFile, readdir, writeFile } from "node:fs/promises";

const FOLDER = new URL("../models/recipes/", import.meta.url);

const json = async (/** @type {string} */ path) => JSON.parse(await readFile(new URL(path, FOLDER), "utf8"));

const names = (await readdir(FOLDER)).filter((name) => name.endsWith(".json")).sort();
const recipes = await Promise.all(
  names.map(async (name) => {
    const recipe = await json(name);
    const parts = recipe.parts.map((/** @type {unknown} */ part) => (typeof part === "string" ? json(`parts/${part}.json`) : part));
    return { ...recipe, parts: await Promise.all(parts) };
  }),
);
await writeFile(new URL("../pkg/recipes.json", import.meta.url), JSON.stringify(recipes));
