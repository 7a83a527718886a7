/** What went wrong and what to do about it, in German, by code. Errors themselves speak English. */

/** @type {Record<string, string>} */
export const errors = {
  "argument-type": "Die Seite hat etwas übergeben, das hier nicht hingehört. Das ist ein Fehler der Seite.",
  "backend-unknown": "Dieses Rechenwerk gibt es nicht. Möglich sind „auto“, „webgpu“ und „cpu“.",
  "base-url": "Die Adresse der Programmdateien ist keine. Das ist ein Fehler der Seite.",
  "buffer-limit":
    "Das Modell hat Teile, die für diese Grafikkarte zu groß sind. Nimm ein kleineres Modell, oder lass den Prozessor rechnen.",
  "camera-unavailable": "Die Kamera fehlt, wird gerade benutzt oder ist verboten. Erlaube sie der Seite, oder nimm ein Foto.",
  clipboard: "Das Bild ließ sich nicht kopieren. Erlaube der Seite die Zwischenablage, oder lade das Bild herunter.",
  "content-people":
    "In dem Bild für die Plätze sind nicht so viele Personen zu sehen, wie gezeichnet werden sollen. Nimm ein anderes oder Kästen.",
  "device-memory":
    "Der Grafikkarte fehlt der Speicher dafür. Schließ andere Tabs und Programme, nimm ein kleineres Bild, oder lass den Prozessor rechnen.",
  "device-lost": "Die Grafikkarte ist weg: Ihr Treiber wurde neu gestartet, oder der Rechner hat geschlafen. Versuch es noch einmal.",
  "drop-url": "Das Bild hinter dieser Adresse lässt sich nicht laden. Speichere es und leg dann die Datei hier ab.",
  "element-detached": "Das Studio ist auf keiner Seite. Das ist ein Fehler der Seite.",
  "engine-crashed": "Das Programm ist stehen geblieben und beginnt beim nächsten Bild neu. Kommt es wieder, versuch ein kleineres Bild.",
  "face-not-found": "In dem Foto war kein Gesicht zu finden. Nimm eines, das das ganze Gesicht zeigt, von vorn, groß und gut beleuchtet.",
  "file-corrupt":
    "Eine Datei des Modells ist beschädigt angekommen. Versuch es noch einmal; bleibt es so, ist sie auf dem Server beschädigt.",
  "file-missing": "Dem Modell fehlt eine Datei. Versuch es später, oder nimm ein anderes Modell.",
  "file-read": "Die Datei lässt sich nicht mehr lesen: Sie wurde verschoben oder geändert. Wähle sie noch einmal.",
  "history-damaged": "Ein Teil des Verlaufs ist nicht lesbar. Der Rest ist unversehrt; den Verlauf auszuschalten löscht alles.",
  "history-unavailable":
    "Der Verlauf lässt sich nicht benutzen. Schaff Platz, verlass den privaten Modus oder schalte den Verlauf aus; das Bild selbst ist nicht verloren.",
  "identity-only": "Dieses Modell zeichnet allein nach Gesichtern: Wähle eines.",
  "image-damaged": "Die Datei des Bildes ist beschädigt. Nimm eine andere.",
  "image-format": "Das ist keine Bilddatei, die hier gelesen wird. Möglich sind PNG, JPEG, WebP, GIF und BMP.",
  "image-too-large": "Das Bild ist zu groß. Nimm ein kleineres.",
  manifest: "Das Verzeichnis des Modells ist nicht lesbar. Wer die Seite betreibt, sollte das Modell neu hochladen.",
  "manifest-format": "Das Modell ist für eine andere Ausgabe dieser Seite gemacht. Lade die Seite neu.",
  "memory-limit": "Das Modell ist größer, als ein Browser ohne Grafikkarte halten kann. Nimm einen mit WebGPU, oder ein kleineres Modell.",
  "model-missing": "Unter der Adresse des Modells ist keines. Versuch es später noch einmal.",
  "model-not-open": "Noch ist kein Modell offen.",
  "model-url": "Die Adresse des Modells ist keine. Das ist ein Fehler der Seite.",
  network: "Eine Datei ist nicht angekommen. Prüf die Verbindung, dann versuch es noch einmal: Was da ist, wird nicht noch einmal geladen.",
  "nothing-asked": "Wähle ein Gesicht, ein Stilbild, oder schreib ein paar Worte.",
  "nothing-to-draw": "Wähle ein Gesicht, ein Stilbild, oder schreib ein paar Worte.",
  "out-of-memory": "Der Arbeitsspeicher reicht nicht. Nimm ein kleineres Bild oder weniger Personen, oder schließ andere Tabs.",
  "people-count": "So viele Personen kann ein Bild nicht haben.",
  "picture-not-finite": "Das Bild ist misslungen. Versuch eine andere Startzahl.",
  "precision-name": "Diese Genauigkeit gibt es nicht. Das ist ein Fehler der Seite.",
  "request-format": "Die Seite hat etwas verlangt, das es nicht gibt. Das ist ein Fehler der Seite.",
  "storage-busy": "Die Dateien sind in einem anderen Tab in Gebrauch. Schließ die anderen Tabs, dann versuch es noch einmal.",
  unexpected: "Das sollte nicht vorkommen. Bitte melde es.",
  "version-mismatch": "Die Teile dieser Seite sind aus verschiedenen Ausgaben. Lade die Seite neu.",
  "webgpu-wrong": "Diese Grafikkarte rechnet falsch. Erneuere ihren Treiber, oder lass den Prozessor rechnen.",
  "webgpu-missing": "Dieser Browser hat kein WebGPU. Nimm einen anderen, oder lass den Prozessor rechnen.",
  "worker-failed": "Ein Teil des Programms startet nicht. Lade die Seite neu.",
  "worker-silent": "Das Programm antwortet nicht. Prüf die Verbindung, dann lade die Seite neu.",
};
