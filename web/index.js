/** The package without an interface: importing it defines no element and starts nothing. Its types are in facestudio.d.ts. */

export { EngineClient, setBase } from "./engine/client.js";
export { FaceStudioError, SAMPLERS } from "./engine/protocol.js";
export { FaceStudio } from "./engine/session.js";
