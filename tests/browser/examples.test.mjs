/** The examples of `examples/web` in a real browser. */

import assert from "node:assert/strict";
import { get } from "node:http";
import { after, before, test } from "node:test";

import { serve } from "../../examples/web/serve.mjs";
import { openPage, startBrowser } from "./harness.mjs";

/** @type {Awaited<ReturnType<typeof serve>>} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  server = await serve();
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
  server?.close();
});

/** The last sample of a studio: its engine runs under the example's own policy. */
const LAST_SAMPLE = '#style [data-key="style-6"] img';

test("plain HTML", async () => {
  const { context, page, errors } = await openPage(browser);
  await page.goto(`${server.url}/plain/`);
  await page.locator(LAST_SAMPLE).waitFor({ timeout: 120_000 });
  await page.locator("face-studio").evaluate((element) => {
    element.dispatchEvent(new CustomEvent("facestudio-result", { bubbles: true, composed: true, detail: [{ seed: 7 }] }));
  });
  assert.equal(await page.locator("#told").textContent(), "1 picture, seed 7");
  assert.deepEqual(errors, []);
  await context.close();
});

test("React sets attributes and hears events", async () => {
  const { context, page, errors } = await openPage(browser);
  await page.goto(`${server.url}/react/`);
  await page.locator(LAST_SAMPLE).waitFor({ timeout: 120_000 });
  assert.equal(await page.locator("face-studio").getAttribute("theme"), "light");
  await page.locator("#toggle").click();
  await page.locator("face-studio[theme=dark]").waitFor();
  assert.equal(await page.locator("#told").textContent(), "0 pictures made");
  await page.locator("face-studio").evaluate((element) => {
    element.dispatchEvent(new CustomEvent("facestudio-result", { bubbles: true, composed: true, detail: [{}, {}] }));
  });
  await page.locator("#told", { hasText: "2 pictures made" }).waitFor();
  assert.deepEqual(errors, []);
  await context.close();
});

test("an iframe of another origin, with the camera handed on, and no other page may frame it", async () => {
  const { context, page, errors } = await openPage(browser);
  await page.goto(`${server.url}/iframe/?${server.embedded}`);
  const frame = page.frameLocator("#frame");
  await frame.locator(LAST_SAMPLE).waitFor({ timeout: 120_000 });
  await frame.locator("#camera").click();
  await frame.locator("#consent-yes").click();
  await frame.locator("#shutter:enabled").waitFor();
  assert.deepEqual(errors, []);
  await context.close();
  const policy = (await fetch(`${server.embedded}/plain/`)).headers.get("content-security-policy");
  assert.match(policy ?? "", new RegExp(`frame-ancestors 'self' ${server.url}`));
});

test("two studios on one page keep their own people and language", async () => {
  const { context, page, errors } = await openPage(browser);
  await page.goto(`${server.url}/two/`);
  for (const id of ["first", "second"]) {
    await page.locator(`#${id} ${LAST_SAMPLE}`).waitFor({ timeout: 120_000 });
  }
  await page.locator("#first #add-person").click();
  assert.equal(await page.locator("#first .chip-pair").count(), 2);
  assert.equal(await page.locator("#second .chip-pair").count(), 1);
  assert.equal(await page.locator("#first #generate").textContent(), "Generate");
  await page.locator("#second #generate", { hasText: "Bild erzeugen" }).waitFor();
  assert.deepEqual(errors, []);
  await context.close();
});

test("another site's name that points here is not answered", async () => {
  const status = (/** @type {string} */ host) =>
    new Promise((resolve, reject) => {
      const asked = get(`${server.url}/facestudio/models/mini/manifest.json`, { headers: { host } }, (answer) => {
        answer.resume();
        resolve(answer.statusCode);
      });
      asked.on("error", reject);
    });
  assert.equal(await status("localhost:1"), 200);
  assert.equal(await status("rebound.example"), 421);
  assert.equal(await status("localhost.rebound.example"), 421);
});
