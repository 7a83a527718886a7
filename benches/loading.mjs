/**
 * What opening a model and making a portrait cost in the browser, in time and memory:
 * `node benches/loading.mjs MODELS [webgpu] [STEPS] [MODEL] [SIDE] [PORTRAITS]`; with THREADS=1 the CPU backend has one thread.
 *
 * MODELS is a folder that holds the model folder MODEL (`mini` if absent); `cargo run --example tiny-model -- MODELS/mini 896`
 * makes one of more than 500 MB, `full_size.py` one of full size. Times are of this machine, with a local server. Memory is the
 * peak of the renderer's process, which holds wasm's memory and JavaScript's together, and of the GPU's, which holds the buffers
 * where the GPU is emulated (VmHWM, Linux only); wasm's own never shrinks. A portrait is of one photo, in one style where the
 * model reads any, STEPS guided steps (25 if absent, none if 0), SIDE pixels square (the model's own if absent), made PORTRAITS
 * times (3 if absent), since the first one may compile; its times are without the model's opening.
 *
 * With DRY=1, on WebGPU, memory alone is measured: once encoders are done, shaders run on no workgroups. Everything is
 * allocated, bound and cleared as ever, so that a large picture's peaks take minutes where SwiftShader would take hours.
 * `buffers` are the bytes of all GPU buffers that the page holds at once, at their peak.
 */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { chromium } from "playwright-core";

import { EXECUTABLE, FLAGS, startServer } from "../tests/browser/harness.mjs";

const [models = "models", backend = "cpu", steps = "25", model = "mini", side = "", portraits = "3"] = process.argv.slice(2);
const server = await startServer(["--models", models]);
const isolation = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
const headers = process.env.THREADS === "1" ? {} : isolation;
// A profile on the disk: a private window would hold the stored files in memory.
const profile = mkdtempSync(join(tmpdir(), "facestudio-profile-"));
const context = await chromium.launchPersistentContext(profile, { executablePath: EXECUTABLE, args: FLAGS, headless: true });

/** What runs in the worker before its own script. */
function counting(/** @type {boolean} */ dry) {
  const all = /** @type {any} */ (globalThis);
  let skip = false;
  let live = 0;
  all.mostBuffers = 0;
  const gone = new FinalizationRegistry((/** @type {{ size: number }} */ buffer) => {
    live -= buffer.size;
    buffer.size = 0;
  });
  const create = all.GPUDevice.prototype.createBuffer;
  all.GPUDevice.prototype.createBuffer = function (/** @type {{ size: number }} */ descriptor) {
    const buffer = create.call(this, descriptor);
    const held = { size: descriptor.size };
    live += held.size;
    all.mostBuffers = Math.max(all.mostBuffers, live);
    gone.register(buffer, held);
    const destroy = buffer.destroy;
    buffer.destroy = () => {
      live -= held.size;
      held.size = 0;
      destroy.call(buffer);
    };
    return buffer;
  };
  const dispatch = all.GPUComputePassEncoder.prototype.dispatchWorkgroups;
  all.GPUComputePassEncoder.prototype.dispatchWorkgroups = function (/** @type {number[]} */ ...groups) {
    dispatch.call(this, ...(dry && skip ? [0, 0, 0] : groups));
  };
  const post = all.postMessage;
  all.postMessage = (/** @type {any} */ message, /** @type {any} */ ...more) => {
    const progress = message?.progress ?? message;
    if (progress?.phase) {
      skip =
        progress.phase === "denoise" || progress.phase === "decode" || (progress.phase === "encode" && progress.step === progress.steps);
    }
    post.call(all, message, ...more);
  };
}

/** Largest peak among the browser's processes of a type, in MiB. @param {string} kind */
async function peak(kind) {
  const session = await /** @type {any} */ (context.browser()).newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  await session.detach();
  const peaks = processInfo
    .filter((/** @type {any} */ { type }) => type === kind)
    .map((/** @type {any} */ { id }) => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${id}/status`, "utf8"))?.[1]));
  return Math.round(Math.max(...peaks) / 1024);
}

/** @param {string} name */
async function visit(name) {
  const page = await context.newPage();
  await page.route("**/blank.html", (route) =>
    route.fulfill({ headers, contentType: "text/html", body: "<!doctype html><title>blank</title>" }),
  );
  await page.route("**/engine/worker.js", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: `(${counting})(${process.env.DRY === "1"});\n${await response.text()}` });
  });
  await page.goto(`${server.url}blank.html`);
  const times = await page.evaluate(
    async ({ backend, steps, model, side, count }) => {
      const { EngineClient } = await import(new URL("/engine/client.js", location.href).href);
      const begin = performance.now();
      const since = () => Math.round(performance.now() - begin);
      const client = new EngineClient();
      await client.render({ seed: 1, style: "photo", size: 64 });
      const engine = since();
      /** @type {Record<string, number>} */
      const phases = {};
      const onProgress = (/** @type {any} */ { phase }) => (phases[phase] ??= since());
      const opened = await client.open({ model: `/models/${model}/`, backend, onProgress });
      const ready = since();
      const { words, styles } = opened.abilities;
      const size = side ? { width: side, height: side } : {};
      const photo = await client.render({ seed: 3, style: "photo", size: 256 });
      const person = { identities: [{ photos: [photo] }] };
      const subject = words ? { people: [], prompt: "a smiling man", alpha: 0 } : { people: [person] };
      await client.generate({ ...subject, ...size, seed: 1, steps: 1 });
      const picture = since();
      const style = styles ? { style: await client.render({ seed: 5, style: "watercolor", size: 256 }) } : {};
      const portraits = [];
      for (let i = 0; i < count && steps > 0; i++) {
        const start = performance.now();
        await client.generate({ people: [person], ...style, ...size, seed: i, steps });
        portraits.push(Math.round(performance.now() - start));
      }
      const { bytes, fetched, choice } = opened;
      return { threads: choice.threads, engine, ...phases, ready, picture, portraits, bytes, fetched };
    },
    { backend, steps: Number(steps), model, side: Number(side), count: Number(portraits) },
  );
  const wasm = await page.workers()[0].evaluate(async (threads) => {
    const { default: init } = await import(new URL(`../wasm${threads > 1 ? "-threads" : ""}/facestudio.js`, location.href).href);
    return (await init()).memory.buffer.byteLength / 2 ** 20;
  }, times.threads);
  const buffers = await page.workers()[0].evaluate(() => Math.round(/** @type {any} */ (globalThis).mostBuffers / 2 ** 20));
  const MiB = { wasm, buffers, renderer: await peak("renderer"), gpu: await peak("GPU") };
  console.log(JSON.stringify({ visit: name, model, backend, milliseconds: times, MiB }));
  await page.close();
}

try {
  await visit("cold");
  await visit("warm");
} finally {
  await context.close();
  server.stop();
  rmSync(profile, { recursive: true, force: true });
}
