/** Shows which release this page comes from and which ones answer now, and offers a newer page. */

import { watchApiRelease } from "./api";
import { byId, setText } from "./dom";

const CHECK_MS = 5000;

export function startReleases(): void {
  const page = document.querySelector<HTMLMetaElement>('meta[name="release"]')?.content ?? "unknown";
  watchApiRelease((release) => setText(byId("api-release"), release));
  byId("reload").addEventListener("click", () => location.reload());
  void check(page);
  setInterval(() => {
    if (!document.hidden) void check(page);
  }, CHECK_MS);
}

async function check(page: string): Promise<void> {
  try {
    const response = await fetch("/", { method: "HEAD", cache: "no-store" });
    const release = response.headers.get("X-Release");
    if (response.headers.get("X-Service") !== "web" || !release) throw new Error("not answered by the web service");
    setText(byId("web-release"), release);
    byId("update").hidden = release === page;
  } catch {
    setText(byId("web-release"), "no answer");
  }
}
