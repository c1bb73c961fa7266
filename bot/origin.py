"""The origin of a send: what it carries of the update that it was made for, and what is made of that when it fails."""

from typing import Any

from telegram import Chat, Update, User

from bot.derived import chat_of


class FailedUpdate(Update):
    """The update for which a send failed, as far as it is still known: its number, its chat and its user."""

    __slots__ = ("_chat", "_user")

    def __init__(self, update_id: int, chat: Chat | None, user: User | None) -> None:
        super().__init__(update_id)
        with self._unfrozen():
            self._chat, self._user = chat, user

    @property
    def effective_chat(self) -> Chat | None:
        return self._chat

    @property
    def effective_user(self) -> User | None:
        return self._user


def origin_of(update: Update) -> dict[str, Any]:
    """What the sends of an update's handlers carry; for Run.about."""
    chat, user = update.effective_chat, update.effective_user
    return {
        "update_id": update.update_id,
        "chat": None if chat is None else {"id": chat.id, "type": chat.type},
        "user": None if user is None else {"id": user.id, "first_name": user.first_name, "is_bot": user.is_bot},
    }


def origin_of_job(chat_id: int | None, user_id: int | None) -> dict[str, Any]:
    """The same for a job's, which has no update: its number is 0."""
    return {
        "update_id": 0,
        "chat": None if chat_id is None else chat_of(str(chat_id)),
        "user": None if user_id is None else {"id": user_id, "first_name": "", "is_bot": False},
    }
