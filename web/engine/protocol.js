/**
 * What the page and the worker say to each other: the only file that both read.
 *
 * The page asks ({@link Ask}), the worker answers ({@link Reply}); `id` ties an answer to its question.
 * The first question is always `hello`: page and worker check that they are of one release before they speak.
 */

/** @import { InitImage, IntoPhoto, Layout, Person as PersonOf, Recipe } from "./recipe.js" */

/** Version of the messages below; raised with every change to them. */
export const PROTOCOL = 11;

/** The release of page and worker, equal to the version in `Cargo.toml`. */
export const RELEASE = "0.1.0";

/** The samplers of a request, and what people call them: those of `Sampler::ALL` in Rust, against which a test holds them. */
export const SAMPLERS = /** @type {const} */ ({
  euler_ancestral: "Euler ancestral",
  euler: "Euler",
  ddim: "DDIM",
  dpmpp2m: "DPM++ 2M",
  lcm: "LCM",
  heun: "Heun",
  unipc: "UniPC",
  tcd: "TCD",
});

/** @typedef {keyof typeof SAMPLERS} Sampler */

/** Most bytes of one chosen picture. */
export const MAX_IMAGE_BYTES = 64 * 1024 * 1024;

/**
 * @typedef {"webgpu" | "cpu"} Backend
 * @typedef {"auto" | Backend} BackendWish
 * @typedef {"auto" | "f16" | "f32"} PrecisionWish
 */

/**
 * An error as it crosses from the worker: the shape of the crate's `Error`.
 * @typedef {object} Failure
 * @property {string} code stable and kebab-case, for programs; listed in docs/errors.md
 * @property {"input" | "weights" | "device" | "io" | "cancelled" | "internal"} fault whose fault it is
 * @property {string} message what happened, for people
 * @property {string} remedy what to do about it; may be empty
 */

/**
 * Why a backend was chosen: the page asked for it, WebGPU is here, or why it is not used.
 * @typedef {"asked" | "webgpu" | "webgpu-missing" | "webgpu-no-adapter" | "webgpu-emulated" | "webgpu-too-small" | "webgpu-failed"
 *   | "webgpu-wrong"} Reason
 */

/**
 * Which backend computes, and why.
 * @typedef {object} Choice
 * @property {Backend} backend
 * @property {number} threads that compute: more than one on the CPU of a page that is isolated from other origins
 * @property {Reason} why for programs
 * @property {string} reason the same in one sentence for people
 * @property {string} adapter vendor and architecture of the WebGPU adapter, "" where there is none
 * @property {boolean} software whether that adapter is emulated on the CPU
 * @property {string[]} features the adapter's features
 * @property {Record<string, number>} limits those of the adapter's limits that decide whether a model fits
 */

/**
 * A model that is ready.
 * @typedef {object} Opened
 * @property {Choice} choice
 * @property {string} precision what the denoiser computes in, `f16` or `f32`
 * @property {number[] | null} tiles from how many workgroups on the GPU's larger tiles are used, as measured once on this adapter;
 *   null on the CPU
 * @property {string} model the model's name
 * @property {string} version the model's version
 * @property {number} bytes size of its files together
 * @property {number} fetched how many of them came over the network
 * @property {Notice[]} notices what did not go as it should, though the model is ready
 * @property {Abilities} abilities
 */

/**
 * Something to tell the user that stops nothing. `values` are what the message names, for those who say it in another
 * language: of `prompt-cut` and `negative-prompt-cut` the `tokens` that were not read, the word `from` which on, and the
 * tokens that there is `room` for; of `kernels-wrong` the graphics `adapter`, the `kernels` that are left out, and the `release`.
 * @typedef {{ code: string, message: string, remedy: string, values?: Record<string, string> }} Notice
 */

/**
 * Something that will stop a model from being used here, or that its user should know first.
 * @typedef {Notice & { severity: "stop" | "warn" }} Problem
 */

/**
 * What opening a model would mean, from its manifest alone.
 * @typedef {object} Checked
 * @property {Choice} choice what would run
 * @property {string} model the model's name
 * @property {string} version
 * @property {number} bytes size of its files together
 * @property {number} stored_bytes how many of them are in the browser's storage already
 * @property {number} fetch_bytes how many would have to be fetched
 * @property {{ kind: "opfs" | "memory", quota: number, usage: number, persisted: boolean }} storage `memory` where files
 *   cannot be kept; quota and usage in bytes, as the browser estimates them
 * @property {number} device_bytes what the weights take on the device
 * @property {number | null} device_memory the machine's memory in GiB as far as the browser tells: it says 8 for more
 * @property {Record<string, number>} limits of the WebGPU adapter
 * @property {string[]} features of the WebGPU adapter
 * @property {Problem[]} problems
 */

/**
 * What is in the browser's storage.
 * @typedef {object} Stored
 * @property {boolean} persisted whether the browser has promised not to drop it by itself
 * @property {number} bytes
 * @property {{ url: string, name: string, version: string, bytes: number }[]} models a download that has not finished yet
 *   has no name and version
 */

/**
 * What a model can do.
 * @typedef {object} Abilities
 * @property {number} [width] width in pixels that it was trained on, where its config says
 * @property {number} [height]
 * @property {number} multiple sides of its pictures are multiples of this
 * @property {boolean} words whether it reads prompts
 * @property {boolean} styles whether it reads style pictures
 * @property {boolean} references whether it sees pictures themselves: `roles` say of each what it is
 * @property {boolean} drawn_only whether it knows made-up people only, and no photos
 * @property {number} steps of a request that does not say; so are the next two
 * @property {number} guidance_scale
 * @property {Sampler} sampler
 */

/**
 * A face's eyes, nose tip and mouth corners: x and y in its picture's pixels; of an upright face the picture's left ones first.
 * @typedef {[number, number][]} Landmarks
 */

/**
 * A picture's encoded file: its bytes, or a `Blob` or `File` that holds them.
 * @typedef {Uint8Array | Blob} Bytes
 */

/**
 * A photo of a face: the file, or the file and where in it the face is. Without `landmarks` the largest face is looked for.
 * @typedef {Bytes | { image: Bytes, landmarks: Landmarks }} Photo
 */

/**
 * One person: one identity, or several that are mixed with weights β.
 * @typedef {PersonOf<Photo>} Person
 */

/**
 * A face that was found in a picture.
 * @typedef {object} Face
 * @property {[number, number, number, number]} box left, top, right and bottom edge in the picture's pixels
 * @property {Uint8Array} png a picture of it with some room around
 * @property {Landmarks} landmarks in that picture: `{ image: png, landmarks }` is a {@link Photo} that nobody searches again
 */

/**
 * A made-up face: traits in [0, 1] and a few choices, as documented in `crates/synth/src/identity.rs`.
 * @typedef {{ hair_style: string, hair_color: string, beard: string, glasses: string | null,
 *   [trait: string]: number | string | null }} MadeFace
 */

/**
 * What can be chosen for a {@link Portrait}: the renderer's own lists.
 * @typedef {object} FaceChoices
 * @property {string[]} hair_styles
 * @property {[string, [number, number, number]][]} hair_colors name, and red, green and blue in [0, 1]
 * @property {string[]} beards
 * @property {string[]} glasses
 * @property {string[]} styles
 * @property {string[]} backgrounds
 */

/**
 * What the face maker draws.
 * @typedef {object} Portrait
 * @property {MadeFace} face
 * @property {string} style
 * @property {string} background
 * @property {number} yaw degrees
 * @property {number} pitch degrees
 * @property {number} roll degrees
 * @property {number} smile -1 to 1
 * @property {number} seed draws clothes, colours and strokes
 */

/**
 * One request. Pictures are encoded files (PNG, JPEG, WebP, GIF, BMP). All but `people` may be left out, the model's own
 * steps, guidance scale and sampler (see {@link Abilities}) and a random seed count then, and
 * pictures are marked as generated. What it shares with a {@link Recipe} means the same.
 * @typedef {Partial<Pick<Recipe, "prompt" | "roles" | "negative_prompt" | "clip_skip" | "alpha" | "background" | "seed" | "steps" | "guidance_scale"
 *   | "sampler" | "width" | "height" | "watermark" | "redraw_faces">> & Asked} GenerateRequest
 */

/**
 * The rest of a request: its pictures, and what decides none.
 * @typedef {object} Asked
 * @property {Person[]} people
 * @property {Bytes} [style]
 * @property {Layout<Bytes, Bytes>} [layout]
 * @property {InitImage<Bytes, Bytes>} [init]
 * @property {IntoPhoto<Bytes, Bytes>} [into] a photo, and whose place in it the people take
 * @property {number} [count]
 * @property {number} [preview_every] steps between previews; none without it
 * @property {boolean} [prompt_in_metadata] write prompt and negative prompt into the PNG's text chunks; true if left out
 */

/**
 * One finished picture.
 * @typedef {object} Picture
 * @property {Uint8Array} png with its recipe in its text chunks
 * @property {Recipe} recipe what makes this picture alone again, with the pictures that it was made from
 * @property {number | bigint} seed
 * @property {number} width
 * @property {number} height
 * @property {Notice[]} notices what was done otherwise than asked, as where a prompt is longer than the model reads
 */

/**
 * The prompts of a picture whose recipe leaves them out.
 * @typedef {{ prompt: string, negative_prompt: string }} Words
 */

/**
 * Where a task stands.
 * @typedef {object} Progress
 * @property {"engine" | "fetch" | "load" | "encode" | "denoise" | "decode"} phase
 * @property {number} step finished steps; bytes while the engine or a model is fetched, files while loading
 * @property {number} steps steps of this phase, in the same unit; 0 where a server does not say
 * @property {number} [picture] index of the picture being made
 * @property {Uint8Array} [preview] a small PNG of the picture so far
 */

/**
 * @typedef {{ type: "hello", protocol: number, release: string }} Hello
 * @typedef {{ type: "open", model: string, backend: BackendWish, precision: PrecisionWish, lean: boolean, held: Map<string, Blob> }} Open
 *   `held` are files that storage had no room for earlier in this visit, by hash
 * @typedef {{ type: "check", model: string, backend: BackendWish }} Check
 * @typedef {{ type: "generate", request: GenerateRequest }} Generate
 * @typedef {{ type: "cancel", target: number }} Cancel stops the task with that id; answers at once
 * @typedef {{ type: "inspect", image: Bytes }} Inspect decodes a picture to learn whether it is one
 * @typedef {{ type: "render", seed: number, style: string, size: number }} Render draws a made-up person
 * @typedef {{ type: "stored" }} ListStored
 * @typedef {{ type: "forget", model: string | null }} Forget removes the stored files of one model or of all
 * @typedef {{ type: "faces", image: Bytes }} Faces finds the faces of a picture
 * @typedef {{ type: "request", png: Bytes, pictures: Bytes[], words: Words | null }} Again looks up what makes a picture again
 * @typedef {{ type: "similarity", picture: Bytes, person: Person }} Similarity compares a picture with a person
 * @typedef {{ type: "random_face", seed: number }} RandomFace rolls the face maker's dice
 * @typedef {{ type: "draw_face", portrait: Portrait, size: number }} DrawFace draws a face of the face maker
 * @typedef {{ type: "face_maker" }} AskChoices what the face maker can choose from
 * @typedef {Hello | Open | Check | Generate | Cancel | Inspect | Render | ListStored | Forget | Faces | Again | Similarity
 *   | RandomFace | DrawFace | AskChoices} Ask
 */

/**
 * What a page may ask: all but what decides which model is open and which picture is the latest, which methods of the engine do.
 * @typedef {Exclude<Ask, Hello | Open | Generate | Cancel>} Question
 */

/**
 * What each question is answered with.
 * @typedef {object} Answers
 * @property {{ protocol: number, release: string }} hello
 * @property {Opened} open
 * @property {Checked} check
 * @property {Picture[]} generate
 * @property {null} cancel
 * @property {{ width: number, height: number }} inspect
 * @property {Uint8Array} render a PNG
 * @property {Stored} stored
 * @property {null} forget
 * @property {Face[]} faces the largest first
 * @property {GenerateRequest} request
 * @property {number} similarity cosine of the identity encoder's embeddings, -1 to 1
 * @property {MadeFace} random_face
 * @property {Uint8Array} draw_face a PNG
 * @property {FaceChoices} face_maker
 */

/**
 * `crash` ends every task: the worker cannot go on. `held` is a file, or a part of one, that storage has no room for: the page keeps
 * it for the next worker.
 * @typedef {{ type: "progress", id: number, progress: Progress }
 *   | { type: "result", id: number, value: unknown }
 *   | { type: "error", id: number, error: Failure, stack?: string | undefined }
 *   | { type: "held", sha256: string, bytes: Blob }
 *   | { type: "crash", error: Failure, stack?: string | undefined }} Reply
 */

/** How a task ends that was cancelled. */
export function cancelled(message = "cancelled") {
  return failure("cancelled", "cancelled", message, "");
}

/**
 * A failure of the model's files.
 * @param {string} code
 * @param {string} message
 * @param {string} remedy
 */
export function weights(code, message, remedy) {
  return failure("weights", code, message, remedy);
}

/**
 * @param {Failure["fault"]} fault
 * @param {string} code
 * @param {string} message
 * @param {string} remedy
 */
export function failure(fault, code, message, remedy) {
  return new FaceStudioError({ code, fault, message, remedy });
}

/** A {@link Failure} as a JavaScript error. */
export class FaceStudioError extends Error {
  /**
   * @param {Failure} failure
   * @param {string} [stack] where it happened, if that was elsewhere: in the worker
   */
  constructor({ code, fault, message, remedy }, stack) {
    super(message);
    this.name = "FaceStudioError";
    this.code = code;
    this.fault = fault;
    this.remedy = remedy;
    // Not assigned, or the declarations would give it another type than Error's.
    if (stack) {
      Object.defineProperty(this, "stack", { value: stack });
    }
  }
}

/**
 * Any thrown value as an error that keeps where it happened.
 * @param {unknown} thrown
 */
export function toError(thrown) {
  return thrown instanceof FaceStudioError ? thrown : new FaceStudioError(toFailure(thrown), stackOf(thrown));
}

/** @param {unknown} thrown */
export function stackOf(thrown) {
  return thrown instanceof Error ? thrown.stack : undefined;
}

/**
 * Any thrown value as a {@link Failure}: the crate's errors keep their code, everything else is internal.
 * @param {unknown} thrown
 * @returns {Failure}
 */
export function toFailure(thrown) {
  if (thrown && typeof thrown === "object" && "code" in thrown && "fault" in thrown) {
    const { code, fault, message, remedy } = /** @type {Failure} */ (thrown);
    return { code: String(code), fault, message: String(message), remedy: String(remedy ?? "") };
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  if (thrown instanceof DOMException && thrown.name === "AbortError") {
    return { code: "cancelled", fault: "cancelled", message, remedy: "" };
  }
  return { code: "unexpected", fault: "internal", message, remedy: "this is a bug: please report it" };
}

/**
 * Why page and worker cannot speak to each other; null if they can.
 * @param {{ protocol: number, release: string }} ours
 * @param {{ protocol: number, release: string }} theirs
 * @returns {FaceStudioError | null}
 */
export function mismatch(ours, theirs) {
  if (ours.protocol === theirs.protocol && ours.release === theirs.release) {
    return null;
  }
  const name = (/** @type {{ protocol: number, release: string }} */ side) => `${side.release} (protocol ${side.protocol})`;
  const message = `the page is FaceStudio ${name(ours)}, its worker ${name(theirs)}`;
  return failure("internal", "version-mismatch", message, "reload the page; if that does not help, serve all files from one release");
}
