/** Measures the graphics adapter with the engine's own kernels, beside what its memory allows, and makes one block of JSON of it. */

import { EngineClient } from "./engine/client.js";
import { RELEASE } from "./engine/protocol.js";

/** Kernels with sizes of Stable Diffusion's networks at 512 pixels: `Engine.time_kernel` says what the sizes mean. @type {[string, number[]][]} */
const SHAPES = [
  ["linear", [4096, 320, 320]],
  ["linear", [1024, 640, 2560]],
  ["linear", [77, 768, 768]],
  ["conv2d", [320, 320, 64]],
  ["conv2d", [1280, 1280, 16]],
  ["conv2d", [128, 128, 256]],
  ["attention", [8, 4096, 40]],
  ["attention", [8, 1024, 80]],
];
const NUMBERS = ["f32", "f16", "q8", "q4"];
/** Bytes of the copy that tells the memory's bandwidth. */
const COPIED = 64 * 2 ** 20;
/** Times that the copy is made in one go. */
const COPIES = 16;
/** Milliseconds of one launch beyond which a kernel is not measured: an adapter so slow is emulated. */
const LONG = 1000;
/** Models that are looked for beside the page. */
const MODELS = ["models/mini/"];
/** Where onnxruntime-web is looked for; it is no part of the package. */
const ONNXRUNTIME = "onnxruntime-web/ort.webgpu.min.mjs";

const part = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const [button, copy] = [part("measure"), part("copy")].map((node) => /** @type {HTMLButtonElement} */ (node));
const say = (/** @type {string} */ text) => (part("now").textContent = text);

/** Multiply-adds of a kernel. @param {string} kernel @param {number[]} sizes */
function work(kernel, [a = 0, b = 0, c = 0]) {
  return kernel === "conv2d" ? a * b * 9 * c * c : kernel === "attention" ? 2 * a * b * b * c : a * b * c;
}

/** @param {any} adapter a `GPUAdapter` */
function described(adapter) {
  const { vendor = "", architecture = "", device = "", description = "" } = adapter.info ?? {};
  /** @type {Record<string, number>} */
  const limits = {};
  for (const name in adapter.limits) {
    limits[name] = adapter.limits[name];
  }
  return { vendor, architecture, device, description, features: [...adapter.features].sort(), limits };
}

/** Bytes a second of a copy, read and written. @param {any} adapter */
async function bandwidth(adapter) {
  const device = await adapter.requestDevice();
  // Copied from, copied to.
  const [from, to] = [0x4, 0x8].map((usage) => device.createBuffer({ size: COPIED, usage }));
  const run = async () => {
    const encoder = device.createCommandEncoder();
    for (let i = 0; i < COPIES; i++) {
      encoder.copyBufferToBuffer(from, 0, to, 0, COPIED);
    }
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
  };
  await run();
  const start = performance.now();
  await run();
  const seconds = (performance.now() - start) / 1e3;
  device.destroy();
  return (2 * COPIES * COPIED) / seconds;
}

/** What a step of a model takes, on the backend that its engine chooses and on WebGPU. @param {string} model */
async function steps(model) {
  const manifest = await fetch(`${model}manifest.json`).catch(() => null);
  if (!manifest?.ok) {
    return null;
  }
  const found = [];
  for (const backend of /** @type {const} */ (["webgpu", "cpu"])) {
    const client = new EngineClient();
    try {
      const begun = performance.now();
      const { precision, abilities, notices, choice } = await client.open({ model: new URL(model, location.href).href, backend });
      const opened = performance.now() - begun;
      /** @type {number[]} */
      const times = [];
      const prompt = abilities.words ? "a smiling woman with red hair" : "";
      const onProgress = (/** @type {{ phase: string }} */ { phase }) => phase === "denoise" && times.push(performance.now());
      const draw = () => client.generate({ people: [], prompt, alpha: 0, seed: 1, steps: 6 }, { onProgress });
      const first = performance.now();
      await draw();
      const second = performance.now();
      times.length = 0;
      await draw();
      const done = performance.now();
      const step = times.length > 1 ? (Number(times.at(-1)) - Number(times[0])) / (times.length - 1) : null;
      const codes = notices.map(({ code, message }) => ({ code, message }));
      found.push({
        backend,
        threads: choice.threads,
        precision,
        open_ms: opened,
        first_picture_ms: second - first,
        picture_ms: done - second,
        step_ms: step,
        notices: codes,
      });
    } catch (error) {
      found.push({ backend, error: String(/** @type {any} */ (error).message ?? error) });
    } finally {
      client.close();
    }
  }
  return { model, runs: found };
}

/** A field of a protocol buffer. @param {number} field @param {number | string | Uint8Array} value @returns {number[]} */
function field(field, value) {
  const varint = (/** @type {number} */ n) => {
    const bytes = [];
    for (; n > 127; n = Math.floor(n / 128)) {
      bytes.push((n % 128) | 128);
    }
    return [...bytes, n];
  };
  if (typeof value === "number") {
    return [...varint(field * 8), ...varint(value)];
  }
  const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value;
  return [...varint(field * 8 + 2), ...varint(bytes.length), ...bytes];
}

/** An ONNX model of one product, `[m, k] · [k, n]`. @param {number} m @param {number} k @param {number} n */
function product(m, k, n) {
  const message = (/** @type {number[][]} */ ...fields) => Uint8Array.from(fields.flat());
  const value = (/** @type {string} */ name, /** @type {number[]} */ dims) => {
    const shape = message(...dims.map((dim) => field(1, message(field(1, dim)))));
    return message(field(1, name), field(2, message(field(1, message(field(1, 1), field(2, shape))))));
  };
  const node = message(field(1, "a"), field(1, "b"), field(2, "c"), field(4, "MatMul"));
  const graph = message(
    field(1, node),
    field(2, "g"),
    field(11, value("a", [m, k])),
    field(11, value("b", [k, n])),
    field(12, value("c", [m, n])),
  );
  return message(field(1, 8), field(7, graph), field(8, message(field(2, 17))));
}

/** onnxruntime-web's products of the same shapes in f32, where it is served beside the page. */
async function onnxruntime() {
  const there = await fetch(ONNXRUNTIME, { method: "HEAD" }).catch(() => null);
  if (!there?.ok) {
    return null;
  }
  const ort = await import(new URL(ONNXRUNTIME, location.href).href);
  const found = [];
  for (const [kernel, [m = 0, k = 0, n = 0]] of SHAPES) {
    if (kernel === "linear") {
      const session = await ort.InferenceSession.create(product(m, k, n), {
        executionProviders: ["webgpu"],
        preferredOutputLocation: "gpu-buffer",
      });
      const [a, b] = [
        [m, k],
        [k, n],
      ].map((dims) => new ort.Tensor("float32", new Float32Array(Number(dims[0]) * Number(dims[1])), dims));
      const run = async () => (await session.run({ a, b })).c.dispose();
      await run();
      const start = performance.now();
      for (let i = 0; i < 8; i++) {
        await run();
      }
      const ms = (performance.now() - start) / 8;
      // Its inputs come from the CPU each time.
      found.push({ kernel, numbers: "f32", sizes: [m, k, n], ms, gflops: work(kernel, [m, k, n]) / ms / 5e5 });
      await session.release();
    }
  }
  return found;
}

/** All of it. */
async function report() {
  const adapter = await /** @type {any} */ (navigator).gpu?.requestAdapter({ powerPreference: "high-performance" });
  /** @type {Record<string, unknown>} */
  const found = { facestudio: RELEASE, browser: navigator.userAgent, processors: navigator.hardwareConcurrency, adapter: null };
  if (adapter) {
    found.adapter = described(adapter);
    say("the memory's bandwidth");
    found.copy_gb_s =
      (await bandwidth(await /** @type {any} */ (navigator).gpu.requestAdapter({ powerPreference: "high-performance" }))) / 1e9;
    say("compiling");
    const wasm = await import("./wasm/facestudio.js");
    await wasm.default();
    const engine = await wasm.Engine.open("webgpu");
    const start = performance.now();
    found.wrong = await engine.prove();
    found.prove_ms = performance.now() - start;
    engine.leave_out(/** @type {string[]} */ (found.wrong));
    found.tiles = [...((await engine.measure_tiles()) ?? [])];
    engine.set_tiles(Uint32Array.from(/** @type {number[]} */ (found.tiles)));
    const rate = (await engine.measure_rate()) ?? Infinity;
    found.multiply_adds_a_ms = rate;
    const kernels = [];
    for (const [kernel, sizes] of SHAPES) {
      if (work(kernel, sizes) > LONG * rate) {
        kernels.push({ kernel, sizes, passed_over: "it would take more than a second here" });
        continue;
      }
      for (const numbers of NUMBERS) {
        say(`${kernel} ${sizes.join(" × ")} ${numbers}`);
        const ms = await engine.time_kernel(kernel, numbers, Uint32Array.from(sizes));
        if (ms !== undefined) {
          kernels.push({ kernel, numbers, sizes, ms, gflops: work(kernel, sizes) / ms / 5e5 });
        }
      }
    }
    found.kernels = kernels;
    engine.free();
    found.onnxruntime_web = await onnxruntime().catch((error) => String(error));
  }
  found.models = [];
  for (const model of MODELS) {
    say(model);
    const measured = await steps(model);
    if (measured) {
      /** @type {unknown[]} */ (found.models).push(measured);
    }
  }
  return found;
}

button?.addEventListener("click", async () => {
  button.disabled = true;
  try {
    const rounded = (/** @type {string} */ _, /** @type {unknown} */ value) =>
      typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value;
    part("report").textContent = JSON.stringify(await report(), rounded, 1);
    say("done");
    if (copy) {
      copy.disabled = false;
    }
  } catch (error) {
    say(`it failed: ${/** @type {any} */ (error)?.message ?? error}`);
  }
  button.disabled = false;
});
copy?.addEventListener("click", async () => {
  await navigator.clipboard.writeText(part("report").textContent ?? "").then(
    () => say("copied"),
    () => say("select the block and copy it by hand"),
  );
});
