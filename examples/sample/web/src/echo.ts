/** The live connection: a WebSocket that is asked for an echo and shows how long it took. */

import { byId, setText } from "./dom";

const PING_MS = 3000;
const RETRY_MS = [500, 1000, 2000, 5000] as const;

let failures = 0;

export function startEcho(): void {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/api/v1/ws`);
  let release = "";
  let timer = 0;

  const ping = (): void => socket.send(String(performance.now()));

  socket.addEventListener("message", ({ data }) => {
    const text = String(data);
    if (!release) {
      // The first message names the release, everything after it is an echo.
      release = (JSON.parse(text) as { release: string }).release;
      failures = 0;
      ping();
      return;
    }
    show("open", `${release}, ${Math.max(0, performance.now() - Number(text)).toFixed(0)} ms`);
    timer = setTimeout(ping, PING_MS);
  });
  socket.addEventListener("close", () => {
    clearTimeout(timer);
    show("waiting", "reconnecting …");
    setTimeout(startEcho, RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]);
    failures += 1;
  });
}

function show(state: "open" | "waiting", text: string): void {
  const indicator = byId("echo");
  indicator.dataset["state"] = state;
  setText(indicator, text);
}
