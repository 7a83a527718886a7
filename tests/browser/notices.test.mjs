/** What was done otherwise than asked is told with the picture: by the engine, and in the page in either language. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { openPage, startBrowser, startServer, tinyModel } from "./harness.mjs";

/** The tiny text encoder reads 14 tokens besides begin and end. */
const LONG = `${"a ".repeat(14)}man, man`;

/** @type {Awaited<ReturnType<typeof startServer>>} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  server = await startServer(["--models", tinyModel("adapters")]);
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
  server?.stop();
});

test("the engine says how much of a prompt it did not read, in every family that reads words", async () => {
  const { context, page } = await openPage(browser);
  await page.goto(server.url);
  const seen = await page.evaluate(async (prompt) => {
    const { EngineClient } = await import(new URL("engine/client.js", location.href).href);
    const client = new EngineClient();
    const all = [];
    for (const model of ["mini", "adapters"]) {
      await client.open({ model: `models/${model}/`, backend: "cpu" });
      const request = { people: [], prompt, negative_prompt: prompt, steps: 1, guidance_scale: 2 };
      const [long] = await client.generate(request);
      const [short] = await client.generate({ ...request, prompt: "a man", negative_prompt: "" });
      all.push({ long: long.notices, short: short.notices });
    }
    client.close();
    return all;
  }, LONG);
  const values = { from: "man", room: "14", tokens: "3" };
  const [mini, adapters] = seen;
  // It reads them in as many chunks as they take.
  assert.deepEqual(adapters, { long: [], short: [] });
  for (const { long, short } of [mini]) {
    assert.deepEqual(
      long.map((/** @type {any} */ notice) => [notice.code, notice.values]),
      [
        ["prompt-cut", values],
        ["negative-prompt-cut", values],
      ],
    );
    assert.match(long[0].message, /last 3 tokens were cut off, from 'man' on/);
    assert.notEqual(long[0].remedy, "");
    assert.deepEqual(short, []);
  }
  await context.close();
});

test("the page says so under the picture, in its language, and forgets it with the next one", async () => {
  const { context, page, errors } = await openPage(browser);
  await page.goto(server.url);
  await page.waitForFunction(() => customElements.get("face-studio"));
  const make = (/** @type {string} */ prompt) =>
    page.evaluate(
      (text) => /** @type {any} */ (document.querySelector("face-studio")).generate({ people: [], prompt: text, steps: 1 }),
      prompt,
    );
  await make(LONG);
  const notice = page.locator("#notices p");
  await notice.waitFor();
  assert.equal(
    await notice.textContent(),
    "Your words are longer than this model reads: 3 of their tokens were left out, from “man” on. It reads 14.",
  );
  await page.evaluate(() => document.querySelector("face-studio")?.setAttribute("lang", "de"));
  await page
    .locator("#notices p", { hasText: "Dein Text ist länger, als dieses Modell liest: 3 seiner Token wurden weggelassen, ab „man“." })
    .waitFor();
  await make("a man");
  await page.locator("#notices").waitFor({ state: "hidden" });
  assert.deepEqual(errors, []);
  await context.close();
});
