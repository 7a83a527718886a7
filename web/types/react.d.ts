/** `<face-studio>` in JSX of React 19: `import type {} from "facestudio/react"` once in a project. */

import type { DetailedHTMLProps, HTMLAttributes } from "react";
import type { FaceStudioElement, FaceStudioEventMap } from "../element.js";
import type { FaceStudioAttributes } from "./attributes.js";

/** React 19 listens to an element's own events by their names after `on`. */
type Listeners = { [Name in keyof FaceStudioEventMap as `on${Name}`]?: (event: FaceStudioEventMap[Name]) => void };

declare module "react" {
  namespace JSX {
    interface IntrinsicElements {
      "face-studio": Omit<DetailedHTMLProps<HTMLAttributes<FaceStudioElement>, FaceStudioElement>, keyof FaceStudioAttributes> &
        FaceStudioAttributes &
        Listeners;
    }
  }
}
