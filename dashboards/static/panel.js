// What is said of the chosen trial and of the study: the panel beside the chart, the tiles above it, the front as a table.
"use strict";

function measuredHow(trial) {
  return sign(trial) ? `${sign(trial)} ${signMeaning(trial)}` : t("study.rounds", { count: trial.judged.latency_ms.n });
}

function nothingFits() {
  const on = askedAxis();
  const first = choicesOf(on).find(({ trial }) => trial !== backbone()?.number);
  const ended = ["complete", "failed"].includes(study.state);
  const fastest = study.fastest && t("study.fastest", { number: study.fastest.trial, share: study.fastest.mark + percent(study.fastest.latency_ratio) });
  const nearest = first && element("button", { type: "button", className: "link", onclick: () => { ask(first.limit, on); drawBudget(); } },
    t("study.nearest_fits", { budget: on === "loss" ? t("study.loss_of", { points: pointsOf(first.limit) }) : AXES[on].show(first.limit), number: first.trial }));
  return [element("h2", {}, t(ended ? "study.nothing_holds" : "study.nothing_holds_yet", { budget: wantedText() })),
    element("p", { className: "origin" }, fastest ?? t("study.nothing_measured")), nearest].filter(Boolean);
}

function about(trial) { // its page, which exports it for what is asked for here
  return askingFor(trial.url, askedFor());
}

function tagOf(trial) {
  if (trial === fitting()) return t("study.best_for", { budget: wantedText() });
  if (trial === finest()) return t("study.finest");
  return trial.number === study.knee ? t("study.knee") : kindLabel(trial.kind);
}

function drawPanel() {
  const trial = chosenTrial();
  const panel = byId("panel");
  panel.dataset.trial = trial?.number ?? "";
  if (!trial) {
    panel.replaceChildren(...nothingFits());
    return;
  }
  const { accuracy, latency_ratio: ratio, latency_ms: ms, macs: cost, parameters, throughput, memory } = trial.judged;
  const { kind, held_out: held } = trial;
  const file = exported(trial, askedFor(), trial === fitting());
  const dense = kind !== "backbone" && backbone()?.judged.macs.value;
  const { expected, backbone_ms: beside } = trial;
  const trade = [fitting(), finest()].includes(trial) && tradeText();
  const of95 = one => t("study.interval", { interval: interval(one) });
  const note = (...parts) => parts.filter(Boolean).join(t("study.and"));
  panel.style.setProperty("--kind", `var(--${kind})`);
  panel.replaceChildren(...[
    element("div", {}, element("div", { className: "bar" }, element("h2", {}, t("trials.trial", { number: trial.number })),
      element("span", { className: "tag", title: kindMeaning(kind) }, tagOf(trial))),
      element("p", { className: "origin" }, trial.reason ?? originText(trial.origin)),
      trade && element("p", { className: "trade" }, trade)),
    element("div", { className: "act" },
      file && element("a", { className: "button", ...file }, t("study.export")),
      trial.export && !file && element("p", { className: "hint" }, t("report.elsewhere")),
      trial.export && element("code", { className: "apply" }, `vittle.apply(model, vittle.Schedule.load("${trial === numbered(study.best?.trial) ? "best.yaml" : "schedule.yaml"}"))`),
      trial.url && element("a", { className: "more", href: about(trial) }, t("study.all_about", { number: trial.number }))),
    element("dl", { className: "values" },
      expected && fact(t("study.expected_name"), percent(expected.value), note(of95(expected), t("study.ranks"))),
      accuracy && fact(t("study.on_search", { accuracy: accuracyName() }), accuracyText(trial), note(of95(accuracy), t("study.search_images", { images: imagesText(trial) }))),
      held && fact(t("study.held_out"), percent(held.value), note(of95(held), t("study.unseen_images", { count: held.n }))),
      ratio && fact(t("study.latency"), signed(trial, percent(ratio.value)), note(of95(ratio), beside ? t("study.of_backbone_ms", { ms: milliseconds(beside) }) : t("study.of_backbone"))),
      ms && fact(t("study.per_batch_of", { count: study.settings.batch_size }), signed(trial, milliseconds(ms.value)),
        throughput && signed(trial, perSecond(throughput.value))),
      memory && fact(t("study.memory"), megabytes(memory.value)),
      cost && fact(t("study.macs"), macs(cost.value), dense && t("study.share_of_backbone", { share: percent(cost.value / dense) })),
      parameters && fact(t("study.parameters"), macs(parameters.value), null)),
    element("div", {}, element("h3", {}, t("trials.tokens_after")), bars(trial, study.backbone.tokens), restingHint(trial),
      kind !== "backbone" && element("p", { className: "hint" }, trial.summary),
      trial.schedule.tail === "prefix" && element("p", { className: "hint" }, t("trials.prefix_tail", { count: study.backbone.prefix }))),
    trial.estimated_of && element("p", { className: "hint" }, `† ${t("signs.estimated")}`),
    trial.worst && element("p", { className: "hint" }, trial.worst),
    ms && element("p", { className: "hint" }, [trial.timed_on, measuredHow(trial)].filter(Boolean).join(", ")),
  ].filter(Boolean));
}

function timeLeft(seconds) {
  if (seconds < 90) return t("study.seconds_left", { count: Math.max(1, Math.round(seconds)) });
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? t("study.minutes_left", { count: minutes }) : t("study.hours_left", { count: Math.round(minutes / 6) / 10 });
}

function drawTiles() {
  const best = fitting();
  const untouched = backbone();
  const accuracy = trial => percent((best && best.held_out ? trial.held_out : trial.judged.accuracy)?.value ?? trial.judged.accuracy.value);
  const ratio = best?.judged.latency_ratio.value;
  const left = study.state === "running" && study.seconds_left;
  const done = study.confirmation ? t("study.confirmed", study.confirmation) : t("study.of_planned", { planned: study.planned });
  const trials = [done, left ? timeLeft(left) : null].filter(Boolean).join(t("study.and"));
  byId("tiles").replaceChildren(
    fact(t("study.accuracy_within", { accuracy: accuracyName(), budget: wantedText() }), best ? accuracy(best) : "–",
      [best?.expected && t("study.expected", { accuracy: percent(best.expected.value) }),
        untouched ? t(best && best.held_out ? "study.backbone_held_out" : "study.backbone_is", { value: accuracy(untouched) }) : t("study.backbone_unmeasured"),
      ].filter(Boolean).join(t("study.and"))),
    fact(t("study.latency"), best ? signed(best, percent(ratio)) : "–", best ? t("study.times_as_fast", { times: (1 / ratio).toFixed(2) }) : t("study.none_holds")),
    fact(t("study.macs"), best ? macs(best.judged.macs.value) : "–", untouched ? t("study.backbone_is", { value: macs(untouched.judged.macs.value) }) : null),
    fact(t("study.trials"), `${study.finished}`, trials),
  );
}

function drawTable() {
  const body = byId("front");
  const focused = document.activeElement.dataset.trial;
  const best = fitting();
  const measure = (one, show, more = "") => element("td", { className: `number${more}` }, one ? show(one.value) : "–", one && element("span", { className: "range" }, interval(one)));
  const plain = (value, range) => element("td", { className: "number wide" }, value, range && element("span", { className: "range" }, range));
  const finer = finest();
  const rows = study.trials.filter(trial => trial.front || trial === best || trial === finer);
  rows.sort((one, other) => one.judged.latency_ratio.value - other.judged.latency_ratio.value);
  const tag = trial => trial === best ? t("study.best_for", { budget: wantedText() }) : trial === finer ? t("study.finest") : trial.kind === "backbone" ? kindLabel("backbone")
    : trial.number === study.knee ? t("study.knee") : isOwn() && study.tied.includes(trial.number) ? t("study.tied") : null;
  body.replaceChildren(...rows.map(trial => {
    const current = trial === chosenTrial();
    const button = element("button", { type: "button", ariaPressed: `${current}` }, t("trials.trial", { number: trial.number }));
    button.dataset.trial = trial.number;
    const said = tag(trial);
    return element("tr", { className: current ? "chosen" : "", onclick: () => choose(trial.number) },
      element("th", { scope: "row" }, button, said && element("span", { className: "tag", title: { [t("study.tied")]: t("study.tied_meaning"), [t("study.finest")]: t("study.finest_meaning") }[said] ?? "" }, said)),
      measure(trial.expected, percent), measure(trial.judged.accuracy, percent, " wide"), measure(trial.held_out, percent), measure(trial.judged.latency_ratio, share => signed(trial, percent(share))),
      plain(signed(trial, milliseconds(trial.judged.latency_ms.value)), trial.backbone_ms && t("study.batch_of_backbone", { ms: milliseconds(trial.backbone_ms) })), plain(macs(trial.judged.macs.value)),
      element("td", { className: "wide", title: originText(trial.origin) }, STARTS[trial.origin] ?? trial.origin),
      element("td", { className: "wide" }, bars(trial, study.backbone.tokens, false)));
  }));
  byId("rule").textContent = study.choice.rule;
  const signs = new Map(rows.filter(sign).map(trial => [sign(trial), t(trial.predicted ? "signs.predicted" : "signs.noisy")]));
  byId("marks").hidden = !signs.size;
  byId("marks").textContent = [...signs].map(([mark, meaning]) => `${mark} ${meaning}`).join(t("study.and"));
  if (focused) body.querySelector(`[data-trial="${focused}"]`)?.focus();
}

function drawDisturbance() {
  byId("disturbed").hidden = !study.disturbance;
  byId("disturbed-text").textContent = study.disturbance?.text ?? "";
}

function drawReasons(box, kind, summary) { // why trials of a kind ended as they did
  const trials = study.trials.filter(trial => trial.kind === kind);
  byId(box).hidden = !trials.length;
  byId(box).querySelector("summary").textContent = summary(trials.length);
  byId(box).querySelector("ul").replaceChildren(...trials.map(trial =>
    element("li", {}, t("study.failed_because", { number: trial.number, reason: trial.reason ?? t("study.no_reason") }))));
}

function drawCounts() {
  byId("legend").replaceChildren(...LEGEND.flatMap(kind => {
    const count = study.trials.filter(trial => trial.kind === kind).length;
    const swatch = element("span", { ariaHidden: "true" }, KINDS[kind].glyph);
    swatch.style.setProperty("--kind", `var(--${kind})`);
    return count ? [element("li", { title: kindMeaning(kind) }, swatch, kindLabel(kind), element("b", {}, `${count}`))] : [];
  }));
  if (named().length) byId("legend").append(element("li", { title: t("study.first_meaning") }, element("span", { ariaHidden: "true" }, "◇"), t("study.first")));
  drawReasons("failures", "failed", count => t("study.failed", { count }));
  drawReasons("unreadable", "unreadable", count => t("study.unreadable", { count }));
  Object.assign(byId("state"), { className: `state ${study.state}`, textContent: t(`states.${study.phase}`) });
}
