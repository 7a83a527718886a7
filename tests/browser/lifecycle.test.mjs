/** One picture at a time, cancelled within a step; and what happens when worker, device or memory give out. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";

import { call as callIn, draw, open, openClient, request, until } from "./client.mjs";
import { setUp } from "./harness.mjs";

const { models, server, browser } = await setUp();

/**
 * Starts a picture of very many steps, and returns when it is at its second.
 * @param {import("playwright-core").Page} page
 * @param {number} [steps]
 */
async function startLong(page, steps = 1000) {
  const { error } = await callIn(
    page,
    (client, request) => {
      const all = /** @type {any} */ (globalThis);
      all.step = 0;
      all.stop = new AbortController();
      const onProgress = (/** @type {any} */ { phase, step }) => {
        all.step = phase === "denoise" ? step : all.step;
      };
      all.long = client.generate(request, { onProgress, signal: all.stop.signal });
      all.long.catch(() => {});
    },
    request({ steps }),
  );
  assert.equal(error, undefined);
  await until(() => page.evaluate(() => /** @type {any} */ (globalThis).step >= 2));
}

const long = () => /** @type {any} */ (globalThis).long;

/** Bytes of wasm's memory in a page's worker. @param {import("playwright-core").Page} page */
const wasmBytes = (page) =>
  page.workers()[0].evaluate(async () => {
    const { default: init } = await import(new URL("../wasm/facestudio.js", location.href).href);
    return (await init()).memory.buffer.byteLength;
  });

test("an error keeps where it happened", async () => {
  const { context, page } = await openClient(browser, server.url);
  const stack = await page.evaluate(() =>
    /** @type {any} */ (globalThis).client.faces(new Uint8Array(4)).catch((/** @type {Error} */ error) => error.stack),
  );
  assert.match(stack, /engine\/worker\.js/);
  await context.close();
});

test("questions are answered as the methods that ask them are", async () => {
  const { context, call, errors } = await openClient(browser, server.url);
  const { value, error } = await call(async (client) => {
    const sample = { seed: 3, style: "photo", size: 32 };
    const png = await client.ask({ type: "render", ...sample });
    const stop = new AbortController();
    stop.abort();
    return {
      same: png.join() === (await client.render(sample)).join(),
      size: await client.ask({ type: "inspect", image: png }),
      choices: Object.entries(await client.ask({ type: "face_maker" }))
        .filter(([, list]) => list.length > 4)
        .map(([name]) => name),
      checked: (await client.ask({ type: "check", model: "/models/mini/", backend: "cpu" })).model,
      stopped: await client.ask({ type: "stored" }, { signal: stop.signal }).catch((/** @type {any} */ error) => error.name),
      // Fields that it has not are not handed on.
      stored: Array.isArray((await client.ask({ type: "stored", more: () => 1 })).models),
    };
  });
  assert.equal(error, undefined);
  assert.deepEqual(value, {
    same: true,
    size: { width: 32, height: 32 },
    choices: ["hair_styles", "hair_colors", "beards", "glasses", "styles", "backgrounds"],
    checked: "tiny",
    stopped: "AbortError",
    stored: true,
  });
  assert.deepEqual(errors, []);
  await context.close();
});

test("a model says itself that it knows drawn people only", async () => {
  const { context, call } = await openClient(browser, server.url);
  const text = readFileSync(`${models}/mini/manifest.json`, "utf8");
  const drawnOnly = async (/** @type {object} */ changes) => {
    server.fault = (path) => (path.endsWith("manifest.json") ? { body: JSON.stringify({ ...JSON.parse(text), ...changes }) } : undefined);
    await call((client) => client.unload());
    return (await call(open)).value?.abilities.drawn_only;
  };
  assert.equal(await drawnOnly({}), false);
  // Neither its name nor its family says so.
  assert.equal(await drawnOnly({ name: "mini", family: "mini" }), false);
  assert.equal(await drawnOnly({ people: "photographed" }), false);
  assert.equal(await drawnOnly({ people: "drawn" }), true);
  await context.close();
});

describe("one picture at a time", () => {
  test("an abort stops within a step, and the next picture is what it would have been", async () => {
    const { context, page, call, errors } = await openClient(browser, server.url);
    await call(open);
    const before = await call(draw, request());
    await startLong(page);
    const stopped = await call(async () => {
      const all = /** @type {any} */ (globalThis);
      const at = all.step;
      all.stop.abort();
      const outcome = await all.long.catch((/** @type {any} */ error) => error.name);
      return { outcome, steps: all.step - at };
    });
    assert.equal(stopped.value?.outcome, "AbortError");
    // The one that runs, and one that a message of progress may still be on its way for.
    assert.ok(stopped.value.steps <= 2, `${stopped.value.steps} more steps`);
    assert.deepEqual(await call(draw, request()), before);
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("what a cancelled request held is freed", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    await call(open);
    // A picture of 2048 pixels a side, decoded to 12 MB and more, in each request.
    const start = async () => {
      const { error } = await call(
        async (client, request) => {
          const canvas = new OffscreenCanvas(2048, 2048);
          canvas.getContext("2d")?.fillRect(0, 0, 100, 100);
          const style = new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
          const stop = new AbortController();
          const onProgress = (/** @type {any} */ { phase }) => phase === "denoise" && stop.abort();
          await client.generate({ ...request, style, alpha: 0.5 }, { onProgress, signal: stop.signal });
        },
        request({ steps: 1000 }),
      );
      assert.equal(error?.code, "AbortError");
    };
    await start();
    await start();
    const settled = await wasmBytes(page);
    for (let i = 0; i < 5; i += 1) {
      await start();
    }
    assert.equal(await wasmBytes(page), settled);
    await context.close();
  });

  test("the latest wins", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    await call(open);
    const expected = await call(draw, request());
    await startLong(page);
    const outcome = await call(async (client, request) => {
      const second = client.generate({ ...request, steps: 1000 });
      const third = client.generate(request);
      const codes = await Promise.all(
        [/** @type {any} */ (globalThis).long, second].map((made) => made.catch((/** @type {any} */ error) => error.code)),
      );
      return { codes, hash: await /** @type {any} */ (globalThis).hash((await third)[0].png) };
    }, request());
    assert.deepEqual(outcome.value, { codes: ["cancelled", "cancelled"], hash: expected.value });
    await context.close();
  });

  test("a picture costs no request once the model is open", async () => {
    const { context, call, requests, errors } = await openClient(browser, server.url);
    await call(open);
    const [before, seen] = [server.log.length, requests.length];
    assert.equal((await call(draw, request())).error, undefined);
    assert.equal((await call((client) => client.render({ seed: 1, style: "photo", size: 64 }).then(() => 1))).value, 1);
    assert.equal(server.log.length, before);
    assert.deepEqual(requests.slice(seen), []);
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("a page that is frozen meanwhile finishes its picture", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    await call(open);
    const expected = await call(draw, request({ steps: 300 }));
    await startLong(page, 300);
    const session = await context.newCDPSession(page);
    await session.send("Page.setWebLifecycleState", { state: "frozen" });
    await new Promise((resolve) => setTimeout(resolve, 500));
    await session.send("Page.setWebLifecycleState", { state: "active" });
    const made = await call(async () => /** @type {any} */ (globalThis).hash((await /** @type {any} */ (globalThis).long)[0].png));
    assert.deepEqual(made, expected);
    await context.close();
  });
});

describe("an engine that two parts of a page share", () => {
  test("is one worker and one model, until both have let go", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    const before = server.log.length;
    const first = await call(async () => {
      const all = /** @type {any} */ (globalThis);
      const model = { model: "/models/mini/", backend: "cpu" };
      const [a, b] = [all.EngineClient.shared(model), all.EngineClient.shared(model)];
      const other = all.EngineClient.shared({ ...model, model: "/models/other/" });
      if (a === other || a === all.EngineClient.shared({ ...model, backend: "webgpu" })) {
        throw new Error("another model and another backend need engines of their own");
      }
      const opened = await Promise.all([a.open(model), b.open(model)]);
      all.a = a;
      return { same: a === b, equal: opened[0] === opened[1] };
    });
    assert.deepEqual(first.value, { same: true, equal: true });
    assert.equal(server.log.slice(before).filter(({ path }) => path.endsWith("unet/model.safetensors")).length, 1);
    assert.equal(page.workers().length, 1);
    // One of two that wait goes away: the other still gets its model.
    const left = await call(async () => {
      const { a } = /** @type {any} */ (globalThis);
      const stop = new AbortController();
      await a.unload();
      const model = { model: "/models/mini/", backend: "cpu" };
      const [gone, stays] = [a.open({ ...model, signal: stop.signal }), a.open(model)];
      stop.abort();
      return [await gone.catch((/** @type {any} */ error) => error.name), (await stays).model];
    });
    assert.deepEqual(left.value, ["AbortError", "tiny"]);
    const released = await call(async (_client, request) => {
      const { a } = /** @type {any} */ (globalThis);
      a.release();
      return (await a.generate(request)).length;
    }, request());
    assert.equal(released.value, 1);
    await call(() => /** @type {any} */ (globalThis).a.release());
    await until(() => page.workers().length === 0);
    await context.close();
  });

  test("is given back by unload, and starts again when it is asked", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    await call(open);
    await call((client) => client.unload());
    await until(() => page.workers().length === 0);
    assert.equal((await call(draw, request())).error?.code, "model-not-open");
    assert.equal((await call(open)).value?.fetched, 0);
    assert.equal((await call(draw, request())).error, undefined);
    await context.close();
  });
});

describe("recovery", () => {
  test("a worker that crashes is replaced, and the next picture opens the model from storage", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    await call(open);
    const expected = await call(draw, request());
    await startLong(page);
    await page.workers()[0].evaluate(() => {
      setTimeout(() => {
        throw new Error("a crash for the test");
      });
    });
    const { error } = await call(long);
    assert.deepEqual([error?.code, error?.fault], ["engine-crashed", "internal"]);
    assert.match(error?.message ?? "", /a crash for the test/);
    assert.notEqual(error?.remedy, "");
    server.log.length = 0;
    assert.deepEqual(await call(draw, request()), expected);
    assert.deepEqual(
      server.log.filter(({ path }) => path.startsWith("/models/")).map(({ path }) => path),
      ["/models/mini/manifest.json"],
    );
    await context.close();
  });

  test("a full memory is called that, and the next picture is made", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    await call(open);
    const expected = await call(draw, request());
    await page.workers()[0].evaluate(async () => {
      const { default: init } = await import(new URL("../wasm/facestudio.js", location.href).href);
      const { memory } = await init();
      // Everything that 32 bits can address, taken page by page from the top: nothing is left to allocate from.
      for (let pages = 32768; pages > 0; pages >>= 1) {
        try {
          memory.grow(pages);
          pages <<= 1;
        } catch {
          // Half as many, then.
        }
      }
    });
    const large = await call((client, request) => client.generate(request), request({ width: 512, height: 512 }));
    assert.deepEqual([large.error?.code, large.error?.fault], ["out-of-memory", "device"]);
    assert.match(large.error?.message ?? "", /no room for \d+ MiB/);
    assert.deepEqual(await call(draw, request()), expected);
    await context.close();
  });

  test("a graphics device that is lost is called that, and the next picture is made on a new one", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    await call((client) => client.stored());
    const watch = () =>
      page.workers()[0].evaluate(() => {
        const adapter = /** @type {any} */ (globalThis).GPUAdapter.prototype;
        const { requestDevice } = adapter;
        adapter.requestDevice = async function (/** @type {any[]} */ ...options) {
          const device = await requestDevice.apply(this, options);
          /** @type {any} */ (globalThis).device = device;
          return device;
        };
      });
    await watch();
    const opened = await call((client) => client.open({ model: "/models/mini/", backend: "webgpu" }));
    assert.equal(opened.value?.choice.backend, "webgpu");
    await startLong(page);
    await page.workers()[0].evaluate(() => /** @type {any} */ (globalThis).device.destroy());
    const { error } = await call(long);
    assert.deepEqual([error?.code, error?.fault], ["device-lost", "device"]);
    assert.match(error?.remedy ?? "", /again/);
    assert.equal((await call(draw, request({ steps: 2 }))).error, undefined);
    await context.close();
  });
});
