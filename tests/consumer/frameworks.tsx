// The element in templates of frameworks as strict TypeScript sees it; tests/browser/package.test.mjs compiles it against pkg/.

import type {} from "facestudio/react";
import type {} from "facestudio/svelte";
import type {} from "facestudio/vue";
import type { FaceStudioElement } from "facestudio/element";
import { createRef } from "react";
import type { SvelteHTMLElements } from "svelte/elements";
import type { GlobalComponents } from "vue";

const element = createRef<FaceStudioElement>();

export const react = (
  <face-studio
    ref={element}
    model="/models/mini/"
    theme="dark"
    preload
    onfacestudio-result={({ detail }) => console.log(detail[0]?.seed)}
  />
);

// @ts-expect-error: there is no such theme
export const wrong = <face-studio theme="blue" />;

export const svelte: SvelteHTMLElements["face-studio"] = { backend: "cpu", "onfacestudio-ready": ({ detail }) => detail.model };

type Props = InstanceType<GlobalComponents["face-studio"]>["$props"];
export const vue: Props = { lang: "de", disabled: true };
