/** The browser's picture against the command line's: the same request, the same model, two builds. Needs models/mini. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";

import { ROOT, openPage, startBrowser, startServer, waitForSamples } from "./harness.mjs";

/** Most that two builds' rounding may move a pixel on average, of 255. */
const MOST = 2;

test("the browser's picture is the command line's", async (t) => {
  const server = await startServer();
  t.after(() => server.stop());
  const browser = await startBrowser();
  t.after(() => browser.close());
  const folder = await mkdtemp(join(tmpdir(), "facestudio-"));
  t.after(() => rm(folder, { recursive: true }));
  const { page } = await openPage(browser);
  await page.goto(server.url);
  await waitForSamples(page);

  const [photo, style, made] = await page.evaluate(async () => {
    // @ts-ignore: a module of the served page
    const { EngineClient } = await import("./engine/client.js");
    const client = new EngineClient();
    await client.open({ model: "models/mini/", backend: "cpu" });
    const photo = await client.render({ seed: 3, style: "photo", size: 192 });
    const style = await client.render({ seed: 101, style: "watercolor", size: 192 });
    const people = [{ identities: [{ photos: [photo.slice()] }] }];
    const [picture] = await client.generate({
      people,
      style: style.slice(),
      prompt: "a portrait in a red suit",
      alpha: 0.5,
      seed: 7,
      steps: 6,
      guidance_scale: 2,
    });
    client.close();
    return [photo, style, picture.png].map((png) => [...png]);
  });
  const path = (/** @type {string} */ name) => join(folder, name);
  await writeFile(path("photo.png"), Buffer.from(photo));
  await writeFile(path("style.png"), Buffer.from(style));
  const program = `${ROOT}target/debug/facestudio`;
  const request = ["--prompt", "a portrait in a red suit", "--alpha", "0.5", "--seed", "7", "--steps", "6"];
  const files = ["--face", path("photo.png"), "--style", path("style.png"), "--out", path("native.png")];
  await promisify(execFile)(program, ["generate", ...files, ...request, "--guidance-scale", "2"], { cwd: ROOT });

  const native = [...(await readFile(path("native.png")))];
  const difference = await page.evaluate(
    async (pictures) => {
      const [a, b] = await Promise.all(
        pictures.map(async (png) => {
          const bitmap = await createImageBitmap(new Blob([new Uint8Array(png)]));
          const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
          const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
          context.drawImage(bitmap, 0, 0);
          return [...context.getImageData(0, 0, bitmap.width, bitmap.height).data];
        }),
      );
      // The fourth channel is opaque in both.
      const sum = a.reduce((total, value, i) => total + Math.abs(value - b[i]), 0);
      return { mean: sum / (0.75 * a.length), sizes: [a.length, b.length], values: new Set(a).size };
    },
    [made, native],
  );
  assert.equal(difference.sizes[0], difference.sizes[1]);
  assert.ok(difference.values > 16, "the picture is not blank");
  console.log(`mean difference ${difference.mean.toFixed(4)} of 255`);
  assert.ok(difference.mean < MOST, `mean difference ${difference.mean} of 255`);
});
