"use strict";
(() => {
  const { study, questions } = JSON.parse(document.getElementById("data").textContent);
  const place = `amfast-study-${study}`;
  const of = (id) => document.getElementById(id);
  const scale = [...document.querySelectorAll("#scale button")];
  const panels = [...document.querySelectorAll(".panel")];
  const sides = ["Left", "Right"];
  const words = {
    diversity: {
      ask: (name) => `Which panel shows more diverse images of “${name}”?`,
      hint: "How much do a panel's 64 images differ from one another? Not how good they look.",
      images: 64,
    },
    realism: {
      ask: (name) => `Which panel shows more realistic images of “${name}”?`,
      hint: "How real do a panel's 9 images look? Not how much they differ from one another.",
      images: 9,
    },
  };

  // Where the browser gives file:// no storage, reading or writing throws.
  let kept = true;
  const trying = (action) => {
    try {
      return action();
    } catch {
      kept = false;
      return null;
    }
  };

  const fresh = () => ({
    participant: [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join(""),
    started: null,
    answers: [],
    at: 0,
  });
  const time = (n) => Number.isSafeInteger(n) && n >= 0;
  const usable = (state) =>
    state !== null &&
    typeof state === "object" &&
    /^[0-9a-f]{32}$/.test(state.participant) &&
    time(state.started) &&
    Array.isArray(state.answers) &&
    state.answers.length <= questions.length &&
    state.answers.every((a) => a && [1, 2, 3, 4, 5].includes(a.value) && time(a.at)) &&
    Number.isInteger(state.at) &&
    state.at >= 0 &&
    state.at <= state.answers.length;
  const read = () => {
    const text = trying(() => localStorage.getItem(place));
    let state = null;
    try {
      state = JSON.parse(text);
    } catch {
      return fresh(); // not what this page wrote
    }
    return usable(state) ? state : fresh();
  };
  const keep = () => {
    trying(() => localStorage.setItem(place, JSON.stringify(state)));
    of("lost").hidden = kept;
  };

  // A clock that is set back meanwhile must not put an answer before the start.
  const now = () => Math.max(Date.now(), state.started ?? 0, ...state.answers.map((a) => a.at));

  const show = (id, focus) => {
    for (const section of document.querySelectorAll("section")) section.hidden = section.id !== id;
    scrollTo(0, 0);
    if (focus) document.querySelector(`#${id} [tabindex], #${id} .primary`).focus({ preventScroll: true });
  };

  const ask = (focus) => {
    const { kind, name, panels: images } = questions[state.at];
    of("number").textContent = `Question ${state.at + 1} of ${questions.length}`;
    of("progress").value = state.answers.length;
    of("question").textContent = words[kind].ask(name);
    of("hint").textContent = words[kind].hint;
    panels.forEach((panel, i) => {
      const image = panel.querySelector("img");
      image.src = images[i];
      image.alt = `${sides[i]} panel: ${words[kind].images} images`;
    });
    mark();
    show("asking", focus);
  };

  const mark = () => {
    const given = state.answers[state.at];
    scale.forEach((button, i) => button.setAttribute("aria-pressed", String(given?.value === i + 1)));
    of("back").disabled = state.at === 0;
    of("next").disabled = given === undefined;
    of("next").textContent = state.at + 1 === questions.length ? "Finish →" : "Next →";
    of("progress").value = state.answers.length;
  };

  const answer = (value) => {
    state.answers[state.at] = { value, at: now() };
    keep();
    mark();
  };

  const move = (by) => {
    const at = state.at + by;
    if (at < 0 || at > state.answers.length) return;
    state.at = at;
    keep();
    if (at === questions.length) show("end", true);
    else ask(true);
  };

  const crc32 = (text) => {
    let crc = ~0;
    for (const byte of new TextEncoder().encode(text)) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return (~crc >>> 0).toString(16).padStart(8, "0");
  };

  const download = () => {
    const { participant, started } = state;
    const finished = now();
    const answers = state.answers.map(({ value, at }, i) => ({ question: i + 1, value, at }));
    const lines = [study, participant, `${started} ${finished}`];
    for (const a of answers) lines.push(`${a.question} ${a.value} ${a.at}`);
    const checksum = crc32(lines.join("\n"));
    const file = { format: "amfast-study-answers", format_version: 1, study, participant, started, finished, answers, checksum };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${JSON.stringify(file, null, 1)}\n`], { type: "application/json" }));
    link.download = `answers-${study.slice(0, 8)}-${participant.slice(0, 8)}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    of("downloaded").textContent = `Your answers are in ${link.download}, among your downloads.`;
    of("again").hidden = false;
  };

  const greet = () => {
    const going = state.answers.length > 0;
    of("begin").textContent = going ? "Continue" : "Begin";
    of("keeping").textContent = !kept
      ? "This browser does not keep your progress: stay on this page until you have downloaded your answers."
      : going
        ? `Welcome back: ${state.answers.length} of ${questions.length} questions are answered.`
        : "Your progress is kept in this browser: you can close the page and come back to it here.";
    show("start", false);
  };

  let state = read();
  trying(() => localStorage.setItem(`${place}-try`, "1"));
  trying(() => localStorage.removeItem(`${place}-try`));
  greet();

  of("begin").addEventListener("click", () => {
    state.started ??= Date.now();
    keep();
    if (state.at === questions.length) show("end", true);
    else ask(true);
  });
  scale.forEach((button, i) => button.addEventListener("click", () => answer(i + 1)));
  of("back").addEventListener("click", () => move(-1));
  of("next").addEventListener("click", () => move(1));
  of("review").addEventListener("click", () => move(-1));
  of("download").addEventListener("click", download);
  of("restart").addEventListener("click", () => {
    trying(() => localStorage.removeItem(place));
    state = fresh();
    of("downloaded").textContent = "";
    of("again").hidden = true;
    greet();
  });
  panels.forEach((panel) =>
    panel.addEventListener("click", () => {
      const { src, alt } = panel.querySelector("img");
      Object.assign(of("large").querySelector("img"), { src, alt });
      of("large").showModal();
    }),
  );
  of("close").addEventListener("click", () => of("large").close());
  of("large").addEventListener("click", (event) => {
    if (event.target === of("large")) of("large").close();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || of("large").open) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!of("asking").hidden && /^[1-5]$/.test(event.key)) answer(Number(event.key));
    else if (by !== undefined && (!of("asking").hidden || (!of("end").hidden && by < 0))) move(by);
    else return;
    event.preventDefault();
  });
})();
