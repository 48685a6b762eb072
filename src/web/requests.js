// The client of Userwire. Built from src/client/ by `deno task client`: change it there.
var f = new Set(["busy", "unavailable", "timeout"]),
  c = class {
    #h;
    #t;
    #e = new Map();
    #s = new Set();
    #i;
    #a = -1 / 0;
    #r;
    #u = !1;
    constructor(t, e) {
      this.#h = t, this.#t = e;
    }
    get areOutstanding() {
      return this.#s.size > 0;
    }
    ask(t, e, s = {}) {
      let { timeoutMs: i = 1e4, retry: h = !1 } = s;
      if (d(t, e, i), this.#u) throw new this.#t("The client is closed", "closed");
      if (this.#i && this.#i.req !== 1) throw this.#c();
      if (this.#e.size >= 1e3) throw new this.#t("1000 requests wait for an answer: wait for one", "busy");
      return new Promise((o, a) => {
        let n = { t: "req", id: m(), op: t, ...e !== void 0 && { data: e } },
          u = {
            frame: n,
            retry: h,
            resolve: o,
            reject: a,
            isWaiting: !0,
            wasSent: !1,
            pause: void 0,
            endAt: performance.now() + i,
            timer: setTimeout(() => this.#S(u, i), Math.min(i, 2147483647)),
          };
        this.#e.set(n.id, u), this.#n();
      });
    }
    opened(t) {
      if (this.#i = t, t.req === 1) return this.#n();
      for (let e of this.#e.values()) this.#o(e, this.#c());
    }
    lost() {
      this.#i = void 0, clearTimeout(this.#r), this.#r = void 0;
      for (let t of this.#s) {
        let e = this.#e.get(t);
        e?.retry
          ? e.isWaiting = !0
          : e && this.#o(e, this.#f("The connection broke before the answer came", "lost"));
      }
      this.#s.clear();
    }
    closed() {
      this.#u = !0;
      for (let t of this.#e.values()) {
        let e = t.wasSent ? "unknown" : "refused";
        this.#o(t, new this.#t("The client is closed", "closed", { outcome: e }));
      }
    }
    onReply({ id: t, ok: e, data: s, code: i = "refused", err: h = "", retry_ms: o, outcome: a }) {
      if (!this.#s.delete(t)) return;
      let n = this.#e.get(t);
      n && e ? (this.#d(n), n.resolve(s)) : n?.retry && f.has(i)
        ? n.pause = setTimeout(() => {
          n.isWaiting = !0, this.#n();
        }, Math.min(o ?? 1e3, 2147483647))
        : n && this.#o(n, new this.#t(h, i, { outcome: a, retryMs: o })), this.#n();
    }
    #n() {
      if (!(!this.#i || this.#r !== void 0)) {
        for (let t of this.#e.values()) {
          if (this.#s.size >= 16) return;
          if (!t.isWaiting) continue;
          let e = performance.now(), s = Math.max(this.#a, e - 400) + 25;
          if (s > e) {
            this.#r = setTimeout(() => {
              this.#r = void 0, this.#n();
            }, s - e);
            return;
          }
          this.#a = s, this.#m(t, e);
        }
      }
    }
    #m(t, e) {
      let s = Math.min(2147483647, Math.max(1, Math.round(t.endAt - e))),
        i = { ...t.frame, timeout_ms: s },
        h = Math.min(this.#i.max, 65536),
        o = new TextEncoder().encode(JSON.stringify(i)).length;
      if (o > h) {
        let a = `The request has ${o} bytes, and the service takes ${h}`;
        this.#o(t, new this.#t(a, "too_large"));
      } else this.#h(i) && (this.#s.add(i.id), t.isWaiting = !1, t.wasSent = !0);
    }
    #S(t, e) {
      let s = `There was no answer within ${e} ms`;
      this.#o(t, t.wasSent ? this.#f(s, "timeout") : new this.#t(s, "timeout")), this.#n();
    }
    #c() {
      return new this.#t("The service takes no requests", "unsupported");
    }
    #f(t, e) {
      return new this.#t(t, e, { outcome: "unknown" });
    }
    #o(t, e) {
      this.#d(t), t.reject(e);
    }
    #d({ frame: t, timer: e, pause: s }) {
      clearTimeout(e), clearTimeout(s), this.#e.delete(t.id);
    }
  };
function d(r, t, e) {
  if (typeof r != "string" || r === "" || r.length > 64) {
    throw new TypeError("What is asked for must be a string of 1 to 64 characters");
  }
  if (typeof e != "number" || !(e > 0)) throw new TypeError("timeoutMs must be a number above 0");
  if (t !== void 0 && JSON.stringify(t) === void 0) {
    throw new TypeError("What is sent must be a value that can be written as JSON");
  }
}
function m() {
  let r = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(r, (t) => t.toString(16).padStart(2, "0")).join("");
}
export { c as Requests };
