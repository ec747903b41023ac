// Files that are not started yet: their uploads, plans and the automatic choice. After a reload they are found again.

import { ServiceError, call, pool, sendFile } from "./api.js";
import {
  announce, bytes, decimal, duration, find, h, iconButton, percent, remember, remembered, setText, size, t, toast,
} from "./dom.js";
import { ledgerList, noticeList, thumbnail } from "./parts.js";

const MOST_NAMED = 4;
const sending = pool(2);
const asking = pool(2);

class Draft {
  /** A file of the user's, an upload of earlier, or a file that the server has (`served`). */
  constructor(drafts, { file = null, upload = null, served = null }) {
    Object.assign(this, { drafts, file, upload, served, plan: null, error: null, facts: null, wish: 0, isBroken: false });
    this.stop = new AbortController();
    this.name = (served ?? upload ?? file).name;
    this.length = upload?.length ?? file?.size;
    this.build();
  }

  get isComplete() {
    return this.served !== null || (this.upload !== null && this.upload.offset === this.upload.length);
  }

  get kind() {
    return this.plan?.kind ?? (this.served ?? this.upload)?.kind ?? "photo";
  }

  get source() {
    return this.served ? { path: this.served.path } : { upload: this.upload.id };
  }

  /** Under which this browser remembers the model that was chosen. */
  get key() {
    return this.served?.path ?? this.upload?.id;
  }

  get model() {
    return this.drafts.chosen[this.key];
  }

  set model(name) {
    this.drafts.remember(this.key, name);
    this.makePlan();
  }

  /** Address of its "thumbnail" or "preview". */
  view(what) {
    return this.served ? `/api/files/${what}?${new URLSearchParams({ path: this.served.path })}` : `/api/uploads/${this.upload.id}/${what}`;
  }

  options() {
    return this.drafts.settings.options(this.kind, this.facts?.scores?.suggested, this.model);
  }

  // Work
  async send() {
    try {
      this.upload ??= await call("POST", "/api/uploads", { name: this.name, length: this.length }, this.stop.signal);
      this.update();
      this.upload = await sendFile(this.file, this.upload, {
        signal: this.stop.signal,
        onProgress: (upload) => {
          this.upload = upload;
          this.isBroken = false;
          this.update();
        },
        onBroken: () => {
          this.isBroken = true;
          this.update();
        },
      });
      this.isBroken = false;
      this.ready();
    } catch (error) {
      this.fail(error);
    }
  }

  ready() {
    this.drafts.changed();
    this.makePlan();
  }

  /** Ask for the plan; an answer to older settings is ignored. */
  async makePlan() {
    if (!this.isComplete) return;
    const wish = ++this.wish;
    this.plan = this.error = null;
    this.update();
    try {
      if (this.drafts.settings.isAutomatic(this.kind) && !this.facts) await asking(() => this.look());
      const plan = await asking(async () =>
        wish === this.wish ? call("POST", "/api/plans", { source: this.source, options: this.options() }, this.stop.signal) : null);
      if (wish !== this.wish) return;
      this.plan = plan;
      this.picture();
      this.update();
      this.drafts.changed();
    } catch (error) {
      if (wish === this.wish) this.fail(error);
    }
  }

  /** Let the service measure noise and blocks. A file that cannot be measured has its plan say why. */
  async look() {
    const asked = await call("POST", "/api/trials", { source: this.source, models: [], side: 16 }, this.stop.signal).catch(ignore);
    if (!asked) return;
    let trial = asked;
    for (let turn = 0; trial.state === "running" && !trial.scores && turn < 20; turn += 1) {
      trial = await call("GET", `/api/trials/${asked.id}?wait_s=5`, undefined, this.stop.signal).catch(ignore) ?? { state: "failed" };
    }
    this.facts = { scores: trial.scores ?? null };
    if (trial.state !== "running") call("DELETE", `/api/trials/${asked.id}`).catch(ignore);
  }

  async start(batch) {
    const job = await call("POST", "/api/jobs", { source: this.source, options: this.options(), batch });
    this.drafts.remove(this);
    this.forgetUpload(); // the job has taken the file
    return job;
  }

  discard() {
    this.stop.abort();
    this.drafts.remove(this);
    this.forgetUpload();
  }

  forgetUpload() {
    if (this.upload) call("DELETE", `/api/uploads/${this.upload.id}`).catch(ignore);
  }

  fail(error) {
    if (error.name === "AbortError") return;
    this.error = error;
    if (error.option) this.drafts.settings.mark(error.option);
    this.update();
    this.drafts.changed();
  }

  // The row
  build() {
    this.thumb = h("span", { class: "thumb" });
    this.facts_line = h("p", { class: "facts" });
    this.why_line = h("p", { class: "soft" });
    this.error_line = h("p", { class: "error" });
    this.bar = h("progress", { max: 1, "aria-label": t("progress_of", { name: this.name }) });
    this.details = h("div", { class: "details" });
    this.try_button = h("button", { type: "button", onclick: () => this.drafts.onTry(this) }, t("try"));
    this.start_button = h("button", { type: "button", onclick: () => this.drafts.start([this]) }, t("start"));
    this.row = h("li", { class: "row" }, this.thumb,
      h("div", { class: "body" },
        h("div", { class: "head" }, h("h3", { title: this.name }, this.name),
          h("div", { class: "actions" }, this.try_button, this.start_button,
            iconButton("close", t("remove"), () => this.discard()))),
        this.bar, this.facts_line, this.why_line, this.error_line, this.details));
  }

  /** Show a small picture of a file that can be read. */
  picture() {
    if (this.thumb.matches("img")) return;
    const shown = thumbnail(this.view("thumbnail"));
    this.thumb.replaceWith(shown);
    this.thumb = shown;
  }

  update() {
    const { plan, upload } = this;
    const share = upload ? upload.offset / upload.length : 0;
    this.bar.hidden = this.isComplete || (upload && !this.file);
    this.bar.value = share;
    this.try_button.disabled = this.start_button.disabled = !plan;
    setText(this.error_line, this.error?.message ?? "");
    setText(this.facts_line, this.error ? "" : this.facts_text(share));
    this.facts_line.classList.toggle("busy", this.isComplete && !plan && !this.error);
    this.why_line.replaceChildren(...(plan ? this.why() : []));
    this.details.replaceChildren(...(plan ? [noticeList(plan.notices), ledgerList(plan.ledger)] : []));
  }

  facts_text(share) {
    const { plan, upload } = this;
    if (!upload && !this.served) return t("waiting_upload");
    if (!this.isComplete && !this.file) return t("upload_lost", { percent: percent(share) });
    if (!this.isComplete) return this.isBroken ? t("retrying") : `${t("uploading", { percent: percent(share) })} · ${bytes(upload.length)}`;
    if (!plan) return t("planning");
    return [
      `${size(plan.input_size)} → ${size(plan.size)}`,
      plan.format.toUpperCase(),
      plan.video?.seconds && t("seconds_of", { time: duration(plan.video.seconds) }),
      plan.seconds === null ? t("no_time") : t("takes", { time: duration(plan.seconds) }),
      t("memory", { bytes: bytes(plan.memory_bytes) }),
      t("about_bytes", { bytes: bytes(plan.file_bytes) }),
    ].filter(Boolean).join(" · ");
  }

  why() {
    const parts = [h("b", {}, this.plan.model)];
    const scores = this.facts?.scores;
    if (this.model) {
      parts.push(` · ${t("chosen_for", { model: this.model })} `,
        h("button", { type: "button", class: "link", onclick: () => (this.model = undefined) }, t("unchoose")));
    } else if (scores && this.drafts.settings.isAutomatic(this.kind)) {
      const values = { noise: decimal(scores.noise, 1), blocks: decimal(scores.blockiness, 2) };
      parts.push(` · ${t(scores.suggested ? "why_degraded" : "why_clean", values)}`);
    }
    return parts;
  }
}

const ignore = () => undefined;

export class Drafts {
  constructor(settings, { onTry, onChange }) {
    Object.assign(this, { settings, onTry, onChange, list: [], chosen: remembered("models") ?? {}, served: remembered("served") ?? [] });
  }

  /** Find the uploads of earlier. */
  async restore() {
    const { uploads } = await call("GET", "/api/uploads");
    const known = new Set([...uploads.map((upload) => upload.id), ...this.served.map((file) => file.path)]);
    this.chosen = Object.fromEntries(Object.entries(this.chosen).filter(([id]) => known.has(id)));
    for (const upload of uploads) {
      const draft = this.insert(new Draft(this, { upload }));
      draft.update();
      if (draft.isComplete) draft.ready();
    }
    this.addServed(this.served);
    this.changed();
  }

  /** Add files of the server; one that is there already is not added again. */
  addServed(files) {
    const known = new Set(this.list.map((draft) => draft.served?.path));
    for (const served of files.filter((file) => !known.has(file.path))) this.insert(new Draft(this, { served })).makePlan();
    this.changed();
  }

  /** Add files; one whose upload was interrupted goes on. */
  add(files) {
    for (const file of files) {
      const stopped = this.list.find((one) => !one.file && !one.isComplete && one.name === file.name && one.length === file.size);
      const draft = stopped ?? this.insert(new Draft(this, { file }));
      draft.file = file;
      draft.update();
      sending(() => (this.list.includes(draft) ? draft.send() : Promise.resolve()));
    }
    this.changed();
  }

  insert(draft) {
    this.list.push(draft);
    find("#drafts ul").append(draft.row);
    return draft;
  }

  remove(draft) {
    const at = this.list.indexOf(draft);
    if (at < 0) return;
    const hadFocus = draft.row.contains(document.activeElement);
    this.list.splice(at, 1);
    draft.thumb.removeAttribute("src"); // what still loads is not there any more
    draft.row.remove();
    if (draft.key) this.remember(draft.key, undefined);
    this.changed();
    if (hadFocus) (this.list[Math.min(at, this.list.length - 1)]?.start_button ?? find("#choose")).focus();
  }

  remember(id, model) {
    if (model) this.chosen[id] = model;
    else delete this.chosen[id];
    remember("models", this.chosen);
  }

  /** Plan all anew, after the settings changed. */
  planAll() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.list.forEach((draft) => draft.makePlan()), 150);
  }

  get startable() {
    return this.list.filter((draft) => draft.plan);
  }

  async start(drafts = this.startable) {
    const batch = `b${Date.now().toString(36)}`;
    let count = 0;
    for (const draft of drafts) {
      try {
        await draft.start(batch);
        count += 1;
      } catch (error) {
        draft.fail(error);
        if (error instanceof ServiceError && [0, 429, 507].includes(error.status)) break;
      }
    }
    if (count) announce(t("added", { n: count }));
  }

  discardAll() {
    for (const draft of [...this.list]) draft.discard();
  }

  redraw() {
    for (const draft of this.list) {
      const old = draft.row;
      draft.build();
      old.replaceWith(draft.row);
      if (draft.plan) draft.picture();
      draft.update();
    }
    this.changed();
  }

  changed() {
    const count = this.startable.length;
    find("#drafts").hidden = !this.list.length;
    find("#start").disabled = !count;
    setText(find("#start"), t("start_all", { n: Math.max(count, 1) }));
    find("#discard").hidden = this.list.length < 2;
    remember("served", this.list.map((draft) => draft.served).filter(Boolean));
    this.settings.showKinds(new Set(this.list.length ? this.list.map((draft) => draft.kind) : ["photo", "video"]));
    this.onChange();
  }
}

// Files from a drop or a dialog ---------------------------------------------------------------------------------------
/** All files of a drop, those in folders too. Entries must be taken at once: later the drop is empty. */
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  return (await Promise.all(entries.filter(Boolean).map(filesOf))).flat();
}

async function filesOf(entry) {
  if (entry instanceof File) return [entry];
  if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) break;
    found.push(...some);
  }
  found.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return (await Promise.all(found.map(filesOf))).flat();
}

/** Leave aside what no input can be; tell which files these are, and why. */
export function usable(files, extensions) {
  const known = new Set(extensions);
  const fault = ({ name, size }) => !known.has(name.slice(name.lastIndexOf(".")).toLowerCase()) ? "not_read" : size ? null : "is_empty";
  const shown = files.filter((file) => !file.name.startsWith("."));
  const aside = shown.filter(fault);
  const good = shown.filter((file) => !fault(file));
  const named = aside.map((file) => t(fault(file), { name: file.name }));
  const first = named.splice(0, MOST_NAMED).join(", ");
  if (first) toast(t("skipped", { n: aside.length, named: first }), good.length ? "note" : "error", named);
  else if (!good.length) toast(t("nothing"), "error");
  return good;
}
