"""What the bot says of itself, in plain words."""

from queueing.contract import QueueStats
from queueing.limits import OFF, Rate, RateLimits

TOO_MANY = "Too many people are asking just now. Please ask again in a few minutes."
NO_ANSWER = "I could not get an answer just now. Please ask again in a moment."
BROKE_OFF = "[The answer broke off here. Please ask again.]"
UNKNOWN = "I don't know that command. /help lists those I do."
FORGOTTEN = "Forgotten. What shall we talk about?"


def greeting(name: str, answers: bool) -> str:
    what = "ask me anything" if answers else "I am a demonstration, and repeat what you say"
    return f"Hello, {name}! I am the bot of telequeue: {what}. All I send goes through one queue of all my processes."


def help_text(commands: list[tuple[str, str]], answers: bool) -> str:
    rest = "I answer any other text." if answers else "Any other text I repeat."
    return "\n".join([*(f"/{name}: {what}" for name, what in commands), "", rest])


def echo(text: str) -> str:
    return f"You said: {text[:1000]}"


def in_line(ahead: int) -> str:
    """ahead: 0: it is being answered."""
    return f"You are number {ahead} in line. I answer here as soon as it is your turn." if ahead else "…"


def subscribed(new: bool) -> str:
    if new:
        return "Subscribed: this chat gets the bot's news. /unsubscribe ends that."
    return "This chat is subscribed already. /unsubscribe ends that."


def unsubscribed(was: bool) -> str:
    return "Unsubscribed: no more news." if was else "This chat was not subscribed. /subscribe does that."


def queue(stats: QueueStats) -> str:
    depth, age = stats.depth, stats.oldest_age
    if not depth:
        return "The queue is empty: a message leaves at once."
    count = "1 message is" if depth == 1 else f"{depth:,} messages are"
    if age is None or age < 1:
        return f"{count} in the queue, and none has waited for as long as a second."
    return f"{count} in the queue. The one that has waited longest has waited for {_duration(age)}."


def limits(of: RateLimits, chat: str) -> str:
    """Those that hold for a chat, given by its canonical name."""
    here, all_ = of.of_chat(chat), of.of_bot(paid=False)
    if here == OFF and all_ == OFF:
        return "There is no limit to how much I send."
    many = "as many messages as I like" if here == OFF else f"at most {_rate(here)}"
    return f"I send {many} to this chat{'' if all_ == OFF else f', and {_rate(all_)} to all chats together'}."


def line(asking: int, at_once: int) -> str:
    if not asking:
        return "Nobody waits for an answer: ask me something."
    if asking < at_once:
        return f"I am answering {_count(asking, 'question')}, and yours would be answered at once."
    return f"I am answering {_count(at_once, 'question')}; {asking - at_once} wait in line, and yours would be next."


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number:,} {what}s"


def _rate(rate: Rate) -> str:
    per = "a second" if rate.period == 1 else "a minute" if rate.period == 60 else f"in {_duration(rate.period)}"
    return f"{_count(rate.count, 'message')} {per}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if whole >= 2 * size:
            return f"{whole // size} {name}s"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return "1 second" if whole == 1 else f"{whole} seconds"
