// The service: requests, uploads in chunks, and events.

import { t } from "./dom.js";

/** The service's one-line message; `status` 0 means that it did not answer. */
export class ServiceError extends Error {
  constructor(body, status) {
    super(body.error);
    this.status = status;
    this.option = body.option ?? null;
  }
}

let askForToken = async () => {};
export const onToken = (ask) => (askForToken = ask);

async function answer(path, request) {
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError({ error: t("unreachable") }, 0);
  }
  if (response.status === 401 && path !== "/api/login") {
    await askForToken();
    return answer(path, request);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({ error: `${response.status} ${response.statusText}` }));
  throw new ServiceError(body, response.status);
}

export async function call(method, path, body, signal) {
  const request = { method, signal };
  if (body !== undefined) {
    request.headers = { "content-type": "application/json" };
    request.body = JSON.stringify(body);
  }
  const response = await answer(path, request);
  return response.status === 204 ? null : response.json();
}

export const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** Wait until a view has been made. `onShare` hears the share that is done. */
export async function viewReady(path, onShare, signal) {
  for (;;) {
    const response = await answer(path, { headers: { range: "bytes=0-0" }, signal });
    if (response.status !== 202) return path;
    onShare((await response.json()).done);
    await wait(700);
    if (signal?.aborted) throw new DOMException("", "AbortError");
  }
}

// Uploads -------------------------------------------------------------------------------------------------------------
const CHUNK = 4 << 20;

/** Send a file, from where an earlier upload of it stopped. After an interruption it goes on by itself. */
export async function sendFile(file, upload, { onProgress, onBroken, signal }) {
  let failures = 0;
  while (upload.offset < upload.length) {
    try {
      upload = await (
        await answer(`/api/uploads/${upload.id}`, {
          method: "PATCH",
          signal,
          headers: { "upload-offset": upload.offset, "content-type": "application/offset+octet-stream" },
          body: file.slice(upload.offset, upload.offset + CHUNK),
        })
      ).json();
      failures = 0;
      onProgress(upload);
    } catch (error) {
      const mayPass = error instanceof ServiceError && [0, 408, 409].includes(error.status);
      if (!mayPass || (error.status === 409 && failures > 20)) throw error;
      failures += 1;
      onBroken(error);
      await wait(Math.min(500 * failures, 5000));
      upload = await call("GET", `/api/uploads/${upload.id}`, undefined, signal).catch((again) => {
        if (again.status === 0) return upload;
        throw again;
      });
    }
  }
  return upload;
}

/** Run so many at once, in the order of their coming. */
export function pool(most) {
  const waiting = [];
  let running = 0;
  const next = () => {
    if (running >= most || !waiting.length) return;
    running += 1;
    const { work, resolve, reject } = waiting.shift();
    work()
      .then(resolve, reject)
      .finally(() => {
        running -= 1;
        next();
      });
  };
  return (work) =>
    new Promise((resolve, reject) => {
      waiting.push({ work, resolve, reject });
      next();
    });
}

// Events --------------------------------------------------------------------------------------------------------------
const NAMES = "queued started progress notice video paused done failed cancelled moved deleted".split(" ");

/** Listen to all jobs from event `last` on. The browser connects again by itself; where it gives up, this does. */
export function listen(last, { onEvent, onLost, onBack }) {
  let source = null;
  let isLost = false;
  const open = () => {
    source = new EventSource(`/api/events?after=${last}`);
    source.onopen = () => {
      if (isLost) onBack();
      isLost = false;
    };
    source.onerror = () => {
      if (!isLost) onLost();
      isLost = true;
      if (source.readyState === EventSource.CLOSED) setTimeout(open, 2000);
    };
    for (const name of NAMES) {
      source.addEventListener(name, (message) => {
        const event = JSON.parse(message.data);
        if (event.id !== null) last = event.id;
        onEvent(event);
      });
    }
  };
  open();
}
