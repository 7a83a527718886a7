/** The package without an interface: importing it defines no element and starts nothing. */

export { EngineClient } from "./engine/client.js";
export { FaceStudioError } from "./engine/protocol.js";
export { FaceStudio } from "./engine/session.js";
