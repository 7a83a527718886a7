/** The types of `facestudio/element`: the element, its events, and its tag name. */

import type { FaceStudioError, Opened, Picture } from "./engine/protocol.js";
import type { FaceStudioElement, Theme } from "./face-studio/face-studio.js";
import type { TimedProgress } from "./engine/session.js";

export { FaceStudioElement };
export type { Theme };
export type { FaceStudioAttributes } from "./types/attributes.js";

/** The element's events by name; they bubble and leave its shadow tree. */
export interface FaceStudioEventMap {
  "facestudio-ready": CustomEvent<Opened>;
  "facestudio-progress": CustomEvent<TimedProgress>;
  "facestudio-preview": CustomEvent<Uint8Array>;
  "facestudio-picture": CustomEvent<Picture>;
  "facestudio-result": CustomEvent<Picture[]>;
  "facestudio-error": CustomEvent<FaceStudioError>;
}

declare global {
  interface HTMLElementTagNameMap {
    "face-studio": FaceStudioElement;
  }
  interface HTMLElementEventMap extends FaceStudioEventMap {}
}
