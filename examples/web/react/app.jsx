/** `<face-studio>` in React 19, which sets properties and listens to the events of custom elements. */

import "facestudio/element";
import React, { useEffect, useRef, useState } from "react";
import { createRoot } from "react-dom/client";

function Studio({ theme }) {
  const element = useRef(null);
  const [pictures, setPictures] = useState(0);
  useEffect(() => {
    const count = (event) => setPictures((before) => before + event.detail.length);
    const studio = element.current;
    studio.addEventListener("facestudio-result", count);
    return () => studio.removeEventListener("facestudio-result", count);
  }, []);
  return (
    <>
      <p id="told" role="status">
        {pictures} pictures made
      </p>
      <face-studio ref={element} theme={theme} />
    </>
  );
}

function App() {
  const [theme, setTheme] = useState("light");
  return (
    <>
      <button id="toggle" onClick={() => setTheme(theme === "light" ? "dark" : "light")}>
        {theme}
      </button>
      <Studio theme={theme} />
    </>
  );
}

createRoot(document.querySelector("#app")).render(<App />);
