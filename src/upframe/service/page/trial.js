// Try before you start: one spot of a picture, or one moment of a video, by every suitable model side by side.

import { call, viewReady } from "./api.js";
import { announce, clock, decimal, duration, find, h, percent, setText, t } from "./dom.js";

const SIDE = 128;
const STEP = 0.02;

export class Trial {
  constructor(settings) {
    this.settings = settings;
    this.dialog = find("#trial");
    this.spot = { x: 0.5, y: 0.5 };
    this.place = find("#trial-place");
    this.place.addEventListener("click", (event) => this.click(event));
    this.place.addEventListener("keydown", (event) => this.key(event));
    find("#trial-crop").addEventListener("click", () => this.run());
    find("#trial-clip").addEventListener("click", () => this.run(2));
    find("#trial-time").addEventListener("input", ({ target }) => this.seek(Number(target.value)));
    this.dialog.addEventListener("close", () => this.end());
    window.addEventListener("resize", () => this.mark());
  }

  /** `subject` has name, kind, source, options(), plan, a path for its view, and `choose(model)`. */
  async open(subject) {
    this.subject = subject;
    this.spot = { x: 0.5, y: 0.5 };
    this.time = 0;
    this.view?.abort();
    this.view = new AbortController();
    const isVideo = subject.kind === "video";
    setText(find("#trial h2"), `${t("try_h")}: ${subject.name}`);
    setText(find("#trial-help"), t(isVideo ? "try_video" : "try_pick"));
    find("#trial-clip").hidden = find("#trial-moment").hidden = !isVideo;
    find("#trial-results").replaceChildren();
    setText(find("#trial-scores"), "");
    this.place.replaceChildren(h("p", { class: "soft" }, t("making_view", { percent: percent(0) })));
    this.dialog.showModal();
    this.run();
    try {
      await this.show(subject, isVideo);
    } catch (error) {
      if (error.name !== "AbortError") this.place.replaceChildren(h("p", { class: "error" }, error.message));
    }
  }

  async show(subject, isVideo) {
    const signal = this.view.signal;
    const path = await viewReady(subject.view, (share) => setText(this.place.firstElementChild, t("making_view", { percent: percent(share) })), signal);
    const picture = isVideo ? h("video", { src: path, muted: true, playsinline: true, preload: "auto" }) : h("img", { src: path, alt: "", draggable: "false" });
    this.square = h("span", { class: "square-mark" });
    const ready = new Promise((done, failed) => {
      picture.addEventListener(isVideo ? "loadeddata" : "load", done, { once: true });
      picture.addEventListener("error", failed, { once: true });
    });
    this.place.replaceChildren(picture, this.square);
    await ready;
    if (isVideo) find("#trial-time").max = Math.max(picture.duration - 0.04, 0);
    this.seek(0);
    this.mark();
  }

  get picture() {
    return this.place.querySelector("img, video");
  }

  seek(time) {
    this.time = time;
    find("#trial-time").value = time;
    setText(find("#trial-clock"), clock(time));
    if (this.picture?.duration) this.picture.currentTime = time;
  }

  /** Draw the square around the spot, as large as the crop. */
  mark() {
    const { picture } = this;
    if (!picture || !this.square || !this.dialog.open) return;
    const [width, height] = [picture.naturalWidth || picture.videoWidth, picture.naturalHeight || picture.videoHeight];
    const input = this.subject.plan?.input_size ?? { width, height };
    const longest = Math.max(input.width, input.height);
    const shown = picture.getBoundingClientRect();
    const side = (SIDE / longest) * Math.max(shown.width, shown.height);
    const outer = this.place.getBoundingClientRect();
    const within = (at, full) => Math.min(Math.max(at * full - side / 2, 0), Math.max(full - side, 0));
    Object.assign(this.square.style, {
      width: `${Math.min(side, shown.width)}px`, height: `${Math.min(side, shown.height)}px`,
      left: `${shown.left - outer.left + within(this.spot.x, shown.width)}px`,
      top: `${shown.top - outer.top + within(this.spot.y, shown.height)}px`,
    });
  }

  /** Put the middle of the crop there, as far as all of the crop lies in the picture. */
  moveTo(x, y) {
    const input = this.subject.plan?.input_size;
    const within = (at, full) => {
      const half = Math.min(input ? SIDE / full / 2 : 0, 0.5);
      return Math.min(Math.max(at, half), 1 - half);
    };
    this.spot = { x: within(x, input?.width), y: within(y, input?.height) };
    this.mark();
  }

  click(event) {
    const shown = this.picture?.getBoundingClientRect();
    if (!shown?.width) return;
    this.moveTo((event.clientX - shown.left) / shown.width, (event.clientY - shown.top) / shown.height);
    this.run();
  }

  key(event) {
    const move = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    if (move) {
      this.moveTo(this.spot.x + move[0], this.spot.y + move[1]);
      setText(this.place.parentElement.querySelector(".spoken"), `${percent(this.spot.x)}, ${percent(this.spot.y)}`);
    } else if (event.key === "Enter") this.run();
    else return;
    event.preventDefault();
  }

  /** Start a trial, and show each result as it comes. A newer one takes its place. */
  async run(clip = null) {
    this.stopTrial();
    const stop = (this.stop = new AbortController());
    const { subject } = this;
    const isVideo = subject.kind === "video";
    const wish = { source: subject.source, options: subject.options(), spot: { ...this.spot }, side: SIDE };
    delete wish.options.model;
    if (isVideo) Object.assign(wish, { time: this.time, clip_seconds: clip });
    this.tiles = new Map();
    find("#trial-results").replaceChildren();
    try {
      let trial = await call("POST", "/api/trials", wish, stop.signal);
      this.id = trial.id;
      this.draw(trial, clip !== null);
      while (trial.state === "running") {
        trial = await call("GET", `/api/trials/${trial.id}?wait_s=10`, undefined, stop.signal);
        this.draw(trial, clip !== null);
      }
      if (trial.error) throw new Error(trial.error.error);
      announce(t("s_done"));
    } catch (error) {
      if (error.name !== "AbortError") find("#trial-results").append(h("li", { class: "error" }, error.message));
    }
  }

  draw(trial, isClip) {
    if (trial.scores) {
      const { noise, blockiness, suggested } = trial.scores;
      setText(find("#trial-scores"), t(suggested ? "why_degraded" : "why_clean", { noise: decimal(noise, 1), blocks: decimal(blockiness, 2) }));
    }
    for (const result of trial.results) {
      const seen = this.tiles.get(result.model);
      if (seen?.state === result.state) continue;
      const element = this.tile(result, isClip, trial.scores?.suggested);
      if (seen) seen.element.replaceWith(element);
      else find("#trial-results").append(element);
      this.tiles.set(result.model, { state: result.state, element });
    }
    if (isClip) this.playInStep();
  }

  tile(result, isClip, suggested) {
    const isBefore = result.model === "before";
    const name = isBefore ? t("before") : result.model;
    let shown;
    if (result.state === "done") {
      shown = isClip
        ? h("video", { src: result.url, muted: true, loop: true, playsinline: true, "aria-label": name })
        : h("img", { src: result.url, alt: name });
    } else {
      shown = h("div", { class: `blank ${result.state === "running" ? "busy" : ""}` },
        result.error ? h("p", { class: "error" }, result.error.error) : t(result.state === "running" ? "trying" : "waits"));
    }
    const inUse = !isBefore && this.subject.model() === result.model;
    const use = isBefore ? "" : h("button", {
      type: "button", class: result.model === suggested ? "main" : "", disabled: result.state === "failed",
      onclick: () => this.use(result.model),
    }, t(inUse ? "in_use" : "use"));
    return h("li", { class: inUse ? "tile chosen" : "tile" }, shown, h("div", { class: "head" },
      h("div", {}, h("b", {}, name), h("small", {}, [this.about(result.model), result.seconds !== null && !isBefore && duration(result.seconds)]
        .filter(Boolean).join(" · "))), use));
  }

  about(name) {
    const model = this.settings.models.find((one) => one.name === name);
    return model ? [t(model.for_drawings ? "drawings" : model.for_degraded ? "degraded" : "clean_photo"), model.kind === "video" && t("many_frames")].filter(Boolean).join(", ") : "";
  }

  /** All clips begin together and stay so. */
  playInStep() {
    const clips = [...this.dialog.querySelectorAll("#trial-results video")];
    for (const clip of clips) {
      clip.muted = true; // the attribute alone does not count for elements made by code
      clip.currentTime = 0;
      clip.play().catch(() => {});
    }
  }

  use(model) {
    this.subject.choose(model);
    this.dialog.close();
  }

  stopTrial() {
    this.stop?.abort();
    if (this.id) call("DELETE", `/api/trials/${this.id}`).catch(() => {});
    this.id = null;
  }

  end() {
    this.stopTrial();
    this.view?.abort();
    this.place.replaceChildren();
  }
}
