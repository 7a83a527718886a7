/** What `<face-studio>` takes in a template. */

import type { BackendWish } from "../engine/protocol.js";
import type { Theme } from "../face-studio/face-studio.js";

export interface FaceStudioAttributes {
  /** URL of a model folder. */
  model?: string | undefined;
  backend?: BackendWish | undefined;
  theme?: Theme | undefined;
  lang?: string | undefined;
  /** Where published models are fetched that the user chooses; Hugging Face's hub without. */
  hub?: string | undefined;
  /** Open the model at once instead of at the first picture. */
  preload?: boolean | undefined;
  /** What its picture is called in a form's data. */
  name?: string | undefined;
  disabled?: boolean | undefined;
}
