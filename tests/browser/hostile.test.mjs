/** What a page, a server, a storage and a history may hand over: it is refused by name, and nothing breaks. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { attach, call as callIn, draw, open, openClient, request, until } from "./client.mjs";
import { openPage, setUp } from "./harness.mjs";

const { server, browser } = await setUp();

/**
 * Calls methods of an object in the page with everything that they do not take: what each call came to, where that is not a
 * `FaceStudioError` about the input.
 * @param {import("playwright-core").Page} page
 * @param {string} make an expression for the object
 * @param {Record<string, string[]>} calls expressions for the arguments, by method
 */
const misuse = (page, make, calls) =>
  page.evaluate(
    async ({ make, calls }) => {
      const { FaceStudioError } = await import(new URL("/engine/protocol.js", location.href).href);
      const { FaceStudio } = await import(new URL("/index.js", location.href).href);
      const values = new Function("FaceStudio", "EngineClient", `return (${make})`);
      const object = await values(FaceStudio, /** @type {any} */ (globalThis).EngineClient);
      /** @type {string[]} */
      const wrong = [];
      for (const [method, lists] of Object.entries(calls)) {
        for (const list of lists) {
          const said = `${method}(${list})`;
          try {
            const given = new Function(`return [${list}]`)();
            const returned = object[method](...given);
            if (!(returned instanceof Promise)) {
              wrong.push(`${said} is no promise`);
            }
            await returned;
            wrong.push(`${said} went through`);
          } catch (error) {
            const { code, fault, message, remedy } = /** @type {any} */ (error);
            if (
              !(error instanceof FaceStudioError) ||
              fault !== "input" ||
              !message ||
              !remedy ||
              /bug|unexpected/.test(`${code} ${remedy}`)
            ) {
              wrong.push(`${said}: ${fault} ${code} ${message}`);
            }
          }
        }
      }
      return wrong;
    },
    { make, calls },
  );

const NO_OBJECT = ["null", "5", "'x'", "[]", "true", "() => 1"];
const NO_OPTIONS = [...NO_OBJECT, "{ signal: 'x' }", "{ signal: {} }", "{ onProgress: 5 }"];
const NO_BYTES = ["", "null", "5", "'x'", "[1, 2]", "{}", "new Uint16Array(2)"];
const NO_COUNT = ["", "null", "'1'", "-1", "1.5", "NaN", "1e12", "{}", "1n"];
const NO_URL = ["null", "5", "{}", "[]", "'http://['", "'data:text/plain,x'", "'mailto:x@y'", "Symbol('x')"];
const NO_REQUEST = [
  ...["", ...NO_OBJECT.filter((value) => !value.includes("=>"))],
  ...[
    "people: null",
    "people: 'x'",
    "people: [null]",
    "people: [5]",
    "people: [{}]",
    "people: [{ identities: null }]",
    "people: [{ identities: [{}] }]",
    "people: [{ identities: [{ photos: ['x'] }] }]",
    "people: [{ identities: [{ photos: [null] }] }]",
    "people: [{ identities: [{ photos: [new Uint8Array(9)] }] }]",
    "people: [{ identities: [{ photos: [{}] }] }]",
    "people: [{ identities: [{ photos: [{ image: 5 }] }] }]",
    "people: [{ identities: [{ photos: [{ image: new Uint8Array(9), extra: 1 }] }] }]",
    "prompt: 5",
    "prompt: {}",
    "prompt: ['a']",
    "negative_prompt: 5",
    "alpha: 'x'",
    "alpha: NaN",
    "alpha: 2",
    "seed: -1",
    "seed: 1.5",
    "seed: 'x'",
    "seed: 2n ** 70n",
    "count: 1e12",
    "count: 'x'",
    "count: {}",
    "count: 2n ** 70n",
    "count: 0",
    "steps: 'x'",
    "steps: 0",
    "steps: 1e9",
    "guidance_scale: 'x'",
    "guidance_scale: Infinity",
    "sampler: 'fastest'",
    "sampler: 5",
    "width: 'x'",
    "width: -8",
    "width: 1e9",
    "height: NaN",
    "preview_every: 'x'",
    "preview_every: 0",
    "watermark: 'x'",
    "prompt_in_metadata: 'x'",
    "style: 'x'",
    "style: new Uint8Array(9)",
    "layout: 'x'",
    "layout: 5",
    "layout: { boxes: 'x' }",
    "layout: { masks: [null] }",
    "background: 'x'",
    "background: 'hold'",
    "background: { person: -1 }",
    "init: 'x'",
    "init: {}",
    "init: { image: 'x', strength: 1 }",
    "unknown: 1",
    "style: () => 1",
    "style: Symbol('x')",
    "style: document",
  ].map((field) => `{ people: [], prompt: 'a man', steps: 1, ${field} }`),
  "{ people: [], prompt: 'a man' }, 5",
  "{ people: [], prompt: 'a man' }, null",
  "{ people: [], prompt: 'a man' }, { signal: 'x' }",
  "{ people: [], prompt: 'a man' }, { onProgress: 'x' }",
];
const NO_PERSON = ["null", "5", "'x'", "{}", "{ identities: 5 }", "() => 1"].map((person) => `new Uint8Array(9), ${person}`);

describe("a page that hands over what no method takes", () => {
  test("is told by the engine's client", async () => {
    const { context, page, call, errors } = await openClient(browser, server.url);
    assert.equal((await call(open)).error, undefined);
    const model = "model: '/models/mini/'";
    const wrong = await misuse(page, "globalThis.client", {
      check: ["", ...NO_OPTIONS, ...NO_URL.map((url) => `{ model: ${url} }`), `{ ${model}, backend: 'tpu' }`, `{ ${model}, signal: 5 }`],
      open: [
        "",
        ...NO_OPTIONS,
        ...NO_URL.map((url) => `{ model: ${url} }`),
        ...["backend: 'tpu'", "backend: null", "precision: 'f64'", "precision: 16", "lean: 'x'", "signal: 5", "onProgress: 'x'"].map(
          (more) => `{ ${model}, ${more} }`,
        ),
      ],
      generate: NO_REQUEST,
      inspect: [...NO_BYTES, "new Uint8Array(9)"],
      faces: [...NO_BYTES, "new Uint8Array(9), 5", "new Uint8Array(9)"],
      similarity: [...NO_BYTES, ...NO_PERSON],
      render: [
        "",
        ...NO_OBJECT,
        ...NO_COUNT.filter(Boolean).map((seed) => `{ seed: ${seed}, style: 'photo', size: 32 }`),
        "{ seed: 1, style: 5, size: 32 }",
        "{ seed: 1, style: 'x', size: 32 }",
        "{ seed: 1, style: 'photo', size: 1e6 }",
        "{ seed: 1, style: 'photo' }",
      ],
      randomFace: NO_COUNT,
      drawFace: ["", "null, 32", "{}, 32", "5, 32", "() => 1, 32", ...NO_COUNT.filter(Boolean).map((size) => `{}, ${size}`)],
      forget: ["null", "5", "{}", "'http://['"],
      ask: [
        ...[
          "",
          ...NO_OBJECT,
          "{ type: 5 }",
          "{ type: 'weather' }",
          "{ type: 'constructor' }",
          "{ type: Symbol('x') }",
          "{ type: 'stored' }, 5",
        ],
        ...["hello", "open", "generate", "cancel"].map(
          (type) => `{ type: '${type}', request: { people: [] }, model: '/models/mini/', target: 1 }`,
        ),
        ...["check", "inspect", "render", "forget", "faces", "similarity", "random_face", "draw_face"].map((type) => `{ type: '${type}' }`),
        ...NO_BYTES.filter(Boolean).map((bytes) => `{ type: 'faces', image: ${bytes} }`),
      ],
    });
    assert.deepEqual(wrong, []);
    // After all that the engine is as before.
    assert.equal((await call(draw, request())).error, undefined);
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("is told by the studio, before a model is fetched for it", async () => {
    const { context, page, errors } = await openClient(browser, server.url);
    const make = "globalThis.studio ??= new FaceStudio({ model: '/models/mini/', backend: 'cpu' })";
    const early = NO_REQUEST.filter((list) => !list.startsWith("{ people: [], prompt: 'a man', steps: 1"));
    const wrong = await misuse(page, make, {
      load: NO_OPTIONS,
      check: NO_OPTIONS,
      generate: early,
      faces: [...NO_BYTES, "new Uint8Array(9), 5"],
      similarity: NO_BYTES,
      inspect: NO_BYTES,
      render: ["", "null", "5"],
      randomFace: NO_COUNT,
      drawFace: ["null, 'x'"],
    });
    assert.deepEqual(wrong, []);
    assert.deepEqual(
      server.log.filter(({ path }) => path.startsWith("/models/")),
      [],
    );
    assert.deepEqual(
      await misuse(page, make, { generate: [...NO_REQUEST, "() => null", "() => 5"], similarity: NO_PERSON, faces: ["new Uint8Array(9)"] }),
      [],
    );
    // What a request may leave out it may leave out.
    const made = await callIn(
      page,
      async () => (await /** @type {any} */ (globalThis).studio.generate({ prompt: "a man", steps: 1 })).length,
    );
    assert.equal(made.value, 1);
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("is told of a model and a backend that are none, and can use what needs neither", async () => {
    const { context, page, errors } = await openClient(browser, server.url);
    for (const options of [...NO_OBJECT, ...NO_URL.map((url) => `{ model: ${url} }`), "{ backend: 'tpu' }", "{ backend: null }"]) {
      const make = `globalThis.odd = new FaceStudio(${options})`;
      const wrong = await misuse(page, make, {
        load: [""],
        check: [""],
        generate: ["{ people: [], prompt: 'a man' }"],
        faces: ["new Uint8Array(1)"],
        similarity: ["new Uint8Array(1), { identities: [] }"],
      });
      assert.deepEqual(wrong, [], options);
      const drawn = await callIn(page, async () => {
        const { odd } = /** @type {any} */ (globalThis);
        const { length } = await odd.render({ seed: 1, style: "photo", size: 32 });
        odd.cancel();
        odd.close();
        return length > 0;
      });
      assert.equal(drawn.value, true, options);
    }
    assert.deepEqual(await callIn(page, (_client) => /** @type {any} */ (globalThis).EngineClient.shared(null)), {
      error: {
        code: "argument-type",
        fault: "input",
        message: "what shared is given is null, not an object",
        remedy: "the types are in engine/protocol.js and engine/client.js",
      },
    });
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("is told by the element, which shows it", async () => {
    for (const [attributes, code] of [
      [{ model: "http://[" }, "model-url"],
      [{ backend: "tpu" }, "backend-unknown"],
      [{ model: "data:,x" }, "model-url"],
    ]) {
      const { context, page, errors } = await openPage(browser);
      await page.goto(`${server.url}blank.html`);
      await page.evaluate(async (attributes) => {
        await import(new URL("/face-studio/face-studio.js", location.href).href);
        const element = document.createElement("face-studio");
        const all = /** @type {any} */ (globalThis);
        all.told = [];
        element.addEventListener("facestudio-error", (event) => all.told.push(/** @type {any} */ (event).detail.code));
        Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
        document.body.append(element);
        all.element = element;
      }, attributes);
      await until(() => page.evaluate((code) => /** @type {any} */ (globalThis).told.includes(code), code));
      assert.equal(await page.locator("face-studio #error-code").textContent(), code);
      const wrong = await misuse(page, "globalThis.element", {
        load: [""],
        generate: ["{ people: [], prompt: 'a man' }", "null", "5", "{}, 5"],
      });
      assert.deepEqual(wrong, []);
      assert.equal(await page.evaluate(() => typeof (/** @type {any} */ (globalThis).element.model)), "string");
      const loose = await misuse(page, "document.createElement('face-studio')", { load: [""], generate: ["{}"] });
      assert.deepEqual(loose, []);
      assert.deepEqual(errors, []);
      await context.close();
    }
  });
});

describe("a server with a hostile manifest", () => {
  test("gets a word for it, in check and in open, and the next model opens", async () => {
    const { context, call, errors } = await openClient(browser, server.url);
    const good = { format: 1, name: "n", version: "1", components: {} };
    const many = `{"format":1,"name":"n","version":"1","components":{${Array.from({ length: 200_000 }, (_, i) => `"c${i}":{"files":[]}`).join()}}}`;
    const texts = [
      ...[
        null,
        {},
        [],
        { ...good, files: {} },
        { ...good, components: null },
        { ...good, components: { unet: { files: {} } } },
        { ...good, name: {} },
        { ...good, version: 1 },
      ].map((value) => JSON.stringify(value)),
      many,
      "",
      "[".repeat(100_000),
      `{"format":1,"name":${"[".repeat(10_000)}${"]".repeat(10_000)},"version":"1","components":{}}`,
      " ".repeat(17 << 20),
    ];
    for (const body of texts) {
      server.fault = (path) => (path.endsWith("manifest.json") ? { body } : undefined);
      for (const method of ["check", "open"]) {
        const { error } = await call((client, method) => client[method]({ model: "/models/mini/", backend: "cpu" }), method);
        assert.equal(error?.fault, "weights", `${method} ${body.slice(0, 80)}: ${error?.code} ${error?.message}`);
        assert.match(error?.code ?? "", /^manifest(-format)?$/);
        assert.doesNotMatch(error?.remedy ?? "", /bug/);
      }
    }
    server.fault = () => undefined;
    assert.equal((await call(open)).error, undefined);
    assert.deepEqual(errors, []);
    await context.close();
  });
});

describe("a storage in which other things lie", () => {
  /** Puts files where folders belong, and folders where files do. @param {any} _client @param {string} kind */
  const litter = async (_client, kind) => {
    const holder = await navigator.storage.getDirectory();
    const put = async (/** @type {FileSystemDirectoryHandle} */ folder, /** @type {string} */ name) => {
      const stream = await (await folder.getFileHandle(name, { create: true })).createWritable();
      await stream.write("stray");
      await stream.close();
    };
    if (kind === "root") {
      await holder.removeEntry("facestudio-models", { recursive: true }).catch(() => {});
      return put(holder, "facestudio-models");
    }
    const root = await holder.getDirectoryHandle("facestudio-models", { create: true });
    const model = encodeURIComponent(new URL("/models/mini/", location.href).href);
    if (kind === "model") {
      await root.removeEntry(model, { recursive: true }).catch(() => {});
      return put(root, model);
    }
    for (const name of ["stray", "%E0%A4%A", "http%3A%2F%2F%5B", ".DS_Store"]) {
      await put(root, name);
      await root.getDirectoryHandle(`${name} folder`, { create: true });
    }
    const folder = await root.getDirectoryHandle(model, { create: true });
    await put(folder, "stray");
    await (await folder.getDirectoryHandle("stray folder", { create: true })).getDirectoryHandle("deeper", { create: true });
    if (kind === "folders") {
      for await (const [name, handle] of /** @type {any} */ (folder).entries()) {
        if (handle.kind === "file") {
          await folder.removeEntry(name);
          await (await folder.getDirectoryHandle(name, { create: true })).getDirectoryHandle("deeper", { create: true });
        }
      }
      await folder.removeEntry("manifest.json", { recursive: true }).catch(() => {});
      await folder.getDirectoryHandle("manifest.json", { create: true });
    } else {
      await put(folder, "manifest.json");
    }
  };

  for (const kind of ["root", "model", "files", "folders"]) {
    test(`lists, checks, opens, keeps and forgets all the same: ${kind}`, async () => {
      const { context, page, call, errors } = await openClient(browser, server.url);
      assert.equal((await call(open)).error, undefined);
      assert.equal((await call(litter, kind)).error, undefined);
      await attach(page, server.url);
      const listed = await call((client) => client.stored());
      assert.equal(listed.error, undefined);
      assert.ok(listed.value.models.length <= 1, JSON.stringify(listed.value));
      assert.equal((await call((client) => client.check({ model: "/models/mini/", backend: "cpu" }))).error, undefined);
      const opened = await call(open);
      assert.deepEqual([opened.error, opened.value?.notices], [undefined, []]);
      // It is whole again: the next visit fetches nothing.
      await attach(page, server.url);
      assert.deepEqual((await call(open)).value?.fetched, 0);
      assert.equal((await call((client) => client.stored())).value.models[0].name, "tiny");
      assert.equal((await call(litter, kind)).error, undefined);
      assert.equal((await call((client) => client.forget())).error, undefined);
      assert.deepEqual((await call((client) => client.stored())).value.models, []);
      assert.deepEqual(errors, []);
      await context.close();
    });
  }

  test("does without a server's manifest where the stored one is none", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    await call(open);
    await call(litter, "files");
    await attach(page, server.url);
    server.fault = (path) => (path.endsWith("manifest.json") ? { status: 503 } : undefined);
    assert.equal((await call(open)).error?.code, "model-missing");
    await context.close();
  });
});

describe("a history with broken records", () => {
  test("shows what can be shown, and says what is gone", async () => {
    const { context, page, errors } = await openPage(browser);
    await page.goto(`${server.url}blank.html`);
    await page.evaluate(async () => {
      localStorage.setItem("facestudio-history", "on");
      const opened = indexedDB.open("facestudio", 1);
      opened.onupgradeneeded = () => opened.result.createObjectStore("pictures", { keyPath: "id", autoIncrement: true });
      await new Promise((resolve) => (opened.onsuccess = resolve));
      const canvas = new OffscreenCanvas(8, 8);
      canvas.getContext("2d");
      const png = new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
      const store = opened.result.transaction("pictures", "readwrite").objectStore("pictures");
      const broken = [
        {},
        { png: null, settings: {} },
        { png: "x", settings: 5 },
        { png: new Uint8Array(), settings: {} },
        { id: "text", png, settings: {} },
      ];
      const odd = [
        { png },
        { png, settings: null },
        { png, settings: 5, time: "x" },
        { png, settings: { seed: {}, steps: "x", prompt: 5, alpha: NaN, sampler: "x" } },
      ];
      [...broken, ...odd].forEach((record) => store.add(record));
      await new Promise((resolve) => (store.transaction.oncomplete = resolve));
      opened.result.close();
    });
    const show = async (/** @type {number} */ count) => {
      await page.goto(`${server.url}blank.html`);
      await page.evaluate(async () => {
        const all = /** @type {any} */ (globalThis);
        all.told = [];
        await import(new URL("/face-studio/face-studio.js", location.href).href);
        const element = document.createElement("face-studio");
        element.addEventListener("facestudio-error", (event) => all.told.push(/** @type {any} */ (event).detail.code));
        element.setAttribute("model", "/models/mini/");
        document.body.append(element);
      });
      await page
        .locator("face-studio .result")
        .nth(count - 1)
        .waitFor();
      await until(async () => !/Starting/.test((await page.locator("face-studio #engine").textContent()) ?? ""));
      return page.evaluate(() => /** @type {any} */ (globalThis).told);
    };
    assert.deepEqual(await show(4), ["history-damaged"]);
    assert.equal(await page.locator("face-studio .result").count(), 4);
    // Each can be looked at, used again, and removed.
    await page.locator("face-studio .result .tile").first().click();
    await page.locator("face-studio #reuse").click();
    await page.locator("face-studio .result .over-tile").first().click();
    await until(async () => (await page.locator("face-studio .result").count()) === 3);
    // The broken ones are left as they are, and told of.
    assert.deepEqual(await show(3), ["history-damaged"]);
    assert.deepEqual(errors, []);
    await context.close();
  });
});
