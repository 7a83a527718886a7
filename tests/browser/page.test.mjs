/** The page in a real browser. Tests that make pictures need models/mini. */

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

/**
 * Runs `body` with the engine's client in the page.
 * @param {import("playwright-core").Page} page
 * @param {(client: any, argument: any) => Promise<any>} body
 * @param {any} [argument]
 */
async function withClient(page, body, argument) {
  const code = `async (argument) => {
    const { EngineClient } = await import("./engine/client.js");
    const client = new EngineClient();
    try {
      return { value: await (${body})(client, argument) };
    } catch (error) {
      const { code, fault, message, remedy } = error;
      return { error: { code, fault, message, remedy } };
    } finally {
      client.close();
    }
  }`;
  return page.evaluate(`(${code})(${JSON.stringify(argument ?? null)})`);
}

describe("the page", () => {
  test("draws its samples and logs no error", async () => {
    const { context, page, errors } = await openPage(browser);
    await page.goto(server.url);
    await waitForSamples(page);
    assert.equal(await page.locator("#people .tiles img").count(), 6);
    const sizes = await page.locator(".tiles img:not([hidden])").evaluateAll((images) =>
      Promise.all(
        images.map(async (image) => {
          const picture = /** @type {HTMLImageElement} */ (image);
          await picture.decode();
          return picture.naturalWidth;
        }),
      ),
    );
    assert.deepEqual(new Set(sizes), new Set([192]));
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("says what is wrong with a file that is no picture, and goes on", async () => {
    const { context, page } = await openPage(browser);
    await page.route("**/models/**", () => {});
    await page.goto(server.url);
    await waitForSamples(page);
    const input = page.getByLabel("Face photos", { exact: true });
    await input.setInputFiles({ name: "face.png", mimeType: "image/png", buffer: Buffer.from("not a picture") });
    await page.locator("#consent-yes").click();
    await page.locator("#error").waitFor();
    assert.equal(await page.locator("#error-code").textContent(), "image-format");
    assert.notEqual(await page.locator("#error-remedy").textContent(), "");
    await page.getByRole("button", { name: "Sample face 2, a made-up person" }).click();
    assert.equal(await page.locator("#error").isVisible(), false);
    await context.close();
  });

  test("has a name for every control, and the keyboard reaches them", async () => {
    const { context, page } = await openPage(browser);
    await page.route("**/models/**", () => {});
    await page.goto(server.url);
    await waitForSamples(page);
    const names = await page.locator("face-studio").evaluate((element) => {
      const controls = element.shadowRoot?.querySelectorAll("input, textarea, select, button, summary, a[href]") ?? [];
      return [...controls].map((control) => {
        const labels = /** @type {HTMLInputElement} */ (control).labels ?? [];
        const text = [...labels].map((label) => label.textContent).join("") || control.textContent;
        return control.getAttribute("aria-label") ?? text?.trim();
      });
    });
    assert.ok(names.length > 20);
    assert.deepEqual(
      names.filter((name) => !name),
      [],
    );
    // With words beside the style picture there is something to balance: the slider can be reached.
    await page.locator("face-studio textarea#prompt").evaluate((prompt) => {
      /** @type {HTMLTextAreaElement} */ (prompt).value = "a portrait";
      prompt.dispatchEvent(new Event("input", { bubbles: true }));
    });
    await page.locator("face-studio #alpha:enabled").waitFor();
    const reached = new Set();
    for (let i = 0; i < 60; i += 1) {
      await page.keyboard.press("Tab");
      reached.add(
        await page.evaluate(() => {
          const focused = document.querySelector("face-studio")?.shadowRoot?.activeElement;
          return focused?.id || focused?.getAttribute("aria-label") || focused?.tagName;
        }),
      );
    }
    for (const stop of ["Face photos", "Your own style picture", "prompt", "alpha", "generate"]) {
      assert.ok(reached.has(stop), `${stop} among ${[...reached].join(", ")}`);
    }
    await context.close();
  });

  for (const width of [360, 390, 1280]) {
    test(`fits into ${width} pixels`, async () => {
      const { context, page } = await openPage(browser, { viewport: { width, height: 844 } });
      await page.route("**/models/**", () => {});
      await page.goto(server.url);
      await waitForSamples(page);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
      await context.close();
    });
  }

  test("tells that there is no model", async () => {
    const { context, page } = await openPage(browser);
    await page.route("**/models/**", (route) => route.fulfill({ status: 404, body: "" }));
    await page.addInitScript(() => {
      const told = /** @type {any} */ (globalThis.told = []);
      addEventListener("facestudio-error", (event) => told.push(/** @type {any} */ (event).detail.code));
    });
    await page.goto(server.url);
    await page.locator("#error").waitFor({ timeout: 120_000 });
    assert.equal(await page.locator("#error-code").textContent(), "model-missing");
    await page.locator("#engine", { hasText: "Not ready" }).waitFor();
    assert.deepEqual(await page.evaluate(() => /** @type {any} */ (globalThis).told), ["model-missing"]);
    await context.close();
  });
});

describe("the worker", () => {
  test("does not speak to a page of another release", async () => {
    const { context, page } = await openPage(browser);
    await page.route("**/models/**", () => {});
    await page.goto(server.url);
    const reply = await page.evaluate(
      () =>
        new Promise((resolve) => {
          const worker = new Worker(new URL("engine/worker.js", document.baseURI), { type: "module" });
          worker.addEventListener("message", ({ data }) => resolve(data));
          worker.postMessage({ type: "hello", id: 1, protocol: 0, release: "0.0.0" });
        }),
    );
    assert.equal(reply.error.code, "version-mismatch");
    await context.close();
  });

  test("refuses model files that are not what the manifest says", async () => {
    const { context, page } = await openPage(browser);
    const manifest = {
      format: 1,
      name: "forged",
      version: "1",
      components: { unet: { files: [{ path: "unet/config.json", bytes: 2, sha256: "0".repeat(64) }] } },
    };
    await page.route("**/models/**", (route) =>
      route.fulfill(route.request().url().endsWith("manifest.json") ? { json: manifest } : { body: "{}" }),
    );
    await page.goto(server.url);
    const open = (/** @type {any} */ client) => client.open({ model: "models/forged/", backend: "cpu" });
    assert.equal((await withClient(page, open)).error.code, "file-corrupt");
    manifest.components.unet.files[0].path = "../../secret";
    assert.equal((await withClient(page, open)).error.code, "manifest");
    await context.close();
  });

  test("answers questions that it cannot carry out with an error", async () => {
    const { context, page } = await openPage(browser);
    await page.route("**/models/**", () => {});
    await page.goto(server.url);
    const render = await withClient(page, (client) => client.render({ seed: 1, style: "cubist", size: 64 }));
    assert.equal(render.error.code, "style-unknown");
    const generate = await withClient(page, (client) => client.generate({ people: [], prompt: "a portrait" }));
    assert.equal(generate.error.code, "model-not-open");
    await context.close();
  });
});

/**
 * One picture through the client: its PNG as base64 text, and the phases it went through.
 * @param {any} client
 * @param {{ backend: string, seed: number, steps: number }} options
 */
async function makeOne(client, { backend, seed, steps }) {
  const opened = await client.open({ model: "models/mini/", backend });
  const photo = await client.render({ seed: 3, style: "photo", size: 192 });
  const style = await client.render({ seed: 101, style: "watercolor", size: 192 });
  /** @type {any[]} */
  const progress = [];
  const request = { people: [{ identities: [{ photos: [photo] }] }], style, alpha: 1, seed, steps };
  const [picture] = await client.generate(request, { onProgress: (/** @type {any} */ p) => progress.push(p) });
  const bitmap = await createImageBitmap(new Blob([picture.png]));
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const text = new TextDecoder("latin1").decode(picture.png.subarray(0, 2000));
  return {
    backend: opened.choice.backend,
    phases: [...new Set(progress.map((p) => p.phase))],
    denoised: progress.filter((p) => p.phase === "denoise").at(-1)?.step,
    seed: picture.seed,
    signed: text.includes("facestudio"),
    pixels: [...data].filter((_, i) => i % 4 !== 3),
  };
}

/** @param {number[]} a @param {number[]} b */
function meanDifference(a, b) {
  return a.reduce((sum, value, i) => sum + Math.abs(value - b[i]), 0) / a.length;
}

describe("generation", () => {
  test("gives the same picture for a seed, another for another, and asks the network for nothing", async () => {
    const { context, page, errors, requests } = await openPage(browser);
    await page.goto(server.url);
    await waitForSamples(page);
    const one = await withClient(page, makeOne, { backend: "cpu", seed: 7, steps: 4 });
    assert.equal(one.error, undefined);
    assert.equal(one.value.backend, "cpu");
    assert.deepEqual(one.value.phases, ["encode", "denoise", "decode"]);
    assert.equal(one.value.denoised, 4);
    assert.equal(one.value.seed, 7);
    assert.ok(one.value.signed);
    assert.ok(new Set(one.value.pixels).size > 16, "the picture is not blank");
    const again = await withClient(page, makeOne, { backend: "cpu", seed: 7, steps: 4 });
    assert.deepEqual(again.value.pixels, one.value.pixels);
    const other = await withClient(page, makeOne, { backend: "cpu", seed: 8, steps: 4 });
    assert.ok(meanDifference(other.value.pixels, one.value.pixels) > 1);

    // The element's own engine: after its model is open, a picture costs no request.
    await page.locator("#engine[data-backend]").waitFor({ timeout: 120_000 });
    requests.length = 0;
    await page.locator("#advanced summary").click();
    await page.locator("#steps").fill("4");
    await page.locator('#style [data-key="style-1"]').click();
    await page.locator("#generate").click();
    await page.locator("#finished").waitFor({ timeout: 120_000 });
    assert.deepEqual(
      requests.filter((url) => url.startsWith("http")),
      [],
    );
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("stops within a step when it is cancelled, and can start again", async () => {
    const { context, page } = await openPage(browser);
    await page.goto(server.url);
    await page.locator("#engine[data-backend]").waitFor({ timeout: 120_000 });
    await page.locator("#advanced summary").click();
    await page.locator("#steps").fill("50");
    await page.locator('#style [data-key="style-1"]').click();
    await page.locator("#generate").click();
    await page.locator("#doing", { hasText: /Drawing: step ([2-9]|\d\d) of 50/ }).waitFor({ timeout: 120_000 });
    await page.locator("#cancel").click();
    await page.locator("#generate:enabled").waitFor({ timeout: 10_000 });
    assert.equal(await page.locator("#error").isVisible(), false);
    assert.equal(await page.locator("#finished").isVisible(), false);
    await page.locator("#steps").fill("2");
    await page.locator("#generate").click();
    await page.locator("#finished").waitFor({ timeout: 120_000 });
    await context.close();
  });

  test("gives on WebGPU nearly the CPU's picture", async () => {
    const { context, page, errors } = await openPage(browser);
    await page.goto(server.url);
    await waitForSamples(page);
    const cpu = await withClient(page, makeOne, { backend: "cpu", seed: 7, steps: 2 });
    const gpu = await withClient(page, makeOne, { backend: "webgpu", seed: 7, steps: 2 });
    assert.equal(gpu.error, undefined);
    assert.equal(gpu.value.backend, "webgpu");
    // 8-bit pixels after two steps: rounding differs, the picture does not.
    assert.ok(meanDifference(cpu.value.pixels, gpu.value.pixels) < 2);
    // Broken shaders are only told to the console.
    assert.deepEqual(errors, []);
    await context.close();
  });
});
