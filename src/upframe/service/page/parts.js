// Pieces that several rows share.

import { h, icon, t } from "./dom.js";

/** A small picture. The service may still be making it, so a failure is tried again a few times. */
export function thumbnail(path, tries = 2) {
  const image = h("img", { class: "thumb", alt: "", loading: "lazy", decoding: "async" });
  let left = tries;
  image.addEventListener("error", () => {
    if (!image.isConnected) return;
    if (left-- > 0) setTimeout(() => (image.src = `${path}${path.includes("?") ? "&" : "?"}try=${left}`), 3000);
    else image.classList.add("broken");
  });
  image.src = path;
  return image;
}

/** Notices, folded away when there are several. */
export function noticeList(notices) {
  if (!notices.length) return "";
  const list = h("ul", { class: "notices" }, notices.map((notice) => h("li", {}, icon("notice"), h("span", {}, notice.message))));
  if (notices.length === 1) return list;
  return h("details", {}, h("summary", {}, icon("notice"), " ", t("notices", { n: notices.length })), list);
}

const FATES = ["lost", "changed", "carried"];
const MARKS = { lost: "close", changed: "change", carried: "check" };

/** All that the input holds and what becomes of it, folded away; its sum is the heading. */
export function ledgerList(ledger) {
  if (!ledger.length) return "";
  const of = (fate) => ledger.filter((entry) => entry.fate === fate);
  const counts = Object.fromEntries(FATES.map((fate) => [fate, of(fate).length]));
  const rows = FATES.flatMap(of).map((entry) =>
    h("li", { class: entry.fate }, icon(MARKS[entry.fate]), h("span", {},
      h("b", {}, entry.name), ` ${entry.kind} · ${t(entry.fate)}${entry.detail && `: ${entry.detail}`}`)));
  return h("details", {}, h("summary", {}, `${t("ledger")}: ${t("ledger_sum", counts)}`), h("ul", { class: "ledger" }, rows));
}
