// What the user chose for all files: enlargement, presets, and options that are folded away.

import { find, h, hasText, remember, remembered, setText, t } from "./dom.js";

const number = (name, extra = {}) => ({ name, type: "number", min: 1, step: 1, ...extra });
const choice = (name, values) => ({ name, type: "select", values });
const flag = (name, usual = false) => ({ name, type: "checkbox", usual });

/** Groups of fields. Names are those of the service; "picture." and "video." stand before what is for one kind alone. */
function fields({ choices, models }) {
  const names = (test) => models.filter((model) => model.ready && test(model)).map((model) => model.name);
  return {
    g_model: [choice("model", names(() => true)), choice("task", ["deblur", "denoise", "interpolate"])],
    g_size: [
      number("scale", { min: 0.1, step: "any" }), number("width"), number("height"), number("long_side"),
      number("short_side"), number("megapixels", { min: 0.1, step: "any" }),
    ],
    g_picture: [
      choice("picture.format", choices.picture_formats), number("quality", { max: 100 }), flag("first_frame"),
    ],
    g_video: [
      choice("video.format", choices.video_formats), choice("video.codec", choices.codecs),
      number("video.crf", { min: 0, max: 63 }), { name: "video.preset", type: "text" }, { name: "video.pix_fmt", type: "text" },
      { name: "video.encoder", type: "text", pattern: "\\s*(\\S+=\\S+(\\s+|$))*", hint: "tune=grain bf=3" },
      choice("video.odd", ["crop", "444"]), choice("video.deinterlace", ["auto", "bwdif", "yadif"]),
      choice("video.on_bad_frame", ["skip", "fail"]), number("video.start", { min: 0, step: "any" }),
      number("video.end", { min: 0, step: "any" }), flag("video.audio", true), flag("video.subtitles", true),
    ],
    g_compute: [
      choice("engine", choices.engines.filter((name) => name !== "auto")), choice("precision", ["fp32", "bf16", "fp16"]),
      { name: "tile", type: "text", pattern: "auto|off|[0-9]+" }, number("halo", { min: 0 }), number("blend", { min: 0 }),
      number("window"), number("threads"), number("sigma", { min: 0, max: 255, step: "any" }), flag("as_published"),
    ],
    g_care: [flag("strict"), flag("allow_truncated")],
  };
}

const SIZES = ["scale", "width", "height", "long_side", "short_side", "megapixels"];
const FACTORS = [2, 3, 4];

export class Settings {
  /** `onChange` is called when plans must be made anew. */
  constructor(service, models, onChange) {
    this.service = service;
    this.models = models;
    this.changed = onChange;
    const kept = remembered("settings") ?? {};
    this.factor = FACTORS.includes(kept.factor) ? kept.factor : 2;
    this.presets = { photo: kept.presets?.photo ?? "auto", video: kept.presets?.video ?? "auto" };
    this.more = kept.more ?? {};
    for (const kind of ["photo", "video"]) if (!this.preset(kind)) this.presets[kind] = "auto";
  }

  preset(kind) {
    return this.service.presets.find((preset) => preset.kind === kind && preset.id === this.presets[kind]);
  }

  isAutomatic(kind) {
    return this.presets[kind] === "auto" && !this.more.model;
  }

  /** Options of a job. `suggested` is the model that an automatic choice takes, `own` the one that this file has. */
  options(kind, suggested, own) {
    const made = { ...this.preset(kind)?.options, video: { ...this.preset(kind)?.options.video } };
    if (this.isAutomatic(kind) && suggested) made.model = suggested;
    if (!Object.keys(this.more).some((name) => SIZES.includes(name))) made.scale = this.factor;
    for (const [name, value] of Object.entries(this.more)) {
      const [group, rest] = name.includes(".") ? name.split(".") : ["", name];
      if (rest === "format") {
        if ((group === "video") === (kind === "video")) made.format = value;
      } else if (rest === "encoder") made.video.encoder = Object.fromEntries(value.trim().split(/\s+/).map((pair) => pair.split(/=(.*)/s)));
      else if (group === "video") made.video[rest] = value;
      else made[rest] = value;
    }
    if (own) made.model = own;
    return made;
  }

  choose(change) {
    change();
    remember("settings", { factor: this.factor, presets: this.presets, more: this.more });
    this.mark();
    this.changed();
  }

  // The form
  draw() {
    find("#settings").replaceChildren(
      this.radios("size", t("size"), "segments", FACTORS.map((n) => ({ value: String(n), text: t("times", { n }) })),
        String(this.factor), (value) => {
          this.factor = Number(value);
          for (const name of SIZES) delete this.more[name];
        }),
      ...["photo", "video"].map((kind) =>
        this.radios(kind, t(`${kind}s`), "cards", this.cards(kind), this.presets[kind], (value) => (this.presets[kind] = value))),
      this.folded(),
    );
    this.mark();
  }

  cards(kind) {
    const known = this.service.presets.filter((preset) => preset.kind === kind);
    return [{ value: "auto", text: t("auto"), hint: t("auto_hint") }, ...known.map((preset) => {
      const key = `p_${preset.id}`;
      return hasText(key)
        ? { value: preset.id, text: t(key), hint: t(`${key}_hint`) }
        : { value: preset.id, text: preset.id, hint: preset.sentence };
    })];
  }

  radios(name, legend, look, entries, chosen, take) {
    return h("fieldset", { class: look, id: `set-${name}` }, h("legend", {}, legend), h("div", {}, entries.map((entry) =>
      h("label", {},
        h("input", {
          type: "radio", name: `set-${name}`, value: entry.value, checked: entry.value === chosen,
          onchange: () => this.choose(() => take(entry.value)),
        }),
        h("span", {}, h("b", {}, entry.text), entry.hint && h("small", {}, entry.hint))))));
  }

  folded() {
    const groups = Object.entries(fields({ choices: this.service.choices, models: this.models }));
    const form = h("form", { id: "options", onsubmit: (event) => event.preventDefault() },
      groups.map(([group, list]) => h("fieldset", {}, h("legend", {}, t(group)), list.map((field) => this.field(field)))),
      h("button", { type: "button", onclick: () => {
        this.choose(() => (this.more = {}));
        this.draw();
        find("#more").open = true;
      } }, t("reset")));
    const count = h("small", { id: "changed" });
    return h("details", { id: "more", class: "more" }, h("summary", {}, t("more"), " ", count), form);
  }

  field(field) {
    const key = field.name.split(".").at(-1);
    const label = t(hasText(`o_${key}`) ? `o_${key}` : key);
    const value = this.more[field.name];
    const onchange = ({ target }) => {
      if (target.checkValidity()) this.choose(() => this.take(field, target));
      else target.reportValidity();
    };
    const shared = { name: field.name, onchange };
    if (field.type === "checkbox") {
      const box = h("input", { ...shared, type: "checkbox", checked: value ?? field.usual });
      return h("label", { class: "flag" }, box, h("span", {}, label));
    }
    const input = field.type === "select"
      ? h("select", shared, h("option", { value: "" }, t("by_default")),
        field.values.map((name) => h("option", { value: name, selected: name === value }, name)))
      : h("input", {
        ...shared, type: field.type, min: field.min, max: field.max, step: field.step, pattern: field.pattern,
        value: value ?? null, placeholder: field.hint ?? t("by_default"), autocomplete: "off",
      });
    return h("label", { class: "field" }, h("span", {}, label), input);
  }

  take(field, input) {
    const isUsual = field.type === "checkbox" ? input.checked === field.usual : input.value === "";
    const isNumber = field.type === "number" || (field.name === "tile" && /^[0-9]+$/.test(input.value));
    if (isUsual) delete this.more[field.name];
    else this.more[field.name] = field.type === "checkbox" ? input.checked : isNumber ? Number(input.value) : input.value;
  }

  /** Show which options differ, and which the service refused. */
  mark(refused = null) {
    const count = Object.keys(this.more).length;
    setText(find("#changed"), count ? t("n_changed", { n: count }) : "");
    const hasOwnSize = Object.keys(this.more).some((name) => SIZES.includes(name));
    for (const radio of document.querySelectorAll("[name=set-size]")) radio.checked = !hasOwnSize && radio.value === String(this.factor);
    for (const input of find("#options").elements) {
      if (input.name) input.setAttribute("aria-invalid", String(input.name === refused || input.name.endsWith(`.${refused}`)));
    }
  }

  /** Show the presets of the kinds that are there. */
  showKinds(kinds) {
    for (const kind of ["photo", "video"]) find(`#set-${kind}`).hidden = !kinds.has(kind);
  }
}
