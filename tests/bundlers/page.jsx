/** The page of Next: the server renders the element without a browser, and imports the package too. */

"use client";

import { useEffect } from "react";
import "facestudio/element";

export default function Page() {
  useEffect(() => {
    import("./main.js");
  }, []);
  return <face-studio model="/models/mini/" backend="cpu" theme="light" />;
}
