/** The engine's plain parts, which need no browser. */

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { chooseBackend } from "../../web/engine/capabilities.js";
import { checkModel } from "../../web/engine/check.js";
import { download } from "../../web/engine/download.js";
import { deviceBytes, largestTensor } from "../../web/engine/manifest.js";
import { FaceStudioError, RELEASE, mismatch, toFailure } from "../../web/engine/protocol.js";
import { ROOT } from "./harness.mjs";

/** @param {object} info @returns {any} */
const gpu = (info) => ({ requestAdapter: async () => ({ info, features: new Set(["shader-f16"]) }) });

test("a real adapter is used, and named", async () => {
  const choice = await chooseBackend("auto", gpu({ vendor: "nvidia", architecture: "hopper" }));
  assert.equal(choice.backend, "webgpu");
  assert.equal(choice.adapter, "nvidia hopper");
  assert.deepEqual(choice.features, ["shader-f16"]);
});

test("emulated WebGPU is passed over unless it is asked for", async () => {
  const emulated = gpu({ vendor: "google", architecture: "swiftshader" });
  const choice = await chooseBackend("auto", emulated);
  assert.equal(choice.backend, "cpu");
  assert.match(choice.reason, /swiftshader/);
  assert.equal((await chooseBackend("webgpu", emulated)).backend, "webgpu");
  assert.equal((await chooseBackend("auto", gpu({ vendor: "x", isFallbackAdapter: true }))).backend, "cpu");
});

test("without WebGPU the CPU computes, and a wish for WebGPU is refused", async () => {
  const failing = { requestAdapter: () => Promise.reject(new Error("lost")) };
  for (const none of [undefined, { requestAdapter: async () => null }, failing]) {
    const choice = await chooseBackend("auto", none);
    assert.equal(choice.backend, "cpu");
    assert.notEqual(choice.reason, "");
    await assert.rejects(chooseBackend("webgpu", none), { code: "webgpu-missing", fault: "device" });
    assert.equal((await chooseBackend("cpu", none)).backend, "cpu");
  }
});

test("a tensor that no buffer of the adapter holds sends the model to the CPU", async () => {
  const small = {
    requestAdapter: async () => ({
      info: { vendor: "arm" },
      features: [],
      limits: { maxBufferSize: 1 << 28, maxStorageBufferBindingSize: 1 << 27 },
    }),
  };
  assert.equal((await chooseBackend("auto", small, 1 << 27)).backend, "webgpu");
  const choice = await chooseBackend("auto", small, (1 << 27) + 1);
  assert.equal(choice.backend, "cpu");
  assert.match(choice.reason, /arm/);
  assert.equal((await chooseBackend("webgpu", small, 1 << 28)).backend, "webgpu");
});

/** @type {import("../../web/engine/manifest.js").Manifest} */
const MODEL = {
  format: 1,
  name: "big",
  version: "3",
  files: [{ path: "model_index.json", bytes: 100, sha256: "a" }],
  components: {
    unet: {
      dtype: "q8",
      parameters: 1000,
      largest_tensor: 600,
      files: [{ path: "unet/model.safetensors", bytes: 1100, sha256: "b" }],
    },
    old: { dtype: "f16", files: [{ path: "old/model.safetensors", bytes: 200, sha256: "c" }] },
    scheduler: { dtype: "none", files: [{ path: "scheduler/scheduler_config.json", bytes: 50, sha256: "d" }] },
  },
};

test("what a model needs is read from its manifest, and estimated where it does not say", () => {
  assert.equal(deviceBytes(MODEL, "webgpu"), 1.125 * 1000 + 4 * 100);
  assert.equal(deviceBytes(MODEL, "cpu"), 4 * (1000 + 100));
  const unet = /** @type {any} */ (MODEL.components.unet);
  const large = { ...MODEL, components: { unet: { ...unet, dtype: "q4", parameters: 9e6, large_parameters: 8e6 } } };
  assert.equal(deviceBytes(large, "cpu"), 1.125 * 8e6 + 4e6, "4 bits are held as 8");
  assert.equal(deviceBytes(large, "webgpu"), 0.625 * 9e6);
  assert.equal(largestTensor(MODEL), 2400);
});

test("the networks that are held as they are stored are those of Rust's list", () => {
  const list = (/** @type {string} */ path, /** @type {RegExp} */ pattern) =>
    JSON.parse(`[${pattern.exec(readFileSync(ROOT + path, "utf8"))?.[1]}]`);
  assert.deepEqual(list("web/engine/manifest.js", /COMPACT = \[(.+)\];/), list("src/pipeline/models.rs", /COMPACT: .+ = \[(.+)\];/));
});

test("a check counts what is stored, and names what stands in the way", () => {
  /** @type {import("../../web/engine/protocol.js").Choice} */
  const gpuChoice = {
    backend: "webgpu",
    threads: 1,
    reason: "",
    adapter: "nvidia hopper",
    software: false,
    features: ["shader-f16"],
    limits: { maxBufferSize: 1e9, maxStorageBufferBindingSize: 1e9 },
  };
  /** @type {import("../../web/engine/check.js").Surroundings} */
  const good = { secure: true, stored: new Map([["b", 1000], ["d", 70]]), quota: 1e9, usage: 0, persisted: true, memory: 8 };
  const checked = checkModel(MODEL, gpuChoice, good);
  assert.deepEqual(
    [checked.bytes, checked.stored_bytes, checked.fetch_bytes, checked.device_bytes, checked.problems],
    [1450, 1050, 400, 1525, []],
  );
  const codes = (/** @type {object} */ choice, /** @type {object} */ here, model = MODEL) =>
    checkModel(model, { ...gpuChoice, ...choice }, { ...good, ...here }).problems.map(
      ({ code, severity, message, remedy }) => {
        assert.ok(message && remedy, code);
        return `${code} ${severity}`;
      },
    );
  const cpu = { backend: "cpu", adapter: "", features: [], limits: {}, reason: "this browser has no WebGPU" };
  const small = { limits: { maxBufferSize: 2000, maxStorageBufferBindingSize: 2000 } };
  const huge = { ...MODEL, components: { unet: { ...MODEL.components.unet, parameters: 4e9 } } };
  assert.deepEqual(codes(cpu, {}), ["webgpu-missing warn"]);
  assert.deepEqual(codes({ software: true, backend: "cpu" }, {}), ["webgpu-software warn"]);
  assert.deepEqual(codes(small, {}), ["buffer-limit stop"]);
  assert.deepEqual(codes({ ...small, backend: "cpu" }, {}), ["buffer-limit warn"]);
  assert.deepEqual(codes(cpu, {}, huge), ["webgpu-missing warn", "memory-limit stop"]);
  assert.deepEqual(codes({}, {}, huge), ["memory-low warn"]);
  assert.deepEqual(codes({}, { memory: null }, huge), []);
  assert.deepEqual(codes({}, { secure: false, stored: null }), ["insecure-context warn"]);
  assert.deepEqual(codes({}, { stored: null }), ["storage-missing warn"]);
  assert.deepEqual(codes({}, { quota: 399 }), ["quota-small warn"]);
  assert.deepEqual(codes({}, { quota: 400 }), []);
});

test("a download waits longer after each failure in a row, and stops when it is aborted", async () => {
  const times = /** @type {number[]} */ ([]);
  const failing = /** @type {any} */ (async () => {
    times.push(performance.now());
    throw new TypeError("no network");
  });
  const original = globalThis.fetch;
  globalThis.fetch = failing;
  try {
    const hash = () => ({ update() {}, finish: () => "", free() {} });
    const sink = /** @type {any} */ ({ size: 0, tag: null, blob: async () => new Blob(), resume: async () => {} });
    const file = { path: "a", bytes: 1, sha256: "b" };
    const url = "http://localhost/a";
    const pauses = [30, 60, 120];
    const { signal } = new AbortController();
    await assert.rejects(download(url, file, sink, { hash, signal, pauses }), { code: "network", fault: "io" });
    const waits = times.slice(1).map((time, i) => time - times[i]);
    assert.equal(waits.length, pauses.length);
    waits.forEach((wait, i) => assert.ok(wait >= pauses[i] - 1, `${wait} ms after failure ${i + 1}`));

    const stop = new AbortController();
    const stopped = download(url, file, sink, { hash, signal: stop.signal, pauses: [60_000] });
    setTimeout(() => stop.abort("stopped"), 20);
    await assert.rejects(stopped, (reason) => reason === "stopped");
  } finally {
    globalThis.fetch = original;
  }
});

test("a storage that loses what it took is left, and a server that never gets to the end is given up", async () => {
  const original = globalThis.fetch;
  let asked = 0;
  globalThis.fetch = /** @type {any} */ (async () => {
    asked += 1;
    return new Response(new Uint8Array(4));
  });
  try {
    const sink = /** @type {any} */ ({
      size: 0,
      tag: null,
      inMemory: false,
      blob: async () => new Blob([new Uint8Array(sink.inMemory ? sink.size : sink.size >> 1)]),
      append: async (/** @type {Uint8Array} */ bytes) => {
        sink.size += bytes.length;
      },
      resume: async () => {},
      reset: async () => {
        sink.size = 0;
      },
      stayInMemory: () => {
        sink.inMemory = true;
      },
    });
    const hash = () => ({ update() {}, finish: () => "b", free() {} });
    const options = { hash, signal: new AbortController().signal, pauses: [1, 1] };
    assert.equal(await download("http://localhost/a", { path: "a", bytes: 4, sha256: "b" }, sink, options), 8);
    assert.ok(sink.inMemory);
    [sink.size, asked] = [0, 0];
    const longer = { path: "a", bytes: 10, sha256: "b" };
    await assert.rejects(download("http://localhost/a", longer, sink, options), { code: "network" });
    // The first brought something new; the others only the same again.
    assert.equal(asked, 4);
  } finally {
    globalThis.fetch = original;
  }
});

test("page and worker must be of one release", () => {
  const ours = { protocol: 1, release: "0.1.0" };
  assert.equal(mismatch(ours, { ...ours }), null);
  assert.equal(mismatch(ours, { ...ours, release: "0.2.0" })?.code, "version-mismatch");
  assert.equal(mismatch(ours, { ...ours, protocol: 2 })?.code, "version-mismatch");
});

test("failures keep their code, anything else becomes an internal one", () => {
  const failure = { code: "alpha-range", fault: "input", message: "alpha is 2", remedy: "use 1" };
  assert.deepEqual(toFailure(failure), failure);
  assert.deepEqual(toFailure(new FaceStudioError(/** @type {any} */ (failure))), failure);
  assert.equal(toFailure(new TypeError("x")).fault, "internal");
  assert.equal(toFailure(undefined).code, "unexpected");
});

test("the release is the same everywhere", () => {
  const read = (/** @type {string} */ path) => readFileSync(ROOT + path, "utf8");
  assert.equal(/^version = "(.+)"$/m.exec(read("Cargo.toml"))?.[1], RELEASE);
  assert.equal(JSON.parse(read("web/package.json")).version, RELEASE);
});

test("every code of the page is documented", () => {
  const errors = readFileSync(`${ROOT}docs/errors.md`, "utf8");
  const codes = ["web/engine/", "web/face-studio/"].flatMap((folder) =>
    readdirSync(ROOT + folder).flatMap((name) => {
      const text = readFileSync(ROOT + folder + name, "utf8");
      return [...text.matchAll(/\bcode: "([^"]+)"|(?:weights|warn|stop)\(\s*"([^"]+)"|failure\("\w+", "([^"]+)"/g)].map(
        ([, ...found]) => found.find(Boolean) ?? "",
      );
    }),
  );
  assert.ok(codes.length > 20);
  assert.deepEqual(
    [...new Set(codes)].filter((code) => !errors.includes(`\`${code}\``)),
    [],
  );
});
