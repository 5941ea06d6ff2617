// Sends every answer at once and again until the server has it. Requests outlive the page (keepalive), so that a
// refresh right after a key press loses nothing; their running number lets the server keep them in order.

const AGAIN_MS = 1500;

function kept(name, make) {
  const value = sessionStorage.getItem(name) ?? make();
  sessionStorage.setItem(name, value);
  return value;
}

export class Saver {
  // report({waiting, problem}): after every change; problem is a text or "".
  constructor(report) {
    this.client = kept("client", () => crypto.randomUUID());
    this.report = report;
    this.waiting = new Set();
    this.problem = "";
  }

  order() {
    const order = Number(sessionStorage.getItem("order") ?? 0) + 1;
    sessionStorage.setItem("order", String(order));
    return order;
  }

  // The server's answer; waits as long as it cannot be had. Throws only what sending again cannot change.
  send(path, body) {
    const request = this.deliver(path, JSON.stringify({ client: this.client, ...body }));
    this.waiting.add(request);
    const settle = () => { this.waiting.delete(request); this.tell(); };
    request.then(settle, settle);
    this.tell();
    return request;
  }

  async deliver(path, body) {
    for (;;) {
      try {
        const response = await fetch(path, {
          method: "POST", body, keepalive: true, headers: { "Content-Type": "application/json" },
        });
        const answer = await response.json();
        if (response.ok) { this.problem = ""; return answer; }
        this.problem = `Not saved: ${answer.error}`;
        if (response.status < 500) throw new Refused(answer.error);
      } catch (error) {
        if (error instanceof Refused) throw error;
        this.problem = "Not saved: the server does not answer. Start the same command again and open the address it prints.";
      }
      this.tell();
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }

  async idle() {
    while (this.waiting.size) await Promise.allSettled([...this.waiting]);
  }

  tell() {
    this.report({ waiting: this.waiting.size, problem: this.problem });
  }
}

export class Refused extends Error {}
