// The page begins here: it loads what the service knows, and joins the parts.

import { call, listen, onToken } from "./api.js";
import { Browse } from "./browse.js";
import { Compare } from "./compare.js";
import { fillTexts, find, setText, switchLanguage, t, toast } from "./dom.js";
import { Drafts, droppedFiles, usable } from "./drafts.js";
import { Queue } from "./queue.js";
import { Settings } from "./settings.js";
import { Trial } from "./trial.js";

// The token, where the service has one --------------------------------------------------------------------------------
let entering = null;

/** Log in with the token of the address, else ask for it. Several requests that are refused at once ask once. */
function askForToken() {
  entering ??= logIn().finally(() => (entering = null));
  return entering;
}

async function logIn() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    history.replaceState(null, "", location.pathname);
    if (await call("POST", "/api/login", { token: given }).then(() => true, () => false)) return;
  }
  const dialog = find("#login");
  const told = dialog.querySelector(".error");
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.showModal();
  await new Promise((done) => {
    dialog.querySelector("form").onsubmit = async (event) => {
      event.preventDefault();
      try {
        await call("POST", "/api/login", { token: find("#token").value });
        dialog.close();
        done();
      } catch (error) {
        setText(told, error.message);
      }
    };
  });
}

// Parts ---------------------------------------------------------------------------------------------------------------
async function begin() {
  fillTexts();
  onToken(askForToken);
  const [service, models] = await Promise.all([call("GET", "/api/service"), call("GET", "/api/models")]);
  const settings = new Settings(service, models, () => drafts.planAll());
  const trial = new Trial(settings);
  const look = () => {
    document.body.classList.toggle("idle", !drafts.list.length);
    document.body.classList.toggle("empty", !drafts.list.length && !queue.jobs.size);
  };
  const queue = new Queue({
    onCompare: (job) => compare.open(job),
    onAgain: (job) => trial.open(subjectOfJob(job)),
    onChange: look,
  });
  const drafts = new Drafts(settings, { onTry: (draft) => trial.open(subjectOfDraft(draft)), onChange: look });
  const compare = new Compare(() => queue.done);
  const browse = new Browse({ onChosen: (files) => drafts.addServed(files) });
  settings.draw();
  takeFiles(drafts, service);
  find("#choose-served").hidden = !service.allow.length;
  find("#choose-served").addEventListener("click", () => browse.open());
  setText(find("#about"), t("version", { version: service.version }));

  find("#start").addEventListener("click", () => drafts.start());
  find("#discard").addEventListener("click", () => drafts.discardAll());
  find("#language").addEventListener("click", () => {
    switchLanguage();
    fillTexts();
    settings.draw();
    drafts.redraw();
    queue.redraw();
    setText(find("#about"), t("version", { version: service.version }));
  });
  for (const button of document.querySelectorAll("dialog [data-close]")) button.addEventListener("click", () => button.closest("dialog").close());

  const last = await queue.load();
  await drafts.restore();
  look();
  document.body.classList.remove("loading");
  watch(queue, last);
}

const subjectOfDraft = (draft) => ({
  name: draft.name, kind: draft.kind, source: draft.source, plan: draft.plan,
  view: draft.view("preview"),
  options: () => draft.options(),
  model: () => draft.model ?? draft.plan?.model,
  choose: (model) => (draft.model = model),
});

/** The input of a job again. The model that is chosen makes a new job. */
const subjectOfJob = (job) => ({
  name: job.name, kind: job.kind ?? "photo", source: { job: job.id }, plan: job.plan,
  view: `/api/jobs/${job.id}/preview?of=input`,
  options: () => structuredClone(job.options),
  model: () => job.plan?.model,
  choose: (model) => {
    call("POST", "/api/jobs", { source: { job: job.id }, options: { ...job.options, model } })
      .then(() => toast(t("added", { n: 1 })), (error) => toast(error.message, "error"));
  },
});

function takeFiles(drafts, service) {
  const take = (files) => {
    const good = usable([...files], service.choices.extensions);
    if (good.length) drafts.add(good);
  };
  for (const [button, input] of [["#choose", "#files"], ["#choose-folder", "#folder"]]) {
    find(button).addEventListener("click", () => find(input).click());
    find(input).addEventListener("change", ({ target }) => {
      take(target.files);
      target.value = "";
    });
  }
  let depth = 0; // drags enter and leave every element on their way
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const show = (change) => document.body.classList.toggle("dropping", (depth = change === null ? 0 : depth + change) > 0);
  document.addEventListener("dragenter", (event) => hasFiles(event) && show(1));
  document.addEventListener("dragleave", (event) => hasFiles(event) && show(-1));
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    show(null);
    take(await droppedFiles(event.dataTransfer));
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) take(event.clipboardData.files);
  });
}

/** Follow the events. After an interruption the list is loaded anew, since the service may have changed meanwhile. */
function watch(queue, last) {
  let lost = null;
  listen(last, {
    onEvent: (event) => queue.hear(event),
    onLost: () => {
      find("#connection").hidden = false;
      setText(find("#connection"), t("offline"));
      lost = true;
    },
    onBack: async () => {
      find("#connection").hidden = true;
      if (lost) toast(t("back"));
      lost = null;
      await queue.load().catch(() => {});
    },
  });
}

begin().catch((error) => {
  document.body.classList.remove("loading");
  toast(error.message, "error");
});
