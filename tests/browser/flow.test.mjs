/**
 * The whole flow on both backends, by every family: one person, mixing, two people, image-to-image, cancelling. On the tiny
 * models.
 */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { call as callIn, openClient, request } from "./client.mjs";
import { startFaultyServer } from "./faulty-server.mjs";
import { startBrowser, tinyModel } from "./harness.mjs";

/** @type {Awaited<ReturnType<typeof startFaultyServer>>} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  server = await startFaultyServer(tinyModel("segmenter", "arc2face"));
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
  server?.stop();
});

/** Opens a model, and leaves `picture` in the page: the pixels that a request with faces gives. */
const prepare = async (
  /** @type {any} */ client,
  /** @type {{ model: string, backend: string, lean?: boolean }} */ { model, backend, lean },
) => {
  const all = /** @type {any} */ (globalThis);
  const opened = await client.open({ model: `/models/${model}/`, backend, ...(lean ? { lean } : {}) });
  /** A bright spot of a colour on a dark ground: what the tiny model's detector takes for a face. */
  const face = async (/** @type {string} */ color) => {
    const canvas = new OffscreenCanvas(64, 64);
    const drawn = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
    drawn.fillRect(0, 0, 64, 64);
    drawn.fillStyle = color;
    drawn.arc(32, 32, 12, 0, 7);
    drawn.fill();
    return new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
  };
  /** Four fields of colour, parts of which the tiny segmenter takes for three people. */
  const fields = async () => {
    const canvas = new OffscreenCanvas(64, 64);
    const drawn = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
    for (const [i, color] of ["#000", "#00f", "#ff8", "#f00"].entries()) {
      drawn.fillStyle = color;
      drawn.fillRect((i % 2) * 32, i > 1 ? 32 : 0, 32, 32);
    }
    return new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
  };
  const faces = { fields: await fields(), white: await face("#fff"), yellow: await face("#ff8"), blue: await face("#9bf") };
  /** Names of faces in a request are replaced by their files. */
  const filled = (/** @type {any} */ value) =>
    typeof value === "string"
      ? (/** @type {any} */ (faces)[value] ?? value)
      : Array.isArray(value)
        ? value.map(filled)
        : value && typeof value === "object"
          ? Object.fromEntries(Object.entries(value).map(([key, part]) => [key, filled(part)]))
          : value;
  all.alike = (/** @type {string} */ picture, /** @type {any} */ someone) => client.similarity(filled(picture), filled(someone));
  all.make = async (/** @type {any} */ request, /** @type {any} */ options) => {
    const [made] = await client.generate(filled(request), options);
    const bitmap = await createImageBitmap(new Blob([made.png]));
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const drawn = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
    drawn.drawImage(bitmap, 0, 0);
    return Array.from(drawn.getImageData(0, 0, bitmap.width, bitmap.height).data.filter((_, i) => i % 4 < 3));
  };
  return opened.choice.backend;
};

const make = (/** @type {any} */ _, /** @type {any} */ request) => /** @type {any} */ (globalThis).make(request);

/** @param {...[string, number]} photos */
const person = (...photos) => ({ identities: photos.map(([photo, beta]) => ({ photos: [photo], beta })) });

const [white, yellow] = ["white", "yellow"].map((face) => person([face, 1]));
const styled = (/** @type {object} */ changes) => request({ style: "blue", alpha: 0.5, steps: 3, ...changes });
const halves = [0, 0.5].map((x) => ({ x, y: 0, width: 0.5, height: 1 }));

/** What users ask for. @type {Record<string, object>} */
const REQUESTS = {
  "one person": styled({ people: [white] }),
  "another person": styled({ people: [yellow] }),
  "a mix of two": styled({ people: [person(["white", 0.5], ["yellow", 0.5])] }),
  "two people in boxes": styled({ people: [white, yellow], layout: { boxes: halves } }),
  "the other two in the boxes": styled({ people: [yellow, white], layout: { boxes: halves } }),
  "a picture to start from": styled({ people: [white], init: { image: "blue", strength: 0.5 } }),
  "a held background": styled({
    people: [white],
    layout: { boxes: halves.slice(0, 1) },
    init: { image: "blue", strength: 1 },
    background: "hold",
  }),
};

const faces = (/** @type {object[]} */ ...people) => ({ people, seed: 7, steps: 3 });

/** What each family is asked for; Arc2Face draws from faces alone. @type {Record<string, Record<string, object>>} */
const FAMILIES = {
  mini: REQUESTS,
  // Adapters, with a segmenter.
  segmenter: {
    ...REQUESTS,
    "two people where a picture has them": styled({ people: [white, yellow], layout: { content: "fields" } }),
  },
  arc2face: {
    "one person": faces(white),
    "another person": faces(yellow),
    "a mix of two": faces(person(["white", 0.5], ["yellow", 0.5])),
    "two people in boxes": { ...faces(white, yellow), layout: { boxes: halves } },
  },
};

/** @param {number[]} a @param {number[]} b */
const difference = (a, b) => a.reduce((sum, value, i) => sum + Math.abs(value - b[i]), 0) / a.length;

/** Pictures of each family by backend. @type {Record<string, Record<string, Record<string, number[]>>>} */
const pictures = { cpu: {}, webgpu: {} };

for (const [backend, model] of ["cpu", "webgpu"].flatMap((b) => Object.keys(FAMILIES).map((f) => [b, f]))) {
  const asked = FAMILIES[model];
  describe(`the whole flow of ${model} on ${backend}`, () => {
    test("draws what is asked for, differs where the request does, and asks the network for nothing", async () => {
      const { context, call, errors, requests } = await openClient(browser, server.url);
      assert.deepEqual(await call(prepare, { model, backend }), { value: backend });
      requests.length = 0;
      const made = (pictures[backend][model] = /** @type {Record<string, number[]>} */ ({}));
      for (const [name, wanted] of Object.entries(asked)) {
        const { value, error } = await call(make, wanted);
        assert.equal(error, undefined, name);
        made[name] = value;
      }
      const names = Object.keys(made);
      for (const [i, a] of names.entries()) {
        for (const b of names.slice(i + 1)) {
          assert.notDeepEqual(made[a], made[b], `${a} and ${b}`);
        }
      }
      const { value: again } = await call(make, asked["two people in boxes"]);
      assert.deepEqual(again, made["two people in boxes"]);
      assert.deepEqual(
        requests.filter((url) => url.startsWith("http")),
        [],
      );
      assert.deepEqual(errors, []);
      await context.close();
    });

    test("stops at a step, and then draws as before", async () => {
      const { context, page, call, errors } = await openClient(browser, server.url);
      await call(prepare, { model, backend });
      const stopped = await callIn(
        page,
        async (_, wanted) => {
          const stop = new AbortController();
          let steps = 0;
          const onProgress = (/** @type {any} */ { phase, step }) => {
            steps = phase === "denoise" ? step : steps;
            if (steps >= 2) {
              stop.abort();
            }
          };
          const make = /** @type {any} */ (globalThis).make;
          const outcome = await make(wanted, { signal: stop.signal, onProgress }).catch((/** @type {any} */ error) => error.name);
          return { outcome, steps };
        },
        // On the CPU a small picture's step is over before the page's answer has come.
        { ...asked["one person"], steps: 500, ...(backend === "cpu" ? { width: 128, height: 128 } : {}) },
      );
      assert.equal(stopped.value?.outcome, "AbortError");
      assert.ok(stopped.value.steps <= 4, `${stopped.value.steps} steps`);
      assert.deepEqual((await call(make, asked["one person"])).value, pictures[backend][model]["one person"]);
      assert.deepEqual(errors, []);
      await context.close();
    });
  });
}

for (const model of Object.keys(FAMILIES)) {
  test(`${model} draws the same pictures when it is lean`, async () => {
    const { context, page, call, errors } = await openClient(browser, server.url);
    await call(prepare, { model, backend: "cpu", lean: true });
    await page.workers()[0].evaluate(() => {
      const all = /** @type {any} */ (globalThis);
      const handle = all.FileSystemSyncAccessHandle.prototype;
      const { read } = handle;
      all.reads = 0;
      handle.read = function (/** @type {any[]} */ ...options) {
        all.reads += 1;
        return read.apply(this, options);
      };
    });
    /** Whether the model's stored files were read since the last call. */
    const read = () =>
      page.workers()[0].evaluate(() => {
        const all = /** @type {any} */ (globalThis);
        const { reads } = all;
        all.reads = 0;
        return reads > 0;
      });
    const made = /** @type {Record<string, number[]>} */ (pictures.cpu[model]);
    // What makes guidance is read again for the second and the third, and not for the last.
    for (const [name, again] of /** @type {const} */ ([
      ["one person", false],
      ["another person", true],
      ["two people in boxes", true],
      ["two people in boxes", false],
    ])) {
      const { value, error } = await call(make, FAMILIES[model][name]);
      assert.equal(error, undefined, name);
      assert.deepEqual(value, made[name], name);
      assert.equal(await read(), again, name);
    }
    // The prior draws of the prompt anew for each seed; other families have all that they need.
    assert.equal((await call(make, { ...FAMILIES[model]["one person"], seed: 8 })).error, undefined);
    await read();
    assert.equal((await call(make, { ...FAMILIES[model]["one person"], seed: 9 })).error, undefined);
    assert.equal(await read(), model === "mini");
    const alike = await call((_, person) => /** @type {any} */ (globalThis).alike("white", person), white);
    assert.ok(alike.value > 0.99, JSON.stringify(alike));
    assert.equal(await read(), false, "the face encoder is there");
    assert.deepEqual(errors, []);
    await context.close();
  });
}

test("both backends draw nearly the same", () => {
  for (const [model, made] of Object.entries(pictures.cpu)) {
    for (const [name, cpu] of Object.entries(made)) {
      // 8-bit pixels after three steps of noise of an untrained model: rounding differs, the picture does not.
      const off = difference(cpu, pictures.webgpu[model][name]);
      assert.ok(off < 2, `${model}, ${name}: ${off}`);
    }
  }
});
