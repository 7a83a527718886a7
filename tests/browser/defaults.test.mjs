/** A model says how it is sampled, where a request does not, and what it reads. On the tiny models. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { openPage, startBrowser, startServer, tinyModel } from "./harness.mjs";

/** @type {Awaited<ReturnType<typeof startServer>>} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;

/** The tiny model with the scheduler and the defaults of a distilled one, and its manifest brought up to date. */
function distilledModel() {
  const folder = tinyModel("arc2face");
  const manifest = JSON.parse(readFileSync(`${folder}/mini/manifest.json`, "utf8"));
  const put = (/** @type {string} */ path, /** @type {object} */ value) => {
    const text = JSON.stringify(value);
    writeFileSync(`${folder}/mini/${path}`, text);
    return { path, bytes: text.length, sha256: createHash("sha256").update(text).digest("hex") };
  };
  const scheduler = { _class_name: "EulerDiscreteScheduler", timestep_spacing: "trailing" };
  manifest.components.scheduler.files = [put("scheduler/scheduler_config.json", scheduler)];
  manifest.files = [put("defaults.json", { steps: 2, guidance_scale: 1 })];
  writeFileSync(`${folder}/mini/manifest.json`, JSON.stringify(manifest));
  return folder;
}

before(async () => {
  server = await startServer(["--models", distilledModel()]);
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
  server?.stop();
});

test("the engine takes the folder's steps, guidance and sampler where a request does not say", async () => {
  const { context, page } = await openPage(browser);
  await page.goto(server.url);
  const seen = await page.evaluate(async () => {
    const { EngineClient } = await import(new URL("engine/client.js", location.href).href);
    const client = new EngineClient();
    const { abilities } = await client.open({ model: "models/mini/", backend: "cpu" });
    const made = async (/** @type {object} */ numbers) => {
      let steps = 0;
      const onProgress = (/** @type {any} */ progress) => {
        steps = progress.phase === "denoise" ? progress.steps : steps;
      };
      const [picture] = await client.generate({ people: [], prompt: "a man", seed: 7, ...numbers }, { onProgress });
      return { steps, png: Array.from(picture.png).join() };
    };
    const implied = await made({});
    const stated = await made({ steps: 2, guidance_scale: 1, sampler: "euler" });
    const other = await made({ steps: 3, guidance_scale: 2, sampler: "ddim" });
    client.close();
    const { steps, guidance_scale, sampler } = abilities;
    return { abilities: { steps, guidance_scale, sampler }, implied: implied.steps, same: implied.png === stated.png, other: other.steps };
  });
  const abilities = { steps: 2, guidance_scale: 1, sampler: "euler" };
  assert.deepEqual(seen, { abilities, implied: 2, same: true, other: 3 });
  await context.close();
});

test("the studio shows the folder's numbers, and keeps those that somebody chose", async () => {
  const { context, page, errors } = await openPage(browser);
  await page.goto(server.url);
  await page.waitForFunction(() => customElements.get("face-studio"));
  await page.locator("#advanced summary").click();
  await page.locator("#guidance").fill("4");
  await page.evaluate(() => /** @type {any} */ (document.querySelector("face-studio")).load());
  await page.waitForFunction(
    () => /** @type {any} */ (document.querySelector("face-studio")).shadowRoot.querySelector("#steps").value === "2",
  );
  assert.equal(await page.locator("#sampler").inputValue(), "euler");
  assert.equal(await page.locator("#guidance").inputValue(), "4", "that was chosen before the model was there");
  assert.deepEqual(errors, []);
  await context.close();
});

test("the studio offers neither styles nor words where the model reads none", async () => {
  const { context, page, errors } = await openPage(browser);
  await page.goto(server.url);
  await page.waitForFunction(() => customElements.get("face-studio"));
  const offered = await page.evaluate(async () => {
    const studio = /** @type {any} */ (document.createElement("face-studio"));
    studio.setAttribute("model", "models/arc2face/");
    studio.setAttribute("backend", "cpu");
    document.body.replaceChildren(studio);
    const shown = () => {
      const [style, prompt] = ["#style", "#prompt"].map((id) => studio.shadowRoot.querySelector(id));
      return { style: style.checkVisibility(), words: !prompt.disabled };
    };
    const before = shown();
    await studio.load();
    return { before, after: shown() };
  });
  assert.deepEqual(offered, { before: { style: true, words: true }, after: { style: false, words: false } });
  assert.deepEqual(errors, []);
  await context.close();
});

test("a first press of Generate asks for no style where the model turns out to read none", async () => {
  const { context, page, errors } = await openPage(browser);
  await page.goto(server.url);
  await page.waitForFunction(() => customElements.get("face-studio"));
  const seen = await page.evaluate(async () => {
    const studio = /** @type {any} */ (document.createElement("face-studio"));
    studio.setAttribute("model", "models/arc2face/");
    studio.setAttribute("backend", "cpu");
    document.body.replaceChildren(studio);
    const find = (/** @type {string} */ selector) => studio.shadowRoot.querySelector(selector);
    while (!find('#style .tile[aria-pressed="true"] img') || !find("#people .tile img")) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    find("#people .tile:has(img)").click();
    const [ready, outcome] = ["facestudio-ready", "facestudio-error"].map(
      (type) =>
        new Promise((resolve) => studio.addEventListener(type, (/** @type {any} */ event) => resolve(event.detail), { once: true })),
    );
    const result = new Promise((resolve) => studio.addEventListener("facestudio-result", () => resolve("a picture"), { once: true }));
    find("#generate").click();
    const { abilities } = await ready;
    return { styles: abilities.styles, outcome: await Promise.race([result, outcome.then((error) => error.code)]) };
  });
  assert.deepEqual(seen, { styles: false, outcome: "a picture" });
  assert.deepEqual(errors, []);
  await context.close();
});
