// The chat page: state from /playground/state, one chat from /playground/timeline, and what happens from the events.

const $ = (id) => document.getElementById(id);
const state = { bot: 0, bots: [], chats: [], chat: null, entries: new Map(), unread: new Map(), last: new Map() };

async function call(path, body) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const answer = await fetch(`/playground/${path}`, options);
  const result = await answer.json();
  if (!answer.ok) throw new Error(result.error);
  return result;
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// What has not changed is not drawn again: a keyboard's focus must survive the regular look at the state.
const drawn = new Map();
function isDrawn(id, content) {
  const now = JSON.stringify(content);
  const same = drawn.get(id) === now;
  drawn.set(id, now);
  return same;
}

// --- what is there

async function refresh() {
  const found = await call("state");
  state.bots = found.bots;
  state.chats = found.chats;
  if (!state.bots.some((bot) => bot.id === state.bot)) state.bot = found.default_bot;
  if (state.chat === null && state.chats.length) await open(state.chats[0].id);
  drawBots();
  drawChats();
  drawStatus();
  drawCommands();
}

function currentBot() {
  return state.bots.find((bot) => bot.id === state.bot);
}

function currentChat() {
  return state.chats.find((chat) => chat.id === state.chat);
}

function drawBots() {
  const bot = currentBot();
  $("bot-name").textContent = bot ? `@${bot.username}` : "none yet";
  $("bot-name").hidden = state.bots.length > 1;
  $("bots").hidden = state.bots.length < 2;
  if ($("bots").options.length !== state.bots.length) {
    $("bots").replaceChildren(...state.bots.map((each) => element("option", { value: each.id }, `@${each.username}`)));
  }
  $("bots").value = state.bot;
}

function drawStatus() {
  const bot = currentBot();
  let text = "";
  if (!bot || bot.listening === "no") {
    text = "No bot is listening yet. Start one: what you write is kept until then.";
  } else if (bot.last_error && bot.pending) {
    const when = new Date(bot.last_error_date * 1000).toLocaleTimeString();
    text = `The bot's webhook does not take messages: ${bot.last_error} (${when}). ${bot.pending} waiting, tried again.`;
  }
  if ($("status").textContent !== text) $("status").textContent = text;
  $("status").hidden = !text;
}

function drawCommands() {
  const commands = currentBot()?.commands ?? [];
  const keyboard = [...state.entries.values()].findLast((entry) => entry.keyboard)?.keyboard ?? [];
  const texts = [...keyboard.flat().map((text) => [text, ""]), ...commands.map((c) => [`/${c.command}`, c.description])];
  if (isDrawn("commands", texts)) return;
  $("commands").replaceChildren(
    ...texts.map(([text, title]) => element("button", { type: "button", title, onclick: () => write(text) }, text)),
  );
}

function nameOf(chat) {
  return chat.title ?? chat.first_name ?? String(chat.id);
}

function drawChats() {
  if (isDrawn("chats", [state.chats, state.chat, [...state.unread], [...state.last]])) return;
  $("chats").replaceChildren(
    ...state.chats.map((chat) => {
      const unread = state.unread.get(chat.id) ?? 0;
      const kind = chat.type === "private" ? "private chat" : `${chat.type}, ${chat.people.length} people`;
      const label = element("span", { class: "name" }, nameOf(chat));
      label.append(element("span", { class: "last" }, state.last.get(chat.id) ?? kind));
      const face = element("span", { class: "face", "aria-hidden": "true" }, nameOf(chat).slice(0, 1).toUpperCase());
      face.style.setProperty("--hue", Math.abs(chat.id * 47) % 360);
      const button = element(
        "button",
        { type: "button", "data-chat": chat.id, "aria-current": chat.id === state.chat, onclick: () => open(chat.id) },
        face,
        label,
      );
      if (unread) button.append(element("span", { class: "unread", "aria-label": `${unread} unread` }, String(unread)));
      return element("li", {}, button);
    }),
  );
}

async function open(chat) {
  state.chat = chat;
  state.unread.delete(chat);
  const entries = state.bot ? await call(`timeline?bot=${state.bot}&chat=${chat}`) : [];
  if (state.chat !== chat) return;
  state.entries = new Map(entries.map((entry) => [entry.message_id, entry]));
  const { people, type } = currentChat();
  $("title").textContent = nameOf(currentChat());
  $("subtitle").textContent = type === "private" ? "private chat" : people.map((one) => one.first_name).join(", ");
  $("as").replaceChildren(...people.map((one) => element("option", { value: one.id }, one.first_name)));
  $("as-box").hidden = people.length < 2;
  $("typing").hidden = true;
  drawLog();
  drawChats();
  drawCommands();
}

// --- messages

function drawLog() {
  const bubbles = [...state.entries.values()].map(bubble);
  const empty = element("p", { class: "empty" }, "Nothing here yet. Say hello to the bot.");
  $("log").replaceChildren(...(bubbles.length ? bubbles : [empty]));
  $("log").scrollTop = $("log").scrollHeight;
}

function clock(at) {
  const date = new Date(at);
  return `${date.toLocaleTimeString([], { hour12: false })}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

function span(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

function bubble(entry) {
  const { message } = entry;
  const made = element("article", { class: `bubble ${entry.side}`, "data-message-id": entry.message_id });
  if (entry.deleted_at) made.classList.add("deleted");
  if (entry.side === "bot" || currentChat()?.type !== "private") {
    made.append(element("div", { class: "author" }, message.from.first_name));
  }
  if (message.reply_to_message) made.append(element("div", { class: "quote" }, summary(message.reply_to_message)));
  made.append(element("div", { class: "body" }, ...body(message)));
  if (message.reply_markup && !entry.deleted_at) made.append(inlineKeyboard(entry));
  made.append(timeOf(entry));
  return made;
}

function timeOf(entry) {
  const line = element("div", { class: "time" });
  if (entry.after_ms !== null) line.append(element("span", { class: "after" }, `+${span(entry.after_ms)}`), " · ");
  line.append(element("time", { datetime: new Date(entry.at).toISOString() }, clock(entry.at)));
  if (entry.deleted_at) line.append(` · deleted ${clock(entry.deleted_at)}`);
  else if (entry.edited_at) line.append(` · edited ${clock(entry.edited_at)}`);
  return line;
}

const MEDIA = {
  photo: "Photo", document: "Document", audio: "Audio", video: "Video", voice: "Voice message", animation: "Animation",
  video_note: "Video message", sticker: "Sticker", location: "Location", venue: "Venue", contact: "Contact",
};

function summary(message) {
  if (message.text) return message.text;
  if (message.poll) return `Poll: ${message.poll.question}`;
  if (message.dice) return `${message.dice.emoji} ${message.dice.value}`;
  const kind = Object.keys(MEDIA).find((name) => message[name]);
  const detail = message.document?.file_name ?? message.venue?.title ?? message.contact?.first_name ?? "";
  return [MEDIA[kind] ?? "Message", detail].filter(Boolean).join(": ");
}

function body(message) {
  if (message.text) return formatted(message.text, message.entities ?? []);
  const parts = [element("strong", {}, summary(message))];
  for (const option of message.poll?.options ?? []) parts.push(`\n○ ${option.text}`);
  if (message.caption) parts.push("\n", ...formatted(message.caption, message.caption_entities ?? []));
  return parts;
}

// Entities nest properly; each becomes an element around what it covers. Offsets are UTF-16 units, as in JavaScript.
function formatted(text, entities, from = 0, to = text.length) {
  const parts = [];
  let at = from;
  const rest = [...entities];
  while (rest.length) {
    const entity = rest.shift();
    const end = Math.min(entity.offset + entity.length, to);
    const inside = [];
    while (rest.length && rest[0].offset < end) inside.push(rest.shift());
    parts.push(...plain(text.slice(at, entity.offset)), wrap(entity, text.slice(entity.offset, end), formatted(text, inside, entity.offset, end)));
    at = end;
  }
  parts.push(...plain(text.slice(at, to)));
  return parts;
}

// Commands in what the bot writes can be clicked too, though nobody marked them.
function plain(text) {
  return text.split(/((?<![^\s(])\/\w+)/).map((part, at) => (at % 2 ? command(part) : part));
}

function command(text) {
  return element("button", { type: "button", class: "command", onclick: () => write(text) }, text);
}

const TAGS = {
  bold: "strong", italic: "em", underline: "u", strikethrough: "s", blockquote: "blockquote",
};

function wrap(entity, text, children) {
  if (entity.type === "bot_command") return command(text);
  if (entity.type === "code" || entity.type === "pre") return element(entity.type, {}, text);
  if (entity.type === "spoiler") return element("span", { class: "spoiler", tabindex: "0" }, ...children);
  if (entity.type === "text_link") return link(entity.url, children);
  return element(TAGS[entity.type] ?? "span", {}, ...children);
}

function link(url, children) {
  const safe = /^https?:\/\//.test(url);
  return safe ? element("a", { href: url, target: "_blank", rel: "noreferrer" }, ...children) : element("span", {}, ...children);
}

function inlineKeyboard(entry) {
  const rows = entry.message.reply_markup.inline_keyboard.map((row) =>
    element("div", {}, ...row.map((button) => {
      if (button.url) return link(button.url, [button.text]);
      return element("button", { type: "button", onclick: () => press(entry, button) }, button.text);
    })),
  );
  return element("div", { class: "inline" }, ...rows);
}

// --- what a person does

async function act(deed) {
  try {
    await call(`updates?bot=${state.bot}`, { chat: state.chat, user: Number($("as").value), ...deed });
  } catch (error) {
    toast(error.message);
  }
}

const write = (text) => act({ text });
const press = (entry, button) => act({ press: { message_id: entry.message_id, data: button.callback_data ?? "" } });

$("compose").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("message").value;
  if (!text.trim()) return;
  $("message").value = "";
  await write(text);
  $("message").focus();
});

$("add-chat").addEventListener("submit", async (event) => {
  event.preventDefault();
  const title = $("new-chat").value.trim();
  const number = Math.max(1000, ...state.chats.map((chat) => Math.abs(chat.id))) + 1;
  const group = $("new-kind").value === "group";
  const everybody = state.chats.flatMap((chat) => chat.people).map((one) => [one.id, one.first_name]);
  try {
    const people = group ? Object.fromEntries(everybody) : { [number]: title };
    const { chat } = await call("chats", { chat: group ? -number : number, title, people });
    $("new-chat").value = "";
    await refresh();
    await open(chat);
  } catch (error) {
    toast(error.message);
  }
});

$("bots").addEventListener("change", async () => {
  state.bot = Number($("bots").value);
  await refresh();
  await open(state.chat);
});

let toastTimer = 0;
function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").hidden = true; }, 4000);
}

// --- what happens

function arrived(entry) {
  state.last.set(entry.chat, summary(entry.message));
  if (entry.chat !== state.chat) {
    state.unread.set(entry.chat, (state.unread.get(entry.chat) ?? 0) + 1);
  } else {
    const known = state.entries.has(entry.message_id);
    state.entries.set(entry.message_id, entry);
    if (entry.side === "bot") $("typing").hidden = true;
    if (known) return;
    $("log").querySelector(".empty")?.remove();
    $("log").append(bubble(entry));
    $("log").scrollTop = $("log").scrollHeight;
    if (entry.keyboard) drawCommands();
  }
  drawChats();
}

function changed(entry) {
  if (!entry.deleted_at) state.last.set(entry.chat, summary(entry.message));
  drawChats();
  if (entry.chat !== state.chat) return;
  state.entries.set(entry.message_id, entry);
  $("log").querySelector(`[data-message-id="${entry.message_id}"]`)?.replaceWith(bubble(entry));
}

let typingTimer = 0;
function acting(event) {
  if (event.chat !== state.chat) return;
  const doing = event.action === "typing" ? "is typing" : `is busy: ${event.action.replaceAll("_", " ")}`;
  $("typing").textContent = `${currentBot()?.name ?? "The bot"} ${doing} …`;
  $("typing").hidden = false;
  clearTimeout(typingTimer);
  typingTimer = setTimeout(() => { $("typing").hidden = true; }, 5000);
}

const handlers = {
  message: (event) => arrived(event.entry),
  changed: (event) => changed(event.entry),
  action: acting,
  answered: (event) => { if (event.text) toast(event.text); },
  reset: async () => { state.last.clear(); state.unread.clear(); await open(state.chat); },
};

function listen() {
  const events = new EventSource("/playground/events");
  events.onopen = async () => {
    await refresh();
    if (state.chat !== null) await open(state.chat); // what happened while there was no connection
    document.documentElement.dataset.live = "true";
  };
  events.onmessage = (line) => {
    const event = JSON.parse(line.data);
    if (event.bot && event.bot !== state.bot && state.bot) return refresh();
    return (handlers[event.kind] ?? refresh)(event);
  };
}

listen();
setInterval(() => refresh().catch(() => {
  $("status").textContent = "The stand-in does not answer. The page goes on by itself once it is back.";
  $("status").hidden = false;
}), 2000);
