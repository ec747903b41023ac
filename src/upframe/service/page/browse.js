// Folders of the server that `--allow` opens: choose files that need no upload.

import { call } from "./api.js";
import { bytes, find, h, icon, setText, t } from "./dom.js";
import { thumbnail } from "./parts.js";

const PAGE = 100;
const MOST = 1000;
const listed = (path, offset, limit) =>
  call("GET", `/api/files?${new URLSearchParams({ ...(path && { path }), offset, limit })}`);

export class Browse {
  /** `onChosen` gets a list of files. */
  constructor({ onChosen }) {
    Object.assign(this, { dialog: find("#browse"), list: find("#browse-list"), all: find("#browse-all"), chosen: new Map(), boxes: new Map() });
    find("#browse-more").addEventListener("click", () => this.attempt(() => this.more()));
    this.all.addEventListener("change", () => this.attempt(() => this.chooseAll(this.all.checked)));
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    find("#browse-add").addEventListener("click", () => {
      onChosen([...this.chosen.values()]);
      this.dialog.close();
    });
  }

  async open() {
    this.chosen.clear();
    this.dialog.showModal();
    await this.show(this.folder?.path ?? null);
  }

  /** Show a folder; null is the list of all that are allowed, which is skipped if there is but one. */
  async show(path, from = null) {
    await this.attempt(async () => {
      let folder = await listed(path, 0, PAGE);
      if (!folder.path) this.isSingle = folder.total === 1;
      if (!folder.path && this.isSingle) folder = await listed(folder.files[0].path, 0, PAGE);
      this.folder = folder;
      this.boxes.clear();
      this.list.replaceChildren(...folder.files.map((entry) => this.row(entry)));
      this.drawTrail();
      this.draw();
      const rows = this.controls;
      (rows.find((one) => from && one.dataset.path === from) ?? rows[0] ?? find("#browse [data-close]")).focus();
    });
  }

  async more() {
    const { folder } = this;
    const seen = folder.files.length;
    const next = await listed(folder.path, seen, PAGE);
    folder.files.push(...next.files);
    folder.total = next.files.length ? next.total : seen; // what was removed meanwhile is not waited for
    this.list.append(...next.files.map((entry) => this.row(entry)));
    this.draw();
    this.controls[seen]?.focus();
  }

  /** All files of this folder, also those that are not shown yet. */
  async chooseAll(isWanted) {
    const { folder } = this;
    for (let offset = 0; offset < folder.total; offset += MOST) {
      for (const entry of (await listed(folder.path, offset, MOST)).files) this.choose(entry, isWanted);
    }
    this.draw();
  }

  choose(entry, isWanted) {
    if (entry.is_folder) return;
    if (isWanted) this.chosen.set(entry.path, entry);
    else this.chosen.delete(entry.path);
    const box = this.boxes.get(entry.path);
    if (box) box.checked = isWanted;
  }

  /** The service's refusals stand in the dialog. */
  async attempt(work) {
    const told = find("#browse .error");
    try {
      setText(told, "");
      await work();
    } catch (error) {
      setText(told, error.message);
      if (this.folder?.path && error.status === 404) this.folder = null; // the next time begins at the top
    }
  }

  // Drawing
  row(entry) {
    if (entry.is_folder) {
      return h("li", {}, h("button", { type: "button", class: "entry", "data-path": entry.path, onclick: () => this.show(entry.path) },
        icon("folder"), h("span", {}, entry.name)));
    }
    const box = h("input", {
      type: "checkbox", checked: this.chosen.has(entry.path), "data-path": entry.path,
      onchange: ({ target }) => {
        this.choose(entry, target.checked);
        this.draw();
      },
    });
    this.boxes.set(entry.path, box);
    return h("li", {}, h("label", { class: "entry" }, box, thumbnail(`/api/files/thumbnail?${new URLSearchParams({ path: entry.path })}`),
      h("span", {}, entry.name), h("small", {}, entry.bytes === null ? "" : bytes(entry.bytes))));
  }

  drawTrail() {
    const { trail } = this.folder;
    const step = (text, path, isHere) => h("li", {}, h("button", {
      type: "button", class: "link", disabled: isHere, "aria-current": isHere && "page", onclick: () => this.show(path),
    }, text));
    find("#browse-trail").replaceChildren(
      this.isSingle ? "" : step(t("browse_top"), null, !trail.length),
      ...trail.map((one, at) => step(one.name, one.path, at === trail.length - 1)),
    );
  }

  draw() {
    const { folder, chosen } = this;
    const count = folder.total - folder.folders;
    const here = [...chosen.values()].filter((one) => one.path.slice(0, one.path.lastIndexOf(one.name) - 1) === folder.path).length;
    this.all.closest("label").hidden = !count;
    this.all.checked = count > 0 && here >= count;
    this.all.indeterminate = here > 0 && here < count;
    setText(find("#browse-count"), t("browse_all", { n: count }));
    find("#browse-more").hidden = folder.files.length >= folder.total;
    setText(find("#browse-more"), t("browse_more", { n: folder.total - folder.files.length }));
    setText(find("#browse-none"), folder.total ? "" : t("browse_none"));
    find("#browse-add").disabled = !chosen.size;
    setText(find("#browse-add"), t("browse_add", { n: chosen.size }));
  }

  // Keys: the arrows go through the list, Backspace goes up
  get controls() {
    return [...this.list.querySelectorAll("button, input")];
  }

  key(event) {
    const { controls } = this;
    const at = controls.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: Math.max(at - 1, 0), Home: 0, End: controls.length - 1 }[event.key];
    if (event.key === "Backspace" && this.folder?.path) this.show(this.folder.parent, this.folder.path);
    else if (to !== undefined) controls[to]?.focus();
    else return;
    event.preventDefault();
  }
}
