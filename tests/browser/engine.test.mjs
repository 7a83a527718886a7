/** The engine's plain parts, which need no browser. */

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { chooseBackend } from "../../web/engine/capabilities.js";
import { checkModel } from "../../web/engine/check.js";
import { download } from "../../web/engine/download.js";
import { deviceBytes, largestTensor, parseManifest } from "../../web/engine/manifest.js";
import { FaceStudioError, RELEASE, mismatch, toError, toFailure } from "../../web/engine/protocol.js";
import { Sink } from "../../web/engine/sink.js";
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
  assert.equal(choice.why, "webgpu-emulated");
  assert.match(choice.reason, /swiftshader/);
  assert.equal((await chooseBackend("webgpu", emulated)).backend, "webgpu");
  assert.equal((await chooseBackend("auto", gpu({ vendor: "x", isFallbackAdapter: true }))).backend, "cpu");
});

test("without WebGPU the CPU computes, and a wish for WebGPU is refused", async () => {
  const failing = { requestAdapter: () => Promise.reject(new Error("lost")) };
  for (const none of [undefined, { requestAdapter: async () => null }, failing]) {
    const choice = await chooseBackend("auto", none);
    assert.equal(choice.backend, "cpu");
    assert.equal(choice.why, none ? "webgpu-no-adapter" : "webgpu-missing");
    assert.notEqual(choice.reason, "");
    await assert.rejects(chooseBackend("webgpu", none), { code: "webgpu-missing", fault: "device" });
    assert.equal((await chooseBackend("cpu", none)).why, "asked");
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
  assert.equal(choice.why, "webgpu-too-small");
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

test("the networks that are held as they are stored are those that Rust loads so", () => {
  const text = (/** @type {string} */ path) => readFileSync(ROOT + path, "utf8");
  const told = JSON.parse(`[${/COMPACT = \[(.+)\];/.exec(text("web/engine/manifest.js"))?.[1]}]`);
  const loaded = new Set();
  for (const file of readdirSync(`${ROOT}src/pipeline`).filter((name) => name.endsWith(".rs"))) {
    const code = text(`src/pipeline/${file}`);
    for (const [, name] of code.matchAll(/load_compact\("(\w+)"/g)) {
      loaded.add(name);
    }
    // Numbered folders: those of a network, named as its type is, or the family's own and those after it.
    for (const [, type] of code.matchAll(/load_compact\(&\w+, \|\w+\| (\w+)::load/g)) {
      loaded.add(type.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toLowerCase());
    }
    if (code.includes("load_compact(&name")) {
      loaded.add(/folder: "(\w+)"/.exec(code)?.[1]);
    }
  }
  assert.deepEqual([...loaded].sort(), [...told].sort());
});

test("a check counts what is stored, and names what stands in the way", () => {
  /** @type {import("../../web/engine/protocol.js").Choice} */
  const gpuChoice = {
    backend: "webgpu",
    threads: 1,
    why: "webgpu",
    reason: "",
    adapter: "nvidia hopper",
    software: false,
    features: ["shader-f16"],
    limits: { maxBufferSize: 1e9, maxStorageBufferBindingSize: 1e9 },
  };
  /** @type {import("../../web/engine/check.js").Surroundings} */
  const good = {
    secure: true,
    stored: new Map([
      ["b", 1000],
      ["d", 70],
    ]),
    quota: 1e9,
    usage: 0,
    persisted: true,
    memory: 8,
  };
  const checked = checkModel(MODEL, gpuChoice, good);
  assert.deepEqual(
    [checked.bytes, checked.stored_bytes, checked.fetch_bytes, checked.device_bytes, checked.problems],
    [1450, 1050, 400, 1525, []],
  );
  const codes = (/** @type {object} */ choice, /** @type {object} */ here, model = MODEL) =>
    checkModel(model, { ...gpuChoice, ...choice }, { ...good, ...here }).problems.map(({ code, severity, message, remedy }) => {
      assert.ok(message && remedy, code);
      return `${code} ${severity}`;
    });
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
  const failing = /** @type {any} */ (
    async () => {
      times.push(performance.now());
      throw new TypeError("no network");
    }
  );
  const original = globalThis.fetch;
  globalThis.fetch = failing;
  try {
    const hash = () => ({ update() {}, finish: () => "", free() {} });
    const file = { path: "a", bytes: 1, sha256: "b" };
    const url = "http://localhost/a";
    const pauses = [30, 60, 120];
    const { signal } = new AbortController();
    await assert.rejects(download(url, file, new Sink(null, "b", signal), { hash, signal, pauses }), { code: "network", fault: "io" });
    const waits = times.slice(1).map((time, i) => time - times[i]);
    assert.equal(waits.length, pauses.length);
    waits.forEach((wait, i) => assert.ok(wait >= pauses[i] - 1, `${wait} ms after failure ${i + 1}`));

    const stop = new AbortController();
    const stopped = download(url, file, new Sink(null, "b", stop.signal), { hash, signal: stop.signal, pauses: [60_000] });
    setTimeout(() => stop.abort("stopped"), 20);
    await assert.rejects(stopped, (reason) => reason === "stopped");
  } finally {
    globalThis.fetch = original;
  }
});

test("a manifest of any kind is read or refused by name, and never takes the engine along", () => {
  const sha256 = "a".repeat(64);
  const file = { path: "unet/a.safetensors", bytes: 1, sha256 };
  const good = { format: 1, name: "n", version: "1", components: { unet: { files: [file], dtype: "f16" } } };
  const url = "http://localhost/m/manifest.json";
  assert.deepEqual(parseManifest(JSON.stringify(good), url), good);
  const many = Object.fromEntries(Array.from({ length: 200_000 }, (_, i) => [`c${i}`, { files: [] }]));
  const part = (/** @type {object} */ change) => ({ components: { unet: { ...good.components.unet, ...change } } });
  const entry = (/** @type {object} */ change) => part({ files: [{ ...file, ...change }] });
  const bad = /** @type {[string, any][]} */ ([
    ["manifest", null],
    ["manifest", []],
    ["manifest", 5],
    ["manifest", "x"],
    ["manifest-format", {}],
    ["manifest-format", { ...good, format: { toString: 1, valueOf: 1 } }],
    ["manifest-format", { ...good, format: 2 }],
    ...[
      { files: {} },
      { files: "x" },
      { files: [null] },
      { files: [5] },
      { files: [[]] },
      { components: null },
      { components: [] },
      { components: "x" },
      { components: { unet: null } },
      { components: { unet: [] } },
      { components: many },
      { files: Array.from({ length: 200_000 }, (_, i) => ({ ...file, path: `f${i}` })) },
      { name: null },
      { name: 5 },
      { name: {} },
      { name: ["n"] },
      { name: "n".repeat(1e6) },
      { version: {} },
      { version: undefined },
      part({ files: {} }),
      part({ files: null }),
      part({ dtype: {} }),
      part({ dtype: 16 }),
      part({ files: [file, file] }),
      ...[-1, "1", null, 1.5, 1e300, {}].flatMap((number) => [
        part({ parameters: number }),
        part({ largest_tensor: number }),
        part({ large_parameters: number }),
      ]),
      ...[
        "",
        "/a",
        "../a",
        "unet/../../a",
        "./a",
        "a//b",
        "a\\b",
        "http://x/",
        "//x/a",
        "a?b",
        "a#b",
        "http://[",
        "%2e%2e/a",
        5,
        null,
        ["a"],
      ].map((path) => entry({ path })),
      ...[-1, 1.5, "1", null, 1e300].map((bytes) => entry({ bytes })),
      ...["a", sha256.toUpperCase(), [sha256], null, `${sha256}a`].map((hash) => entry({ sha256: hash })),
    ].map((change) => ["manifest", { ...good, ...change }]),
  ]);
  for (const [code, manifest] of bad) {
    const text = JSON.stringify(manifest);
    assert.throws(
      () => parseManifest(text, url),
      (/** @type {any} */ error) => {
        assert.deepEqual([error.code, error.fault], [code, "weights"], text.slice(0, 200));
        assert.ok(error.message.length < 500 && error.remedy !== "", error.message);
        return true;
      },
      text.slice(0, 200),
    );
  }
  for (const text of ["", "{", "[".repeat(200_000), `${'{"components":'.repeat(100_000)}1${"}".repeat(100_000)}`]) {
    assert.throws(() => parseManifest(text, url), { fault: "weights" });
  }
  // What it does not know of is left alone, however deep.
  const deep = JSON.stringify(good).replace("{", `{"provenance":${"[".repeat(5000)}${"]".repeat(5000)},`);
  assert.equal(parseManifest(deep, url).name, "n");
  // Its words are not looked up among JavaScript's own.
  for (const dtype of ["constructor", "__proto__", "toString"]) {
    const odd = parseManifest(JSON.stringify({ ...good, ...part({ dtype }) }), url);
    assert.ok(Number.isFinite(deviceBytes(odd, "webgpu")), dtype);
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
  // An error of ours is itself, another one's place is kept.
  const own = new FaceStudioError(/** @type {any} */ (failure));
  assert.equal(toError(own), own);
  const other = new TypeError("x");
  assert.ok(toError(other) instanceof FaceStudioError);
  assert.equal(toError(other).stack, other.stack);
  assert.ok(toError("x").stack);
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
