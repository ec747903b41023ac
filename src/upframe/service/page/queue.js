// Jobs: those that wait and run, and those that ended. The service has the list; events change it.

import { call } from "./api.js";
import { announce, bytes, decimal, duration, find, h, hasText, icon, iconButton, percent, remember, remembered, setText, size, t, toast } from "./dom.js";
import { ledgerList, noticeList, thumbnail } from "./parts.js";

const ENDED = ["done", "failed", "cancelled"];
const MOST_ACTIVE = 100;
const PAGE = 50;

export class Queue {
  /** `onCompare` and `onAgain` get a job. */
  constructor({ onCompare, onAgain, onChange }) {
    Object.assign(this, { onCompare, onAgain, onChange, jobs: new Map(), rows: new Map(), shown: PAGE, paused: false });
    this.tells = remembered("tells") ?? false;
    find("#pause").addEventListener("click", () => this.act(() => call("PATCH", "/api/queue", { paused: !this.paused }), ({ paused }) => {
      this.paused = paused;
      this.draw();
    }));
    find("#clear").addEventListener("click", () => this.clear());
    find("#older").addEventListener("click", () => {
      this.shown += PAGE;
      this.draw();
    });
    find("#notify").addEventListener("click", () => this.askToTell());
  }

  /** Load the whole list; the number of its last event. */
  async load() {
    const [active, ended, queue] = await Promise.all([
      listed("queued", "running", "paused"), listed(...ENDED), call("GET", "/api/queue"),
    ]);
    this.paused = queue.paused;
    this.jobs = new Map([...active.jobs, ...ended.jobs].map((job) => [job.id, job]));
    this.draw();
    return Math.min(active.last_event, ended.last_event);
  }

  hear(event) {
    const before = this.jobs.get(event.job);
    if (event.event === "deleted" || !event.state) this.jobs.delete(event.job);
    else this.jobs.set(event.job, event.state);
    if (["done", "failed"].includes(event.event) && event.state?.state === event.event && before?.state !== event.event) this.tell(event.state);
    if (event.event === "moved") this.reloadSoon();
    this.drawSoon();
  }

  /** Positions of other jobs may have changed with one. */
  reloadSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load().catch(() => {}), 200);
  }

  get active() {
    return [...this.jobs.values()].filter((job) => !ENDED.includes(job.state)).sort((a, b) => a.position - b.position);
  }

  get ended() {
    return [...this.jobs.values()].filter((job) => ENDED.includes(job.state)).sort((a, b) => (b.ended ?? 0) - (a.ended ?? 0));
  }

  get done() {
    return this.ended.filter((job) => job.state === "done");
  }

  // Wishes
  async act(ask, then = (job) => job && this.jobs.set(job.id, job)) {
    try {
      then(await ask());
    } catch (error) {
      toast(error.message, "error");
    }
    this.draw();
  }

  do(job, what, body) {
    return this.act(() => call("POST", `/api/jobs/${job.id}/${what}`, body));
  }

  delete(job) {
    return this.act(() => call("DELETE", `/api/jobs/${job.id}`), () => this.jobs.delete(job.id));
  }

  move(job, by) {
    const list = this.active.filter((one) => one.state !== "running");
    const at = list.findIndex((one) => one.id === job.id);
    const others = list.filter((one) => one.id !== job.id);
    const before = others[at + by]?.id ?? null;
    if (at + by < 0 || at + by > others.length) return Promise.resolve();
    return this.act(() => call("POST", `/api/jobs/${job.id}/move`, { before }), (moved) => {
      this.jobs.set(moved.id, moved);
      this.reloadSoon();
    });
  }

  async clear() {
    const ended = this.ended;
    if (!window.confirm(t("sure_clear", { n: ended.length }))) return;
    for (const job of ended) await this.delete(job);
  }

  // Telling
  async askToTell() {
    if (!this.tells && (await Notification.requestPermission()) !== "granted") {
      toast(t("notify_no"), "error");
      return;
    }
    this.tells = !this.tells;
    remember("tells", this.tells);
    if (this.tells) toast(t("notify_on"));
    this.draw();
  }

  tell(job) {
    const text = t(job.state === "done" ? "note_done" : "note_failed", { name: job.name });
    announce(job.error ? `${text}: ${job.error.error}` : text);
    if (this.tells && document.hidden && Notification.permission === "granted") {
      const note = new Notification(text, { tag: job.id, icon: `/api/jobs/${job.id}/thumbnail?of=input` });
      note.onclick = () => window.focus();
    }
  }

  // Drawing
  drawSoon() {
    this.frame ??= setTimeout(() => {
      this.frame = null;
      this.draw();
    }, 60);
  }

  draw() {
    const { active, ended, done } = this;
    this.fill(find("#active ul"), active.slice(0, MOST_ACTIVE));
    this.fill(find("#ended ul"), ended.slice(0, this.shown));
    for (const [id, row] of this.rows) if (!row.element.isConnected) this.rows.delete(id);
    find("#active").hidden = !active.length && !this.paused;
    find("#ended").hidden = !ended.length;
    const hidden = active.length - MOST_ACTIVE;
    setText(find("#rest"), hidden > 0 ? t("more_rows", { n: hidden }) : this.paused ? t("queue_paused") : "");
    find("#older").hidden = ended.length <= this.shown;
    setText(find("#pause span"), t(this.paused ? "resume_queue" : "pause_queue"));
    find("#pause use").setAttribute("href", this.paused ? "#i-play" : "#i-pause");
    find("#notify").setAttribute("aria-pressed", String(this.tells));
    find("#notify").hidden = !("Notification" in window);
    find("#all").hidden = done.length < 2;
    find("#all").href = `/api/zip?${done.slice(0, 1000).map((job) => `job=${job.id}`).join("&")}`;
    this.title(active);
    this.onChange();
  }

  title(active) {
    const running = active.find((job) => job.state === "running");
    document.title = running ? `${percent(running.progress?.done ?? 0)} · upframe` : "upframe";
  }

  /** Lay rows in order. Those that are in place stay untouched, so that focus and open details are kept. */
  fill(list, jobs) {
    const focused = this.jobOf(document.activeElement);
    jobs.forEach((job, index) => {
      let row = this.rows.get(job.id);
      if (!row) this.rows.set(job.id, (row = new Row(this, job)));
      row.update(job);
      if (list.children[index] !== row.element) list.insertBefore(row.element, list.children[index] ?? null);
    });
    while (list.children.length > jobs.length) list.lastElementChild.remove();
    if (focused && !document.activeElement?.closest(".row")) (this.rows.get(focused)?.first() ?? find("#choose")).focus();
  }

  jobOf(element) {
    return element?.closest?.("[data-job]")?.dataset.job;
  }

  redraw() {
    this.rows.clear();
    for (const list of document.querySelectorAll("#active ul, #ended ul")) list.replaceChildren();
    this.draw();
  }
}

/** All jobs of these states; of very many the latest thousand, since only these are shown. */
async function listed(...states) {
  const where = states.map((state) => `state=${state}`).join("&");
  const first = await call("GET", `/api/jobs?${where}&limit=1000`);
  if (first.total <= 1000 || !ENDED.includes(states[0])) return first;
  return { ...(await call("GET", `/api/jobs?${where}&limit=1000&offset=${first.total - 1000}`)), last_event: first.last_event };
}

/** One job. Its buttons change with its state alone. */
class Row {
  constructor(queue, job) {
    this.queue = queue;
    this.thumb = h("span", { class: "thumb" });
    this.state = h("span", { class: "state" });
    this.actions = h("div", { class: "actions" });
    this.bar = h("progress", { max: 1, "aria-label": t("progress_of", { name: job.name }) });
    this.facts = h("p", { class: "facts" });
    this.error = h("p", { class: "error" });
    this.details = h("div", { class: "details" });
    this.element = h("li", { class: "row", "data-job": job.id }, this.thumb,
      h("div", { class: "body" },
        h("div", { class: "head" }, h("div", { class: "name" }, h("h3", { title: job.name }, job.name), this.state), this.actions),
        this.bar, this.facts, this.error, this.details));
  }

  first() {
    return this.actions.querySelector("a, button");
  }

  update(job) {
    if (this.seen !== job.state) this.change(job);
    this.job = job;
    this.bar.value = job.progress?.done ?? 0;
    setText(this.facts, this.text(job));
    setText(this.error, job.error?.error ?? "");
    const told = `${job.notices.length} ${job.ledger.length} ${job.plan?.ledger.length}`;
    if (told !== this.told) {
      this.told = told;
      const isDone = job.state === "done";
      this.details.replaceChildren(noticeList(job.notices), ledgerList(isDone ? job.ledger : (job.plan?.ledger ?? [])));
    }
  }

  /** Buttons, picture and bar of a new state. */
  change(job) {
    this.seen = job.state;
    this.told = null;
    const hadFocus = this.actions.contains(document.activeElement);
    this.element.dataset.state = job.state;
    setText(this.state, t(`s_${job.state}`));
    this.bar.hidden = !["running", "paused"].includes(job.state);
    this.actions.replaceChildren(...this.buttons(job));
    const of = job.state === "done" ? "output" : "input";
    const picture = job.state === "failed" ? h("span", { class: "thumb" }) : thumbnail(`/api/jobs/${job.id}/thumbnail?of=${of}`);
    this.thumb.replaceWith(picture);
    this.thumb = picture;
    if (hadFocus) this.first()?.focus();
  }

  buttons(job) {
    const act = (name, label, what) => iconButton(name, t(label), () => this.queue.do(this.job, what));
    const order = [
      iconButton("up", t("up"), () => this.queue.move(this.job, -1)),
      iconButton("down", t("down"), () => this.queue.move(this.job, 1)),
    ];
    const remove = iconButton("delete", t("delete"), () => this.queue.delete(this.job));
    const again = iconButton("again", t("again"), () => this.queue.onAgain(this.job));
    const cancel = act("close", "cancel", "cancel");
    switch (job.state) {
      case "queued": return [...order, act("pause", "pause", "pause"), cancel];
      case "paused": return [...order, act("play", "resume", "resume"), cancel];
      case "running": return [act("pause", "pause", "pause"), cancel];
      case "done": return [
        h("button", { type: "button", onclick: () => this.queue.onCompare(this.job) }, t("compare")),
        h("a", { class: "button", href: `/api/jobs/${job.id}/output`, download: job.output.name }, icon("download"), t("download")),
        again, remove,
      ];
      default: return [h("button", { type: "button", onclick: () => this.queue.do(this.job, "retry") }, t("retry")), again, remove];
    }
  }

  text(job) {
    const { plan, progress, output } = job;
    const made = output ? [size(output.size), bytes(output.bytes), duration(output.seconds)] : plan ? [`${size(plan.input_size)} → ${size(plan.size)}`] : [];
    if (job.state === "running" && progress) {
      return [
        percent(progress.done),
        progress.frames > 1 && progress.frame !== null
          ? t("frame_of", { frame: progress.frame, frames: progress.frames })
          : hasText(`st_${progress.stage}`) ? t(`st_${progress.stage}`) : progress.stage,
        progress.frames_per_s && t("fps", { n: decimal(progress.frames_per_s, 1) }),
        progress.seconds_left !== null && t("left", { time: duration(progress.seconds_left) }),
      ].filter(Boolean).join(" · ");
    }
    if (made.length) return [...made, plan?.model].filter(Boolean).join(" · ");
    return [bytes(job.input_bytes), job.options.scale && t("times", { n: job.options.scale }), job.options.model].filter(Boolean).join(" · ");
  }
}
