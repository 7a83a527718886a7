/**
 * A recipe's published files become a model in the browser's storage: each is fetched, and given up once what is made of it is stored.
 * What is done is written down, so that a cancelled or broken conversion goes on where it was.
 */

import { ConsoleStdout, WASI } from "@bjorn3/browser_wasi_shim";
import { sha1 } from "@noble/hashes/legacy.js";
import { sha256 } from "@noble/hashes/sha2.js";

import { download } from "./download.js";
import { addressOf, completed, credentials, refusal } from "./hub.js";
import { failure } from "./protocol.js";
import { bytesStored, modelOf } from "./recipes.js";
import { Sink } from "./sink.js";
import { MANIFEST, ModelStore } from "./store.js";
import { settle } from "./model.js";
import { parseManifest } from "./manifest.js";
import { Scratch, inMemory, placeOf, sources, written } from "./virtual-files.js";

/** @import { Hub } from "./hub.js" */
/** @import { Dtype, Part, Recipe, SourceFile } from "./recipes.js" */
/** @import { Handle, Place } from "./virtual-files.js" */

/** What is done of a conversion, in the model's folder: in turns in one of two files, so that one is whole whenever it ends. */
const JOURNALS = ["conversion-0.json", "conversion-1.json"];
/** What the converter writes, before it lies under its hash. */
const SCRATCH = "conversion.scratch";
/** Files of weights. The others, configs and word lists, are held in memory, and fetched again where a conversion goes on. */
const WEIGHTS = /\.(safetensors|bin|pth?|ckpt|onnx|gguf)$/;
/** Most bytes of one that is held in memory. */
const MOST_HELD = 32 << 20;
/** Bytes of a copy at a time. */
const PIECE = 4 << 20;

/** @typedef {{ path: string, bytes: number, sha256: string }} Made */
/** @typedef {Made & { start: number }} Written */
/** @typedef {{ count: number, request: string, made: Record<string, Made[]>, scratch: { component: string, files: Written[] } | null }} Journal */
/** @typedef {{ component: string, reads: string[] }} Step */

/**
 * @typedef {{ phase: "fetch", file: string, done: number, total: number } | { phase: "convert", component: string, step: number,
 *   steps: number, tensors: number }} ConversionProgress bytes of all that is to be fetched; tensors of the component so far
 */

/**
 * Makes the model of a recipe, and returns its address and the most bytes that the converter's memory took.
 * @param {Recipe} recipe
 * @param {Dtype} dtype
 * @param {Hub} hub
 * @param {WebAssembly.Module} converter
 * @param {{ report: (progress: ConversionProgress) => void, signal: AbortSignal }} options
 * @returns {Promise<{ model: string, memory: number, fetched: number }>}
 */
export async function convert(recipe, dtype, hub, converter, options) {
  const model = modelOf(recipe, dtype);
  const store = await ModelStore.open(model, { create: true });
  if (!store) {
    throw failure(
      "input",
      "storage-missing",
      "this browser keeps no files here, perhaps because the window is private",
      "use an ordinary window",
    );
  }
  const done = await store.fetching("conversion", () => new Conversion(recipe, dtype, hub, converter, store, options).run());
  if (!done) {
    throw failure("io", "storage-busy", "another tab makes this model", "wait for it, or close that tab");
  }
  return { model, ...done };
}

class Conversion {
  #recipe;
  #dtype;
  #hub;
  #converter;
  #store;
  #report;
  #signal;
  /** @type {Journal} */
  #journal = { count: 0, request: "", made: {}, scratch: null };
  /** Small sources. @type {Map<string, Uint8Array>} */
  #small = new Map();
  /** Large sources, by their paths: where they are fetched, and what they are. @type {Map<string, { part: Part, file: SourceFile & { bytes: number, sha256: string } }>} */
  #large = new Map();
  #memory = 0;
  #fetched = 0;
  /** Bytes of files that are there, and of all. */
  #there = 0;
  #total = 0;

  /**
   * @param {Recipe} recipe
   * @param {Dtype} dtype
   * @param {Hub} hub
   * @param {WebAssembly.Module} converter
   * @param {ModelStore} store
   * @param {{ report: (progress: ConversionProgress) => void, signal: AbortSignal }} options
   */
  constructor(recipe, dtype, hub, converter, store, { report, signal }) {
    this.#recipe = recipe;
    this.#dtype = dtype;
    this.#hub = hub;
    this.#converter = converter;
    this.#store = store;
    this.#report = report;
    this.#signal = signal;
  }

  async run() {
    await this.#begin();
    const steps = /** @type {Step[]} */ ((await this.#program(["steps"], "", [])).said.find((said) => said.steps)?.steps ?? []);
    for (const [k, step] of steps.entries()) {
      if (!this.#journal.made[step.component]) {
        await this.#make(step, k, steps);
      }
    }
    await this.#finish();
    return { memory: this.#memory, fetched: this.#fetched };
  }

  /** Learns the sizes, fetches what is small, and reads what an earlier visit has done. */
  async #begin() {
    const { parts } = this.#recipe;
    for (const part of parts) {
      for (const file of await completed(this.#hub, part, this.#signal)) {
        const path = `${part.repository}/${file.path}`;
        this.#total += file.bytes ?? 0;
        if (!WEIGHTS.test(path)) {
          if ((file.bytes ?? 0) > MOST_HELD) {
            throw failure("input", "preset-invalid", `${path} is too large for what is no weights`, "correct the recipe");
          }
          const sink = await Sink.open(null, path, this.#signal);
          await this.#fetch(part, file, sink);
          this.#small.set(path, new Uint8Array(await (await sink.blob()).arrayBuffer()));
        } else if (file.sha256 === undefined) {
          throw failure("input", "preset-invalid", `nobody states the SHA-256 of ${path}`, "state it in the recipe");
        } else {
          this.#large.set(path, { part, file: /** @type {any} */ (file) });
        }
      }
    }
    const request = JSON.stringify({ recipe: this.#recipe, dtype: this.#dtype });
    this.#small.set("request.json", new TextEncoder().encode(request));
    const noted = (await Promise.all(JOURNALS.map((name) => this.#store.text(name)))).map(journalOf);
    const newest = noted.sort((a, b) => b.count - a.count)[0];
    this.#journal = newest?.request === request ? newest : { count: newest?.count ?? 0, request, made: {}, scratch: null };
    await this.#note();
    await this.#room();
    if (this.#journal.scratch) {
      await this.#keep();
    }
  }

  /** Rejects with `storage-full` where storage would run full. */
  async #room() {
    const { quota = Infinity, usage = 0 } = (await navigator.storage.estimate?.()) ?? {};
    const sizes = await this.#store.sizes();
    const here = [...sizes.values()].reduce((sum, size) => sum + size, 0);
    const largest = Math.max(0, ...[...this.#large.values()].map(({ file }) => file.bytes));
    const needed = bytesStored(this.#total, this.#dtype) + largest;
    if (needed - here > quota - usage) {
      const gigabytes = (/** @type {number} */ bytes) => `${(bytes / 1e9).toFixed(1)} GB`;
      throw failure(
        "input",
        "storage-full",
        `the model takes some ${gigabytes(needed)} while it is made, and the browser gives ${gigabytes(quota - usage + here)}`,
        "free some disk space, or forget other models",
      );
    }
  }

  /**
   * Fetches what `sink` lacks of a file.
   * @param {Part} part
   * @param {SourceFile} file
   * @param {Sink} sink
   */
  async #fetch(part, file, sink) {
    const [url, path, bytes] = [addressOf(this.#hub, part, file), `${part.repository}/${file.path}`, file.bytes ?? 0];
    // Where nobody states the SHA-256 of a small file, Git's own hash is known.
    const hash = () => (file.sha256 === undefined ? new Hash(sha1.create(), `blob ${bytes}\0`) : new Hash(sha256.create()));
    this.#fetched += await download(url, { path, bytes, sha256: file.sha256 ?? file.git ?? "" }, sink, {
      hash,
      signal: this.#signal,
      report: (count) => this.#report({ phase: "fetch", file: path, done: this.#there + count, total: this.#total }),
      headers: credentials(this.#hub),
      refused: (status) => refusal(url, status, this.#hub),
      remedy: "try again later, or correct the recipe",
    });
    this.#there += bytes;
  }

  /** @param {Step} step @param {number} k @param {Step[]} steps */
  async #make({ component, reads }, k, steps) {
    const isRead = (/** @type {string} */ path, /** @type {string[]} */ reads) =>
      reads.some((read) => path === read || path.startsWith(`${read}/`));
    const wanted = [...this.#large].filter(([path]) => isRead(path, reads));
    for (const [path, { part, file }] of wanted) {
      const sink = await Sink.open(this.#store, file.sha256, this.#signal);
      await this.#fetch(part, file, sink);
      if (sink.inMemory) {
        throw failure(
          "input",
          "storage-full",
          `the browser's storage is full: ${path} does not fit`,
          "free some disk space, or forget other models",
        );
      }
    }
    let tensors = 0;
    const told = (/** @type {any} */ said) => {
      if (said.tensor) {
        tensors += 1;
        this.#report({ phase: "convert", component, step: k, steps: steps.length, tensors });
      }
    };
    const { files } = await this.#program(
      ["make", `${k}`],
      component,
      wanted.map(([path, { file }]) => [path, file.sha256]),
      told,
    );
    this.#journal.scratch = { component, files };
    await this.#note();
    // Before the copies are made: storage takes the result and one file at most.
    const later = steps.slice(k + 1).flatMap((step) => step.reads);
    for (const [path, { file }] of wanted) {
      if (!isRead(path, later)) {
        await this.#store.remove(file.sha256);
      }
    }
    await this.#keep();
  }

  /** Gives what was written its names. */
  async #keep() {
    const { component = "", files = [] } = this.#journal.scratch ?? {};
    const scratch = await this.#store.handle(SCRATCH, "read-only");
    try {
      for (const { start, bytes, sha256 } of files) {
        await this.#store.remove(sha256);
        const writer = await this.#store.writer(sha256, 0);
        try {
          for (let at = 0; at < bytes; at += PIECE) {
            const piece = new Uint8Array(Math.min(PIECE, bytes - at));
            scratch.read(piece, { at: start + at });
            await writer.write(piece);
          }
        } finally {
          await writer.close();
        }
      }
    } finally {
      scratch.close();
    }
    this.#journal.made[component] = files.map(({ path, bytes, sha256 }) => ({ path, bytes, sha256 }));
    this.#journal.scratch = null;
    await this.#note();
    await this.#store.remove(SCRATCH);
  }

  async #finish() {
    const { files } = await this.#program(["finish"], "finish", []);
    this.#journal.scratch = { component: "", files };
    await this.#keep();
    const made = this.#made();
    const { sha256 = "" } = made.get(MANIFEST) ?? {};
    const text = (await this.#store.text(sha256)) ?? "";
    await settle(this.#store, parseManifest(text, new URL(MANIFEST, modelOf(this.#recipe, this.#dtype)).href), text);
  }

  /** What was made so far, the newest of a path. */
  #made() {
    return new Map(Object.values(this.#journal.made).flatMap((files) => files.map((file) => [file.path, file])));
  }

  #note() {
    this.#journal.count += 1;
    return this.#store.putText(JOURNALS[this.#journal.count % 2] ?? "", JSON.stringify(this.#journal));
  }

  /**
   * Runs the converter; what it writes lies in the scratch file.
   * @param {string[]} words
   * @param {string} writes the component that it makes; none where it writes nothing
   * @param {[string, string][]} large paths of sources, and the names that they are stored under
   * @param {(said: any) => void} [told]
   * @returns {Promise<{ said: any[], files: Written[] }>}
   */
  async #program(words, writes, large, told = () => {}) {
    /** @type {Map<string, Handle>} */
    const handles = new Map();
    const open = async (/** @type {string} */ name, /** @type {"read-only" | "readwrite"} */ mode) => {
      const handle = handles.get(name) ?? (await this.#store.handle(name, mode));
      handles.set(name, handle);
      return handle;
    };
    const stored = async (/** @type {string} */ name) => {
      const handle = await open(name, "read-only");
      return { handle, start: 0, bytes: handle.getSize() };
    };
    try {
      /** @type {[string, Place][]} */
      const given = [...this.#small].map(([path, bytes]) => [path, inMemory(bytes)]);
      for (const [path, name] of large) {
        given.push([path, await stored(name)]);
      }
      // Folders of what is not there yet.
      for (const path of this.#large.keys()) {
        if (!given.some(([other]) => other === path)) {
          given.push([`${path}.absent`, inMemory(new Uint8Array())]);
        }
      }
      /** @type {[string, Place][]} */
      const made = [];
      if (writes) {
        await this.#store.remove(SCRATCH);
        for (const { path, sha256 } of this.#made().values()) {
          made.push([path, await stored(sha256)]);
        }
      }
      const scratch = new Scratch(await open(SCRATCH, "readwrite"), 0);
      const model = written("/model", made, scratch);
      /** @type {any[]} */
      const said = [];
      const heard = ConsoleStdout.lineBuffered((line) => {
        const parsed = JSON.parse(line);
        told(parsed);
        if (!parsed.tensor) {
          said.push(parsed);
        }
      });
      const panicked = ConsoleStdout.lineBuffered((line) => said.push({ panicked: line }));
      const wasi = new WASI(
        ["facestudio-convert-wasi", "/sources", "/model", ...words],
        [],
        [heard, heard, panicked, sources("/sources", given), model],
      );
      const instance = await WebAssembly.instantiate(this.#converter, { wasi_snapshot_preview1: wasi.wasiImport });
      let status;
      try {
        status = wasi.start(/** @type {any} */ (instance));
      } finally {
        this.#memory = Math.max(this.#memory, /** @type {any} */ (instance).exports.memory.buffer.byteLength);
      }
      if (status !== 0) {
        const error = said.find(({ error }) => error)?.error;
        throw failure("weights", error?.code ?? "internal", error?.message ?? JSON.stringify(said.at(-1)), error?.remedy ?? "");
      }
      const files = said.flatMap(({ file }) => {
        const place = file && placeOf(model, file.path);
        return place ? [{ ...file, start: place.start }] : [];
      });
      // The last of a path counts.
      return { said, files: [...new Map(files.map((file) => [file.path, file])).values()] };
    } finally {
      handles.forEach((handle) => handle.close());
    }
  }
}

/** A journal; the oldest of all where it was not written to its end. @param {string | null} text @returns {Journal} */
function journalOf(text) {
  try {
    return JSON.parse(text ?? "");
  } catch {
    return { count: -1, request: "", made: {}, scratch: null };
  }
}

/** A hash of what comes in pieces. */
class Hash {
  #hash;

  /** @param {ReturnType<typeof sha256.create> | ReturnType<typeof sha1.create>} hash @param {string} [before] what is hashed first */
  constructor(hash, before = "") {
    this.#hash = hash.update(new TextEncoder().encode(before));
  }

  /** @param {Uint8Array} bytes */
  update(bytes) {
    this.#hash.update(bytes);
  }

  finish() {
    return hex(this.#hash.digest());
  }

  free() {
    this.#hash.destroy();
  }
}

/** @param {Uint8Array} bytes */
function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
