/** A picture's recipe and the pictures that it was made from make the same picture. On the tiny models. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { openClient, request } from "./client.mjs";
import { setUp } from "./harness.mjs";

const { server, browser } = await setUp("segmenter", "arc2face");

/** Opens a model, and leaves in the page what requests are made of: faces, fields of colour and masks by name. */
const prepare = async (/** @type {any} */ client, /** @type {string} */ model) => {
  const all = /** @type {any} */ (globalThis);
  await client.open({ model: `/models/${model}/`, backend: "cpu" });
  const drawn = async (/** @type {(context: OffscreenCanvasRenderingContext2D) => void} */ draw) => {
    const canvas = new OffscreenCanvas(64, 64);
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.fillRect(0, 0, 64, 64);
    draw(context);
    return new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
  };
  /** A bright spot: what the tiny model's detector takes for a face. */
  const face = (/** @type {string} */ color) =>
    drawn((context) => {
      context.fillStyle = color;
      context.arc(32, 32, 12, 0, 7);
      context.fill();
    });
  const mask = (/** @type {number} */ x) =>
    drawn((context) => {
      context.fillStyle = "#fff";
      context.fillRect(x, 0, 32, 64);
    });
  all.pictures = { white: await face("#fff"), yellow: await face("#ff8"), blue: await face("#9bf"), left: await mask(0), right: await mask(32) };
  /** Names in a request are replaced by their pictures. */
  all.filled = (/** @type {any} */ value) =>
    typeof value === "string"
      ? (all.pictures[value] ?? value)
      : Array.isArray(value)
        ? value.map(all.filled)
        : value && typeof value === "object"
          ? Object.fromEntries(Object.entries(value).map(([key, part]) => [key, all.filled(part)]))
          : value;
};

/** Makes a request's last picture, and makes it again of its PNG and all pictures there are. */
const twice = async (/** @type {any} */ client, /** @type {{ asked: any, words?: any }} */ { asked, words }) => {
  const all = /** @type {any} */ (globalThis);
  const made = (await client.generate(all.filled(asked))).at(-1);
  const pictures = Object.values(all.pictures).reverse();
  const again = await client.requestFor(made.png, pictures, words);
  const [second] = await client.generate(again);
  const told = (/** @type {any} */ picture) => JSON.stringify(picture.recipe, (_, value) => (typeof value === "bigint" ? String(value) : value));
  return { first: await all.hash(made.png), second: await all.hash(second.png), recipe: told(made), recipe_again: told(second), seed: String(made.seed) };
};

const person = (/** @type {[string, number][]} */ ...photos) => ({ identities: photos.map(([photo, beta]) => ({ photos: [photo], beta })) });
const boxes = [0, 0.5].map((x) => ({ x, y: 0.1, width: 0.5, height: 0.8 }));
const two = [person(["white", 0.7], ["yellow", 0.2]), person(["blue", 1])];

/** @type {Record<string, object>} */
const STYLED = {
  "two people, one of them a mix, in boxes": request({
    people: two, style: "blue", alpha: 0.3, layout: { boxes }, background: { person: 1 }, negative_prompt: "red hair", guidance_scale: 2.5, sampler: "unipc", width: 64, height: 32, count: 2,
  }),
  "a start picture, painted places and a mask": request({
    people: two, style: "yellow", alpha: 0.6, layout: { masks: ["left", "right"] }, init: { image: "white", strength: 0.7, mask: "left" }, watermark: false,
  }),
  "a held background where a picture has people": request({
    people: two.slice(1), layout: { content: "white" }, init: { image: "yellow", strength: 0.5 }, background: "hold", guidance_scale: 1,
  }),
  "what the model is made for": { people: [], prompt: "a hat" },
};

/** @type {Record<string, Record<string, object>>} */
const FAMILIES = { mini: STYLED, arc2face: { "faces alone": { people: two, layout: { boxes }, steps: 3, seed: 5 } } };

for (const [model, requests] of Object.entries(FAMILIES)) {
  test(`a recipe and its pictures make the same picture of ${model}`, async () => {
    const { context, call, errors } = await openClient(browser, server.url);
    assert.equal((await call(prepare, model)).error, undefined);
    for (const [name, asked] of Object.entries(requests)) {
      const { value, error } = await call(twice, { asked });
      assert.equal(error, undefined, name);
      // The file as a whole: its pixels, and what it says of itself.
      assert.equal(value.first, value.second, name);
      assert.equal(value.recipe, value.recipe_again, name);
      const recipe = JSON.parse(value.recipe);
      assert.deepEqual([recipe.format, recipe.model.name, recipe.precision], [1, "tiny", "f32"]);
      assert.match(recipe.model.sha256, /^[0-9a-f]{64}$/);
      assert.ok(recipe.steps > 0 && recipe.width > 0 && recipe.sampler, value.recipe);
    }
    assert.deepEqual(errors, []);
    await context.close();
  });
}

test("a recipe says its numbers as they were asked for", async () => {
  const { context, call } = await openClient(browser, server.url);
  await call(prepare, "mini");
  const asked = request({ people: two, style: "blue", alpha: 0.3, layout: { boxes }, guidance_scale: 2.7 });
  const { value } = await call(twice, { asked });
  const { alpha, guidance_scale, layout, people, prompt, seed, steps } = JSON.parse(value.recipe);
  assert.deepEqual({ alpha, guidance_scale, layout, prompt, seed, steps }, { alpha: 0.3, guidance_scale: 2.7, layout: { boxes }, prompt: "a smiling man with a hat", seed: 7, steps: 4 });
  assert.deepEqual(people.map((/** @type {any} */ { identities }) => identities.map((/** @type {any} */ { beta }) => beta)), [[0.7, 0.2], [1]]);
  const large = await call(async (/** @type {any} */ client) => {
    const [made] = await client.generate({ people: [], prompt: "a hat", steps: 1, seed: 2n ** 60n + 1n });
    const again = await client.requestFor(made.png, []);
    return [made.recipe.seed, again.seed].map(String);
  });
  assert.deepEqual(large.value, Array(2).fill(String(2n ** 60n + 1n)));
  await context.close();
});

test("words that a file leaves out are given with its pictures", async () => {
  const { context, call } = await openClient(browser, server.url);
  await call(prepare, "mini");
  const asked = request({ negative_prompt: "fog", prompt_in_metadata: false, steps: 2 });
  assert.equal((await call(twice, { asked })).error?.code, "recipe-words");
  const words = { prompt: "a smiling man with a hat", negative_prompt: "fog" };
  const { value, error } = await call(twice, { asked, words });
  assert.equal(error, undefined);
  assert.equal(value.first, value.second);
  assert.doesNotMatch(value.recipe + value.recipe_again, /smiling|fog/);
  assert.equal((await call(twice, { asked: { ...asked, prompt_in_metadata: true }, words })).error?.code, "recipe-words");
  await context.close();
});

test("what does not make the picture again is refused, and says what is missing", async () => {
  const { context, call } = await openClient(browser, server.url);
  await call(prepare, "mini");
  const outcome = await call(async (/** @type {any} */ client) => {
    const { filled, pictures } = /** @type {any} */ (globalThis);
    const asked = filled({ people: [{ identities: [{ photos: ["white"] }] }], style: "blue", steps: 1 });
    const [{ png }] = await client.generate(asked);
    const refused = (/** @type {Promise<unknown>} */ promise) => promise.then(() => "made", ({ code, message }) => `${code}: ${message}`);
    const said = [await refused(client.requestFor(png, [pictures.white])), await refused(client.requestFor(pictures.white, []))];
    said.push(await refused(client.requestFor(png, 5)));
    await client.open({ model: "/models/arc2face/", backend: "cpu" });
    return [...said, await refused(client.requestFor(png, [pictures.white, pictures.blue]))];
  });
  const [missing, none, wrong, other] = outcome.value ?? [];
  assert.match(missing, /^recipe-picture: .*the style picture/);
  assert.match(none, /^recipe-missing/);
  assert.match(other, /^recipe-model: .*tiny/);
  assert.match(wrong, /^request-format/);
  await context.close();
});
