/** Pictures through the interface, from choosing to keeping them. Needs models/mini. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { openPage, startBrowser, startServer, waitForSamples } from "./harness.mjs";

/** @type {Awaited<ReturnType<typeof startServer>>} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  server = await startServer();
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
  server?.stop();
});

/** The page with its model open, set to few steps. */
async function openReady() {
  const opened = await openPage(browser);
  const { page } = opened;
  await page.goto(server.url);
  await waitForSamples(page);
  await page.locator("#engine[data-backend]").waitFor({ timeout: 300_000 });
  await page.locator("#advanced summary").click();
  await page.locator("#steps").fill("3");
  return opened;
}

/** @param {import("playwright-core").Page} page */
async function make(page) {
  // A picture may be made in less time than a look at the page takes.
  const made = page.evaluate(
    () =>
      new Promise((resolve) =>
        document.querySelector("face-studio")?.addEventListener("facestudio-result", () => resolve(null), { once: true }),
      ),
  );
  await page.locator("#generate").click();
  await made;
  await page.locator("#finished").waitFor({ timeout: 300_000 });
}

/** @param {import("playwright-core").Page} page */
const sample = (page, /** @type {number} */ n) => page.getByRole("button", { name: `Sample face ${n}, a made-up person` }).click();

describe("the interface with a model", () => {
  test("makes, compares, reuses and removes pictures, and keeps them only if asked", async () => {
    const { context, page, errors } = await openReady();
    assert.equal(await page.locator("#drawn-only").isVisible(), true, "the model knows drawn people only");
    await make(page);
    // One click from a fresh page to a picture; its likeness follows.
    await page.locator("#likeness").waitFor({ timeout: 120_000 });
    const download = page.locator("#download");
    const seed = /(\d+)\.png/.exec((await download.getAttribute("download")) ?? "")?.[1];
    assert.match((await download.getAttribute("href")) ?? "", /^blob:/);
    await page.locator("#compare").click();
    await page.locator(".frame.comparing .reference").waitFor();
    await page.locator("#reuse").click();
    await page.locator("#lock:checked").waitFor();
    assert.equal(await page.locator("#seed").inputValue(), seed);
    const pixels = () =>
      page.locator("#picture").evaluate(async (image) => {
        const picture = /** @type {HTMLImageElement} */ (image);
        await picture.decode();
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
        const drawn = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
        drawn.drawImage(picture, 0, 0);
        return drawn.getImageData(0, 0, canvas.width, canvas.height).data.join();
      });
    const first = await pixels();
    await page.locator("#device summary").click();
    await page.locator("#keep").check();
    await make(page);
    assert.equal(await pixels(), first, "the same settings give the same picture");
    assert.equal(await page.locator(".result").count(), 2);
    await page.locator("#likeness").waitFor({ timeout: 120_000 });

    // After a reload both are there, in another tab only the picture that was made with the history on; nothing of a face is.
    await page.reload();
    await page.locator(".result").nth(1).waitFor({ timeout: 120_000 });
    assert.equal(await page.locator(".result").count(), 2);
    const other = await context.newPage();
    await other.goto(server.url);
    await other.locator(".result").first().waitFor({ timeout: 120_000 });
    assert.equal(await other.locator(".result").count(), 1);
    await other.close();
    await page
      .getByRole("button", { name: `Show the picture with seed ${seed}` })
      .first()
      .click();
    assert.equal(await pixels(), first);
    assert.equal(await page.locator("#compare").isVisible(), false);
    for (let left = 1; left >= 0; left -= 1) {
      await page
        .getByRole("button", { name: `Remove the picture with seed ${seed}` })
        .first()
        .click();
      assert.equal(await page.locator(".result").count(), left);
    }
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("mixes faces, as a strip too, and puts two people into boxes", async () => {
    const { context, page, errors } = await openReady();
    await page.locator("#mix").click();
    await sample(page, 2);
    await page.locator("#strip-mix").click();
    await page.locator(".strip .result").nth(4).waitFor({ timeout: 300_000 });
    assert.deepEqual(await page.locator(".strip .result-text span:first-child").allTextContents(), [
      "100 : 0",
      "75 : 25",
      "50 : 50",
      "25 : 75",
      "0 : 100",
    ]);
    await page.locator("#generate:enabled").waitFor();
    await page.locator("#add-person").click();
    await sample(page, 4);
    await page.locator(".box").nth(1).waitFor();
    await make(page);
    await page.locator("#compare").click();
    assert.deepEqual(await page.locator(".frame.comparing .reference").allTextContents(), ["Person 1", "Person 2"]);
    assert.equal(await page.locator("#error").isVisible(), false);
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("starts from a picture, and stops between steps", async () => {
    const { context, page } = await openReady();
    await make(page);
    await page.locator("#as-start").click();
    await page.locator("#strength").fill("0.5");
    await page.locator("#hold").check();
    await make(page);
    await page.locator("#steps").fill("50");
    await page.locator("#generate").click();
    await page.locator("#doing", { hasText: /step ([2-9]|\d\d) of/ }).waitFor({ timeout: 120_000 });
    await page.locator("#cancel").click();
    await page.locator("#generate:enabled").waitFor({ timeout: 20_000 });
    assert.equal(await page.locator("#error").isVisible(), false);
    assert.equal(await page.locator("#finished").isVisible(), true, "the last picture is shown again");
    await context.close();
  });

  test("finds the face in a photo that is given, and keeps its crop alone", async () => {
    const { context, page } = await openReady();
    const png = await page.evaluate(async () => {
      const { EngineClient } = await import(/** @type {string} */ (new URL("engine/client.js", document.baseURI).href));
      const client = new EngineClient();
      const portrait = await client.render({ seed: 8, style: "photo", size: 384 });
      client.close();
      // In a corner of a larger picture.
      const canvas = new OffscreenCanvas(640, 480);
      const drawn = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
      drawn.fillStyle = "slategray";
      drawn.fillRect(0, 0, 640, 480);
      drawn.drawImage(await createImageBitmap(new Blob([portrait])), 240, 90);
      return [...new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer())];
    });
    await page.locator("#people input[type=file]").setInputFiles({ name: "a.png", mimeType: "image/png", buffer: Buffer.from(png) });
    await page.locator("#consent-yes").click();
    await page.locator('#people .tiles .tile[aria-pressed="true"]').waitFor({ state: "detached", timeout: 120_000 });
    const [width, height] = await page.locator(".tile.face img").evaluate(async (image) => {
      const picture = /** @type {HTMLImageElement} */ (image);
      await picture.decode();
      return [picture.naturalWidth, picture.naturalHeight];
    });
    assert.ok(Math.min(width, height) > 50 && Math.max(width, height) < 400, `${width} × ${height} of 640 × 480`);
    await context.close();
  });
});
