"""/broadcast: an admin sends a text to all subscribers, sees how far it is, and may call it back. Beside that, whoever
throws the bot out is no subscriber any more."""

import contextlib
from collections.abc import Collection
from hashlib import blake2b
from typing import Any, cast

from telegram import CallbackQuery, ChatMember, InlineKeyboardButton, InlineKeyboardMarkup, Message, Update
from telegram.error import BadRequest
from telegram.ext import (
    Application,
    CallbackQueryHandler,
    ChatMemberHandler,
    CommandHandler,
    ContextTypes,
    filters,
)

from bot.application import TelequeueApplication
from bot.broadcasts import Broadcasts, Progress, Shown, Status
from bot.subscribers import Subscribers
from queueing.errors import MalformedMessage, QueueFull

SEND, CANCEL = "broadcast:send:", "broadcast:cancel:"
"""What the buttons bring back, before a broadcast's id."""

USAGE = "Write what all subscribers are to get: /broadcast and your text."


def add_broadcast_handlers(application: Application[Any, Any, Any, Any, Any, Any]) -> None:
    """Adds the handlers; to be called before what answers unknown commands, which others than admins get."""
    services = cast(TelequeueApplication, application).telequeue
    from_admins = filters.UpdateType.MESSAGE & filters.Chat(services.admins)
    if services.broadcasts is None or services.subscribers is None:
        application.add_handler(CommandHandler("broadcast", cannot, filters=from_admins))
        return
    desk = _Desk(services.broadcasts, services.subscribers, services.admins)
    application.add_handler(CommandHandler("broadcast", desk.broadcast, filters=from_admins))
    application.add_handler(CallbackQueryHandler(desk.send, f"^{SEND}"))
    application.add_handler(CallbackQueryHandler(desk.cancel, f"^{CANCEL}"))
    application.add_handler(ChatMemberHandler(desk.thrown_out, ChatMemberHandler.MY_CHAT_MEMBER))


async def cannot(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    """Each process knows of its own messages alone."""
    assert update.message
    await update.message.reply_text("Broadcasts need the shared queue: USE_REDIS_QUEUE=true.")


class _Desk:
    def __init__(self, broadcasts: Broadcasts, subscribers: Subscribers, admins: Collection[int]) -> None:
        self._broadcasts = broadcasts
        self._subscribers = subscribers
        self._admins = admins

    async def broadcast(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Keeps the text, and asks whether it is to be sent."""
        message = update.message
        assert message
        text, entities = text_after_command(message)
        if not text:
            await message.reply_text(USAGE)
            return
        # The same draft if this is handled again.
        id = "m" + blake2b(f"{message.chat.id}:{message.message_id}".encode(), digest_size=12).hexdigest()
        try:
            what = self._broadcasts.compose(text, kwargs={"entities": entities} if entities else None)
            count = await self._subscribers.count()
            await self._broadcasts.draft(what, id)
        except MalformedMessage as error:
            await message.reply_text(f"That cannot be sent: {error}")
            return
        if not count:
            await message.reply_text("Nobody has subscribed yet.")
            return
        await message.reply_text(
            f"Send this to {_subscribers(count)}?",
            reply_markup=InlineKeyboardMarkup(
                [[_button("Send", SEND + id), _button("Cancel", CANCEL + id)]],
            ),
            do_quote=True,
        )

    async def send(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """The message that asked becomes the one that shows the progress: that has an id which Telegram knows."""
        query, message = self._pressed(update)
        if message is None:
            await _answer(query, "Only those may do this who may broadcast.")
            return
        id = str(query.data).removeprefix(SEND)
        try:
            progress = await self._broadcasts.start_draft(id, Shown(str(message.chat.id), message.message_id))
        except QueueFull:
            await _answer(query, "The queue is full. Nothing was sent; press again later.")
            return
        await _answer(query, "It has begun." if progress else "It was kept for an hour only. Write it again.")

    async def cancel(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Of a question, or of what is being sent."""
        query, message = self._pressed(update)
        if message is None:
            await _answer(query, "Only those may do this who may broadcast.")
            return
        progress = await self._broadcasts.cancel(str(query.data).removeprefix(CANCEL))
        if progress is None:
            await _answer(query, "")
            await query.edit_message_text("Nothing was sent.")
        else:
            await _answer(query, "Too late: all is sent." if progress.status is Status.DONE else "No more is sent.")

    async def thrown_out(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Blocked by a person, or removed from a group."""
        change = update.my_chat_member
        if change and change.new_chat_member.status in (ChatMember.BANNED, ChatMember.LEFT):
            await self._subscribers.remove(change.chat.id)

    def _pressed(self, update: Update) -> tuple[CallbackQuery, Message | None]:
        """The press, and the message with the button if it was an admin who pressed."""
        query = update.callback_query
        assert query
        message = query.message
        is_admin = isinstance(message, Message) and message.chat.id in self._admins
        return query, message if is_admin and isinstance(message, Message) else None


def text_after_command(message: Message) -> tuple[str, list[dict[str, Any]]]:
    """The rest of a message that begins with a command, and the entities in it, for a message of its own."""
    text = message.text or ""
    begin = len(text.split(maxsplit=1)[0]) if text else 0
    begin += len(text[begin:]) - len(text[begin:].lstrip())
    # Offsets count UTF-16 units, as characters here do: a command and white space have none beyond.
    entities = [entity.to_dict() for entity in message.entities if entity.offset >= begin]
    return text[begin:], [{**entity, "offset": entity["offset"] - begin} for entity in entities]


def describe(progress: Progress) -> str:
    """A broadcast in plain words."""
    ended = progress.total - progress.waiting
    counts = {
        "blocked": progress.blocked,
        "failed": progress.failed,
        "cancelled": progress.cancelled,
        "expired": progress.expired,
    }
    others = "".join(f", {count:,} {name}" for name, count in counts.items() if count)
    if progress.ended:
        head = "The broadcast is over." if progress.status is Status.DONE else "The broadcast was cancelled."
    elif progress.status is Status.CANCELLED:
        head = "The broadcast is being cancelled."
    else:
        head = f"The broadcast goes on: {100 * ended // max(1, progress.total)} %."
    return f"{head}\n{progress.sent:,} of {progress.total:,} sent{others}."


def cancel_keyboard(id: str) -> dict[str, Any]:
    """Below a progress message, as the Bot API has it."""
    return InlineKeyboardMarkup([[_button("Cancel", CANCEL + id)]]).to_dict()


def _button(text: str, data: str) -> InlineKeyboardButton:
    return InlineKeyboardButton(text, callback_data=data)


def _subscribers(count: int) -> str:
    return "1 subscriber" if count == 1 else f"{count:,} subscribers"


async def _answer(query: CallbackQuery, text: str) -> None:
    with contextlib.suppress(BadRequest):  # pressed too long ago: nobody looks at the button any more
        await query.answer(text or None)
