/** The CPU backend on all processors, where the page is isolated from other origins. */

import assert from "node:assert/strict";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { ROOT, openPage, startBrowser, startServer, tinyModel } from "./harness.mjs";

/** @type {string} */
let models;
/** A page that is isolated from other origins, and one that is not. @type {Awaited<ReturnType<typeof startServer>>[]} */
let servers;
/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  models = tinyModel();
  servers = await Promise.all([[], ["--not-isolated"]].map((options) => startServer(["--models", models, ...options])));
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
  servers?.forEach((server) => server.stop());
});

/**
 * What the engine chose, and a picture by it; or why there is none.
 * @param {import("playwright-core").Page} page
 * @param {string} [backend]
 */
const draw = (page, backend = "cpu") =>
  page.evaluate(async (backend) => {
    const { EngineClient } = await import(new URL("/engine/client.js", location.href).href);
    const client = new EngineClient();
    try {
      const sample = await client.render({ seed: 3, style: "photo", size: 128 });
      const { choice } = await client.open({ model: "/models/mini/", backend });
      const people = [{ identities: [{ photos: [sample] }] }];
      const [{ png }] = await client.generate({ people, prompt: "a man", alpha: 0, seed: 7, steps: 3 });
      return { threads: choice.threads, png: Array.from(png).join() };
    } catch (error) {
      const { code, message } = /** @type {any} */ (error);
      return { code, message };
    } finally {
      client.close();
    }
  }, backend);

test("an isolated page computes on all processors, another on one, and both make the same picture", async () => {
  const made = [];
  for (const server of servers) {
    // The service worker fetches everything.
    const { context, page, errors, requests } = await openPage(browser, { serviceWorkers: "block" });
    await page.goto(server.url);
    const processors = await page.evaluate(() => navigator.hardwareConcurrency);
    const drawn = await draw(page);
    const modules = requests.filter((url) => url.endsWith(".wasm")).map((url) => new URL(url).pathname);
    made.push({ ...drawn, modules, processors });
    assert.deepEqual(errors, []);
    await context.close();
  }
  const [isolated, shared] = made;
  assert.ok(isolated.processors > 1, "this test needs two processors");
  assert.equal(isolated.threads, Math.min(isolated.processors, 8));
  assert.equal(shared.threads, 1);
  assert.deepEqual(new Set(isolated.modules), new Set(["/wasm-threads/facestudio_bg.wasm"]));
  assert.deepEqual(new Set(shared.modules), new Set(["/wasm/facestudio_bg.wasm"]));
  assert.equal(isolated.png, shared.png);
});

test("a thread that traps ends the picture with its reason, and the next one is drawn by a fresh worker", async () => {
  const { context, page } = await openPage(browser);
  let broken = true;
  await context.route("**/wasm-threads/facestudio.js", async (route) => {
    const response = await route.fetch();
    const text = await response.text();
    const name = /([\w$]+) as run_thread|function (run_thread)\b/.exec(text)?.slice(1).find(Boolean);
    assert.ok(name, "run_thread is exported");
    const trap = `function ${name}(){throw new WebAssembly.RuntimeError("made to trap")}function unused(`;
    await route.fulfill({ response, body: broken ? text.replace(`function ${name}(`, trap) : text });
  });
  await page.goto(servers[0].url);
  const failed = await draw(page);
  assert.equal(failed.code, "engine-crashed");
  assert.match(failed.message, /made to trap/);
  broken = false;
  assert.ok((await draw(page)).png);
  await context.close();
});

test("where a thread cannot start one computes, and a notice says why", async () => {
  const root = mkdtempSync(join(tmpdir(), "facestudio-"));
  cpSync(`${ROOT}pkg`, root, { recursive: true, filter: (path) => !path.endsWith("thread.js") });
  const server = await startServer(["--root", root, "--models", models]);
  const { context, page } = await openPage(browser, { serviceWorkers: "block" });
  await page.goto(server.url);
  const opened = await page.evaluate(async () => {
    const { EngineClient } = await import(new URL("engine/client.js", location.href).href);
    const client = new EngineClient();
    const { choice, notices } = await client.open({ model: "models/mini/", backend: "cpu" });
    const pictures = await client.generate({ people: [], prompt: "a man", alpha: 0, seed: 7, steps: 1 });
    client.close();
    return { threads: choice.threads, codes: notices.map((/** @type {any} */ { code }) => code), pictures: pictures.length };
  });
  assert.deepEqual(opened, { threads: 1, codes: ["threads-missing"], pictures: 1 });
  await context.close();
  server.stop();
  rmSync(root, { recursive: true });
});

test("a page that asked for the CPU can ask for WebGPU next, which is another module", async () => {
  const { context, page, errors } = await openPage(browser);
  await page.goto(servers[0].url);
  const seen = await page.evaluate(async () => {
    const { EngineClient } = await import(new URL("/engine/client.js", location.href).href);
    const client = new EngineClient();
    const made = [];
    for (const backend of ["cpu", "webgpu", "cpu"]) {
      const { choice } = await client.open({ model: "/models/mini/", backend });
      const [{ png }] = await client.generate({ people: [], prompt: "a man", alpha: 0, seed: 7, steps: 1 });
      made.push({ backend: choice.backend, several: choice.threads > 1, drawn: png.length > 0 });
    }
    client.close();
    return made;
  });
  assert.deepEqual(seen, [
    { backend: "cpu", several: true, drawn: true },
    { backend: "webgpu", several: false, drawn: true },
    { backend: "cpu", several: true, drawn: true },
  ]);
  assert.deepEqual(errors, []);
  await context.close();
});

test("where the host does not isolate the page, its service worker does from the second visit on", async () => {
  const { context, page, errors } = await openPage(browser);
  await page.goto(servers[1].url);
  assert.equal((await draw(page)).threads, 1);
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.reload();
  assert.ok((await draw(page)).threads > 1);
  assert.deepEqual(errors, []);
  await context.close();
});
