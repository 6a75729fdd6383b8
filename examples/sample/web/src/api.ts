/** The client of the parcel API. Every call reports which release answered. */

export type Parcel = Record<string, string | number | null>;

/** What the form hands over: the values of its fields by name, empty ones left out. */
export type NewParcel = Record<string, string>;

export class ApiError extends Error {}

type ReleaseListener = (release: string) => void;

const ATTEMPTS = 3;
const PAUSE_MS = 500;

let onRelease: ReleaseListener = () => undefined;

/** Calls `listener` with the release named by every answer of the API. */
export function watchApiRelease(listener: ReleaseListener): void {
  onRelease = listener;
}

export async function listParcels(limit = 50): Promise<Parcel[]> {
  const response = await request(`/api/v1/parcels?limit=${limit}`);
  return (await response.json()) as Parcel[];
}

/**
 * Hands in a parcel. A lost answer does not say whether the parcel arrived, so the request is repeated under the
 * same idempotency key: the API stores it once.
 */
export async function handIn(parcel: NewParcel): Promise<Parcel> {
  const response = await request("/api/v1/parcels", {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": newKey() },
    body: JSON.stringify(parcel),
  });
  return (await response.json()) as Parcel;
}

async function request(path: string, options: RequestInit = {}): Promise<Response> {
  for (let attempt = 1; ; attempt += 1) {
    let response: Response | undefined;
    try {
      response = await fetch(path, { ...options, cache: "no-store" });
    } catch (error) {
      if (attempt === ATTEMPTS) throw new ApiError("The API cannot be reached.", { cause: error });
    }
    if (response) {
      if (response.headers.get("X-Service") === "api") onRelease(response.headers.get("X-Release") ?? "unknown");
      if (response.ok) return response;
      if (response.status < 500 || attempt === ATTEMPTS) throw new ApiError(await explain(response));
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * attempt));
  }
}

async function explain(response: Response): Promise<string> {
  try {
    const body = (await response.json()) as { detail?: unknown };
    if (typeof body.detail === "string") return body.detail;
  } catch {
    // Not JSON: the answer came from a proxy on the way, and its text is not meant for people.
  }
  return `The API answered with status ${response.status}.`;
}

/** A random UUID; crypto.randomUUID exists on HTTPS pages only, and a first test is often made over plain HTTP. */
function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
