"""StatefulApplication: PTB's Application, whose data may be the runs' own instead of the process's."""

import logging
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final, Protocol

from telegram.ext import Application, BasePersistence, PersistenceInput

_logger = logging.getLogger(__name__)

AnyApplication = Application[Any, Any, Any, Any, Any, Any]


class DataById(Protocol):
    """What a run has of users and chats."""

    @property
    def user_data(self) -> MutableMapping[int, Any]: ...

    @property
    def chat_data(self) -> MutableMapping[int, Any]: ...


class RunState(DataById, Protocol):
    """All that a run has."""

    @property
    def bot_data(self) -> Any: ...

    @bot_data.setter
    def bot_data(self, value: Any) -> None: ...


STATE: Final[ContextVar[RunState | None]] = ContextVar("run_state", default=None)
"""That of the run that the caller is part of."""


class StatefulApplication(AnyApplication):
    """As PTB's, until `share_state` is called. From then on `user_data`, `chat_data` and `bot_data` are those of the
    caller's run. Outside of any, `bot_data` is the process's own, and the others have nobody in them.

    Iterating over `user_data` or `chat_data` shows those who are loaded: the update's own.
    """

    _nobody: DataById | None = None

    def share_state(self, nobody: DataById) -> None:
        """nobody: what there is of users and chats outside of any run."""
        self._nobody = nobody
        if self.persistence is not None and not isinstance(self.persistence, NoPersistence):
            _logger.warning(
                "the bot's %s is not used: all its data is in Redis, for all processes", type(self.persistence).__name__
            )
        self.persistence = NoPersistence()
        self.persistence.set_bot(self.bot)

    @property
    def _run(self) -> RunState | None:
        return None if self._nobody is None else STATE.get()

    @property
    def bot_data(self) -> Any:
        """The run's copy, or the process's own."""
        run = self._run
        return self.own_bot_data if run is None else run.bot_data

    @bot_data.setter
    def bot_data(self, value: Any) -> None:
        run = self._run
        if run is None:
            self.own_bot_data = value
        else:
            run.bot_data = value

    # PTB's own methods (drop_user_data, migrate_chat_data) work on the names with a line before them.

    @property  # type: ignore[override]
    def _user_data(self) -> MutableMapping[int, Any]:
        data = self._run or self._nobody
        return self._own_user_data if data is None else data.user_data

    @_user_data.setter
    def _user_data(self, value: MutableMapping[int, Any]) -> None:
        self._own_user_data = value

    @property  # type: ignore[override]
    def _chat_data(self) -> MutableMapping[int, Any]:
        data = self._run or self._nobody
        return self._own_chat_data if data is None else data.chat_data

    @_chat_data.setter
    def _chat_data(self, value: MutableMapping[int, Any]) -> None:
        self._own_chat_data = value

    @property
    def user_data(self) -> Mapping[int, Any]:
        """Not to be changed but for what its values hold, as in PTB."""
        return MappingProxyType(self._user_data)

    @user_data.setter
    def user_data(self, _: object) -> None:
        """PTB sets it once, to a view of what it has set before."""

    @property
    def chat_data(self) -> Mapping[int, Any]:
        """Likewise."""
        return MappingProxyType(self._chat_data)

    @chat_data.setter
    def chat_data(self, _: object) -> None:
        """Likewise."""

    def _mark_for_persistence_update(self, **of: Any) -> None:
        """Without a persistence, PTB's list of whom to store would only grow."""
        if self._nobody is None:
            super()._mark_for_persistence_update(**of)


class NoPersistence(BasePersistence[Any, Any, Any]):
    """Stores nothing. PTB lets handlers be `persistent=True` only where there is one; bot/state.py stores for it."""

    def __init__(self) -> None:
        super().__init__(PersistenceInput(bot_data=False, chat_data=False, user_data=False, callback_data=False))

    async def get_conversations(self, name: str) -> dict[Any, Any]:
        return {}

    async def get_user_data(self) -> dict[int, Any]:
        return {}

    async def get_chat_data(self) -> dict[int, Any]:
        return {}

    async def get_bot_data(self) -> Any:
        return {}

    async def get_callback_data(self) -> None:
        return None

    async def _nothing(self, *_: Any, **__: Any) -> None:
        pass

    update_conversation = update_user_data = update_chat_data = update_bot_data = update_callback_data = _nothing
    drop_user_data = drop_chat_data = refresh_user_data = refresh_chat_data = refresh_bot_data = flush = _nothing
