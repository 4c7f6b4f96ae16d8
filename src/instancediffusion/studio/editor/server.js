// The server's operations, through Gradio's API: `call` for one answer, `follow` for a stream of them.

const BASE = "gradio_api";

async function answered(response) {
  if (response.ok) return response.json();
  if (response.status === 401) location.reload();
  let message = `the server answered ${response.status}`;
  try {
    const body = await response.json();
    message = body.error || (typeof body.detail === "string" ? body.detail : message);
  } catch { /* not JSON: the status says it */ }
  throw new Error(message);
}

const post = (path, data) => fetch(`${BASE}/${path}`, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ data }),
});

/** Call an operation by name. */
export async function call(name, ...data) {
  return (await answered(await post(`run/${name}`, data))).data[0];
}

/** Call an operation that answers more than once. */
export async function* follow(name, ...data) {
  const { event_id: event } = await answered(await post(`call/${name}`, data));
  const response = await fetch(`${BASE}/call/${name}/${event}`);
  if (!response.ok) await answered(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const messages = text.split("\n\n");
    text = messages.pop();
    for (const message of messages) {
      const kind = /^event: (.*)$/m.exec(message)?.[1], body = /^data: (.*)$/m.exec(message)?.[1];
      const parsed = body && body !== "null" ? JSON.parse(body) : null;
      if (kind === "error") throw new Error(parsed?.error || parsed || "the connection broke off");
      if (kind === "generating" && parsed?.[0]) yield parsed[0];
    }
  }
}

/** A random name for this browser, not predictable by others; drafts and jobs are kept under it. */
export function session() {
  let name = localStorage.getItem("studio.session");
  if (!name) {
    name = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    localStorage.setItem("studio.session", name);
  }
  return name;
}
