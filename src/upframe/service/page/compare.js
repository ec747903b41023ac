// Original and result of a job: slider, side by side, difference. Both are always at the same place, size and time.

import { viewReady } from "./api.js";
import { clock, find, h, percent, setText, t, toast } from "./dom.js";

const MODES = ["slider", "side", "difference"];
const MOST_ZOOM = 32;
const SMOOTH_BELOW = 4;
const APART_S = 0.05;

export class Compare {
  /** `results` gives the finished jobs, in the order of the list. */
  constructor(results) {
    this.results = results;
    this.dialog = find("#compare");
    this.stage = find("#stage");
    this.panes = [find("#pane-before"), find("#pane-after")];
    this.handle = find("#divider");
    this.split = 0.5;
    this.pointers = new Map();
    this.dialog.addEventListener("close", () => this.end());
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    for (const radio of document.querySelectorAll("[name=mode]")) radio.addEventListener("change", () => this.setMode(radio.value));
    const click = (id, act) => find(id).addEventListener("click", act);
    click("#fit", () => this.fit());
    click("#one", () => this.zoomTo(1 / devicePixelRatio));
    click("#zoom-in", () => this.zoomBy(1.5));
    click("#zoom-out", () => this.zoomBy(1 / 1.5));
    click("#next", () => this.step(1));
    click("#previous", () => this.step(-1));
    click("#play", () => this.toggle());
    click("#mute", () => this.setSound(this.after.muted));
    find("#gain").addEventListener("input", () => this.amplify());
    find("#seek").addEventListener("input", ({ target }) => this.seek(Number(target.value)));
    this.listenToPointers();
    new ResizeObserver(() => this.dialog.open && this.width && (this.isFitted ? this.fit() : this.draw())).observe(this.stage);
  }

  async open(job) {
    this.end();
    const stop = (this.loading = new AbortController());
    this.job = job;
    this.isVideo = job.kind === "video";
    const many = this.results().length > 1;
    setText(find("#compare h2"), job.name);
    setText(find("#compare-facts"), `${job.plan?.model ?? ""} · ${job.output.size.width} × ${job.output.size.height}`);
    find("#next").hidden = find("#previous").hidden = !many;
    find("#compare-save").href = `/api/jobs/${job.id}/output`;
    find("#compare-save").setAttribute("download", job.output.name);
    find("#player").hidden = !this.isVideo;
    const told = find("#stage-told");
    told.hidden = false;
    setText(told, t("making_view", { percent: percent(0) }));
    if (!this.dialog.open) this.dialog.showModal();
    this.setMode(this.mode ?? "slider");
    try {
      const shares = [0, 0];
      await Promise.all(["input", "output"].map(async (of, index) => {
        const path = await viewReady(`/api/jobs/${job.id}/preview?of=${of}`, (share) => {
          shares[index] = share;
          setText(told, t("making_view", { percent: percent(Math.max(...shares)) }));
        }, stop.signal);
        const shown = this.isVideo
          ? h("video", { muted: true, playsinline: true, preload: "auto", loop: true })
          : h("img", { alt: t(index ? "after" : "before"), draggable: "false", decoding: "sync" });
        const ready = new Promise((done, failed) => {
          shown.addEventListener(this.isVideo ? "loadeddata" : "load", done, { once: true });
          shown.addEventListener("error", () => failed(new Error(t("unreachable"))), { once: true });
        });
        shown.src = path;
        this.panes[index].prepend(shown);
        await ready;
      }));
      if (stop.signal.aborted) return;
      this.begin();
      told.hidden = true;
    } catch (error) {
      if (error.name !== "AbortError") setText(told, error.message);
    }
  }

  begin() {
    [this.before, this.after] = this.panes.map((pane) => pane.firstElementChild);
    this.width = this.after.naturalWidth || this.after.videoWidth;
    this.height = this.after.naturalHeight || this.after.videoHeight;
    for (const shown of [this.before, this.after]) {
      shown.style.width = `${this.width}px`;
      shown.style.height = `${this.height}px`;
    }
    this.fit();
    if (this.isVideo) this.beginVideo();
  }

  end() {
    this.loading?.abort();
    cancelAnimationFrame(this.frame);
    for (const pane of this.panes) pane.querySelector("img, video")?.remove();
    this.width = 0;
    this.before = this.after = null;
    this.pointers.clear();
  }

  step(by) {
    const list = this.results();
    const at = list.findIndex((job) => job.id === this.job.id);
    const next = list[(at + by + list.length) % list.length];
    if (next && next.id !== this.job.id) this.open(next);
  }

  // Place and size: `x` and `y` are where the picture's corner lies in its pane ------------------------------------------
  get pane() {
    const { width, height } = this.stage.getBoundingClientRect();
    const stacked = this.mode === "side" && width < height;
    return { width: this.mode === "side" && !stacked ? width / 2 : width, height: stacked ? height / 2 : height };
  }

  fit() {
    const { width, height } = this.pane;
    this.scale = Math.min(width / this.width, height / this.height);
    this.isFitted = true;
    this.x = this.y = 0;
    this.draw();
  }

  zoomBy(factor, at) {
    this.zoomTo(this.scale * factor, at);
  }

  /** Zoom so that the point `at` of the pane, its middle by default, stays where it is. */
  zoomTo(scale, at) {
    if (!this.width) return;
    const { width, height } = this.pane;
    const { x, y } = at ?? { x: width / 2, y: height / 2 };
    const least = Math.min(width / this.width, height / this.height, 1 / devicePixelRatio);
    const bounded = Math.min(Math.max(scale, least), MOST_ZOOM);
    this.x = x - ((x - this.x) * bounded) / this.scale;
    this.y = y - ((y - this.y) * bounded) / this.scale;
    this.scale = bounded;
    this.isFitted = false;
    this.draw();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.isFitted = false;
    this.draw();
  }

  draw() {
    if (!this.width) return;
    const { width, height } = this.pane;
    const kept = (at, shown, full) => (shown <= full ? (full - shown) / 2 : Math.min(Math.max(at, full - shown), 0));
    this.x = kept(this.x, this.width * this.scale, width);
    this.y = kept(this.y, this.height * this.scale, height);
    const transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    for (const shown of [this.before, this.after]) {
      shown.style.transform = transform;
      shown.classList.toggle("pixels", this.scale * devicePixelRatio >= SMOOTH_BELOW);
    }
    this.stage.style.setProperty("--split", `${this.split * 100}%`);
    this.handle.setAttribute("aria-valuenow", String(Math.round(this.split * 100)));
    setText(find("#zoom"), percent(this.scale * devicePixelRatio + 0.001));
  }

  setMode(mode) {
    this.mode = mode;
    this.stage.dataset.mode = mode;
    find(`[name=mode][value=${mode}]`).checked = true;
    find("#gain-field").hidden = mode !== "difference";
    this.amplify();
    if (this.width) (this.isFitted ? this.fit() : this.draw());
  }

  amplify() {
    this.stage.style.filter = this.mode === "difference" ? `brightness(${find("#gain").value})` : "";
  }

  setSplit(share) {
    this.split = Math.min(Math.max(share, 0), 1);
    this.draw();
  }

  // Pointers and keys -----------------------------------------------------------------------------------------------------
  listenToPointers() {
    const { stage, handle, pointers } = this;
    const place = (event) => {
      const outer = stage.getBoundingClientRect();
      const { width, height } = this.pane;
      return { x: (event.clientX - outer.left) % width, y: (event.clientY - outer.top) % height };
    };
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(2 ** (-event.deltaY / (event.ctrlKey ? 100 : 400)), place(event));
    }, { passive: false });
    stage.addEventListener("dblclick", (event) => (this.isFitted ? this.zoomTo(1 / devicePixelRatio, place(event)) : this.fit()));
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      stage.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, isHandle: handle.contains(event.target) });
    });
    stage.addEventListener("pointermove", (event) => {
      const last = pointers.get(event.pointerId);
      if (!last || !this.width) return;
      const outer = stage.getBoundingClientRect();
      if (last.isHandle) this.setSplit((event.clientX - outer.left) / outer.width);
      else if (pointers.size === 2) this.pinch(event, outer);
      else this.pan(event.clientX - last.x, event.clientY - last.y);
      Object.assign(last, { x: event.clientX, y: event.clientY });
    });
    for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }

  pinch(event, outer) {
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
    const last = this.pointers.get(event.pointerId);
    const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y);
    const now = { x: event.clientX, y: event.clientY };
    this.zoomBy(apart(now) / Math.max(apart(last), 1), { x: (now.x + other.x) / 2 - outer.left, y: (now.y + other.y) / 2 - outer.top });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isField = event.target.matches("input");
    const onHandle = event.target === this.handle;
    const acts = {
      s: () => this.setMode("slider"), b: () => this.setMode("side"), d: () => this.setMode("difference"),
      f: () => this.fit(), 0: () => this.fit(), 1: () => this.zoomTo(1 / devicePixelRatio),
      "+": () => this.zoomBy(1.5), "=": () => this.zoomBy(1.5), "-": () => this.zoomBy(1 / 1.5),
      n: () => this.step(1), p: () => this.step(-1),
      ",": () => this.frameBy(-1), ".": () => this.frameBy(1),
      ...(isField ? {} : {
        ArrowLeft: () => (onHandle ? this.setSplit(this.split - 0.02) : this.pan(60, 0)),
        ArrowRight: () => (onHandle ? this.setSplit(this.split + 0.02) : this.pan(-60, 0)),
        ArrowUp: () => this.pan(0, 60), ArrowDown: () => this.pan(0, -60),
        Home: () => this.setSplit(0), End: () => this.setSplit(1),
      }),
      ...(event.target.matches("button, a, input") ? {} : { " ": () => this.toggle() }),
    };
    const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || !this.width) return;
    event.preventDefault();
    act();
  }

  // Videos: the result leads, the original follows ------------------------------------------------------------------------
  beginVideo() {
    this.before.muted = this.after.muted = true;
    find("#seek").max = this.after.duration;
    find("#seek").step = 0.01;
    this.setSound(false);
    const follow = () => {
      if (!this.after) return;
      const isPlaying = !this.after.paused;
      if (isPlaying === this.before.paused) isPlaying ? this.before.play().catch(() => {}) : this.before.pause();
      const apart = Math.abs(this.before.currentTime - this.after.currentTime);
      if (!this.before.seeking && apart > (isPlaying ? APART_S : 0.001)) this.before.currentTime = this.after.currentTime;
      find("#seek").value = this.after.currentTime;
      setText(find("#clock"), `${clock(this.after.currentTime)} / ${clock(this.after.duration)}`);
      find("#play use").setAttribute("href", isPlaying ? "#i-pause" : "#i-play");
      find("#play").setAttribute("aria-label", t(isPlaying ? "pause_video" : "play"));
      this.frame = requestAnimationFrame(follow);
    };
    follow();
    this.after.play().catch((error) => toast(error.message, "error"));
  }

  toggle() {
    if (!this.isVideo || !this.after) return;
    if (this.after.paused) this.after.play().catch((error) => toast(error.message, "error"));
    else this.after.pause();
  }

  seek(time) {
    if (this.after) this.after.currentTime = this.before.currentTime = time;
  }

  frameBy(count) {
    if (!this.isVideo) return;
    this.after.pause();
    this.seek(Math.min(Math.max(this.after.currentTime + count / (this.job.plan?.video?.rate || 25), 0), this.after.duration));
  }

  setSound(isOn) {
    this.after.muted = !isOn;
    find("#mute").setAttribute("aria-pressed", String(isOn));
    find("#mute use").setAttribute("href", isOn ? "#i-sound" : "#i-silent");
  }
}
