/** The types of `facestudio`: what it exports, and every type that a page meets. */

export { EngineClient, setBase } from "./engine/client.js";
export { FaceStudio } from "./engine/session.js";
export type { FaceStudioOptions, GenerateOptions, TaskOptions, TimedProgress } from "./engine/session.js";
export { FaceStudioError, SAMPLERS } from "./engine/protocol.js";
export type {
  Abilities, Backend, BackendWish, Bytes, Checked, Choice, Face, FaceChoices, Failure, GenerateRequest, Landmarks, MadeFace, Notice, Opened,
  Person, Photo, Picture, Portrait, PrecisionWish, Problem, Progress, Question, Reason, Sampler, Stored, Words,
} from "./engine/protocol.js";
export type { Background, InitImage, IntoPhoto, Layout, ModelId, Recipe, RedrawFaces, RelativeBox, Replacement, WhichFace } from "./engine/recipe.js";
