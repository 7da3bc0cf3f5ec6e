"use strict";
// The browser of answers and samples. It reads the block of texts that the page carries, asks nothing of a network,
// and puts texts into the document as text only, so that no answer can become markup or run.
(async () => {
  const PAGE_SIZE = 10, LONG = 1500, MOST_SHOWN = 6;

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "on") for (const [event, action] of Object.entries(value)) node.addEventListener(event, action);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value != null) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child != null));
    return node;
  }

  async function unpack(block) {
    const bytes = Uint8Array.from(atob(block), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  // Rows as objects; texts stay numbers until they are shown.
  function open(book) {
    book.rows = book.rows.map(([suite, name, group, prompt, expected, flat]) => {
      const cells = new Map();
      for (let at = 0; at < flat.length; at += 6) {
        const [column, answer, state, reason, note, covered] = flat.slice(at, at + 6);
        cells.set(column, { answer, state, reason, note, covered: covered === 1 });
      }
      return { suite, name, group, prompt, expected, cells };
    });
    return book;
  }

  class Browser {
    constructor(root, books, strings, wanted) {
      Object.assign(this, { root, books, strings });
      this.kind = root.dataset.browser;
      this.prefix = this.kind === "samples" ? "s-" : "a-";
      this.wanted = wanted;
      this.choose(Math.max(0, books.findIndex((book) => book.title === wanted.get("book"))));
      this.text = wanted.get("q") || "";
      this.page = Math.max(1, parseInt(wanted.get("page"), 10) || 1);
      this.uncovered = false;
      this.build();
      this.update();
    }

    choose(number) {
      this.book = this.books[number];
      const last = this.book.columns.length - 1;
      const places = this.book.columns.map((_, place) => place);
      // Of many steps some between the first and the last, of many runs the first ones.
      this.shown = new Set(last < MOST_SHOWN ? places : this.kind === "samples"
        ? [0, 1, 2, 3].map((part) => Math.round((part * last) / 3)) : places.slice(0, MOST_SHOWN));
      this.filters = { suite: "", from: "", to: "", change: "", verdict: "" };
      for (const name of Object.keys(this.filters)) this.filters[name] = this.wanted.get(name) || "";
      this.filters.from = this.filters.from || this.book.columns[0];
      this.page = 1;
    }

    say(number) { return number < 0 ? "" : this.strings[number]; }

    // --- Controls -----------------------------------------------------------------------------------------------

    build() {
      const changed = () => { this.page = 1; this.update(); };
      const select = (name, label) => {
        const node = make("select", { id: this.prefix + name, on: { change: () => {
          this.filters[name] = node.value;
          if (name === "to" && node.value) this.shown.add(this.book.columns.indexOf(node.value));
          changed();
        } } });
        this.selects[name] = node;
        return make("label", { for: this.prefix + name }, make("span", {}, label), node);
      };
      this.selects = {};
      const controls = make("div", { class: "controls", role: "search" });
      if (this.books.length > 1) {
        const node = make("select", { id: this.prefix + "book", on: { change: () => {
          this.wanted = new URLSearchParams();
          this.choose(node.selectedIndex);
          this.build();
          this.update();
        } } }, ...this.books.map((book) => make("option", { selected: book === this.book }, book.title)));
        controls.append(make("label", { for: this.prefix + "book" }, make("span", {}, "Training run"), node));
      }
      if (this.kind === "answers") {
        controls.append(select("suite", "Suite"), select("verdict", "Verdict of any run"));
        if (this.book.columns.length > 1) {
          controls.append(select("from", "From run"), select("to", "to run"), select("change", "Change"));
        }
      }
      let timer = 0;
      this.search = make("input", { type: "search", id: this.prefix + "q", value: this.text, autocomplete: "off", on: {
        input: () => { clearTimeout(timer); timer = setTimeout(() => { this.text = this.search.value; changed(); }, 200); },
      } });
      controls.append(make("label", { for: this.prefix + "q" }, make("span", {}, "Words in prompt or answers"), this.search));
      if (this.book.rows.some((row) => [...row.cells.values()].some((cell) => cell.covered))) {
        controls.append(make("label", { class: "tick" }, make("input", { type: "checkbox", checked: this.uncovered, on: {
          change: (event) => { this.uncovered = event.target.checked; this.update(); },
        } }), "uncover harmful answers"));
      }
      this.columns = make("details", { class: "columns" });
      this.count = make("p", { class: "quiet count", role: "status" });
      this.list = make("div", { class: "items" });
      this.pager = make("div", { class: "controls pager" });
      this.root.replaceChildren(controls, this.columns, this.count, this.list, this.pager);
      this.buildColumns();
    }

    buildColumns() {
      const what = this.kind === "samples" ? "Steps" : "Runs";
      const title = () => `${what} side by side: ${this.shown.size} of ${this.book.columns.length}`;
      const summary = make("summary", {}, title());
      const ticks = this.book.columns.map((name, place) => make("label", { class: "tick", dir: "auto" },
        make("input", { type: "checkbox", checked: this.shown.has(place), on: { change: (event) => {
          if (event.target.checked) this.shown.add(place); else this.shown.delete(place);
          summary.textContent = title();
          this.update();
        } } }), name));
      this.columns.replaceChildren(summary, make("div", { class: "ticks" }, ...ticks));
    }

    // --- Rows ---------------------------------------------------------------------------------------------------

    change(row, from, to) {
      const [before, after] = [row.cells.get(from), row.cells.get(to)];
      if (!before || !after || before.state === after.state || from === to) return null;
      return `${this.say(before.state)} → ${this.say(after.state)}`;
    }

    // Every change of a row from one run to another, or to any other.
    changes(row, from, to) {
      const places = to >= 0 ? [to] : [...row.cells.keys()];
      return new Set(places.map((place) => this.change(row, from, place)).filter((found) => found !== null));
    }

    count_by(rows, words) {
      const counts = new Map();
      for (const row of rows) for (const word of words(row)) counts.set(word, (counts.get(word) || 0) + 1);
      return [...counts].sort((one, other) => other[1] - one[1]);
    }

    options(name, all, entries) {
      const node = this.selects[name];
      if (!node) return;
      const wanted = this.filters[name];
      const list = entries.map(([word, count]) => make("option", { value: word }, count == null ? word : `${word} (${count})`));
      if (all !== null) list.unshift(make("option", { value: "" }, all));
      node.replaceChildren(...list);
      node.value = wanted;
      if (node.selectedIndex < 0) { node.selectedIndex = 0; this.filters[name] = node.value; }
    }

    filtered() {
      let rows = this.book.rows;
      const narrow = (name, words) => {
        if (this.filters[name]) rows = rows.filter((row) => words(row).has(this.filters[name]));
      };
      if (this.kind === "answers") {
        const suites = (row) => new Set([this.say(row.suite)]);
        this.options("suite", "all suites", this.count_by(rows, suites));
        narrow("suite", suites);
        const runs = this.book.columns.map((name) => [name, null]);
        this.options("from", null, runs);
        this.options("to", "any run", runs);
        const [from, to] = [this.filters.from, this.filters.to].map((name) => this.book.columns.indexOf(name));
        const changes = (row) => this.changes(row, from, to);
        const any = (row) => { const found = changes(row); return found.size ? found.add("any change") : found; };
        this.options("change", "changed or not", this.count_by(rows, any));
        narrow("change", any);
        const verdicts = (row) => new Set((to >= 0 ? [row.cells.get(to)] : [...row.cells.values()])
          .filter(Boolean).map((cell) => this.say(cell.state)));
        this.options("verdict", "any verdict", this.count_by(rows, verdicts));
        narrow("verdict", verdicts);
      }
      const text = this.text.trim().toLowerCase();
      if (text) {
        // Texts that many rows share are looked through once.
        const hits = new Set();
        this.strings.forEach((string, place) => { if (string.toLowerCase().includes(text)) hits.add(place); });
        rows = rows.filter((row) => hits.has(row.prompt) || hits.has(row.name)
          || [...row.cells.values()].some((cell) => hits.has(cell.answer)));
      }
      return rows;
    }

    update() {
      const rows = this.filtered();
      const pages = Math.max(1, Math.ceil(rows.length / PAGE_SIZE));
      this.page = Math.min(this.page, pages);
      const first = (this.page - 1) * PAGE_SIZE;
      const visible = rows.slice(first, first + PAGE_SIZE);
      this.count.textContent = `${rows.length} of ${this.book.rows.length} prompts` + (rows.length
        ? `, ${first + 1} to ${first + visible.length} shown` : ": nothing matches these filters");
      this.list.replaceChildren(...visible.map((row) => this.item(row)));
      const turn = (label, page) => make("button", { type: "button", disabled: page < 1 || page > pages, on: { click: () => {
        this.page = page;
        this.update();
        this.root.scrollIntoView();
      } } }, label);
      this.pager.replaceChildren(...(pages > 1 ? [turn("← previous", this.page - 1),
        make("span", {}, `page ${this.page} of ${pages}`), turn("next →", this.page + 1)] : []));
      this.remember();
    }

    // The address holds what is looked at, to be kept or handed on.
    remember() {
      if (!this.isReady) { this.isReady = true; return; }
      const said = new URLSearchParams();
      if (this.books.length > 1) said.set("book", this.book.title);
      for (const [name, value] of Object.entries(this.filters)) {
        if (value && !(name === "from" && value === this.book.columns[0])) said.set(name, value);
      }
      if (this.text) said.set("q", this.text);
      if (this.page > 1) said.set("page", this.page);
      try { history.replaceState(null, "", `#${this.kind}?${said}`); } catch { /* some browsers forbid it for files */ }
    }

    item(row) {
      const head = [this.say(row.suite), this.say(row.group), this.say(row.name)].filter(Boolean).join(" · ");
      const expected = this.say(row.expected);
      const from = this.book.columns.indexOf(this.filters.from);
      const cells = [...row.cells].filter(([place]) => this.shown.has(place)).sort(([one], [other]) => one - other);
      return make("article", { class: "item" },
        make("h4", { class: "quiet", dir: "auto" }, head),
        make("div", { class: "prompt", dir: "auto" }, this.long(this.say(row.prompt))),
        expected ? make("p", { class: "quiet", dir: "auto" }, "expected: ", expected) : null,
        make("div", { class: "cells" }, ...cells.map(([place, cell]) => this.cell(row, place, cell, from))));
    }

    cell(row, place, cell, from) {
      const state = this.say(cell.state), reason = this.say(cell.reason), note = this.say(cell.note);
      const change = this.kind === "answers" ? this.change(row, from, place) : null;
      return make("section", { class: "cell" },
        make("h5", { dir: "auto" }, this.book.columns[place]),
        state ? make("p", {}, make("span", { class: "verdict", "data-state": state }, state),
          change ? make("span", { class: "quiet" }, ` (${change})`) : null) : null,
        this.answer(cell),
        reason ? make("div", { class: "quiet reason", dir: "auto" }, "why: ",
          cell.covered && !this.uncovered ? "covered with the answer" : this.long(reason)) : null,
        note ? make("p", { class: "quiet" }, note) : null);
    }

    answer(cell) {
      if (cell.answer < 0) return make("p", { class: "quiet" }, "The answer was left out of this page.");
      const text = this.say(cell.answer);
      const box = make("div", { class: "answer", dir: "auto" });
      const show = () => box.replaceChildren(text ? this.long(text) : make("em", { class: "quiet" }, "(empty)"));
      if (cell.covered && !this.uncovered) {
        box.append(make("button", { type: "button", on: { click: show } }, "harmful answer, covered: show it"));
      } else show();
      return box;
    }

    long(text) {
      const body = make("span", { class: "text" }, text.slice(0, LONG));
      if (text.length <= LONG) return body;
      const more = make("button", { type: "button", on: { click: () => { body.textContent = text; more.remove(); } } },
        `… all ${text.length.toLocaleString("en")} characters`);
      return make("span", {}, body, more);
    }
  }

  const block = document.getElementById("books");
  if (!block) return;
  const roots = [...document.querySelectorAll("[data-browser]")];
  try {
    const { strings, books } = await unpack(block.textContent.trim());
    const [kind, said] = location.hash.slice(1).split("?");
    for (const root of roots) {
      const own = books.filter((book) => book.kind === root.dataset.browser).map(open);
      const wanted = new URLSearchParams(root.dataset.browser === kind ? said || "" : "");
      if (own.length) new Browser(root, own, strings, wanted);
    }
    if (said) document.getElementById(kind)?.scrollIntoView();
  } catch (error) {
    for (const root of roots) root.textContent = `The answers cannot be shown by this browser (${error}). A newer one can.`;
  }
  document.documentElement.dataset.ready = "yes";
})();
